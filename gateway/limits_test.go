package gateway

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"singlegate/gateway/limit"
)

// from dials a listener from an address of loopback.
func (e *edge) from(source, addr string) net.Conn {
	e.t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(source)}}
	c, err := d.Dial("tcp", addr)
	if err != nil {
		e.t.Fatal(err)
	}
	return guarded(e.t, c)
}

// limited is an edge over one node with these limits by address.
func limited(t *testing.T, set func(*AddressLimits), tune ...func(*Config)) *edge {
	t.Helper()
	routes, nodes := pinned(imNode(t, "node1"))
	return startEdge(t, routes, nodes, append([]func(*Config){func(c *Config) {
		c.Listeners[1].Address = "127.0.0.1:0"
		set(&c.Limits.PerAddress)
	}}, tune...)...)
}

// counts waits until the connections that are counted are so many.
func (e *edge) counts(limit string, keys float64) {
	e.t.Helper()
	eventually(e.t, fmt.Sprintf("%s has %v keys", limit, keys), func() bool { return told(e.t, e.Server)["limit_keys{"+limit+"}"] == keys })
}

func (e *edge) toldOf(limit, listener string, n float64) {
	e.t.Helper()
	series := "limited_total{" + limit + "," + listener + "}"
	eventually(e.t, fmt.Sprintf("%s is %v", series, n), func() bool { return told(e.t, e.Server)[series] == n })
}

// Connections count for their address, tunnels among them, from the first byte to
// the last; one too many is closed before TLS, other addresses are not concerned.
func TestConnectionsPerAddress(t *testing.T) {
	e := limited(t, func(a *AddressLimits) { a.Connections = 3 })
	tunnel, _ := open(t, e.from("127.0.0.2", e.plain), handshake("/ws/node1"))
	tunnel.expect(ws.OpText, "node1")
	secure := tls.Client(e.from("127.0.0.2", e.secure), &tls.Config{RootCAs: e.roots, ServerName: "localhost"})
	inTLS, _ := open(t, secure, handshake("/ws/node1"))
	inTLS.expect(ws.OpText, "node1")
	kept := e.from("127.0.0.2", e.plain)
	io.WriteString(kept, "GET /ws/node1 HTTP/1.1\r\nHost: h\r\n\r\n")
	br := bufio.NewReader(kept)
	readAnswer(t, br)

	for range 3 {
		for _, addr := range []string{e.plain, e.secure} {
			if got, _ := awaitEnd(t, e.from("127.0.0.2", addr)); got != "" {
				t.Errorf("one too many is answered %q", got)
			}
		}
	}
	e.toldOf("connections_per_ip", "plain", 3)
	e.toldOf("connections_per_ip", "tls", 3)
	e.logs.wait(t, `"limit":"connections_per_ip"`, `"client":"127.0.0.2"`)
	if n := strings.Count(e.logs.all(), `"limit":"connections_per_ip"`); n != 1 {
		t.Errorf("%d lines about one address", n)
	}
	other, _ := open(t, e.from("127.0.0.3", e.plain), handshake("/ws/node1"))
	other.expect(ws.OpText, "node1")
	e.counts("connections", 2)
	for _, c := range []*wsConn{tunnel, inTLS, other} {
		c.lives()
	}

	tunnel.Close()
	eventually(t, "there is room", func() bool {
		c := e.from("127.0.0.2", e.plain)
		defer c.Close()
		io.WriteString(c, "GET /ws/node1 HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
		b, _ := io.ReadAll(c)
		return strings.HasPrefix(string(b), "HTTP/1.1 200")
	})
	for _, c := range []net.Conn{inTLS, other, kept} {
		c.Close()
	}
	e.counts("connections", 0)
}

// A connection is counted once however it ends: refused handshakes, broken TLS,
// requests that fail, TCP ports whose node is down.
func TestConnectionsAreGivenBack(t *testing.T) {
	f := fleet{}
	f.add("node1", imNode(t, "node1"))
	f.add("down", refusedAddr(t))
	base := freePorts(t, 2)
	e := startFleet(t, f, func(c *Config) {
		c.Limits.PerAddress.Connections, c.Limits.PerAddress.Tunnels = 50, 50
		c.Limits.HandshakeTimeout = 100 * time.Millisecond
		c.NodePorts = []NodePort{{Service: "im", Kind: "tcp", Listen: PortRule{Map: map[string]uint16{"node1": uint16(base), "down": uint16(base + 1)}}}}
	})
	for range 5 {
		for _, path := range []string{"/ws/node1", "/ws/down", "/ws/nobody", "/nowhere"} {
			c := e.dial()
			io.WriteString(c, handshake(path))
			readHead(bufio.NewReader(c))
			c.Close()
		}
		c := e.dialSecureRaw()
		io.WriteString(c, "this is no TLS at all")
		awaitEnd(t, c)
		awaitEnd(t, e.dialSecureRaw()) // silent
		awaitEnd(t, e.dialTo(loopback(base+1), false))
		c = e.dialTo(loopback(base), false)
		c.Write([]byte("x"))
		c.Close()
	}
	e.counts("connections", 0)
	e.counts("tunnels", 0)
}

// Exempt addresses and trusted proxies are not counted; behind a trusted proxy
// tunnels count for the client that it names.
func TestLimitsCountTheClient(t *testing.T) {
	e := limited(t, func(a *AddressLimits) {
		a.Connections, a.Tunnels = 2, 1
		a.Exempt = prefixes("127.0.0.9/32", "10.0.0.0/8")
	}, func(c *Config) { c.TrustedProxies = prefixes("127.0.0.7/32") })
	for _, source := range []string{"127.0.0.9", "127.0.0.7"} {
		for range 5 {
			w, _ := open(t, e.from(source, e.plain), handshake("/ws/node1"))
			w.expect(ws.OpText, "node1")
		}
	}
	try := func(source, client string) int {
		c := e.from(source, e.plain)
		io.WriteString(c, handshake("/ws/node1", "X-Forwarded-For: "+client))
		status := 0
		fmt.Sscanf(readHead(bufio.NewReader(c)), "HTTP/1.1 %d", &status)
		return status
	}
	for _, c := range []struct {
		source, client string
		status         int
	}{
		{"127.0.0.7", "192.0.2.1", 101}, {"127.0.0.7", "192.0.2.1", 429}, {"127.0.0.7", "192.0.2.2", 101},
		{"127.0.0.7", "2001:db8::1", 101}, {"127.0.0.7", "2001:db8::2", 429}, {"127.0.0.7", "2001:db8:0:1::1", 101},
		{"127.0.0.7", "10.0.0.1", 101}, {"127.0.0.7", "10.0.0.1", 101},
		{"127.0.0.4", "10.0.0.1", 101}, {"127.0.0.4", "10.0.0.2", 429}, // a stranger's word
	} {
		if got := try(c.source, c.client); got != c.status {
			t.Errorf("%s for %s: got %d, want %d", c.source, c.client, got, c.status)
		}
	}
	e.toldOf("tunnels_per_ip", "plain", 3)
}

// Behind PROXY headers connections count for the clients that these name.
func TestLimitsBehindProxyHeaders(t *testing.T) {
	e, _, _ := behindBalancer(t, ProxyInRequired, "127.0.0.0/8", func(c *Config) { c.Limits.PerAddress.Connections = 1 })
	ask := func(listener, client string) string {
		c := e.through(listener, "PROXY TCP4 "+client+" 203.0.113.2 40000 443\r\n", 1000)
		if s, ok := c.(*tls.Conn); ok && s.Handshake() != nil {
			return ""
		}
		io.WriteString(c, "GET /a HTTP/1.1\r\nHost: h\r\n\r\n")
		line, _ := bufio.NewReader(c).ReadString('\n')
		return strings.TrimSpace(line)
	}
	const ok = "HTTP/1.1 200 OK"
	for i, c := range []struct{ listener, client, want string }{
		{"plain", "192.0.2.1", ok}, {"tls", "192.0.2.1", ""}, {"plain", "192.0.2.1", ""},
		{"tls", "192.0.2.2", ok}, {"plain", "192.0.2.2", ""}, {"tcp", "192.0.2.2", ""}, {"tcp tls", "192.0.2.1", ""},
	} {
		if got := ask(c.listener, c.client); got != c.want {
			t.Errorf("%d: %s for %s: got %q", i, c.listener, c.client, got)
		}
	}
}

// Handshakes are counted by address as well; plain connections are none.
func TestHandshakesPerAddress(t *testing.T) {
	e := limited(t, func(a *AddressLimits) { a.Handshakes = limit.Rate{Interval: time.Hour, Burst: 2} })
	greet := func(source string) error {
		return tls.Client(e.from(source, e.secure), &tls.Config{RootCAs: e.roots, ServerName: "localhost"}).Handshake()
	}
	for i := range 4 {
		if err := greet("127.0.0.2"); (err == nil) != (i < 2) {
			t.Errorf("handshake %d: %v", i, err)
		}
	}
	if err := greet("127.0.0.3"); err != nil {
		t.Errorf("another address: %v", err)
	}
	if resp, _ := e.answerTo("GET /ws/node1 HTTP/1.1\r\nHost: h\r\n\r\n"); resp.StatusCode != 200 {
		t.Errorf("a plain connection: %d", resp.StatusCode)
	}
	e.toldOf("handshakes_per_ip", "tls", 2)
}

// What a rate refuses is told when to come back; each route, and each client or
// the route as a whole, has its own.
func TestRate(t *testing.T) {
	rate := limit.Rate{Interval: 10 * time.Minute, Burst: 2}
	node := startRecorder(t, "app1")
	route := func(path string, per RatePer) Route {
		return Route{Paths: []string{path}, Service: "app", Policies: Policies{RouteLimits: RouteLimits{Rate: rate, Per: per}}}
	}
	e := startEdge(t, []Route{route("/ip", PerAddress), route("/route", PerRoute), route("/token", PerToken), {Paths: []string{"/free"}, Service: "app"}},
		map[string]map[string]string{"app": {"app1": node.addr}}, func(c *Config) {
			c.TrustedProxies = prefixes("127.0.0.0/8")
			c.Limits.PerAddress.Exempt = prefixes("10.0.0.0/8")
		})
	ask := func(path, client string) *requestAnswer {
		c := e.dial()
		io.WriteString(c, "GET "+path+" HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: "+client+"\r\n\r\n")
		resp, body := readAnswer(t, bufio.NewReader(c))
		after, _ := strconv.Atoi(resp.Header.Get("Retry-After"))
		return &requestAnswer{resp.StatusCode, problemCode(body), after}
	}
	for _, path := range []string{"/ip", "/token"} {
		for i := range 4 {
			a := ask(path, "192.0.2.1")
			switch {
			case i < 2 && a.status != 200:
				t.Errorf("%s: request %d got %+v", path, i, a)
			case i >= 2 && (a.status != 429 || a.code != "rate_limited" || a.after < 590 || a.after > 901):
				t.Errorf("%s: request %d got %+v", path, i, a)
			}
		}
		if a := ask(path, "192.0.2.2"); a.status != 200 {
			t.Errorf("%s: another client got %+v", path, a)
		}
		for range 4 {
			if a := ask(path, "10.0.0.1"); a.status != 200 {
				t.Errorf("%s: an exempt client got %+v", path, a)
			}
		}
	}
	for i, client := range []string{"192.0.2.1", "192.0.2.2", "192.0.2.3", "10.0.0.1"} {
		if a := ask("/route", client); (a.status == 200) != (i < 2) {
			t.Errorf("/route: request %d got %+v", i, a)
		}
	}
	for range 5 {
		if a := ask("/free", "192.0.2.1"); a.status != 200 {
			t.Errorf("a route without a rate: %+v", a)
		}
	}
	e.toldOf("rate", "plain", 6)

	if err := e.Apply(e.cfg, nil); err != nil { // a reload forgets nothing
		t.Fatal(err)
	}
	if a := ask("/ip", "192.0.2.1"); a.status != 429 {
		t.Errorf("after a reload: %+v", a)
	}
}

type requestAnswer struct {
	status int
	code   string
	after  int
}

// A request that asks whether it may send its body counts once.
func TestRateCountsExpectOnce(t *testing.T) {
	e, _ := appEdge(t, func(c *Config) {
		c.Routes[0].Rate, c.Routes[0].Per = limit.Rate{Interval: time.Hour, Burst: 2}, PerAddress
	})
	for i := range 3 {
		c := e.dial()
		br := bufio.NewReader(c)
		io.WriteString(c, post("Expect: 100-continue\r\nContent-Length: 2", ""))
		line, _ := br.ReadString('\n')
		if want := "HTTP/1.1 100"; i < 2 {
			if !strings.HasPrefix(line, want) {
				t.Fatalf("request %d: %q", i, line)
			}
			br.ReadString('\n')
			io.WriteString(c, "hi")
			if resp, _ := readAnswer(t, br); resp.StatusCode != 200 {
				t.Errorf("request %d: %d", i, resp.StatusCode)
			}
		} else if !strings.HasPrefix(line, "HTTP/1.1 429") {
			t.Errorf("request %d: %q", i, line)
		}
	}
	// Two requests on one connection are two.
	c := e.from("127.0.0.2", e.plain)
	br := bufio.NewReader(c)
	for i := range 3 {
		io.WriteString(c, get("Host: h"))
		if resp, _ := readAnswer(t, br); (resp.StatusCode == 200) != (i < 2) {
			t.Errorf("request %d of a kept connection: %d", i, resp.StatusCode)
		}
	}
}

// A handshake that has enough is refused as the route says: with 429, or by a
// Close with 1013. A TCP port closes.
func TestLimitsRefuseAsTheRouteSays(t *testing.T) {
	f := fleet{}
	f.add("node1", imNode(t, "node1"))
	base := freePorts(t, 1)
	e := startFleet(t, f, func(c *Config) {
		c.Limits.PerAddress.Tunnels = 1
		c.Routes = append(c.Routes, Route{Paths: []string{"/close"}, Service: "im", Refuse: RefuseClose, Timeouts: DefaultTimeouts()})
		c.NodePorts = []NodePort{{Service: "im", Kind: "tcp", Listen: PortRule{Base: base - 1}}}
	})
	w := e.openWS("node1")
	w.expect(ws.OpText, "node1")
	if resp, body := e.answerTo(handshake("/ws/node1")); resp.StatusCode != 429 || problemCode(body) != "too_many_tunnels" || resp.Header.Get("Retry-After") == "" {
		t.Errorf("got %d %s", resp.StatusCode, body)
	}
	c, _ := open(t, e.dial(), handshake("/close"))
	c.expectClose(1013, tooManyTunnels().en)
	if got, _ := awaitEnd(t, e.dialTo(loopback(base), false)); got != "" {
		t.Errorf("the TCP port says %q", got)
	}
	w.lives()
	e.logs.wait(t, `"error":"too_many_tunnels"`, `"cause":"tunnels_per_ip is reached"`)
	w.Close()
	e.counts("tunnels", 0)
	e.openWS("node1").expect(ws.OpText, "node1")
}

// allow and deny of a listener hold for connections, of plain TCP as well; a
// reload changes them without touching a tunnel, and a kept connection asks again.
func TestListenersAllowAndDeny(t *testing.T) {
	f := fleet{}
	f.add("node1", imNode(t, "node1"))
	e := startFleet(t, f, func(c *Config) {
		c.Listeners = append(c.Listeners, Listener{Name: "tcp", Address: "127.0.0.1:0", Service: "im"})
	})
	try := func(source, name string) bool {
		c := e.from(source, e.address(name))
		io.WriteString(c, "GET /ws/node1 HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
		b := make([]byte, 12)
		n, _ := io.ReadFull(c, b)
		return string(b[:n]) == "HTTP/1.1 200"
	}
	tunnel, _ := open(t, e.from("127.0.0.2", e.plain), handshake("/ws/node1"))
	tunnel.expect(ws.OpText, "node1")
	kept := e.from("127.0.0.2", e.plain)
	br := bufio.NewReader(kept)
	io.WriteString(kept, "GET /ws/node1 HTTP/1.1\r\nHost: h\r\n\r\n")
	if resp, _ := readAnswer(t, br); resp.StatusCode != 200 {
		t.Fatalf("got %d", resp.StatusCode)
	}
	for _, c := range []struct {
		allow, deny []string
		second      bool // whether 127.0.0.2 may connect
		third       bool
	}{
		{nil, nil, true, true},
		{[]string{"127.0.0.3/32"}, nil, false, true},
		{nil, []string{"127.0.0.2/32"}, false, true},
		{[]string{"127.0.0.0/8"}, []string{"127.0.0.2/31"}, false, false},
	} {
		cfg := e.cfg
		cfg.Listeners = append([]Listener(nil), cfg.Listeners...)
		for i := range cfg.Listeners {
			cfg.Listeners[i].Allow, cfg.Listeners[i].Deny = prefixes(c.allow...), prefixes(c.deny...)
		}
		e.apply(cfg, f)
		for _, name := range []string{"plain", "tcp"} {
			if got := try("127.0.0.2", name); got != c.second {
				t.Errorf("%s, %+v: 127.0.0.2 may connect: %v", name, c, got)
			}
			if got := try("127.0.0.3", name); got != c.third {
				t.Errorf("%s, %+v: 127.0.0.3 may connect: %v", name, c, got)
			}
		}
		tunnel.lives()
	}
	io.WriteString(kept, "GET /ws/node1 HTTP/1.1\r\nHost: h\r\n\r\n")
	if resp, body := readAnswer(t, br); resp.StatusCode != 403 || problemCode(body) != "address_refused" {
		t.Errorf("on a connection from before: %d %s", resp.StatusCode, body)
	}
	e.toldOf("deny", "plain", 5)
}

// Whoever fails often enough is banned for a while: no new connection is let in,
// kept ones are refused, tunnels live on; then the ban is over. Others, exempt
// addresses and trusted proxies are not concerned.
func TestBansForHandshakes(t *testing.T) {
	e := limited(t, func(a *AddressLimits) {
		a.Bans = limit.Ban{After: 3, Within: time.Hour, For: 1500 * time.Millisecond}
		a.Exempt = prefixes("127.0.0.9/32")
	}, func(c *Config) { c.TrustedProxies = prefixes("127.0.0.7/32") })
	tunnel, _ := open(t, e.from("127.0.0.2", e.plain), handshake("/ws/node1"))
	tunnel.expect(ws.OpText, "node1")
	kept := e.from("127.0.0.2", e.plain)
	fail := func(source string) {
		c := e.from(source, e.secure)
		io.WriteString(c, "this is no TLS at all")
		awaitEnd(t, c)
	}
	lets := func(source string) bool {
		c := e.from(source, e.plain)
		io.WriteString(c, "GET /ws/node1 HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
		b, _ := io.ReadAll(c)
		return strings.HasPrefix(string(b), "HTTP/1.1 200")
	}
	for range 5 {
		fail("127.0.0.9")
		fail("127.0.0.7")
		for range 2 {
			c := e.from("127.0.0.3", e.secure) // looks and goes away, as balancers do
			c.Close()
		}
	}
	for _, source := range []string{"127.0.0.9", "127.0.0.7", "127.0.0.3"} {
		if !lets(source) {
			t.Errorf("%s is banned", source)
		}
	}
	for i := range 3 {
		if !lets("127.0.0.2") {
			t.Fatalf("banned after %d failures", i)
		}
		fail("127.0.0.2")
	}
	e.logs.wait(t, `"limit":"bans"`, `"client":"127.0.0.2"`, "banned for 1.5s after 3 failures within 1h0m0s")
	e.tells("bans_total", map[string]float64{"bans_total": 1})
	e.tells("banned_addresses", map[string]float64{"banned_addresses": 1})
	if lets("127.0.0.2") {
		t.Error("let in though banned")
	}
	if !lets("127.0.0.3") {
		t.Error("another address is banned")
	}
	tunnel.lives()
	io.WriteString(kept, "GET /ws/node1 HTTP/1.1\r\nHost: h\r\n\r\n")
	resp, body := readAnswer(t, bufio.NewReader(kept))
	if after := resp.Header.Get("Retry-After"); resp.StatusCode != 403 || problemCode(body) != "address_banned" || after == "" {
		t.Errorf("on a kept connection: %d %s", resp.StatusCode, body)
	}
	e.logs.wait(t, `"limit":"bans"`, `"client":"127.0.0.2"`, "ban is over")
	e.tells("banned_addresses", map[string]float64{"banned_addresses": 0})
	if !lets("127.0.0.2") {
		t.Error("still banned")
	}
	tunnel.lives()
}

// Whose handshake got no processor in time has not failed.
func TestNoBansForACrowd(t *testing.T) {
	e := limited(t, func(a *AddressLimits) { a.Bans = limit.Ban{After: 2, Within: time.Hour, For: time.Hour} },
		func(c *Config) { c.Limits.HandshakeTimeout = 10 * time.Millisecond })
	free := e.occupy()
	for range 3 {
		awaitEnd(t, e.knock(clientHello(t)))
	}
	free()
	e.tells("handshake_failures_total", map[string]float64{"handshake_failures_total{timeout,tls}": 3})
	e.tells("bans_total", map[string]float64{"bans_total": 0})
}

// Answers of 401 count as failures of the client; a config without bans lifts them.
func TestBansForRefusedTokens(t *testing.T) {
	e := startEdge(t, []Route{authRoute("/ws", "chat-token"), {Paths: []string{"/open"}, Service: "chat"}},
		map[string]map[string]string{"chat": {"chat1": imNode(t, "chat1")}}, with(tokenAuth(t)), func(c *Config) {
			c.Limits.PerAddress.Bans = limit.Ban{After: 2, Within: time.Hour, For: time.Hour}
		})
	for range 2 {
		c := e.from("127.0.0.2", e.plain)
		io.WriteString(c, handshake("/ws?t=bad"))
		if head := readHead(bufio.NewReader(c)); !strings.HasPrefix(head, "HTTP/1.1 401") {
			t.Errorf("got %q", head)
		}
	}
	if got, _ := awaitEnd(t, e.from("127.0.0.2", e.plain)); got != "" {
		t.Errorf("got %q", got)
	}
	cfg := e.cfg
	cfg.Limits.PerAddress.Bans = limit.Ban{}
	if err := e.Apply(cfg, nil); err != nil {
		t.Fatal(err)
	}
	w, _ := open(t, e.from("127.0.0.2", e.plain), handshake("/open"))
	w.expect(ws.OpText, "chat1")
	e.tells("banned_addresses", map[string]float64{"banned_addresses": 0})
}

// Tokens that were checked say whose requests and tunnels count together, whatever
// the address and however many tokens; without a subject it is the address. What
// is refused as it has no good token counts for a ban, not for the rate.
func TestLimitsPerUser(t *testing.T) {
	rate := RouteLimits{Rate: limit.Rate{Interval: time.Hour, Burst: 2}, Per: PerToken}
	limitedRoute := func(path string, l RouteLimits) Route {
		r := authRoute(path, "chat-token")
		r.RouteLimits = l
		return r
	}
	e := startEdge(t, []Route{limitedRoute("/api", rate), limitedRoute("/ws", RouteLimits{TunnelsPerUser: 1})},
		map[string]map[string]string{"chat": {"chat1": imNode(t, "chat1")}}, with(tokenAuth(t)), func(c *Config) {
			c.Limits.PerAddress.Bans = limit.Ban{After: 4, Within: time.Hour, For: time.Hour}
		})
	ask := func(source, token string) int {
		c := e.from(source, e.plain)
		io.WriteString(c, "GET /api?t="+token+" HTTP/1.1\r\nHost: h\r\n\r\n")
		resp, _ := readAnswer(t, bufio.NewReader(c))
		return resp.StatusCode
	}
	bob, again, eve := chatToken(t), chatToken(t, "jti", "2"), chatToken(t, "username", "eve")
	subject := chatToken(t, "sub", "7x")
	nobody := chatToken(t, "user_id", nil, "username", nil)
	for i, c := range []struct {
		source, token string
		want          int
	}{
		{"127.0.0.2", "bad", 401}, {"127.0.0.2", "bad", 401}, {"127.0.0.2", "", 401},
		{"127.0.0.2", bob, 200}, {"127.0.0.3", again, 200}, {"127.0.0.2", bob, 429}, {"127.0.0.4", again, 429},
		{"127.0.0.2", eve, 200}, {"127.0.0.2", subject, 200},
		{"127.0.0.5", nobody, 200}, {"127.0.0.5", nobody, 200}, {"127.0.0.5", nobody, 429}, {"127.0.0.6", nobody, 200},
	} {
		if got := ask(c.source, c.token); got != c.want {
			t.Errorf("request %d: got %d, want %d", i, got, c.want)
		}
	}
	tunnel := func(token string) (*wsConn, int) {
		c := e.from("127.0.0.2", e.plain)
		io.WriteString(c, handshake("/ws?t="+token))
		br := bufio.NewReader(c)
		status := 0
		fmt.Sscanf(readHead(br), "HTTP/1.1 %d", &status)
		return &wsConn{c, br, t}, status
	}
	first, status := tunnel(bob)
	if status != 101 {
		t.Fatalf("got %d", status)
	}
	first.expect(ws.OpText, "chat1")
	if _, status := tunnel(again); status != 429 {
		t.Errorf("the user's second tunnel: %d", status)
	}
	if _, status := tunnel(eve); status != 101 {
		t.Errorf("another user's: %d", status)
	}
	first.lives()
	e.toldOf("tunnels_per_user", "plain", 1)
	if got := ask("127.0.0.2", "bad"); got != 401 {
		t.Errorf("got %d", got)
	}
	if got, _ := awaitEnd(t, e.from("127.0.0.2", e.plain)); got != "" {
		t.Errorf("after four answers of 401: %q", got)
	}
	first.lives()
}

// A flood from many addresses writes no more lines than there is a bound for.
func TestNotesAreBounded(t *testing.T) {
	e := limited(t, func(*AddressLimits) {})
	for i := range 10 * mostNotes {
		for range 3 {
			e.guard.note("x", netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), "refused")
		}
	}
	if n := strings.Count(e.logs.all(), `"limit":"x"`); n != mostNotes {
		t.Errorf("%d lines", n)
	}
	if n := len(e.guard.notes.lines); n != mostNotes {
		t.Errorf("%d addresses are kept", n)
	}
	if !e.guard.sayNotes() {
		t.Error("nothing more to say")
	}
	line := e.logs.wait(t, "further addresses")
	if !strings.Contains(line, `"times":2700`) {
		t.Error(line)
	}
	if n := strings.Count(e.logs.all(), `"times":2,"message":"refused again and again"`); n != mostNotes {
		t.Errorf("%d lines in the next minute", n)
	}
	e.guard.notes.mu.Lock()
	e.guard.notes.said = time.Time{}
	e.guard.notes.mu.Unlock()
	if e.guard.sayNotes() {
		t.Error("there is something to say after a quiet minute")
	}
}

// The end of the server leaves no timer behind.
func TestNotesEndWithTheServer(t *testing.T) {
	e := limited(t, func(*AddressLimits) {})
	e.guard.note("x", netip.MustParseAddr("10.0.0.1"), "refused")
	e.Shutdown(context.Background())
	e.guard.note("x", netip.MustParseAddr("10.0.0.2"), "refused")
	e.guard.notes.mu.Lock()
	defer e.guard.notes.mu.Unlock()
	if e.guard.notes.timer.Stop() {
		t.Error("the timer runs")
	}
}

func TestWarningsOfLimits(t *testing.T) {
	rated := Route{At: "f:9:1", Policies: Policies{RouteLimits: RouteLimits{Rate: limit.Every(1, time.Second, 1)}}}
	whole := rated
	whole.Per = PerRoute
	user := Route{At: "f:8:1", Policies: Policies{RouteLimits: RouteLimits{TunnelsPerUser: 1}}}
	for _, c := range []struct {
		cfg  Config
		want string // "": no warning
	}{
		{Config{}, ""},
		{Config{Limits: Limits{PerAddress: AddressLimits{Connections: 1, Tunnels: 1}}}, "limits.connections_per_ip, limits.tunnels_per_ip: clients are counted by address"},
		{Config{Limits: Limits{PerAddress: AddressLimits{Bans: limit.Ban{After: 1}}}}, "limits.bans: "},
		{Config{Limits: Limits{PerAddress: AddressLimits{Connections: 1}}, TrustedProxies: prefixes("10.0.0.0/8")}, ""},
		{Config{Routes: []Route{rated}}, "f:9:1: rate: clients are counted by address"},
		{Config{Routes: []Route{whole}}, ""},
		{Config{Routes: []Route{user}}, "f:8:1: tunnels_per_user and rate per token need to know who asks"},
	} {
		got := strings.Join(c.cfg.limitWarnings(), "\n")
		if c.want == "" && got != "" || !strings.HasPrefix(got, c.want) {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
}
