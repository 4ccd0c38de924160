package gateway

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"singlegate/gateway/bosh"
)

// A boshServer is a node that keeps BOSH sessions, as strict about them as
// Prosody: a session that it did not create is not found. Messages with <hold/>
// are held until the test lets them go.
type boshServer struct {
	name string
	addr string
	http *httptest.Server

	mu       sync.Mutex
	sessions map[string]bool
	seen     []string // whole requests
	frames   func(w http.ResponseWriter, answer string)

	holding chan struct{} // a value for each request that is held now
	let     chan struct{} // closed: they go
	left    chan struct{} // a value for each client that went first
}

var sidPattern = regexp.MustCompile(`\bsid='([^']*)'`)

func startBOSH(t *testing.T, name string) *boshServer {
	s := &boshServer{
		name: name, sessions: map[string]bool{}, frames: withLength,
		holding: make(chan struct{}, 100), let: make(chan struct{}), left: make(chan struct{}, 100),
	}
	s.http = httptest.NewServer(http.HandlerFunc(s.serve))
	s.addr = s.http.Listener.Addr().String()
	t.Cleanup(s.http.Close)
	return s
}

func withLength(w http.ResponseWriter, answer string) {
	w.Header().Set("Content-Length", strconv.Itoa(len(answer)))
	io.WriteString(w, answer)
}

func inChunks(w http.ResponseWriter, answer string) {
	for _, c := range answer {
		io.WriteString(w, string(c))
		w.(http.Flusher).Flush()
	}
}

func (s *boshServer) serve(w http.ResponseWriter, r *http.Request) {
	b, _ := io.ReadAll(r.Body)
	message := string(b)
	script := r.Method == "GET" && r.URL.RawQuery != ""
	if script {
		message, _ = url.QueryUnescape(r.URL.RawQuery)
	}
	s.mu.Lock()
	s.seen = append(s.seen, fmt.Sprintf("%s %s %s length=%d encoding=%q", r.Method, r.RequestURI, message, r.ContentLength, r.Header.Get("Accept-Encoding")))
	frames := s.frames
	answer := s.answer(message)
	s.mu.Unlock()
	if strings.Contains(message, "<hold/>") {
		s.holding <- struct{}{}
		select {
		case <-s.let:
		case <-r.Context().Done():
			s.left <- struct{}{}
		}
	}
	w.Header().Set("Access-Control-Allow-Origin", "*")
	w.Header().Set("Content-Type", "text/xml; charset=utf-8")
	if r.Method != "POST" && !script {
		answer = "It works! " + s.name
	}
	if script {
		w.Header().Set("Content-Type", "text/javascript")
		answer = `_BOSH_("` + strings.ReplaceAll(answer, `"`, `\"`) + `")`
	}
	frames(w, answer)
}

// answer is what a message gets; s.mu is held.
func (s *boshServer) answer(message string) string {
	sid := ""
	if m := sidPattern.FindStringSubmatch(message); m != nil {
		sid = m[1]
	}
	more := "from='" + s.name + "'"
	switch {
	case sid == "":
		sid = fmt.Sprintf("%s-%d", s.name, len(s.sessions)+1)
		s.sessions[sid] = true
		more += " inactivity='30' wait='60'"
	case !s.sessions[sid]:
		return "<body xmlns='" + httpbind + "' type='terminate' condition='item-not-found'/>"
	case strings.Contains(message, "type='terminate'"):
		delete(s.sessions, sid)
		more += " type='terminate'"
	}
	return "<body xmlns='" + httpbind + "' " + more + " sid='" + sid + "'><message>\"你好\" from " + s.name + "</message></body>"
}

const httpbind = "http://jabber.org/protocol/httpbind"

func (s *boshServer) take() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	seen := s.seen
	s.seen = nil
	return seen
}

func message(attributes, inner string) string {
	return "<body xmlns='" + httpbind + "' rid='17' " + attributes + ">" + inner + "</body>"
}

// A boshAnswer is one that a client got.
type boshAnswer struct {
	status int
	header http.Header
	length int64
	body   string
}

func (a boshAnswer) sid() string {
	if m := sidPattern.FindStringSubmatch(a.body); m != nil {
		return m[1]
	}
	return ""
}

// boshRequest is one on a connection of its own. Without headers it is as a
// browser's.
func (e *edge) boshRequest(method, target, body string, headers ...string) boshAnswer {
	e.t.Helper()
	return e.boshOn(e.dial(), method, target, body, headers...)
}

func (e *edge) boshOn(conn net.Conn, method, target, body string, headers ...string) boshAnswer {
	e.t.Helper()
	head := method + " " + target + " HTTP/1.1\r\nHost: im.example.gov\r\nOrigin: https://web.example.gov\r\nAccept-Encoding: gzip\r\n"
	if method == "POST" {
		head += "Content-Length: " + strconv.Itoa(len(body)) + "\r\n"
	}
	io.WriteString(conn, head+strings.Join(append(headers, ""), "\r\n")+"\r\n"+body)
	resp, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		e.t.Fatalf("%s %s: %v", method, target, err)
	}
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		e.t.Fatalf("%s %s: %v", method, target, err)
	}
	return boshAnswer{resp.StatusCode, resp.Header, resp.ContentLength, string(b)}
}

// ended checks that an answer ends a session so that a page of another origin sees it.
func (a boshAnswer) ended(t *testing.T, condition string) {
	t.Helper()
	want := "<body xmlns='" + httpbind + "' type='terminate' condition='" + condition + "'/>"
	if a.status != 200 || a.body != want || a.header.Get("Content-Type") != "text/xml; charset=utf-8" || a.header.Get("Access-Control-Allow-Origin") != "https://web.example.gov" {
		t.Errorf("got %d %v %s, want %s", a.status, a.header, a.body, want)
	}
}

func boshRoutes() []Route {
	t := DefaultTimeouts()
	t.Read = DefaultBOSHRead
	return []Route{
		{Paths: []string{"/http-bind"}, Accept: AcceptHTTP, Service: "xmpp", Kind: KindBOSH, Timeouts: t},
		{Paths: []string{"/pinned/{node}"}, Accept: AcceptHTTP, Service: "xmpp", Kind: KindBOSH, Rewrite: "/http-bind", Timeouts: t},
	}
}

// boshEdge is a gateway over these servers, in this order.
func boshEdge(t *testing.T, servers ...*boshServer) *edge {
	t.Helper()
	return startEdge(t, boshRoutes(), map[string]map[string]string{"xmpp": addrsOf(servers)})
}

func addrsOf(servers []*boshServer) map[string]string {
	addrs := map[string]string{}
	for _, s := range servers {
		addrs[s.name] = s.addr
	}
	return addrs
}

// Every request of a session reaches the node that created it: from any
// connection, in any framing, and through another gateway.
func TestBOSHSessionsStay(t *testing.T) {
	t.Parallel()
	for name, frames := range map[string]func(http.ResponseWriter, string){"with a length": withLength, "chunked": inChunks} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			servers := []*boshServer{startBOSH(t, "a"), startBOSH(t, "b"), startBOSH(t, "c")}
			for _, s := range servers {
				s.frames = frames
			}
			e, other := boshEdge(t, servers...), boshEdge(t, servers...)
			owners := map[string]string{}
			for range 6 {
				a := e.boshRequest("POST", "/http-bind", message("to='im.example.gov'", ""))
				own, mark := bosh.Split(a.sid())
				if mark == "" || a.length >= 0 && a.length != int64(len(a.body)) {
					t.Fatalf("got %+v", a)
				}
				owner, _, _ := strings.Cut(own, "-")
				owners[a.sid()] = owner
			}
			if used := slices.Compact(slices.Sorted(maps.Values(owners))); len(used) != 3 {
				t.Errorf("the sessions are on %v", used)
			}
			for sid, owner := range owners {
				for i, by := range []*edge{e, other, e, other} {
					target := []string{"/http-bind", "/http-bind/"}[i%2]
					a := by.boshRequest("POST", target, message("sid='"+sid+"'", "<message>x</message>"))
					if want := "from='" + owner + "' sid='" + sid + "'><message>\"你好\" from " + owner; !strings.Contains(a.body, want) {
						t.Errorf("session of %s: %+v", owner, a)
					}
					if n := len(a.header.Values("Access-Control-Allow-Origin")); n != 1 || a.length >= 0 && a.length != int64(len(a.body)) {
						t.Errorf("%+v", a)
					}
				}
			}
			for _, s := range servers {
				for _, seen := range s.take() {
					if strings.Contains(seen, "~") || !strings.HasSuffix(seen, `encoding=""`) {
						t.Errorf("%s got %s", s.name, seen)
					}
				}
			}
		})
	}
}

// A request in pieces, or chunked, is restored all the same.
func TestBOSHRequestFraming(t *testing.T) {
	t.Parallel()
	servers := []*boshServer{startBOSH(t, "a"), startBOSH(t, "b")}
	e := boshEdge(t, servers...)
	sid := e.boshRequest("POST", "/http-bind", message("", "")).sid()
	own, _ := bosh.Split(sid)
	owner := servers[strings.Index("ab", own[:1])]
	owner.take()
	long := strings.Repeat("x", 100_000)
	text, want := message("sid='"+sid+"'", long), message("sid='"+own+"'", long)
	for _, chunked := range []bool{false, true} {
		conn := e.dial()
		head := "POST /http-bind HTTP/1.1\r\nHost: h\r\n"
		if chunked {
			io.WriteString(conn, head+"Transfer-Encoding: chunked\r\n\r\n")
		} else {
			io.WriteString(conn, head+"Content-Length: "+strconv.Itoa(len(text))+"\r\n\r\n")
		}
		for i := 0; i < len(text); {
			n := 7
			if i > 300 {
				n = len(text) - i
			}
			part := text[i:min(i+n, len(text))]
			if chunked {
				part = fmt.Sprintf("%x\r\n%s\r\n", len(part), part)
			}
			io.WriteString(conn, part)
			i += n
		}
		if chunked {
			io.WriteString(conn, "0\r\n\r\n")
		}
		answers, _, err := answersOn(conn, 1)
		if err != nil || !strings.Contains(answers[0].body, sid) {
			t.Fatalf("%v %v", answers, err)
		}
		length := len(want)
		if chunked {
			length = -1
		}
		seen := owner.take()
		if len(seen) != 1 || seen[0] != fmt.Sprintf("POST /http-bind %s length=%d encoding=\"\"", want, length) {
			t.Errorf("chunked %v: the node got %.300s", chunked, seen)
		}
	}
}

// With one node, and where the path names it, every byte stays what it is.
func TestBOSHUntouched(t *testing.T) {
	t.Parallel()
	a, b := startBOSH(t, "a"), startBOSH(t, "b")
	single, pinned := boshEdge(t, a), boshEdge(t, a, b)
	for _, c := range []struct {
		e      *edge
		target string
	}{{single, "/http-bind"}, {single, "/pinned/a"}, {pinned, "/pinned/a"}} {
		first := c.e.boshRequest("POST", c.target, message("", ""))
		if !strings.HasPrefix(first.sid(), "a-") || strings.Contains(first.sid(), "~") {
			t.Errorf("%s: %+v", c.target, first)
		}
		if again := c.e.boshRequest("POST", c.target, message("sid='"+first.sid()+"'", "")); again.sid() != first.sid() {
			t.Errorf("%s: %+v", c.target, again)
		}
		for _, text := range []string{"", "no XML", "<body sid='a' sid='b'/>", message("sid='unknown'", ""), strings.Repeat(" ", bosh.MaxTag+1)} {
			a.take()
			c.e.boshRequest("POST", c.target, text)
			if seen := a.take(); len(seen) != 1 || !strings.Contains(seen[0], "/http-bind "+text+" length="+strconv.Itoa(len(text))+` encoding="gzip"`) {
				t.Errorf("%s: the node got %.200q", c.target, seen)
			}
		}
		for _, method := range []string{"PUT", "GET", "OPTIONS"} {
			if a := c.e.boshRequest(method, c.target, ""); a.body != "It works! a" {
				t.Errorf("%s %s: %+v", method, c.target, a)
			}
		}
	}
}

// What cannot be brought to the node of its session is answered here.
func TestBOSHRefusals(t *testing.T) {
	t.Parallel()
	a, b := startBOSH(t, "a"), startBOSH(t, "b")
	e := boshEdge(t, a, b)
	sids := []string{e.boshRequest("POST", "/http-bind", message("", "")).sid(), e.boshRequest("POST", "/http-bind", message("", "")).sid()}
	a.take()
	b.take()
	for name, text := range map[string]string{
		"empty": "", "not XML": "hello", "another element": "<html/>", "two sids": "<body sid='a' sid='b'/>",
		"unfinished": "<body rid='1'", "too long": "<body x='" + strings.Repeat("x", bosh.MaxTag) + "'/>",
	} {
		t.Run(name, func(t *testing.T) { e.boshRequest("POST", "/http-bind", text).ended(t, "bad-request") })
	}
	e.boshRequest("POST", "/http-bind", message("sid='prebound'", "")).ended(t, "item-not-found")
	e.boshRequest("POST", "/http-bind", message("sid='"+bosh.Join("a-1", bosh.Mark("xmpp", "gone"))+"'", "")).ended(t, "remote-connection-failed")
	e.boshRequest("POST", "/pinned/gone", message("sid='x'", "")).ended(t, "remote-connection-failed")
	for _, method := range []string{"PUT", "DELETE", "PATCH"} {
		got := e.boshRequest(method, "/http-bind", "")
		if got.status != 405 || got.header.Get("Allow") != "GET, HEAD, POST, OPTIONS" || got.header.Get("Access-Control-Allow-Origin") == "" {
			t.Errorf("%s: %+v", method, got)
		}
	}
	if seen := append(a.take(), b.take()...); len(seen) > 0 {
		t.Errorf("the nodes got %q", seen)
	}

	b.http.Close()
	for _, sid := range sids {
		got := e.boshRequest("POST", "/http-bind", message("sid='"+sid+"'", ""))
		if strings.HasPrefix(sid, "a-") {
			if got.sid() != sid {
				t.Errorf("the session of the other node: %+v", got)
			}
			continue
		}
		got.ended(t, "remote-connection-failed")
	}
	if got := e.boshRequest("POST", "/http-bind", message("", "")); !strings.HasPrefix(got.sid(), "a-") {
		t.Errorf("a new session: %+v", got)
	}
	a.http.Close()
	got := e.boshRequest("POST", "/http-bind", message("", ""))
	if got.status != 502 || got.header.Get("Access-Control-Allow-Origin") != "https://web.example.gov" || got.header.Get("Access-Control-Allow-Credentials") != "true" {
		t.Errorf("no node is there: %+v", got)
	}
	got = e.boshRequest("OPTIONS", "/http-bind", "", "Access-Control-Request-Method: POST", "Access-Control-Request-Headers: content-type,x-a")
	if got.status != 204 || got.header.Get("Access-Control-Allow-Headers") != "content-type,x-a" || !strings.Contains(got.header.Get("Access-Control-Allow-Methods"), "POST") {
		t.Errorf("a preflight while no node is there: %+v", got)
	}
	e.tells("bosh_terminations_total", map[string]float64{
		"bosh_terminations_total{bad-request,gateway,xmpp}": 6, "bosh_terminations_total{item-not-found,gateway,xmpp}": 1,
		"bosh_terminations_total{remote-connection-failed,gateway,xmpp}": 3,
	})
}

// A node that is added or taken away does not end the sessions of others.
func TestBOSHNodesComeAndGo(t *testing.T) {
	t.Parallel()
	a, b := startBOSH(t, "a"), startBOSH(t, "b")
	e := boshEdge(t, a)
	unmarked := e.boshRequest("POST", "/http-bind", message("", "")).sid()
	apply := func(servers ...*boshServer) {
		snap := nodesOf(map[string]map[string]string{"xmpp": addrsOf(servers)})
		if err := e.Apply(e.cfg, &snap); err != nil {
			t.Fatal(err)
		}
	}
	apply(a, b)
	e.boshRequest("POST", "/http-bind", message("sid='"+unmarked+"'", "")).ended(t, "item-not-found")
	sids := map[string]string{}
	for range 2 {
		sid := e.boshRequest("POST", "/http-bind", message("", "")).sid()
		sids[sid[:1]] = sid
	}
	apply(a)
	if got := e.boshRequest("POST", "/http-bind", message("sid='"+sids["a"]+"'", "")); got.sid() != sids["a"] {
		t.Errorf("the session of the node that stayed: %+v", got)
	}
	e.boshRequest("POST", "/http-bind", message("sid='"+sids["b"]+"'", "")).ended(t, "remote-connection-failed")
	apply(a, b)
	if err := e.Drain("xmpp", "b", 0); err != nil {
		t.Fatal(err)
	}
	if got := e.boshRequest("POST", "/http-bind", message("sid='"+sids["b"]+"'", "")); got.sid() != sids["b"] {
		t.Errorf("a session of a node that is drained goes on: %+v", got)
	}
	for range 3 {
		if sid := e.boshRequest("POST", "/http-bind", message("", "")).sid(); sid[:1] != "a" {
			t.Errorf("a new session on a node that is drained: %s", sid)
		}
	}
	if got := e.boshRequest("POST", "/pinned/b", message("", "")); got.status != 503 {
		t.Errorf("a new session by the path of a node that is drained: %+v", got)
	}
}

// The script syntax of XEP-0252 keeps its sessions, too.
func TestBOSHScript(t *testing.T) {
	t.Parallel()
	a, b := startBOSH(t, "a"), startBOSH(t, "b")
	e := boshEdge(t, a, b)
	ask := func(text string) boshAnswer {
		return e.boshRequest("GET", "/http-bind/?"+url.PathEscape(text), "")
	}
	for range 2 {
		created := ask(message("", ""))
		own, mark := bosh.Split(created.sid())
		if mark == "" || !strings.HasPrefix(created.body, `_BOSH_("<body`) {
			t.Fatalf("got %+v", created)
		}
		if again := ask(message("sid='"+created.sid()+"'", "<x/>")); again.sid() != created.sid() || !strings.Contains(again.body, `\"你好\" from `+own[:1]) {
			t.Errorf("got %+v", again)
		}
	}
	for text, condition := range map[string]string{
		"<html/>":                         "bad-request",
		message("sid='prebound'", ""):     "item-not-found",
		message("sid='s~aaaaaaaaaa'", ""): "remote-connection-failed",
	} {
		got := ask(text)
		want := `_BOSH_("<body xmlns='` + httpbind + `' type='terminate' condition='` + condition + `'/>")`
		if got.status != 200 || got.body != want || got.header.Get("Content-Type") != "text/javascript; charset=utf-8" {
			t.Errorf("%s: %+v, want %s", text, got, want)
		}
	}
	for _, line := range strings.Split(e.logs.all(), "\n") {
		if strings.Contains(strings.ToLower(line), "%3c") || strings.Contains(line, "prebound") {
			t.Errorf("logged: %s", line)
		}
	}
}

// A client that leaves lets its node know at once; nothing is sent twice.
func TestBOSHClientLeaves(t *testing.T) {
	t.Parallel()
	a, b := startBOSH(t, "a"), startBOSH(t, "b")
	e := boshEdge(t, a, b)
	sid := e.boshRequest("POST", "/http-bind", message("", "")).sid()
	owner := map[string]*boshServer{"a": a, "b": b}[sid[:1]]
	text := message("sid='"+sid+"'", "<hold/>")
	eachWire(t, func(t *testing.T, secure bool) {
		owner.take()
		conn := e.dialAny(secure)
		io.WriteString(conn, "POST /http-bind HTTP/1.1\r\nHost: h\r\nContent-Length: "+strconv.Itoa(len(text))+"\r\n\r\n"+text)
		await(t, "the poll is held", owner.holding)
		e.tells("bosh_polls", map[string]float64{"bosh_polls{xmpp}": 1})
		conn.Close()
		await(t, "the node hears that the client left", owner.left)
		if seen := owner.take(); len(seen) != 1 {
			t.Errorf("the node got %q", seen)
		}
	})
	e.tells("bosh_polls", map[string]float64{"bosh_polls{xmpp}": 0})
}

// Two requests of a session are under way at once, over any connections.
func TestBOSHTwoAtOnce(t *testing.T) {
	t.Parallel()
	a, b := startBOSH(t, "a"), startBOSH(t, "b")
	e := boshEdge(t, a, b)
	sid := e.boshRequest("POST", "/http-bind", message("", "")).sid()
	owner := map[string]*boshServer{"a": a, "b": b}[sid[:1]]
	held := make(chan boshAnswer, 1)
	go func() { held <- e.boshRequest("POST", "/http-bind", message("sid='"+sid+"'", "<hold/>")) }()
	await(t, "the poll is held", owner.holding)
	if got := e.boshRequest("POST", "/http-bind", message("sid='"+sid+"'", "")); got.sid() != sid {
		t.Errorf("the second request: %+v", got)
	}
	e.tells("bosh_sessions", map[string]float64{"bosh_sessions{xmpp}": 1})
	close(owner.let)
	if got := await(t, "the first request", held); got.sid() != sid {
		t.Errorf("the first request: %+v", got)
	}
	if got := e.boshRequest("POST", "/http-bind", message("sid='"+sid+"' type='terminate'", "")); got.sid() != sid {
		t.Errorf("the end: %+v", got)
	}
	e.tells("bosh_sessions", nil)
	e.tells("bosh_terminations_total", map[string]float64{"bosh_terminations_total{none,client,xmpp}": 1})
}

// A poll that is held when the gateway ends is let go early, with an answer upon
// which clients ask again; the next gateway takes it to the same node.
func TestBOSHGatewayEnds(t *testing.T) {
	t.Parallel()
	a, b := startBOSH(t, "a"), startBOSH(t, "b")
	tune := func(c *Config) {
		c.Shutdown = Shutdown{Grace: 10 * time.Millisecond, Drain: 10 * time.Millisecond, Deadline: time.Hour}
	}
	services := map[string]map[string]string{"xmpp": addrsOf([]*boshServer{a, b})}
	e, next := startEdge(t, boshRoutes(), services, tune), startEdge(t, boshRoutes(), services)
	sid := e.boshRequest("POST", "/http-bind", message("", "")).sid()
	owner := map[string]*boshServer{"a": a, "b": b}[sid[:1]]
	held := make(chan boshAnswer, 1)
	go func() { held <- e.boshRequest("POST", "/http-bind", message("sid='"+sid+"'", "<hold/>")) }()
	await(t, "the poll is held", owner.holding)
	ended := make(chan struct{})
	go func() {
		e.Shutdown(context.Background())
		close(ended)
	}()
	got := await(t, "an answer to the held poll", held)
	if got.status != 503 || got.header.Get("Access-Control-Allow-Origin") == "" || got.header.Get("Retry-After") == "" {
		t.Errorf("got %+v", got)
	}
	await(t, "the gateway's end", ended)
	await(t, "the node hears of it", owner.left)
	if got := next.boshRequest("POST", "/http-bind", message("sid='"+sid+"'", "")); got.sid() != sid {
		t.Errorf("through the next gateway: %+v", got)
	}
}

// Answers that are not as expected pass untouched.
func TestBOSHOddAnswers(t *testing.T) {
	t.Parallel()
	a, b := startBOSH(t, "a"), startBOSH(t, "b")
	e := boshEdge(t, a, b)
	sid := e.boshRequest("POST", "/http-bind", message("", "")).sid()
	own, _ := bosh.Split(sid)
	for name, odd := range map[string]string{
		"no XML": "hello", "empty": "", "no sid": "<body xmlns='x'/>", "another session": "<body sid='other'/>",
		"two sids": "<body sid='" + own + "' sid='" + own + "'/>", "unfinished": "<body sid='" + own,
		"too long": "<body x='" + strings.Repeat("x", bosh.MaxTag) + "' sid='" + own + "'/>",
	} {
		for _, frames := range []func(http.ResponseWriter, string){withLength, inChunks} {
			for _, s := range []*boshServer{a, b} {
				s.mu.Lock()
				s.frames = func(w http.ResponseWriter, _ string) { frames(w, odd) }
				s.mu.Unlock()
			}
			if got := e.boshRequest("POST", "/http-bind", message("sid='"+sid+"'", "")); got.body != odd || got.status != 200 {
				t.Errorf("%s: %.200q became %.200q", name, odd, got.body)
			}
		}
	}
}
