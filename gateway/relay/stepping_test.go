package relay

import (
	"net"
	"runtime"
	"sync/atomic"
	"testing"
	"time"
)

// pure skips the second run of a test that moves no bytes between sockets.
func pure(t *testing.T) {
	if onGoroutines {
		t.Skip("the same for both implementations")
	}
}

// calls are system calls on which loops depend.
type calls struct {
	read, write func(fd int, p []byte) (int, error)
}

// inTunnel runs f where the fields of a tunnel may be touched.
func inTunnel(tunnel Tunnel, f func(e *ending, o *Options, s signs)) {
	t, ok := tunnel.(*goTunnel)
	if !ok {
		inLoop(tunnel, f)
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	f(&t.ending, &t.options, t.signs())
}

// pingNow has a tunnel do what it does when the time for a Ping has come.
func pingNow(tunnel Tunnel) {
	t, ok := tunnel.(*goTunnel)
	if !ok {
		pingInLoop(tunnel)
		return
	}
	t.mu.Lock()
	t.pinged, t.pinging = t.age(), true
	t.down.wake()
	t.mu.Unlock()
	for pinging := true; pinging; runtime.Gosched() { // until that was heeded
		t.mu.Lock()
		pinging = t.pinging
		t.mu.Unlock()
	}
}

// A gauge counts and lets one wait for a count.
type gauge struct {
	n    atomic.Int64
	news chan struct{}
}

func newGauge() *gauge { return &gauge{news: make(chan struct{}, 1)} }

func (g *gauge) add(n int) {
	if n <= 0 {
		return
	}
	g.n.Add(int64(n))
	select {
	case g.news <- struct{}{}:
	default:
	}
}

func (g *gauge) reach(t testing.TB, want int64) {
	t.Helper()
	late := time.NewTimer(patience)
	defer late.Stop()
	for g.n.Load() < want {
		select {
		case <-g.news:
		case <-late.C:
			t.Fatalf("%d counted, want %d", g.n.Load(), want)
		}
	}
}

// gauged is a connection whose reads are counted.
type gauged struct {
	*net.TCPConn
	read *gauge
}

func (c gauged) Read(b []byte) (int, error) {
	n, err := c.TCPConn.Read(b)
	c.read.add(n)
	return n, err
}

// stepping is a rig whose tunnel reads what is sent to it exactly in the pieces
// in which it is sent. For plain legs.
type stepping struct {
	*rig
	read *gauge
	sent int64
}

func openStepping(t *testing.T, s setup) *stepping {
	t.Helper()
	r := &stepping{read: newGauge()}
	if onGoroutines {
		s.client = func(c net.Conn) net.Conn { return gauged{c.(*net.TCPConn), r.read} }
		s.upstream = s.client
	} else {
		s.engine = func(e *Engine) { useSystem(e, counted(r.read, nil)) }
	}
	r.rig = open(t, s)
	return r
}

// step sends b in pieces of at most size bytes.
func (r *stepping) step(c net.Conn, b []byte, size int) {
	r.t.Helper()
	for len(b) > 0 {
		part := b[:min(len(b), size)]
		b = b[len(part):]
		r.send(c, part)
		r.sent += int64(len(part))
		r.read.reach(r.t, r.sent)
	}
}
