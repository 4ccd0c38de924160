package gateway

import (
	"bufio"
	"io"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
)

func trusting(prefixes ...string) func(*Config) {
	return func(c *Config) {
		for _, p := range prefixes {
			c.TrustedProxies = append(c.TrustedProxies, netip.MustParsePrefix(p))
		}
	}
}

// Headers reach the node as often and as spelt as the client sent them.
func TestRequestHeadersPassUnchanged(t *testing.T) {
	e, node := appEdge(t)
	e.answerTo(get(strings.Join([]string{
		"Host: h", "p: web", "cid: 1", "UID: 2", "appKey: k", "X-Multi: one", "X-Multi: two", "x-multi: three", "Cookie: a=b", "Cookie: c=d",
		"Accept-Encoding: gzip", "User-Agent: WeChat/8", "content-type: text/plain", "Authorization: Bearer t", "X-Empty:", "X-Spaced:   a  b  ", "X-Latin: caf\xe9", "Range: bytes=0-1",
	}, "\r\n")))
	r := node.only(t)
	for name, want := range map[string][]string{
		"p": {"web"}, "cid": {"1"}, "UID": {"2"}, "appKey": {"k"}, "X-Multi": {"one", "two"}, "x-multi": {"three"}, "Cookie": {"a=b", "c=d"},
		"Accept-Encoding": {"gzip"}, "User-Agent": {"WeChat/8"}, "content-type": {"text/plain"}, "Authorization": {"Bearer t"},
		"X-Empty": {""}, "X-Spaced": {"a  b"}, "X-Latin": {"caf\xe9"}, "Range": {"bytes=0-1"}, "Content-Type": nil,
	} {
		if got := r.values(name); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q in\n%s", name, got, want, r.head)
		}
	}
}

// Nothing is invented for a client that sends next to nothing.
func TestNoHeadersAreInvented(t *testing.T) {
	e, node := appEdge(t)
	e.answerTo(get("Host: h"))
	for line := range strings.SplitSeq(strings.TrimSpace(node.only(t).head), "\r\n") {
		name, _, _ := strings.Cut(line, ":")
		if !slices.Contains([]string{"GET /app/a HTTP/1.1", "Host", "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "X-Real-IP", "Forwarded", "X-Request-Id", "CDN-Loop"}, name) {
			t.Errorf("the node got %q", line)
		}
	}
}

func TestHopByHopHeadersOfRequestsEndHere(t *testing.T) {
	e, node := appEdge(t)
	e.answerTo(get(strings.Join([]string{
		"Host: h", "Connection: X-Secret, keep-alive", "connection: x-other", "X-Secret: s", "x-Other: o", "Keep-Alive: timeout=5", "Proxy-Connection: keep-alive",
		"TE: trailers", "Trailer: X-T", "Upgrade: h2c", "Proxy-Authorization: Basic x", "Proxy-Authenticate: Basic", "X-Kept: k",
	}, "\r\n")))
	r := node.only(t)
	for line := range strings.SplitSeq(strings.ToLower(r.head), "\r\n") {
		name, _, _ := strings.Cut(line, ":")
		switch name {
		case "connection", "x-secret", "x-other", "keep-alive", "proxy-connection", "te", "trailer", "upgrade", "proxy-authorization", "proxy-authenticate":
			t.Errorf("the node got %q", line)
		}
	}
	if r.values("X-Kept") == nil {
		t.Error("X-Kept was lost")
	}
}

// Connection cannot take away what the gateway sets.
func TestConnectionCannotRemoveWhatTheGatewaySets(t *testing.T) {
	e, node := appEdge(t)
	e.answerTo(post("Connection: X-Forwarded-For, X-Forwarded-Proto, X-Forwarded-Host, X-Real-IP, Forwarded, X-Request-Id, Host, Content-Length, Transfer-Encoding\r\nContent-Length: 5", "hello"))
	r := node.only(t)
	for name, want := range map[string]string{
		"Host": "h", "X-Forwarded-For": "127.0.0.1", "X-Forwarded-Proto": "http", "X-Forwarded-Host": "h", "X-Real-IP": "127.0.0.1",
		"Forwarded": `for=127.0.0.1;host="h";proto=http`, "Content-Length": "5",
	} {
		if got := r.values(name); !slices.Equal(got, []string{want}) {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if r.body != "hello" || len(r.values("X-Request-Id")) != 1 {
		t.Errorf("the node got %+v", r)
	}
}

const forged = "X-Forwarded-For: 6.6.6.6\r\nx-forwarded-for: 6.6.6.7\r\nX-Forwarded-Proto: gopher\r\nX-FORWARDED-HOST: evil\r\nX-Forwarded-Port: evil\r\n" +
	"X-Forwarded-Prefix: /evil\r\nX-Real-IP: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\nX-Request-Id: evil"

// What only a proxy may say counts for nothing from anyone else.
func TestForgedHeadersAreDropped(t *testing.T) {
	for _, tune := range []func(*Config){trusting(), trusting("10.0.0.0/8", "::/0")} {
		e, node := appEdge(t, tune)
		e.answerTo(get("Host: h\r\n" + forged))
		r := node.only(t)
		if s := r.head; strings.Contains(s, "6.6.6") || strings.Contains(s, "evil") || strings.Contains(s, "gopher") {
			t.Errorf("the node got %q", s)
		}
		if got := r.values("X-Forwarded-For"); !slices.Equal(got, []string{"127.0.0.1"}) {
			t.Errorf("X-Forwarded-For: %q", got)
		}
		if line := e.logs.wait(t, `"kind":"request"`); !strings.Contains(line, `"client":"127.0.0.1"`) {
			t.Errorf("logged: %s", line)
		}
	}
}

// What a trusted proxy says is kept and added to.
func TestTrustedProxy(t *testing.T) {
	cases := []struct {
		name, headers string
		want          map[string]string
		client        string
	}{
		{"chain", "X-Forwarded-For: 6.6.6.6, 8.8.8.8\r\nx-forwarded-for: 10.0.0.1\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: im.example.gov\r\nX-Forwarded-Port: 443\r\nForwarded: for=8.8.8.8\r\nX-Request-ID: from-proxy.1",
			map[string]string{
				"X-Forwarded-For": "6.6.6.6, 8.8.8.8, 10.0.0.1, 127.0.0.1", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "im.example.gov", "X-Forwarded-Port": "443",
				"Forwarded": `for=8.8.8.8, for=127.0.0.1;host="h";proto=http`, "X-Real-IP": "8.8.8.8", "X-Request-Id": "from-proxy.1",
			}, "8.8.8.8"},
		{"no word", "X-A: b", map[string]string{"X-Forwarded-For": "127.0.0.1", "X-Real-IP": "127.0.0.1", "X-Forwarded-Proto": "http", "X-Forwarded-Host": "h"}, "127.0.0.1"},
		{"only proxies", "X-Forwarded-For: 10.0.0.1, 10.0.0.2", map[string]string{"X-Real-IP": "10.0.0.1"}, "10.0.0.1"},
		{"garbage before", "X-Forwarded-For: <script>, 8.8.8.8, 10.0.0.1", map[string]string{"X-Real-IP": "8.8.8.8"}, "8.8.8.8"},
		{"garbage at the end", "X-Forwarded-For: 8.8.8.8, unknown", map[string]string{"X-Real-IP": "127.0.0.1"}, "127.0.0.1"},
		{"mapped address", "X-Forwarded-For: ::ffff:8.8.8.8", map[string]string{"X-Real-IP": "8.8.8.8"}, "8.8.8.8"},
		{"IPv6", "X-Forwarded-For: 2001:db8::1", map[string]string{"X-Real-IP": "2001:db8::1"}, "2001:db8::1"},
	}
	e, node := appEdge(t, trusting("127.0.0.0/8", "10.0.0.0/8"))
	for i, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			e.answerTo("GET /app/" + strconv.Itoa(i) + " HTTP/1.1\r\nHost: h\r\n" + c.headers + "\r\n\r\n")
			r := node.only(t)
			for name, want := range c.want {
				if got := r.values(name); !slices.Equal(got, []string{want}) {
					t.Errorf("%s: %q, want %q", name, got, want)
				}
			}
			e.logs.wait(t, `"client":"`+c.client+`"`, `"path":"/app/`+strconv.Itoa(i)+`"`)
		})
	}
}

// A name with underscores is another name to the gateway and the same name to
// many servers behind it; so it passes from nobody.
func TestUnderscoreLookAlikesAreDropped(t *testing.T) {
	lookAlikes := []string{
		"X_Forwarded_For: 6", "X-Forwarded_For: 6", "x_forwarded_proto: 6", "X_Forwarded_Port: 6", "X_Real_IP: 6", "Content_Length: 6", "Transfer_Encoding: chunked",
		"X_Request_Id: 6", "Proxy_Authorization: 6", "Proxy_Connection: 6", "Keep_Alive: 6",
	}
	for _, tune := range []func(*Config){trusting(), trusting("127.0.0.0/8")} {
		e, node := appEdge(t, tune)
		e.answerTo(post(strings.Join(lookAlikes, "\r\n")+"\r\nsession_id: kept\r\nContent-Length: 5", "hello"))
		r := node.only(t)
		for _, l := range lookAlikes {
			if name, _, _ := strings.Cut(l, ":"); r.values(name) != nil {
				t.Errorf("%s reached the node", name)
			}
		}
		if r.values("session_id") == nil || r.body != "hello" {
			t.Errorf("the node got %+v", r)
		}
	}
}

func TestForwardedProtoFollowsTheListener(t *testing.T) {
	e, node := appEdge(t)
	conn := e.dialTLS()
	io.WriteString(conn, get("Host: im.example.gov"))
	readAnswer(t, bufio.NewReader(conn))
	r := node.only(t)
	if got := r.values("X-Forwarded-Proto"); !slices.Equal(got, []string{"https"}) {
		t.Errorf("X-Forwarded-Proto: %q", got)
	}
	if got := r.values("Forwarded"); !slices.Equal(got, []string{`for=` + forwardedFor(conn) + `;host="im.example.gov";proto=https`}) {
		t.Errorf("Forwarded: %q", got)
	}
}

// forwardedFor is how RFC 7239 writes this end of a connection.
func forwardedFor(c net.Conn) string {
	a := addrPort(c.LocalAddr()).Addr()
	if a.Is6() {
		return `"[` + a.String() + `]"`
	}
	return a.String()
}

// A client of HTTP/1.0 may name no host: then none is made up for it.
func TestForwardedWithoutHost(t *testing.T) {
	e, node := appEdge(t)
	e.raw("GET /app/a HTTP/1.0\r\n\r\n")
	r := node.only(t)
	if got := r.values("Forwarded"); !slices.Equal(got, []string{"for=127.0.0.1;proto=http"}) {
		t.Errorf("Forwarded: %q", got)
	}
	if got := r.values("X-Forwarded-Host"); got != nil {
		t.Errorf("X-Forwarded-Host: %q", got)
	}
}

// Answers: what concerns the node's connection ends here, the rest passes.
func TestAnswerHeaders(t *testing.T) {
	e := appRoute(t, rawNode(t, func(c net.Conn) {
		readHead(bufio.NewReader(c))
		io.WriteString(c, strings.Join([]string{
			"HTTP/1.1 200 OK", "Set-Cookie: a=1; Path=/", "Set-Cookie: a=1; Path=/x", "Set-Cookie: b=2; HttpOnly", "Set-Cookie: odd", "Server: IM/1.0", "Content-Type: application/x-im",
			"Connection: X-Secret", "X-Secret: s", "Keep-Alive: timeout=5", "Proxy-Connection: close", "Upgrade: h2c", "Trailer: X-T", "Proxy-Authenticate: Basic",
			"Access-Control-Allow-Origin: *", "X-Multi: one", "X-Multi: two", "Content-Encoding: br", "WWW-Authenticate: Basic", "WWW-Authenticate: Digest", "Vary: Origin", "X-Latin: caf\xe9", "Content-Length: 2",
		}, "\r\n")+"\r\n\r\nok")
	}))
	for _, version := range []string{"1.0", "1.1"} {
		conn := e.dial()
		io.WriteString(conn, "GET /app/a HTTP/"+version+"\r\nHost: h\r\nConnection: close\r\n\r\n")
		answer, _ := awaitEnd(t, conn)
		r := recorded{head: answer}
		for name, want := range map[string][]string{
			"Set-Cookie": {"a=1; Path=/", "a=1; Path=/x", "b=2; HttpOnly", "odd"}, "Server": {"IM/1.0"}, "Content-Type": {"application/x-im"},
			"Access-Control-Allow-Origin": {"*"}, "X-Multi": {"one", "two"}, "Content-Encoding": {"br"}, "Www-Authenticate": {"Basic", "Digest"},
			"Vary": {"Origin"}, "X-Latin": {"caf\xe9"}, "Content-Length": {"2"}, "Connection": {"close"},
			"X-Secret": nil, "Keep-Alive": nil, "Proxy-Connection": nil, "Upgrade": nil, "Trailer": nil, "Proxy-Authenticate": nil, "Transfer-Encoding": nil,
		} {
			if got := r.values(name); !slices.Equal(got, want) {
				t.Errorf("HTTP/%s: %s: %q, want %q", version, name, got, want)
			}
		}
	}
}
