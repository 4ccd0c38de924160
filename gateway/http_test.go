package gateway

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// What a client asks for is what the node is asked for, byte for byte.
func TestTargetsPassUnchanged(t *testing.T) {
	targets := []string{
		"/app", "/app/", "/app/a", "/app?", "/app/a?", "/app/a??", "/app/a?b=c&d=%20+%zz;e", "/app/a?b?c/../d//e",
		"/app/a?token=x&a[]=1|2\"<>^`{}\\", "/app/%E6%96%87%E4%BB%B6?q=文件", "/app/a%2Fb%3Fc", "/app/a;b=c", "/app/~a!$&'()*+,:@=",
	}
	e, node := appEdge(t)
	for _, target := range targets {
		e.answerTo("GET " + target + " HTTP/1.1\r\nHost: h\r\n\r\n")
	}
	_, requests := node.all()
	for i, target := range targets {
		if want := "GET " + target + " HTTP/1.1"; requests[i].line() != want {
			t.Errorf("got  %s\nwant %s", requests[i].line(), want)
		}
	}
}

func TestMethodsPassUnchanged(t *testing.T) {
	e, node := appEdge(t)
	methods := []string{"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "M-SEARCH"}
	for _, m := range methods {
		resp, _ := e.answerTo(m + " /app/a HTTP/1.1\r\nHost: im.example.gov:8443\r\nContent-Length: 0\r\n\r\n")
		if resp.StatusCode != 200 {
			t.Errorf("%s: %d", m, resp.StatusCode)
		}
	}
	_, requests := node.all()
	for i, m := range methods {
		if !strings.HasPrefix(requests[i].head, m+" /app/a HTTP/1.1\r\nHost: im.example.gov:8443\r\n") {
			t.Errorf("got %q", requests[i].head)
		}
	}
}

// Answers without a body keep the heads they have, and the connection.
func TestAnswersWithoutBody(t *testing.T) {
	cases := []struct {
		name, method, answer string
		length               []string // Content-Length of the client's answer
	}{
		{"HEAD with length", "HEAD", "200 OK\r\nContent-Length: 1234", []string{"1234"}},
		{"HEAD with length 0", "HEAD", "200 OK\r\nContent-Length: 0", []string{"0"}},
		{"HEAD chunked", "HEAD", "200 OK\r\nTransfer-Encoding: chunked", nil},
		{"HEAD without length", "HEAD", "200 OK\r\nX-A: b", nil},
		{"HEAD of an error", "HEAD", "404 Not Found\r\nContent-Length: 9", []string{"9"}},
		{"204", "GET", "204 No Content\r\nX-A: b", nil},
		{"204 to OPTIONS", "OPTIONS", "204 No Content\r\nAccess-Control-Allow-Origin: *", nil},
		{"304", "GET", "304 Not Modified\r\nEtag: \"x\"", nil},
		{"304 with length", "GET", "304 Not Modified\r\nEtag: \"x\"\r\nContent-Length: 77", nil},
		{"200 empty", "GET", "200 OK\r\nContent-Length: 0", []string{"0"}},
		{"reason", "GET", "299 Quite Fine\r\nContent-Length: 0", []string{"0"}},
		{"after interim answers", "GET", "103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 299 Quite Fine\r\nContent-Length: 0", []string{"0"}},
	}
	services := map[string]map[string]string{"app": {}}
	for _, c := range cases {
		services["app"][c.name] = rawNode(t, func(conn net.Conn) {
			for br := bufio.NewReader(conn); strings.HasSuffix(readHead(br), "\r\n\r\n"); {
				io.WriteString(conn, "HTTP/1.1 "+c.answer+"\r\n\r\n")
			}
		})
	}
	e := startEdge(t, []Route{{Paths: []string{"/{node}"}, Service: "app"}}, services)
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			conn := e.dial()
			br := bufio.NewReader(conn)
			status := c.answer[strings.LastIndex(c.answer, "HTTP/1.1 ")+1:]
			status, _, _ = strings.Cut(strings.TrimPrefix(status, "TTP/1.1 "), "\r\n")
			for range 2 { // the second shows that the first left nothing behind
				io.WriteString(conn, c.method+" /"+url.PathEscape(c.name)+" HTTP/1.1\r\nHost: h\r\n\r\n")
				head := readHead(br)
				line, rest, _ := strings.Cut(head, "\r\n")
				if line != "HTTP/1.1 "+status {
					t.Fatalf("got %q, want status %s", head, status)
				}
				if got := (recorded{head: rest}).values("Content-Length"); !slices.Equal(got, c.length) {
					t.Errorf("Content-Length is %q, want %q", got, c.length)
				}
				if strings.Contains(head, "Transfer-Encoding") {
					t.Errorf("got %q", head)
				}
			}
		})
	}
}

// What goes wrong behind the gateway, and what clients are told.
func TestFailuresOfNodes(t *testing.T) {
	answering := func(answer string) func(t *testing.T) string {
		return func(t *testing.T) string {
			return rawNode(t, func(c net.Conn) {
				readHead(bufio.NewReader(c))
				io.WriteString(c, answer)
			})
		}
	}
	cases := []struct {
		name   string
		node   func(t *testing.T) string
		status int
		code   string
	}{
		{"refused", refusedAddr, 502, "no_node_reached"},
		{"closes", answering(""), 502, "upstream_failed"},
		{"garbage", answering("SSH-2.0-OpenSSH_9.2\r\n"), 502, "upstream_failed"},
		{"half a head", answering("HTTP/1.1 200 OK\r\nX-A: "), 502, "upstream_failed"},
		{"bad status", answering("HTTP/1.1 2x0 OK\r\n\r\n"), 502, "upstream_failed"},
		{"bad header", answering("HTTP/1.1 200 OK\r\nX A\r\n\r\n"), 502, "upstream_failed"},
		{"two lengths", answering("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"), 502, "upstream_failed"},
		{"huge head", answering("HTTP/1.1 200 OK\r\nX-A: " + strings.Repeat("x", 128<<10) + "\r\n\r\n"), 502, "upstream_failed"},
		{"endless interim answers", answering(strings.Repeat("HTTP/1.1 103 Early Hints\r\nX-A: "+strings.Repeat("x", 1000)+"\r\n\r\n", 1000)), 502, "upstream_failed"},
		{"switches unasked", answering("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"), 502, "upstream_failed"},
	}
	var routes []Route
	services := map[string]map[string]string{}
	for i, c := range cases {
		service := "service" + strconv.Itoa(i)
		routes = append(routes, Route{Paths: []string{"/" + strconv.Itoa(i)}, Service: service})
		services[service] = map[string]string{"a": c.node(t)}
	}
	e := startEdge(t, routes, services)
	for i, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			for _, request := range []string{"GET /%d HTTP/1.1\r\nHost: h\r\n\r\n", "POST /%d HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc"} {
				resp, body := e.answerTo(fmt.Sprintf(request, i))
				if resp.StatusCode != c.status || problemCode(body) != c.code {
					t.Errorf("got %d %s", resp.StatusCode, body)
				}
			}
			e.logs.wait(t, `"error":"`+c.code+`"`, fmt.Sprintf(`"route":"/%d"`, i), `"cause":`)
		})
	}
}

func TestPinnedNodeDown(t *testing.T) {
	e := startEdge(t, []Route{{Paths: []string{"/ws/{node}"}, Service: "im"}},
		map[string]map[string]string{"im": {"node1": refusedAddr(t), "node2": httpNode(t, echoTarget)}})
	for _, request := range []string{"GET /ws/node1 HTTP/1.1\r\nHost: h\r\n\r\n", "POST /ws/node1 HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc"} {
		resp, body := e.answerTo(request)
		if resp.StatusCode != 503 || problemCode(body) != "node_down" || resp.Header.Get("Retry-After") == "" {
			t.Errorf("got %d %v %s", resp.StatusCode, resp.Header, body)
		}
	}
}

func TestNothingToPick(t *testing.T) {
	e := startEdge(t, []Route{
		{Paths: []string{"/unknown"}, Service: "unknown"}, {Paths: []string{"/unknown/{node}"}, Service: "unknown"},
		{Paths: []string{"/empty"}, Service: "empty"}, {Paths: []string{"/empty/{node}"}, Service: "empty"},
	}, map[string]map[string]string{"empty": {}}, func(c *Config) {
		c.Services = append(c.Services, ServiceRef{Name: "unknown", Ports: []string{""}})
	})
	cases := []struct {
		path   string
		status int
		code   string
		retry  bool
	}{
		{"/unknown", 503, "no_snapshot", true},
		{"/unknown/node1", 503, "no_snapshot", true},
		{"/empty", 503, "no_node", true},
		{"/empty/node1", 404, "node_unknown", false},
		{"/nowhere", 404, "no_route", false},
	}
	for _, c := range cases {
		resp, body := e.answerTo("GET " + c.path + " HTTP/1.1\r\nHost: h\r\n\r\n")
		if resp.StatusCode != c.status || problemCode(body) != c.code || (resp.Header.Get("Retry-After") != "") != c.retry {
			t.Errorf("%s: got %d %v %s", c.path, resp.StatusCode, resp.Header, body)
		}
	}
}

// A balanced request goes to another node as long as nothing was sent, with its
// body whole.
func TestNextNodeIsTriedWhenOneRefuses(t *testing.T) {
	node := httpNode(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Write(body)
	})
	e := startEdge(t, []Route{{Paths: []string{"/app"}, Service: "app"}}, map[string]map[string]string{"app": {}})
	e.Publish(inOrder("app", refusedAddr(t), refusedAddr(t), node))
	large := strings.Repeat("x", 100000)
	for range 3 { // begins with each of them once
		for _, request := range []string{post("Content-Length: 100000", large), post("Transfer-Encoding: chunked", "186a0\r\n"+large+"\r\n0\r\n\r\n")} {
			if resp, body := e.answerTo(request); resp.StatusCode != 200 || body != large {
				t.Errorf("got %d, %d bytes", resp.StatusCode, len(body))
			}
		}
	}
	for id, n := range e.activeLeases("app") {
		if n != 0 {
			t.Errorf("%s has %d leases left", id, n)
		}
	}
}

func (e *edge) activeLeases(service string) map[string]int64 {
	active := map[string]int64{}
	for _, n := range e.state.Load().table.view.Services[service].Nodes() {
		active[n.ID] = n.Active()
	}
	return active
}

func TestAllNodesRefuse(t *testing.T) {
	e := startEdge(t, []Route{{Paths: []string{"/app"}, Service: "app"}}, map[string]map[string]string{"app": {}})
	var addrs []string
	for range maxTries + 2 {
		addrs = append(addrs, refusedAddr(t))
	}
	for _, n := range []int{1, 2, len(addrs)} {
		e.Publish(inOrder("app", addrs[:n]...))
		if resp, body := e.answerTo(post("Content-Length: 3", "abc")); resp.StatusCode != 502 || problemCode(body) != "no_node_reached" {
			t.Errorf("%d nodes: got %d %s", n, resp.StatusCode, body)
		}
	}
}

// A request of which anything was sent is never sent again.
func TestNoRetryAfterBytesWereSent(t *testing.T) {
	var sent atomic.Int64
	closing := rawNode(t, func(c net.Conn) {
		readHead(bufio.NewReader(c))
		sent.Add(1)
	})
	other := startRecorder(t, "other")
	e := startEdge(t, []Route{{Paths: []string{"/app"}, Service: "app"}}, map[string]map[string]string{"app": {}})
	for i, request := range []string{get("Host: h"), post("Content-Length: 3", "abc"), post("Content-Length: 0", "")} {
		e.Publish(inOrder("app", closing, closing, closing, other.addr))
		if resp, _ := e.answerTo(request); resp.StatusCode != 502 {
			t.Errorf("%q: %d", request, resp.StatusCode)
		}
		if n := sent.Load(); n != int64(i+1) {
			t.Errorf("%q was sent %d times", request, n)
		}
	}
	if seen, _ := other.all(); seen != "" {
		t.Errorf("the other node got %q", seen)
	}
}

// A pooled connection that the node has given up meanwhile is the gateway's
// affair: clients do not see it.
func TestStalePooledConnection(t *testing.T) {
	var conns atomic.Int64
	e := appRoute(t, rawNode(t, func(c net.Conn) {
		conns.Add(1)
		br := bufio.NewReader(c)
		readHead(br)
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		readHead(br) // and close on the second request
	}))
	const requests = 5
	for range requests {
		if resp, body := e.answerTo(get("Host: h")); resp.StatusCode != 200 || body != "ok" {
			t.Errorf("got %d %s", resp.StatusCode, body)
		}
	}
	if n := conns.Load(); n != requests {
		t.Errorf("%d connections", n)
	}
}

// The body is asked for when it will be used, and not when not.
func TestExpectContinue(t *testing.T) {
	e, node := appEdge(t)
	for _, header := range []string{"Expect: 100-continue", "expect: 100-continue", "EXPECT: 100-Continue"} {
		for _, framing := range []struct{ header, body string }{
			{"Content-Length: 5", "hello"}, {"Transfer-Encoding: chunked", "5\r\nhello\r\n0\r\n\r\n"},
		} {
			conn := e.dial()
			br := bufio.NewReader(conn)
			io.WriteString(conn, post(header+"\r\n"+framing.header, ""))
			if interim := readHead(br); interim != "HTTP/1.1 100 Continue\r\n\r\n" {
				t.Fatalf("%s: got %q", header, interim)
			}
			io.WriteString(conn, framing.body+get("Host: h"))
			for range 2 {
				if resp, body := readAnswer(t, br); resp.StatusCode != 200 {
					t.Errorf("%s: got %d %s", header, resp.StatusCode, body)
				}
			}
		}
	}
	_, requests := node.all()
	for i, r := range requests {
		if i%2 == 0 && (r.body != "hello" || strings.Contains(strings.ToLower(r.head), "expect")) {
			t.Errorf("the node got %+v", r)
		}
	}
}

func TestExpectContinueRefused(t *testing.T) {
	e, node := appEdge(t)
	for _, header := range []string{"Expect", "expect"} {
		conn := e.dial()
		io.WriteString(conn, "POST /nowhere HTTP/1.1\r\nHost: h\r\n"+header+": 100-continue\r\nContent-Length: 5\r\n\r\n")
		// Nothing of the body is sent: the answer must not wait for it.
		expectOneAnswer(t, conn, 404, "no_route")
		conn = e.dial()
		io.WriteString(conn, "POST /nowhere HTTP/1.1\r\nHost: h\r\n"+header+": 100-continue\r\nContent-Length: 60\r\n\r\n"+hidden+hidden)
		expectOneAnswer(t, conn, 404, "no_route")
	}
	conn := e.dial()
	io.WriteString(conn, post("Expect: 100-continue\r\nExpect: 100-continue\r\nContent-Length: 5", ""))
	expectOneAnswer(t, conn, 417, "expectation_failed")
	if seen, _ := node.all(); seen != "" {
		t.Errorf("the node got %q", seen)
	}
}

// HTTP/1.0 knows no interim answers.
func TestExpectOfHTTP10IsIgnored(t *testing.T) {
	e, node := appEdge(t)
	answer := e.raw("POST /app/a HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello")
	if !strings.HasPrefix(answer, "HTTP/1.1 200 ") {
		t.Errorf("got %q", answer)
	}
	if r := node.only(t); r.body != "hello" {
		t.Errorf("the node got %q", r.body)
	}
}

// "Connection: close" is understood in every spelling.
func TestConnectionClose(t *testing.T) {
	e, _ := appEdge(t)
	for _, header := range []string{"Connection: close", "connection: Close", "Connection: x-a, close", "Connection: x-a\r\nConnection: close", "Connection: close\r\nConnection: x-a"} {
		if answer := e.raw(get("Host: h\r\n" + header)); !strings.HasSuffix(answer, "\r\n\r\napp1") {
			t.Errorf("%s: got %q", header, answer)
		}
	}
}

// A panicking dialer panics for one address.
type panickingDialer struct {
	net.Dialer
	address string
}

func (d *panickingDialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	if address == d.address {
		panic("no such luck")
	}
	return d.Dialer.DialContext(ctx, network, address)
}

// A panic in the handling of one request is that request's end alone.
func TestPanicEndsOneRequest(t *testing.T) {
	began, proceed := make(chan struct{}), make(chan struct{})
	good := httpNode(t, func(w http.ResponseWriter, r *http.Request) {
		close(began)
		<-proceed
		io.WriteString(w, "fine")
	})
	bad := "127.0.0.1:1"
	snap := nodesOf(map[string]map[string]string{"im": {"good": good, "bad": bad}})
	e := startEdgeOver(t, NewDescriptors(0), &panickingDialer{address: bad}, []Route{{Paths: []string{"/ws/{node}"}, Service: "im"}}, snap)
	conn := e.dial()
	io.WriteString(conn, "GET /ws/good HTTP/1.1\r\nHost: h\r\n\r\n")
	await(t, "the good request is under way", began)

	requests := []string{
		"GET /ws/bad HTTP/1.1\r\nHost: h\r\n\r\n",
		"POST /ws/bad HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello",
		"POST /ws/bad HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\n" + strings.Repeat("x", 50000),
	}
	for i, request := range requests {
		resp, body := e.answerTo(request)
		if resp.StatusCode != 500 || problemCode(body) != "internal_error" {
			t.Errorf("got %d %s", resp.StatusCode, body)
		}
		if n := e.panics.Load(); n != int64(i+1) {
			t.Errorf("%d panics were counted", n)
		}
	}
	e.logs.wait(t, "no such luck", `"stack"`, "DialContext")
	for id, n := range e.activeLeases("im") {
		if want := map[string]int64{"good": 1}[id]; n != want {
			t.Errorf("%s has %d leases", id, n)
		}
	}
	close(proceed)
	if _, body := readAnswer(t, bufio.NewReader(conn)); body != "fine" {
		t.Errorf("the good request got %q", body)
	}
}

// Many requests at once over few connections: every client gets its own answer.
func TestManyRequestsAtOnce(t *testing.T) {
	e := appRoute(t, httpNode(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s", r.URL.RawQuery, body)
	}))
	done := make(chan error)
	const clients, each = 16, 12
	for i := range clients {
		conn := e.dialAny(i%2 == 0)
		go func() { done <- askInTurn(conn, strconv.Itoa(i), each) }()
	}
	for range clients {
		if err := await(t, "a client is done", done); err != nil {
			t.Error(err)
		}
	}
}

func askInTurn(conn net.Conn, name string, times int) error {
	br := bufio.NewReader(conn)
	for j := range times {
		body := strings.Repeat(name+",", j*j*100)
		query := name + "-" + strconv.Itoa(j)
		if _, err := fmt.Fprintf(conn, "POST /app/a?%s HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n%s", query, len(body), body); err != nil {
			return err
		}
		resp, err := http.ReadResponse(br, nil)
		if err != nil {
			return err
		}
		if got, err := io.ReadAll(resp.Body); err != nil || string(got) != query+" "+body {
			return fmt.Errorf("%s got %d bytes of another answer, %v", query, len(got), err)
		}
	}
	return nil
}

// Every lease is given back, however an exchange ends.
func TestLeasesAreGivenBack(t *testing.T) {
	e := appRoute(t, rawNode(t, func(c net.Conn) {
		head := readHead(bufio.NewReader(c))
		switch {
		case strings.Contains(head, "broken"):
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
		case strings.Contains(head, "silent"):
			io.Copy(io.Discard, c)
		default:
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		}
	}), func(t *Timeouts) { t.Read = 20 * time.Millisecond })
	for _, what := range []string{"good", "broken", "silent"} {
		for _, version := range []string{"1.0", "1.1"} {
			conn := e.dial()
			fmt.Fprintf(conn, "GET /app/%s HTTP/%s\r\nHost: h\r\nConnection: close\r\n\r\n", what, version)
			awaitEnd(t, conn)
		}
	}
	eventually(t, "no lease is left", func() bool { return e.activeLeases("app")["app1"] == 0 })
}
