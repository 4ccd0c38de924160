package standin

import (
	"net/http"
	"strings"
	"testing"

	"github.com/gobwas/ws"
)

func TestWildfireChatAnswersHTTP(t *testing.T) {
	n := start(t, Options{System: WildfireChat})
	if answer, body := request(t, n, "POST", "/route", "\x00\x01"); answer.StatusCode != http.StatusOK || !strings.Contains(body, `"node":"node1"`) {
		t.Errorf("/route: %s %s", answer.Status, body)
	}
	_, body := request(t, n, "POST", "/im/login", "secret?", "p", "5", "cid", "c", "uid", "u", "appId", "a", "appKey", "k")
	want := `{"node":"node1","path":"/im/login","headers":{"appId":"a","appKey":"k","cid":"c","p":"5","uid":"u"},"body":"secret?"}`
	if body != want {
		t.Errorf("/im/login: %s\nwant %s", body, want)
	}
	_, body = request(t, n, "PUT", "/fs/a.bin", strings.Repeat("x", 3<<20))
	if want := `{"node":"node1","path":"/fs/a.bin","bytes":3145728}`; body != want {
		t.Errorf("/fs: %s, want %s", body, want)
	}
	if answer, _ := request(t, n, "GET", "/route", ""); answer.StatusCode != http.StatusNotFound {
		t.Errorf("GET /route: %s", answer.Status)
	}
}

func TestWildfireChatTalksMQTT(t *testing.T) {
	n := start(t, Options{System: WildfireChat})
	c := open(t, n, "/", "Sec-WebSocket-Protocol: mqttv3.1, mqtt")
	if got := c.answer.Header.Get("Sec-WebSocket-Protocol"); got != "mqtt" {
		t.Errorf("subprotocol %q", got)
	}
	c.frame(ws.OpBinary, true, "\x10\x0c\x00\x04MQTT\x06\x02\x00\xc8\x00\x00")
	c.expect(ws.OpBinary, "\x20\x02\x00\x00")
	c.frame(ws.OpBinary, true, "\xc0\x00")
	c.expect(ws.OpBinary, "\xd0\x00")
	c.frame(ws.OpBinary, true, "\x30\x03abc")
	c.expect(ws.OpBinary, "\x30\x03abc")
	c.frame(ws.OpText, true, "text")
	c.expectClose(ws.StatusUnsupportedData)
}

func TestWildfireChatRefusesOtherLevels(t *testing.T) {
	n := start(t, Options{System: WildfireChat})
	c := open(t, n, "/", "Sec-WebSocket-Protocol: mqtt")
	c.frame(ws.OpBinary, true, "\x10\x0c\x00\x04MQTT\x04\x02\x00\xc8\x00\x00")
	c.expect(ws.OpBinary, "\x20\x02\x00\x01")
	c.expectClose(ws.StatusNormalClosure)
}

func TestPomeloGateAndHeartbeat(t *testing.T) {
	n := start(t, Options{System: Pomelo, Connector: "im.example.gov:3050"})
	c := open(t, n, "/")
	c.frame(ws.OpBinary, true, "\x01\x00\x00\x02{}")
	c.expect(ws.OpBinary, "\x01\x00\x00\x31"+`{"code":200,"node":"node1","sys":{"heartbeat":3}}`)
	c.frame(ws.OpBinary, true, "\x02\x00\x00\x00")
	c.frame(ws.OpBinary, true, "\x03\x00\x00\x00")
	c.expect(ws.OpBinary, "\x03\x00\x00\x00")
	c.frame(ws.OpBinary, true, "\x04\x00\x00\x1bgate.gateHandler.queryEntry")
	c.expect(ws.OpBinary, "\x04\x00\x00\x3f"+`{"code":200,"node":"node1","host":"im.example.gov","port":3050}`)
}

func TestPomeloNamesItselfWithoutConnector(t *testing.T) {
	n := start(t, Options{System: Pomelo})
	got := pomelo{n}.entry()
	if got.Host != "127.0.0.1" || got.Port != int(n.Port()) {
		t.Errorf("entry %+v, want %s", got, n.Addr())
	}
}

func TestPomeloWantsMethodInFirstSegment(t *testing.T) {
	n := start(t, Options{System: Pomelo})
	for _, first := range []string{"GE", "PROXY TCP4", "\x01\x00\x00\x02{}"} {
		c := connect(t, n)
		c.raw([]byte(first))
		c.expectEnd()
	}
	if c := handshake(t, n, "/gate/"); c.answer.StatusCode != http.StatusNotFound {
		t.Errorf("another path: %s", c.answer.Status)
	}
	if answer, _ := request(t, n, "GET", "/", ""); answer.StatusCode != http.StatusUpgradeRequired {
		t.Errorf("plain GET: %s", answer.Status)
	}
}

func TestPomeloRefuses(t *testing.T) {
	n := start(t, Options{System: Pomelo})
	c := open(t, n, "/")
	c.frame(ws.OpBinary, true, "\x04\x00\x00\x09short")
	c.expectClose(ws.StatusProtocolError)
	c = open(t, n, "/")
	c.frame(ws.OpText, true, "{}")
	c.expectClose(ws.StatusUnsupportedData)
}

func FuzzConnectLevel(f *testing.F) {
	f.Add([]byte("\x10\x0c\x00\x04MQTT\x06\x02\x00\xc8\x00\x00"))
	f.Add([]byte("\x10\xff\xff\xff\x7f\x00\x04MQTT\x06"))
	f.Add([]byte("\x10\xff\xff\xff\xff\xff"))
	f.Add([]byte("\x10\x02\xff\xff"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, packet []byte) {
		if level := connectLevel(packet); level != 0 && !strings.Contains(string(packet[1:]), string([]byte{level})) {
			t.Errorf("level %d is not in %x", level, packet)
		}
	})
}

func FuzzPackage(f *testing.F) {
	f.Add([]byte("\x03\x00\x00\x00"))
	f.Add([]byte("\x04\x00\x00\x02hi"))
	f.Add([]byte("\x04\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, p []byte) {
		if kind, body, ok := splitPackage(p); ok && string(joinPackage(kind, body)) != string(p) {
			t.Errorf("%x does not survive", p)
		}
	})
}
