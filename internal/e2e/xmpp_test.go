package e2e

import (
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"singlegate/internal/standin"
)

func testXMPP(t *testing.T, e *example) {
	startNode(t, standin.Options{
		ID: "xmpp1", Address: "127.0.0.1:5280", System: standin.XMPP,
		Hosts: []string{"im.example.gov", "localhost"}, Hold: time.Hour, // only another request lets one go
	})
	e.start(t)
	d := e.door(t, "tls", "im.example.gov")
	for _, target := range []string{"/http-bind", "/http-bind/"} {
		boshSession(t, d, target)
	}
	boshPreflight(t, d)
	xmppWebSocket(t, d)

	elsewhere := d
	elsewhere.host, elsewhere.name = "chat.example.gov", "im.example.gov"
	answer, body := elsewhere.request(t, "POST", "/http-bind", bosh("rid='1'", ""))
	if answer.StatusCode != 404 || !strings.Contains(body, `"xmpp1"`) {
		t.Errorf("a host that is not served: %s %s, want the server's own 404", answer.Status, body)
	}
	e.checkIt(t)
}

func bosh(attributes, stanzas string) string {
	return "<body xmlns='http://jabber.org/protocol/httpbind' " + attributes + ">" + stanzas + "</body>"
}

var sidAttribute = regexp.MustCompile(`\bsid='([^']+)'`)

// boshSession is a session as clients have it: one request is held while others,
// on other connections, bring stanzas.
func boshSession(t *testing.T, d door, target string) {
	t.Helper()
	rid := 1573741820
	attributes := func(more string) string {
		rid++
		return fmt.Sprintf("rid='%d' %s", rid, more)
	}
	_, created := postBOSH(t, d, target, bosh(attributes("to='im.example.gov' wait='60' hold='1' ver='1.6'"), ""))
	found := sidAttribute.FindStringSubmatch(created)
	if found == nil {
		t.Fatalf("the session has no sid: %s", created)
	}
	sid := "sid='" + found[1] + "'"

	held := make(chan string, 1)
	poll := bosh(attributes(sid), "")
	go func() {
		_, body, err := d.tryRequest("POST", target, poll)
		held <- fmt.Sprint(body, err)
	}()
	stanza := "<message xmlns='jabber:client'><body>你好 &amp; hello</body></message>"
	for let := false; !let; { // a stanza that overtakes the held request lets it wait for the next one
		if _, body := postBOSH(t, d, target, bosh(attributes(sid), stanza)); !strings.Contains(body, stanza) || !strings.Contains(body, sid) {
			t.Fatalf("the stanza was answered with %s", body)
		}
		select {
		case body := <-held:
			let = true
			if !strings.Contains(body, sid) || strings.Contains(body, "message") || !strings.HasSuffix(body, "<nil>") {
				t.Errorf("the held request was answered with %s", body)
			}
		case <-time.After(50 * time.Millisecond):
		}
	}
	if _, body := postBOSH(t, d, target, bosh(attributes(sid+" type='terminate'"), "")); !strings.Contains(body, "terminate") {
		t.Errorf("the end was answered with %s", body)
	}
	if _, body := postBOSH(t, d, target, bosh(attributes(sid), "")); !strings.Contains(body, "item-not-found") {
		t.Errorf("a session that is over was answered with %s", body)
	}
}

// postBOSH makes a request on a connection of its own and checks what every
// answer must have: its length, its type, and the server's CORS headers once.
func postBOSH(t *testing.T, d door, target, body string) (*http.Response, string) {
	t.Helper()
	answer, text := d.request(t, "POST", target, body, "Content-Type", "text/xml; charset=utf-8", "Origin", "https://web.example.gov")
	h := answer.Header
	if answer.StatusCode != 200 || answer.ContentLength != int64(len(text)) || h.Get("Content-Type") != "text/xml; charset=utf-8" {
		t.Errorf("%s, length %d of %d, %q", answer.Status, answer.ContentLength, len(text), h.Get("Content-Type"))
	}
	if origins := h.Values("Access-Control-Allow-Origin"); len(origins) != 1 || origins[0] != "*" {
		t.Errorf("Access-Control-Allow-Origin is %q, want * once", origins)
	}
	return answer, text
}

func boshPreflight(t *testing.T, d door) {
	t.Helper()
	answer, _ := d.request(t, "OPTIONS", "/http-bind", "", "Origin", "https://web.example.gov", "Access-Control-Request-Method", "POST")
	if methods := answer.Header.Values("Access-Control-Allow-Methods"); answer.StatusCode != 204 || len(methods) != 1 {
		t.Errorf("OPTIONS: %s, Access-Control-Allow-Methods %q", answer.Status, methods)
	}
}

// xmppWebSocket is a session of RFC 7395.
func xmppWebSocket(t *testing.T, d door) {
	t.Helper()
	const framing = "xmlns='urn:ietf:params:xml:ns:xmpp-framing'"
	s := d.open(t, "/xmpp-websocket", "Sec-WebSocket-Protocol", "xmpp", "Origin", "https://web.example.gov")
	if got := s.answer.Header.Get("Sec-WebSocket-Protocol"); got != "xmpp" {
		t.Errorf("subprotocol %q, want xmpp", got)
	}
	open := s.ask(t, ws.OpText, "<open "+framing+" to='im.example.gov' version='1.0'/>")
	contains(t, "the answer to <open/>", open, framing, "from='im.example.gov")
	stanza := "<iq xmlns='jabber:client' type='get' id='1'><ping xmlns='urn:xmpp:ping'/></iq>"
	if got := s.ask(t, ws.OpText, stanza); got != stanza {
		t.Errorf("the stanza was answered with %s", got)
	}
	if got := s.ask(t, ws.OpText, "<close "+framing+"/>"); !strings.Contains(got, "<close ") {
		t.Errorf("<close/> was answered with %s", got)
	}
	codes, _, err := s.end()
	if err != nil || len(codes) != 1 || codes[0] != ws.StatusNormalClosure {
		t.Errorf("ended with %v, %v, want 1000", codes, err)
	}
	if body := d.refused(t, 400, "/xmpp-websocket"); !strings.Contains(body, "xmpp") { // without the subprotocol
		t.Errorf("the server's refusal is %q", body)
	}
}
