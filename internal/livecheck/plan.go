package livecheck

import (
	"cmp"
	"context"
	"crypto/tls"
	"net"
	"slices"
	"strings"
	"sync"

	"singlegate/discovery"
	"singlegate/gateway"
	"singlegate/internal/config"
)

// A checker makes one check: it plans all jobs, runs those of the doors and the
// nodes, then those of the routes behind the doors that opened.
type checker struct {
	prober
	file    *config.File
	cfg     *gateway.Config
	connect struct {
		host string
		port uint16
	}
	precedence *gateway.Precedence
	running    running
	nodes      map[string][]discovery.Node

	entries  []*entry
	doors    []*door
	uses     []*nodeUse
	sections []*section // of routes and ports, in the order of the file
	consulAt *job

	first, second []*job

	mu          sync.Mutex
	done, total int
}

// A section is one of the report in the making.
type section struct {
	title Finding
	at    string
	jobs  []*job
	notes []Finding
}

// A nodeUse is one port of one node and what it is there for.
type nodeUse struct {
	service string
	node    discovery.Node
	port    string
	use     use
	path    string
	job     *job
}

// lookAround asks the gateway about itself and its nodes. Nodes of the file
// count even where the gateway does not know them: that shows that it runs with
// another one.
func (c *checker) lookAround(ctx context.Context) {
	one, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	c.running = c.askAdmin(one, c.file.Admin)
	c.nodes = map[string][]discovery.Node{}
	for service, nodes := range c.file.Nodes {
		c.nodes[service] = slices.Clone(nodes)
	}
	for service, nodes := range c.running.nodes {
		for _, n := range nodes {
			known := slices.IndexFunc(c.nodes[service], func(o discovery.Node) bool { return o.ID == n.ID })
			if known < 0 {
				c.nodes[service] = append(c.nodes[service], n)
			} else {
				c.nodes[service][known].Status = n.Status
			}
		}
	}
	c.addTagRoutes()
}

func (c *checker) plan() {
	c.precedence = gateway.PrecedenceOf(c.cfg.Routes)
	c.listEntries()
	for _, e := range c.entries {
		if e.routes && e.port != 0 {
			c.doorAt(e, e.host, "")
		}
	}
	for i := range c.cfg.Routes {
		c.planRoute(&c.cfg.Routes[i])
	}
	for _, e := range c.entries {
		if !e.routes {
			c.planListener(e)
		}
	}
	for i := range c.cfg.NodePorts {
		c.planNodePorts(&c.cfg.NodePorts[i])
	}
	if c.Consul != nil {
		c.consulAt = &job{target: c.Consul.Address, probe: func(ctx context.Context) []Finding { return []Finding{c.consul(ctx, c.Consul)} }}
		c.first = append(c.first, c.consulAt)
	}
	c.planNodes()
}

func (c *checker) newSection(at string, title Code, pairs ...string) *section {
	s := &section{at: at, title: fine(title, pairs...)}
	c.sections = append(c.sections, s)
	return s
}

// add puts a probe into a section.
func (c *checker) add(s *section, j *job) {
	s.jobs = append(s.jobs, j)
	c.second = append(c.second, j)
}

// planRoute plans a route: on every listener, and for every node that its
// match can name.
func (c *checker) planRoute(r *gateway.Route) {
	s := c.routeSection(r)
	for _, path := range r.Paths {
		for _, e := range c.entries {
			switch {
			case !e.routes || len(r.Listeners) > 0 && !slices.Contains(r.Listeners, e.name):
			case e.port == 0:
				s.notes = append(s.notes, warning(portUnknown, "listener", e.name))
			case pinned(r, path):
				for i := range c.nodes[r.Service] {
					c.planRequest(s, r, path, e, &c.nodes[r.Service][i])
				}
			default:
				c.planRequest(s, r, path, e, nil)
			}
		}
		c.useNodes(r.Service, r.Port, routeUse(r, path), func(n *discovery.Node) string {
			return sentPath(r, path, pathFor(path, nameOf(n)))
		})
	}
	if r.Service != "" {
		if len(c.nodes[r.Service]) == 0 {
			s.notes = append(s.notes, warning(noNodes, "service", r.Service))
		}
		s.notes = append(s.notes, exposedPorts(c.nodes[r.Service], r.Port)...)
	}
	if !r.DeniesAll() {
		s.notes = append(s.notes, exposedPaths(r.Paths)...)
	}
}

func (c *checker) routeSection(r *gateway.Route) *section {
	name := r.Host + strings.Join(r.Paths, " ")
	switch {
	case r.Service != "":
		to := r.Service
		if r.Port != "" {
			to += ":" + r.Port
		}
		return c.newSection(r.At, titleService, "route", name, "to", to)
	case r.Static != "":
		return c.newSection(r.At, titleStatic, "route", name)
	case r.Page != "":
		return c.newSection(r.At, titlePage, "route", name, "to", r.Page)
	case r.Redirect == "":
		return c.newSection(r.At, titleClosed, "route", name)
	}
	return c.newSection(r.At, titleRedirect, "route", name, "to", withoutSecrets(r.Redirect))
}

func routeUse(r *gateway.Route, path string) use {
	if r.ForWebSockets(path) {
		return useWebSocket
	}
	return useHTTP
}

// nameOf is what clients call a node.
func nameOf(n *discovery.Node) string {
	if len(n.Names) > 0 {
		return n.Names[0]
	}
	return n.ID
}

// planRequest plans one request to a route; n is the node that it names.
func (c *checker) planRequest(s *section, r *gateway.Route, pattern string, e *entry, n *discovery.Node) {
	j, name := &job{}, ""
	if n != nil {
		j.who, name = n.ID, nameOf(n)
		j.behind = &behind{r.Service, n.ID, r.Port}
	}
	host, hostPattern := e.host, ""
	if r.Host != "" {
		host = hostFor(r.Host, name)
	}
	if strings.Contains(r.Host, nodeVariable) {
		hostPattern = r.Host
	}
	path, websocket := pathFor(pattern, name), r.ForWebSockets(pattern)
	t := c.at(e, host)
	j.target = scheme(e.tls, websocket) + "://" + t.header + path
	switch by := c.winner(e.name, host, path, websocket); {
	case by == r:
	case by != nil && by.Redirect == "":
		j.probe = func(context.Context) []Finding {
			return []Finding{warning(hiddenRoute, "route", by.Host+strings.Join(by.Paths, " "), "place", by.At)}
		}
		c.add(s, j)
		return
	default:
		return // sent to https on purpose
	}
	j.door = c.doorAt(e, host, hostPattern)
	if r.Redirect == "https" {
		c.secureDoors(host) // the client is sent there
	}
	j.probe = c.routeProbe(r, t, pattern, path)
	c.add(s, j)
}

// winner is the route of the config that takes a request; nil: none does.
func (c *checker) winner(listener, host, path string, websocket bool) *gateway.Route {
	if i := c.precedence.Winner(listener, host, path, websocket); i >= 0 {
		return &c.cfg.Routes[i]
	}
	return nil
}

// secureDoors are those of a name at every listener with TLS.
func (c *checker) secureDoors(host string) {
	for _, e := range c.entries {
		if e.tls && e.routes && e.port != 0 {
			c.doorAt(e, host, "")
		}
	}
}

// routeProbe is what a route is tried with.
func (c *checker) routeProbe(r *gateway.Route, t target, pattern, path string) func(context.Context) []Finding {
	one := func(f func(context.Context) Finding) func(context.Context) []Finding {
		return func(ctx context.Context) []Finding { return []Finding{f(ctx)} }
	}
	switch {
	case r.DeniesAll() && !r.ForWebSockets(pattern):
		return one(func(ctx context.Context) Finding { return c.closed(ctx, t, path) })
	case r.Redirect != "":
		return one(func(ctx context.Context) Finding { return c.redirects(ctx, t, path, r.Redirect) })
	case r.Static != "" || r.Page != "":
		return one(func(ctx context.Context) Finding {
			return c.served(ctx, t, strings.TrimSuffix(path, "/")+"/", r.Static != "")
		})
	case r.ForWebSockets(pattern):
		return one(func(ctx context.Context) Finding { return c.webSocket(ctx, c.upgradeOf(r, t, pattern, path)) })
	}
	return one(func(ctx context.Context) Finding { return c.reachable(ctx, t, path) })
}

func (c *checker) upgradeOf(r *gateway.Route, t target, pattern, path string) upgrade {
	u := upgrade{
		target: t, path: path, sent: sentPath(r, pattern, path),
		byClose: r.Refuse == gateway.RefuseClose, httpToo: r.Accept != gateway.AcceptWebSocket,
		guarded: len(r.Auth.Names) > 0,
	}
	if r.Rewrite == "" && len(segments(pattern)) > 0 {
		u.prefix = path
	}
	if len(r.Origins) > 0 && r.Origins[0] != "*" {
		u.origin = r.Origins[0]
	}
	if c.Chinese {
		u.languages = "zh-CN"
	}
	return u
}

// planListener plans a listener that is one TCP port of a whole service.
func (c *checker) planListener(e *entry) {
	l := e.listener
	s := c.newSection(l.At, titleListener, "listener", e.name, "to", serviceAndPort(l.Service, l.Port))
	c.useNodes(l.Service, l.Port, useTCP, nil)
	s.notes = append(s.notes, exposedPorts(c.nodes[l.Service], l.Port)...)
	if e.port == 0 {
		s.notes = append(s.notes, warning(portUnknown, "listener", e.name))
		return
	}
	t := c.at(e, e.host)
	c.add(s, &job{target: tcpScheme(e.tls) + "://" + joinPort(e.host, e.port), probe: func(ctx context.Context) []Finding {
		return c.portProbe(ctx, t, c.settles(t))
	}})
}

func serviceAndPort(service, port string) string {
	if port == "" {
		return service
	}
	return service + ":" + port
}

func tcpScheme(tls bool) string {
	if tls {
		return "tls"
	}
	return "tcp"
}

// planNodePorts plans the public port of each node of a service.
func (c *checker) planNodePorts(np *gateway.NodePort) {
	s := c.newSection(np.At, titleNodePorts, "to", serviceAndPort(np.Service, np.Port), "kind", np.Kind)
	nodes := c.nodes[np.Service]
	if len(nodes) == 0 {
		s.notes = append(s.notes, warning(noNodes, "service", np.Service))
	}
	for i := range nodes {
		c.planNodePort(s, np, &nodes[i])
	}
	nodeUse := useTCP
	if np.Kind == "http" {
		nodeUse = useWebSocket
	}
	c.useNodes(np.Service, np.Port, nodeUse, nil)
	for _, f := range c.running.faults {
		if f.At == np.At {
			s.notes = append(s.notes, failure(portNotOpen, "name", f.Name, "reason", f.Reason))
		}
	}
	s.notes = append(s.notes, exposedPorts(nodes, np.Port)...)
}

func (c *checker) planNodePort(s *section, np *gateway.NodePort, n *discovery.Node) {
	if _, ok := n.Port(np.Port); !ok {
		return // planNodes says so
	}
	port, ok := publicPort(np.Listen, n, np.Port)
	if !ok {
		s.notes = append(s.notes, warning(portUnknown, "listener", n.ID))
	}
	if port == 0 {
		return
	}
	e := &entry{name: n.ID, tls: np.TLS, host: cmp.Or(c.cfg.Public.Host, ownHost(np.Host)), port: port, dialPort: port}
	t := c.at(e, e.host)
	urlScheme, with := tcpScheme(np.TLS), c.settles(t)
	if np.Kind != "tcp" {
		http, websocket := gateway.Uses(c.cfg.Routes, np.Service, n, np.Port)
		u := c.upgradeOf(&gateway.Route{Accept: gateway.AcceptWebSocket, Refuse: np.Refuse, Origins: np.Origins, Policies: np.Policies}, t, "/", "/")
		urlScheme = scheme(np.TLS, websocket)
		with = func(ctx context.Context, _ net.Conn) Finding { return c.webPort(ctx, u, http, websocket) }
	}
	closed := n.Status == discovery.Maintenance
	c.add(s, &job{who: n.ID, behind: &behind{np.Service, n.ID, np.Port}, target: urlScheme + "://" + joinPort(e.host, port), probe: func(ctx context.Context) []Finding {
		findings := c.portProbe(ctx, t, with)
		for i := range findings {
			if closed && findings[i].Code == closedAtOnce {
				findings[i] = warning(gatewayDraining)
			}
		}
		return findings
	}})
}

// settles is the probe of a port for TCP.
func (c *checker) settles(t target) func(context.Context, net.Conn) Finding {
	return func(_ context.Context, conn net.Conn) Finding { return c.tunnel(conn, t.address) }
}

// useNodes notes that a port of a service's nodes is used, so that it is dialled.
func (c *checker) useNodes(service, port string, u use, path func(*discovery.Node) string) {
	for i := range c.nodes[service] {
		n := &c.nodes[service][i]
		at := slices.IndexFunc(c.uses, func(o *nodeUse) bool { return o.service == service && o.node.ID == n.ID && o.port == port })
		if at < 0 {
			c.uses = append(c.uses, &nodeUse{service: service, node: *n, port: port, use: -1})
			at = len(c.uses) - 1
		}
		if entry := c.uses[at]; u > entry.use {
			entry.use, entry.path = u, "/"
			if path != nil {
				entry.path = path(n)
			}
		}
	}
}

// planNodes plans the dialling of every node port in use, by service and node.
func (c *checker) planNodes() {
	slices.SortStableFunc(c.uses, func(a, b *nodeUse) int {
		return cmp.Or(cmp.Compare(a.service, b.service), cmp.Compare(a.node.ID, b.node.ID), cmp.Compare(a.port, b.port))
	})
	header := "localhost"
	if len(c.entries) > 0 {
		header = c.at(c.entries[0], c.entries[0].host).header
	}
	for _, u := range c.uses {
		who := u.service + "/" + u.node.ID
		if u.port != "" {
			who += " " + u.port
		}
		port, ok := u.node.Port(u.port)
		u.job = &job{who: who, target: joinPort(u.node.Address, port)}
		t := target{role: toNode, address: u.job.target, header: header, verify: c.nodeTLS(u)}
		t.tls = t.verify != nil
		u.job.probe = func(ctx context.Context) []Finding { return []Finding{c.node(ctx, t, u.use, u.path)} }
		if !ok {
			u.job.target = u.node.Address
			u.job.probe = func(context.Context) []Finding { return []Finding{warning(noNodePort, "port", u.port)} }
		}
		c.first = append(c.first, u.job)
	}
}

// nodeTLS is how the gateway speaks TLS with the node; nil: it does not.
func (c *checker) nodeTLS(u *nodeUse) *tls.Config {
	for _, ref := range c.cfg.Services {
		if ref.Name != u.service || ref.TLS == nil || ref.TLS.Config == nil || len(ref.TLS.Ports) > 0 && !slices.Contains(ref.TLS.Ports, u.port) {
			continue
		}
		cfg := ref.TLS.Config.Clone()
		cfg.ServerName = cmp.Or(cfg.ServerName, u.node.Address)
		return cfg
	}
	return nil
}
