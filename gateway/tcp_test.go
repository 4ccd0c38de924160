package gateway

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/pires/go-proxyproto"

	"singlegate/discovery"
)

// tcpEdge is an edge whose TCP ports lead to one node: a pinned one and a
// balanced one, each plain and with TLS.
func tcpEdge(t *testing.T, addr string, proxy ProxyProtocol) (e *edge, ports []tcpPort) {
	t.Helper()
	f := fleet{}
	f.add("node1", addr)
	base := freePorts(t, 2)
	e = startFleet(t, f, func(c *Config) {
		c.NodePorts = []NodePort{
			{Service: "im", Kind: "tcp", Listen: PortRule{Base: base - 1}, ProxyProtocol: proxy},
			{Service: "im", Kind: "tcp", TLS: true, Listen: PortRule{Base: base}, ProxyProtocol: proxy},
		}
		c.Listeners = append(c.Listeners,
			Listener{Name: "balanced", Address: "127.0.0.1:0", Service: "im", ProxyProtocol: proxy},
			Listener{Name: "balanced tls", Address: "127.0.0.1:0", TLS: true, Service: "im", Balance: LeastConnections, ProxyProtocol: proxy},
		)
	})
	return e, []tcpPort{
		{"pinned", loopback(base), false},
		{"pinned tls", loopback(base + 1), true},
		{"balanced", e.address("balanced"), false},
		{"balanced tls", e.address("balanced tls"), true},
	}
}

type tcpPort struct {
	name   string
	addr   string
	secure bool
}

// onEachPort runs a test over every port.
func onEachPort(t *testing.T, e *edge, ports []tcpPort, f func(t *testing.T, c net.Conn)) {
	for _, p := range ports {
		t.Run(p.name, func(t *testing.T) { f(t, e.dialTo(p.addr, p.secure)) })
	}
}

// Every byte arrives as it was sent, both ways at once.
func TestTCPCarriesEveryByte(t *testing.T) {
	const size = 1 << 20
	down := randomBytes(size)
	received := make(chan []byte, 1)
	node := rawNode(t, func(c net.Conn) {
		go c.Write(down)
		all, _ := io.ReadAll(c)
		received <- all
	})
	e, ports := tcpEdge(t, node, "")
	onEachPort(t, e, ports, func(t *testing.T, c net.Conn) {
		up := randomBytes(size)
		var group sync.WaitGroup
		group.Go(func() {
			c.Write(up)
			c.(interface{ CloseWrite() error }).CloseWrite()
		})
		got, err := io.ReadAll(c)
		group.Wait()
		if err != nil || !bytes.Equal(got, down) {
			t.Errorf("the client got %d bytes, %v; want the %d that the node sent", len(got), err, size)
		}
		if got := await(t, "the node has everything", received); !bytes.Equal(got, up) {
			t.Errorf("the node got %d bytes; want the %d that the client sent", len(got), size)
		}
	})
	line := e.logs.wait(t, `"kind":"tunnel"`, `"listener":"im/node1 tcp"`)
	for _, want := range []string{`"node":"node1"`, `"service":"im"`, `"client":"127.0.0.1"`, `"bytes_in":1048576`, `"bytes_out":1048576`, `"request_id":"`} {
		if !strings.Contains(line, want) {
			t.Errorf("the tunnel's line lacks %s: %s", want, line)
		}
	}
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	source := rand.NewChaCha8([32]byte{byte(n)})
	source.Read(b)
	return b
}

// Whoever speaks first is heard at once: neither side waits for the other.
func TestTCPFirstBytes(t *testing.T) {
	t.Run("server", func(t *testing.T) {
		e, ports := tcpEdge(t, rawNode(t, func(c net.Conn) {
			io.WriteString(c, "220 ready\n")
			io.Copy(io.Discard, c)
		}), "")
		onEachPort(t, e, ports, func(t *testing.T, c net.Conn) { expectLine(t, bufio.NewReader(c), "220 ready") })
	})
	t.Run("client", func(t *testing.T) {
		first := make(chan string, 1)
		e, ports := tcpEdge(t, rawNode(t, func(c net.Conn) {
			line, _ := bufio.NewReader(c).ReadString('\n')
			first <- line
			io.Copy(io.Discard, c)
		}), "")
		onEachPort(t, e, ports, func(t *testing.T, c net.Conn) {
			io.WriteString(c, "\x10\x0c\x00 GET / HTTP/1.1\n") // neither HTTP nor anything else here
			if got := await(t, "the node hears the client", first); got != "\x10\x0c\x00 GET / HTTP/1.1\n" {
				t.Errorf("the node got %q", got)
			}
		})
	})
}

// The end of one direction is passed on, and the other goes on.
func TestTCPHalfClose(t *testing.T) {
	t.Run("client", func(t *testing.T) {
		e, ports := tcpEdge(t, rawNode(t, func(c net.Conn) {
			all, _ := io.ReadAll(c)
			fmt.Fprintf(c, "got %q, and the end\n", all)
		}), "")
		onEachPort(t, e, ports, func(t *testing.T, c net.Conn) {
			io.WriteString(c, "last words")
			closeWrite(t, c)
			if got, reset := awaitEnd(t, c); got != "got \"last words\", and the end\n" || reset {
				t.Errorf("got %q, reset %v", got, reset)
			}
		})
	})
	t.Run("server", func(t *testing.T) {
		rest := make(chan string, 1)
		e, ports := tcpEdge(t, rawNode(t, func(c net.Conn) {
			io.WriteString(c, "bye")
			closeWriteQuietly(c)
			all, _ := io.ReadAll(c)
			rest <- string(all)
		}), "")
		onEachPort(t, e, ports, func(t *testing.T, c net.Conn) {
			if got, reset := awaitEnd(t, c); got != "bye" || reset {
				t.Errorf("got %q, reset %v", got, reset)
			}
			io.WriteString(c, "one more thing")
			closeWrite(t, c)
			if got := await(t, "the node's end", rest); got != "one more thing" {
				t.Errorf("the node got %q", got)
			}
		})
	})
}

// The node learns who the client is, before anything the client says.
func TestTCPProxyHeader(t *testing.T) {
	type seen struct {
		header *proxyproto.Header
		err    error
		line   string
	}
	for _, version := range []ProxyProtocol{"v1", "v2"} {
		t.Run(string(version), func(t *testing.T) {
			heads := make(chan seen, 1)
			e, ports := tcpEdge(t, rawNode(t, func(c net.Conn) {
				br := bufio.NewReader(c)
				h, err := proxyproto.Read(br)
				line, _ := br.ReadString('\n')
				heads <- seen{h, err, line}
			}), version)
			onEachPort(t, e, ports, func(t *testing.T, c net.Conn) {
				io.WriteString(c, "PROXY TCP4 1.2.3.4 5.6.7.8 1 2\n") // what a client says is not believed
				s := await(t, "the node has read the header", heads)
				if s.err != nil {
					t.Fatal(s.err)
				}
				if s.header.SourceAddr.String() != c.LocalAddr().String() || s.header.DestinationAddr.String() != c.RemoteAddr().String() {
					t.Errorf("the header says %v → %v, want %v → %v", s.header.SourceAddr, s.header.DestinationAddr, c.LocalAddr(), c.RemoteAddr())
				}
				if "v"+fmt.Sprint(s.header.Version) != string(version) || !s.header.Command.IsProxy() || s.header.TransportProtocol != proxyproto.TCPv4 {
					t.Errorf("the header is %+v", s.header)
				}
				if s.line != "PROXY TCP4 1.2.3.4 5.6.7.8 1 2\n" {
					t.Errorf("behind the header the node got %q", s.line)
				}
			})
		})
	}
}

// A node that cannot be had costs the connection, which is closed without a
// word, and never leads to another node.
func TestTCPNodeTrouble(t *testing.T) {
	other := make(chan struct{}, 10)
	f := fleet{}
	f.add("node1", refusedAddr(t))
	f.add("node2", tcpNode(t, "node2"), status(discovery.Maintenance))
	f.add("node3", rawNode(t, func(net.Conn) { other <- struct{}{} }))
	base := freePorts(t, 3)
	e := startFleet(t, f, func(c *Config) {
		c.NodePorts = []NodePort{{Service: "im", Kind: "tcp", Listen: PortRule{Base: base - 1}}}
		c.Listeners = append(c.Listeners, Listener{Name: "lost", Address: "127.0.0.1:0", Service: "lost"})
	})
	for addr, code := range map[string]string{
		loopback(base): "node_down", loopback(base + 1): "node_draining", e.address("lost"): "no_snapshot",
	} {
		if got, reset := awaitEnd(t, e.dialTo(addr, false)); got != "" || reset {
			t.Errorf("%s: got %q, reset %v", code, got, reset)
		}
		e.logs.wait(t, `"kind":"request"`, `"error":"`+code+`"`)
	}
	if len(other) > 0 {
		t.Error("another node was asked")
	}
	if n := f.active(e); n != 0 {
		t.Errorf("%d leases are left", n)
	}
}

// active is how many leases the fleet's nodes have.
func (f fleet) active(e *edge) (n int64) {
	for _, node := range e.state.Load().table.service("im").Nodes() {
		n += node.Active()
	}
	return n
}

// A countingDialer counts the connections that are tried to each address.
type countingDialer struct {
	mu    sync.Mutex
	tried map[string]int
}

func (d *countingDialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	d.mu.Lock()
	d.tried[address]++
	d.mu.Unlock()
	return (&net.Dialer{}).DialContext(ctx, network, address)
}

func (d *countingDialer) tries(addrs ...string) (n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, addr := range addrs {
		n += d.tried[addr]
	}
	return n
}

// A balanced port goes to the next node when one refuses, and leaves that one
// out for a while; when all refuse, all are tried, each time.
func TestTCPBalanced(t *testing.T) {
	down, up := refusedAddr(t), tcpNode(t, "up")
	dialer := &countingDialer{tried: map[string]int{}}
	e := startEdgeOver(t, NewDescriptors(0), dialer, nil, inOrder("im", down, up))
	cfg := e.cfg
	cfg.Listeners = append(slices.Clone(cfg.Listeners), Listener{Name: "xmpp", Address: "127.0.0.1:0", Service: "im", Timeouts: DefaultTimeouts()})
	snap := inOrder("im", down, up)
	if err := e.Apply(cfg, &snap); err != nil {
		t.Fatal(err)
	}
	const connections = 40
	for range connections {
		c := e.dialTo(e.address("xmpp"), false)
		expectLine(t, bufio.NewReader(c), "up")
		c.Close()
	}
	// Every other turn is the node's that is down; each ejection, of 1 s, 2 s,
	// 4 s, saves its turns.
	if n := dialer.tries(down); n < 1 || n > connections/4 {
		t.Errorf("the node that refuses was tried %d times in %d connections", n, connections)
	}
	for _, n := range e.Services()[0].Nodes {
		if n.ID == up && !n.EjectedUntil.IsZero() {
			t.Error("the node that works is ejected")
		}
	}

	other := refusedAddr(t)
	snap = inOrder("im", down, other)
	e.Publish(snap)
	for i := range 3 {
		before := dialer.tries(down, other)
		if got, reset := awaitEnd(t, e.dialTo(e.address("xmpp"), false)); got != "" || reset {
			t.Errorf("got %q, reset %v", got, reset)
		}
		if n := dialer.tries(down, other) - before; n != 2 {
			t.Errorf("connection %d: %d nodes were tried, want both, ejected or not", i, n)
		}
	}
	e.logs.wait(t, `"error":"no_node_reached"`, `"listener":"xmpp"`)
}

// What is no TLS, or says nothing, ends there; and the end of the gateway does
// not wait for it.
func TestTCPBrokenTLS(t *testing.T) {
	reached := make(chan struct{}, 10)
	e, ports := tcpEdge(t, rawNode(t, func(net.Conn) { reached <- struct{}{} }), "")
	cfg := e.cfg
	cfg.Shutdown.Deadline = 200 * time.Millisecond
	if err := e.Apply(cfg, nil); err != nil {
		t.Fatal(err)
	}
	c := e.dialTo(ports[1].addr, false)
	io.WriteString(c, "no TLS at all, no TLS at all")
	awaitEnd(t, c)
	e.logs.wait(t, `"error":"tls_handshake"`)

	e.dialTo(ports[1].addr, false) // says nothing
	l := e.listeners[ports[1].addr]
	eventually(t, "the connection is accepted", func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return len(l.conns) == 1
	})
	e.Shutdown(context.Background())
	if n := strings.Count(e.logs.all(), `"error":"tls_handshake"`); n != 2 || strings.Contains(e.logs.all(), `"cause":"timeout"`) {
		t.Errorf("%d handshakes failed, want 2, none by its timeout", n)
	}
	if len(reached) > 0 {
		t.Error("the node was reached")
	}
}

// A protocol's own name in the TLS hello does not keep its clients out: what is
// carried is not the gateway's business.
func TestTCPForeignALPN(t *testing.T) {
	e, ports := tcpEdge(t, tcpNode(t, "node1"), "")
	c, err := tls.Dial("tcp", ports[1].addr, &tls.Config{RootCAs: e.roots, ServerName: "localhost", NextProtos: []string{"xmpp-client"}})
	if err != nil {
		t.Fatal(err)
	}
	expectLine(t, bufio.NewReader(guarded(t, c)), "node1")
}

// Tunnels without traffic end after their port's idle time.
func TestTCPIdle(t *testing.T) {
	f := fleet{}
	f.add("node1", tcpNode(t, "node1"))
	port := freePorts(t, 1)
	timeouts := DefaultTimeouts()
	timeouts.Idle = 50 * time.Millisecond
	e := startFleet(t, f, func(c *Config) {
		c.NodePorts = []NodePort{{Service: "im", Kind: "tcp", Listen: PortRule{Base: port - 1}, Timeouts: timeouts}}
	})
	c := e.dialTo(loopback(port), false)
	if got, _ := awaitEnd(t, c); got != "node1\n" {
		t.Errorf("got %q", got)
	}
	c.Close()
	e.logs.wait(t, `"kind":"tunnel"`, `"ended_by":"idle"`)
}

// Node B comes, goes, moves and fails; its ports open and close; and node A's
// tunnels, of every kind, lose no byte.
func TestOtherNodesTouchNoTunnel(t *testing.T) {
	f := fleet{}
	f.add("node1", echoNode(t))
	f.add("node3", rawNode(t, func(c net.Conn) { io.Copy(c, c) }))
	addrs := []string{imNode(t, "node2"), tcpNode(t, "node2")}
	base := freePorts(t, 6)
	e := startFleet(t, f, func(c *Config) {
		withPolicy(func(p *TunnelPolicy) {
			p.AddressChange, p.Failing, p.Deregistered, p.After = PolicyClose, PolicyClose, PolicyClose, 0
		})(c)
		c.NodePorts = []NodePort{
			{Service: "im", Kind: "http", Listen: PortRule{Base: base - 1}},
			{Service: "im", Kind: "tcp", TLS: true, Listen: PortRule{Base: base + 2}},
			{Service: "im", Kind: "tcp", Listen: PortRule{Meta: "none"}},
		}
	})
	stop := make(chan struct{})
	var group sync.WaitGroup
	var rounds atomic.Int64
	watch := func(round func(n int)) {
		group.Go(func() {
			for n := 0; ; n++ {
				round(n)
				rounds.Add(1)
				select {
				case <-stop:
					return
				default:
				}
			}
		})
	}
	const each = 8
	for i := range each {
		byPath := e.openWS("node1")
		byPort, _ := open(t, e.dialTo(loopback(base), false), handshake("/"))
		for _, c := range []*wsConn{byPath, byPort} {
			watch(func(n int) {
				message := fmt.Sprintf("%d-%d %s", i, n, strings.Repeat("x", n%3000))
				c.send(ws.OpText, message)
				c.expect(ws.OpText, message)
			})
		}
		c := e.dialTo(loopback(base+5), true)
		watch(func(n int) {
			message := randomBytes(1 + n%5000)
			if _, err := c.Write(message); err != nil {
				t.Error(err)
			}
			got := make([]byte, len(message))
			if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, message) {
				t.Errorf("%d bytes did not come back as they were: %v", len(message), err)
			}
		})
	}
	var visitors []net.Conn // of node B
	for i := range 50 {
		switch i % 5 {
		case 0:
			f.add("node2", addrs[0])
		case 1:
			f.add("node2", addrs[1])
		case 2:
			f.set("node2", discovery.Failing)
		case 3:
			f.set("node2", discovery.Maintenance)
		case 4:
			delete(f, "node2")
		}
		e.Publish(f.snapshot())
		if c, err := net.Dial("tcp", loopback(base+1)); err == nil {
			io.WriteString(c, handshake("/"))
			visitors = append(visitors, guarded(t, c))
		}
	}
	done := rounds.Load()
	eventually(t, "every tunnel has carried more since", func() bool { return rounds.Load() > done+6*each })
	close(stop)
	group.Wait()
	for _, c := range visitors {
		c.Close()
	}
	eventually(t, "only node A's tunnels live", func() bool { return e.Tunnels() == 3*each })
	for line := range strings.SplitSeq(e.logs.all(), "\n") {
		if strings.Contains(line, `"kind":"tunnel"`) && !strings.Contains(line, `"node":"node2"`) {
			t.Errorf("a tunnel ended: %s", line)
		}
	}
}
