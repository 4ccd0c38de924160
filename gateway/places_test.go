package gateway

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/gobwas/ws"

	"singlegate/upstream"
)

// capped gives the fleet's service a cap and a balanced route.
func capped(perNode, all int) func(*Config) {
	return func(c *Config) {
		c.Services = []ServiceRef{{Name: "im", Ports: []string{""}, TunnelsPerNode: perNode}}
		c.Limits.Tunnels = all
		c.Routes = append(c.Routes,
			Route{Paths: []string{"/any"}, Service: "im", Timeouts: DefaultTimeouts()},
			Route{Paths: []string{"/least"}, Service: "im", Balance: LeastConnections, Timeouts: DefaultTimeouts()})
	}
}

// expectFull makes a handshake that a cap refuses.
func (e *edge) expectFull(path, code string) {
	e.t.Helper()
	resp, body := e.answerTo(handshake(path))
	after, err := strconv.Atoi(resp.Header.Get("Retry-After"))
	if resp.StatusCode != 503 || problemCode(body) != code || err != nil || after < 5 || after > 15 {
		e.t.Errorf("%s: got %d, Retry-After %q, %s; want 503 %s", path, resp.StatusCode, resp.Header.Get("Retry-After"), body, code)
	}
}

// empty waits until every place is given back.
func (e *edge) empty() {
	e.t.Helper()
	eventually(e.t, "no place is taken", func() bool {
		e.places.mu.Lock()
		defer e.places.mu.Unlock()
		return e.places.taken == 0 && len(e.places.nodes) == 0
	})
}

// Of many handshakes at once no more than the cap get to the node, as tunnels
// that are being opened count.
func TestCapHoldsInARush(t *testing.T) {
	for name, tune := range map[string]func(*Config){"node_full": capped(3, 0), "gateway_full": capped(0, 3)} {
		t.Run(name, func(t *testing.T) {
			node := startGateKeeper(t)
			f := fleet{}
			f.add("node1", node.addr)
			e := startFleet(t, f, tune)
			var group sync.WaitGroup
			type outcome struct {
				conn net.Conn
				br   *bufio.Reader
				resp *http.Response
			}
			outcomes := make(chan outcome, 20)
			for i := range cap(outcomes) {
				conn := e.dialEither(i)
				group.Go(func() {
					io.WriteString(conn, handshake("/ws/node1"))
					br := bufio.NewReader(conn)
					resp, err := http.ReadResponse(br, nil)
					if err != nil {
						t.Error(err)
					}
					outcomes <- outcome{conn, br, resp}
				})
			}
			for range cap(outcomes) - 3 { // before the node has answered anybody
				o := await(t, "an answer", outcomes)
				body, _ := io.ReadAll(o.resp.Body)
				if o.resp.StatusCode != 503 || problemCode(string(body)) != name {
					t.Errorf("got %d %s", o.resp.StatusCode, body)
				}
			}
			for range 3 {
				await(t, "a handshake at the node", node.asked)
			}
			node.answer()
			group.Wait()
			for range 3 {
				o := <-outcomes
				if o.resp.StatusCode != 101 {
					t.Fatalf("got %d", o.resp.StatusCode)
				}
				(&wsConn{o.conn, o.br, t}).lives()
				o.conn.Close()
			}
			if n := len(node.asked); n > 0 {
				t.Errorf("%d handshakes too many came to the node", n)
			}
			e.tells("refused_total", map[string]float64{"refused_total{" + name + "}": float64(cap(outcomes) - 3)})
			e.empty()
		})
	}
}

// A full node refuses new tunnels, and nothing else: HTTP goes on, tunnels live,
// and with one of them gone there is room for one. A reload that changes the cap
// touches no tunnel.
func TestFullNode(t *testing.T) {
	f := fleet{}
	f.add("node1", imNode(t, "node1"))
	f.add("node2", imNode(t, "node2"))
	e := startFleet(t, f, capped(2, 0))
	list := e.several(2, "node1")
	for _, c := range list {
		c.expect(ws.OpText, "node1")
	}
	e.expectFull("/ws/node1", "node_full")
	e.logs.wait(t, `"error":"node_full"`, `"cause":"services.im.tunnels_per_node is 2"`)
	if resp, body := e.answerTo("GET /ws/node1/x HTTP/1.1\r\nHost: h\r\n\r\n"); resp.StatusCode != 200 || !strings.HasPrefix(body, "node1") {
		t.Errorf("HTTP to a full node: %d %s", resp.StatusCode, body)
	}
	other := e.openWS("node2")
	other.expect(ws.OpText, "node2")

	e.tells("tunnels_per_node_limit", map[string]float64{"tunnels_per_node_limit{im}": 2})
	e.tells("tunnels_limit", map[string]float64{})
	for _, n := range e.Services()[0].Nodes {
		if n.TunnelsLimit != 2 {
			t.Errorf("%s: %+v", n.ID, n)
		}
	}

	cfg := e.cfg
	capped(1, 10)(&cfg)
	e.apply(cfg, f)
	e.tells("tunnels_limit", map[string]float64{"tunnels_limit": 10})
	e.expectFull("/ws/node2", "node_full")
	list[0].Close()
	e.expectFull("/ws/node1", "node_full") // one is still one
	list[1].lives()
	other.lives()
	list[1].Close()
	eventually(t, "there is room", func() bool { return e.tunnels.countOf(upstream.Key{Service: "im", ID: "node1"}) == 0 })
	e.openWS("node1").expect(ws.OpText, "node1")
}

// A balanced route passes over full nodes as long as another one has room.
func TestBalancedRoutesPassOverFullNodes(t *testing.T) {
	for _, path := range []string{"/any", "/least"} {
		t.Run(path, func(t *testing.T) {
			f := fleet{}
			const nodes = 8 // more than are tried when they cannot be reached
			for i := range nodes {
				f.add(fmt.Sprint("node", i), imNode(t, fmt.Sprint("node", i)))
			}
			e := startFleet(t, f, capped(2, 0))
			for i := range nodes - 1 {
				e.several(2, fmt.Sprint("node", i))
			}
			for range 2 {
				c, _ := open(t, e.dial(), handshake(path))
				c.expect(ws.OpText, fmt.Sprint("node", nodes-1))
			}
			e.expectFull(path, "service_full")
			resp, body := e.answerTo("GET " + path + " HTTP/1.1\r\nHost: h\r\n\r\n")
			if resp.StatusCode != 200 {
				t.Errorf("HTTP to full nodes: %d %s", resp.StatusCode, body)
			}
		})
	}
}

// With the rest full and the one with room out of reach, the answer is that of
// full nodes: it is worth coming back.
func TestFullBesideUnreachable(t *testing.T) {
	f := fleet{}
	f.add("full", imNode(t, "full"))
	f.add("down", refusedAddr(t))
	e := startFleet(t, f, capped(1, 0))
	e.several(1, "full")
	e.expectFull("/any", "service_full")
	e.logs.wait(t, `"error":"service_full"`, "tunnels_per_node is 1", "connection refused")
}

// The cap of the whole gateway counts WebSockets and TCP connections of every
// service together.
func TestCapOfTheGateway(t *testing.T) {
	f := fleet{}
	f.add("node1", imNode(t, "node1"))
	f.add("node2", imNode(t, "node2"))
	base := freePorts(t, 2)
	e := startFleet(t, f, func(c *Config) {
		capped(0, 2)(c)
		c.NodePorts = []NodePort{{Service: "im", Kind: "tcp", Listen: PortRule{Base: base - 1}}}
	})
	e.several(1, "node1")
	tcp := e.dialTo(loopback(base+1), false)
	io.WriteString(tcp, handshake("/"))
	if resp, err := http.ReadResponse(bufio.NewReader(tcp), nil); err != nil || resp.StatusCode != 101 {
		t.Fatalf("over the port: %v", err)
	}
	e.expectFull("/ws/node1", "gateway_full")
	e.expectFull("/any", "gateway_full")
	e.logs.wait(t, `"error":"gateway_full"`, `"cause":"limits.tunnels is 2`)
	tcp.Close()
	eventually(t, "there is room", func() bool { return e.Tunnels() == 1 })
	e.openWS("node2").expect(ws.OpText, "node2")
}

// A route for clients that cannot see a status tells them by a close frame.
func TestFullRefusedByClose(t *testing.T) {
	f := fleet{}
	f.add("node1", echoNode(t))
	e := startFleet(t, f, func(c *Config) {
		capped(1, 0)(c)
		c.Routes[0].Refuse = RefuseClose
	})
	e.several(1, "node1")
	for lang, reason := range map[string]string{"en": "try again", "zh-CN": "请稍后再试。"} {
		bothWays(t, e, func(t *testing.T, c net.Conn) {
			refused, _ := open(t, c, handshake("/ws/node1", "Accept-Language: "+lang))
			refused.expectClose(1013, reason)
			refused.expectEnd()
		})
	}
	e.tells("refused_total", map[string]float64{"refused_total{node_full}": 4})
}

// A connection to a TCP port whose node is full is closed at once, and counted.
func TestFullTCPPorts(t *testing.T) {
	e, ports := tcpEdge(t, tcpNode(t, "node1"), "")
	cfg := e.cfg
	cfg.Services = []ServiceRef{{Name: "im", Ports: []string{""}, TunnelsPerNode: len(ports)}}
	if err := e.Apply(cfg, nil); err != nil {
		t.Fatal(err)
	}
	var live []*bufio.Reader
	var conns []net.Conn
	for _, p := range ports {
		c := e.dialTo(p.addr, p.secure)
		br := bufio.NewReader(c)
		io.WriteString(c, "first\n")
		expectLine(t, br, "node1")
		expectLine(t, br, "first")
		live, conns = append(live, br), append(conns, c)
	}
	for _, p := range ports {
		c, err := net.Dial("tcp", p.addr)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(guarded(t, c)); len(got) > 0 || err != nil {
			t.Errorf("%s: got %q, %v", p.name, got, err)
		}
	}
	e.tells("refused_total", map[string]float64{"refused_total{node_full}": 2, "refused_total{service_full}": 2})
	for i, br := range live {
		io.WriteString(conns[i], "more\n")
		expectLine(t, br, "more")
		conns[i].Close()
	}
	e.empty()
}

// A place is given back, however the opening of a tunnel fails.
func TestPlacesOfFailuresAreGivenBack(t *testing.T) {
	f := fleet{}
	f.add("refuses", refusedAddr(t))
	f.add("forbids", httpNode(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) }))
	f.add("nonsense", rawNode(t, func(c net.Conn) {
		readHead(bufio.NewReader(c))
		io.WriteString(c, "what?\r\n\r\n")
	}))
	keeper := startGateKeeper(t)
	f.add("silent", keeper.addr)
	f.add("portless", "127.0.0.1:1")
	node := f["portless"]
	node.Ports = nil
	f["portless"] = node
	e := startFleet(t, f, capped(1, 1))
	for range 3 {
		for id, want := range map[string]int{"refuses": 503, "forbids": 403, "nonsense": 502, "portless": 503} {
			if status, code := e.handshakeAnswer("/ws/" + id); status != want || strings.HasSuffix(code, "_full") {
				t.Errorf("%s: got %d %s", id, status, code)
			}
			e.empty()
		}
		left := e.dial() // the client leaves while the node thinks
		io.WriteString(left, handshake("/ws/silent"))
		await(t, "the handshake is at the node", keeper.asked)
		left.Close()
		e.empty()
	}
}

// Without a local port left the node is not to blame: it is not left out by
// balanced routes afterwards, and the answer says what is the matter.
func TestNoLocalPort(t *testing.T) {
	d := &spentDialer{}
	routes, nodes := pinned(imNode(t, "node1"))
	routes = append(routes, Route{Paths: []string{"/any"}, Service: "im"})
	e := startEdgeOver(t, NewDescriptors(0), d, routes, nodesOf(nodes))
	for range 3 {
		e.expectFull("/ws/node1", "no_local_port")
		e.expectFull("/any", "no_local_port")
		for _, path := range []string{"/ws/node1", "/any"} {
			if resp, body := e.answerTo("GET " + path + " HTTP/1.1\r\nHost: h\r\n\r\n"); resp.StatusCode != 503 || problemCode(body) != "no_local_port" {
				t.Errorf("%s: got %d %s", path, resp.StatusCode, body)
			}
		}
	}
	e.logs.wait(t, `"error":"no_local_port"`, "source_addresses", "ip_local_port_range")
	if until := e.state.Load().table.service("im").Node("node1").Ejected(); !until.IsZero() {
		t.Errorf("the node is left out until %v", until)
	}
}

// A spentDialer has no local port left.
type spentDialer struct{}

func (*spentDialer) DialContext(context.Context, string, string) (net.Conn, error) {
	return nil, &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.EADDRNOTAVAIL)}
}
