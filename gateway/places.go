package gateway

import (
	"fmt"
	"sync"

	"singlegate/upstream"
)

// places counts the tunnels that there are, and those that are being opened, and
// lets no more of them begin than the caps allow. A place is taken before the
// node is dialled and given back with the lease of the node, so that no number
// of requests at once gets past a cap. Safe for concurrent use.
type places struct {
	mu    sync.Mutex
	taken int
	nodes map[upstream.Key]int
}

// caps are how many tunnels there may be in all and of one node; 0: no cap.
type caps struct {
	service      string
	all, perNode int
}

// capsOf are the caps for a tunnel to a node of the service.
func (cfg *Config) capsOf(service string) caps {
	c := caps{service: service, all: cfg.Limits.Tunnels}
	for _, ref := range cfg.Services {
		if ref.Name == service {
			c.perNode = ref.TunnelsPerNode
		}
	}
	return c
}

// A fullness tells which cap is reached.
type fullness int

const (
	room fullness = iota
	gatewayIsFull
	nodeIsFull
)

// cause is for the log: which cap it is.
func (c caps) cause(reached fullness) error {
	if reached == gatewayIsFull {
		return fmt.Errorf("limits.tunnels is %d, and there are as many", c.all)
	}
	return fmt.Errorf("services.%s.tunnels_per_node is %d", c.service, c.perNode)
}

// take takes a place for a tunnel to the node, unless a cap says no. give gives
// it back; it may be called once.
func (p *places) take(key upstream.Key, c caps) (give func(), reached fullness) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if reached = p.fullness(key, c); reached != room {
		return nil, reached
	}
	p.taken++
	p.nodes[key]++
	return func() { p.give(key) }, room
}

func (p *places) give(key upstream.Key) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.taken--
	if p.nodes[key]--; p.nodes[key] == 0 {
		delete(p.nodes, key)
	}
}

// fullness tells which cap is reached. Under mu.
func (p *places) fullness(key upstream.Key, c caps) fullness {
	switch {
	case c.all > 0 && p.taken >= c.all:
		return gatewayIsFull
	case c.perNode > 0 && p.nodes[key] >= c.perNode:
		return nodeIsFull
	}
	return room
}

// look is take without taking.
func (p *places) look(key upstream.Key, c caps) fullness {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.fullness(key, c)
}

// full are those nodes that have as many tunnels as they may.
func (p *places) full(nodes []*upstream.Node, c caps) (full []*upstream.Node) {
	if c.perNode == 0 {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, n := range nodes {
		if p.nodes[n.Key()] >= c.perNode {
			full = append(full, n)
		}
	}
	return full
}

// tunnelPicker is a picker of nodes for a tunnel.
func (r *request) tunnelPicker() picker {
	return picker{match: &r.match, own: r.state.own, places: &r.server.places, caps: r.state.cfg.capsOf(r.match.route.Service), holder: r.holder()}
}

// noPlace tells, of a request for a tunnel, whether a cap is reached already. It
// may be out of date at once.
func (r *request) noPlace() *problem {
	h := r.holder()
	if p := h.full(); p != nil {
		return p
	}
	m, g := &r.match, &r.server.places
	c := r.state.cfg.capsOf(m.route.Service)
	var key upstream.Key // of no node
	if m.node != nil {
		key = m.node.Key()
	}
	if p := m.full(g.look(key, c), c); p != nil || m.pinned || m.service == nil {
		return p
	}
	if nodes := m.service.Nodes(); len(nodes) > 0 && len(g.full(nodes, c)) == len(nodes) {
		return serviceFull(c.service).because(c.cause(nodeIsFull))
	}
	return nil
}

// full is the problem that a cap is reached; nil: none is.
func (m *match) full(reached fullness, c caps) *problem {
	switch reached {
	case gatewayIsFull:
		return gatewayFull().because(c.cause(reached))
	case nodeIsFull:
		return nodeFull(m.name).because(c.cause(reached))
	}
	return nil
}

// leftOut are the nodes that are not to be picked: those tried, and of tunnels
// those that are full.
func (p *picker) leftOut() []*upstream.Node {
	if p.places == nil {
		return p.tried
	}
	full := p.places.full(p.match.service.Nodes(), p.caps)
	p.full = p.full || len(full) > 0
	return append(full, p.tried...)
}

// lease takes the node, for a tunnel with its place. One that has just become
// full gives way to the next.
func (p *picker) lease(node *upstream.Node, addr string) (*upstream.Lease, string, *problem) {
	if p.places == nil {
		return node.Lease(), addr, nil
	}
	give, reached := p.places.take(node.Key(), p.caps)
	switch {
	case reached == nodeIsFull && !p.match.pinned:
		p.full = true
		return p.next()
	case reached != room:
		return nil, "", p.match.full(reached, p.caps)
	}
	lease, refused := p.holder.takeLease(node, give)
	if refused != nil {
		return nil, "", refused
	}
	return lease, addr, nil
}

// allFull is the problem that those nodes which might have worked are full.
func (p *picker) allFull() *problem {
	cause := p.caps.cause(nodeIsFull)
	if p.err != nil {
		cause = fmt.Errorf("%w; of another node: %w", cause, p.err)
	}
	return serviceFull(p.match.route.Service).because(cause)
}
