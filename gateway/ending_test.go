package gateway

import (
	"bufio"
	"context"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"
)

// muteNode reads requests and never answers; each is told to asked, and its end
// to gone.
func muteNode(t *testing.T) (addr string, asked, gone chan struct{}) {
	asked, gone = make(chan struct{}, 1000), make(chan struct{}, 1000)
	addr = rawNode(t, func(c net.Conn) {
		br := bufio.NewReader(c)
		readHead(br)
		asked <- struct{}{}
		io.Copy(io.Discard, br)
		gone <- struct{}{}
	})
	return addr, asked, gone
}

// Requests that the deadline cuts are ended and logged before Shutdown returns.
func TestShutdownWaitsForWhatItCuts(t *testing.T) {
	addr, asked, _ := muteNode(t)
	e := startEdge(t, []Route{{At: "r", Paths: []string{"/"}, Service: "im"}}, map[string]map[string]string{"im": {"n": addr}},
		func(c *Config) { c.Shutdown = Shutdown{Deadline: 200 * time.Millisecond} })
	const requests = 100
	for range requests {
		io.WriteString(e.dial(), "GET / HTTP/1.1\r\nHost: h\r\n\r\n")
	}
	for range requests {
		<-asked
	}
	e.Shutdown(context.Background())
	if n := strings.Count(e.logs.all(), `"kind":"request"`); n != requests {
		t.Errorf("%d of %d requests are logged", n, requests)
	}
}

// A handshake under way when the end begins becomes a tunnel that is closed
// like the others.
func TestShutdownClosesLateTunnels(t *testing.T) {
	asked, answer := make(chan struct{}), make(chan struct{})
	node := rawNode(t, func(c net.Conn) {
		br := bufio.NewReader(c)
		head := readHead(br)
		close(asked)
		<-answer
		io.WriteString(c, switching(head))
		echo(c, br)
	})
	routes, nodes := pinned(node)
	e := startEdge(t, routes, nodes)
	conn := e.dial()
	io.WriteString(conn, handshake("/ws/node1"))
	<-asked
	done := make(chan struct{})
	go func() {
		defer close(done)
		e.Shutdown(context.Background())
	}()
	eventually(t, "the listeners refuse", func() bool {
		c, err := net.Dial("tcp", e.plain)
		if err == nil {
			c.Close()
		}
		return err != nil
	})
	close(answer)
	c, _ := open(t, conn, "")
	c.expectClose(1001, stopReason)
	c.send(ws.OpClose, string(ws.NewCloseFrameBody(1001, "")))
	c.expectEnd()
	<-done
	if n := e.Tunnels(); n != 0 {
		t.Errorf("%d tunnels are left", n)
	}
	e.logs.wait(t, `"kind":"tunnel"`, `"close_code":1001`)
}

// A listener that was removed cuts, at the deadline, what its requests asked of
// nodes as well.
func TestRetiredListenerCutsItsExchanges(t *testing.T) {
	addr, asked, gone := muteNode(t)
	e := startEdge(t, []Route{{At: "r", Paths: []string{"/"}, Service: "im"}}, map[string]map[string]string{"im": {"n": addr}},
		func(c *Config) { c.Shutdown = Shutdown{Deadline: 100 * time.Millisecond} })
	c := e.dial()
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: h\r\n\r\n")
	<-asked
	cfg := e.cfg
	cfg.Listeners = cfg.Listeners[1:]
	if err := e.Apply(cfg, nil); err != nil {
		t.Fatal(err)
	}
	<-gone
	io.Copy(io.Discard, c)
}

// What follows a handshake that a redirect answers is no request.
func TestRedirectedHandshakeEndsConnection(t *testing.T) {
	e := startEdge(t, []Route{{At: "r", Paths: []string{"/"}, Redirect: "https"}}, nil)
	answer := e.raw(handshake("/ws") + "GET /HIDDEN HTTP/1.1\r\nHost: h\r\n\r\n")
	if !strings.HasPrefix(answer, "HTTP/1.1 301 ") || strings.Contains(answer, "HIDDEN") {
		t.Errorf("got %q", answer)
	}
}

// Answers of nodes that would be something else behind the gateway.
func TestOddAnswers(t *testing.T) {
	cases := []struct{ name, version, answer, want, never string }{
		{"status 000", "1.1", "HTTP/1.1 000 Zero\r\nContent-Length: 2\r\n\r\nab", "502", ""},
		{"status 099", "1.1", "HTTP/1.1 099 Odd\r\nContent-Length: 2\r\n\r\nab", "502", ""},
		{"status 999", "1.1", "HTTP/1.1 999 High\r\nContent-Length: 2\r\n\r\nab", "999 High", ""},
		{"CR in the reason", "1.1", "HTTP/1.1 200 OK\rSet-Cookie: a=b\r\nContent-Length: 2\r\n\r\nab", "200 OK", "\rSet-Cookie"},
		{"CR in the reason, HTTP/1.0", "1.0", "HTTP/1.1 200 OK\rSet-Cookie: a=b\r\n\r\nab", "200 OK", "\rSet-Cookie"},
		{"space in a name, HTTP/1.0", "1.0", "HTTP/1.1 200 OK\r\nX A: b\r\n\r\nab", "200 OK", "X A"},
		{"space in a name", "1.1", "HTTP/1.1 200 OK\r\nX A: b\r\nContent-Length: 2\r\n\r\nab", "200 OK", "X A"},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			node := rawNode(t, func(c net.Conn) {
				readHead(bufio.NewReader(c))
				io.WriteString(c, tc.answer)
			})
			e := startEdge(t, []Route{{At: "r", Paths: []string{"/"}, Service: "im"}}, map[string]map[string]string{"im": {"n": node}})
			answer := e.raw("GET / HTTP/" + tc.version + "\r\nHost: h\r\nConnection: close\r\n\r\n")
			if !strings.HasPrefix(answer, "HTTP/1.1 "+tc.want) || tc.never != "" && strings.Contains(answer, tc.never) {
				t.Errorf("got %q", answer)
			}
		})
	}
}

// A connection stays what it was when its listener changes between plain and TLS.
func TestConnectionKeepsItsScheme(t *testing.T) {
	protos := make(chan string, 2)
	node := rawNode(t, func(c net.Conn) {
		br := bufio.NewReader(c)
		for {
			head := readHead(br)
			if !strings.HasSuffix(head, "\r\n\r\n") {
				return
			}
			protos <- headerIn(head, "X-Forwarded-Proto")
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		}
	})
	e := startEdge(t, []Route{{At: "r", Paths: []string{"/"}, Service: "im"}}, map[string]map[string]string{"im": {"n": node}})
	c := e.dial()
	br := bufio.NewReader(c)
	for i := range 2 {
		io.WriteString(c, "GET / HTTP/1.1\r\nHost: h\r\n\r\n")
		readAnswer(t, br)
		if proto := <-protos; proto != "http" {
			t.Errorf("request %d on a plain connection is called %s", i+1, proto)
		}
		cfg := e.cfg
		cfg.Listeners = []Listener{e.cfg.Listeners[0], e.cfg.Listeners[1]}
		cfg.Listeners[0].TLS = true
		if err := e.Apply(cfg, nil); err != nil {
			t.Fatal(err)
		}
	}
}
