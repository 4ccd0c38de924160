package gateway

import (
	"cmp"
	"slices"

	"singlegate/gateway/relay"
	"singlegate/upstream"
)

// A drainable is a live tunnel with both of its sides: what the registry knows
// of it, and what the relay does.
type drainable struct {
	tunnel *tunnel
	live   relay.Tunnel
}

// close sends the tunnel's client a Close. Until the client has answered it, or
// the relay has waited for long enough, the tunnel lingers: it lives and counts.
func (d drainable) close(code uint16, reason string) {
	d.tunnel.server.tunnels.noteClose(d.tunnel)
	d.live.Close(code, reason)
}

// noteClose notes that a drain closes a tunnel, unless it has ended already.
func (g *tunnels) noteClose(t *tunnel) {
	g.mu.Lock()
	defer g.mu.Unlock()
	key := t.lease.Node.Key()
	if _, there := g.nodes[key][t]; there && !t.lingers {
		t.lingers = true
		g.lingering[key]++
	}
}

// noteEnd forgets that a tunnel lingers; g.mu is held.
func (g *tunnels) noteEnd(t *tunnel) {
	if !t.lingers {
		return
	}
	key := t.lease.Node.Key()
	if g.lingering[key]--; g.lingering[key] == 0 {
		delete(g.lingering, key)
	}
}

// lingeringOf is how many of a node's tunnels wait for their clients to answer
// the Close of a drain.
func (g *tunnels) lingeringOf(key upstream.Key) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.lingering[key]
}

// A GoneNode is one that is not in the snapshot any more and still has tunnels.
type GoneNode struct {
	ID        string `json:"id"`
	Tunnels   int    `json:"tunnels"`
	Lingering int    `json:"lingering,omitempty"` // of them; see NodeStatus
}

// gone are the nodes of a service that have tunnels and are not in the snapshot
// of it, by id. svc is nil when nothing is known of the service.
func (s *Server) gone(service string, svc *upstream.Service) []GoneNode {
	var list []GoneNode
	for key, tunnels := range s.tunnels.counts() {
		if key.Service == service && (svc == nil || svc.Node(key.ID) == nil) {
			list = append(list, GoneNode{ID: key.ID, Tunnels: tunnels, Lingering: s.tunnels.lingeringOf(key)})
		}
	}
	slices.SortFunc(list, func(a, b GoneNode) int { return cmp.Compare(a.ID, b.ID) })
	return list
}
