package e2e

import (
	"encoding/base64"
	"encoding/json"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/golang-jwt/jwt/v5"
)

// A djangoHello is what the chat server says first.
type djangoHello struct{ Type, Path, User, Opponent string }

// startPython runs one of the example's servers until the test ends.
func (e *example) startPython(t *testing.T, what, ready string) *process {
	t.Helper()
	const python = "/usr/bin/python3" // Debian's, which has its packages
	if exec.Command(python, "-c", "import websockets").Run() != nil {
		lacking(t, "the Python package websockets (python3-websockets) is not installed")
	}
	cmd := exec.Command(python, "server.py", what)
	cmd.Dir = e.dir
	p := startProcess(t, cmd)
	p.await(p.out, ready, func(text string) bool { return strings.Contains(text, ready) })
	return p
}

// token signs claims as Django does, with the example's secret.
func (e *example) token(t *testing.T, user string, exp time.Time) string {
	t.Helper()
	secret := strings.TrimSpace(readFile(t, filepath.Join(e.dir, "chat.key")))
	return e.signed(t, secret, user, exp)
}

func (e *example) signed(t *testing.T, secret, user string, exp time.Time) string {
	t.Helper()
	claims := jwt.MapClaims{"user_id": 1, "username": user, "email": user + "@example.gov", "exp": exp.Unix(), "orig_iat": time.Now().Unix()}
	token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString([]byte(secret))
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func testDjangoChat(t *testing.T, e *example) {
	web := e.startPython(t, "web", "web on")
	chat := e.startPython(t, "chat", "chat on")
	e.start(t)
	d := e.door(t, "tls", "localhost")
	later := time.Now().Add(time.Hour)
	token := e.token(t, "bob", later)

	djangoPaths(t, d, token)
	djangoTalk(t, d, token)
	djangoRefusals(t, e, d, chat)
	soon := e.token(t, "bob", time.Now().Add(2*time.Second))
	djangoExpiry(t, e, d, soon)

	if answer, body := d.request(t, "GET", "/", ""); answer.StatusCode != 200 || !strings.Contains(body, "Django's first page") {
		t.Errorf("GET /: %s %s, want Django's page", answer.Status, body)
	}
	if answer, _ := d.request(t, "GET", "/ws/k3y/bob", ""); answer.StatusCode != 404 || answer.Header.Get("X-Node") != "web1" {
		t.Errorf("a plain GET below /ws: %s of %q, want Django's own 404", answer.Status, answer.Header.Get("X-Node"))
	}
	e.checkIt(t)

	web.stop()
	before := heardBy(chat)
	contains(t, "the answer without Django", d.refused(t, 503, "/ws/al1ce/bob?x"), `"error":"auth_unavailable"`)
	if n := heardBy(chat); n != before {
		t.Errorf("without Django the chat server heard %d handshakes", n-before)
	}
	d.open(t, "/ws/?token="+token+"&opponent=alice") // needs nobody but the gateway

	for _, secret := range append(strings.Split(token, "."), strings.Split(soon, ".")[2], "k3y", "al1ce", "eyJ") {
		if log := e.log.String(); strings.Contains(log, secret) {
			t.Errorf("the log has %q:\n%s", secret, log)
		}
	}
}

// djangoPaths: what the chat server sees of paths and queries, byte for byte.
func djangoPaths(t *testing.T, d door, token string) {
	for _, c := range []struct{ target, path, user, opponent string }{
		{"/ws/k3y/alice", "/k3y/alice", "bob", "alice"},
		{"/ws/k3y/%E5%BC%A0%20san", "/k3y/%E5%BC%A0%20san", "bob", "%E5%BC%A0%20san"},
		{"/ws/?token=" + token + "&opponent=b%6fb+x", "/?token=" + token + "&opponent=b%6fb+x", "bob", "bob x"},
		{"/ws?opponent=alice&&token=" + token + "&", "/?opponent=alice&&token=" + token + "&", "bob", "alice"},
		{"/ws/k3y/alice?token=" + token, "/k3y/alice?token=" + token, "bob", ""},
	} {
		s := d.open(t, c.target)
		got := decode[djangoHello](t, s.expect(t, ws.OpText))
		if got.Path != c.path || got.User != c.user || got.Opponent != c.opponent {
			t.Errorf("of %.40s the chat server saw %+v", c.target, got)
		}
		if err := s.send(ws.OpClose, []byte{0x03, 0xe8}); err != nil {
			t.Fatal(err)
		}
		if _, _, err := s.end(); err != nil {
			t.Errorf("%.40s: the end: %v", c.target, err)
		}
	}
}

// djangoTalk: one by a token, one by a session, and a message each way.
func djangoTalk(t *testing.T, d door, token string) {
	bob, alice := d.open(t, "/ws/?token="+token+"&opponent=alice"), d.open(t, "/ws/al1ce/bob")
	for _, s := range []*socket{bob, alice} {
		s.expect(t, ws.OpText)
	}
	for _, from := range []struct {
		s    *socket
		name string
	}{{bob, "bob"}, {alice, "alice"}} {
		packet, _ := json.Marshal(map[string]string{"message": "你好 from " + from.name})
		if err := from.s.send(ws.OpText, packet); err != nil {
			t.Fatal(err)
		}
		for _, s := range []*socket{bob, alice} {
			got := decode[struct{ From, Message string }](t, s.expect(t, ws.OpText))
			if got.From != from.name || got.Message != "你好 from "+from.name {
				t.Errorf("got %+v of %s", got, from.name)
			}
		}
	}
}

// heardBy is how many handshakes the chat server has heard.
func heardBy(chat *process) int { return strings.Count(chat.out.String(), "chat heard a handshake") }

// djangoRefusals: whom the gateway refuses, the chat server never hears.
func djangoRefusals(t *testing.T, e *example, d door, chat *process) {
	later := time.Now().Add(time.Hour)
	good := e.token(t, "bob", later)
	parts := strings.Split(good, ".")
	none := base64.RawURLEncoding.EncodeToString([]byte(`{"typ":"JWT","alg":"none"}`))
	before := heardBy(chat)
	for name, c := range map[string]struct {
		target, code string
		headers      []string
	}{
		"expired":               {"/ws/?opponent=alice&token=" + e.token(t, "bob", time.Now().Add(-time.Hour)), "token_expired", nil},
		"mis-signed":            {"/ws/?token=" + e.signed(t, "some other secret of Django's", "bob", later), "token_invalid", nil},
		"alg none":              {"/ws/?token=" + none + "." + parts[1] + ".", "token_invalid", nil},
		"alg none, signed":      {"/ws/?token=" + none + "." + parts[1] + "." + parts[2], "token_invalid", nil},
		"garbage":               {"/ws/?token=eyJ", "token_invalid", nil},
		"two tokens":            {"/ws/?token=" + good + "&token=" + none, "token_invalid", nil},
		"another in the header": {"/ws/?token=" + good, "token_invalid", []string{"Authorization", "Bearer " + none + ".e30."}},
	} {
		body := d.refused(t, 401, c.target, c.headers...)
		if code := decode[said](t, body).Error; code != c.code {
			t.Errorf("%s: %q, want %s", name, body, c.code)
		}
	}
	for _, target := range []string{"/ws/nobody/bob", "/ws/", "/ws/k3y2", "/ws/bob/alice"} {
		d.refused(t, 401, target) // Django's own answer
	}
	if n := heardBy(chat); n != before {
		t.Errorf("the chat server heard %d handshakes that were refused", n-before)
	}
	if answer, body := d.request(t, "GET", "/session/", "", "X-Forwarded-Uri", "/ws/k3y/x"); answer.StatusCode != 403 {
		t.Errorf("the endpoint answers clients: %s %s", answer.Status, body)
	}
}

// djangoExpiry: the tunnel ends when the token does.
func djangoExpiry(t *testing.T, e *example, d door, token string) {
	s := d.open(t, "/ws/?token="+token+"&opponent=alice")
	s.expect(t, ws.OpText)
	codes, reasons, err := s.end()
	if err != nil || len(codes) != 1 || codes[0] != ws.StatusPolicyViolation || reasons[0] != "token expired" {
		t.Errorf("with its token the tunnel ended with %v %q, %v", codes, reasons, err)
	}
	e.awaitLog(1, `"ended_by":"expired"`)
}
