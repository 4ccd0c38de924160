package standin

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

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

// bosh posts one <body/> with these attributes and stanzas.
func bosh(t *testing.T, n *Node, attributes, stanzas string) string {
	t.Helper()
	answer, body := request(t, n, "POST", "/http-bind/", httpBindBody(attributes, stanzas))
	if answer.StatusCode != http.StatusOK || answer.Header.Get("Access-Control-Allow-Origin") != "*" || answer.ContentLength != int64(len(body)) {
		t.Errorf("status %s, headers %v, body %s", answer.Status, answer.Header, body)
	}
	return body
}

func TestBOSHSession(t *testing.T) {
	n := start(t, Options{System: XMPP, Hold: time.Millisecond})
	first := bosh(t, n, "rid='1' to='im.example.gov' wait='60' hold='1'", "")
	if want := "<body xmlns='http://jabber.org/protocol/httpbind' sid='node1-1' wait='60' requests='2' hold='1' ver='1.11'></body>"; first != want {
		t.Errorf("first answer %s\nwant %s", first, want)
	}
	if got := bosh(t, n, "rid='2' sid='node1-1'", ""); got != httpBindBody("sid='node1-1'", "") {
		t.Errorf("after the hold: %s", got)
	}
	if got := bosh(t, n, "rid='3' sid='node1-1'", "<message>hi</message>"); got != httpBindBody("sid='node1-1'", "<message>hi</message>") {
		t.Errorf("a stanza: %s", got)
	}
	if got := bosh(t, n, "rid='4' sid='node1-1' type='terminate'", ""); got != httpBindBody("type='terminate'", "") {
		t.Errorf("terminate: %s", got)
	}
	if got := bosh(t, n, "rid='5' sid='node1-1'", ""); !strings.Contains(got, "item-not-found") {
		t.Errorf("after the end: %s", got)
	}
}

func TestBOSHNextRequestLetsGoTheHeldOne(t *testing.T) {
	n := start(t, Options{System: XMPP, Hold: time.Hour})
	bosh(t, n, "rid='1'", "")
	held := connect(t, n)
	body := httpBindBody("rid='2' sid='node1-1'", "")
	held.raw(fmt.Appendf(nil, "POST /http-bind HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(body), body))
	answered := make(chan error, 1)
	go func() {
		_, err := held.reader.Peek(1)
		answered <- err
	}()
	for { // the held request may arrive after some of these, so they go on until it is answered
		bosh(t, n, "rid='3' sid='node1-1'", "<presence/>")
		select {
		case err := <-answered:
			if err != nil {
				t.Fatalf("the held request was not answered: %v", err)
			}
			return
		default:
		}
	}
}

func TestBOSHRefuses(t *testing.T) {
	n := start(t, Options{System: XMPP, Hosts: []string{"im.example.gov"}})
	for name, c := range map[string]struct {
		method, host, body string
		status             int
	}{
		"another host": {"POST", "other.example.gov", httpBindBody("rid='1'", ""), http.StatusNotFound},
		"own host":     {"POST", "IM.example.gov:5280", httpBindBody("rid='1'", ""), http.StatusOK},
		"not XML":      {"POST", "im.example.gov", "<bo", http.StatusBadRequest},
		"another body": {"POST", "im.example.gov", "<body/>", http.StatusBadRequest},
		"preflight":    {"OPTIONS", "im.example.gov", "", http.StatusNoContent},
		"GET":          {"GET", "im.example.gov", "", http.StatusMethodNotAllowed},
	} {
		if answer, body := request(t, n, c.method, "/http-bind", c.body, "Host", c.host); answer.StatusCode != c.status {
			t.Errorf("%s: %s %s, want %d", name, answer.Status, body, c.status)
		}
	}
}

func TestXMPPWebSocket(t *testing.T) {
	n := start(t, Options{System: XMPP})
	if c := handshake(t, n, "/xmpp-websocket"); c.answer.StatusCode != http.StatusBadRequest {
		t.Errorf("without subprotocol: %s", c.answer.Status)
	}
	c := open(t, n, "/xmpp-websocket", "Sec-WebSocket-Protocol: xmpp")
	c.frame(ws.OpText, true, "<open xmlns='urn:ietf:params:xml:ns:xmpp-framing' to='im.example.gov' version='1.0'/>")
	c.expect(ws.OpText, "<open xmlns='urn:ietf:params:xml:ns:xmpp-framing' version='1.0' from='im.example.gov' id='node1'/>")
	c.frame(ws.OpText, true, "<iq type='get' id='1'/>")
	c.expect(ws.OpText, "<iq type='get' id='1'/>")
	c.frame(ws.OpText, true, "<close xmlns='urn:ietf:params:xml:ns:xmpp-framing'/>")
	c.expect(ws.OpText, "<close xmlns='urn:ietf:params:xml:ns:xmpp-framing'/>")
	c.expectClose(ws.StatusNormalClosure)
}

func TestDjangoAddresses(t *testing.T) {
	n := start(t, Options{System: Django})
	for target, want := range map[string]string{
		"/s%201/alice":         `{"node":"node1","session":"s%201","user":"alice","query":"","echo":"hi"}`,
		"/?token=a.b.c&o=%7e1": `{"node":"node1","session":"","user":"","query":"token=a.b.c&o=%7e1","echo":"hi"}`,
	} {
		c := open(t, n, target)
		c.frame(ws.OpText, true, "hi")
		c.expect(ws.OpText, want)
	}
	for _, target := range []string{"/", "/s", "/s/", "/ws/s/alice", "/s/alice/", "/?opponent=bob"} {
		if c := handshake(t, n, target); c.answer.StatusCode != http.StatusNotFound {
			t.Errorf("%s: %s, want 404", target, c.answer.Status)
		}
	}
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
