package gateway

import (
	"cmp"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"singlegate/discovery"
	"singlegate/upstream"
)

// A ServiceStatus is what the gateway knows of a service, for operators.
type ServiceStatus struct {
	Name    string              `json:"name"`
	Known   bool                `json:"known"` // whether anything is known of its nodes
	Source  string              `json:"source,omitempty"`
	Taken   time.Time           `json:"taken"`           // when its source last confirmed it
	Fault   string              `json:"fault,omitempty"` // why it is not fresher
	Nodes   []NodeStatus        `json:"nodes"`
	LeftOut []discovery.LeftOut `json:"left_out,omitempty"`
	Gone    []GoneNode          `json:"gone,omitempty"` // by id

	Routes []discovery.TagRoute `json:"routes,omitempty"` // in force, that tags ask for; a node's weight is that against the others of the route
}

// A NodeStatus is what the gateway knows of a node, for operators.
type NodeStatus struct {
	Traffic
	ID           string            `json:"id"`
	Names        []string          `json:"names,omitempty"`
	Address      string            `json:"address"`
	Ports        map[string]uint16 `json:"ports"`
	Meta         map[string]string `json:"meta,omitempty"`
	Origin       string            `json:"origin"`
	Status       discovery.Status  `json:"status"`
	EjectedUntil time.Time         `json:"ejected_until,omitzero"` // balanced routes leave it out
	Draining     bool              `json:"draining"`               // by the operator
	Tunnels      int               `json:"tunnels"`
	Lingering    int               `json:"lingering,omitempty"`     // of them: a drain has closed them, and their clients have not answered
	TunnelsLimit int               `json:"tunnels_limit,omitempty"` // 0: no cap
	EntryPoints  []string          `json:"entry_points"`            // public URLs that lead to it
	Fault        string            `json:"fault,omitempty"`         // why it cannot be reached, if that is known beforehand
}

// Services tells of every service of the config and of the snapshot, by name.
func (s *Server) Services() []ServiceStatus {
	st := s.state.Load()
	entries := s.Entries()
	names := map[string]bool{}
	for _, ref := range st.cfg.Services {
		names[ref.Name] = true
	}
	if st.table.view != nil {
		for name := range st.table.view.Services {
			names[name] = true
		}
	}
	for key := range s.tunnels.counts() {
		names[key.Service] = true // it may be gone as a whole
	}
	list := make([]ServiceStatus, 0, len(names))
	for name := range names {
		list = append(list, s.serviceStatus(name, st, entries))
	}
	slices.SortFunc(list, func(a, b ServiceStatus) int { return cmp.Compare(a.Name, b.Name) })
	return list
}

func (s *Server) serviceStatus(name string, st *state, entries []Entry) ServiceStatus {
	status := ServiceStatus{Name: name, Nodes: []NodeStatus{}}
	svc := st.table.service(name)
	status.Gone = s.gone(name, svc)
	if svc == nil {
		status.Fault = strings.TrimPrefix(s.why(name), ": ")
		return status
	}
	status.Known, status.Source, status.Taken, status.LeftOut = true, svc.Source, svc.Taken, st.table.leftOutOf(svc)
	status.Fault = s.faultOf(svc)
	status.Routes = st.table.tagRoutesOf(name)
	for _, n := range nodesByID(svc) {
		status.Nodes = append(status.Nodes, NodeStatus{
			ID: n.ID, Names: n.Names, Address: n.Address, Ports: n.Ports, Meta: n.Meta, Origin: n.Origin, Status: n.Standing(),
			EjectedUntil: n.Ejected(), Draining: n.Draining(), Tunnels: s.tunnels.countOf(n.Key()),
			Lingering: s.tunnels.lingeringOf(n.Key()), TunnelsLimit: st.cfg.capsOf(name).perNode,
			EntryPoints: entryPoints(n, st, entries), Fault: addressFault(n, st.own),
		})
	}
	for i := range status.Nodes {
		n := &status.Nodes[i]
		n.Traffic = s.metrics.traffic.of(upstream.Key{Service: name, ID: n.ID})
	}
	return status
}

// faultOf says why a service is not known more freshly. What is known may come
// from a source that a reload has replaced, and the one that is to tell now may
// know nothing: then that is why.
func (s *Server) faultOf(svc *upstream.Service) string {
	why := strings.TrimPrefix(s.why(svc.Name), ": ")
	if why == "" || strings.Contains(svc.Fault, why) {
		return svc.Fault
	}
	return why
}

// addressFault is what is wrong with a node's addresses.
func addressFault(n *upstream.Node, own *ownSockets) string {
	for _, port := range slices.Sorted(maps.Keys(n.Ports)) {
		addr, _ := n.Addr(port)
		if listener, ours := own.at(addr); ours {
			return OwnAddress{n.Service, n.ID, addr, listener}.String()
		}
	}
	return ""
}

// PortFaults are the node ports that are wanted and not open, and why.
func (s *Server) PortFaults() []PortFault {
	s.control.Lock()
	defer s.control.Unlock()
	return slices.Clone(s.faults)
}

// entryPoints are the public URLs that lead to just this node, and those of
// routes that its tags ask for.
func entryPoints(n *upstream.Node, st *state, entries []Entry) []string {
	var urls []string
	for _, e := range entries {
		if e.implied != nil {
			if e.implied.node == n.ID && e.implied.route.Service == n.Service {
				urls = append(urls, e.portURLs(n, st.cfg.Routes)...)
			}
			continue
		}
		for _, r := range st.table.routes {
			if url, ok := r.sharedEntryPoint(e, n); ok {
				urls = append(urls, url)
			}
			if r.Service == n.Service && r.pinned() && (r.takes(e.Name, true) || r.takes(e.Name, false)) {
				urls = append(urls, r.entryPoints(e, n, st.cfg.Routes)...)
			}
		}
	}
	return urls
}

// portURLs are those of a node's own port.
func (e Entry) portURLs(n *upstream.Node, routes []Route) []string {
	at := "://" + e.hostPort("")
	if e.implied.tcp {
		return []string{tcpScheme(e.TLS) + at}
	}
	http, websocket := Uses(routes, n.Service, &n.Node, e.implied.route.Port)
	return withSchemes(webSchemes(e.TLS, http, websocket), at)
}

// entryPoints are the URLs of a pinned route for a node. Where accept leaves
// both kinds open, a URL for HTTP is given only if the port is for HTTP as well.
func (r *route) entryPoints(e Entry, n *upstream.Node, routes []Route) []string {
	name := n.ID
	if len(n.Names) > 0 {
		name = n.Names[0]
	}
	host := strings.ReplaceAll(r.Host, nodeVariable, strings.ToLower(name))
	http, websocket := r.Accept == AcceptHTTP, r.Accept != AcceptHTTP
	if r.Accept == AcceptAny || r.Accept == "" {
		http, _ = Uses(routes, n.Service, &n.Node, r.Port)
	}
	return withSchemes(webSchemes(e.TLS, http, websocket), "://"+e.hostPort(host)+strings.TrimSuffix(r.path.of(name), "/"))
}

func withSchemes(schemes []string, rest string) []string {
	urls := make([]string, len(schemes))
	for i, scheme := range schemes {
		urls[i] = scheme + rest
	}
	return urls
}

func tcpScheme(secure bool) string {
	if secure {
		return "tls"
	}
	return "tcp"
}

// webSchemes are those of URLs for WebSockets and for HTTP.
func webSchemes(secure, http, websocket bool) (schemes []string) {
	s := ""
	if secure {
		s = "s"
	}
	if websocket {
		schemes = append(schemes, "ws"+s)
	}
	if http {
		schemes = append(schemes, "http"+s)
	}
	return schemes
}

// hostPort is how clients name the entry; host overrides its own host.
func (e Entry) hostPort(host string) string {
	bound, _, _ := net.SplitHostPort(e.Address.String())
	if ip := net.ParseIP(bound); ip != nil && ip.IsUnspecified() {
		bound = "localhost"
	}
	host = cmp.Or(host, e.Public.Host, bound)
	port := e.Public.Port
	if e.implied == nil && (e.TLS && port == 443 || !e.TLS && port == 80) {
		if strings.Contains(host, ":") {
			return "[" + host + "]"
		}
		return host
	}
	return net.JoinHostPort(host, strconv.Itoa(int(port)))
}
