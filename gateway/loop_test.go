package gateway

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"

	"singlegate/discovery"
)

// forwarder passes connections on to what to gives, as a NAT or a load balancer
// does: nobody can tell from its address where it leads.
func forwarder(t *testing.T, to func() string) (addr string, taken *atomic.Int64) {
	taken = &atomic.Int64{}
	addr = rawNode(t, func(c net.Conn) {
		taken.Add(1)
		other, err := net.Dial("tcp", to())
		if err != nil {
			return
		}
		defer other.Close()
		go func() {
			io.Copy(other, c)
			other.(*net.TCPConn).CloseWrite()
		}()
		io.Copy(c, other)
	})
	return addr, taken
}

// A request or handshake that comes back is refused when it does: with a status
// that says so, by closing where the route wants that, and once in the log, with
// the id under which the other lines name the node.
func TestLoopsAreDetected(t *testing.T) {
	var plain atomic.Value
	loop, taken := forwarder(t, func() string { return plain.Load().(string) })
	e := startEdge(t, []Route{
		{Paths: []string{"/ws/{node}"}, Service: "im"},
		{Paths: []string{"/close/{node}"}, Service: "im", Refuse: RefuseClose},
		{Paths: []string{"/any"}, Service: "im"},
		{Paths: []string{"/far/"}, Service: "im", Rewrite: "/nowhere"}, // comes back as a request that no route takes
	}, map[string]map[string]string{"im": {"node1": loop}})
	plain.Store(e.plain)

	for i, path := range []string{"/ws/node1", "/any", "/far/x"} {
		resp, body := e.answerTo("GET " + path + " HTTP/1.1\r\nHost: h\r\n\r\n")
		if resp.StatusCode != 508 || problemCode(body) != "loop_detected" || !strings.Contains(body, "leads back to the gateway") {
			t.Errorf("%s: %d %s", path, resp.StatusCode, body)
		}
		if n := e.handshakes("/ws/node1"); n != 508 {
			t.Errorf("a handshake: %d", n)
		}
		if n := told(t, e.Server)["refused_total{loop_detected}"]; n != float64(2*(i+1)) {
			t.Errorf("%v are counted after %s", n, path)
		}
	}
	c, _ := open(t, e.dial(), handshake("/close/node1"))
	c.expectClose(1013, "leads back to the gateway")
	c.Close()
	if n := taken.Load(); n > 7 {
		t.Errorf("7 requests made %d connections", n)
	}
	line := e.logs.wait(t, `"level":"error"`, "a request came back to this gateway", e.plain)
	id := between(line, `"request_id":"`, `"`)
	e.logs.wait(t, `"kind":"request"`, id, `"error":"loop_detected"`, "was here before")
	e.logs.wait(t, `"kind":"request"`, id, `"status":508`, `"node":"node1"`)
	if n := strings.Count(e.logs.all(), "a request came back to this gateway"); n != 1 {
		t.Errorf("the log says so %d times", n)
	}
}

// handshakes makes a handshake and gives the status.
func (e *edge) handshakes(path string) int {
	e.t.Helper()
	resp, _ := e.answerTo(handshake(path))
	return resp.StatusCode
}

func between(s, before, after string) string {
	_, s, _ = strings.Cut(s, before)
	s, _, _ = strings.Cut(s, after)
	return s
}

// Gateways in a row are no loop, whoever is in front; in a ring they are one.
func TestGatewaysInARow(t *testing.T) {
	seen := make(chan []string, 1)
	node := httpNode(t, func(w http.ResponseWriter, r *http.Request) { seen <- r.Header.Values("Cdn-Loop") })
	routes := func() []Route { return []Route{{Paths: []string{"/"}, Service: "im"}} }
	inner := startEdge(t, routes(), map[string]map[string]string{"im": {"node1": node}})
	outer := startEdge(t, routes(), map[string]map[string]string{"im": {"inner": inner.plain}})
	resp, _ := outer.answerTo("GET / HTTP/1.1\r\nHost: h\r\nCDN-Loop: cdn.example; a=b\r\nConnection: close, CDN-Loop\r\ncdn-loop: other\r\nCDN_Loop: x\r\n\r\n")
	want := "cdn.example; a=b, other, " + outer.loopID + ", " + inner.loopID
	if got := await(t, "the node is asked", seen); resp.StatusCode != 200 || len(got) != 1 || got[0] != want {
		t.Errorf("%d, and the node got %q, want %q", resp.StatusCode, got, want)
	}
	inner.Publish(nodesOf(map[string]map[string]string{"im": {"node1": outer.plain}}))
	if resp, body := outer.answerTo(get("Host: h")); resp.StatusCode != 508 || problemCode(body) != "loop_detected" {
		t.Errorf("in a ring: %d %s", resp.StatusCode, body)
	}
}

// A node whose address is a listener of the gateway's own is not asked, by HTTP,
// WebSocket or TCP; others of its service are; operators are told.
func TestOwnAddressesAreNotAsked(t *testing.T) {
	f := fleet{}
	f.add("node1", imNode(t, "here"))
	e := startFleet(t, f, func(c *Config) {
		c.Listeners = append(c.Listeners[:len(c.Listeners):len(c.Listeners)], Listener{Name: "balanced", Address: "127.0.0.1:0", Service: "im", Timeouts: DefaultTimeouts()})
		c.Routes = append(c.Routes, Route{Paths: []string{"/any"}, Service: "im", Timeouts: DefaultTimeouts()})
	})
	balanced := e.address("balanced")
	f.add("self", balanced)
	f.add("local", strings.Replace(e.plain, "127.0.0.1", "localhost", 1))
	e.Publish(f.snapshot())
	e.Publish(f.snapshot())
	for _, node := range []string{"self", "local"} {
		if resp, body := e.answerTo("GET /ws/" + node + " HTTP/1.1\r\nHost: h\r\n\r\n"); resp.StatusCode != 508 || problemCode(body) != "loop_detected" {
			t.Errorf("%s: %d %s", node, resp.StatusCode, body)
		}
		if n := e.handshakes("/ws/" + node); n != 508 {
			t.Errorf("a handshake with %s: %d", node, n)
		}
	}
	for range 6 {
		if _, body := e.answerTo("GET /any HTTP/1.1\r\nHost: h\r\n\r\n"); body != "here /any" {
			t.Errorf("a balanced request got %q", body)
		}
		c := e.dialTo(balanced, false)
		io.WriteString(c, "GET /x HTTP/1.1\r\nHost: h\r\n\r\n")
		if _, body := readAnswer(t, bufio.NewReader(c)); body != "here /x" {
			t.Errorf("a balanced connection got %q", body)
		}
	}
	for _, n := range e.Services()[0].Nodes {
		if (n.Fault == "") != (n.ID == "node1") || n.ID == "self" && !strings.Contains(n.Fault, balanced+` is that of the gateway's own listener "balanced"`) {
			t.Errorf("%s has the fault %q", n.ID, n.Fault)
		}
	}
	e.logs.wait(t, `"level":"error"`, `"node":"self"`, `"listener":"balanced"`, "not asked")
	e.logs.wait(t, `"level":"error"`, `"node":"local"`, `"listener":"plain"`, "not asked")
	if n := strings.Count(e.logs.all(), "a node leads to the gateway itself"); n != 2 {
		t.Errorf("that two nodes are the gateway is said %d times", n)
	}

	delete(f, "node1")
	e.Publish(f.snapshot())
	if got, err := io.ReadAll(e.dialTo(balanced, false)); err != nil || len(got) > 0 {
		t.Errorf("a connection to nobody but the gateway got %q, %v", got, err)
	}
	e.logs.wait(t, `"listener":"balanced"`, `"error":"loop_detected"`)
	if resp, _ := e.answerTo("GET /any HTTP/1.1\r\nHost: h\r\n\r\n"); resp.StatusCode != 508 {
		t.Errorf("balanced over nobody but the gateway: %d", resp.StatusCode)
	}
}

// namesDialer knows names that DNS need not know, and counts.
type namesDialer struct {
	names map[string]string
	dials atomic.Int64
}

func (d *namesDialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	host, port, _ := net.SplitHostPort(address)
	if ip := d.names[host]; ip != "" {
		d.dials.Add(1)
		address = net.JoinHostPort(ip, port)
	}
	var dialer net.Dialer
	return dialer.DialContext(ctx, network, address)
}

// A name that leads a TCP port to itself is found out by the connection: it
// ends, and the ones that it made do.
func TestTCPLoopByName(t *testing.T) {
	names := &namesDialer{names: map[string]string{"self.example.gov": "127.0.0.1"}}
	e := startEdgeOver(t, NewDescriptors(0), names, nil, nodesOf(map[string]map[string]string{"im": {}}))
	cfg := e.cfg
	port := freePorts(t, 1)
	cfg.Listeners = append(cfg.Listeners[:len(cfg.Listeners):len(cfg.Listeners)], Listener{Name: "tcp", Address: loopback(port), Service: "im", Timeouts: DefaultTimeouts()})
	snap := nodesOf(map[string]map[string]string{"im": {"node1": fmt.Sprintf("self.example.gov:%d", port)}})
	if err := e.Apply(cfg, &snap); err != nil {
		t.Fatal(err)
	}
	ends := func() {
		t.Helper()
		if got, err := io.ReadAll(e.dialTo(loopback(port), false)); err != nil || len(got) > 0 {
			t.Errorf("got %q, %v", got, err)
		}
	}
	ends()
	eventually(t, "every connection has ended", func() bool {
		return e.Tunnels() == 0 && int64(strings.Count(e.logs.all(), `"error":"loop_detected"`)) > names.dials.Load()
	})
	known := names.dials.Load()
	ends()
	if n := names.dials.Load(); n != known {
		t.Errorf("%d more connections were made", n-known)
	}
	if known > 20 {
		t.Errorf("%d connections were made before the loop was known", known)
	}
	e.logs.wait(t, `"level":"error"`, "a request came back to this gateway", loopback(port))
}

// A node's port is not opened where a node itself is to listen.
func TestPortsAreNotTakenFromNodes(t *testing.T) {
	port := freePorts(t, 2)
	f := fleet{}
	f.add("node1", loopback(port))
	f.add("node2", loopback(port+1))
	e := startFleet(t, f, func(c *Config) {
		c.NodePorts = []NodePort{
			{At: "c:1:1", Service: "im", Kind: "tcp", Listen: PortRule{Same: true}},
		}
	})
	faults := e.PortFaults()
	if len(faults) != 2 || !strings.Contains(faults[0].Reason, "the node im/node") || !strings.Contains(faults[0].Reason, "give the public port another number") {
		t.Errorf("the faults are %+v", faults)
	}
	if l, err := net.Listen("tcp", loopback(port)); err != nil {
		t.Errorf("the node cannot have its port: %v", err)
	} else {
		l.Close()
	}
}

func TestOwnSockets(t *testing.T) {
	own := &ownSockets{machine: map[netip.Addr]bool{netip.MustParseAddr("10.0.0.5"): true, netip.MustParseAddr("fd00::5"): true}}
	for _, a := range []string{":443", "10.0.0.5:80", "127.0.0.1:81", "0.0.0.0:82", "[::]:83", "localhost:84", "[fd00::5]:85", "a.example.gov:86", ":0", "no address"} {
		own.addText(a, a)
	}
	for address, want := range map[string]string{
		"127.0.0.1:443": ":443", "127.9.9.9:443": ":443", "[::1]:443": ":443", "10.0.0.5:443": ":443", "localhost:443": ":443", "0.0.0.0:443": ":443", "[::]:443": ":443",
		"[::ffff:10.0.0.5]:443": ":443", "[fd00::5%eth0]:443": ":443",
		"10.0.0.6:443": "", "im.example.gov:443": "", "10.0.0.5:444": "",
		"10.0.0.5:80": "10.0.0.5:80", "127.0.0.1:80": "", "localhost:80": "",
		"127.0.0.1:81": "127.0.0.1:81", "LOCALHOST:81": "127.0.0.1:81", "127.0.0.2:81": "", "10.0.0.5:81": "", "[::1]:81": "",
		"10.0.0.5:82": "0.0.0.0:82", "[fd00::5]:82": "", "10.0.0.5:83": "[::]:83", "[fd00::5]:83": "[::]:83",
		"127.0.0.1:84": "localhost:84", "[fd00::5]:85": "[fd00::5]:85", "10.0.0.5:85": "", "10.0.0.5:86": "",
		"": "", "10.0.0.5": "", ":443": "", "10.0.0.5:": "", "10.0.0.5:99999": "",
	} {
		if got, ours := own.at(address); got != want || ours != (want != "") {
			t.Errorf("%s is %q, %v; want %q", address, got, ours, want)
		}
	}
	if _, ours := (*ownSockets)(nil).at("127.0.0.1:443"); ours {
		t.Error("nothing listens, and something does")
	}
}

func TestCheckNodes(t *testing.T) {
	node := func(id, address string, port uint16) discovery.Node {
		return discovery.Node{ID: id, Address: address, Ports: map[string]uint16{"tcp": port}, Origin: "c.yaml:9:" + id}
	}
	cfg := Config{
		Listeners: []Listener{{At: "c.yaml:1:1", Name: "tls", Address: ":443", TLS: true}, {At: "c.yaml:2:1", Name: "free", Address: "127.0.0.1:0"}},
		NodePorts: []NodePort{{At: "c.yaml:5:1", Service: "im", Port: "tcp", Kind: "tcp", Listen: PortRule{Base: 11880}}},
	}
	for _, c := range []struct {
		nodes []discovery.Node
		want  []string // parts of the error, none: there is none
	}{
		{[]discovery.Node{node("1", "10.255.0.1", 443), node("2", "127.0.0.1", 1883), node("3", "im.example.gov", 443)}, nil},
		{[]discovery.Node{node("1", "127.0.0.1", 443)}, []string{"c.yaml:9:1: node im/1: its address 127.0.0.1:443 is that of the gateway's own listener \"tls\"", "(c.yaml:1:1)"}},
		{[]discovery.Node{node("1", "127.0.0.1", 11882), node("2", "10.255.0.1", 1883)}, []string{"c.yaml:9:1: node im/1", "11882", "\"im/2 tcp\"", "(c.yaml:5:1)"}},
		{[]discovery.Node{node("1", "127.0.0.1", 11881)}, []string{"c.yaml:9:1", "own listener \"im/1 tcp\""}},
	} {
		err := CheckNodes(cfg, map[string][]discovery.Node{"im": c.nodes})
		if (err == nil) != (c.want == nil) {
			t.Errorf("%v: %v", c.nodes, err)
		}
		for _, part := range c.want {
			if err != nil && !strings.Contains(err.Error(), part) {
				t.Errorf("%q is not in: %v", part, err)
			}
		}
	}
}
