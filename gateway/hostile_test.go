package gateway

import (
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
)

// hidden follows every request of which the gateway must not keep the
// connection: whatever comes of the request, this must never be run.
const hidden = "GET /app/HIDDEN HTTP/1.1\r\nHost: h\r\n\r\n"

func appEdge(t *testing.T, tune ...func(*Config)) (*edge, *recorder) {
	node := startRecorder(t, "app1")
	e := startEdge(t, []Route{{Paths: []string{"/app"}, Service: "app"}},
		map[string]map[string]string{"app": {"app1": node.addr}}, tune...)
	return e, node
}

func post(headers, body string) string {
	return "POST /app/a HTTP/1.1\r\nHost: h\r\n" + headers + "\r\n\r\n" + body
}

func get(headers string) string { return "GET /app/a HTTP/1.1\r\n" + headers + "\r\n\r\n" }

// Requests that different servers read differently, or that no client means.
// Each gets one answer, the connection ends in order, and nothing of it is
// taken for another request.
func TestHostileRequestsAreRefused(t *testing.T) {
	e, node := appEdge(t)
	long := strings.Repeat("x", 20<<10)
	cases := []struct {
		name, request string
		status        int
		code          string
	}{
		{"length then encoding", post("Content-Length: 5\r\nTransfer-Encoding: chunked", "0\r\n\r\n"), 400, "bad_request"},
		{"encoding then length", post("Transfer-Encoding: chunked\r\nContent-Length: 5", "0\r\n\r\n"), 400, "bad_request"},
		{"both behind bare line feeds", "POST /app/a HTTP/1.1\nHost: h\nContent-Length: 5\nTransfer-Encoding: chunked\n\n0\r\n\r\n", 400, "bad_request"},
		{"encoding unknown", post("Transfer-Encoding: xchunked", "0\r\n\r\n"), 400, "bad_request"},
		{"encoding identity", post("Transfer-Encoding: identity", ""), 400, "bad_request"},
		{"encoding identity and length", post("Transfer-Encoding: identity\r\nContent-Length: 5", "12345"), 400, "bad_request"},
		{"encoding chunked twice", post("Transfer-Encoding: chunked, chunked", "0\r\n\r\n"), 400, "bad_request"},
		{"encoding in two lines", post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", "0\r\n\r\n"), 400, "bad_request"},
		{"encoding not chunked last", post("Transfer-Encoding: chunked, identity", "0\r\n\r\n"), 400, "bad_request"},
		{"encoding empty", post("Transfer-Encoding:", "0\r\n\r\n"), 400, "bad_request"},
		{"encoding with a vertical tab", post("Transfer-Encoding: \vchunked", "0\r\n\r\n"), 400, "bad_request"},
		{"encoding on HTTP/1.0", "POST /app/a HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, "bad_request"},
		{"two lengths", post("Content-Length: 5\r\nContent-Length: 6", "12345"), 400, "bad_request"},
		{"one length twice", post("Content-Length: 5\r\nContent-Length: 5", "12345"), 400, "bad_request"},
		{"length list", post("Content-Length: 5, 5", "12345"), 400, "bad_request"},
		{"length with plus", post("Content-Length: +5", "12345"), 400, "bad_request"},
		{"length with minus", post("Content-Length: -5", "12345"), 400, "bad_request"},
		{"length in hex", post("Content-Length: 0x5", "12345"), 400, "bad_request"},
		{"length with space", post("Content-Length: 1 5", "12345"), 400, "bad_request"},
		{"length empty", post("Content-Length:", ""), 400, "bad_request"},
		{"length huge", post("Content-Length: 99999999999999999999999", "12345"), 400, "bad_request"},
		{"length wraps", post("Content-Length: 18446744073709551621", "12345"), 400, "bad_request"},
		{"folded header", post("X-A: b\r\n c\r\nContent-Length: 0", ""), 400, "bad_request"},
		{"folded header with tab", post("X-A: b\r\n\tContent-Length: 5", "12345"), 400, "bad_request"},
		{"first header folded", "GET /app/a HTTP/1.1\r\n Host: h\r\n\r\n", 400, "bad_request"},
		{"space before colon", post("Content-Length : 5", "12345"), 400, "bad_request"},
		{"space in a name", get("Host: h\r\nX A: b"), 400, "bad_request"},
		{"no colon", get("Host: h\r\nX-A"), 400, "bad_request"},
		{"no name", get("Host: h\r\n: b"), 400, "bad_request"},
		{"two hosts", get("Host: h\r\nHost: g"), 400, "bad_request"},
		{"no host", get("X-A: b"), 400, "bad_request"},
		{"empty host", get("Host:"), 400, "bad_request"},
		{"host with space", get("Host: a b"), 400, "bad_request"},
		{"host with quote", get(`Host: a";for=1`), 400, "bad_request"},
		{"host with path", get("Host: a/app"), 400, "bad_request"},
		{"host with user", get("Host: u@a"), 400, "bad_request"},
		{"host with port name", get("Host: a:http"), 400, "bad_request"},
		{"host in brackets is no address", get(`Host: [x";for="1]`), 400, "bad_request"},
		{"host list", get("Host: a, b"), 400, "bad_request"},
		{"absolute-form of another host", "GET http://g/app/a HTTP/1.1\r\nHost: h\r\n\r\n", 400, "bad_request"},
		{"absolute-form with user", "GET http://u@h/app/a HTTP/1.1\r\nHost: h\r\n\r\n", 400, "bad_request"},
		{"absolute-form of another scheme", "GET ftp://h/app/a HTTP/1.1\r\nHost: h\r\n\r\n", 400, "bad_request"},
		{"authority-form", "GET h:80 HTTP/1.1\r\nHost: h\r\n\r\n", 400, "bad_request"},
		{"asterisk-form", "OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n", 400, "bad_request"},
		{"no target", "GET HTTP/1.1\r\nHost: h\r\n\r\n", 400, "bad_request"},
		{"target with space", "GET /app/a b HTTP/1.1\r\nHost: h\r\n\r\n", 400, "bad_request"},
		{"target with fragment", "GET /app/a#b HTTP/1.1\r\nHost: h\r\n\r\n", 400, "bad_request"},
		{"target with NUL", "GET /app/\x00 HTTP/1.1\r\nHost: h\r\n\r\n", 400, "bad_request"},
		{"target with bare CR", "GET /app/a\rb HTTP/1.1\r\nHost: h\r\n\r\n", 400, "bad_request"},
		{"CONNECT", "CONNECT h:443 HTTP/1.1\r\nHost: h:443\r\n\r\n", 405, "method_not_allowed"},
		{"CONNECT to a path", "CONNECT /app/a HTTP/1.1\r\nHost: h\r\n\r\n", 405, "method_not_allowed"},
		{"TRACE", "TRACE /app/a HTTP/1.1\r\nHost: h\r\n\r\n", 405, "method_not_allowed"},
		{"method with a bad byte", "G@T /app/a HTTP/1.1\r\nHost: h\r\n\r\n", 400, "bad_request"},
		{"HTTP/1.2", "GET /app/a HTTP/1.2\r\nHost: h\r\n\r\n", 505, "version_not_supported"},
		{"HTTP/2.0 by word", "GET /app/a HTTP/2.0\r\nHost: h\r\n\r\n", 505, "version_not_supported"},
		{"HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "version_not_supported"},
		{"HTTP/0.9", "GET /app/a\r\n\r\n", 400, "bad_request"},
		{"bare CR in a header", get("Host: h\r\nX-A: b\rX-B: c"), 400, "bad_request"},
		{"bare LF between headers", "GET /app/a HTTP/1.1\r\nHost: h\nX-A: b\r\n\r\n", 400, "bad_request"},
		{"bare LF at the end", "GET /app/a HTTP/1.1\r\nHost: h\r\n\n", 400, "bad_request"},
		{"NUL in a header", get("Host: h\r\nX-A: b\x00c"), 400, "bad_request"},
		{"NUL in a name", get("Host: h\r\nX-\x00A: bc"), 400, "bad_request"},
		{"one long header", get("Host: h\r\nX-A: " + long), 431, "head_too_large"},
		{"many headers", get("Host: h" + strings.Repeat("\r\nX-A: bcdefghijkl", 1200)), 431, "head_too_large"},
		{"long target", "GET /app/" + long + " HTTP/1.1\r\nHost: h\r\n\r\n", 431, "head_too_large"},
		{"unknown expectation", post("Expect: tea\r\nContent-Length: 5", "12345"), 417, "expectation_failed"},
		{"body on a refused route", "POST /nowhere HTTP/1.1\r\nHost: h\r\nContent-Length: 60\r\n\r\n" + hidden, 404, "no_route"},
		{"chunked body on a refused route", "POST /nowhere HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n", 404, "no_route"},
		{"body with a refused handshake", "GET /app/a HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 60\r\n\r\n" + hidden, 400, "bad_handshake"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			conn := e.dial()
			if _, err := io.WriteString(conn, c.request+hidden); err != nil {
				t.Fatal(err)
			}
			expectOneAnswer(t, conn, c.status, c.code)
		})
	}
	if seen, _ := node.all(); seen != "" {
		t.Errorf("the node was sent %q", seen)
	}
}

// expectOneAnswer reads a connection to its end: one answer, announcing the
// end, and then the end, not a reset.
func expectOneAnswer(t *testing.T, conn net.Conn, status int, code string) {
	t.Helper()
	answers, ended, err := answersOn(conn, 2)
	if err != nil {
		t.Fatalf("reading the answer: %v", err)
	}
	if !ended || len(answers) != 1 {
		t.Fatalf("%d answers, want one and the end", len(answers))
	}
	if a := answers[0]; a.StatusCode != status || problemCode(a.body) != code {
		t.Errorf("got %d %s, want %d %s", a.StatusCode, a.body, status, code)
	}
	if !answers[0].Close {
		t.Error("the answer does not say that the connection is closed")
	}
}

// Bodies that break while they are passed on: the node must not get a whole one.
func TestBrokenChunksAreNoBody(t *testing.T) {
	bodies := map[string]string{
		"size is no number":       "zz\r\nabc\r\n0\r\n\r\n",
		"size negative":           "-3\r\nabc\r\n0\r\n\r\n",
		"size with 0x":            "0x3\r\nabc\r\n0\r\n\r\n",
		"size empty":              "\r\nabc\r\n0\r\n\r\n",
		"size with space before":  " 3\r\nabc\r\n0\r\n\r\n",
		"size too large":          "FFFFFFFFFFFFFFFFF\r\nabc\r\n0\r\n\r\n",
		"size wraps":              "10000000000000003\r\nabc\r\n0\r\n\r\n",
		"size ends with LF":       "3\nabc\r\n0\r\n\r\n",
		"size ends with CR":       "3\rabc\r\n0\r\n\r\n",
		"no CRLF after the chunk": "3\r\nabcX0\r\n\r\n",
		"LF after the chunk":      "3\r\nabc\n0\r\n\r\n",
		"LF in an extension":      "3;a\nb\r\nabc\r\n0\r\n\r\n",
		"trailer is Length":       "3\r\nabc\r\n0\r\nContent-Length: 5\r\n\r\n",
		"trailer without colon":   "3\r\nabc\r\n0\r\nX-A\r\n\r\n",
	}
	e, node := appEdge(t)
	for name, body := range bodies {
		t.Run(name, func(t *testing.T) {
			conn := e.dial()
			io.WriteString(conn, post("Transfer-Encoding: chunked", body)+hidden)
			expectOneAnswer(t, conn, 400, "bad_request")
		})
	}
	seen, requests := node.all()
	if strings.Contains(seen, "HIDDEN") {
		t.Errorf("the hidden request was run: %q", seen)
	}
	for _, r := range requests {
		if !r.broken {
			t.Errorf("the node got a whole body: %q", r.body)
		}
	}
}

// Odd but legal requests: they are served, and the connection goes on.
func TestOddRequestsAreServed(t *testing.T) {
	cases := []struct {
		name, request string
		line, body    string // as the node sees them
	}{
		{"empty line before", "\r\n" + get("Host: h"), "GET /app/a HTTP/1.1", ""},
		{"absolute-form", "GET http://h:80/app/a?b HTTP/1.1\r\nHost: H:80\r\n\r\n", "GET /app/a?b HTTP/1.1", ""},
		{"lower-case method", "get /app/a HTTP/1.1\r\nHost: h\r\n\r\n", "get /app/a HTTP/1.1", ""},
		{"unknown method", "PROPFIND /app/a HTTP/1.1\r\nHost: h\r\n\r\n", "PROPFIND /app/a HTTP/1.1", ""},
		{"length with spaces around", post("Content-Length:  5 ", "12345"), "POST /app/a HTTP/1.1", "12345"},
		{"length with zeros", post("Content-Length: 0005", "12345"), "POST /app/a HTTP/1.1", "12345"},
		{"chunk extension", post("Transfer-Encoding: chunked", "3;a=b\r\nabc\r\n0;c\r\n\r\n"), "POST /app/a HTTP/1.1", "abc"},
		{"encoding in another case", post("transfer-encoding: Chunked", "3\r\nabc\r\n0\r\n\r\n"), "POST /app/a HTTP/1.1", "abc"},
		{"trailers", post("Transfer-Encoding: chunked", "3\r\nabc\r\n0\r\nX-T: 1\r\n\r\n"), "POST /app/a HTTP/1.1", "abc"},
		{"GET with a body", "GET /app/a HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc", "GET /app/a HTTP/1.1", "abc"},
		{"offer of h2c", get("Host: h\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA"), "GET /app/a HTTP/1.1", ""},
		{"host is an IPv6 address", get("Host: [::1]:80"), "GET /app/a HTTP/1.1", ""},
	}
	e, node := appEdge(t)
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			conn := e.dial()
			io.WriteString(conn, c.request+"GET /app/next HTTP/1.1\r\nHost: h\r\n\r\n")
			answers, _, err := answersOn(conn, 2)
			if err != nil || len(answers) != 2 || answers[0].body != "app1" || answers[1].body != "app1" {
				t.Fatalf("got %d answers, %v: %v", len(answers), err, answers)
			}
			requests := node.take()
			if len(requests) != 2 || requests[0].line() != c.line || requests[0].body != c.body {
				t.Fatalf("the node got %+v", requests)
			}
			if requests[1].line() != "GET /app/next HTTP/1.1" {
				t.Errorf("and then %q", requests[1].head)
			}
			for _, forbidden := range []string{"Upgrade", "HTTP2-Settings", "Trailer"} {
				if v := requests[0].values(forbidden); v != nil {
					t.Errorf("%s reached the node: %q", forbidden, v)
				}
			}
		})
	}
}

// A node that answers before it has read the body: the answer arrives whole, the
// connection ends without a reset, and what the client still sends is never taken
// for a request.
func TestEarlyAnswerWithUnreadBody(t *testing.T) {
	released := make(chan struct{})
	var node recorder
	addr := rawNode(t, func(c net.Conn) {
		c.(*net.TCPConn).SetReadBuffer(4096)
		buf := make([]byte, 1)
		head := ""
		for !strings.HasSuffix(head, "\r\n\r\n") {
			if _, err := c.Read(buf); err != nil {
				return
			}
			head += string(buf)
		}
		node.note(head)
		io.WriteString(c, "HTTP/1.1 401 Unauthorized\r\nContent-Length: 6\r\n\r\ndenied")
		<-released // and the body is never read
	})
	t.Cleanup(func() { close(released) })
	e := appRoute(t, addr)
	bodies := map[string]string{
		"length":  post("Content-Length: 100000000", ""),
		"chunked": post("Transfer-Encoding: chunked", "fffffff\r\n"),
	}
	// More than the sockets on the way to the node take.
	rest := strings.Repeat(hidden, 8<<20/len(hidden))
	eachWire(t, func(t *testing.T, secure bool) {
		for name, head := range bodies {
			conn := e.dialAny(secure)
			sent := make(chan error, 1)
			io.WriteString(conn, head+rest[:64<<10])
			go func() {
				_, err := io.WriteString(conn, rest)
				sent <- err
			}()
			answers, ended, err := answersOn(conn, 2)
			if err != nil || !ended || len(answers) != 1 {
				t.Fatalf("%s: %d answers, ended %v: %v", name, len(answers), ended, err)
			}
			if a := answers[0]; a.StatusCode != 401 || a.body != "denied" || !a.Close {
				t.Errorf("%s: got %d %q, close %v", name, a.StatusCode, a.body, a.Close)
			}
			if err := await(t, "the client has sent all", sent); err != nil {
				t.Errorf("%s: sending: %v", name, err)
			}
		}
	})
	if seen, _ := node.all(); strings.Contains(seen, "HIDDEN") {
		t.Errorf("the hidden request was run: %q", seen)
	}
}

// What is in brackets is an address: it goes into quoted headers as it is.
func TestBracketedHosts(t *testing.T) {
	for _, host := range []string{"[x]", `[x";for="1]`, "[1.2.3.4]", "[]", "[fe80::1%eth0]", "[::1", "[::1]x"} {
		if got, err := canonicalHost(host); err == nil {
			t.Errorf("%s: got %s", host, got)
		}
	}
}

// dialAny opens a connection to one of the two listeners.
func (e *edge) dialAny(secure bool) net.Conn {
	e.t.Helper()
	if secure {
		return e.dialTLS()
	}
	return e.dial()
}

func TestPipelinedRequestsAreAnsweredInOrder(t *testing.T) {
	node := httpNode(t, echoTarget)
	e := startEdge(t, []Route{{Paths: []string{"/app"}, Service: "app"}}, map[string]map[string]string{"app": {"a": node}})
	for _, secure := range []bool{false, true} {
		conn := e.dialAny(secure)
		request := ""
		for i := range 5 {
			request += fmt.Sprintf("GET /app/%d HTTP/1.1\r\nHost: h\r\n\r\n", i)
		}
		io.WriteString(conn, request)
		answers, _, err := answersOn(conn, 5)
		if err != nil || len(answers) != 5 {
			t.Fatalf("%d answers, %v", len(answers), err)
		}
		for i, a := range answers {
			if want := fmt.Sprintf("/app/%d", i); a.body != want {
				t.Errorf("answer %d is that of %q", i, a.body)
			}
		}
	}
}

// No spelling of a path reaches another node than the one it names.
func TestPathTricks(t *testing.T) {
	cases := []struct {
		target string
		node   string // which one is reached, with which path; "": none
		path   string
		status int
		code   string
	}{
		{"/ws/node1", "node1", "/ws/node1", 200, ""},
		{"/ws/node10", "node10", "/ws/node10", 200, ""},
		{"/ws/%6eode1", "node1", "/ws/node1", 200, ""},
		{"/ws/node1%30", "node10", "/ws/node10", 200, ""},
		{"//ws///node1", "node1", "/ws/node1", 200, ""},
		{"/ws/./node1/.", "node1", "/ws/node1/", 200, ""},
		{"/ws/node10/../node1/a", "node1", "/ws/node1/a", 200, ""},
		{"/ws/node10/%2e%2e/node1/a", "node1", "/ws/node1/a", 200, ""},
		{"/x/../ws/node1", "node1", "/ws/node1", 200, ""},
		{"/ws/node1/a%2fb", "node1", "/ws/node1/a%2Fb", 200, ""},
		{"/ws/node1/a%252fb", "node1", "/ws/node1/a%252fb", 200, ""},
		{"/ws/%256eode1", "", "", 404, "node_unknown"},
		{"/ws/node1%2f", "", "", 404, "node_unknown"},
		{"/ws/node1%2e", "", "", 404, "node_unknown"},
		{"/ws/node1;x=1", "", "", 404, "node_unknown"},
		{"/ws/node1%20", "", "", 404, "node_unknown"},
		{"/ws/node1%3fa", "", "", 404, "node_unknown"},
		{"/ws/NODE1", "", "", 404, "node_unknown"},
		{"/ws/node", "", "", 404, "node_unknown"},
		{"/WS/node1", "", "", 404, "no_route"},
		{"/ws", "", "", 404, "no_route"},
		{"/ws/", "", "", 404, "no_route"},
		{`/ws\node1`, "", "", 404, "no_route"},
		{"/ws%2fnode1", "", "", 404, "no_route"},
		{"/ws/node1/..", "", "", 404, "no_route"},
		{"/ws/node1/..;/node10", "", "", 400, "bad_request"},
		{"/ws/node1/..;a=b/node10", "", "", 400, "bad_request"},
		{"/ws/node1/..%3b/node10", "", "", 400, "bad_request"},
		{"/ws/node1/..%2fnode10", "", "", 400, "bad_request"},
		{"/ws/node1/%2e%2e%2fnode10", "", "", 400, "bad_request"},
		{`/ws/node1/..\node10`, "", "", 400, "bad_request"},
		{"/ws/node1/..%5cnode10", "", "", 400, "bad_request"},
		{"/../ws/node1", "", "", 400, "bad_request"},
		{"/ws/node1%00", "", "", 400, "bad_request"},
		{"/ws/node1%0d%0aX:%20y", "", "", 400, "bad_request"},
		{"/ws/node1/%zz", "", "", 400, "bad_request"},
		{"/ws/node1/%", "", "", 400, "bad_request"},
	}
	nodes := map[string]*recorder{"node1": startRecorder(t, "node1"), "node10": startRecorder(t, "node10")}
	e := startEdge(t, []Route{{Paths: []string{"/ws/{node}"}, Service: "im"}},
		map[string]map[string]string{"im": {"node1": nodes["node1"].addr, "node10": nodes["node10"].addr}})
	want := map[string][]string{}
	for _, c := range cases {
		resp, body := e.answerTo("GET " + c.target + " HTTP/1.1\r\nHost: h\r\n\r\n")
		if resp.StatusCode != c.status || problemCode(body) != c.code || c.node != "" && body != c.node {
			t.Errorf("%s: got %d %q, want %d %s%s", c.target, resp.StatusCode, body, c.status, c.code, c.node)
		}
		if c.node != "" {
			want[c.node] = append(want[c.node], "GET "+c.path+" HTTP/1.1")
		}
	}
	for name, node := range nodes {
		var lines []string
		_, requests := node.all()
		for _, r := range requests {
			lines = append(lines, r.line())
		}
		if !slices.Equal(lines, want[name]) {
			t.Errorf("%s got\n%s\nwant\n%s", name, strings.Join(lines, "\n"), strings.Join(want[name], "\n"))
		}
	}
}
