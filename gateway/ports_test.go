package gateway

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/gobwas/ws"

	"singlegate/discovery"
)

func TestPortRule(t *testing.T) {
	cases := []struct {
		name   string
		rule   PortRule
		port   string // which port of the node
		id     string
		meta   map[string]string
		want   int
		reason string
	}{
		{name: "map", rule: PortRule{Map: map[string]uint16{"node1": 5020}}, id: "node1", want: 5020},
		{name: "not in the map", rule: PortRule{Map: map[string]uint16{"node1": 5020}}, id: "node10", want: 0},
		{name: "meta", rule: PortRule{Meta: "entry"}, id: "a", meta: map[string]string{"entry": "65535"}, want: 65535},
		{name: "meta missing", rule: PortRule{Meta: "entry"}, id: "a", meta: map[string]string{"Entry": "1"}, reason: `no metadata "entry"`},
		{name: "meta no number", rule: PortRule{Meta: "entry"}, id: "a", meta: map[string]string{"entry": "x"}, reason: `metadata "entry" is "x", expected a port from 1 to 65535`},
		{name: "meta empty", rule: PortRule{Meta: "entry"}, id: "a", meta: map[string]string{"entry": ""}, reason: `is ""`},
		{name: "meta 0", rule: PortRule{Meta: "entry"}, id: "a", meta: map[string]string{"entry": "0"}, reason: "from 1 to 65535"},
		{name: "meta too large", rule: PortRule{Meta: "entry"}, id: "a", meta: map[string]string{"entry": "65536"}, reason: "from 1 to 65535"},
		{name: "meta negative", rule: PortRule{Meta: "entry"}, id: "a", meta: map[string]string{"entry": "-1"}, reason: "from 1 to 65535"},
		{name: "same", rule: PortRule{Same: true}, port: "tcp", id: "a", want: 1883},
		{name: "same, another", rule: PortRule{Same: true}, port: "http", id: "a", want: 80},
		{name: "base", rule: PortRule{Base: 10080}, id: "node3", want: 10083},
		{name: "base, two digits", rule: PortRule{Base: 10080}, id: "node12", want: 10092},
		{name: "base, the last number counts", rule: PortRule{Base: 10080}, id: "10.0.0.7", want: 10087},
		{name: "base, leading zeros", rule: PortRule{Base: 10080}, id: "node-007", want: 10087},
		{name: "base, only digits", rule: PortRule{Base: 10080}, id: "5", want: 10085},
		{name: "base, no digits", rule: PortRule{Base: 10080}, id: "node3a", reason: `"node3a" does not`},
		{name: "base, highest", rule: PortRule{Base: 65530}, id: "n5", want: 65535},
		{name: "base, beyond", rule: PortRule{Base: 65530}, id: "n6", reason: "is no port"},
		{name: "base, far beyond", rule: PortRule{Base: 1}, id: "n9223372036854775807", reason: "is no port"},
		{name: "base, no such number", rule: PortRule{Base: 1}, id: "n99999999999999999999", reason: "is no port"},
		{name: "base, nothing", rule: PortRule{}, id: "n0", reason: "is no port"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			n := &discovery.Node{ID: c.id, Address: "10.0.0.1", Ports: map[string]uint16{"tcp": 1883, "http": 80}, Meta: c.meta}
			got, reason := c.rule.PublicPort(n, c.port)
			if got != c.want && c.reason == "" || (reason == "") != (c.reason == "") || !strings.Contains(reason, c.reason) {
				t.Errorf("got %d, %q; want %d, %q", got, reason, c.want, c.reason)
			}
		})
	}
}

// A port comes with its node and goes with it; whatever comes in by it is for
// this node alone; a tunnel outlives its port.
func TestNodePortsComeAndGo(t *testing.T) {
	f := fleet{}
	f.add("node1", imNode(t, "node1"))
	node2, nowhere := imNode(t, "node2"), imNode(t, "nowhere")
	base := freePorts(t, 4)
	e := startFleet(t, f, func(c *Config) {
		withPolicy(func(p *TunnelPolicy) { p.Deregistered = PolicyKeep })(c)
		c.NodePorts = []NodePort{
			{At: "f:1:1", Service: "im", Kind: "http", Listen: PortRule{Base: base - 1}},
			{At: "f:2:1", Service: "im", Kind: "http", TLS: true, Listen: PortRule{Base: base + 1}},
		}
	})
	f.add("node2", node2)
	f.add("nowhere", nowhere) // its id has no number
	e.Publish(f.snapshot())

	var tunnels []*wsConn
	for i, node := range []string{"node1", "node2"} {
		for _, secure := range []bool{false, true} {
			addr := loopback(base + i)
			if secure {
				addr = loopback(base + 2 + i)
			}
			c := e.dialTo(addr, secure)
			br := bufio.NewReader(c)
			for _, target := range []string{"/a/b?x=1", "/ws/node1"} { // no route counts here, no node but its own
				io.WriteString(c, "GET "+target+" HTTP/1.1\r\nHost: anything\r\n\r\n")
				if _, body := readAnswer(t, br); body != node+" "+target {
					t.Errorf("%s of %s answers %q", target, node, body)
				}
			}
			tunnel, _ := open(t, e.dialTo(addr, secure), handshake("/any"))
			tunnel.expect(ws.OpText, node)
			tunnels = append(tunnels, tunnel)
		}
	}
	faults := e.PortFaults()
	if len(faults) != 2 || faults[0].Name != "im/nowhere http" || faults[0].At != "f:1:1" || !strings.Contains(faults[0].Reason, `"nowhere" does not`) {
		t.Errorf("faults: %+v", faults)
	}

	kept := e.dialTo(loopback(base+1), false) // an idle connection of HTTP
	io.WriteString(kept, "GET / HTTP/1.1\r\nHost: h\r\n\r\n")
	readAnswer(t, bufio.NewReader(kept))
	delete(f, "node2")
	e.Publish(f.snapshot())
	refusedAt(t, loopback(base+1))
	refusedAt(t, loopback(base+3))
	if rest, _ := awaitEnd(t, kept); rest != "" {
		t.Errorf("the idle connection of the closed port ended with %q", rest)
	}
	for _, c := range tunnels {
		c.lives()
	}
	if n := len(e.Entries()); n != 4 {
		t.Errorf("%d entries are left, want the two listeners and two ports of node1", n)
	}
}

// A node that comes back at once finds its port.
func TestPortReopens(t *testing.T) {
	f, gone := fleet{}, fleet{}
	f.add("node1", tcpNode(t, "node1"))
	port := freePorts(t, 1)
	e := startFleet(t, f, func(c *Config) {
		c.NodePorts = []NodePort{{Service: "im", Kind: "tcp", Listen: PortRule{Base: port - 1}}}
	})
	for range 20 {
		e.Publish(gone.snapshot())
		e.Publish(f.snapshot())
		if faults := e.PortFaults(); len(faults) > 0 {
			t.Fatalf("the port did not open again: %+v", faults)
		}
	}
	expectLine(t, bufio.NewReader(e.dialTo(loopback(port), false)), "node1")
}

// Of two that want one port the first gets it, a listener before every node.
// The other is named, and logged once, and gets the port when it is free.
func TestPortCollisions(t *testing.T) {
	f := fleet{}
	base := freePorts(t, 2)
	text := fmt.Sprint(base)
	for _, id := range []string{"a", "b", "c"} {
		f.add(id, tcpNode(t, id), meta("entry", text))
	}
	f["c"].Meta["entry"] = fmt.Sprint(base + 1)
	e := startFleet(t, f, func(c *Config) {
		c.Listeners = append(c.Listeners, Listener{At: "f:9:3", Name: "web", Address: loopback(base + 1)})
		c.NodePorts = []NodePort{{At: "f:1:1", Service: "im", Kind: "tcp", Host: "0.0.0.0", Listen: PortRule{Meta: "entry"}}}
	})
	e.Publish(f.snapshot())
	e.Publish(f.snapshot())
	faults := e.PortFaults()
	if len(faults) != 2 || faults[0].Name != "im/b tcp" || faults[1].Name != "im/c tcp" ||
		!strings.Contains(faults[0].Reason, `listener "im/a tcp" (f:1:1)`) || !strings.Contains(faults[1].Reason, `listener "web" (f:9:3)`) ||
		faults[0].Address != "0.0.0.0:"+text {
		t.Errorf("faults: %+v", faults)
	}
	for _, name := range []string{"im/b tcp", "im/c tcp"} {
		if n := strings.Count(e.logs.all(), `"listener":"`+name); n != 1 {
			t.Errorf("%d log lines about %s, want 1", n, name)
		}
	}
	expectLine(t, bufio.NewReader(e.dialTo(loopback(base), false)), "a")

	delete(f, "a")
	e.Publish(f.snapshot())
	if faults := e.PortFaults(); len(faults) != 1 || faults[0].Name != "im/c tcp" {
		t.Errorf("faults without a: %+v", faults)
	}
	expectLine(t, bufio.NewReader(e.dialTo(loopback(base), false)), "b")
}

// A port that another process has is a fault until it is free, and is tried again.
func TestTakenPortIsRetried(t *testing.T) {
	port := freePorts(t, 1)
	other, err := net.Listen("tcp", loopback(port))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	f := fleet{}
	f.add("node1", tcpNode(t, "node1"))
	e := startFleet(t, f, func(c *Config) {
		c.NodePorts = []NodePort{{At: "f:1:1", Service: "im", Kind: "tcp", Listen: PortRule{Base: port - 1}}}
	})
	e.retryPorts() // what the timer does
	faults := e.PortFaults()
	if len(faults) != 1 || faults[0].Name != "im/node1 tcp" || faults[0].Address != loopback(port) || !strings.Contains(faults[0].Reason, "another process listens there") {
		t.Fatalf("faults: %+v", faults)
	}
	if n := strings.Count(e.logs.all(), "port not open"); n != 1 {
		t.Errorf("%d log lines about the port, want 1", n)
	}
	if e.retry == nil {
		t.Error("it will not be tried again")
	}
	other.Close()
	e.retryPorts()
	if faults := e.PortFaults(); len(faults) > 0 || e.retry != nil {
		t.Errorf("the port is free, and the faults are %+v, retry %v", faults, e.retry)
	}
	expectLine(t, bufio.NewReader(e.dialTo(loopback(port), false)), "node1")
}

// A rule that changes its kind keeps the socket, and its tunnels.
func TestPortChangesKind(t *testing.T) {
	f := fleet{}
	f.add("node1", imNode(t, "node1"))
	port := freePorts(t, 1)
	rule := NodePort{Service: "im", Kind: "http", Listen: PortRule{Map: map[string]uint16{"node1": uint16(port)}}}
	e := startFleet(t, f, func(c *Config) { c.NodePorts = []NodePort{rule} })
	before := e.listeners[loopback(port)]
	tunnel, _ := open(t, e.dialTo(loopback(port), false), handshake("/"))
	tunnel.expect(ws.OpText, "node1")

	for _, change := range []struct {
		kind string
		tls  bool
	}{{"tcp", false}, {"tcp", true}, {"http", true}, {"http", false}} {
		rule.Kind, rule.TLS = change.kind, change.tls
		cfg := e.cfg
		cfg.NodePorts = []NodePort{rule}
		e.apply(cfg, f)
		if e.listeners[loopback(port)] != before {
			t.Error("the socket is another one")
		}
		c := e.dialTo(loopback(port), change.tls)
		io.WriteString(c, "GET /x HTTP/1.1\r\nHost: h\r\n\r\n")
		resp, body := readAnswer(t, bufio.NewReader(c))
		// What the gateway adds to answers tells who has read the request.
		if proxied := resp.Header.Get("Date") != "" || resp.Header.Get("X-Request-Id") != ""; body != "node1 /x" || proxied && change.kind == "tcp" {
			t.Errorf("%+v: got %q %v", change, body, resp.Header)
		}
		tunnel.lives()
	}
}

// Origins and refuse hold on a port of kind http as on a route, and a node that
// is down is answered for.
func TestNodePortPolicies(t *testing.T) {
	f := fleet{}
	f.add("node1", imNode(t, "node1"))
	f.add("node2", refusedAddr(t))
	base := freePorts(t, 2)
	e := startFleet(t, f, func(c *Config) {
		c.NodePorts = []NodePort{{
			Service: "im", Kind: "http", Listen: PortRule{Base: base - 1}, Origins: []string{"https://web.example.gov"}, Refuse: RefuseClose,
		}}
	})
	c, _ := open(t, e.dialTo(loopback(base), false), handshake("/", "Origin: https://web.example.gov"))
	c.expect(ws.OpText, "node1")
	c, _ = open(t, e.dialTo(loopback(base), false), handshake("/", "Origin: https://evil.example"))
	c.expectClose(1008, "")
	c, _ = open(t, e.dialTo(loopback(base+1), false), handshake("/"))
	c.expectClose(1013, "node2")
	resp, err := e.client().Get("http://" + loopback(base+1) + "/")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, _ := io.ReadAll(resp.Body); resp.StatusCode != http.StatusServiceUnavailable || problemCode(string(body)) != "node_down" {
		t.Errorf("got %s %s", resp.Status, body)
	}
}

// A rule says what is wrong with nodes that lack its port.
func TestNodePortWithoutPort(t *testing.T) {
	f := fleet{}
	f.add("node1", tcpNode(t, "node1"))
	e := startFleet(t, f, func(c *Config) {
		c.NodePorts = []NodePort{{At: "f:1:1", Service: "im", Port: "tcp", Kind: "tcp", Listen: PortRule{Same: true}}}
	})
	if faults := e.PortFaults(); len(faults) != 1 || faults[0].Name != "im/node1 tcp" || !strings.Contains(faults[0].Reason, `no port "tcp"`) {
		t.Errorf("faults: %+v", faults)
	}
	e.Publish(discovery.Snapshot{}) // nothing is known of any node
	if faults := e.PortFaults(); len(faults) != 0 {
		t.Errorf("faults of nodes that are gone: %+v", faults)
	}
}

// Which addresses take each other's port.
func TestSameSocket(t *testing.T) {
	for _, c := range []struct {
		a, b string
		same bool
	}{
		{":80", "10.0.0.1:80", true}, {":80", "[::1]:80", true}, {":80", ":81", false}, {":0", ":0", false},
		{"0.0.0.0:80", "10.0.0.1:80", true}, {"0.0.0.0:80", "[::1]:80", false}, {"0.0.0.0:80", "host:80", true},
		{"[::]:80", "10.0.0.1:80", true}, {"[::]:80", "0.0.0.0:80", true}, {"10.0.0.1:80", "10.0.0.2:80", false}, {"a:80", "a:80", true},
	} {
		if sameSocket(c.a, c.b) != c.same || sameSocket(c.b, c.a) != c.same {
			t.Errorf("%s and %s: want %v", c.a, c.b, c.same)
		}
	}
}
