package standin

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"singlegate/internal/leaktest"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

// start starts a node that ends with the test.
func start(t *testing.T, o Options) *Node {
	t.Helper()
	if o.ID == "" {
		o.ID = "node1"
	}
	n, err := Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

// client is the other end of a WebSocket, on a real socket.
type client struct {
	t      *testing.T
	conn   net.Conn
	reader *bufio.Reader
	answer *http.Response
}

// connect opens a raw connection with a deadline for the whole test.
func connect(t *testing.T, n *Node) *client {
	t.Helper()
	conn, err := net.Dial("tcp", n.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return &client{t: t, conn: conn, reader: bufio.NewReader(conn)}
}

// handshake sends an upgrade request and reads the answer's head.
func handshake(t *testing.T, n *Node, target string, headers ...string) *client {
	t.Helper()
	c := connect(t, n)
	head := "GET " + target + " HTTP/1.1\r\nHost: im.example.gov\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
	for _, h := range headers {
		head += h + "\r\n"
	}
	c.raw([]byte(head + "\r\n"))
	answer, err := http.ReadResponse(c.reader, nil)
	if err != nil {
		t.Fatal(err)
	}
	c.answer = answer
	return c
}

// open is handshake for one that must be accepted.
func open(t *testing.T, n *Node, target string, headers ...string) *client {
	t.Helper()
	c := handshake(t, n, target, headers...)
	if c.answer.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("handshake for %s: %s, want 101", target, c.answer.Status)
	}
	return c
}

func (c *client) raw(b []byte) {
	c.t.Helper()
	if _, err := c.conn.Write(b); err != nil {
		c.t.Fatal(err)
	}
}

func (c *client) frame(op ws.OpCode, fin bool, payload string) {
	c.t.Helper()
	c.raw(ws.MustCompileFrame(ws.MaskFrame(ws.NewFrame(op, fin, []byte(payload)))))
}

// expect reads one frame and compares it.
func (c *client) expect(op ws.OpCode, payload string) {
	c.t.Helper()
	frame, err := ws.ReadFrame(c.reader)
	if err != nil {
		c.t.Fatalf("reading a frame, want %q: %v", payload, err)
	}
	if frame.Header.OpCode != op || string(frame.Payload) != payload {
		c.t.Fatalf("got opcode %d %q, want opcode %d %q", frame.Header.OpCode, frame.Payload, op, payload)
	}
}

// expectCode reads a Close with a code.
func (c *client) expectCode(code ws.StatusCode) {
	c.t.Helper()
	frame, err := ws.ReadFrame(c.reader)
	if err != nil {
		c.t.Fatalf("reading a Close: %v", err)
	}
	if got, reason := ws.ParseCloseFrameData(frame.Payload); frame.Header.OpCode != ws.OpClose || got != code {
		c.t.Fatalf("got opcode %d, code %d %q, want a Close with %d", frame.Header.OpCode, got, reason, code)
	}
}

// expectClose is expectCode, and answers it and reads the end.
func (c *client) expectClose(code ws.StatusCode) {
	c.t.Helper()
	c.expectCode(code)
	c.frame(ws.OpClose, true, string([]byte{byte(code >> 8), byte(code)}))
	c.expectEnd()
}

func (c *client) expectEnd() {
	c.t.Helper()
	if b, err := c.reader.ReadByte(); err != io.EOF {
		c.t.Fatalf("got byte %x, %v, want the end of the connection", b, err)
	}
}

// request makes one HTTP request and returns the answer with its body.
func request(t *testing.T, n *Node, method, path, body string, headers ...string) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, "http://"+n.Addr()+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		if headers[i] == "Host" {
			r.Host = headers[i+1]
		}
		r.Header.Set(headers[i], headers[i+1])
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer, string(text)
}
