package gateway

import (
	"crypto/tls"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"singlegate/upstream"
)

// A testAudit keeps the lines that it is given, and refuses when it is told to.
type testAudit struct {
	lines   *logLines
	refuses atomic.Bool
	missed  atomic.Int64

	mu       sync.Mutex
	failures []string
}

func newTestAudit() *testAudit { return &testAudit{lines: newLogLines()} }

func (a *testAudit) Note(line []byte, failure bool) {
	if failure {
		a.mu.Lock()
		a.failures = append(a.failures, string(line))
		a.mu.Unlock()
	}
	a.lines.Write(line)
}

func (a *testAudit) Refuses() string {
	if a.refuses.Load() {
		return "the disk is full"
	}
	return ""
}

func (a *testAudit) Missed() { a.missed.Add(1) }

// line waits for the line that holds all parts, and takes it apart.
func (a *testAudit) line(t *testing.T, parts ...string) map[string]any {
	t.Helper()
	text := a.lines.wait(t, parts...)
	m := map[string]any{}
	if err := json.Unmarshal([]byte(text), &m); err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	if _, err := time.Parse(time.RFC3339Nano, m["time"].(string)); err != nil || !strings.Contains(m["time"].(string), ".") {
		t.Errorf("the time is %v", m["time"])
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	failure := false
	for _, f := range a.failures {
		failure = failure || f == text
	}
	if success := m["success"].(bool); success == failure {
		t.Errorf("success is %v, and it was given as a failure: %v", success, failure)
	}
	return m
}

// expect fails the test where a field is another; nil: it is not there.
func expect(t *testing.T, line map[string]any, want map[string]any) {
	t.Helper()
	for name, value := range want {
		if line[name] != value {
			t.Errorf("%s is %v, want %v, in %v", name, line[name], value, line)
		}
	}
}

// An auditSwitch is an audit log that can be switched on.
type auditSwitch struct{ log atomic.Pointer[testAudit] }

func (s *auditSwitch) Note(line []byte, failure bool) {
	if a := s.log.Load(); a != nil {
		a.Note(line, failure)
	}
}

func (s *auditSwitch) Refuses() string {
	if a := s.log.Load(); a != nil {
		return a.Refuses()
	}
	return ""
}

func (s *auditSwitch) Missed() { s.log.Load().Missed() }

// audited switches an edge's audit log on.
func audited(e *edge) *testAudit {
	a := newTestAudit()
	e.noted.log.Store(a)
	return a
}

// Every request leaves a line, whatever becomes of it.
func TestAuditOfRequests(t *testing.T) {
	node := httpNode(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/api/no" {
			w.WriteHeader(403)
		}
		io.Copy(io.Discard, r.Body)
		io.WriteString(w, "hello")
	})
	e := startEdge(t, []Route{
		{At: "a", Paths: []string{"/api"}, Service: "web"},
		{At: "b", Paths: []string{"/down"}, Service: "gone"},
		{At: "c", Paths: []string{"/check"}, Page: "check"},
		{At: "d", Paths: []string{"/inside"}, Service: "web", Policies: Policies{Deny: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}},
	}, map[string]map[string]string{"web": {"n1": node}, "gone": {"g1": refusedAddr(t)}}, func(c *Config) {
		c.Redact.Paths = []string{"/api/{session}"}
	})
	a := audited(e)
	client := e.client()
	get := func(path string) {
		t.Helper()
		resp, err := client.Get("http://" + e.plain + path)
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
	}
	resp, err := client.Post("http://"+e.plain+"/api/s3cr3t?token=t0p&x=1", "text/plain", strings.NewReader("12345"))
	if err != nil {
		t.Fatal(err)
	}
	io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
	first := a.line(t, `"method":"POST"`)
	expect(t, first, map[string]any{
		"event": "request", "success": true, "listener": "plain", "method": "POST", "host": "127.0.0.1",
		"path": "/api/[redacted]?token=[redacted]&x=1", "route": "/api", "service": "web", "node": "n1",
		"status": 200.0, "bytes_in": 5.0, "bytes_out": 5.0, "peer": nil, "user": nil, "certificate": nil,
	})
	if p, err := netip.ParseAddrPort(first["client"].(string)); err != nil || p.Addr().String() != "127.0.0.1" || p.Port() == 0 {
		t.Errorf("the client is %v", first["client"])
	}
	if line := e.logs.wait(t, `"method":"POST"`); !strings.Contains(line, first["request_id"].(string)) {
		t.Errorf("the request id %v is not that of %s", first["request_id"], line)
	}
	for _, c := range []struct {
		path string
		want map[string]any
	}{
		{"/api/no", map[string]any{"success": false, "status": 403.0, "node": "n1", "error": nil}},
		{"/down", map[string]any{"success": false, "status": 502.0, "error": "no_node_reached", "service": "gone"}},
		{"/nowhere", map[string]any{"success": false, "status": 404.0, "error": "no_route", "route": nil}},
		{"/inside", map[string]any{"success": false, "status": 403.0, "error": "address_refused"}},
		{"/check/", map[string]any{"success": true, "status": 200.0, "node": nil}},
	} {
		get(c.path)
		path := strings.Replace(c.path, "/no", "/[redacted]", 1)
		if c.path == "/nowhere" {
			path = c.path
		}
		line := a.line(t, `"path":"`+path+`"`, `"GET"`)
		expect(t, line, c.want)
		expect(t, line, map[string]any{"event": "request"})
	}
	e.raw("nonsense\r\n\r\n")
	expect(t, a.line(t, `"error":"bad_request"`), map[string]any{"event": "request", "success": false, "path": nil})
	if all := a.lines.all(); strings.Contains(all, "s3cr3t") || strings.Contains(all, "t0p") {
		t.Errorf("a secret was noted:\n%s", all)
	}
}

// A tunnel is noted when it opens, before a byte of it has passed, and when it ends.
func TestAuditOfTunnels(t *testing.T) {
	node := echoNode(t)
	e := startEdge(t, []Route{{At: "a", Paths: []string{"/ws/{node}"}, Service: "im", Rewrite: "/"}}, map[string]map[string]string{"im": {"node1": node}})
	a := audited(e)
	c := e.dial()
	openWebSocket(t, c, "/ws/node1?token=t0p")
	opened := a.line(t, `"tunnel_opened"`)
	expect(t, opened, map[string]any{
		"success": true, "kind": "websocket", "method": "GET", "path": "/ws/node1?token=[redacted]", "service": "im", "node": "node1",
		"client": c.LocalAddr().String(), "ended_by": nil,
	})
	if strings.Contains(a.lines.all(), "tunnel_ended") {
		t.Error("it is noted as ended")
	}
	ws.WriteFrame(c, ws.MaskFrame(ws.NewTextFrame([]byte("hello"))))
	if _, err := ws.ReadFrame(c); err != nil {
		t.Fatal(err)
	}
	ws.WriteFrame(c, ws.MaskFrame(ws.NewCloseFrame(ws.NewCloseFrameBody(1000, "bye"))))
	if _, err := ws.ReadFrame(c); err != nil {
		t.Fatal(err)
	}
	c.Close()
	ended := a.line(t, `"tunnel_ended"`)
	expect(t, ended, map[string]any{
		"success": true, "kind": "websocket", "ended_by": "client", "close_code": 1000.0, "request_id": opened["request_id"],
		"client": opened["client"], "node": "node1", "path": opened["path"],
	})
	if ended["bytes_in"].(float64) <= 0 || ended["bytes_out"].(float64) <= 0 {
		t.Errorf("bytes: %v", ended)
	}
	// One that breaks off.
	c2 := e.dial()
	openWebSocket(t, c2, "/ws/node1")
	second := a.line(t, `"path":"/ws/node1"`)
	c2.(*net.TCPConn).SetLinger(0)
	c2.Close()
	expect(t, a.line(t, `"tunnel_ended"`, second["request_id"].(string)), map[string]any{"success": false, "ended_by": "client"})
	// One that the node does not take.
	resp, _ := e.answerTo("GET /ws/node7 HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
	if resp.StatusCode != 404 {
		t.Errorf("status %d", resp.StatusCode)
	}
	expect(t, a.line(t, `"node_unknown"`), map[string]any{"event": "request", "success": false, "status": 404.0})
}

// openWebSocket makes a handshake that must work.
func openWebSocket(t *testing.T, c net.Conn, target string) {
	t.Helper()
	io.WriteString(c, "GET "+target+" HTTP/1.1\r\nHost: im.example.gov\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
	var head strings.Builder
	b := make([]byte, 1)
	for !strings.HasSuffix(head.String(), "\r\n\r\n") {
		if _, err := c.Read(b); err != nil {
			t.Fatal(err)
		}
		head.Write(b)
	}
	if !strings.HasPrefix(head.String(), "HTTP/1.1 101 ") {
		t.Fatalf("got %q", head.String())
	}
}

// TCP connections, and those for which there is no node.
func TestAuditOfTCP(t *testing.T) {
	node := rawNode(t, func(c net.Conn) { io.Copy(c, c) })
	e := startEdge(t, nil, map[string]map[string]string{"tcp": {"t1": node}, "gone": {"g1": refusedAddr(t)}}, func(c *Config) {
		c.Listeners = append(c.Listeners,
			Listener{At: "t", Name: "raw", Address: "127.0.0.1:0", Service: "tcp", Timeouts: DefaultTimeouts()},
			Listener{At: "u", Name: "dead", Address: "127.0.0.1:0", Service: "gone", Timeouts: DefaultTimeouts()})
	})
	a := audited(e)
	addr := map[string]string{}
	for _, entry := range e.Entries() {
		addr[entry.Name] = entry.Address.String()
	}
	c, err := net.Dial("tcp", addr["raw"])
	if err != nil {
		t.Fatal(err)
	}
	guarded(t, c)
	io.WriteString(c, "hello")
	io.ReadFull(c, make([]byte, 5))
	opened := a.line(t, `"tunnel_opened"`)
	expect(t, opened, map[string]any{"kind": "tcp", "listener": "raw", "service": "tcp", "node": "t1", "client": c.LocalAddr().String(), "method": nil})
	c.Close()
	expect(t, a.line(t, `"tunnel_ended"`), map[string]any{"kind": "tcp", "bytes_in": 5.0, "bytes_out": 5.0, "request_id": opened["request_id"]})
	d, err := net.Dial("tcp", addr["dead"])
	if err != nil {
		t.Fatal(err)
	}
	io.ReadAll(guarded(t, d))
	expect(t, a.line(t, `"event":"connection"`), map[string]any{"success": false, "listener": "dead", "error": "no_node_reached"})
}

// Who asks: behind a trusted proxy, and with a certificate.
func TestAuditOfSubjects(t *testing.T) {
	node := httpNode(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "hello") })
	pair, pool := testCertificate(t)
	e := startEdge(t, []Route{{At: "a", Paths: []string{"/"}, Service: "web"}}, map[string]map[string]string{"web": {"n1": node}}, func(c *Config) {
		c.Listeners[1].Clients = &ClientCertificates{Ask: func(cfg *tls.Config) { cfg.ClientAuth, cfg.ClientCAs = tls.VerifyClientCertIfGiven, pool }}
		c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	})
	a := audited(e)
	c := e.dial()
	io.WriteString(c, "GET /proxied HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 203.0.113.9\r\n\r\n")
	expect(t, a.line(t, "/proxied"), map[string]any{"client": "203.0.113.9", "peer": c.LocalAddr().String()})

	secure, err := tls.Dial("tcp", e.secure, &tls.Config{RootCAs: e.roots, ServerName: "localhost", Certificates: []tls.Certificate{pair}})
	if err != nil {
		t.Fatal(err)
	}
	guarded(t, secure)
	io.WriteString(secure, "GET /known HTTP/1.1\r\nHost: x\r\n\r\n")
	expect(t, a.line(t, "/known"), map[string]any{"certificate": "CN=test", "listener": "tls", "user": nil})
}

// And with a token that is good.
func TestAuditOfUsers(t *testing.T) {
	e := startEdge(t, []Route{authRoute("/ws", "chat-token")}, map[string]map[string]string{"chat": {"n1": echoNode(t)}}, with(tokenAuth(t)))
	a := audited(e)
	openWebSocket(t, e.dial(), "/ws?t="+chatToken(t))
	expect(t, a.line(t, "tunnel_opened"), map[string]any{"user": "bob"})
	openWebSocket(t, e.dial(), "/ws?t="+chatToken(t, "sub", "alice"))
	a.line(t, "tunnel_opened", `"user":"alice"`)
	e.answerTo("GET /ws?t=" + chatToken(t) + "x HTTP/1.1\r\nHost: x\r\n\r\n")
	expect(t, a.line(t, `"event":"request"`), map[string]any{"success": false, "status": 401.0, "user": nil})
	if strings.Contains(a.lines.all(), "eyJ") {
		t.Errorf("a token was noted:\n%s", a.lines.all())
	}
}

// TLS handshakes that are refused, but not those that clients leave.
func TestAuditOfHandshakes(t *testing.T) {
	e := startEdge(t, nil, nil)
	a := audited(e)
	left, err := net.Dial("tcp", e.secure)
	if err != nil {
		t.Fatal(err)
	}
	left.Close()
	c, err := net.Dial("tcp", e.secure)
	if err != nil {
		t.Fatal(err)
	}
	guarded(t, c)
	io.WriteString(c, "SSH-2.0-probe\r\n")
	expect(t, a.line(t, `"tls_refused"`), map[string]any{"success": false, "listener": "tls", "error": "not_tls", "client": c.LocalAddr().String()})
	if _, err := tls.Dial("tcp", e.secure, &tls.Config{ServerName: "localhost"}); err == nil {
		t.Fatal("the certificate is trusted")
	}
	a.line(t, `"client_refused"`)
	if strings.Contains(a.lines.all(), "client_left") {
		t.Errorf("a client that left is noted:\n%s", a.lines.all())
	}
}

// While nothing can be noted nothing new is served, and what lives is not touched.
func TestAuditRefuses(t *testing.T) {
	node := echoNode(t)
	e := startEdge(t, []Route{
		{At: "a", Paths: []string{"/ws/{node}"}, Service: "im", Rewrite: "/"},
		{At: "b", Paths: []string{"/close/{node}"}, Service: "im", Rewrite: "/", Refuse: RefuseClose},
	}, map[string]map[string]string{"im": {"node1": node}}, func(c *Config) {
		c.Listeners = append(c.Listeners, Listener{At: "t", Name: "raw", Address: "127.0.0.1:0", Service: "im", Timeouts: DefaultTimeouts()})
	})
	a := audited(e)
	for _, entry := range e.Entries() {
		if entry.Name == "plain" {
			e.plain = entry.Address.String()
		}
	}
	live := e.dial()
	openWebSocket(t, live, "/ws/node1")
	a.refuses.Store(true)
	if ready := strings.Join(e.Ready(), "\n"); !strings.Contains(ready, "the disk is full") {
		t.Errorf("ready: %q", ready)
	}
	for _, request := range []string{
		"GET /ws/node1 HTTP/1.1\r\nHost: x\r\n\r\n",
		"GET /ws/node1 HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
		"POST /ws/node1 HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n",
	} {
		resp, body := e.answerTo(request)
		if resp.StatusCode != 503 || problemCode(body) != "audit_unavailable" || resp.Header.Get("Retry-After") == "" || strings.Contains(body, "disk") {
			t.Errorf("got %d %q for %q", resp.StatusCode, body, request)
		}
	}
	closed := e.dial()
	openWebSocket(t, closed, "/close/node1")
	f, err := ws.ReadFrame(closed)
	if err != nil {
		t.Fatal(err)
	}
	if code, _ := ws.ParseCloseFrameData(f.Payload); code != 1013 {
		t.Errorf("close code %d", code)
	}
	for _, entry := range e.Entries() {
		if entry.Name == "raw" {
			c, err := net.Dial("tcp", entry.Address.String())
			if err != nil {
				t.Fatal(err)
			}
			if b, err := io.ReadAll(guarded(t, c)); len(b) > 0 || err != nil {
				t.Errorf("the TCP port: %q, %v", b, err)
			}
		}
	}
	eventually(t, "five refusals", func() bool { return a.missed.Load() == 5 })
	if strings.Contains(a.lines.all(), "audit_unavailable") {
		t.Error("refusals are noted")
	}
	e.tells("refused_total", map[string]float64{"refused_total{audit_unavailable}": 5})
	ws.WriteFrame(live, ws.MaskFrame(ws.NewTextFrame([]byte("still there"))))
	if f, err := ws.ReadFrame(live); err != nil || string(f.Payload) != "still there" {
		t.Errorf("the live tunnel: %q, %v", f.Payload, err)
	}
	a.refuses.Store(false)
	again := e.dial()
	openWebSocket(t, again, "/ws/node1")
	if len(e.Ready()) > 0 {
		t.Errorf("ready: %q", e.Ready())
	}
}

// What operators do.
func TestAuditOfAdmin(t *testing.T) {
	e := startEdge(t, nil, nil)
	a := audited(e)
	e.NoteAdmin(AdminAction{Action: "drain", Client: netip.MustParseAddrPort("127.0.0.1:4000"), Service: "im", Node: "node1", PerSecond: 5})
	expect(t, a.line(t, `"drain"`), map[string]any{
		"event": "admin", "success": true, "action": "drain", "client": "127.0.0.1:4000", "service": "im", "node": "node1", "per_second": 5.0,
	})
	e.NoteAdmin(AdminAction{Action: "reload", Err: io.ErrUnexpectedEOF})
	expect(t, a.line(t, `"reload"`), map[string]any{"success": false, "client": nil, "cause": "unexpected EOF"})
}

// Without an audit log nothing is refused and nothing noted.
func TestNoAudit(t *testing.T) {
	s, err := New(Options{Upstream: upstream.New(nil)})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Shutdown(t.Context())
	(&record{server: s}).auditAnswer(200)
	(&record{server: s}).auditRefusal(noRoute(), "")
	s.NoteAdmin(AdminAction{Action: "reload"})
	if ready := s.Ready(); len(ready) > 0 {
		t.Errorf("ready: %q", ready)
	}
}

// What the line of a request costs the request.
func BenchmarkAuditLine(b *testing.B) {
	s, err := New(Options{Audit: discardAudit{}, Upstream: upstream.New(nil)})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Shutdown(b.Context())
	peer := netip.MustParseAddrPort("203.0.113.77:51544")
	rec := &record{
		server: s, start: time.Now(), client: peer.Addr(), peer: peer, id: "2f1c6a7be0d94c55", list: "tls", method: "GET",
		host: "im.example.gov", target: "/ws/node1?token=[redacted]", route: "/ws/{node}", service: "im",
	}
	b.ReportAllocs()
	for b.Loop() {
		rec.auditAnswer(200)
	}
}

type discardAudit struct{}

func (discardAudit) Note([]byte, bool) {}
func (discardAudit) Refuses() string   { return "" }
func (discardAudit) Missed()           {}
