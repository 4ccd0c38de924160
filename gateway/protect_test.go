package gateway

import (
	"bufio"
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Whatever the gateway answers by itself, a browser makes nothing of it but what
// it is, and nobody reads in it what the gateway is made of. Each of these goes
// over the wire, with and without TLS, for programs and for browsers.
func TestOwnAnswersAreProtected(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "folder"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"file.txt", "folder/index.html"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("content"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	e := startEdge(t, []Route{
		{Paths: []string{"/_check"}, Page: "check"},
		{Paths: []string{"/site"}, Static: dir},
		{Paths: []string{"/ws/{node}"}, Service: "im"},
		{Paths: []string{"/dead"}, Service: "dead"},
		{Paths: []string{"/none"}, Service: "none"},
		{Paths: []string{"/bosh"}, Service: "two", Kind: KindBOSH, Accept: AcceptHTTP},
		{Paths: []string{"/old"}, Redirect: "https://new.example/"},
		{Paths: []string{"/up"}, Redirect: "https"},
	}, map[string]map[string]string{"im": {"node1": "127.0.0.1:1"}, "dead": {"a": "127.0.0.1:1"}, "none": {}, "two": {"a": "127.0.0.1:1", "b": "127.0.0.1:1"}})

	const poll = "<body rid='2' sid='unknown' xmlns='http://jabber.org/protocol/httpbind'/>"
	for _, c := range []struct {
		request string // its head, without the end
		status  int
		body    string
	}{
		{"GET /_check/", 200, ""}, {"GET /_check/check.js", 200, ""}, {"GET /_check/nodes.json", 200, ""}, {"GET /_check", 301, ""},
		{"GET /old", 301, ""}, {"POST /old", 308, ""}, {"GET /up", 301, ""},
		{"GET /site", 301, ""}, {"GET /site/folder", 301, ""}, {"GET /site/gone", 404, ""}, {"DELETE /site/file.txt", 405, ""},
		{"GET /site/file.txt\r\nRange: bytes=100-", 416, ""},
		{"GET /nowhere", 404, ""}, {"GET /ws/node9", 404, ""}, {"GET /ws/node1", 503, ""}, {"GET /dead", 502, ""}, {"GET /none", 503, ""},
		{"POST /bosh\r\nContent-Length: " + strconv.Itoa(len(poll)), 200, poll}, {"OPTIONS /bosh\r\nOrigin: https://a.example\r\nAccess-Control-Request-Method: POST", 204, ""},
		{"GET /ws/node1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13", 400, ""},
		{"GET /ws/node1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\nSec-WebSocket-Version: 8", 426, ""},
		{"TRACE /site/", 405, ""}, {"GET /a\r\nExpect: magic", 417, ""}, {"GET /..;/x", 400, ""},
		{"GET /long\r\nX-Long: " + strings.Repeat("x", 20<<10), 431, ""},
		{"GET /a\r\n b", 400, ""},
	} {
		for i, accept := range []string{"", "\r\nAccept: text/html", "\r\nAccept: text/html\r\nAccept-Language: zh"} {
			line, rest, _ := strings.Cut(c.request, "\r\n")
			if rest != "" {
				rest += "\r\n"
			}
			request := line + " HTTP/1.1\r\nHost: h" + accept + "\r\n" + rest + "\r\n" + c.body
			conn := e.dialEither(i)
			io.WriteString(conn, request)
			resp, body := readAnswer(t, bufio.NewReader(conn))
			if resp.StatusCode != c.status {
				t.Errorf("%.60q: status %d, want %d", request, resp.StatusCode, c.status)
			}
			expectProtected(t, fmt.Sprintf("%.60q", request), resp, body)
		}
	}
}

func expectProtected(t *testing.T, what string, resp *http.Response, body string) {
	t.Helper()
	h := resp.Header
	for name, want := range map[string]string{
		"X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Referrer-Policy": "no-referrer",
	} {
		if got := h.Values(name); len(got) != 1 || got[0] != want {
			t.Errorf("%s, status %d: %s is %q, want %q", what, resp.StatusCode, name, got, want)
		}
	}
	policy := h.Get("Content-Security-Policy")
	for _, part := range []string{"default-src '", "frame-ancestors 'none'", "base-uri 'none'"} {
		if !strings.Contains(policy, part) {
			t.Errorf("%s, status %d: Content-Security-Policy is %q, want %s in it", what, resp.StatusCode, policy, part)
		}
	}
	if strings.Contains(policy, "unsafe") || strings.Contains(policy, "*") {
		t.Errorf("%s: Content-Security-Policy is %q", what, policy)
	}
	for _, banner := range []string{"Server", "X-Powered-By", "Via"} {
		if h.Get(banner) != "" {
			t.Errorf("%s: %s is %q", what, banner, h.Get(banner))
		}
	}
	var head bytes.Buffer
	h.Write(&head)
	if tell := telling().FindString(head.String() + body); tell != "" {
		t.Errorf("%s, status %d tells %q: %s", what, resp.StatusCode, tell, body)
	}
}

// telling is what an answer would say of the inside: libraries, versions, source
// files, addresses of nodes, stacks.
func telling() *regexp.Regexp {
	return regexp.MustCompile(`(?i)fasthttp|net/http|golang|` + regexp.QuoteMeta(runtime.Version()) + `|singlegate/[0-9]|\.go:\d|goroutine|127\.0\.0\.1:1\b|dial tcp|connection refused|panic`)
}

// The style of an error page is the one that its policy lets through, as the
// browser sees it.
func TestProblemPageKeepsItsStyle(t *testing.T) {
	e, _ := appEdge(t)
	resp, body := e.answerTo("GET /nowhere HTTP/1.1\r\nHost: h\r\nAccept: text/html\r\n\r\n")
	_, rest, _ := strings.Cut(body, "<style>")
	style, _, ok := strings.Cut(rest, "</style>")
	if !ok || style != problemStyle || !strings.Contains(resp.Header.Get("Content-Security-Policy"), "style-src 'sha256-") {
		t.Errorf("%q: %s", resp.Header.Get("Content-Security-Policy"), body)
	}
}

// So is what has no way through a problem: the answer to HTTP on a TLS port.
func TestPlainOnTLSIsProtected(t *testing.T) {
	e, _ := appEdge(t)
	conn := e.dialSecureRaw()
	io.WriteString(conn, "GET / HTTP/1.1\r\nHost: h\r\n\r\n")
	resp, body := readAnswer(t, bufio.NewReader(conn))
	if resp.StatusCode != 400 || !strings.Contains(body, "speaks TLS") {
		t.Errorf("status %d: %s", resp.StatusCode, body)
	}
	expectProtected(t, "HTTP on a TLS port", resp, body)
}

// No text of a problem says what the gateway is made of.
func TestProblemTextsTellNothing(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	texts := 0
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		tree, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(tree, func(n ast.Node) bool {
			kv, ok := n.(*ast.KeyValueExpr)
			if !ok {
				return true
			}
			key, _ := kv.Key.(*ast.Ident)
			text, _ := kv.Value.(*ast.BasicLit)
			if key != nil && text != nil && (key.Name == "en" || key.Name == "zh") {
				texts++
				if tell := telling().FindString(text.Value); tell != "" {
					t.Errorf("%s: %s tells %q", file, text.Value, tell)
				}
			}
			return true
		})
	}
	if texts < 40 {
		t.Errorf("only %d texts were found", texts)
	}
}

// HSTS is said over TLS alone, where the listener asks for it: with every answer,
// and once, whatever the node says.
func TestHSTS(t *testing.T) {
	node := httpNode(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header()["strict-transport-security"] = []string{"max-age=1"}
		io.WriteString(w, "node")
	})
	for _, c := range []struct {
		age  time.Duration
		want []string // over TLS: the gateway's own answers, the node's
	}{
		{180 * 24 * time.Hour, []string{"max-age=15552000", "max-age=15552000"}},
		{0, []string{"", "max-age=1"}},
	} {
		e := startEdge(t, []Route{{Paths: []string{"/app"}, Service: "app"}, {Paths: []string{"/_check"}, Page: "check"}},
			map[string]map[string]string{"app": {"a": node}}, func(cfg *Config) { cfg.Listeners[1].HSTS = c.age })
		for path, want := range map[string]string{"/nowhere": c.want[0], "/_check/": c.want[0], "/_check": c.want[0], "/app/x": c.want[1]} {
			for _, base := range []string{"https://" + strings.Replace(e.secure, "127.0.0.1", "localhost", 1), "http://" + e.plain} {
				resp, err := e.client().Get(base + path)
				if err != nil {
					t.Fatal(err)
				}
				resp.Body.Close()
				got := strings.Join(resp.Header.Values("Strict-Transport-Security"), " and ")
				if base[4] == ':' { // plain: what a node says there is the node's
					if path != "/app/x" && got != "" {
						t.Errorf("%s over HTTP: %q", path, got)
					}
					continue
				}
				if got != want {
					t.Errorf("%s with %v: %q, want %q", path, c.age, got, want)
				}
			}
		}
		conn := e.dialTLS()
		io.WriteString(conn, "GET /\r\n\r\n")
		if resp, _ := readAnswer(t, bufio.NewReader(conn)); resp.Header.Get("Strict-Transport-Security") != c.want[0] {
			t.Errorf("with %v a head that is none gets %q", c.age, resp.Header.Get("Strict-Transport-Security"))
		}
	}
}
