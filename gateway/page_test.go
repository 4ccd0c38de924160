package gateway

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"

	"singlegate/discovery"
	"singlegate/gateway/checkpage"
)

func TestCheckPageFiles(t *testing.T) {
	e := startEdge(t, []Route{{Paths: []string{"/_check/"}, Page: "check"}}, nil)
	for _, name := range []string{"", "index.html", "check.js", "check.css", "strings.json", "icon.svg"} {
		want, contentType, ok := checkpage.Asset(name)
		if !ok {
			t.Fatalf("there is no %q", name)
		}
		resp, body := e.answerTo("GET /_check/" + name + " HTTP/1.1\r\nHost: h\r\n\r\n")
		if resp.StatusCode != 200 || body != string(want) || resp.Header.Get("Content-Type") != contentType {
			t.Errorf("%q: got %d %v, %d bytes", name, resp.StatusCode, resp.Header, len(body))
		}
		if csp := resp.Header.Get("Content-Security-Policy"); !strings.Contains(csp, "default-src 'self'") || strings.Contains(csp, "unsafe") {
			t.Errorf("%q: Content-Security-Policy %q", name, csp)
		}
	}
	cases := []struct {
		request, location string
		status            int
		code              string
	}{
		{"GET /_check", "/_check/", 301, ""},
		{"HEAD /_check", "/_check/", 301, ""},
		{"GET /_check?lang=zh", "/_check/?lang=zh", 301, ""},
		{"GET //_check", "/_check/", 301, ""},
		{"GET /_check/none.js", "", 404, "not_found"},
		{"GET /_check/../gateway/server.go", "", 404, "no_route"},
		{"GET /_check/index.html/", "", 404, "not_found"},
		{"POST /_check/", "", 405, "method_not_allowed"},
	}
	for _, c := range cases {
		conn := e.dial()
		io.WriteString(conn, c.request+" HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
		answer, _ := awaitEnd(t, conn)
		head, body, _ := strings.Cut(answer, "\r\n\r\n")
		if !strings.HasPrefix(head, fmt.Sprintf("HTTP/1.1 %d ", c.status)) || strings.Join((recorded{head: head}).values("Location"), "") != c.location || problemCode(body) != c.code {
			t.Errorf("%s: got %s", c.request, answer)
		}
	}
	head := e.raw("HEAD /_check/ HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
	if !strings.HasPrefix(head, "HTTP/1.1 200 ") || !strings.HasSuffix(head, "\r\n\r\n") || strings.Contains(head, "Content-Length: 0") {
		t.Errorf("HEAD: got %q", head)
	}
}

// The page is told every address that its listener's clients can try.
func TestCheckPageEntries(t *testing.T) {
	e := startEdge(t, []Route{
		{Paths: []string{"/_check"}, Page: "check"},
		{Paths: []string{"/ws/{node}"}, Service: "im", Rewrite: "/"},
		{Host: "{node}.im.example.gov", Paths: []string{"/"}, Service: "im"},
		{Paths: []string{"/chat"}, Service: "chat", Accept: AcceptWebSocket},
		{Host: "im.example.gov", Paths: []string{"/push"}, Service: "chat", Accept: AcceptWebSocket},
		{Paths: []string{"/app"}, Service: "chat"},
		{Paths: []string{"/rest/{node}"}, Service: "im", Accept: AcceptHTTP},
		{Paths: []string{"/plain/{node}"}, Service: "one", Listeners: []string{"plain"}},
		{Paths: []string{"/gone/{node}"}, Service: "gone"},
		{Paths: []string{"/moved"}, Redirect: "https"},
	}, map[string]map[string]string{"im": {}, "chat": {}, "one": {}}, func(c *Config) {
		c.Services = append(c.Services, ServiceRef{Name: "gone", Ports: []string{""}})
	})
	node := func(id string, names ...string) discovery.Node {
		return discovery.Node{ID: id, Address: "10.0.0.1", Ports: map[string]uint16{"": 80}, Names: names, Weight: 1}
	}
	e.Publish(discovery.Static{Services: map[string][]discovery.Node{
		"im": {node("Node1"), node("connector-1", "3050")}, "chat": {node("c")}, "one": {node("a/b")},
	}}.Snapshot())
	_, plainPort, _ := net.SplitHostPort(e.plain)
	_, securePort, _ := net.SplitHostPort(e.secure)
	common := func(scheme, port string) []string {
		return []string{
			"im Node1 /ws/Node1", "im connector-1 /ws/3050", "chat  /chat",
			"im Node1 " + scheme + "://node1.im.example.gov:" + port + "/", "im connector-1 " + scheme + "://3050.im.example.gov:" + port + "/",
			"chat  " + scheme + "://im.example.gov:" + port + "/push",
		}
	}
	eachWire(t, func(t *testing.T, secure bool) {
		want := common("ws", plainPort)
		want = append(want, "one a/b /plain/a%2Fb")
		if secure {
			want = common("wss", securePort)
		}
		slices.Sort(want)
		if got := checkEntriesOf(t, e.dialAny(secure)); !slices.Equal(got, want) {
			t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	})
}

func checkEntriesOf(t *testing.T, conn net.Conn) []string {
	t.Helper()
	io.WriteString(conn, "GET /_check/nodes.json HTTP/1.1\r\nHost: h\r\n\r\n")
	resp, body := readAnswer(t, bufio.NewReader(conn))
	var list struct {
		Gateway string
		Entries []struct{ Service, Node, Route, URL, Kind string }
	}
	if err := json.Unmarshal([]byte(body), &list); err != nil || resp.Header.Get("Content-Type") != "application/json; charset=utf-8" {
		t.Fatalf("got %v %s: %v", resp.Header, body, err)
	}
	var entries []string
	for _, e := range list.Entries {
		if e.Kind != "websocket" || e.Route == "" {
			t.Errorf("got %+v", e)
		}
		entries = append(entries, e.Service+" "+e.Node+" "+e.URL)
	}
	slices.Sort(entries)
	return entries
}

// An entry on the standard port, as clients name it, has no port.
func TestCheckPageEntriesBehindNAT(t *testing.T) {
	e := startEdge(t, []Route{
		{Paths: []string{"/_check"}, Page: "check"}, {Host: "{node}.im.example.gov", Paths: []string{"/ws"}, Service: "im"},
	}, map[string]map[string]string{"im": {"node1": "10.0.0.1:80"}}, func(c *Config) {
		c.Public = Public{Host: "im.example.gov", Port: 443}
		c.Listeners[0].Public.Port = 80
	})
	for secure, want := range map[bool]string{false: "im node1 ws://node1.im.example.gov/ws", true: "im node1 wss://node1.im.example.gov/ws"} {
		if got := checkEntriesOf(t, e.dialAny(secure)); len(got) != 1 || got[0] != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestRedirects(t *testing.T) {
	routes := func() []Route {
		return []Route{{Paths: []string{"/"}, Redirect: "https", Listeners: []string{"plain"}}, {Paths: []string{"/docs"}, Redirect: "https://docs.example.gov/x?y"}}
	}
	own := startEdge(t, routes(), nil)
	_, port, _ := net.SplitHostPort(own.secure)
	nat := startEdge(t, routes(), nil, func(c *Config) { c.Public = Public{Host: "im.example.gov", Port: 443} })
	cases := []struct {
		e        *edge
		request  string
		status   int
		location string
	}{
		{own, "GET / HTTP/1.1\r\nHost: a.b", 301, "https://a.b:" + port + "/"},
		{own, "GET /a%2fb?c=d? HTTP/1.1\r\nHost: A.B:8080", 301, "https://a.b:" + port + "/a%2Fb?c=d?"},
		{own, "GET //evil.example/..%3Fx HTTP/1.1\r\nHost: a.b", 301, "https://a.b:" + port + "/evil.example/..%3Fx"},
		{own, "HEAD /x HTTP/1.1\r\nHost: [::1]:80", 301, "https://[::1]:" + port + "/x"},
		{own, "POST /x HTTP/1.1\r\nHost: a.b\r\nContent-Length: 0", 308, "https://a.b:" + port + "/x"},
		{own, "GET /docs HTTP/1.1\r\nHost: a.b", 301, "https://docs.example.gov/x?y"},
		{own, "GET / HTTP/1.0\r\nX-A: no host", 400, ""},
		{nat, "GET /x HTTP/1.1\r\nHost: a.b", 301, "https://a.b/x"},
		{nat, "GET /x HTTP/1.1\r\nHost: [::1]", 301, "https://[::1]/x"},
		{nat, "GET /x HTTP/1.0\r\nX-A: no host", 301, "https://im.example.gov/x"},
	}
	for _, c := range cases {
		answer := c.e.raw(c.request + "\r\nConnection: close\r\n\r\n")
		if got := strings.Join((recorded{head: answer}).values("Location"), " "); got != c.location || !strings.HasPrefix(answer, fmt.Sprintf("HTTP/1.1 %d ", c.status)) {
			t.Errorf("%s: got %s", c.request, answer)
		}
	}
	// What is still sent with a redirected upload is no request.
	conn := own.dial()
	io.WriteString(conn, "POST /x HTTP/1.1\r\nHost: a.b\r\nTransfer-Encoding: chunked\r\n\r\n"+hidden)
	if answers, ended, err := answersOn(conn, 2); err != nil || !ended || len(answers) != 1 || answers[0].StatusCode != 308 {
		t.Errorf("%d answers, ended %v: %v", len(answers), ended, err)
	}
}
