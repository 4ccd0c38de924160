package gateway

import (
	"bufio"
	"io"
	"net"
	"testing"
	"time"
)

// A kept connection is an HTTP one that has had an answer and waits for its
// next request.
type kept struct {
	net.Conn
	t  *testing.T
	br *bufio.Reader
}

// keptAt opens a connection to an address of the gateway, whose first request
// the node of that name answers.
func (e *edge) keptAt(addr string, secure bool, node string) *kept {
	e.t.Helper()
	c := e.dialTo(addr, secure)
	k := &kept{c, e.t, bufio.NewReader(c)}
	k.served(node)
	return k
}

// served sends a request and expects the node's answer.
func (k *kept) served(node string) {
	k.t.Helper()
	io.WriteString(k, "GET /x HTTP/1.1\r\nHost: h\r\n\r\n")
	if resp, body := readAnswer(k.t, k.br); resp.StatusCode != 200 || body != node+" /x" {
		k.t.Fatalf("got %d %q, want the answer of %s", resp.StatusCode, body, node)
	}
}

// refused sends a request with another behind it, and expects the first to be
// refused and the connection to end.
func (k *kept) refused() {
	k.t.Helper()
	io.WriteString(k, "GET /x HTTP/1.1\r\nHost: h\r\n\r\n"+hidden)
	resp, body := readAnswer(k.t, k.br)
	if resp.StatusCode != 421 || problemCode(body) != "port_changed" || !resp.Close {
		k.t.Errorf("got %d %q, close %v; want 421 port_changed and the end", resp.StatusCode, body, resp.Close)
	}
	k.ended()
}

// ended expects the end of the connection and nothing more.
func (k *kept) ended() {
	k.t.Helper()
	if rest, err := io.ReadAll(k.br); err != nil || len(rest) > 0 {
		k.t.Errorf("the connection ended with %q, %v", rest, err)
	}
}

// A kept connection to a node's port is served by what the port is now, or not
// at all: a reload may give the port to another node, or make it one for TCP.
// The connection itself stays what it is, with TLS or without.
func TestKeptConnectionsAfterAReload(t *testing.T) {
	port := func(np NodePort, node string, number int) func(*Config) {
		np.Service, np.Listen = "im", PortRule{Map: map[string]uint16{node: uint16(number)}}
		return func(c *Config) { c.NodePorts = []NodePort{np} }
	}
	for _, tc := range []struct {
		name   string
		secure bool
		then   func(number int) func(*Config)
		check  func(k *kept)
	}{
		{"the same", false, func(n int) func(*Config) { return port(NodePort{Kind: "http"}, "node1", n) }, func(k *kept) { k.served("here") }},
		{"another node", false, func(n int) func(*Config) { return port(NodePort{Kind: "http"}, "node2", n) }, func(k *kept) { k.served("there") }},
		{"another node, TLS", true, func(n int) func(*Config) { return port(NodePort{Kind: "http", TLS: true}, "node2", n) }, func(k *kept) { k.served("there") }},
		{"TCP", false, func(n int) func(*Config) { return port(NodePort{Kind: "tcp"}, "node1", n) }, (*kept).refused},
		{"TCP over TLS", true, func(n int) func(*Config) { return port(NodePort{Kind: "tcp", TLS: true}, "node1", n) }, (*kept).refused},
		{"TLS before it", false, func(n int) func(*Config) { return port(NodePort{Kind: "http", TLS: true}, "node1", n) }, func(k *kept) { k.served("here") }},
		{"no TLS any more", true, func(n int) func(*Config) { return port(NodePort{Kind: "http"}, "node1", n) }, func(k *kept) { k.served("here") }},
		{"no port any more", false, func(n int) func(*Config) { return port(NodePort{Kind: "http"}, "node9", n) }, (*kept).ended},
		{"a balanced TCP port", false, func(n int) func(*Config) {
			return func(c *Config) {
				c.Listeners = append(c.Listeners[:len(c.Listeners):len(c.Listeners)], Listener{Name: "b", Address: loopback(n), Service: "im", Timeouts: DefaultTimeouts()})
			}
		}, (*kept).refused},
		{"routes", false, func(n int) func(*Config) {
			return func(c *Config) {
				c.Listeners = append(c.Listeners[:len(c.Listeners):len(c.Listeners)], Listener{Name: "b", Address: loopback(n)})
				c.Routes = append(c.Routes, Route{Paths: []string{"/x"}, Service: "im", Listeners: []string{"b"}, Timeouts: DefaultTimeouts(), Rewrite: "/x"})
			}
		}, func(k *kept) {
			io.WriteString(k, "GET /y HTTP/1.1\r\nHost: h\r\n\r\n")
			if resp, body := readAnswer(k.t, k.br); resp.StatusCode != 404 || problemCode(body) != "no_route" {
				k.t.Errorf("got %d %q, want the routes' answer", resp.StatusCode, body)
			}
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := fleet{}
			f.add("node1", imNode(t, "here"))
			f.add("node2", imNode(t, "there"))
			number := freePorts(t, 1)
			e := startFleet(t, f, func(*Config) {})
			base := e.cfg
			first := base
			port(NodePort{Kind: "http", TLS: tc.secure}, "node1", number)(&first)
			e.apply(first, f)
			k := e.keptAt(loopback(number), tc.secure, "here")
			k.SetDeadline(time.Now().Add(20 * time.Second))
			then := base
			tc.then(number)(&then)
			e.apply(then, f)
			tc.check(k)
		})
	}
}

// A node that moves is where the next request of a kept connection goes, by its
// port and by path.
func TestKeptConnectionsAfterAMove(t *testing.T) {
	f := fleet{}
	here, there := imNode(t, "here"), imNode(t, "there")
	f.add("node1", here)
	number := freePorts(t, 1)
	e := startFleet(t, f, func(c *Config) {
		c.NodePorts = []NodePort{{Service: "im", Kind: "http", Listen: PortRule{Map: map[string]uint16{"node1": uint16(number)}}}}
		c.Routes = append(c.Routes, Route{Paths: []string{"/x"}, Service: "im", Timeouts: DefaultTimeouts()})
	})
	list := []*kept{e.keptAt(loopback(number), false, "here"), e.keptAt(e.plain, false, "here"), e.keptAt(e.secure, true, "here")}
	f.add("node1", there)
	e.Publish(f.snapshot())
	for _, k := range list {
		k.served("there")
	}
}
