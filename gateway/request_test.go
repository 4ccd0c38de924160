package gateway

import (
	"bufio"
	"strings"
	"testing"

	"github.com/valyala/fasthttp"
)

// Whatever arrives as a request head: it is refused, or everything that the
// rest of the gateway relies on holds.
func FuzzRequestHead(f *testing.F) {
	f.Add(handshake("/ws/node1"))
	f.Add(handshake("/ws/%6eode1?token=x", "Sec-WebSocket-Protocol: a, b", "Connection: Host"))
	f.Add("GET http://x/ HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 1.2.3.4, ::1\r\n\r\n")
	f.Add("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n")
	f.Add("GET / HTTP/1.0\r\nA: b\r\n c\r\n\r\n")
	f.Fuzz(func(t *testing.T, head string) {
		var ctx fasthttp.RequestCtx
		ctx.Request.Header.DisableNormalizing()
		if ctx.Request.Header.Read(bufio.NewReaderSize(strings.NewReader(head), 16<<10)) != nil {
			return
		}
		r := &request{ctx: &ctx, conn: &clientConn{}, listener: &listenerSettings{}, method: string(ctx.Method()), match: match{route: &route{}}, state: &state{cfg: &Config{}}, server: &Server{loopID: newLoopID()}}
		if r.parse() != nil {
			return
		}
		if again, err := canonicalPath(r.path); err != nil || again != r.path {
			t.Fatalf("path %q is not canonical", r.path)
		}
		if strings.ContainsAny(r.query, " \r\n\x00") {
			t.Fatalf("query %q", r.query)
		}
		if !r.websocket || r.checkHandshake() != nil {
			return
		}
		sent := string(r.handshakeHead(r.path+r.query, testKey))
		if strings.Count(sent, "\r\n\r\n") != 1 || !strings.HasSuffix(sent, "\r\n\r\n") {
			t.Fatalf("the head for the node is more than one head: %q", sent)
		}
		for _, name := range []string{"\r\nHost:", "\r\nUpgrade:", "\r\nSec-WebSocket-Key:", "\r\nX-Forwarded-For:", "\r\nContent-Length:", "\r\nTransfer-Encoding:"} {
			if n := strings.Count(strings.ToLower(sent), strings.ToLower(name)); n > 1 || n == 1 && strings.Contains(name, "Length") || n == 1 && strings.Contains(name, "Encoding") {
				t.Fatalf("%d times %q in %q", n, name, sent)
			}
		}
	})
}
