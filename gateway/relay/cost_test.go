package relay

import (
	"bytes"
	"io"
	"net"
	"runtime"
	"testing"
	"time"
)

// An echoer echoes messages over a tunnel and allocates nothing of its own.
type echoer struct {
	*rig
	message, got []byte
}

func openEchoer(t testing.TB, s setup, size int) *echoer {
	t.Helper()
	s.Kind = WebSocket
	s.Meter = new(Meter)
	r := &echoer{rig: open(t, s), message: frame{fin | binaryOp, noise(size)}.wireBytes(true)}
	r.got = make([]byte, len(r.message))
	r.client.SetDeadline(time.Time{})
	r.upstream.SetDeadline(time.Time{})
	go returns(r.upstream, len(r.message))
	return r
}

// returns sends every message of n bytes back as it is; the relay does not mind
// the mask.
func returns(c net.Conn, n int) {
	b := make([]byte, n)
	for {
		if _, err := io.ReadFull(c, b); err != nil {
			return
		}
		if _, err := c.Write(b); err != nil {
			return
		}
	}
}

func (r *echoer) echo() {
	r.send(r.client, r.message)
	if _, err := io.ReadFull(r.client, r.got); err != nil || !bytes.Equal(r.got, r.message) {
		r.t.Fatalf("the echo is another: %v", err)
	}
}

// perEcho is what crypto/tls allocates: 24 bytes for a read from its transport.
// The peer reads once, the gateway too, and in a loop once more to learn that
// there is nothing else.
func perEcho(w wire) (allocations int) {
	for _, secure := range []bool{w.clientTLS, w.upstreamTLS} {
		switch {
		case secure && onGoroutines:
			allocations += 2
		case secure:
			allocations += 3
		}
	}
	return allocations
}

// TestEchoAllocatesNothing: nothing of ours on the way of a message is allocated,
// with rules and over TLS as well.
func TestEchoAllocatesNothing(t *testing.T) {
	const messages = 1000
	for name, w := range wires {
		if raced && w != (wire{}) {
			continue
		}
		for _, rules := range []*Rules{nil, {MaxFrame: 1 << 20, MaxMessage: 1 << 20, MessageRate: 1 << 30, Ping: time.Hour, PingTimeout: time.Hour}} {
			t.Run(name, func(t *testing.T) {
				s := setup{wire: w, engine: quietly}
				s.Rules = rules
				r := openEchoer(t, s, 128)
				for range 50 {
					r.echo()
				}
				runtime.GC() // and no other meanwhile
				before := mallocs()
				for range messages {
					r.echo()
				}
				n := mallocs() - before
				if most := perEcho(w); n > uint64(messages*most+messages/20) { // the runtime has some of its own
					t.Errorf("%d allocations for %d messages, want %d each", n, messages, most)
				}
			})
		}
	}
}

// quietly keeps an engine from doing anything by the clock.
func quietly(e *Engine) { e.waits.tick = time.Hour }

func mallocs() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.Mallocs
}

// BenchmarkEcho is a message there and back, with both peers.
func BenchmarkEcho(b *testing.B) {
	for name, w := range wires {
		for label, size := range map[string]int{"128B": 128, "16KiB": 16 << 10} {
			for how, on := range map[string]bool{"loops": false, "goroutines": true} {
				b.Run(name+"/"+label+"/"+how, func(b *testing.B) {
					r := openEchoer(b, setup{wire: w, engine: func(e *Engine) { e.noLoops = on }}, size)
					r.echo()
					b.SetBytes(2 * int64(len(r.message)))
					b.ReportAllocs()
					for b.Loop() {
						r.echo()
					}
				})
			}
		}
	}
}
