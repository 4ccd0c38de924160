package gateway

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/gobwas/ws"

	"singlegate/discovery"
)

// A fleet is the nodes of service "im", which a test changes and publishes.
type fleet map[string]discovery.Node

// add puts a node in the fleet, or in place of the one with its id; tune may
// change it.
func (f fleet) add(id, addr string, tune ...func(*discovery.Node)) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		panic(err)
	}
	p, _ := strconv.Atoi(port)
	n := discovery.Node{ID: id, Address: host, Ports: map[string]uint16{"": uint16(p)}, Weight: 1, Status: discovery.Passing, Meta: map[string]string{}}
	for _, t := range tune {
		t(&n)
	}
	f[id] = n
}

func status(s discovery.Status) func(*discovery.Node) {
	return func(n *discovery.Node) { n.Status = s }
}

func meta(key, value string) func(*discovery.Node) {
	return func(n *discovery.Node) { n.Meta[key] = value }
}

func (f fleet) set(id string, s discovery.Status) {
	n := f[id]
	n.Status = s
	f[id] = n
}

func (f fleet) snapshot() discovery.Snapshot {
	nodes := make([]discovery.Node, 0, len(f))
	for _, n := range f {
		nodes = append(nodes, n)
	}
	return discovery.Static{Services: map[string][]discovery.Node{"im": nodes}}.Snapshot()
}

// startFleet runs a gateway over the fleet with the route /ws/{node}, and what
// tune adds.
func startFleet(t *testing.T, f fleet, tune func(*Config)) *edge {
	t.Helper()
	e := startEdge(t, []Route{{At: "r", Paths: []string{"/ws/{node}"}, Service: "im"}}, map[string]map[string]string{"im": nil})
	cfg := e.cfg
	tune(&cfg)
	e.apply(cfg, f)
	return e
}

func (e *edge) apply(cfg Config, f fleet) {
	e.t.Helper()
	for i := range cfg.NodePorts {
		np := &cfg.NodePorts[i]
		if np.Host == "" {
			np.Host = "127.0.0.1"
		}
		if np.Timeouts == (Timeouts{}) {
			np.Timeouts = DefaultTimeouts()
		}
	}
	for i := range cfg.Listeners {
		if l := &cfg.Listeners[i]; l.Service != "" && l.Timeouts == (Timeouts{}) {
			l.Timeouts = DefaultTimeouts()
		}
	}
	snap := f.snapshot()
	if err := e.Apply(cfg, &snap); err != nil {
		e.t.Fatal(err)
	}
	e.cfg = cfg
}

// withPolicy sets what becomes of the fleet's tunnels; PerSecond is high.
func withPolicy(set func(*TunnelPolicy)) func(*Config) {
	return func(c *Config) {
		p := DefaultTunnelPolicy()
		p.PerSecond = 100_000
		set(&p)
		c.Services = []ServiceRef{{Name: "im", Ports: []string{""}, Tunnels: p}}
	}
}

// address is where the listener of that name listens; "": there is none.
func (e *edge) address(name string) string {
	for _, entry := range e.Entries() {
		if entry.Name == name {
			return entry.Address.String()
		}
	}
	return ""
}

// dialTo connects to an address of the gateway, with TLS or without.
func (e *edge) dialTo(addr string, secure bool) net.Conn {
	e.t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		e.t.Fatal(err)
	}
	guarded(e.t, c)
	if secure {
		return tls.Client(c, &tls.Config{RootCAs: e.roots, ServerName: "localhost"})
	}
	return c
}

// openWS opens a tunnel to a node of the fleet.
func (e *edge) openWS(node string) *wsConn {
	e.t.Helper()
	c, _ := open(e.t, e.dial(), handshake("/ws/"+node))
	return c
}

// lives fails the test unless the tunnel carries a message there and back.
func (c *wsConn) lives() {
	c.t.Helper()
	c.send(ws.OpText, "still there?")
	c.expect(ws.OpText, "still there?")
}

// leave answers a Close as clients do, and waits for the end.
func (c *wsConn) leave(code ws.StatusCode) {
	c.t.Helper()
	c.send(ws.OpClose, string(ws.NewCloseFrameBody(code, "")))
	c.expectEnd()
}

// refusedAt waits until nothing listens at an address any more.
func refusedAt(t *testing.T, addr string) {
	t.Helper()
	eventually(t, addr+" refuses", func() bool {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			c.Close()
		}
		return err != nil
	})
}

// freePorts finds n ports in a row that nothing uses, below those that systems
// give to outgoing connections; it gives the first.
func freePorts(t *testing.T, n int) int {
	t.Helper()
	for range 1000 {
		first := 19_000 + rand.IntN(13_000) // above the ports of the examples
		if portsFree(first, n) {
			return first
		}
	}
	t.Fatal("no free ports")
	return 0
}

func portsFree(first, n int) bool {
	for port := first; port < first+n; port++ {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			return false
		}
		l.Close()
	}
	return true
}

// loopback is the address of a port.
func loopback(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }

// imNode answers HTTP with its name and the target, and WebSockets with its
// name and then an echo.
func imNode(t *testing.T, name string) string {
	return rawNode(t, func(c net.Conn) {
		br := bufio.NewReader(c)
		for {
			head := readHead(br)
			line, _, _ := strings.Cut(head, "\r\n")
			method, target, ok := strings.Cut(strings.TrimSuffix(line, " HTTP/1.1"), " ")
			switch {
			case !ok || method != "GET":
				return
			case headerIn(head, "Upgrade") != "":
				io.WriteString(c, switching(head)+string(serverFrame(ws.OpText, name)))
				echo(c, br)
				return
			}
			body := name + " " + target
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
		}
	})
}

// tcpNode says its name first and then echoes, to the end of what it is sent.
func tcpNode(t *testing.T, name string) string {
	return rawNode(t, func(c net.Conn) {
		io.WriteString(c, name+"\n")
		io.Copy(c, c)
	})
}

// expectLine reads one line.
func expectLine(t *testing.T, br *bufio.Reader, want string) {
	t.Helper()
	if got, err := br.ReadString('\n'); got != want+"\n" || err != nil {
		t.Fatalf("got %q, %v; want %q", got, err, want)
	}
}

// A gateKeeper is a WebSocket node that answers handshakes when it is told to.
type gateKeeper struct {
	addr  string
	asked chan struct{} // a handshake has come
	once  sync.Once
	open  chan struct{} // closed: handshakes are answered
}

func startGateKeeper(t *testing.T) *gateKeeper {
	g := &gateKeeper{asked: make(chan struct{}, 100), open: make(chan struct{})}
	g.addr = rawNode(t, func(c net.Conn) {
		br := bufio.NewReader(c)
		head := readHead(br)
		if head == "" {
			return
		}
		g.asked <- struct{}{}
		<-g.open
		io.WriteString(c, switching(head))
		echo(c, br)
	})
	t.Cleanup(g.answer)
	return g
}

func (g *gateKeeper) answer() { g.once.Do(func() { close(g.open) }) }
