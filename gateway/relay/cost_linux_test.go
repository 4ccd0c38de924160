package relay

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"
)

// TestSystemCallsPerMessage: a message costs one read and one write each way, and
// no more than that.
func TestSystemCallsPerMessage(t *testing.T) {
	pure(t)
	const messages = 500
	for name, w := range wires {
		t.Run(name, func(t *testing.T) {
			var reads, writes atomic.Int64
			r := openEchoer(t, setup{wire: w, engine: func(e *Engine) {
				quietly(e)
				useSystem(e, calls{
					read:  func(fd int, p []byte) (int, error) { reads.Add(1); return readNow(fd, p) },
					write: func(fd int, p []byte) (int, error) { writes.Add(1); return writeNow(fd, p) },
				})
			}}, 128)
			for range 10 {
				r.echo()
			}
			before := [2]int64{reads.Load(), writes.Load()}
			for range messages {
				r.echo()
			}
			if n, m := reads.Load()-before[0], writes.Load()-before[1]; n != 2*messages || m != 2*messages {
				t.Errorf("%d echoes cost %d reads and %d writes, want %d each", messages, n, m, 2*messages)
			}
		})
	}
}

// BenchmarkPump is what the loop does with what it has read, without the system.
func BenchmarkPump(b *testing.B) {
	rules := map[string]*Rules{"free": nil, "rules": {MaxFrame: 1 << 20, MaxMessage: 1 << 20, MessageRate: 1 << 30, Strict: true}}
	for name, r := range rules {
		for _, size := range []int{128, 16 << 10} {
			b.Run(fmt.Sprintf("%s/%dB", name, size), func(b *testing.B) {
				message := frame{fin | binaryOp, noise(size)}.wireBytes(true)
				var written int64
				l := &loop{in: make([]byte, maxHeader+turnBytes), system: system{
					read:  func(_ int, p []byte) (int, error) { return copy(p, message), nil },
					write: func(_ int, p []byte) (int, error) { written += int64(len(p)); return len(p), nil },
				}}
				t := &loopTunnel{loop: l, options: Options{Kind: WebSocket, Rules: r}}
				t.up.init(&t.options, false)
				t.up.src, t.up.dst = &t.client, &t.upstream
				t.client.tunnel, t.upstream.tunnel = t, t
				b.SetBytes(int64(len(message)))
				b.ReportAllocs()
				n := int64(0)
				for b.Loop() {
					l.now += time.Microsecond
					t.client.readable, t.up.more = true, true
					t.up.pump(t)
					n++
				}
				if t.up.track.messages() != n || written != n*int64(len(message)) {
					b.Fatalf("%d messages, %d bytes for %d pumps", t.up.track.messages(), written, n)
				}
			})
		}
	}
}
