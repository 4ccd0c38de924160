package relay

import (
	"errors"
	"io"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// queues watches how much waits to be written: a queue is offered whole whenever
// something happens to its tunnel.
type queues struct {
	most atomic.Int64
	full chan struct{} // closed when a peer has taken no more
}

func watchQueues(e *Engine) *queues {
	q := &queues{full: make(chan struct{})}
	full := sync.OnceFunc(func() { close(q.full) })
	useSystem(e, calls{read: readNow, write: func(fd int, p []byte) (int, error) {
		n, err := writeNow(fd, p)
		if left := int64(len(p) - max(n, 0)); left > q.most.Load() {
			q.most.Store(left) // two loops at once may lose one; the tests have time to see another
		}
		if err == unix.EAGAIN {
			full()
		}
		return n, err
	}})
	return q
}

// within is how much may wait for one peer: what stops its own reading, and one
// turn on top of it, in records.
const within = highWater + turnBytes + 4096

// TestStallIsAlone: a peer that reads nothing while the other floods holds bounded
// memory, and the other tunnels of its loop do not notice.
func TestStallIsAlone(t *testing.T) {
	pure(t)
	for name, w := range wires {
		t.Run(name, func(t *testing.T) {
			var q *queues
			stalled := open(t, setup{wire: w, sockets: 64 << 10, Options: Options{Kind: WebSocket}, engine: func(e *Engine) { q = watchQueues(e) }})
			flooded := fill(stalled.upstream, false)
			<-flooded
			<-fill(stalled.client, true) // nor does the upstream read
			<-q.full
			var others sync.WaitGroup
			for range 2 * runtime.GOMAXPROCS(0) { // at least two in the loop of the stalled one
				client, near := pair(t, w.clientTLS, 0, false)
				upstream, far := pair(t, w.upstreamTLS, 0, true)
				tunnel := stalled.engine.Start(Leg{Conn: near}, Leg{Conn: far}, Options{Kind: WebSocket})
				t.Cleanup(tunnel.Kill)
				others.Go(func() { echo(upstream); upstream.Close() })
				others.Go(func() {
					r := &rig{t: t, client: client, upstream: upstream}
					if err := r.exchange(50, 70000, true); err != nil {
						t.Error(err)
					}
					client.Close()
				})
			}
			others.Wait()
			if n := q.most.Load(); n == 0 || n > within {
				t.Errorf("%d bytes waited for a peer, want some, up to %d", n, within)
			}
		})
	}
}

// TestAnswersPileUp: what TLS itself answers to a peer that does not read is
// bounded as well, because that peer is not read any more.
func TestAnswersPileUp(t *testing.T) {
	pure(t)
	c, hand := byHand(t, 64<<10)
	s := webSocket(wire{})
	var q *queues
	s.engine = func(e *Engine) { q = watchQueues(e) }
	r := c.open(t, s)
	flooded := fill(r.upstream, false)
	<-flooded
	<-q.full
	go io.Copy(io.Discard, r.upstream)
	c.cork.Conn.SetWriteDeadline(time.Now().Add(time.Second))
	mark := frame{fin | text, []byte("mark")}.wireBytes(true)
	var err error
	const many = 20000
	for i := 0; i < many && err == nil; i++ {
		b := hand.update()
		_, err = c.cork.Write(append(b, hand.record(applicationRecord, mark)...))
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%d KeyUpdates were taken from a peer that reads none of the answers: %v", many, err)
	}
	if n := q.most.Load(); n > within {
		t.Errorf("%d bytes waited for a peer, want %d at most", n, within)
	}
	r.Kill()
	r.wait()
}
