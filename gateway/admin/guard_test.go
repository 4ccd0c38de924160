package admin

import (
	"encoding/json"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const (
	readToken  = "0123456789abcdef-read"
	writeToken = "0123456789abcdef-write"
)

// startGuarded serves f to those with a token.
func startGuarded(t *testing.T, f *fakeGateway, a Access) *Server {
	t.Helper()
	s, err := Start(Config{Address: "127.0.0.1:0", Access: a}, f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func codeOf(t *testing.T, body string) string {
	t.Helper()
	var e Error
	if err := json.Unmarshal([]byte(body), &e); err != nil {
		t.Fatalf("%v: %s", err, body)
	}
	return e.Code
}

func TestAdminTokens(t *testing.T) {
	f := newFake()
	f.reasons = []string{"nothing is known of im"}
	s := startGuarded(t, f, Access{Token: readToken, WriteToken: writeToken, Hosts: []string{"gw1.mgmt"}})
	for _, c := range []struct {
		name, method, path, token string
		status                    int
		has, hasNot               string
	}{
		{"health without", "GET", "/healthz", "", 200, `"status":"ok"`, "tunnels"},
		{"health with", "GET", "/healthz", readToken, 200, `"tunnels":7`, "-"},
		{"health with a wrong one", "GET", "/healthz", readToken + "x", 401, `"token_wrong"`, "tunnels"},
		{"readiness without", "GET", "/readyz", "", 503, `"not ready"`, "nothing is known"},
		{"readiness with", "GET", "/readyz", readToken, 503, "nothing is known of im", "-"},
		{"metrics without", "GET", "/metrics", "", 401, `"token_missing"`, "something_total"},
		{"metrics with", "GET", "/metrics", readToken, 200, "something_total 3", "-"},
		{"nodes without", "GET", "/api/nodes", "", 401, `"token_missing"`, "node1"},
		{"nodes with", "GET", "/api/nodes", readToken, 200, "node1", "-"},
		{"nodes with that for writing", "GET", "/api/nodes", writeToken, 200, "node1", "-"},
		{"nodes with a piece of it", "GET", "/api/nodes", readToken[:20], 401, `"token_wrong"`, "node1"},
		{"drain without", "POST", "/api/drain", "", 401, `"token_missing"`, "-"},
		{"drain with that for reading", "POST", "/api/drain", readToken, 403, `"read_only"`, "-"},
		{"undrain with that for reading", "POST", "/api/undrain", readToken, 403, `"read_only"`, "-"},
		{"drain with that for writing", "POST", "/api/drain", writeToken, 202, `"draining"`, "-"},
	} {
		t.Run(c.name, func(t *testing.T) {
			headers := []string{"Content-Type", "application/json"}
			if c.token != "" {
				headers = append(headers, "Authorization", "Bearer "+c.token)
			}
			body := ""
			if c.method == "POST" {
				body = `{"node":"node1"}`
			}
			resp, answer := ask(t, s, c.method, c.path, body, headers...)
			if resp.StatusCode != c.status || !strings.Contains(answer, c.has) || c.hasNot != "-" && strings.Contains(answer, c.hasNot) {
				t.Errorf("status %d: %s", resp.StatusCode, answer)
			}
			if (resp.Header.Get("WWW-Authenticate") != "") != (c.status == 401) {
				t.Errorf("WWW-Authenticate is %q", resp.Header.Get("WWW-Authenticate"))
			}
		})
	}
	if asked := strings.Join(f.wasAsked(), ", "); asked != `drain "" "node1" 0` {
		t.Errorf("it was asked to %s", asked)
	}
	resp, _ := ask(t, s, "GET", "/api/nodes", "", "Authorization", "Bearer "+readToken, "Host", "GW1.mgmt:9180")
	if resp.StatusCode != 200 {
		t.Errorf("under a name of admin.hosts: status %d", resp.StatusCode)
	}
}

// Where only one token is set, the other one is not the empty one.
func TestNoTokenIsNobodys(t *testing.T) {
	f := newFake()
	s := startGuarded(t, f, Access{Token: readToken})
	for _, token := range []string{"Bearer ", "Bearer", "Basic Og==", ""} {
		resp, answer := ask(t, s, "POST", "/api/drain", `{"node":"node1"}`, "Content-Type", "application/json", "Authorization", token)
		if resp.StatusCode != http.StatusUnauthorized {
			t.Errorf("%q: status %d: %s", token, resp.StatusCode, answer)
		}
	}
	if len(f.wasAsked()) > 0 {
		t.Errorf("it was asked to %v", f.wasAsked())
	}
}

// After some wrong tokens an address is not heard, with whatever token, until the
// while is over.
func TestWrongTokensAreBounded(t *testing.T) {
	s := startGuarded(t, newFake(), Access{Token: readToken})
	for i := range maxFailures {
		if resp, _ := ask(t, s, "GET", "/api/nodes", "", "Authorization", "Bearer wrong"); resp.StatusCode != http.StatusUnauthorized {
			t.Fatalf("guess %d: status %d", i+1, resp.StatusCode)
		}
	}
	for _, token := range []string{"wrong", readToken} {
		resp, answer := ask(t, s, "GET", "/api/nodes", "", "Authorization", "Bearer "+token)
		if resp.StatusCode != http.StatusTooManyRequests || codeOf(t, answer) != "too_many_tokens" || resp.Header.Get("Retry-After") == "" {
			t.Errorf("with %q: status %d: %s", token, resp.StatusCode, answer)
		}
	}
	s.guard.failures.mu.Lock()
	s.guard.failures.began = s.guard.failures.began.Add(-failurePause)
	s.guard.failures.mu.Unlock()
	if resp, answer := ask(t, s, "GET", "/api/nodes", "", "Authorization", "Bearer "+readToken); resp.StatusCode != 200 {
		t.Errorf("later: status %d: %s", resp.StatusCode, answer)
	}
}

// However many addresses guess, what is kept of them is bounded, and so is what
// they may guess together.
func TestGuessesOfManyAddresses(t *testing.T) {
	var f failures
	for i := range 100_000 {
		f.note(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}))
	}
	if len(f.count) > maxAddresses+1 {
		t.Errorf("%d addresses are kept", len(f.count))
	}
	if f.blocked(netip.MustParseAddr("192.0.2.1")) == 0 {
		t.Error("an address that there is no room for may guess")
	}
	if f.blocked(netip.AddrFrom4([4]byte{10, 0, 0, 1})) != 0 {
		t.Error("an address with one wrong token is not heard")
	}
}

func TestGuessersOfOneNetwork(t *testing.T) {
	for a, b := range map[string]string{
		"[2001:db8::1]:1":        "[2001:db8::ffff]:2",
		"[::ffff:192.0.2.1]:443": "192.0.2.1:80",
	} {
		x, y := clientOf(&http.Request{RemoteAddr: a}), clientOf(&http.Request{RemoteAddr: b})
		if x != y || !x.IsValid() {
			t.Errorf("%s counts as %s, %s as %s", a, x, b, y)
		}
	}
}

// Without a token nothing but loopback is listened on, however the socket came
// about, and a reload does not open it either.
func TestOffLoopbackNeedsAToken(t *testing.T) {
	everywhere := Config{Address: "127.0.0.1:0", Listen: func(name, _ string) (net.Listener, error) {
		if name != "admin" {
			t.Errorf("the socket is called %q", name)
		}
		return net.Listen("tcp", "0.0.0.0:0")
	}}
	if s, err := Start(everywhere, newFake()); err == nil || !strings.Contains(err.Error(), "admin.token_file") {
		t.Errorf("it listens (%v)", err)
		s.Close()
	}
	everywhere.Access.WriteToken = writeToken
	s, err := Start(everywhere, newFake())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.SetAccess(Access{}); err == nil {
		t.Error("a reload opens it to everybody")
	}
	if err := s.SetAccess(Access{Token: readToken}); err != nil {
		t.Errorf("another token is refused: %v", err)
	}
}

func TestTokenChanges(t *testing.T) {
	s := startGuarded(t, newFake(), Access{Token: readToken})
	if err := s.SetAccess(Access{Token: writeToken}); err != nil {
		t.Fatal(err)
	}
	for token, want := range map[string]int{readToken: 401, writeToken: 200} {
		if resp, _ := ask(t, s, "GET", "/api/nodes", "", "Authorization", "Bearer "+token); resp.StatusCode != want {
			t.Errorf("%s: status %d, want %d", token, resp.StatusCode, want)
		}
	}
}

func TestReadToken(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []struct{ name, content, want, problem string }{
		{"good", readToken + "\n", readToken, ""},
		{"blanks around", "  " + readToken + " \r\n", readToken, ""},
		{"short", "secret-15-chars", "", "15 characters"},
		{"empty", "\n", "", "0 characters"},
		{"two lines", readToken + "\n" + readToken + "\n", "", "several lines"},
		{"long", strings.Repeat("x", maxToken+1), "", "more than 1024"},
		{"much too long", strings.Repeat("x", 1<<20), "", "more than 1024"},
		{"Chinese", strings.Repeat("密", 20), "", "ASCII"},
	} {
		t.Run(c.name, func(t *testing.T) {
			file := filepath.Join(dir, "token")
			if err := os.WriteFile(file, []byte(c.content), 0o600); err != nil {
				t.Fatal(err)
			}
			got, err := ReadToken(file)
			if got != c.want || (err == nil) != (c.problem == "") {
				t.Fatalf("%q, %v", got, err)
			}
			if err != nil && (!strings.Contains(err.Error(), c.problem) || strings.Contains(err.Error(), "secret-15") || strings.Contains(err.Error(), readToken)) {
				t.Errorf("the error is %v", err)
			}
		})
	}
	if _, err := ReadToken(filepath.Join(dir, "none")); err == nil || !strings.Contains(err.Error(), "none") {
		t.Errorf("the error is %v", err)
	}
}

// Nothing that the address answers may become a page, or say what it is made of.
func TestAdminHeaders(t *testing.T) {
	open := start(t, newFake())
	locked := startGuarded(t, newFake(), Access{Token: readToken})
	for _, s := range []*Server{open, locked} {
		for _, path := range []string{"/", "/healthz", "/readyz", "/metrics", "/api/nodes", "/api/drain", "/nowhere", "//x/../api"} {
			req, err := http.NewRequest("GET", "http://"+s.Addr().String()+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 20 * time.Second}
			resp, err := client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			h := resp.Header
			if h.Get("X-Content-Type-Options") != "nosniff" || !strings.Contains(h.Get("Content-Security-Policy"), "default-src 'none'; frame-ancestors 'none'") ||
				h.Get("Referrer-Policy") != "no-referrer" || h.Get("Cache-Control") != "no-store" || h.Get("Server") != "" {
				t.Errorf("%s: %v", path, h)
			}
		}
	}
}
