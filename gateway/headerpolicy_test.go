package gateway

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"singlegate/upstream"
)

func editing() Policies {
	return Policies{
		RequestHeaders: HeaderEdits{
			Set:    []Header{{"Host", "app.internal:8080"}, {"X-Key", "of the gateway"}, {"User-Agent", "edge"}},
			Remove: []string{"Cookie", "Accept-Encoding"},
		},
		ResponseHeaders: HeaderEdits{
			Set:    []Header{{"X-Frame-Options", "DENY"}, {"content-type", "text/x-own"}, {"Vary", "X-Own"}},
			Remove: []string{"server", "x-powered-by"},
		},
	}
}

// The node gets what the route sets and not what it removes, in requests and
// handshakes alike; clients cannot say it in another spelling.
func TestRequestHeaders(t *testing.T) {
	t.Parallel()
	node := startRecorder(t, "app1")
	e := startEdge(t, []Route{{Paths: []string{"/app"}, Service: "app", Policies: editing()}},
		map[string]map[string]string{"app": {"app1": node.addr}})
	const own = "Host: im.example.gov\r\nx-key: forged\r\nX-KEY: forged\r\ncookie: a=b\r\nCookie: c=d\r\naccept-encoding: br\r\nX-Kept: 1\r\nuser-agent: browser\r\n"
	const handshake = "Upgrade: websocket\r\nConnection: Upgrade, X-Key\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
	for _, rest := range []string{"Connection: close, X-Key\r\n", handshake} {
		eachWire(t, func(t *testing.T, secure bool) {
			conn := e.dialAny(secure)
			io.WriteString(conn, "GET /app HTTP/1.1\r\n"+own+rest+"\r\n")
			if _, _, err := answersOn(conn, 1); err != nil {
				t.Fatal(err)
			}
			got := node.only(t)
			for name, want := range map[string]string{
				"Host": "app.internal:8080", "X-Key": "of the gateway", "User-Agent": "edge", "X-Kept": "1", "X-Forwarded-Host": "im.example.gov",
			} {
				if values := got.values(name); !slices.Equal(values, []string{want}) {
					t.Errorf("%s: %q, want %q", name, values, want)
				}
			}
			for _, gone := range []string{"forged", "cookie", "accept-encoding", "browser"} {
				if strings.Contains(strings.ToLower(got.head), gone) {
					t.Errorf("%q reached the node:\n%s", gone, got.head)
				}
			}
			if n := strings.Count(strings.ToLower(got.head), "\r\nhost:"); n != 1 {
				t.Errorf("%d Host headers:\n%s", n, got.head)
			}
		})
	}
}

// Clients get what the route sets and not what it removes, whoever answers.
func TestResponseHeaders(t *testing.T) {
	t.Parallel()
	site := t.TempDir()
	if err := os.WriteFile(filepath.Join(site, "a.txt"), []byte("a"), 0o600); err != nil {
		t.Fatal(err)
	}
	node := httpNode(t, func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h["Server"], h["X-Powered-By"], h["x-frame-options"] = []string{"secret/1.2"}, []string{"a", "b"}, []string{"SAMEORIGIN", "ALLOW"}
		h["Vary"] = []string{"Accept", "Cookie"}
		h.Set("X-Kept", "1")
		h.Add("Set-Cookie", "a=b")
		h.Add("Set-Cookie", "c=d")
		io.WriteString(w, "node")
	})
	withCORS := editing()
	withCORS.CORS = &CORS{Origins: []string{webPage}}
	refusing := editing()
	refusing.Deny = prefixes("0.0.0.0/0", "::/0")
	e := startEdge(t, []Route{
		{Paths: []string{"/app"}, Service: "app", Policies: editing()},
		{Paths: []string{"/cors"}, Service: "app", Policies: withCORS},
		{Paths: []string{"/site"}, Static: site, Policies: editing()},
		{Paths: []string{"/denied"}, Policies: refusing},
		{Paths: []string{"/away"}, Redirect: "https://other.example.gov/", Policies: editing()},
	}, map[string]map[string]string{"app": {"app1": node}})
	for _, c := range []struct {
		target string
		status int
		vary   string
	}{
		{"/app", 200, "X-Own"}, {"/app HTTP/1.0", 200, "X-Own"}, {"/cors", 200, "X-Own, Origin"},
		{"/site/a.txt", 200, "X-Own"}, {"/site/b.txt", 404, "X-Own"}, {"/denied", 403, "X-Own"}, {"/away", 301, "X-Own"},
	} {
		if !strings.Contains(c.target, " ") {
			c.target += " HTTP/1.1"
		}
		eachWire(t, func(t *testing.T, secure bool) {
			conn := e.dialAny(secure)
			io.WriteString(conn, "GET "+c.target+"\r\nHost: h\r\nConnection: close\r\n\r\n")
			answers, _, err := answersOn(conn, 1)
			if err != nil || len(answers) != 1 || answers[0].StatusCode != c.status {
				t.Fatalf("%s: %v, %v", c.target, answers, err)
			}
			h := answers[0].Header
			for name, want := range map[string]string{"X-Frame-Options": "DENY", "Content-Type": "text/x-own", "Vary": c.vary} {
				if got := h.Values(name); !slices.Equal(got, []string{want}) {
					t.Errorf("%s: %s is %q, want %q", c.target, name, got, want)
				}
			}
			if len(h["Server"])+len(h["X-Powered-By"]) > 0 {
				t.Errorf("%s: %v", c.target, h)
			}
			if strings.HasPrefix(c.target, "/app") && (len(h["Set-Cookie"]) != 2 || h.Get("X-Kept") != "1") {
				t.Errorf("%s: %v", c.target, h)
			}
		})
	}
}

// A 101 has them too, beside what the handshake is made of.
func TestResponseHeadersOfHandshake(t *testing.T) {
	t.Parallel()
	node := rawNode(t, func(c net.Conn) {
		head := readHead(bufio.NewReader(c))
		_, after, _ := strings.Cut(head, "Sec-WebSocket-Key: ")
		key, _, _ := strings.Cut(after, "\r\n")
		io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nServer: secret/1.2\r\nSec-WebSocket-Accept: "+
			upstream.AcceptFor(key)+"\r\n\r\n")
		io.Copy(io.Discard, c)
	})
	e := startEdge(t, []Route{{Paths: []string{"/ws"}, Service: "app", Policies: editing()}}, map[string]map[string]string{"app": {"app1": node}})
	conn := e.dial()
	io.WriteString(conn, "GET /ws HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil || resp.StatusCode != 101 {
		t.Fatal(resp, err)
	}
	if resp.Header.Get("Server") != "" || resp.Header.Get("X-Frame-Options") != "DENY" || resp.Header.Get("Sec-WebSocket-Accept") == "" {
		t.Errorf("%v", resp.Header)
	}
}

func TestHeaderOwners(t *testing.T) {
	for _, name := range []string{"Connection", "keep-alive", "TE", "Trailer", "Transfer-Encoding", "Upgrade", "Content-Length", "content_length", "Expect",
		"X-Forwarded-For", "x_forwarded_proto", "X-Forwarded-Anything", "X-Real-IP", "Forwarded", "X-Request-Id", "CDN-Loop", "Sec-WebSocket-Key"} {
		if RequestHeaderOwner(name) == "" {
			t.Errorf("request_headers may change %s", name)
		}
	}
	for _, name := range []string{"Connection", "Transfer-Encoding", "Content-Length", "Date", "Sec-WebSocket-Accept", "Upgrade", "Trailer"} {
		if ResponseHeaderOwner(name) == "" {
			t.Errorf("response_headers may change %s", name)
		}
	}
	for _, name := range []string{"Host", "Cookie", "Authorization", "X-Anything", "Accept-Encoding"} {
		if why := RequestHeaderOwner(name); why != "" {
			t.Errorf("%s: %s", name, why)
		}
	}
}
