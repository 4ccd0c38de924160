package main

import (
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// serve handles connections to a TCP address until the test ends.
func serve(t *testing.T, handle func(net.Conn)) Target {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { l.Close(); <-done })
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				handle(c)
			}()
		}
	}()
	return Target{Kind: tcp, Address: l.Addr().String()}
}

func newLoader() *loader {
	return &loader{pools: make(map[string][]*client), stops: make(map[string]chan struct{}), spare: make(map[shape][]*message)}
}

// must carries an order out without an error.
func must(t *testing.T, l *loader, o Order) Answer {
	t.Helper()
	a := l.do(t.Context(), o)
	if a.Errors > 0 {
		t.Fatalf("%s: %d errors: %s", o.Op, a.Errors, a.Error)
	}
	return a
}

// A node that holds every echo back until it has the fiftieth message shows in
// the latency of all of them, each counted from when it was due.
func TestPacedSeesAStall(t *testing.T) {
	const held, size = 50, 128
	target := serve(t, func(c net.Conn) {
		var first [200]byte
		io.ReadFull(c, first[:])
		c.Write(first[:])
		stalled := make([]byte, held*size)
		io.ReadFull(c, stalled)
		c.Write(stalled)
		io.Copy(c, c)
	})
	l := newLoader()
	must(t, l, Order{Op: "open", Pool: "p", Target: target, N: 1, Parallel: 1, Size: 200})
	a := must(t, l, Order{Op: "paced", Pool: "p", Size: size, Rate: 1000, For: 100 * time.Millisecond})
	if a.Count != 100 {
		t.Errorf("%d messages, want 100", a.Count)
	}
	long := uint64(0)
	for i, n := range a.Latency {
		if bucketEnd(i) >= 19*time.Millisecond {
			long += n
		}
	}
	// Message 0 waits for 49 ms at least, message 30 for 19 ms.
	if long < 31 {
		t.Errorf("%d messages show a latency of 19 ms or more, want 31 at least", long)
	}
	must(t, l, Order{Op: "close", Pool: "p"})
}

// A paced order ends when it is told to.
func TestPacedStops(t *testing.T) {
	l := newLoader()
	must(t, l, Order{Op: "open", Pool: "p", Target: serve(t, func(c net.Conn) { io.Copy(c, c) }), N: 5, Parallel: 1, Size: 200})
	done := make(chan Answer, 1)
	go func() {
		done <- l.do(t.Context(), Order{Op: "paced", Pool: "p", Size: 128, Rate: 500, For: time.Hour})
	}()
	for stopped := false; !stopped; {
		l.mu.Lock()
		stopped = l.stops["p"] != nil
		l.mu.Unlock()
	}
	must(t, l, Order{Op: "stop", Pool: "p"})
	a := <-done
	if a.Errors > 0 || a.Count == 0 || a.Count%5 != 0 {
		t.Errorf("%d messages, %d errors: %s", a.Count, a.Errors, a.Error)
	}
	must(t, l, Order{Op: "close", Pool: "p"})
}

// Wrong echoes, refused connections and ends out of turn are errors.
func TestErrorsAreCounted(t *testing.T) {
	wrong := serve(t, func(c net.Conn) {
		b := make([]byte, 200)
		io.ReadFull(c, b)
		b[100]++
		c.Write(b)
	})
	ends := serve(t, func(c net.Conn) {
		b := make([]byte, 200)
		io.ReadFull(c, b)
	})
	refuses := serve(t, func(c net.Conn) {
		io.WriteString(c, "HTTP/1.1 503 Service Unavailable\r\n\r\n")
		io.Copy(io.Discard, c)
	})
	refuses.Kind, refuses.Paths = ws, []string{"/ws/node1"}
	for _, tt := range []struct {
		target Target
		want   string
	}{
		{wrong, "not the message"},
		{ends, "waiting for an echo"},
		{refuses, `answered with "HTTP/1.1 503 Service Unavailable"`},
	} {
		a := newLoader().do(t.Context(), Order{Op: "open", Pool: "p", Target: tt.target, N: 3, Parallel: 1, Size: 200})
		if a.Errors != 1 || a.Count != 0 || !strings.Contains(a.Error, tt.want) {
			t.Errorf("%d errors, %d opened, %q; want %q", a.Errors, a.Count, a.Error, tt.want)
		}
	}
}
