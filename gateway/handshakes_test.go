package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"testing"

	"github.com/gobwas/ws"
)

// occupy takes every place of the gate; the answer gives them back.
func (e *edge) occupy() (free func()) {
	e.t.Helper()
	for range cap(e.gate.places) {
		if err := e.gate.enter(e.t.Context(), false); err != nil {
			e.t.Fatal(err)
		}
	}
	return func() {
		for range cap(e.gate.places) {
			e.gate.leave()
		}
	}
}

// knock begins a TLS connection and sends its hello.
func (e *edge) knock(hello []byte) net.Conn {
	e.t.Helper()
	c := e.dialSecureRaw()
	if _, err := c.Write(hello); err != nil {
		e.t.Fatal(err)
	}
	return c
}

// While no handshake gets on at all, live tunnels do, also such that use TLS,
// and so do plain connections; handshakes beyond those that may wait are closed
// and counted; those that wait are not lost.
func TestHandshakeStorm(t *testing.T) {
	const most = 3
	routes, nodes := pinned(imNode(t, "node1"))
	e := startEdge(t, routes, nodes, func(c *Config) { c.Limits.Handshakes = most })
	secure, _ := open(t, e.dialTLS(), handshake("/ws/node1"))
	plain, _ := open(t, e.dial(), handshake("/ws/node1"))
	for _, c := range []*wsConn{secure, plain} {
		c.expect(ws.OpText, "node1")
	}

	free := e.occupy()
	waiting := make(chan error, most)
	for range most {
		c := guarded(t, mustDial(t, e.secure))
		go func() {
			waiting <- tls.Client(c, &tls.Config{RootCAs: e.roots, ServerName: "localhost"}).Handshake()
		}()
	}
	e.tells("handshakes_waiting", map[string]float64{"handshakes_waiting": most})
	hello := clientHello(t)
	for range 5 {
		if got, _ := awaitEnd(t, e.knock(hello)); got != "" { // no alert: as if the network had failed
			t.Errorf("refused with %q", got)
		}
	}
	e.tells("handshake_failures_total", map[string]float64{"handshake_failures_total{overloaded,tls}": 5})
	e.tells("handshakes_waiting", map[string]float64{"handshakes_waiting": most})
	e.logs.wait(t, "new connections are closed; tunnels go on", `"limit":3`)
	for _, c := range []*wsConn{secure, plain} {
		c.lives()
	}
	if resp, body := e.answerTo("GET /ws/node1 HTTP/1.1\r\nHost: h\r\n\r\n"); resp.StatusCode != 200 {
		t.Errorf("a new plain connection got %d %s", resp.StatusCode, body)
	}

	free()
	for range most {
		if err := await(t, "a handshake is done", waiting); err != nil {
			t.Errorf("one that had to wait: %v", err)
		}
	}
	e.dialTLS()
	e.tells("handshakes_waiting", map[string]float64{"handshakes_waiting": 0})
}

func mustDial(t *testing.T, addr string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// While as many wait as may, a handshake whose client has just sent its part is
// refused if that is the first one, and waits on if work was done for it already.
func TestHandshakesThatHaveBegunAreNotRefused(t *testing.T) {
	for _, begun := range []bool{false, true} {
		g := newGate()
		g.limit(1)
		for range cap(g.places) - 1 {
			g.places <- struct{}{}
		}
		ours, client := net.Pipe()
		sent := make(chan error, 1)
		if begun {
			go func() {
				_, err := io.ReadFull(client, make([]byte, 5))
				sent <- err
			}()
		}
		reading := make(chan struct{})
		done := make(chan error, 1)
		conn := &gatedConn{Conn: ours, gate: g}
		go func() {
			done <- conn.through(t.Context(), func(context.Context) error {
				if begun {
					io.WriteString(conn, "hello")
				}
				close(reading)
				_, err := conn.Read(make([]byte, 5))
				return err
			})
		}()
		if <-reading; begun {
			await(t, "the server's part has come", sent)
		}
		g.places <- struct{}{} // the place that waiting for the client has set free
		waiter := make(chan error, 1)
		go func() { waiter <- g.enter(t.Context(), false) }()
		eventually(t, "one waits", func() bool { return g.waiting.Load() == 1 })

		client.Write([]byte("hello"))
		if !begun {
			if err := await(t, "the handshake is refused", done); !errors.Is(err, errHandshakesFull) {
				t.Errorf("got %v", err)
			}
			<-g.places
		} else {
			eventually(t, "both wait", func() bool { return g.waiting.Load() == 2 })
			<-g.places
			<-g.places
			if err := await(t, "the handshake goes on", done); err != nil {
				t.Errorf("got %v", err)
			}
		}
		if err := await(t, "the one that waited has a place", waiter); err != nil {
			t.Errorf("got %v", err)
		}
		ours.Close()
		client.Close()
	}
}

// No handshake waits for a place longer than it may take.
func TestWaitForAPlaceEnds(t *testing.T) {
	e, _ := appEdge(t, func(c *Config) { c.Limits.HandshakeTimeout = 1 })
	free := e.occupy()
	defer free()
	awaitEnd(t, e.knock(clientHello(t)))
	e.tells("handshakes_waiting", map[string]float64{"handshakes_waiting": 0})
	e.tells("handshake_failures_total", map[string]float64{"handshake_failures_total{timeout,tls}": 1})
}
