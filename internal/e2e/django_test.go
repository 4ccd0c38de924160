package e2e

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"singlegate/internal/imservers"
	"singlegate/internal/standin"
)

// The chat server is a real one, made with Python's websockets; Django's pages
// come from a stand-in.
func testDjangoChat(t *testing.T, e *example) {
	const session, secret = "s3ss1on-k3y", "the s1gning secret"
	chat := imservers.StartChat(t, imservers.ChatOptions{ID: "chat1", Address: "127.0.0.1:5002", Session: session, Secret: secret})
	startNode(t, standin.Options{ID: "web1", Address: "127.0.0.1:8000", System: standin.Chat})
	e.start(t)
	d := e.door(t, "tls", "localhost")

	token := chatToken("san", secret, time.Now().Add(time.Hour))
	for _, c := range []struct{ target, session, user, query string }{
		{"/ws/" + session + "/bob", session, "bob", ""},
		{"/ws/" + session + "/%E5%BC%A0%20san", session, "%E5%BC%A0%20san", ""},
		{"/ws/?token=" + token + "&opponent=b%6fb+x", "", "san", "token=" + token + "&opponent=b%6fb+x"},
		{"/ws?opponent=bob&&token=" + token + "&", "", "san", "opponent=bob&&token=" + token + "&"},
		{"/ws/?session_key=" + session + "&token=" + token, "", "san", "session_key=" + session + "&token=" + token},
	} {
		s := d.open(t, c.target)
		got := nodeSays(t, s.ask(t, ws.OpText, "hello"), "chat1")
		if got.Session != c.session || got.User != c.user || got.Query != c.query || got.Echo != "hello" {
			t.Errorf("of %s the chat server saw %+v", c.target, got)
		}
		if err := s.send(ws.OpClose, nil); err != nil {
			t.Fatal(err)
		}
		if _, _, err := s.end(); err != nil {
			t.Errorf("%s: the end: %v", c.target, err)
		}
	}
	refusals := []string{"/ws/ws/bob", "/ws/other/bob", "/ws/?token=" + chatToken("bob", secret, time.Now().Add(-time.Hour)),
		"/ws/?token=" + chatToken("bob", "another secret", time.Now().Add(time.Hour))}
	for _, target := range refusals { // by the server: its close code and its reason arrive
		codes, reasons, err := d.open(t, target).end()
		if err != nil || len(codes) != 1 || codes[0] != 4401 || reasons[0] != "log in first" {
			t.Errorf("%s ended with %v %q %v, want the server's 4401", target, codes, reasons, err)
		}
	}
	chatBetweenTwo(t, d, session, token, chat)
	if answer, body := d.request(t, "GET", "/", "", "Cookie", "sessionid="+session); answer.StatusCode != 200 || !strings.Contains(body, "web1") {
		t.Errorf("GET /: %s %s, want Django's page", answer.Status, body)
	}
	if answer, _ := d.request(t, "GET", "/ws/"+session+"/bob", ""); answer.StatusCode != 404 || answer.Header.Get("X-Node") != "web1" {
		t.Errorf("a plain GET below /ws: %s of %q, want Django's own 404", answer.Status, answer.Header.Get("X-Node"))
	}
	e.checkIt(t)

	e.awaitLog(5+len(refusals)+4+2, `"kind":"tunnel"`) // above, between two, and those of the README
	for _, secret := range []string{session, token, "s1gning", "k3y", "eyJ"} {
		if log := e.log.String(); strings.Contains(log, secret) {
			t.Errorf("the log has %q:\n%s", secret, log)
		}
	}
}

// chatBetweenTwo lets two users speak, who signed in each in a way of their own,
// and again when the server was gone and is back.
func chatBetweenTwo(t *testing.T, d door, session, token string, chat *imservers.Server) {
	t.Helper()
	speak := func() (bob, san *socket) {
		t.Helper()
		bob, san = d.open(t, "/ws/"+session+"/bob"), d.open(t, "/ws/?token="+token+"&opponent=bob")
		for _, s := range []*socket{bob, san} { // who is answered is known to the server
			nodeSays(t, s.ask(t, ws.OpText, "hello"), "chat1")
		}
		for _, c := range []struct {
			from, to  *socket
			text, got string
		}{
			{bob, san, "@san hello", `{"from": "bob", "text": "hello"}`},
			{san, bob, "@bob 你好", `{"from": "san", "text": "\u4f60\u597d"}`},
		} {
			if err := c.from.send(ws.OpText, []byte(c.text)); err != nil {
				t.Fatal(err)
			}
			if got := c.to.expect(t, ws.OpText); got != c.got {
				t.Errorf("%q arrived as %s, want %s", c.text, got, c.got)
			}
		}
		return bob, san
	}
	bob, san := speak()
	chat.Kill()
	for _, s := range []*socket{bob, san} {
		if codes, _, err := s.end(); err != nil || len(codes) != 1 || codes[0] != 1014 {
			t.Errorf("the server was killed, and the client got %v, %v, want 1014", codes, err)
		}
	}
	chat.Start()
	bob, san = speak()
	for _, s := range []*socket{bob, san} {
		if err := s.send(ws.OpClose, nil); err != nil {
			t.Fatal(err)
		}
		if _, _, err := s.end(); err != nil {
			t.Errorf("the end: %v", err)
		}
	}
}

// chatToken is a token as chat servers of Django sites take it.
func chatToken(user, secret string, expires time.Time) string {
	encode := base64.RawURLEncoding.EncodeToString
	claims, _ := json.Marshal(map[string]any{"user_id": 1, "username": user, "email": "a@example.gov", "exp": expires.Unix()})
	signed := encode([]byte(`{"alg":"HS256","typ":"JWT"}`)) + "." + encode(claims)
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(signed))
	return signed + "." + encode(mac.Sum(nil))
}
