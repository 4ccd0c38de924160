package gateway

import (
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"time"

	"singlegate/gateway/relay"
	"singlegate/upstream"
)

// A tunnel is a live two-way connection in the registry: what the relay does
// not know of it.
type tunnel struct {
	server   *Server
	record   record
	timeouts Timeouts
	expiry   time.Duration // of its client's token; 0: it has none that ends it
	lease    *upstream.Lease
	kind     relay.Kind
	port     string       // which of the node's
	addr     string       // where it was when the tunnel began
	rules    *relay.Rules // nil: none
	reserved byte         // bits that frames may set
	upstream net.Conn     // until the relay has it
	once     sync.Once
	lingers  bool // a drain has closed it; under tunnels.mu
	seat     *seat
}

func (r *request) newTunnel(kind relay.Kind, lease *upstream.Lease, conn net.Conn) *tunnel {
	route := &r.match.route.Route
	addr, _ := lease.Node.Addr(route.Port)
	rec := r.record()
	rec.service = lease.Node.Service // several may serve a route of tags
	return &tunnel{
		server: r.server, record: rec, timeouts: route.Timeouts, expiry: r.expiry(),
		lease: lease, kind: kind, port: route.Port, addr: addr, upstream: conn,
		seat: r.conn.seat.Load(),
	}
}

// Close implements io.Closer for the client's connection, which ended before
// the tunnel began.
func (t *tunnel) Close() error {
	t.once.Do(func() {
		t.upstream.Close()
		t.lease.Done()
		t.record.logLostTakeover(t.lease.Node.ID)
	})
	return nil
}

// start hands both legs to the relay.
func (t *tunnel) start(client, node relay.Leg) {
	s := t.server
	t.once.Do(func() { t.upstream = nil }) // Close has nothing to do any more
	s.tunnels.add(t)
	t.record.auditOpened(t.kind, t.lease.Node.ID)
	if t.kind == relay.WebSocket {
		t.record.count(http.StatusSwitchingProtocols)
	}
	live := s.relay.Start(client, node, relay.Options{
		Kind:     t.kind,
		Idle:     t.timeouts.Idle,
		Lifetime: t.timeouts.Lifetime,
		Expiry:   t.expiry,
		Stall:    t.timeouts.Stall,
		Rules:    t.rules,
		Reserved: t.reserved,
		Meter:    s.metrics.traffic.meter(t.lease.Node.Key(), s.has),
		Ended: func(report relay.Report) {
			s.tunnels.remove(t)
			t.lease.Done()
			t.seat.leave()
			t.record.logTunnel(t.kind, t.lease.Node.ID, report)
		},
	})
	if s.tunnels.started(t, live) {
		live.Close(closeGoingAway, stopReason)
	} else if because, concerned := s.crossed(t); concerned {
		drainable{t, live}.close(closeServiceRestart, drainReason(because))
	}
}

// tunnels is the registry of live tunnels, by node.
type tunnels struct {
	mu        sync.Mutex
	nodes     map[upstream.Key]map[*tunnel]relay.Tunnel // nil until the relay has it
	lingering map[upstream.Key]int                      // see drainable.close
	live      int
	closing   bool
}

func newTunnels() *tunnels {
	return &tunnels{nodes: map[upstream.Key]map[*tunnel]relay.Tunnel{}, lingering: map[upstream.Key]int{}}
}

func (g *tunnels) add(t *tunnel) {
	g.mu.Lock()
	defer g.mu.Unlock()
	key := t.lease.Node.Key()
	if g.nodes[key] == nil {
		g.nodes[key] = map[*tunnel]relay.Tunnel{}
	}
	g.nodes[key][t] = nil
	g.live++
}

// started notes the relay's side of a tunnel, unless it has ended already, and
// tells whether it is to be closed because the end has begun.
func (g *tunnels) started(t *tunnel, live relay.Tunnel) (close bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	node := g.nodes[t.lease.Node.Key()]
	if _, there := node[t]; there {
		node[t] = live
	}
	return g.closing
}

func (g *tunnels) remove(t *tunnel) {
	g.mu.Lock()
	defer g.mu.Unlock()
	key := t.lease.Node.Key()
	g.noteEnd(t)
	delete(g.nodes[key], t)
	if len(g.nodes[key]) == 0 {
		delete(g.nodes, key)
	}
	g.live--
}

func (g *tunnels) count() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.live
}

// countOf is how many tunnels a node has.
func (g *tunnels) countOf(key upstream.Key) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.nodes[key])
}

// counts are how many tunnels each node has that has any.
func (g *tunnels) counts() map[upstream.Key]int {
	g.mu.Lock()
	defer g.mu.Unlock()
	counts := make(map[upstream.Key]int, len(g.nodes))
	for key, node := range g.nodes {
		counts[key] = len(node)
	}
	return counts
}

func (g *tunnels) all() []relay.Tunnel {
	g.mu.Lock()
	defer g.mu.Unlock()
	list := make([]relay.Tunnel, 0, g.live)
	for _, node := range g.nodes {
		for _, live := range node {
			if live != nil {
				list = append(list, live)
			}
		}
	}
	return list
}

// of lists a node's tunnels that no drain has closed yet, but for those that
// spare is true of; nil: all.
func (g *tunnels) of(key upstream.Key, spare func(*tunnel) bool) []drainable {
	g.mu.Lock()
	defer g.mu.Unlock()
	var list []drainable
	for t, live := range g.nodes[key] {
		if live != nil && !t.lingers && (spare == nil || !spare(t)) {
			list = append(list, drainable{t, live})
		}
	}
	return list
}

const (
	closeGoingAway = 1001
	stopReason     = "gateway stopping, reconnect"
)

// drain closes every tunnel with 1001, spread evenly over the time with a
// jitter, so that clients do not come back as one wave. It returns early when
// stop is closed or no tunnel is left.
func (g *tunnels) drain(over time.Duration, stop <-chan struct{}) {
	g.mu.Lock()
	g.closing = true
	g.mu.Unlock()
	list := g.all()
	if len(list) == 0 {
		return
	}
	step := over / time.Duration(len(list))
	for _, t := range list {
		t.Close(closeGoingAway, stopReason)
		if step == 0 {
			continue
		}
		select {
		case <-time.After(step/2 + rand.N(step)):
		case <-stop:
			return
		}
	}
}

func (g *tunnels) kill() {
	for _, t := range g.all() {
		t.Kill()
	}
}
