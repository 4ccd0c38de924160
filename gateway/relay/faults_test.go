package relay

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// A fault is what the system does to a tunnel. Reads and writes are counted for
// a whole tunnel, from 1.
type fault struct {
	short  func(n int) int     // how much of n bytes a call may move; nil: all
	again  bool                // every second call finds nothing to do
	signal bool                // every second call is interrupted
	read   func(i int64) error // of the i-th read; nil: none
	write  func(i int64) error
	deadly bool // the tunnel must end of it

	sockets int // buffer sizes; 0: the system's
	most    int // bytes of a frame
}

func one(int) int        { return 1 }
func some(n int) int     { return 1 + rand.IntN(n) }
func mostly(n int) int   { return max(1, n-rand.IntN(3)) }
func soon(i int64) error { return after(40)(i) }

// after fails every call from the n-th on as a connection that was reset.
func after(n int64) func(int64) error {
	return func(i int64) error {
		if i >= n {
			return syscall.ECONNRESET
		}
		return nil
	}
}

func brokenPipe(i int64) error {
	if i >= 40 {
		return syscall.EPIPE
	}
	return nil
}

var faults = map[string]fault{
	"nothing":                   {most: 1 << 16},
	"small sockets":             {most: 1 << 16, sockets: 64 << 10},
	"one byte at a time":        {most: 150, short: one},
	"pieces":                    {most: 1 << 16, short: some},
	"a byte or two too few":     {most: 1 << 16, short: mostly},
	"not now":                   {most: 1 << 16, again: true},
	"not now, and then a byte":  {most: 150, again: true, short: one},
	"not now, and then a piece": {most: 1 << 16, again: true, short: some},
	"interrupted":               {most: 1 << 16, signal: true},
	"all of it":                 {most: 1 << 16, again: true, signal: true, short: some, sockets: 64 << 10},
	"read reset":                {most: 5000, read: soon, deadly: true},
	"read reset, in pieces":     {most: 5000, read: soon, short: some, again: true, deadly: true},
	"write reset":               {most: 5000, write: soon, deadly: true},
	"write on a broken pipe":    {most: 5000, write: brokenPipe, short: some, again: true, deadly: true},
	"first read reset":          {most: 5000, read: after(1), deadly: true},
	"first write reset":         {most: 5000, write: after(1), deadly: true},
}

// TestFaults: whatever reads and writes do, what is echoed arrives intact, or the
// tunnel ends and says why; nothing hangs and no descriptor is left.
func TestFaults(t *testing.T) {
	before := descriptors(t)
	t.Run("tunnels", func(t *testing.T) {
		for name, f := range faults {
			for over, w := range map[string]wire{"plain": {}, "all TLS": {true, true}} {
				t.Run(name+"/"+over, func(t *testing.T) {
					t.Parallel()
					underFault(t, f, w)
				})
			}
		}
	})
	if after := descriptors(t); after > before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

// descriptors is how many there are of the process; -1 where that is not known.
func descriptors(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return -1
	}
	return len(list)
}

func underFault(t *testing.T, f fault, w wire) {
	s := webSocket(w)
	s.sockets = f.sockets
	s.Rules = &Rules{Strict: true, MaxMessage: 1 << 20, Ping: time.Hour, PingTimeout: time.Hour}
	switch {
	case onGoroutines:
		s.under = func(c net.Conn) net.Conn { return &faulty{TCPConn: c.(*net.TCPConn), fault: f, secure: w != wire{}} }
	default:
		s.engine = func(e *Engine) { useFaults(e, f) }
	}
	r := open(t, s)
	var node sync.WaitGroup
	node.Go(func() {
		echo(r.upstream)
		r.upstream.Close()
	})
	err := r.exchange(40, f.most, f.deadly)
	r.client.Close()
	report := r.report()
	node.Wait()
	switch {
	case !f.deadly && err != nil:
		t.Errorf("%v; report %+v", err, report)
	case f.deadly && err == nil:
		t.Error("the tunnel lived")
	case f.deadly:
		if report.Cause == nil || !strings.Contains(report.Cause.Error(), "connection reset") && !strings.Contains(report.Cause.Error(), "broken pipe") ||
			report.EndedBy != EndClient && report.EndedBy != EndUpstream || !strings.Contains(report.Cause.Error(), "ing ") {
			t.Errorf("report %+v: it does not say why", report)
		}
	case report.EndedBy != EndClient || report.Cause != nil && !errors.Is(report.Cause, errNoClose):
		t.Errorf("report %+v", report)
	}
}

// exchange sends random frames, in turn with what comes back or without waiting
// for it, and compares that. The last one is a Close.
func (r *rig) exchange(n, most int, inTurn bool) error {
	var all []frame
	for range n {
		size := rand.IntN(1 + min(most, []int{0, 130, 5000, 70000}[rand.IntN(4)]))
		all = append(all, frame{fin | []byte{text, binaryOp}[rand.IntN(2)], noise(size)})
		if rand.IntN(4) == 0 {
			all = append(all, frame{fin | pong, noise(8)})
		}
	}
	all = append(all, closing1(1000, "done"))
	sent, back := make(chan struct{}), make(chan struct{}, len(all))
	go func() {
		defer close(sent)
		for i, f := range all {
			if inTurn && i > 0 {
				<-back
			}
			if _, err := r.client.Write(f.wireBytes(true)); err != nil {
				return // it shows in what comes back
			}
		}
	}()
	defer func() { close(back); <-sent }()
	for i, want := range all {
		got, masked, err := readFrame(r.client)
		if err != nil || masked || got.first != want.first || !bytes.Equal(got.payload, want.payload) {
			r.client.Close()
			return errors.Join(errors.New("what came back is not what was sent"), err, fmt.Errorf("frame %d is %x of %d bytes, want %x of %d", i, got.first, len(got.payload), want.first, len(want.payload)))
		}
		back <- struct{}{}
	}
	return nil
}

// echo sends back what it reads, up to a Close.
func echo(c net.Conn) {
	for {
		f, _, err := readFrame(c)
		if err != nil {
			return
		}
		if _, err := c.Write(f.wireBytes(false)); err != nil || f.first == fin|closeOp {
			return
		}
	}
}

// faulty is a connection with faults, of which a loop does not know the socket.
type faulty struct {
	*net.TCPConn
	fault
	secure        bool // crypto/tls does not write on after a timeout
	reads, writes atomic.Int64
}

func (c *faulty) Read(b []byte) (int, error) {
	if c.read != nil {
		if err := c.read(c.reads.Add(1)); err != nil {
			return 0, &net.OpError{Op: "read", Net: "tcp", Err: os.NewSyscallError("read", err)}
		}
	}
	if c.short != nil && len(b) > 0 {
		b = b[:c.short(len(b))]
	}
	return c.TCPConn.Read(b)
}

// Write, when it is short, is so for a deadline that came after a part.
func (c *faulty) Write(b []byte) (int, error) {
	if c.write != nil {
		if err := c.write(c.writes.Add(1)); err != nil {
			return 0, &net.OpError{Op: "write", Net: "tcp", Err: os.NewSyscallError("write", err)}
		}
	}
	if c.short == nil || c.secure || len(b) == 0 {
		return c.TCPConn.Write(b)
	}
	n := c.short(len(b))
	if n == len(b) {
		return c.TCPConn.Write(b)
	}
	n, err := c.TCPConn.Write(b[:n])
	if err == nil {
		err = os.ErrDeadlineExceeded
	}
	return n, err
}
