package gateway

import (
	"math/rand/v2"
	"net"
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
	lease    *upstream.Lease
	upstream net.Conn
	once     sync.Once
}

func (r *request) newTunnel(lease *upstream.Lease, conn net.Conn) *tunnel {
	return &tunnel{server: r.server, record: r.record(), timeouts: r.match.route.Timeouts, lease: lease, upstream: conn}
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
	t.once.Do(func() {}) // Close has nothing to do any more
	s.tunnels.add(t)
	live := s.relay.Start(client, node, relay.Options{
		Kind:     relay.WebSocket,
		Idle:     t.timeouts.Idle,
		Lifetime: t.timeouts.Lifetime,
		Stall:    t.timeouts.Stall,
		Ended: func(report relay.Report) {
			s.tunnels.remove(t)
			t.lease.Done()
			t.record.logTunnel(t.lease.Node.ID, report)
		},
	})
	if s.tunnels.started(t, live) {
		live.Close(closeGoingAway, stopReason)
	}
}

// tunnels is the registry of live tunnels.
type tunnels struct {
	mu      sync.Mutex
	live    map[*tunnel]*relay.Tunnel // nil until the relay has it
	closing bool
}

func newTunnels() *tunnels { return &tunnels{live: map[*tunnel]*relay.Tunnel{}} }

func (g *tunnels) add(t *tunnel) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.live[t] = nil
}

// started notes the relay's side of a tunnel, unless it has ended already, and
// tells whether it is to be closed because a drain has begun.
func (g *tunnels) started(t *tunnel, live *relay.Tunnel) (close bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if _, there := g.live[t]; there {
		g.live[t] = live
	}
	return g.closing
}

func (g *tunnels) remove(t *tunnel) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.live, t)
}

func (g *tunnels) count() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.live)
}

func (g *tunnels) all() []*relay.Tunnel {
	g.mu.Lock()
	defer g.mu.Unlock()
	list := make([]*relay.Tunnel, 0, len(g.live))
	for _, live := range g.live {
		if live != nil {
			list = append(list, live)
		}
	}
	return list
}

const (
	closeGoingAway = 1001
	stopReason     = "gateway stopping"
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
