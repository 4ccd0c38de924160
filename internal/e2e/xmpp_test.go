package e2e

import (
	"fmt"
	"maps"
	"net/http"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"singlegate/internal/imservers"
)

// The example with the servers that its files are for, one after the other: they
// have the same port. There is no Openfire to be had here; its file is checked.
func testXMPP(t *testing.T, e *example) {
	options := imservers.XMPPOptions{Address: "127.0.0.1:5280", Host: "im.example.gov", Accounts: maps.Clone(accounts)}
	prosody := imservers.StartProsody(t, options)
	e.start(t)
	d := e.door(t, "tls", "im.example.gov")
	for _, target := range []string{"/http-bind", "/http-bind/"} {
		boshSession(t, d, target)
	}
	boshPreflight(t, d)
	if answer, links := d.request(t, "GET", "/.well-known/host-meta.json", ""); answer.StatusCode != 200 || answer.Header.Get("Access-Control-Allow-Origin") != "*" ||
		!strings.Contains(links, `"https://im.example.gov:13443/http-bind"`) || !strings.Contains(links, `"wss://im.example.gov:13443/xmpp-websocket"`) {
		t.Errorf("host-meta.json: %s %s", answer.Status, links)
	}
	xmppWebSocket(t, d, "/xmpp-websocket")
	xmppClients(t, e, "/http-bind/", "/xmpp-websocket")
	e.checkIt(t)

	e.site.stop()
	prosody.Kill()
	if r := runCommand(t, e.dir, "check", "--config", "openfire.yaml"); r.code != 0 {
		t.Errorf("openfire.yaml: exit code %d\n%s", r.code, r.err)
	}

	imservers.StartEjabberd(t, options)
	writeFile(t, e.dir, "gateway.yaml", readFile(t, filepath.Join(e.dir, "ejabberd.yaml")))
	e.start(t)
	boshSession(t, d, "/bosh")
	xmppWebSocket(t, d, "/ws")
	xmppClients(t, e, "/bosh", "/ws")
}

// xmppClients lets strophe.js log in by BOSH and by WebSocket, and both speak.
func xmppClients(t *testing.T, e *example, bosh, socket string) {
	t.Helper()
	p := startPuppet(t, "strophe.mjs", e.ca)
	p.login("anna", "https://im.example.gov:13443"+bosh, 0)
	p.login("boris", "wss://im.example.gov:13443"+socket, 0)
	p.converse("hello", "anna", "boris")
	p.leave("anna", "boris")
}

func bosh(attributes, stanzas string) string {
	return "<body xmlns='http://jabber.org/protocol/httpbind' " + attributes + ">" + stanzas + "</body>"
}

var sidAttribute = regexp.MustCompile(`\bsid='([^']+)'`)

// boshSession is a session as clients have it: one request is held while others,
// on other connections, let it go.
func boshSession(t *testing.T, d door, target string) {
	t.Helper()
	rid := 1573741820
	attributes := func(more string) string {
		rid++
		return fmt.Sprintf("rid='%d' %s", rid, more)
	}
	_, created := postBOSH(t, d, target, bosh(attributes("to='im.example.gov' wait='60' hold='1' ver='1.6' "+
		"xml:lang='en' xmpp:version='1.0' xmlns:xmpp='urn:xmpp:xbosh'"), ""))
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
	// With one request held, the server answers the older one as the next comes.
	if _, body := postBOSH(t, d, target, bosh(attributes(sid+" type='terminate'"), "")); !strings.Contains(body, "<body ") {
		t.Errorf("the end was answered with %s", body)
	}
	select {
	case body := <-held:
		if !strings.Contains(body, "<body ") || !strings.HasSuffix(body, "<nil>") {
			t.Errorf("the held request was answered with %s", body)
		}
	case <-time.After(patience):
		t.Fatal("the held request is held on")
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
	if origins := h.Values("Access-Control-Allow-Origin"); len(origins) != 1 || origins[0] != "*" && origins[0] != "https://web.example.gov" {
		t.Errorf("Access-Control-Allow-Origin is %q, want the server's, once", origins)
	}
	return answer, text
}

func boshPreflight(t *testing.T, d door) {
	t.Helper()
	answer, _ := d.request(t, "OPTIONS", "/http-bind", "", "Origin", "https://web.example.gov", "Access-Control-Request-Method", "POST")
	if methods := answer.Header.Values("Access-Control-Allow-Methods"); answer.StatusCode/100 != 2 || len(methods) != 1 {
		t.Errorf("OPTIONS: %s, Access-Control-Allow-Methods %q", answer.Status, methods)
	}
}

// xmppWebSocket is a session of RFC 7395.
func xmppWebSocket(t *testing.T, d door, target string) {
	t.Helper()
	const framing = "xmlns='urn:ietf:params:xml:ns:xmpp-framing'"
	s := d.open(t, target, "Sec-WebSocket-Protocol", "xmpp", "Origin", "https://web.example.gov")
	if got := s.answer.Header.Get("Sec-WebSocket-Protocol"); got != "xmpp" {
		t.Errorf("subprotocol %q, want xmpp", got)
	}
	open := strings.ReplaceAll(s.ask(t, ws.OpText, "<open "+framing+" to='im.example.gov' version='1.0'/>"), `"`, "'")
	contains(t, "the answer to <open/>", open, "<open ", framing, "from='im.example.gov")
	if features := s.ask(t, ws.OpText, "<close "+framing+"/>"); !strings.Contains(features, "features") {
		t.Errorf("<open/> was followed by %s", features)
	}
	codes, _, err := s.end()
	if err != nil || len(codes) != 1 || codes[0] != ws.StatusNormalClosure {
		t.Errorf("ended with %v, %v, want 1000", codes, err)
	}
}
