package standin

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"
)

// expectOpen reads the chat's first message and looks for a part of it.
func (c *client) expectOpen(part string) {
	c.t.Helper()
	frame, err := ws.ReadFrame(c.reader)
	if err != nil {
		c.t.Fatal(err)
	}
	if text := string(frame.Payload); !strings.Contains(text, part) {
		c.t.Fatalf("first message %s lacks %s", text, part)
	}
}

func TestChatGreetsAndEchoes(t *testing.T) {
	n := start(t, Options{System: Chat})
	c := open(t, n, "/any/%70ath?x=1", "Sec-WebSocket-Protocol: mqtt, xmpp")
	if got := c.answer.Header.Get("Sec-WebSocket-Accept"); got != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" {
		t.Errorf("Sec-WebSocket-Accept is %q", got)
	}
	if got := c.answer.Header.Get("Sec-WebSocket-Protocol"); got != "mqtt" {
		t.Errorf("subprotocol %q, want the first offered", got)
	}
	if got := c.answer.Header.Get("X-Node"); got != "node1" {
		t.Errorf("X-Node is %q", got)
	}
	c.expect(ws.OpText, `{"node":"node1","event":"open","path":"/any/%70ath","query":"x=1","protocol":"mqtt"}`)
	c.frame(ws.OpText, true, "你好")
	c.expect(ws.OpText, `{"node":"node1","echo":"你好"}`)
	c.frame(ws.OpBinary, true, "\x00\xff")
	c.expect(ws.OpBinary, "\x00\xff")
}

func TestChatTakesEarlyBytes(t *testing.T) {
	n := start(t, Options{System: Chat})
	c := connect(t, n)
	frame := ws.MustCompileFrame(ws.MaskFrame(ws.NewTextFrame([]byte("early"))))
	c.raw(append([]byte("GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"), frame...))
	if _, err := http.ReadResponse(c.reader, nil); err != nil {
		t.Fatal(err)
	}
	c.expectOpen(`"protocol":""`)
	c.expect(ws.OpText, `{"node":"node1","echo":"early"}`)
}

func TestChatJoinsFragmentsAroundPings(t *testing.T) {
	n := start(t, Options{System: Chat})
	c := open(t, n, "/")
	c.expectOpen("open")
	c.frame(ws.OpText, false, "one ")
	c.frame(ws.OpPing, true, "still there?")
	c.frame(ws.OpContinuation, false, "two ")
	c.frame(ws.OpContinuation, true, "three")
	c.expect(ws.OpPong, "still there?")
	c.expect(ws.OpText, `{"node":"node1","echo":"one two three"}`)
	c.frame(ws.OpClose, true, "\x03\xe9going")
	c.expect(ws.OpClose, "\x03\xe9")
	c.expectEnd()
}

func TestChatTakesOneMebibyte(t *testing.T) {
	n := start(t, Options{System: Chat})
	c := open(t, n, "/")
	c.expectOpen("open")
	whole := strings.Repeat("x", maxMessage)
	c.frame(ws.OpBinary, true, whole)
	c.expect(ws.OpBinary, whole)
}

func TestChatEndsWithCode(t *testing.T) {
	masked := ws.Header{Fin: true, OpCode: ws.OpBinary, Masked: true}
	big := masked
	big.Length = maxMessage + 1
	reserved := masked
	reserved.OpCode = 3
	unmasked := masked
	unmasked.Masked = false
	for name, c := range map[string]struct {
		send     func(*client)
		code     ws.StatusCode
		midFrame bool // the client is stuck in a frame, so it cannot answer
	}{
		"too big at once": {func(c *client) {
			c.raw(headerBytes(big))
			c.raw(make([]byte, big.Length))
		}, ws.StatusMessageTooBig, false},
		"too big in fragments": {func(c *client) {
			c.frame(ws.OpBinary, false, strings.Repeat("x", maxMessage))
			c.frame(ws.OpContinuation, true, "x")
		}, ws.StatusMessageTooBig, false},
		"2^62 bytes announced": {func(c *client) {
			huge := masked
			huge.Length = 1 << 62
			c.raw(headerBytes(huge))
		}, ws.StatusMessageTooBig, true},
		"reserved opcode":       {func(c *client) { c.raw(headerBytes(reserved)) }, ws.StatusProtocolError, false},
		"not masked":            {func(c *client) { c.raw(headerBytes(unmasked)) }, ws.StatusProtocolError, false},
		"top bit of the length": {func(c *client) { c.raw([]byte{0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}) }, ws.StatusProtocolError, false},
		"continues nothing":     {func(c *client) { c.frame(ws.OpContinuation, true, "x") }, ws.StatusProtocolError, false},
		"close of one byte":     {func(c *client) { c.frame(ws.OpClose, true, "x") }, ws.StatusProtocolError, false},
		"text is not UTF-8":     {func(c *client) { c.frame(ws.OpText, true, "\xff") }, ws.StatusInvalidFramePayloadData, false},
	} {
		t.Run(name, func(t *testing.T) {
			n := start(t, Options{System: Chat})
			client := open(t, n, "/")
			client.expectOpen("open")
			c.send(client)
			client.expectCode(c.code)
			if !c.midFrame {
				client.frame(ws.OpClose, true, "")
				client.expectEnd()
			}
		})
	}
}

func headerBytes(h ws.Header) []byte {
	var out strings.Builder
	if err := ws.WriteHeader(&out, h); err != nil {
		panic(err)
	}
	return []byte(out.String())
}

func TestSilentClientIsClosed(t *testing.T) {
	n := start(t, Options{System: Chat, CloseSilentAfter: time.Millisecond})
	c := open(t, n, "/")
	c.expectOpen("open")
	c.expectClose(ws.StatusNormalClosure)
}

func TestHandshakeRefusals(t *testing.T) {
	n := start(t, Options{System: Chat})
	const key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
	for name, c := range map[string]struct {
		head   string
		status int
	}{
		"POST":         {"POST / HTTP/1.1\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n" + key, http.StatusMethodNotAllowed},
		"h2c":          {"GET / HTTP/1.1\r\nUpgrade: h2c\r\nSec-WebSocket-Version: 13\r\n" + key, http.StatusUpgradeRequired},
		"version 8":    {"GET / HTTP/1.1\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 8\r\n" + key, http.StatusUpgradeRequired},
		"key too long": {"GET / HTTP/1.1\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAAAAAAAA\r\n", http.StatusBadRequest},
	} {
		t.Run(name, func(t *testing.T) {
			client := connect(t, n)
			client.raw([]byte(c.head + "Host: x\r\nConnection: Upgrade\r\n\r\n"))
			answer, err := http.ReadResponse(client.reader, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer answer.Body.Close()
			if answer.StatusCode != c.status {
				t.Errorf("status %d, want %d", answer.StatusCode, c.status)
			}
		})
	}
}

func TestChatAnswersHTTP(t *testing.T) {
	n := start(t, Options{System: Chat})
	for path, c := range map[string]struct {
		status int
		body   string
	}{
		"/api/version": {http.StatusOK, `{"node":"node1","version":"standin"}`},
		"/":            {http.StatusOK, "This is node1, a stand-in chat node.\n"},
		"/elsewhere":   {http.StatusNotFound, `{"node":"node1","message":"a stand-in chat node has no such path"}`},
	} {
		answer, body := request(t, n, "GET", path, "")
		if answer.StatusCode != c.status || body != c.body || answer.Header.Get("X-Node") != "node1" {
			t.Errorf("%s: %d %s, X-Node %q", path, answer.StatusCode, body, answer.Header.Get("X-Node"))
		}
	}
}
