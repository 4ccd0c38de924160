package gateway

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/gobwas/ws"
	"github.com/pires/go-proxyproto"
)

// proxyV2 is a header of version 2 with that command, family and content, and a
// length of its own.
func proxyV2(command, family byte, length int, content string) string {
	b := append([]byte(proxyV2Sign), command, family)
	return string(binary.BigEndian.AppendUint16(b, uint16(length))) + content
}

const (
	ends4 = "\xc0\x00\x02\x01\xcb\x00\x71\x02\x9c\x40\x01\xbb" // 192.0.2.1:40000 → 203.0.113.2:443
	ends6 = "\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01" +
		"\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x9c\x40\x01\xbb"
	mapped = "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\xc0\x00\x02\x01" +
		"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\xcb\x00\x71\x02\x9c\x40\x01\xbb"
)

func TestProxyHeaders(t *testing.T) {
	const client4, client6 = "192.0.2.1:40000", "[2001:db8::1]:40000"
	none := "invalid AddrPort"
	tlv := "\x20\x00\x03abc" + "\x04\x00\x00"
	for _, c := range []struct {
		header string
		client string
		err    error // nil: it is a header
	}{
		{"PROXY TCP4 192.0.2.1 203.0.113.2 40000 443\r\n", client4, nil},
		{"PROXY TCP6 2001:db8::1 2001:db8::2 40000 443\r\n", client6, nil},
		{"PROXY TCP6 ::ffff:192.0.2.1 ::ffff:203.0.113.2 40000 443\r\n", client4, nil},
		{"PROXY UNKNOWN\r\n", none, nil},
		{"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n", none, nil},
		{"PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n", "0.0.0.0:0", nil},
		{proxyV2(0x21, 0x11, 12, ends4), client4, nil},
		{proxyV2(0x21, 0x21, 36, ends6), client6, nil},
		{proxyV2(0x21, 0x21, 36, mapped), client4, nil},
		{proxyV2(0x21, 0x11, 12+len(tlv), ends4+tlv), client4, nil},
		{proxyV2(0x21, 0x11, proxyV2Most, ends4+strings.Repeat("x", proxyV2Most-12)), client4, nil},
		{proxyV2(0x20, 0x11, 12, ends4), none, nil}, // LOCAL
		{proxyV2(0x20, 0x00, 0, ""), none, nil},
		{proxyV2(0x20, 0xff, 3, "abc"), none, nil},
		{proxyV2(0x21, 0x00, 0, ""), none, nil},
		{proxyV2(0x21, 0x31, 216, strings.Repeat("s", 216)), none, nil}, // UNIX

		{"GET / HTTP/1.1\r\nHost: h\r\n\r\n", "", errProxyMissing},
		{"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03aaaaaaaaaaa", "", errProxyMissing},
		{"POST /", "", errProxyMissing}, // too little to be one, and the end
		{"proxy TCP4 192.0.2.1 203.0.113.2 40000 443\r\n", "", errProxyMissing},
		{" PROXY TCP4 192.0.2.1 203.0.113.2 40000 443\r\n", "", errProxyMissing},
		{"PROXY\tTCP4 192.0.2.1 203.0.113.2 40000 443\r\n", "", errProxyMissing},
		{"\r\n\r\n\x00\r\nQUIT\r!\x11\x00\x0c" + ends4, "", errProxyMissing},
		{"PROXY TCP4 192.0.2.1 203.0.113.2 40000 443", "", io.EOF},
		{"PROXY TCP4 192.0.2.1 203.0.113.2 40000 443\n", "", io.EOF},
		{"PROXY TCP4 192.0.2.1 203.0.113.2 40000\r\n", "", errProxyMalformed},
		{"PROXY TCP4 192.0.2.1 203.0.113.2 40000 443 \r\n", "", errProxyMalformed},
		{"PROXY TCP4  192.0.2.1 203.0.113.2 40000 443\r\n", "", errProxyMalformed},
		{"PROXY TCP4 192.0.2.1 203.0.113.2 40000 65536\r\n", "", errProxyMalformed},
		{"PROXY TCP4 192.0.2.1 203.0.113.2 -1 443\r\n", "", errProxyMalformed},
		{"PROXY TCP4 192.0.2.1 203.0.113.2 040 443\r\n", "", errProxyMalformed},
		{"PROXY TCP4 192.0.2.1 203.0.113.2 +40 443\r\n", "", errProxyMalformed},
		{"PROXY TCP4 192.0.2.01 203.0.113.2 40000 443\r\n", "", errProxyMalformed},
		{"PROXY TCP4 2001:db8::1 2001:db8::2 40000 443\r\n", "", errProxyMalformed},
		{"PROXY TCP6 192.0.2.1 203.0.113.2 40000 443\r\n", "", errProxyMalformed},
		{"PROXY TCP6 fe80::1%eth0 fe80::2 40000 443\r\n", "", errProxyMalformed},
		{"PROXY TCP4 im.example.gov 203.0.113.2 40000 443\r\n", "", errProxyMalformed},
		{"PROXY UDP4 192.0.2.1 203.0.113.2 40000 443\r\n", "", errProxyMalformed},
		{"PROXY UNKNOWNS\r\n", "", errProxyMalformed},
		{"PROXY TCP4 192.0.2.1\n203.0.113.2 40000 443\r\n", "", errProxyMalformed},
		{"PROXY TCP4 1\r\nX", "", io.EOF}, // an end of line where the line goes on
		{"PROXY UNKNOWN " + strings.Repeat("x", proxyV1Most-16) + "\r\n", none, nil},
		{"PROXY UNKNOWN " + strings.Repeat("x", proxyV1Most-15) + "\r\n", "", errProxyTooLong},
		{"PROXY " + strings.Repeat("x", 1<<20), "", errProxyTooLong},
		{proxyV2(0x21, 0x11, 11, ends4[:11]), "", errProxyMalformed},
		{proxyV2(0x21, 0x21, 35, ends6[:35]), "", errProxyMalformed},
		{proxyV2(0x21, 0x21, 12, ends4), "", errProxyMalformed},
		{proxyV2(0x21, 0x12, 12, ends4), "", errProxyMalformed}, // UDP
		{proxyV2(0x21, 0x41, 12, ends4), "", errProxyMalformed},
		{proxyV2(0x22, 0x11, 12, ends4), "", errProxyMalformed},
		{proxyV2(0x11, 0x11, 12, ends4), "", errProxyMalformed}, // a version 1 that never was
		{proxyV2(0x31, 0x11, 12, ends4), "", errProxyMalformed},
		{proxyV2(0x21, 0x11, proxyV2Most+1, ends4+strings.Repeat("x", proxyV2Most)), "", errProxyTooLong},
		{proxyV2(0x20, 0x00, 65535, strings.Repeat("x", 65535)), "", errProxyTooLong},
		{proxyV2(0x21, 0x11, 13, ends4), "", io.EOF},
		{proxyV2Sign, "", io.EOF},
		{"PRO", "", io.EOF},
		{"", "", io.EOF},
	} {
		for name, wrap := range map[string]func(io.Reader) io.Reader{"whole": func(r io.Reader) io.Reader { return r }, "byte by byte": iotest.OneByteReader} {
			const rest = "what follows"
			source := strings.NewReader(c.header)
			if c.err == nil {
				source = strings.NewReader(c.header + rest)
			}
			p, err := readProxyHeader(wrap(source))
			ended := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
			switch {
			case c.err == nil && err == nil:
				if p.client.String() != c.client {
					t.Errorf("%.60q, %s: client %v, want %s", c.header, name, p.client, c.client)
				}
				if left, _ := io.ReadAll(source); string(left) != rest {
					t.Errorf("%.60q, %s: behind it is %q", c.header, name, left)
				}
			case !errors.Is(err, c.err) && !(c.err == io.EOF && ended):
				t.Errorf("%.60q, %s: got %v, want %v", c.header, name, err, c.err)
			}
		}
	}
}

// Whatever comes: no more is read than a header has at most, and what is taken for
// one is the same to the library that many others use.
func FuzzProxyHeader(f *testing.F) {
	for _, s := range []string{
		"PROXY TCP4 192.0.2.1 203.0.113.2 40000 443\r\nGET /", "PROXY UNKNOWN\r\n", "PROXY TCP6 ::1 ::2 1 2\r\n",
		proxyV2(0x21, 0x11, 12, ends4) + "GET /", proxyV2(0x21, 0x21, 36, ends6), proxyV2(0x20, 0, 0, ""), proxyV2(0x21, 0x31, 216, strings.Repeat("s", 216)),
		proxyV2(0x21, 0x11, 15, ends4+"\x04\x00\x00"),
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		source := bytes.NewReader(data)
		p, err := readProxyHeader(source)
		read := len(data) - source.Len()
		if read > proxyV2Head+proxyV2Most {
			t.Fatalf("%d bytes were read", read)
		}
		if err != nil {
			if p != (proxied{}) {
				t.Fatalf("an error, and %+v", p)
			}
			proxyCause(err)
			return
		}
		if !p.client.IsValid() {
			return
		}
		theirs, err := proxyproto.Read(bufio.NewReader(bytes.NewReader(data[:read])))
		if err != nil {
			if bytes.HasPrefix(data, []byte(proxyV2Sign)) && bytes.Contains([]byte(err.Error()), []byte("TLV")) {
				return // it looks at extensions
			}
			t.Fatalf("they do not take %q: %v", data[:read], err)
		}
		from, to, _ := theirs.TCPAddrs()
		for _, pair := range []struct {
			ours netip.AddrPort
			them *net.TCPAddr
		}{{p.client, from}, {p.to, to}} {
			if them := pair.them.AddrPort(); pair.ours != netip.AddrPortFrom(them.Addr().Unmap(), them.Port()) {
				t.Fatalf("%q: %v, to them %v", data[:read], pair.ours, them)
			}
		}
	})
}

// behindBalancer is an edge of which every listener takes PROXY headers: routes
// plain and over TLS, and TCP ports plain and over TLS. The node of the TCP ports
// gets a header as well.
func behindBalancer(t *testing.T, mode ProxyIn, trusted string, tune ...func(*Config)) (*edge, *recorder, chan tcpSeen) {
	t.Helper()
	seen := make(chan tcpSeen, 16)
	tcp := rawNode(t, func(c net.Conn) {
		br := bufio.NewReader(c)
		h, err := proxyproto.Read(br)
		line, _ := br.ReadString('\n')
		seen <- tcpSeen{h, err, line}
		io.WriteString(c, "hello "+line)
	})
	node := startRecorder(t, "app1")
	e := startEdge(t, []Route{{Paths: []string{"/"}, Service: "app"}},
		map[string]map[string]string{"app": {"app1": node.addr}, "tcp": {"tcp1": tcp}},
		append([]func(*Config){func(c *Config) {
			c.TrustedProxies = prefixes(trusted)
			c.Listeners = append(c.Listeners,
				Listener{Name: "tcp", Address: "127.0.0.1:0", Service: "tcp", ProxyProtocol: "v2", Timeouts: DefaultTimeouts()},
				Listener{Name: "tcp tls", Address: "127.0.0.1:0", TLS: true, Service: "tcp", ProxyProtocol: "v1", Timeouts: DefaultTimeouts()})
			for i := range c.Listeners {
				c.Listeners[i].ProxyIn = mode
			}
		}}, tune...)...)
	e.plain, e.secure = e.address("plain"), e.address("tls")
	return e, node, seen
}

type tcpSeen struct {
	header *proxyproto.Header
	err    error
	line   string
}

// through connects to a listener and says the header first, in pieces of that size.
func (e *edge) through(name, header string, piece int) net.Conn {
	e.t.Helper()
	c, err := net.Dial("tcp", e.address(name))
	if err != nil {
		e.t.Fatal(err)
	}
	guarded(e.t, c)
	for rest := header; rest != ""; {
		n := min(piece, len(rest))
		if _, err := io.WriteString(c, rest[:n]); err != nil {
			return c
		}
		rest = rest[n:]
	}
	if strings.HasSuffix(name, "tls") {
		return tls.Client(c, &tls.Config{RootCAs: e.roots, ServerName: "localhost"})
	}
	return c
}

// The client that a PROXY header names is the client: in logs, in headers for the
// node and in the PROXY header for the node. What follows the header is not lost.
func TestProxyHeaderNamesTheClient(t *testing.T) {
	for name, header := range map[string]string{
		"v1":   "PROXY TCP4 192.0.2.1 203.0.113.2 40000 443\r\n",
		"v2":   proxyV2(0x21, 0x11, 12+7, ends4+"\x04\x00\x04test"),
		"IPv6": proxyV2(0x21, 0x21, 36, ends6),
	} {
		t.Run(name, func(t *testing.T) {
			e, node, seen := behindBalancer(t, ProxyInRequired, "127.0.0.0/8")
			client, to := "192.0.2.1", "203.0.113.2:443"
			if name == "IPv6" {
				client, to = "2001:db8::1", "[2001:db8::2]:443"
			}
			for i, listener := range []string{"plain", "tls"} {
				c := e.through(listener, header, 1000-999*i)
				io.WriteString(c, "GET /a HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 10.9.9.9\r\nConnection: close\r\n\r\n")
				if resp, body := readAnswer(t, bufio.NewReader(c)); resp.StatusCode != 200 || body != "app1" {
					t.Fatalf("%s: %d %s", listener, resp.StatusCode, body)
				}
				got := node.only(t)
				if f := got.values("X-Forwarded-For"); len(f) != 1 || f[0] != client {
					t.Errorf("%s: X-Forwarded-For %q", listener, f)
				}
				e.logs.wait(t, `"client":"`+client+`"`, `"listener":"`+listener+`"`, `"status":200`)
			}
			for _, listener := range []string{"tcp", "tcp tls"} {
				c := e.through(listener, header, 7)
				io.WriteString(c, "first\n")
				s := await(t, "the node has read its header", seen)
				if s.err != nil || s.line != "first\n" || s.header.SourceAddr.(*net.TCPAddr).IP.String() != client {
					t.Fatalf("%s: the node got %+v, %v, %q", listener, s.header, s.err, s.line)
				}
				if s.header.DestinationAddr.String() != to {
					t.Errorf("%s: the node is told of %v, want %s", listener, s.header.DestinationAddr, to)
				}
				if line, _ := bufio.NewReader(c).ReadString('\n'); line != "hello first\n" {
					t.Errorf("%s: got %q", listener, line)
				}
				c.Close()
				e.logs.wait(t, `"client":"`+client+`"`, `"listener":"`+listener+`"`, `"kind":"tunnel"`)
			}
		})
	}
}

// A header that says nothing of a client leaves the peer as it is, who is trusted
// then to forward.
func TestProxyHeaderWithoutClient(t *testing.T) {
	e, node, _ := behindBalancer(t, ProxyInRequired, "127.0.0.0/8")
	for _, header := range []string{"PROXY UNKNOWN\r\n", proxyV2(0x20, 0x11, 12, ends4), proxyV2(0x21, 0, 0, "")} {
		c := e.through("plain", header, 1000)
		io.WriteString(c, "GET /a HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 10.9.9.9\r\nConnection: close\r\n\r\n")
		readAnswer(t, bufio.NewReader(c))
		if f := node.only(t).values("X-Forwarded-For"); len(f) != 1 || f[0] != "10.9.9.9, 127.0.0.1" {
			t.Errorf("%q: X-Forwarded-For %q", header, f)
		}
		node.take()
	}
}

// A kept connection stays that of its client, and a WebSocket's early frames are
// not lost behind the header.
func TestProxyHeaderBeforeWebSocket(t *testing.T) {
	routes, nodes := pinned(imNode(t, "node1"))
	e := startEdge(t, routes, nodes, func(c *Config) {
		c.TrustedProxies = prefixes("127.0.0.0/8")
		for i := range c.Listeners {
			c.Listeners[i].ProxyIn = ProxyInTrusted
		}
	})
	for _, listener := range []string{"plain", "tls"} {
		early := proxyV2(0x21, 0x11, 12, ends4)
		c := e.through(listener, early, 1000)
		w, _ := open(t, c, handshake("/ws/node1")+string(clientFrame(ws.OpText, "early")))
		w.expect(ws.OpText, "node1")
		w.expect(ws.OpText, "early")
		w.lives()
		w.Close()
		e.logs.wait(t, `"client":"192.0.2.1"`, `"listener":"`+listener+`"`, `"kind":"tunnel"`)
	}
}

// Whose header is not taken is closed without an answer, is counted, and reaches no
// node. One who is not trusted is not even read.
func TestProxyHeaderRefused(t *testing.T) {
	request := "GET /a HTTP/1.1\r\nHost: h\r\n\r\n"
	good := "PROXY TCP4 192.0.2.1 203.0.113.2 40000 443\r\n"
	for _, c := range []struct {
		name, trusted, sent, cause string
	}{
		{"nobody trusted", "10.0.0.0/8", good + request, "untrusted"},
		{"no header", "127.0.0.0/8", request, "missing"},
		{"malformed", "127.0.0.0/8", "PROXY TCP4 1.2.3 4.5.6.7 1 2\r\n" + request, "malformed"},
		{"too long", "127.0.0.0/8", "PROXY " + strings.Repeat("x", 200) + "\r\n" + request, "too_long"},
		{"half", "127.0.0.0/8", "PROXY TCP4 192.0.2.1", "timeout"},
		{"silent", "127.0.0.0/8", "", "timeout"},
	} {
		t.Run(c.name, func(t *testing.T) {
			e, node, _ := behindBalancer(t, ProxyInRequired, c.trusted, func(cfg *Config) { cfg.Limits.HeadTimeout = 100 * time.Millisecond })
			for _, listener := range []string{"plain", "tls", "tcp", "tcp tls"} {
				conn, err := net.Dial("tcp", e.address(listener))
				if err != nil {
					t.Fatal(err)
				}
				guarded(t, conn)
				io.WriteString(conn, c.sent)
				if got, _ := awaitEnd(t, conn); got != "" {
					t.Errorf("%s: answered %q", listener, got)
				}
			}
			want := map[string]float64{}
			for _, listener := range []string{"plain", "tls", "tcp", "tcp tls"} {
				want["proxy_header_failures_total{"+c.cause+","+listener+"}"] = 1
			}
			e.tells("proxy_header_failures_total", want)
			e.logs.wait(t, `"limit":"proxy_protocol_in"`, `"client":"127.0.0.1"`)
			if seen, _ := node.all(); seen != "" {
				t.Errorf("the node got %q", seen)
			}
		})
	}
}

// With from_trusted, whoever is not trusted is a client itself: its header is none.
func TestProxyHeaderOfStrangers(t *testing.T) {
	e, node, seen := behindBalancer(t, ProxyInTrusted, "10.0.0.0/8")
	c := e.through("tls", "", 1)
	io.WriteString(c, "GET /a HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
	if resp, _ := readAnswer(t, bufio.NewReader(c)); resp.StatusCode != 200 {
		t.Errorf("got %d", resp.StatusCode)
	}
	if f := node.only(t).values("X-Forwarded-For"); len(f) != 1 || f[0] != "127.0.0.1" && f[0] != "::1" {
		t.Errorf("X-Forwarded-For %q", f)
	}
	node.take()
	header := "PROXY TCP4 192.0.2.1 203.0.113.2 40000 443\r\n"
	c = e.through("plain", header, 1000)
	io.WriteString(c, "GET /a HTTP/1.1\r\nHost: h\r\n\r\n")
	if resp, _ := readAnswer(t, bufio.NewReader(c)); resp.StatusCode < 400 {
		t.Errorf("a header of a stranger: got %d", resp.StatusCode)
	}
	c = e.through("tcp", header, 1000)
	if s := await(t, "the node has read its header", seen); s.line != header || s.header.SourceAddr.String() != c.LocalAddr().String() {
		t.Errorf("the node got %q behind %+v", s.line, s.header)
	}
	if got := node.take(); len(got) != 0 {
		t.Errorf("the node got %v", got)
	}
}

// Ports of nodes take PROXY headers as well, of kind tcp and http.
func TestProxyHeaderAtNodePorts(t *testing.T) {
	f := fleet{}
	f.add("node1", imNode(t, "node1"))
	base := freePorts(t, 2)
	e := startFleet(t, f, func(c *Config) {
		c.TrustedProxies = prefixes("127.0.0.0/8")
		c.NodePorts = []NodePort{
			{Service: "im", Kind: "tcp", Listen: PortRule{Base: base - 1}, ProxyIn: ProxyInRequired, Policies: Policies{Deny: prefixes("192.0.2.9/32")}},
			{Service: "im", Kind: "http", Listen: PortRule{Base: base}, ProxyIn: ProxyInRequired, Policies: Policies{Deny: prefixes("192.0.2.9/32")}},
		}
	})
	for i, kind := range []string{"tcp", "http"} {
		for client, served := range map[string]bool{"192.0.2.1": true, "192.0.2.9": false} {
			c := e.dialTo(loopback(base+i), false)
			io.WriteString(c, "PROXY TCP4 "+client+" 203.0.113.2 40000 443\r\nGET /x HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
			got := make([]byte, 12)
			n, _ := io.ReadFull(c, got)
			if (string(got[:n]) == "HTTP/1.1 200") != served {
				t.Errorf("%s, %s: got %q", kind, client, got[:n])
			}
			c.Close()
			e.logs.wait(t, `"client":"`+client+`"`, `"listener":"im/node1 `+kind+`"`)
		}
	}
}

// Balancers that say nothing hold up nobody, and not the end of the server.
func TestSilentBalancersHoldNobodyUp(t *testing.T) {
	e, _, _ := behindBalancer(t, ProxyInRequired, "127.0.0.0/8", func(c *Config) { c.Shutdown.Deadline = 200 * time.Millisecond })
	for range 20 {
		for _, listener := range []string{"plain", "tls", "tcp", "tcp tls"} {
			c, err := net.Dial("tcp", e.address(listener))
			if err != nil {
				t.Fatal(err)
			}
			guarded(t, c)
		}
	}
	for _, listener := range []string{"plain", "tls"} {
		c := e.through(listener, "PROXY TCP4 192.0.2.1 203.0.113.2 40000 443\r\n", 1000)
		io.WriteString(c, "GET /a HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
		if resp, _ := readAnswer(t, bufio.NewReader(c)); resp.StatusCode != 200 {
			t.Errorf("%s: got %d", listener, resp.StatusCode)
		}
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		e.Shutdown(context.Background())
	}()
	await(t, "the server ends", ended)
}

func TestProxyCauses(t *testing.T) {
	for _, err := range []error{errProxyUntrusted, errProxyMissing, errProxyMalformed, errProxyTooLong} {
		if cause := proxyCause(fmt.Errorf("x: %w", err)); cause == "client_left" {
			t.Errorf("%v is %q", err, cause)
		}
	}
}
