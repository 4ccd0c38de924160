package gateway

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"singlegate/upstream"
)

const testKey = "dGhlIHNhbXBsZSBub25jZQ=="

// handshake is a WebSocket handshake as a client sends it.
func handshake(path string, headers ...string) string {
	return "GET " + path + " HTTP/1.1\r\nHost: im.example.gov\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + testKey + "\r\n" + strings.Join(append(headers, ""), "\r\n") + "\r\n"
}

// A wsConn is a client's end of a tunnel.
type wsConn struct {
	net.Conn
	br *bufio.Reader
	t  *testing.T
}

// open makes a handshake and fails the test unless it succeeds.
func open(t *testing.T, c net.Conn, request string) (*wsConn, *http.Response) {
	t.Helper()
	io.WriteString(c, request)
	br := bufio.NewReader(c)
	resp, err := http.ReadResponse(br, nil)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != 101 {
		body, _ := io.ReadAll(resp.Body)
		t.Fatalf("handshake answered %s: %s", resp.Status, body)
	}
	return &wsConn{c, br, t}, resp
}

func (c *wsConn) send(op ws.OpCode, payload string) {
	c.t.Helper()
	if _, err := c.Write(clientFrame(op, payload)); err != nil {
		c.t.Fatal(err)
	}
}

func clientFrame(op ws.OpCode, payload string) []byte {
	b, err := ws.CompileFrame(ws.MaskFrame(ws.NewFrame(op, true, []byte(payload))))
	if err != nil {
		panic(err)
	}
	return b
}

func serverFrame(op ws.OpCode, payload string) []byte {
	b, err := ws.CompileFrame(ws.NewFrame(op, true, []byte(payload)))
	if err != nil {
		panic(err)
	}
	return b
}

// next reads one frame.
func (c *wsConn) next() ws.Frame {
	c.t.Helper()
	f, err := ws.ReadFrame(c.br)
	if err != nil {
		c.t.Fatalf("reading a frame: %v", err)
	}
	return ws.UnmaskFrameInPlace(f)
}

func (c *wsConn) expect(op ws.OpCode, payload string) {
	c.t.Helper()
	if f := c.next(); f.Header.OpCode != op || string(f.Payload) != payload {
		c.t.Fatalf("got frame %x %q, want %x %q", f.Header.OpCode, f.Payload, op, payload)
	}
}

func (c *wsConn) expectClose(code int, reason string) {
	c.t.Helper()
	f := c.next()
	if f.Header.OpCode != ws.OpClose {
		c.t.Fatalf("got frame %x %q, want a Close", f.Header.OpCode, f.Payload)
	}
	gotCode, gotReason := ws.ParseCloseFrameData(f.Payload)
	if int(gotCode) != code || !strings.Contains(gotReason, reason) {
		c.t.Fatalf("closed with %d %q, want %d %q", gotCode, gotReason, code, reason)
	}
}

// expectEnd reads the orderly end of the connection, not a reset.
func (c *wsConn) expectEnd() {
	c.t.Helper()
	if b, err := io.ReadAll(c.br); err != nil || len(b) > 0 {
		c.t.Fatalf("the connection ended with %q, %v; want an end without more", b, err)
	}
	c.Close()
}

// switching answers a handshake head for a node; headers are added to the 101.
func switching(head string, headers ...string) string {
	return "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " +
		upstream.AcceptFor(headerIn(head, "Sec-WebSocket-Key")) + "\r\n" + strings.Join(append(headers, ""), "\r\n") + "\r\n"
}

func headerIn(head, name string) string {
	for line := range strings.SplitSeq(head, "\r\n") {
		if k, v, ok := strings.Cut(line, ": "); ok && strings.EqualFold(k, name) {
			return v
		}
	}
	return ""
}

// echoNode accepts handshakes and echoes messages, unmasked.
func echoNode(t *testing.T, headers ...string) string {
	return rawNode(t, func(c net.Conn) {
		br := bufio.NewReader(c)
		io.WriteString(c, switching(readHead(br), headers...))
		echo(c, br)
	})
}

func echo(c net.Conn, br *bufio.Reader) {
	for {
		f, err := ws.ReadFrame(br)
		if err != nil {
			return
		}
		f = ws.UnmaskFrameInPlace(f)
		f.Header.Masked = false
		if ws.WriteFrame(c, f) != nil || f.Header.OpCode == ws.OpClose {
			return
		}
	}
}

func pinned(addr string) ([]Route, map[string]map[string]string) {
	return []Route{{At: "r", Paths: []string{"/ws/{node}"}, Service: "im", Rewrite: "/"}},
		map[string]map[string]string{"im": {"node1": addr}}
}

// bothWays runs a test over the plain and the TLS listener.
func bothWays(t *testing.T, e *edge, f func(t *testing.T, c net.Conn)) {
	t.Run("plain", func(t *testing.T) { f(t, e.dial()) })
	t.Run("tls", func(t *testing.T) { f(t, e.dialTLS()) })
}

func TestTunnelCarriesMessagesAndClose(t *testing.T) {
	routes, nodes := pinned(echoNode(t))
	e := startEdge(t, routes, nodes)
	bothWays(t, e, func(t *testing.T, conn net.Conn) {
		c, _ := open(t, conn, handshake("/ws/node1"))
		c.send(ws.OpText, "hello")
		c.expect(ws.OpText, "hello")
		c.send(ws.OpBinary, strings.Repeat("x", 70000))
		c.expect(ws.OpBinary, strings.Repeat("x", 70000))
		c.send(ws.OpPing, "p")
		c.expect(ws.OpPing, "p") // this node echoes everything
		c.send(ws.OpClose, string(ws.NewCloseFrameBody(4321, "bye")))
		c.expectClose(4321, "bye")
		c.expectEnd()
	})
	line := e.logs.wait(t, `"kind":"tunnel"`, `"close_code":4321`)
	for _, want := range []string{`"ended_by":"client"`, `"close_reason":"bye"`, `"node":"node1"`, `"route":"/ws/{node}"`, `"messages_in":2`, `"messages_out":2`, `"largest_in":70000`, `"largest_out":70000`, `"pings_in":1`, `"pings_out":1`, `"request_id":"`} {
		if !strings.Contains(line, want) {
			t.Errorf("the tunnel's line lacks %s: %s", want, line)
		}
	}
}

// What the node chose reaches the client as it is.
func TestTunnelKeepsTheNodesChoice(t *testing.T) {
	heads := make(chan string, 1)
	node := rawNode(t, func(c net.Conn) {
		head := readHead(bufio.NewReader(c))
		heads <- head
		io.WriteString(c, switching(head, "Sec-WebSocket-Protocol: mqtt", "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits=12",
			"Set-Cookie: a=1; Path=/", "Set-Cookie: b=2"))
		io.Copy(io.Discard, c)
	})
	routes, nodes := pinned(node)
	e := startEdge(t, routes, nodes)
	_, resp := open(t, e.dial(), handshake("/ws/node1/sub?q=1&token=a%20b", "Sec-WebSocket-Protocol: xmpp, mqtt",
		"Sec-WebSocket-Extensions: permessage-deflate", "X-cAsE: kept", "Cookie: s=1", "Origin: weapp://x"))
	if got := resp.Header.Get("Sec-Websocket-Protocol"); got != "mqtt" {
		t.Errorf("subprotocol %q", got)
	}
	if got := resp.Header.Get("Sec-Websocket-Extensions"); got != "permessage-deflate; client_max_window_bits=12" {
		t.Errorf("extensions %q", got)
	}
	if got := resp.Header.Values("Set-Cookie"); len(got) != 2 {
		t.Errorf("cookies %q", got)
	}
	head := <-heads
	for _, want := range []string{
		"GET /sub?q=1&token=a%20b HTTP/1.1\r\n", "\r\nHost: im.example.gov\r\n", "Upgrade: websocket\r\n", "Connection: Upgrade\r\n",
		"Sec-WebSocket-Key: " + testKey + "\r\n", "Sec-WebSocket-Version: 13\r\n", "Sec-WebSocket-Protocol: xmpp, mqtt\r\n",
		"Sec-WebSocket-Extensions: permessage-deflate\r\n", "X-cAsE: kept\r\n", "Cookie: s=1\r\n", "Origin: weapp://x\r\n",
		"X-Forwarded-For: 127.0.0.1\r\n", "X-Forwarded-Proto: http\r\n", "X-Real-IP: 127.0.0.1\r\n",
	} {
		if strings.Count(head, want) != 1 {
			t.Errorf("the node's head lacks, or has more than once, %q:\n%s", want, head)
		}
	}
}

// A client's Connection header cannot take the handshake apart.
func TestHandshakeHeadersCannotBeNamedAway(t *testing.T) {
	routes, nodes := pinned(echoNode(t))
	e := startEdge(t, routes, nodes)
	request := strings.Replace(handshake("/ws/node1"), "Connection: Upgrade",
		"Connection: Upgrade, Sec-WebSocket-Key, Sec-WebSocket-Version, Host, X-Forwarded-For", 1)
	c, _ := open(t, e.dial(), request)
	c.send(ws.OpText, "x")
	c.expect(ws.OpText, "x")
}

// The head reaches the node whole in its first read: pomelo looks at the first
// bytes of the first segment.
func TestHandshakeHeadIsOneWrite(t *testing.T) {
	first := make(chan string, 1)
	node := rawNode(t, func(c net.Conn) {
		buf := make([]byte, 64<<10)
		n, _ := c.Read(buf)
		first <- string(buf[:n])
	})
	routes, nodes := pinned(node)
	e := startEdge(t, routes, nodes)
	io.WriteString(e.dial(), handshake("/ws/node1", "X-Long: "+strings.Repeat("a", 3000)))
	if head := <-first; !strings.HasPrefix(head, "GET / HTTP/1.1\r\n") || !strings.HasSuffix(head, "\r\n\r\n") {
		t.Errorf("the first read was %q", head)
	}
}

// Bytes that come together with either side's head are not lost.
func TestEarlyBytes(t *testing.T) {
	node := rawNode(t, func(c net.Conn) {
		br := bufio.NewReader(c)
		io.WriteString(c, switching(readHead(br))+string(serverFrame(ws.OpText, "welcome")))
		echo(c, br)
	})
	routes, nodes := pinned(node)
	e := startEdge(t, routes, nodes)
	bothWays(t, e, func(t *testing.T, conn net.Conn) {
		early := string(clientFrame(ws.OpText, "one")) + string(clientFrame(ws.OpBinary, strings.Repeat("z", 9000)))
		c, _ := open(t, conn, handshake("/ws/node1")+early)
		c.expect(ws.OpText, "welcome")
		c.expect(ws.OpText, "one")
		c.expect(ws.OpBinary, strings.Repeat("z", 9000))
		c.send(ws.OpText, "late")
		c.expect(ws.OpText, "late")
	})
}

// A node's refusal reaches the client as it was, and what the client sent
// behind its handshake is never taken for a request.
func TestNodeRefusesHandshake(t *testing.T) {
	cases := []struct{ status, headers, body string }{
		{"401 Unauthorized", "WWW-Authenticate: Bearer\r\n", "who are you"},
		{"403 Forbidden", "X-Why: banned\r\n", ""},
		{"302 Found", "Location: /login\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n", ""},
		{"404 Not Found", "", "prefix not removed?"},
		{"200 OK", "", "not a socket"},
	}
	for _, tc := range cases {
		t.Run(tc.status, func(t *testing.T) {
			requests := make(chan string, 8)
			node := rawNode(t, func(c net.Conn) {
				requests <- readHead(bufio.NewReader(c))
				fmt.Fprintf(c, "HTTP/1.1 %s\r\n%sContent-Length: %d\r\n\r\n%s", tc.status, tc.headers, len(tc.body), tc.body)
			})
			routes, nodes := pinned(node)
			e := startEdge(t, append(routes, Route{At: "rest", Paths: []string{"/"}, Service: "im"}), nodes)
			bothWays(t, e, func(t *testing.T, conn net.Conn) {
				io.WriteString(conn, handshake("/ws/node1")+"GET /hidden HTTP/1.1\r\nHost: im.example.gov\r\n\r\n")
				br := bufio.NewReader(conn)
				resp, body := readAnswer(t, br)
				if resp.Status != tc.status || body != tc.body {
					t.Errorf("got %s %q", resp.Status, body)
				}
				if tc.status == "302 Found" && (resp.Header.Get("Location") != "/login" || len(resp.Header.Values("Set-Cookie")) != 2) {
					t.Errorf("headers lost: %v", resp.Header)
				}
				if !resp.Close {
					t.Error("the connection is kept after a refused handshake")
				}
				if rest, err := io.ReadAll(br); err != nil || len(rest) > 0 {
					t.Errorf("after the answer: %q, %v", rest, err)
				}
				if head := <-requests; strings.Contains(head, "hidden") {
					t.Errorf("the hidden request was run: %q", head)
				}
			})
			if len(requests) > 0 {
				t.Errorf("another request reached the node: %q", <-requests)
			}
		})
	}
}

func TestBrokenHandshakes(t *testing.T) {
	reached := make(chan struct{}, 100)
	routes, nodes := pinned(rawNode(t, func(net.Conn) { reached <- struct{}{} }))
	e := startEdge(t, routes, nodes)
	replace := func(old, new string) string { return strings.Replace(handshake("/ws/node1"), old, new, 1) }
	cases := []struct {
		name, request string
		status        int
		code          string
	}{
		{"POST", replace("GET", "POST"), 400, "bad_handshake"},
		{"lower-case get", replace("GET", "get"), 400, "bad_handshake"},
		{"HTTP/1.0", replace("HTTP/1.1", "HTTP/1.0"), 400, "bad_handshake"},
		{"no Connection", replace("Connection: Upgrade\r\n", ""), 400, "bad_handshake"},
		{"Connection without upgrade", replace("Connection: Upgrade", "Connection: keep-alive"), 400, "bad_handshake"},
		{"version 8", replace("Version: 13", "Version: 8"), 426, "websocket_version"},
		{"no version", replace("Sec-WebSocket-Version: 13\r\n", ""), 426, "websocket_version"},
		{"two versions", replace("Sec-WebSocket-Version: 13\r\n", "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Version: 13\r\n"), 426, "websocket_version"},
		{"no key", replace("Sec-WebSocket-Key: "+testKey+"\r\n", ""), 400, "bad_handshake"},
		{"two keys", replace("Sec-WebSocket-Key", "Sec-WebSocket-Key: "+testKey+"\r\nSec-WebSocket-Key"), 400, "bad_handshake"},
		{"short key", replace(testKey, "c2hvcnQ="), 400, "bad_handshake"},
		{"key not base64", replace(testKey, "????????????????????????"), 400, "bad_handshake"},
		{"Content-Length", replace("Host:", "Content-Length: 0\r\nHost:"), 400, "bad_handshake"},
		{"body", replace("Host:", "Content-Length: 5\r\nHost:") + "GET /", 400, "bad_handshake"},
		{"chunked", replace("Host:", "Transfer-Encoding: chunked\r\nHost:") + "0\r\n\r\n", 400, "bad_handshake"},
		{"h2c beside", replace("Upgrade: websocket", "Upgrade: h2c, websocket"), 400, "bad_handshake"},
		{"two Upgrades", replace("Upgrade: websocket", "Upgrade: websocket\r\nUpgrade: websocket"), 400, "bad_handshake"},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			c := e.dial()
			io.WriteString(c, tc.request)
			br := bufio.NewReader(c)
			resp, body := readAnswer(t, br)
			if resp.StatusCode != tc.status || problemCode(body) != tc.code {
				t.Errorf("got %s %s, want %d %s", resp.Status, body, tc.status, tc.code)
			}
			if tc.status == 426 && resp.Header.Get("Sec-WebSocket-Version") != "13" {
				t.Error("426 without the version that is spoken")
			}
			if rest, err := io.ReadAll(br); err != nil || len(rest) > 0 {
				t.Errorf("after the answer: %q, %v", rest, err)
			}
		})
	}
	if len(reached) > 0 {
		t.Error("a broken handshake reached the node")
	}
}

func TestNodeTroubleDuringHandshake(t *testing.T) {
	mute := rawNode(t, func(c net.Conn) { io.Copy(io.Discard, c) })
	cases := []struct {
		name, addr string
		status     int
		code       string
	}{
		{"refuses the connection", refusedAddr(t), 503, "node_down"},
		{"silent", mute, 504, "upstream_timeout"},
		{"closes", rawNode(t, func(c net.Conn) { readHead(bufio.NewReader(c)) }), 502, "upstream_failed"},
		{"wrong accept", rawNode(t, func(c net.Conn) {
			readHead(bufio.NewReader(c))
			io.WriteString(c, switching("Sec-WebSocket-Key: other"))
		}), 502, "upstream_failed"},
		{"switches to something else", rawNode(t, func(c net.Conn) {
			head := readHead(bufio.NewReader(c))
			io.WriteString(c, strings.Replace(switching(head), "Upgrade: websocket", "Upgrade: h2c", 1))
		}), 502, "upstream_failed"},
		{"not HTTP", rawNode(t, func(c net.Conn) {
			readHead(bufio.NewReader(c))
			io.WriteString(c, "SSH-2.0-OpenSSH\r\n\r\n")
		}), 502, "upstream_failed"},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			routes, nodes := pinned(tc.addr)
			routes[0].Timeouts = DefaultTimeouts()
			if tc.addr == mute {
				routes[0].Timeouts.Handshake = 50 * time.Millisecond
			}
			e := startEdge(t, routes, nodes)
			resp, body := e.answerTo(handshake("/ws/node1"))
			if resp.StatusCode != tc.status || problemCode(body) != tc.code {
				t.Errorf("got %s %s, want %d %s", resp.Status, body, tc.status, tc.code)
			}
			if tc.status == 503 && resp.Header.Get("Retry-After") == "" {
				t.Error("503 without Retry-After")
			}
		})
	}
}

// A route may accept and close instead, for clients that cannot read a status.
func TestRefuseByClose(t *testing.T) {
	routes, nodes := pinned(refusedAddr(t))
	routes[0].Refuse = RefuseClose
	e := startEdge(t, routes, nodes)
	bothWays(t, e, func(t *testing.T, conn net.Conn) {
		c, resp := open(t, conn, handshake("/ws/node1", "Sec-WebSocket-Protocol: mqtt, xmpp"))
		if resp.Header.Get("Sec-Websocket-Protocol") != "mqtt" {
			t.Errorf("subprotocol %q", resp.Header.Get("Sec-Websocket-Protocol"))
		}
		c.expectClose(1013, "node1")
		c.expectEnd()
	})
	c, _ := open(t, e.dial(), handshake("/ws/nobody", "Accept-Language: zh-CN"))
	c.expectClose(1008, "没有")
	// What is no handshake gets its status all the same.
	if resp, _ := e.answerTo(strings.Replace(handshake("/ws/node1"), "13", "8", 1)); resp.StatusCode != 426 {
		t.Errorf("broken handshake: %s", resp.Status)
	}
}

func TestOrigin(t *testing.T) {
	routes, nodes := pinned(echoNode(t))
	routes[0].Origins = []string{"https://web.example.gov", "null", "weapp://a"}
	e := startEdge(t, routes, nodes)
	for origin, want := range map[string]int{
		"Origin: https://web.example.gov": 101, "Origin: HTTPS://WEB.example.gov": 101, "Origin: null": 101, "Origin: weapp://a": 101, "X: none": 101,
		"Origin: https://evil.example": 403, "Origin: https://web.example.gov.evil.example": 403, "Origin: null\r\nOrigin: https://evil.example": 403,
	} {
		c := e.dial()
		io.WriteString(c, handshake("/ws/node1", origin))
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil || resp.StatusCode != want {
			t.Errorf("%s → %v, %v; want %d", origin, resp, err, want)
		}
	}
}

// A balanced handshake goes to the next node when one refuses the connection.
func TestBalancedHandshakeTriesAnother(t *testing.T) {
	e := startEdge(t, []Route{{At: "r", Paths: []string{"/"}, Service: "im"}},
		map[string]map[string]string{"im": {"down1": refusedAddr(t), "down2": refusedAddr(t), "up": echoNode(t)}})
	for range 6 {
		c, _ := open(t, e.dial(), handshake("/"))
		c.send(ws.OpText, "x")
		c.expect(ws.OpText, "x")
	}
}

// The client that leaves while its node thinks takes the node's connection along.
func TestClientLeavesDuringHandshake(t *testing.T) {
	asked, gone := make(chan struct{}), make(chan error, 1)
	node := rawNode(t, func(c net.Conn) {
		br := bufio.NewReader(c)
		readHead(br)
		close(asked)
		_, err := br.ReadByte()
		gone <- err
	})
	routes, nodes := pinned(node)
	e := startEdge(t, routes, nodes)
	c := e.dial()
	io.WriteString(c, handshake("/ws/node1"))
	<-asked
	c.Close()
	if err := <-gone; err == nil {
		t.Error("the node's connection goes on")
	}
	e.logs.wait(t, `"error":"client_left"`)
	eventually(t, "the lease is given back", func() bool {
		return e.state.Load().table.view.Services["im"].Node("node1").Active() == 0
	})
}

func TestUpstreamDiesUnderTunnel(t *testing.T) {
	die := make(chan struct{})
	node := rawNode(t, func(c net.Conn) {
		io.WriteString(c, switching(readHead(bufio.NewReader(c))))
		<-die
		c.(*net.TCPConn).SetLinger(0)
	})
	routes, nodes := pinned(node)
	e := startEdge(t, routes, nodes)
	c, _ := open(t, e.dialTLS(), handshake("/ws/node1"))
	close(die)
	f := c.next()
	if code, _ := ws.ParseCloseFrameData(f.Payload); f.Header.OpCode != ws.OpClose || code != 1014 {
		t.Errorf("got %x %q, want a Close with 1014", f.Header.OpCode, f.Payload)
	}
	c.expectEnd()
	e.logs.wait(t, `"kind":"tunnel"`, `"ended_by":"upstream"`)
}

func TestClientDiesUnderTunnel(t *testing.T) {
	gone := make(chan struct{})
	node := rawNode(t, func(c net.Conn) {
		br := bufio.NewReader(c)
		io.WriteString(c, switching(readHead(br)))
		io.Copy(io.Discard, br)
		close(gone)
	})
	routes, nodes := pinned(node)
	e := startEdge(t, routes, nodes)
	conn := e.dial()
	open(t, conn, handshake("/ws/node1"))
	conn.(*net.TCPConn).SetLinger(0)
	conn.Close()
	<-gone
	line := e.logs.wait(t, `"kind":"tunnel"`, `"ended_by":"client"`)
	if strings.Contains(line, "1014") {
		t.Errorf("a tunnel whose client left was blamed on the node: %s", line)
	}
}

// A client that just goes away, without a Close, is logged as that.
func TestClientLeavesWithoutClose(t *testing.T) {
	node := rawNode(t, func(c net.Conn) { // ends when the client does, as most servers
		br := bufio.NewReader(c)
		io.WriteString(c, switching(readHead(br)))
		io.Copy(io.Discard, br)
	})
	routes, nodes := pinned(node)
	e := startEdge(t, routes, nodes)
	bothWays(t, e, func(t *testing.T, conn net.Conn) {
		open(t, conn, handshake("/ws/node1"))
		conn.Close()
	})
	eventually(t, "both tunnels ended", func() bool { return strings.Count(e.logs.all(), `"kind":"tunnel"`) == 2 })
	for line := range strings.SplitSeq(e.logs.all(), "\n") {
		if strings.Contains(line, `"kind":"tunnel"`) && (!strings.Contains(line, `"ended_by":"client"`) || strings.Contains(line, "close_code")) {
			t.Errorf("the line says %s", line)
		}
	}
}

func TestTunnelIdle(t *testing.T) {
	routes, nodes := pinned(echoNode(t))
	routes[0].Timeouts = DefaultTimeouts()
	routes[0].Timeouts.Idle = 100 * time.Millisecond
	e := startEdge(t, routes, nodes)
	c, _ := open(t, e.dialTLS(), handshake("/ws/node1"))
	c.expectClose(1001, "")
	c.send(ws.OpClose, string(ws.NewCloseFrameBody(1001, "")))
	c.expectEnd()
	e.logs.wait(t, `"kind":"tunnel"`, `"ended_by":"idle"`)
}

// TLS 1.2 clients that half-close (close_notify) still get what is under way.
func TestHalfCloseOverTLS(t *testing.T) {
	node := rawNode(t, func(c net.Conn) {
		br := bufio.NewReader(c)
		io.WriteString(c, switching(readHead(br)))
		rest, _ := io.ReadAll(br)
		c.Write(serverFrame(ws.OpBinary, string(rest)))
	})
	routes, nodes := pinned(node)
	e := startEdge(t, routes, nodes)
	conn, err := tls.Dial("tcp", e.secure, &tls.Config{RootCAs: e.roots, ServerName: "localhost", MaxVersion: tls.VersionTLS12})
	if err != nil {
		t.Fatal(err)
	}
	guarded(t, conn)
	c, _ := open(t, conn, handshake("/ws/node1"))
	frame := clientFrame(ws.OpText, "last words")
	c.Write(frame)
	conn.CloseWrite()
	c.expect(ws.OpBinary, string(frame))
}

func TestShutdownEndsTunnelsWithGoingAway(t *testing.T) {
	routes, nodes := pinned(echoNode(t))
	e := startEdge(t, routes, nodes, func(c *Config) {
		c.Shutdown = Shutdown{Drain: 50 * time.Millisecond, Deadline: 10 * time.Second}
	})
	var clients []*wsConn
	for i := range 20 {
		c, _ := open(t, e.dialEither(i), handshake("/ws/node1"))
		clients = append(clients, c)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		e.Shutdown(context.Background())
	}()
	for _, c := range clients {
		c.expectClose(1001, "gateway stopping")
		c.send(ws.OpClose, string(ws.NewCloseFrameBody(1001, "")))
		c.expectEnd()
	}
	<-done
	if n := e.Tunnels(); n != 0 {
		t.Errorf("%d tunnels are left", n)
	}
}

// At the deadline everything left is cut, whatever a peer does.
func TestShutdownDeadline(t *testing.T) {
	stuck := rawNode(t, func(c net.Conn) {
		io.WriteString(c, switching(readHead(bufio.NewReader(c))))
		c.Write(serverFrame(ws.OpText, "0123456789")[:5]) // in mid-frame for ever
		io.Copy(io.Discard, c)
	})
	routes, nodes := pinned(stuck)
	e := startEdge(t, routes, nodes, func(c *Config) { c.Shutdown = Shutdown{Deadline: 200 * time.Millisecond} })
	open(t, e.dialTLS(), handshake("/ws/node1"))
	e.Shutdown(context.Background())
	if n := e.Tunnels(); n != 0 {
		t.Errorf("%d tunnels are left", n)
	}
}
