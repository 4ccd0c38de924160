package gateway

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/gobwas/ws"
)

// Uploads meet no connection that their node has ended: none is lost, none comes
// twice, however the node ends its connections.
func TestUploadsMeetNoEndedConnection(t *testing.T) {
	for name, end := range map[string]func(net.Conn){
		"closes": func(net.Conn) {},
		"resets": func(c net.Conn) { c.(*net.TCPConn).SetLinger(0) },
	} {
		t.Run(name, func(t *testing.T) {
			var arrived atomic.Int64
			ended := make(chan struct{}, 1)
			e := appRoute(t, rawNode(t, func(c net.Conn) {
				req, err := http.ReadRequest(bufio.NewReader(c))
				if err != nil {
					return
				}
				body, _ := io.ReadAll(req.Body)
				arrived.Add(1)
				fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
				end(c)
				c.Close()
				ended <- struct{}{}
			}))
			requests := []string{
				post("Content-Length: 5", "hello"), post("Transfer-Encoding: chunked", "5\r\nhello\r\n0\r\n\r\n"),
				post("Content-Length: 100000", strings.Repeat("x", 100000)),
			}
			const each = 10
			eachWire(t, func(t *testing.T, secure bool) {
				for i := range each * len(requests) {
					conn := e.dialAny(secure)
					io.WriteString(conn, requests[i%len(requests)])
					resp, body := readAnswer(t, bufio.NewReader(conn))
					if resp.StatusCode != 200 || len(body) != 5 && len(body) != 100000 {
						t.Errorf("request %d: got %d, %d bytes", i, resp.StatusCode, len(body))
					}
					await(t, "the node has ended the connection", ended)
				}
			})
			if n := arrived.Load(); n != 2*each*int64(len(requests)) {
				t.Errorf("%d requests arrived", n)
			}
		})
	}
}

// A handshake behind other requests of one write becomes a tunnel, and the frames
// behind it its first bytes, none of which is taken for a request.
func TestUpgradeBehindPipelinedRequests(t *testing.T) {
	e := appRoute(t, rawNode(t, func(c net.Conn) {
		br := bufio.NewReader(c)
		for {
			head := readHead(br)
			switch {
			case !strings.HasSuffix(head, "\r\n\r\n"):
				return
			case headerIn(head, "Upgrade") == "":
				readFramed(br, head)
				io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
			default:
				io.WriteString(c, switching(head))
				frame, err := ws.ReadFrame(br)
				if err == nil {
					ws.WriteFrame(c, ws.NewTextFrame(ws.UnmaskFrame(frame).Payload))
				}
				io.Copy(io.Discard, br)
				return
			}
		}
	}))
	handshake := get("Host: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")
	frame, err := ws.CompileFrame(ws.MaskFrame(ws.NewTextFrame([]byte(hidden))))
	if err != nil {
		t.Fatal(err)
	}
	eachWire(t, func(t *testing.T, secure bool) {
		conn := e.dialAny(secure)
		io.WriteString(conn, get("Host: h")+post("Content-Length: 5", "hello")+handshake+string(frame))
		br := bufio.NewReader(conn)
		for range 2 {
			if resp, body := readAnswer(t, br); resp.StatusCode != 200 || body != "ok" {
				t.Fatalf("got %d %s", resp.StatusCode, body)
			}
		}
		if head := readHead(br); !strings.HasPrefix(head, "HTTP/1.1 101 ") {
			t.Fatalf("got %q", head)
		}
		echo, err := ws.ReadFrame(br)
		if err != nil || string(echo.Payload) != hidden {
			t.Errorf("got %q, %v", echo.Payload, err)
		}
	})
}
