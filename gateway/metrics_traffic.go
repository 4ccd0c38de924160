package gateway

import (
	"sync"
	"time"

	"singlegate/gateway/relay"
	"singlegate/upstream"
)

// traffic is what the tunnels of each node carry, counted while they do, and how
// they ended. Safe for concurrent use.
type traffic struct {
	now func() time.Time

	mu    sync.Mutex
	nodes map[upstream.Key]*nodeTraffic
}

type nodeTraffic struct {
	meter    relay.Meter // its tunnels count by it
	ended    map[relay.End]int64
	goneFrom time.Time // zero: the node was there when it was last looked for
}

// keepGone is how long the counts of a node that is gone are still told, so that
// its last tunnels are seen by every Prometheus that asks now and then.
const keepGone = 15 * time.Minute

func newTraffic() *traffic {
	return &traffic{now: time.Now, nodes: map[upstream.Key]*nodeTraffic{}}
}

// meter is what a tunnel of the node counts by, which must be in the registry: as
// long as it is, the node is there and its counts are not forgotten.
func (t *traffic) meter(key upstream.Key, there func(upstream.Key) bool) *relay.Meter {
	t.mu.Lock()
	defer t.mu.Unlock()
	return &t.node(key, there).meter
}

// ended counts a tunnel that has ended. What it carried is in the meter.
func (t *traffic) ended(key upstream.Key, report relay.Report, there func(upstream.Key) bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.node(key, there).ended[report.EndedBy]++
}

// node are the counts of a node that counts now. With one that is new those are
// forgotten that have long been gone, so that nodes with ever new ids do not add
// up. Under mu.
func (t *traffic) node(key upstream.Key, there func(upstream.Key) bool) *nodeTraffic {
	n := t.nodes[key]
	if n == nil {
		t.forget(there)
		n = &nodeTraffic{ended: map[relay.End]int64{}}
		t.nodes[key] = n
	}
	n.goneFrom = time.Time{}
	return n
}

// Traffic is what a node's tunnels have passed on since they were first counted:
// live ones and those that have ended.
type Traffic struct {
	BytesIn     int64 `json:"bytes_in,omitempty"` // from clients
	MessagesIn  int64 `json:"messages_in,omitempty"`
	BytesOut    int64 `json:"bytes_out,omitempty"` // from the node
	MessagesOut int64 `json:"messages_out,omitempty"`
}

// passed is what the tunnels of a node have passed on.
func (n *nodeTraffic) passed() Traffic {
	in, out := &n.meter.FromClient, &n.meter.FromUpstream
	return Traffic{in.Bytes.Load(), in.Messages.Load(), out.Bytes.Load(), out.Messages.Load()}
}

// of is what the tunnels of a node have passed on.
func (t *traffic) of(key upstream.Key) Traffic {
	t.mu.Lock()
	defer t.mu.Unlock()
	if n := t.nodes[key]; n != nil {
		return n.passed()
	}
	return Traffic{}
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
