package relay

import (
	"runtime"
	"testing"
)

// TestIdleTunnelsHaveNoGoroutine: hundreds of tunnels, each of which has moved
// messages, live on the goroutines of the loops alone.
func TestIdleTunnelsHaveNoGoroutine(t *testing.T) {
	if onGoroutines {
		t.Skip("of the loops")
	}
	const tunnels = 200
	for name, w := range map[string]wire{"plain": {}, "edge": {clientTLS: true}} {
		t.Run(name, func(t *testing.T) {
			e := newEngine(t)
			t.Cleanup((&rig{t: t, engine: e}).wait) // after the last Kill
			addTunnel(t, e, w)                      // the loops begin with the first one
			before := runtime.NumGoroutine()
			for range tunnels {
				addTunnel(t, e, w)
			}
			// A few may be on their way out: those of the handshakes.
			if n := runtime.NumGoroutine() - before; n > tunnels/10 {
				t.Errorf("%d idle tunnels have %d goroutines", tunnels, n)
			}
		})
	}
}

// addTunnel starts a tunnel and sends a message each way.
func addTunnel(t *testing.T, e *Engine, w wire) {
	t.Helper()
	client, near := pair(t, w.clientTLS, 0, false)
	upstream, far := pair(t, w.upstreamTLS, 0, true)
	r := &rig{t: t, engine: e, client: client, upstream: upstream}
	r.Tunnel = e.Start(Leg{Conn: near}, Leg{Conn: far}, Options{Kind: WebSocket})
	t.Cleanup(r.Kill)
	f := frame{fin | text, []byte("hello")}
	r.send(r.client, f.wireBytes(true))
	r.wantFrame(r.upstream, f, true)
	r.send(r.upstream, f.wireBytes(false))
	r.wantFrame(r.client, f, false)
}
