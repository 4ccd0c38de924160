package config

import (
	"fmt"
	"net"
	"slices"
	"strings"

	"singlegate/discovery"
	"singlegate/gateway"
)

// What a node port carries.
const (
	kindTCP  = "tcp"
	kindHTTP = "http"
)

// A nodePort is one of the file with what checks need of it.
type nodePort struct {
	gateway.NodePort
	o       *object
	own     ownTLS
	service text
	port    text
	ports   []mappedPort // of a listen that is a mapping of node ids
}

// A mappedPort is what listen says of one node.
type mappedPort struct {
	node string
	port uint16
	key  pos
	at   pos // of the port
}

// nodePortsOf decodes the node ports and checks them against what they refer
// to. The services must have been decoded.
func (d *decoder) nodePortsOf(o *object, ctx routeContext) []*nodePort {
	var list []*nodePort
	read(o, "node_ports", &list, listOf(d, func(v value) (*nodePort, bool) { return d.nodePort(v, ctx) }))
	return list
}

func (d *decoder) nodePort(v value, ctx routeContext) (*nodePort, bool) {
	o, ok := d.object(v, "a node port")
	if !ok {
		return nil, false
	}
	np := &nodePort{o: o}
	np.At, np.Timeouts = d.place(v.at), ctx.timeouts
	require(o, "service", &np.service, d.text)
	read(o, "port", &np.port, d.text)
	np.Service, np.Port = np.service.value, np.port.value
	require(o, "kind", &np.Kind, oneOf(d, kindTCP, kindHTTP))
	if np.Kind == kindHTTP {
		np.Refuse = gateway.RefuseStatus
	}
	read(o, "tls", &np.TLS, d.boolean)
	np.own = d.ownTLS(o, np.TLS, &np.Policy, &np.Clients)
	read(o, "address", &np.Host, d.bindHost)
	require(o, "listen", &np.Listen, d.portRule(np))
	d.proxyIn(o, &np.ProxyIn)
	read(o, "proxy_protocol", &np.ProxyProtocol, d.proxyProtocol)
	read(o, "origins", &np.Origins, d.origins)
	read(o, "refuse", &np.Refuse, oneOf(d, gateway.RefuseStatus, gateway.RefuseClose))
	read(o, "timeouts", &np.Timeouts, d.timeouts(ctx.timeouts))
	d.tunnelRules(o, &np.Frames, &np.Ping, np.Timeouts)
	d.requestPolicies(o, &np.Policies)
	d.authRule(o, &np.Auth, ctx.auths)
	o.done()

	if np.Kind == kindTCP {
		d.checkTCPClients(o, np.Clients)
	}
	d.checkPortKind(np)
	d.checkService(o, np.service, np.port, ctx.services)
	d.checkMappedNodes(np, ctx.services.byName[np.Service])
	d.checkProxyTLS(o, np.Port, ctx.services.byName[np.Service])
	return np, true
}

func (d *decoder) proxyProtocol(v value) (gateway.ProxyProtocol, bool) {
	return oneOf[gateway.ProxyProtocol](d, "v1", "v2")(v)
}

// bindHost is the address of this machine that ports are opened on.
func (d *decoder) bindHost(v value) (string, bool) {
	t, ok := d.checked(func(s string) string {
		if _, _, err := net.SplitHostPort(s); err == nil {
			return "the port comes from listen; write the host alone"
		}
		if !isHost(unbracket(s)) {
			return notAHost
		}
		return ""
	})(v)
	return unbracket(t.value), ok
}

// portRule takes what listen may be: same, meta.KEY, {base: 10080}, or a port
// for every node id. A mapping whose only key is base is always that form.
func (d *decoder) portRule(np *nodePort) func(value) (gateway.PortRule, bool) {
	return func(v value) (r gateway.PortRule, ok bool) {
		if _, ok := scalar(v.node); ok {
			return d.namedRule(v)
		}
		o, ok := d.object(v, "listen")
		switch {
		case !ok:
			return r, false
		case len(o.fields) == 0:
			d.fail(v, "it names no port; write listen: {node1: 5020}, {base: 10080}, meta.KEY or same")
			return r, false
		case len(o.fields) == 1 && o.has("base"):
			ok = read(o, "base", &r.Base, d.integer(0, 65535))
			return r, ok
		}
		return d.portMap(o, np)
	}
}

func (d *decoder) namedRule(v value) (r gateway.PortRule, ok bool) {
	t, ok := d.text(v)
	if !ok {
		return r, false
	}
	key, meta := strings.CutPrefix(t.value, "meta.")
	switch {
	case meta && checkName(key) == "":
		return gateway.PortRule{Meta: key}, true
	case t.value == "same":
		return gateway.PortRule{Same: true}, true
	}
	d.fail(v, "%s says no port for each node; write {node1: 5020}, {base: 10080}, meta.KEY (a key of the nodes' metadata) or same (the nodes' own)", t.shown)
	return r, false
}

// portMap reads ports by node id. Two nodes cannot have one.
func (d *decoder) portMap(o *object, np *nodePort) (r gateway.PortRule, ok bool) {
	r.Map, ok = map[string]uint16{}, true
	for _, f := range o.fields {
		var port uint16
		if !read(o, f.key, &port, d.port) {
			ok = false
			continue
		}
		r.Map[f.key] = port
		np.ports = append(np.ports, mappedPort{node: f.key, port: port, key: f.at, at: f.value.at})
	}
	return r, ok
}

// checkPortKind reports keys that mean nothing to the kind of the port.
func (d *decoder) checkPortKind(np *nodePort) {
	owners := map[string]string{
		"proxy_protocol": kindTCP, "origins": kindHTTP, "refuse": kindHTTP, "auth": kindHTTP, "frames": kindHTTP, "ping": kindHTTP,
		"cors": kindHTTP, "request_headers": kindHTTP, "response_headers": kindHTTP, "max_body": kindHTTP, "tunnels_per_user": kindHTTP,
	}
	for _, f := range np.o.fields {
		if owner := owners[f.key]; np.Kind != "" && owner != "" && owner != np.Kind {
			d.errorf(f.at, "%s means nothing to a node port of kind %s; it goes with kind %s", f.key, np.Kind, owner)
		}
	}
}

// checkMappedNodes reports ports for nodes that there cannot be.
func (d *decoder) checkMappedNodes(np *nodePort, s *service) {
	if s == nil || s.broken || !s.fileOnly {
		return
	}
	var ids []string
	for _, n := range s.nodes {
		ids = append(ids, n.ID)
	}
	for _, p := range np.ports {
		if !slices.Contains(ids, p.node) {
			d.errorf(p.key, "listen: service %s has no node %s%s", np.service.shown, quote(p.node), d.hint(p.node, "its nodes are", namesOf(ids)))
		}
	}
}

// A claim is a socket that something in the file wants for itself.
type claim struct {
	socket socket
	whose  string // "the listener at singlegate.yaml:3:5"
}

// checkPorts reports node ports that something else in the file has already, as
// far as the file tells which ports they are.
func (d *decoder) checkPorts(list []*nodePort, ls listeners, ss services, admin Admin) {
	var claims []claim
	for _, l := range ls.list {
		claims = append(claims, claim{l.socket, "the listener at " + l.At})
	}
	if admin.Address != "" {
		host, port, _ := splitAddress(admin.Address)
		claims = append(claims, claim{newSocket(host, port), "the admin listener"})
	}
	for _, np := range list {
		for _, p := range np.fixedPorts(ss.byName[np.Service]) {
			this := claim{newSocket(np.Host, p.port), fmt.Sprintf("node %s at %s", quote(p.node), d.place(p.at))}
			i := slices.IndexFunc(claims, func(other claim) bool { return overlap(this.socket, other.socket) })
			if i >= 0 {
				d.errorf(p.at, "listen: the port of node %s is that of %s already", quote(p.node), claims[i].whose)
				continue
			}
			claims = append(claims, this)
		}
	}
}

// fixedPorts are those that the file alone says: all of a mapping, and those of
// the nodes that are written in the file.
func (np *nodePort) fixedPorts(s *service) []mappedPort {
	if np.ports != nil || s == nil || !np.o.has("listen") {
		return np.ports
	}
	at := np.o.byKey["listen"].value.at
	var ports []mappedPort
	for _, n := range s.nodes {
		if port := np.ownPort(n); port > 0 {
			ports = append(ports, mappedPort{node: n.ID, port: port, key: at, at: at})
		}
	}
	return ports
}

// ownPort is the port that same or base gives a node; 0: none that is known.
func (np *nodePort) ownPort(n discovery.Node) uint16 {
	if !np.Listen.Same && np.Listen.Base == 0 {
		return 0
	}
	port, _ := np.Listen.PublicPort(&n, np.Port)
	return uint16(port)
}

// checkPortTLS reports node ports with TLS in a file without a certificate.
func (d *decoder) checkPortTLS(list []*nodePort) {
	for _, np := range list {
		if np.TLS {
			d.errorf(np.o.keyAt("tls"), "tls: a TLS port needs a certificate; add tls: {certificates: [{cert: …, key: …}]} to the file")
		}
	}
}

func nodePortConfigs(list []*nodePort) []gateway.NodePort {
	var configs []gateway.NodePort
	for _, np := range list {
		configs = append(configs, np.NodePort)
	}
	return configs
}

// listenerService reads what makes a listener a TCP port of a service, instead
// of one that serves routes.
func (d *decoder) listenerService(o *object, l *listener, waits gateway.Timeouts) {
	read(o, "service", &l.service, d.text)
	read(o, "port", &l.port, d.text)
	l.Service, l.Port = l.service.value, l.port.value
	if o.has("service") {
		l.Balance, l.Timeouts = gateway.RoundRobin, waits
	}
	read(o, "balance", &l.Balance, oneOf(d, gateway.RoundRobin, gateway.LeastConnections))
	read(o, "proxy_protocol", &l.ProxyProtocol, d.proxyProtocol)
	read(o, "timeouts", &l.Timeouts, d.timeouts(waits))
	if o.has("service") {
		return
	}
	for _, key := range []string{"port", "balance", "proxy_protocol", "timeouts"} {
		if o.has(key) {
			d.errorf(o.keyAt(key), "%s means nothing to a listener that serves routes; it goes with service", key)
		}
	}
}

// checkListenerServices reports TCP listeners of services that are not there.
func (d *decoder) checkListenerServices(ls listeners, ss services) {
	for _, l := range ls.list {
		if l.o != nil {
			d.checkService(l.o, l.service, l.port, ss)
			d.checkProxyTLS(l.o, l.port.value, ss.byName[l.service.value])
		}
	}
}
