package e2e

import (
	"strings"
	"testing"

	"github.com/gobwas/ws"

	"singlegate/internal/standin"
)

func testDjangoChat(t *testing.T, e *example) {
	startNode(t, standin.Options{ID: "chat1", Address: "127.0.0.1:5002", System: standin.Django})
	startNode(t, standin.Options{ID: "web1", Address: "127.0.0.1:8000", System: standin.Chat})
	e.start(t)
	d := e.door(t, "tls", "localhost")

	const session, token = "s3ss1on-k3y", "eyJhbGciOiJIUzI1NiJ9.eyJ1c2VyX2lkIjoxfQ.s1gnature"
	for _, c := range []struct{ target, session, user, query string }{
		{"/ws/" + session + "/bob", session, "bob", ""},
		{"/ws/" + session + "/%E5%BC%A0%20san", session, "%E5%BC%A0%20san", ""},
		{"/ws/?token=" + token + "&opponent=b%6fb+x", "", "", "token=" + token + "&opponent=b%6fb+x"},
		{"/ws?opponent=bob&&token=" + token + "&", "", "", "opponent=bob&&token=" + token + "&"},
		{"/ws/?session_key=" + session + "&token=" + token, "", "", "session_key=" + session + "&token=" + token},
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
	if answer, body := d.request(t, "GET", "/", "", "Cookie", "sessionid="+session); answer.StatusCode != 200 || !strings.Contains(body, "web1") {
		t.Errorf("GET /: %s %s, want Django's page", answer.Status, body)
	}
	if answer, _ := d.request(t, "GET", "/ws/"+session+"/bob", ""); answer.StatusCode != 404 || answer.Header.Get("X-Node") != "web1" {
		t.Errorf("a plain GET below /ws: %s of %q, want Django's own 404", answer.Status, answer.Header.Get("X-Node"))
	}
	e.checkIt(t)

	e.awaitLog(7, `"kind":"tunnel"`) // five of this test and two of the README
	for _, secret := range []string{session, token, "s1gnature", "k3y", "eyJ"} {
		if log := e.log.String(); strings.Contains(log, secret) {
			t.Errorf("the log has %q:\n%s", secret, log)
		}
	}
}
