package gateway

import (
	"cmp"
	"fmt"
	"net"
	"slices"
	"strconv"
	"time"

	"singlegate/discovery"
	"singlegate/gateway/relay"
	"singlegate/upstream"
)

// A wanted listener is one of the config, or one that a node's own port asks for.
type wanted struct {
	Listener
	implied *impliedRoute // nil: it serves the routes of the table
}

// An impliedRoute is what a port serves that is not for routes: one node, or
// one service.
type impliedRoute struct {
	route *route
	node  string // its id; "": balanced over the service
	tcp   bool
	proxy ProxyProtocol
}

// A PortFault is a node's port that is wanted and not open.
type PortFault struct {
	At      string // the rule in the config
	Name    string // "im/node1 tcp"
	Address string // "": there is none to open
	Reason  string
}

// configuredListeners are those that the config names.
func configuredListeners(cfg *Config) []wanted {
	list := make([]wanted, 0, len(cfg.Listeners))
	for _, lc := range cfg.Listeners {
		w := wanted{Listener: lc}
		if lc.Service != "" {
			rc := Route{At: lc.At, Service: lc.Service, Port: lc.Port, Balance: lc.Balance, Timeouts: lc.Timeouts}
			w.implied = &impliedRoute{route: &route{Route: rc, name: "port " + lc.Name}, tcp: true, proxy: lc.ProxyProtocol}
		}
		list = append(list, w)
	}
	return list
}

// wantedListeners are those of the config and a port for every node that has
// one by a rule, in a stable order. Of two that want one port the first gets it.
func wantedListeners(cfg *Config, view *upstream.View) ([]wanted, []PortFault) {
	list := configuredListeners(cfg)
	var faults []PortFault
	for i := range cfg.NodePorts {
		np := &cfg.NodePorts[i]
		if view == nil || view.Services[np.Service] == nil {
			continue
		}
		rules := rulesOf(np.Frames, np.Ping)
		for _, node := range nodesByID(view.Services[np.Service]) {
			w, reason := np.listener(node, rules)
			if reason == "" {
				reason = collision(w, list)
			}
			if reason != "" {
				faults = append(faults, PortFault{np.At, w.Name, w.Address, reason})
			} else if w.Address != "" {
				list = append(list, w)
			}
		}
	}
	return list, faults
}

func nodesByID(s *upstream.Service) []*upstream.Node {
	return slices.SortedFunc(slices.Values(s.Nodes()), func(a, b *upstream.Node) int { return cmp.Compare(a.ID, b.ID) })
}

// listener is the one that the rule gives a node. Without an address and
// without a reason the rule gives it none. WebSockets are kept to rules.
func (np *NodePort) listener(n *upstream.Node, rules *relay.Rules) (w wanted, reason string) {
	label := np.Port
	if label == "" {
		label = np.Kind
	}
	w.At, w.Name = np.At, np.Service+"/"+n.ID+" "+label
	w.TLS, w.Policy, w.Clients, w.ProxyIn = np.TLS, np.Policy, np.Clients, np.ProxyIn
	if _, ok := n.Addr(np.Port); !ok {
		return w, fmt.Sprintf("the node has no port %q", np.Port)
	}
	port, reason := np.Listen.PublicPort(&n.Node, np.Port)
	if reason != "" || port == 0 {
		return w, reason
	}
	w.Address = net.JoinHostPort(np.Host, strconv.Itoa(port))
	rc := Route{At: np.At, Service: np.Service, Port: np.Port, Origins: np.Origins, Refuse: np.Refuse, Timeouts: np.Timeouts, Policies: np.Policies}
	w.implied = &impliedRoute{
		route: &route{Route: rc, name: "port " + w.Name, rules: rules},
		node:  n.ID,
		tcp:   np.Kind == "tcp",
		proxy: np.ProxyProtocol,
	}
	return w, ""
}

// PublicPort is the public port that the rule gives a node, for the node's port
// of that name. It is 0 without a reason when the rule gives none, and with one
// when it cannot: the reason says what is wrong with the node.
func (p PortRule) PublicPort(n *discovery.Node, name string) (port int, reason string) {
	switch {
	case p.Map != nil:
		return int(p.Map[n.ID]), ""
	case p.Meta != "":
		return portFromMeta(n.Meta, p.Meta)
	case p.Same:
		own, _ := n.Port(name)
		return parsePort(strconv.Itoa(int(own)), "its own port")
	}
	digits := trailingDigits(n.ID)
	if digits == "" {
		return 0, fmt.Sprintf("listen: base needs a node id that ends with a number, and %q does not", n.ID)
	}
	number, err := strconv.Atoi(digits)
	if port = p.Base + number; err != nil || port < 1 || port > 65535 {
		return 0, fmt.Sprintf("listen: base %d plus the number at the end of %q is no port", p.Base, n.ID)
	}
	return port, ""
}

func portFromMeta(meta map[string]string, key string) (int, string) {
	text, ok := meta[key]
	if !ok {
		return 0, fmt.Sprintf("the node has no metadata %q, which should hold its public port", key)
	}
	return parsePort(text, fmt.Sprintf("its metadata %q", key))
}

func parsePort(text, what string) (int, string) {
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > 65535 {
		return 0, fmt.Sprintf("%s is %q, expected a port from 1 to 65535", what, text)
	}
	return n, ""
}

func trailingDigits(id string) string {
	i := len(id)
	for i > 0 && '0' <= id[i-1] && id[i-1] <= '9' {
		i--
	}
	return id[i:]
}

// collision says whose port w wants, if somebody has it.
func collision(w wanted, list []wanted) string {
	if w.Address == "" {
		return ""
	}
	for _, other := range list {
		if sameSocket(w.Address, other.Address) {
			return fmt.Sprintf("its port %s is that of listener %q (%s)", w.Address, other.Name, other.At)
		}
	}
	return ""
}

func sameSocket(a, b string) bool {
	hostA, portA, _ := net.SplitHostPort(a)
	hostB, portB, _ := net.SplitHostPort(b)
	return portA == portB && portA != "0" && (hostA == hostB || covers(hostA, hostB) || covers(hostB, hostA))
}

// covers tells whether a socket at one host takes what another wants: every
// address, or every IPv4 one.
func covers(host, other string) bool {
	ip := net.ParseIP(host)
	if host == "" || ip != nil && ip.Equal(net.IPv6unspecified) {
		return true
	}
	wanted := net.ParseIP(other)
	return ip != nil && ip.Equal(net.IPv4zero) && (wanted == nil || wanted.To4() != nil)
}

// portRetry is how long a port that could not be opened waits for the next try.
const portRetry = 5 * time.Second

// noteFaults keeps and says what is wrong with node ports, each once, and has
// those tried again that could not be bound.
func (s *Server) noteFaults(faults []PortFault) {
	for _, f := range faults {
		if !slices.Contains(s.faults, f) {
			s.log.Warn().Str("listener", f.Name).Str("address", f.Address).Str("rule", f.At).Msg("port not open: " + f.Reason)
		}
	}
	s.faults = faults
	if s.retry != nil {
		s.retry.Stop()
		s.retry = nil
	}
	if len(faults) > 0 {
		s.retry = time.AfterFunc(portRetry, s.retryPorts)
	}
}

func (s *Server) retryPorts() {
	s.control.Lock()
	defer s.control.Unlock()
	if !s.closed {
		s.reconcile(s.state.Load().cfg, nil)
	}
}
