package config

import (
	"maps"
	"slices"
	"strings"
	"unicode"

	"singlegate/certs"
	"singlegate/discovery"
	"singlegate/gateway"
)

// A service is one of the file.
type service struct {
	ref    gateway.ServiceRef
	nodes  []discovery.Node
	shared bool // some node has several ports

	client   *certs.Client // how its nodes are spoken to with TLS; nil: they are not
	tlsPorts []text
	broken   bool // its nodes could not all be read, so their ports are not all known

	fileOnly bool // all its nodes stand in the file
	at       pos
	consul   *discovery.ConsulService // nil: not from there
	dns      *discovery.DNSService
}

// services are those of the file, in its order.
type services struct {
	list   []*service
	byName map[string]*service
	broken bool // they could not all be read
}

func (d *decoder) servicesOf(o *object) services {
	ss := services{byName: map[string]*service{}}
	var all *object
	decode := func(v value) (*object, bool) { return d.object(v, "services") }
	if !read(o, "services", &all, decode) {
		ss.broken = o.has("services")
		return ss
	}
	for _, f := range all.fields {
		s := d.service(f)
		ss.list = append(ss.list, s)
		ss.byName[f.key] = s
	}
	return ss
}

func (d *decoder) service(f *field) *service {
	s := &service{at: f.at, ref: gateway.ServiceRef{At: d.place(f.at), Name: f.key, Tunnels: gateway.DefaultTunnelPolicy()}}
	errs := len(d.errs)
	if problem := checkName(f.key); problem != "" {
		d.errorf(f.at, "service %s: %s", quote(f.key), problem)
	}
	o, ok := d.object(f.value, "service "+quote(f.key))
	if ok {
		s.fileOnly = !o.has("consul") && !o.has("dns")
		if s.fileOnly {
			require(o, "nodes", &s.nodes, d.nodes)
		} else {
			read(o, "nodes", &s.nodes, d.nodes)
		}
		d.elsewhere(o, s)
	}
	s.broken = len(d.errs) > errs
	if ok {
		read(o, "tunnels", &s.ref.Tunnels, d.tunnels)
		read(o, "tunnels_per_node", &s.ref.TunnelsPerNode, d.integer(1, 1<<30))
		read(o, "source_addresses", &s.ref.SourceAddresses, d.sources)
		read(o, "check", &s.ref.Check, d.check)
		read(o, "tls", &s.ref.TLS, d.nodeTLS(s))
		o.done()
	}
	s.ref.Ports, s.shared = s.portNames()
	d.checkCheckPort(s)
	d.checkTLSPorts(s)
	return s
}

// portsOf gives the names of the ports that the nodes have, sorted, and whether
// some node has several.
func portsOf(nodes []discovery.Node) (names []string, several bool) {
	all := map[string]bool{}
	for _, n := range nodes {
		several = several || len(n.Ports) > 1
		for p := range n.Ports {
			all[p] = true
		}
	}
	return slices.Sorted(maps.Keys(all)), several
}

func (d *decoder) nodes(v value) ([]discovery.Node, bool) {
	o, ok := d.object(v, "nodes")
	if !ok {
		return nil, false
	}
	if len(o.fields) == 0 {
		d.fail(v, "a service needs a node at least; write app1: \"10.0.0.21:8888\"")
		return nil, false
	}
	var nodes []discovery.Node
	taken := nodeNames{}
	for _, f := range o.fields {
		if node, ok := d.node(f, taken); ok {
			nodes = append(nodes, node)
		}
	}
	return nodes, true
}

// nodeNames are the ids and names of a service's nodes in lower case, and where
// they stand.
type nodeNames map[string]pos

// claim takes a name for a node and reports one that another node has.
func (d *decoder) claim(taken nodeNames, s, shown string, at pos) {
	s = strings.ToLower(s)
	if first, ok := taken[s]; ok {
		d.errorf(at, "node name %s is taken: it stands at %s already (case does not count, as names stand in host names too)", shown, d.place(first))
		return
	}
	taken[s] = at
}

func (d *decoder) node(f *field, taken nodeNames) (discovery.Node, bool) {
	n := discovery.Node{ID: f.key, Weight: 1, Origin: d.place(f.at)}
	if problem := checkName(f.key); problem != "" {
		d.errorf(f.at, "node %s: %s", quote(f.key), problem)
	}
	d.claim(taken, f.key, quote(f.key), f.at)
	if d.missing(f) {
		return n, false
	}
	if _, short := scalar(f.value.node); short {
		return n, d.unnamedPort(f.value, &n)
	}
	o, ok := d.object(f.value, "node "+quote(f.key))
	if !ok {
		return n, false
	}
	ok = d.nodeAddress(o, &n)
	read(o, "weight", &n.Weight, d.integer(1, 1000))
	var names []text
	read(o, "names", &names, listOf(d, d.checked(checkName)))
	for _, t := range names {
		d.claim(taken, t.value, t.shown, t.at)
		n.Names = append(n.Names, t.value)
	}
	o.done()
	return n, ok
}

// nodeAddress reads an address and ports, or an address with its only port.
func (d *decoder) nodeAddress(o *object, n *discovery.Node) bool {
	if !o.has("ports") {
		o.take("ports")
		return require(o, "address", &struct{}{}, func(v value) (struct{}, bool) { return struct{}{}, d.unnamedPort(v, n) })
	}
	ok := read(o, "ports", &n.Ports, d.ports)
	return require(o, "address", &n.Address, d.nodeHost) && ok
}

// unnamedPort takes host:port for a node with one port.
func (d *decoder) unnamedPort(v value, n *discovery.Node) bool {
	t, ok := d.text(v)
	if !ok {
		return false
	}
	host, port, problem := splitAddress(t.value)
	switch {
	case isHost(unbracket(t.value)):
		problem = "has no port; write host:port, or give the node ports: {name: port}"
	case problem == "" && host == "":
		problem = "has no host before its port; a node needs one"
	case problem == "" && port == 0:
		problem = "has no port between 1 and 65535"
	}
	if problem != "" {
		d.fail(v, "%s %s", t.shown, problem)
		return false
	}
	n.Address, n.Ports = host, map[string]uint16{"": port}
	return true
}

// nodeHost is a node's address beside its ports.
func (d *decoder) nodeHost(v value) (string, bool) {
	t, ok := d.checked(func(s string) string {
		if _, port, problem := splitAddress(s); problem == "" && port > 0 {
			return "the node has ports as well; leave the port out of its address"
		}
		if !isHost(unbracket(s)) {
			return notAHost
		}
		return ""
	})(v)
	return unbracket(t.value), ok
}

func (d *decoder) ports(v value) (map[string]uint16, bool) {
	o, ok := d.object(v, "ports")
	if !ok {
		return nil, false
	}
	if len(o.fields) == 0 {
		d.fail(v, "a node needs a port at least; write ports: {http: 80}")
		return nil, false
	}
	ports := map[string]uint16{}
	for _, f := range o.fields {
		if problem := checkName(f.key); problem != "" {
			d.errorf(f.at, "port name %s: %s", quote(f.key), problem)
		}
		var port uint16
		ok = read(o, f.key, &port, d.port) && ok
		ports[f.key] = port
	}
	return ports, ok
}

// checkName gives what is wrong with a name of a service, node or port, or "".
func checkName(s string) string {
	switch {
	case s == "":
		return "a name must not be empty"
	case strings.ContainsFunc(s, func(r rune) bool { return r == '/' || unicode.IsSpace(r) || unicode.IsControl(r) }):
		return "a name has no slash and no space"
	}
	return ""
}

// elsewhere gives the services whose nodes come from Consul, and from DNS.
func (ss services) elsewhere() (consul []discovery.ConsulService, dns []discovery.DNSService) {
	for _, s := range ss.list {
		if s.consul != nil {
			consul = append(consul, *s.consul)
		}
		if s.dns != nil {
			dns = append(dns, *s.dns)
		}
	}
	return consul, dns
}

func (ss services) refs() []gateway.ServiceRef {
	var refs []gateway.ServiceRef
	for _, s := range ss.list {
		refs = append(refs, s.ref)
	}
	return refs
}

func (ss services) nodes() map[string][]discovery.Node {
	nodes := map[string][]discovery.Node{}
	for _, s := range ss.list {
		if s.fileOnly || len(s.nodes) > 0 {
			nodes[s.ref.Name] = s.nodes
		}
	}
	return nodes
}

// clients say how nodes are spoken to with TLS, by service.
func (ss services) clients() map[string]certs.Client {
	var clients map[string]certs.Client
	for _, s := range ss.list {
		if s.client == nil {
			continue
		}
		if clients == nil {
			clients = map[string]certs.Client{}
		}
		clients[s.ref.Name] = *s.client
	}
	return clients
}

func (ss services) names() []name {
	var names []name
	for _, s := range ss.list {
		names = append(names, name{s.ref.Name, quote(s.ref.Name)})
	}
	return names
}
