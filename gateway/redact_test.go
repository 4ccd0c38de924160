package gateway

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

func TestRedactor(t *testing.T) {
	r := newRedactor(Redact{Query: []string{"Sid", "auth"}, Paths: []string{"/ws/{session}/*", "/x/{a}/y/{b}"}})
	cases := []struct{ path, query, want string }{
		{"/a", "", "/a"},
		{"/a", "?", "/a?"},
		{"/a", "?b=c&d", "/a?b=c&d"},
		{"/a", "?token=S", "/a?token=[redacted]"},
		{"/a", "?token=", "/a?token=[redacted]"},
		{"/a", "?token", "/a?token"},
		{"/a", "?TOKEN=S&b=c", "/a?TOKEN=[redacted]&b=c"},
		{"/a", "?b=c&token=S;session_key=S&access_token=S", "/a?b=c&token=[redacted];session_key=[redacted]&access_token=[redacted]"},
		{"/a", "?%74oken=S", "/a?%74oken=[redacted]"},
		{"/a", "?%54%4f%4B%45%4e=S", "/a?%54%4f%4B%45%4e=[redacted]"},
		{"/a", "?tok%zzen=c", "/a?tok%zzen=c"},
		{"/a", "?token=S=S==", "/a?token=[redacted]"},
		{"/a", "?token=?S?token=S", "/a?token=[redacted]"},
		{"/a", "?&&;;token=S&", "/a?&&;;token=[redacted]&"},
		{"/a", "?sid=S&AUTH=S&mytoken=c", "/a?sid=[redacted]&AUTH=[redacted]&mytoken=c"},
		{"/ws/S", "", "/ws/[redacted]"},
		{"/ws/S/u", "", "/ws/[redacted]/u"},
		{"/ws/S/u/deep", "?token=S", "/ws/[redacted]/u/deep?token=[redacted]"},
		{"/ws/S/", "", "/ws/[redacted]/"},
		{"/wsx/y/u", "", "/wsx/y/u"},
		{"/x/S/y/S/z", "", "/x/[redacted]/y/[redacted]/z"},
		{"/x/S", "", "/x/[redacted]"}, // nothing shows because something behind it is missing
		{"/x/S/z/S", "", "/x/S/z/S"},
		{"/", "", "/"},
	}
	for _, c := range cases {
		if got := r.target(c.path, c.query); got != c.want {
			t.Errorf("%s%s: got %s, want %s", c.path, c.query, got, c.want)
		}
	}
}

func FuzzRedactor(f *testing.F) {
	f.Add("", "", "", uint16(0), false)
	f.Add("a=b", "&c=d", "/u", uint16(5), true)
	f.Add("%zz", "=;&?", "//..", uint16(31), false)
	f.Add("token", "%", "/[redacted]", uint16(2), true)
	const secret = "Zq9Secret"
	r := newRedactor(Redact{Query: []string{"sid"}, Paths: []string{"/ws/{session}/*", "/*/{x}"}})
	f.Fuzz(func(t *testing.T, before, after, below string, encode uint16, semicolon bool) {
		if strings.Contains(before+after+below, secret) {
			return
		}
		name := ""
		for i, c := range []byte("session_key") {
			if encode>>i&1 == 1 {
				name += fmt.Sprintf("%%%02x", c)
			} else {
				name += string(c)
			}
		}
		separator := "&"
		if semicolon {
			separator = ";"
		}
		got := r.target("/ws/"+secret+"/"+below, "?"+before+separator+name+"="+secret+after)
		if strings.Contains(got, secret) {
			t.Errorf("got %q", got)
		}
		r.target(before, after) // what is no target at all must not panic either
	})
}

// Whatever becomes of a request: nothing that it carries as a secret is logged.
func TestSecretsAreNeverLogged(t *testing.T) {
	const secret = "Zq9Secret"
	good := httpNode(t, echoTarget)
	echo := rawNode(t, func(c net.Conn) { // what a mistyped port may lead to
		head := readHead(bufio.NewReader(c))
		io.WriteString(c, head)
	})
	echoInHead := rawNode(t, func(c net.Conn) {
		io.WriteString(c, "HTTP/1.1 200 OK\r\nX-A: b\r\n"+readHead(bufio.NewReader(c)))
	})
	echoInBody := rawNode(t, func(c net.Conn) {
		io.WriteString(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"+readHead(bufio.NewReader(c)))
	})
	e := startEdge(t, []Route{
		{Paths: []string{"/good"}, Service: "good"}, {Paths: []string{"/echo"}, Service: "echo"}, {Paths: []string{"/head"}, Service: "head"},
		{Paths: []string{"/body"}, Service: "body"}, {Paths: []string{"/down/{node}"}, Service: "down"}, {Paths: []string{"/ws"}, Service: "good"},
		{Paths: []string{"/moved"}, Redirect: "https"}, {Paths: []string{"/page"}, Page: "check"},
	}, map[string]map[string]string{"good": {"a": good}, "echo": {"a": echo}, "head": {"a": echoInHead}, "body": {"a": echoInBody}, "down": {"a": refusedAddr(t)}},
		func(c *Config) {
			c.Redact = Redact{Paths: []string{"/ws/{session}/*"}}
			c.Limits.HeadTimeout = 50 * time.Millisecond
		})
	request := func(target string, headers ...string) string {
		return "GET " + target + " HTTP/1.1\r\nHost: h\r\nConnection: close\r\nAuthorization: Bearer " + secret + "\r\nCookie: s=" + secret + "\r\n" + strings.Join(append(headers, ""), "\r\n") + "\r\n"
	}
	const query = "?token=" + secret + "&%74oken=" + secret + ";session_key=" + secret
	var requests []string
	for _, path := range []string{"/good", "/echo", "/head", "/body", "/down/a", "/down/b", "/nowhere", "/moved", "/page", "/page/x", "/ws/" + secret, "/ws/" + secret + "/u", "/ws/%5a%71" + secret[2:] + "/u"} {
		requests = append(requests, request(path+query))
	}
	requests = append(requests,
		request("/good"+query+" "+secret),                                                 // a space: the rest is taken for the version
		request("good"+query),                                                             // no path
		request("/good"+query+"#"+secret),                                                 // a fragment
		request("/%zz"+query),                                                             // a broken path
		request("/..;/"+query),                                                            // a hidden dot segment
		request("/good"+query, "X-A: "+secret+"\x00"),                                     // a bad header value
		request("/good"+query, "X-\x01"+secret+": a"),                                     // a bad header name
		request("/good"+query, secret),                                                    // no colon
		request("/good"+query, "Content-Length: "+secret),                                 // a bad length
		request("/good"+query, "Transfer-Encoding: "+secret),                              // a bad encoding
		request("/good"+query, "Host: "+secret),                                           // two hosts
		request("/good"+query, "Expect: "+secret),                                         // 417
		request("/good"+query, "X-A: "+strings.Repeat("x", 20<<10)),                       // 431
		request("/good"+query, "Upgrade: websocket", "Sec-WebSocket-Key: "+secret),        // no handshake
		request("/good"+query, "Transfer-Encoding: chunked", "", secret+"\r\n"+secret),    // a broken body
		"GET /good"+query+" HTTP/1.1\r\nAuthorization: "+secret,                           // 408
		"POST /good"+query+" HTTP/1.1\r\nHost: h\r\nContent-Length: 90000\r\n\r\n"+secret, // a truncated body
		"GET /good"+query+" HTTP/1.1\n\n",
		secret+"\x01\r\n\r\n",
	)
	for _, r := range requests {
		eachWire(t, func(t *testing.T, secure bool) {
			conn := e.dialAny(secure)
			io.WriteString(conn, r)
			if strings.HasPrefix(r, "POST") {
				closeWrite(t, conn)
			}
			io.Copy(io.Discard, conn)
		})
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	e.Shutdown(ctx) // from here on nothing more is logged
	lines := strings.Split(e.logs.all(), "\n")
	for _, line := range lines {
		if strings.Contains(line, secret) {
			t.Errorf("logged: %s", line)
		}
	}
	if len(lines) < 2*len(requests) {
		t.Errorf("%d lines for %d requests", len(lines), 2*len(requests))
	}
}
