package config

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/goccy/go-yaml/ast"

	"singlegate/discovery"
	"singlegate/gateway"
)

// where is what the file says of sources of nodes other than itself.
type where struct {
	consul *discovery.ConsulConfig
	tags   tagRoutes
	cache  string
}

// tagRoutes is what the file says of routes that services in Consul ask for by
// their tags.
type tagRoutes struct {
	at        pos
	prefix    string // "": there are none
	listeners []text
}

func (d *decoder) discovery(v value) (where, bool) {
	o, ok := d.object(v, "discovery")
	if !ok {
		return where{}, false
	}
	var w where
	read(o, "consul", &w.consul, func(v value) (*discovery.ConsulConfig, bool) { return d.consul(v, &w.tags) })
	read(o, "cache", &w.cache, d.path)
	o.done()
	return w, true
}

// consul takes the settings of Consul, or just its address, and what tags there
// may ask for.
func (d *decoder) consul(v value, tags *tagRoutes) (*discovery.ConsulConfig, bool) {
	c := &discovery.ConsulConfig{}
	if _, ok := scalar(v.node); ok {
		var good bool
		c.Address, good = d.consulAddress(v)
		return c, good
	}
	o, ok := d.object(v, "consul")
	if !ok {
		return nil, false
	}
	read(o, "address", &c.Address, d.consulAddress)
	read(o, "scheme", &c.Scheme, oneOf(d, "http", "https"))
	read(o, "datacenter", &c.Datacenter, plain(d.text))
	read(o, "token_file", &c.TokenFile, d.path)
	read(o, "ca", &c.CAFile, d.path)
	read(o, "cert", &c.CertFile, d.path)
	read(o, "key", &c.KeyFile, d.path)
	read(o, "server_name", &c.ServerName, plain(d.text))
	read(o, "stale", &c.Stale, d.boolean)
	read(o, "tag_routes", tags, d.tagRoutesOf)
	if read(o, "wait", &c.Wait, d.duration) && (c.Wait < time.Second || c.Wait > 10*time.Minute) {
		d.errorf(o.byKey["wait"].value.at, "wait: Consul takes 1s to 10m")
	}
	if o.has("cert") != o.has("key") {
		d.errorf(o.at, "consul: cert and key go together; they are how the gateway proves itself to Consul")
	}
	o.done()
	return c, true
}

// tagRoutesOf takes how tags begin, or that and the listeners of the routes.
func (d *decoder) tagRoutesOf(v value) (t tagRoutes, ok bool) {
	t.at = v.at
	prefix := plain(d.checked(checkTagPrefix))
	if _, short := scalar(v.node); short {
		t.prefix, ok = prefix(v)
		return t, ok
	}
	if _, long := v.node.(*ast.MappingNode); !long {
		d.fail(v, "expected how the tags begin (fabio's begin with urlprefix-), or {prefix, listeners}, not %s", kind(v.node))
		return t, false
	}
	o, ok := d.object(v, "tag_routes")
	if !ok {
		return t, false
	}
	ok = require(o, "prefix", &t.prefix, prefix)
	read(o, "listeners", &t.listeners, filled(d, d.text))
	o.done()
	return t, ok
}

// checkTagPrefix refuses what cannot tell such tags from others.
func checkTagPrefix(s string) string {
	switch {
	case s == "yes" || s == "on":
		return "expected how the tags begin; fabio's begin with urlprefix-"
	case strings.ContainsFunc(s, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }):
		return "a prefix has no space"
	case strings.Trim(s, "/:*.") == "":
		return "it would take tags that mean something else; fabio's begin with urlprefix-"
	}
	return ""
}

// tagRoutes is what the routes of tags have in common; nil: there are none.
func (d *decoder) tagRoutes(t tagRoutes, ls listeners, waits gateway.Timeouts) *gateway.Route {
	r := &route{listeners: t.listeners, Route: gateway.Route{
		At: d.place(t.at), Accept: gateway.AcceptAny, Listeners: valuesOf(t.listeners),
		Balance: gateway.RoundRobin, Refuse: gateway.RefuseStatus, Timeouts: waits,
	}}
	d.checkListeners(r, ls)
	if t.prefix == "" {
		return nil
	}
	return &r.Route
}

// consulAddress does not show what may hold a password.
func (d *decoder) consulAddress(v value) (string, bool) {
	if raw, ok := scalar(v.node); ok && strings.Contains(raw, "@") {
		d.fail(v, "an address holds no user; put user and password into the environment variable CONSUL_HTTP_AUTH")
		return "", false
	}
	return plain(d.checked(checkConsulAddress))(v)
}

// checkConsulAddress takes host:port, or a URL whose scheme is one of Consul's.
func checkConsulAddress(s string) string {
	scheme, rest, isURL := strings.Cut(s, "://")
	switch {
	case isURL && scheme == "unix" && strings.HasPrefix(rest, "/"):
		return ""
	case isURL && scheme != "http" && scheme != "https":
		return "expected host:port, or a URL that begins with http://, https:// or unix:///"
	case strings.Contains(s, "@"):
		return "it holds a user; put user and password into CONSUL_HTTP_AUTH"
	case isURL:
		s, _, _ = strings.Cut(rest, "/")
	}
	host, port, problem := splitAddress(s)
	if problem == "" && (host == "" || port == 0) {
		problem = "has no host or no port"
	}
	return problem
}

// elsewhere decodes where else a service's nodes come from, and which ports of
// theirs have which names.
func (d *decoder) elsewhere(o *object, s *service) {
	name := s.ref.Name
	if o.has("consul") {
		s.consul = &discovery.ConsulService{At: s.ref.At, Name: name}
		read(o, "consul", s.consul, d.consulService(*s.consul))
	}
	if o.has("dns") {
		s.dns = &discovery.DNSService{At: s.ref.At, Name: name}
		read(o, "dns", s.dns, d.dnsService(*s.dns))
	}
	var ports map[string]discovery.PortFrom
	read(o, "ports", &ports, d.portSources)
	switch {
	case o.has("consul") && o.has("dns"):
		d.errorf(o.keyAt("dns"), "a service has consul or dns, not both")
	case o.has("ports") && !o.has("consul"):
		d.errorf(o.keyAt("ports"), "ports says which ports of instances in Consul are meant; nodes in the file have ports of their own")
	case s.consul != nil:
		s.consul.Ports = ports
	}
}

// consulService takes the name of a service in Consul, or more of it.
func (d *decoder) consulService(s discovery.ConsulService) func(value) (discovery.ConsulService, bool) {
	return func(v value) (discovery.ConsulService, bool) {
		if _, ok := scalar(v.node); ok {
			t, ok := d.checked(checkConsulName)(v)
			s.Service = t.value
			return s, ok
		}
		o, ok := d.object(v, "consul")
		if !ok {
			return s, false
		}
		require(o, "service", &s.Service, plain(d.checked(checkConsulName)))
		read(o, "tag", &s.Tag, plain(d.text))
		read(o, "node_id", &s.NodeID, plain(d.checked(checkNodeID)))
		o.done()
		return s, true
	}
}

// checkConsulName is what a service in Consul can be called.
func checkConsulName(s string) string {
	if strings.ContainsAny(s, "?#") {
		return "no service in Consul has ? or # in its name"
	}
	return checkName(s)
}

func checkNodeID(s string) string {
	kind, rest, _ := strings.Cut(s, ".")
	if s == "id" || s == "node" || (kind == "meta" || kind == "tag") && rest != "" {
		return ""
	}
	return "expected id (the service id), node (the name of Consul's node), meta.KEY or tag.PREFIX"
}

func (d *decoder) dnsService(s discovery.DNSService) func(value) (discovery.DNSService, bool) {
	return func(v value) (discovery.DNSService, bool) {
		o, ok := d.object(v, "dns")
		if !ok {
			return s, false
		}
		read(o, "srv", &s.SRV, plain(d.checked(checkDNSName)))
		read(o, "name", &s.Host, plain(d.checked(checkDNSName)))
		read(o, "port", &s.Port, d.port)
		read(o, "interval", &s.Interval, d.wait)
		o.done()
		switch {
		case o.has("srv") == o.has("name"):
			d.errorf(o.at, "dns has srv (SRV records), or name and port (A and AAAA records)")
			return s, false
		case o.has("srv") && o.has("port"):
			d.errorf(o.keyAt("port"), "port: SRV records have their own")
			return s, false
		case o.has("name") && !o.has("port"):
			d.errorf(o.at, "dns: name needs a port; addresses have none")
			return s, false
		}
		return s, true
	}
}

// checkDNSName is checkHostName for a name that may end with a dot, which keeps
// the resolver from adding domains to it.
func checkDNSName(s string) string {
	return checkHostName(strings.ToLower(strings.TrimSuffix(s, ".")))
}

// portSources takes where each named port of an instance comes from.
func (d *decoder) portSources(v value) (map[string]discovery.PortFrom, bool) {
	o, ok := d.object(v, "ports")
	if !ok {
		return nil, false
	}
	if len(o.fields) == 0 {
		d.fail(v, "no port stands here; leave ports away, or write ports: {http: port}")
		return nil, false
	}
	ports := map[string]discovery.PortFrom{}
	for _, f := range o.fields {
		if problem := checkName(f.key); problem != "" {
			d.errorf(f.at, "port name %s: %s", quote(f.key), problem)
		}
		var from discovery.PortFrom
		if read(o, f.key, &from, d.portFrom) {
			ports[f.key] = from
		}
	}
	return ports, len(ports) == len(o.fields)
}

func (d *decoder) portFrom(v value) (from discovery.PortFrom, ok bool) {
	if _, ok := scalar(v.node); !ok {
		o, ok := d.object(v, "a port")
		if !ok {
			return from, false
		}
		ok = require(o, "consul", &from.Sibling, plain(d.checked(checkConsulName)))
		o.done()
		return from, ok
	}
	t, ok := d.text(v)
	if !ok {
		return from, false
	}
	key, meta := strings.CutPrefix(t.value, "meta.")
	number, err := strconv.ParseUint(t.value, 10, 16)
	switch {
	case t.value == "port":
		return from, true
	case meta && checkName(key) == "":
		return discovery.PortFrom{Meta: key}, true
	case err == nil && number > 0:
		return discovery.PortFrom{Number: uint16(number)}, true
	}
	d.fail(v, "%s says no port; write port (the registered one), meta.KEY, a number, or {consul: NAME} (the port of a sibling service)", t.shown)
	return from, false
}

// portNames are those that nodes of a service have, sorted: in the file, and by
// what ports says of instances elsewhere.
func (s *service) portNames() (names []string, several bool) {
	names, several = portsOf(s.nodes)
	elsewhere := []string{""}
	if s.consul != nil && len(s.consul.Ports) > 0 {
		elsewhere = slices.Collect(maps.Keys(s.consul.Ports))
	}
	if s.consul != nil || s.dns != nil {
		several = several || len(elsewhere) > 1
		names = append(names, elsewhere...)
		slices.SortFunc(names, cmp.Compare)
		names = slices.Compact(names)
	}
	return names, several
}

// checkConsul reports services in Consul of a file that does not say where
// Consul is.
func (d *decoder) checkConsul(w where, ss services) {
	if address, ok := d.env("CONSUL_HTTP_ADDR"); w.consul != nil || ok && address != "" {
		return
	}
	for _, s := range ss.list {
		if s.consul != nil {
			d.errorf(s.at, "service %s comes from Consul; say where Consul is: discovery: {consul: {address: 127.0.0.1:8500}}", quote(s.ref.Name))
		}
	}
}
