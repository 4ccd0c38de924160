package gateway

import (
	"sync"
	"time"

	"singlegate/gateway/relay"
	"singlegate/upstream"
)

// traffic is what the tunnels of each node have carried, counted when they end.
// Safe for concurrent use.
type traffic struct {
	now func() time.Time

	mu    sync.Mutex
	nodes map[upstream.Key]*nodeTraffic
}

type nodeTraffic struct {
	ended    map[relay.End]int64
	in, out  relay.Traffic // from clients, from the node
	goneFrom time.Time     // zero: the node was there when it was last looked for
}

// keepGone is how long the counts of a node that is gone are still told, so that
// its last tunnels are seen by every Prometheus that asks now and then.
const keepGone = 15 * time.Minute

func newTraffic() *traffic {
	return &traffic{now: time.Now, nodes: map[upstream.Key]*nodeTraffic{}}
}

// ended counts a tunnel. With a node that is new to it those are forgotten that
// have long been gone, so that nodes with ever new ids do not add up.
func (t *traffic) ended(key upstream.Key, report relay.Report, there func(upstream.Key) bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.nodes[key]
	if n == nil {
		t.forget(there)
		n = &nodeTraffic{ended: map[relay.End]int64{}}
		t.nodes[key] = n
	}
	n.ended[report.EndedBy]++
	n.in.Bytes += report.FromClient.Bytes
	n.in.Messages += report.FromClient.Messages
	n.out.Bytes += report.FromUpstream.Bytes
	n.out.Messages += report.FromUpstream.Messages
}

// each calls f with the counts of every node that is there, or was not long ago.
func (t *traffic) each(there func(upstream.Key) bool, f func(upstream.Key, *nodeTraffic)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.forget(there)
	for key, n := range t.nodes {
		f(key, n)
	}
}

// forget drops nodes that have long been gone. Under mu.
func (t *traffic) forget(there func(upstream.Key) bool) {
	now := t.now()
	for key, n := range t.nodes {
		switch {
		case there(key):
			n.goneFrom = time.Time{}
		case n.goneFrom.IsZero():
			n.goneFrom = now
		case now.Sub(n.goneFrom) > keepGone:
			delete(t.nodes, key)
		}
	}
}

// has tells whether there is such a node, or there are still tunnels to it.
func (s *Server) has(key upstream.Key) bool {
	svc := s.state.Load().table.service(key.Service)
	return svc != nil && svc.Node(key.ID) != nil || s.tunnels.countOf(key) > 0
}
