package auth

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

var sessionInQuery = Source{Kind: FromQuery, Name: "session_key"}

// session is a config that asks an endpoint.
func session(url string, tune ...func(*Forward)) Config {
	f := &Forward{URL: url, Credentials: []Source{sessionInQuery, {Kind: FromCookie, Name: "sessionid"}}, PassHeaders: []string{"X-User"}, Timeout: 10 * time.Second}
	for _, t := range tune {
		t(f)
	}
	return named("session", Config{Forward: f})
}

func endpoint(t *testing.T, h http.HandlerFunc) string {
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL + "/session/?from=gateway"
}

// The endpoint is told of the original request; what it answers decides.
func TestForward(t *testing.T) {
	last := make(chan *http.Request, 1)
	url := endpoint(t, func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-last:
		default:
		}
		last <- r.Clone(context.Background())
		if r.ContentLength != 0 {
			t.Errorf("a body of %d bytes", r.ContentLength)
		}
		h := w.Header()
		switch r.Header.Get("X-Case") {
		case "ok":
			h.Set("X-User", "bob")
			h.Set("X-Other", "no")
		case "204":
			w.WriteHeader(204)
		case "401":
			h.Set("WWW-Authenticate", `Session realm="chat"`)
			h.Set("Content-Type", "text/plain")
			h.Set("X-Inside", "10.0.0.5")
			w.WriteHeader(401)
			io.WriteString(w, "log in")
		case "403":
			w.WriteHeader(403)
		case "302":
			h.Set("Location", "/login?next=/ws/")
			h.Add("Set-Cookie", "a=1")
			h.Add("Set-Cookie", "b=2")
			w.WriteHeader(302)
		case "302 nowhere":
			w.WriteHeader(302)
		case "long":
			w.WriteHeader(403)
			io.WriteString(w, strings.Repeat("x", maxAnswer+1))
		case "500":
			w.WriteHeader(500)
		case "404":
			w.WriteHeader(404)
		case "304":
			w.WriteHeader(304)
		case "panic":
			panic(http.ErrAbortHandler)
		}
	})
	_, a := adopt(t, session(url))
	for _, c := range []struct {
		name   string
		want   Result
		status int
		fields []Field
		body   string
	}{
		{"ok", Passed, 0, nil, ""}, {"204", Passed, 0, nil, ""},
		{"401", Refused, 401, []Field{{"WWW-Authenticate", `Session realm="chat"`}, {"Content-Type", "text/plain"}}, "log in"},
		{"403", Refused, 403, nil, ""},
		{"302", Refused, 302, []Field{{"Location", "/login?next=/ws/"}, {"Set-Cookie", "a=1"}, {"Set-Cookie", "b=2"}}, ""},
		{"long", Refused, 403, nil, ""},
		{"302 nowhere", Unavailable, 0, nil, ""}, {"500", Unavailable, 0, nil, ""}, {"404", Unavailable, 0, nil, ""},
		{"304", Unavailable, 0, nil, ""}, {"panic", Unavailable, 0, nil, ""},
	} {
		r := ask("/ws/?session_key=k3y&x=%20", "X-Case: "+c.name, "User-Agent: probe", "Cookie: a=b", "If-None-Match: x", "Range: bytes=0-1",
			"X-Forwarded-Uri: /forged", "Content-Type: text/x", "Sec-WebSocket-Key: x", "x-many: 1", "X-Many: 2")
		r.Method = "PUT"
		d := a.Check(t.Context(), by("session"), r)
		if d.Result != c.want || (d.Answer != nil) != (c.status != 0) {
			t.Fatalf("%s: %s (%v), %+v; want %s", c.name, d.Result, d.Cause, d.Answer, c.want)
		}
		if d.Answer != nil && (d.Answer.Status != c.status || !slices.Equal(d.Answer.Fields, c.fields) || string(d.Answer.Body) != c.body) {
			t.Errorf("%s: the client gets %+v", c.name, d.Answer)
		}
		if c.name == "ok" && !slices.Equal(d.Fields, []Field{{"X-User", "bob"}}) {
			t.Errorf("the node gets %q", d.Fields)
		}
		if d.Cause != nil && strings.Contains(d.Cause.Error(), "k3y") {
			t.Errorf("%s: the cause quotes the request: %v", c.name, d.Cause)
		}
	}
	seen := await(t, "a question", last)
	want := "GET /session/?from=gateway: PUT /ws/?session_key=k3y&x=%20, probe, a=b, [1 2]"
	got := fmt.Sprintf("%s %s: %s %s, %s, %s, %v", seen.Method, seen.RequestURI, seen.Header.Get("X-Forwarded-Method"),
		strings.Join(seen.Header.Values("X-Forwarded-Uri"), "+"), seen.UserAgent(), seen.Header.Get("Cookie"), seen.Header.Values("X-Many"))
	if got != want {
		t.Errorf("the endpoint saw %q, want %q", got, want)
	}
	for _, name := range []string{"If-None-Match", "Range", "Content-Type", "Sec-WebSocket-Key", "Accept-Encoding"} {
		if seen.Header.Get(name) != "" {
			t.Errorf("the endpoint got %s", name)
		}
	}
}

// An endpoint that is not there, does not answer, or answers something else lets
// nobody pass.
func TestForwardFailsClosed(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	group.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Read(make([]byte, 1))
			io.WriteString(c, "SSH-2.0-k3y\r\n")
			c.Close()
		}
	})
	defer group.Wait()
	defer l.Close()
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	silent := endpoint(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	slowBody := endpoint(t, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(401)
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	for _, c := range []struct{ url, want string }{
		{"http://" + l.Addr().String(), errNoHTTP.Error()},
		{"http://" + gone.Addr().String(), "the endpoint cannot be reached: "},
		{silent, errSilent.Error()}, {slowBody, errSilent.Error()},
	} {
		_, a := adopt(t, session(c.url, func(f *Forward) { f.Timeout = 100 * time.Millisecond }))
		d := a.Check(t.Context(), by("session"), ask("/ws/?session_key=k3y"))
		if d.Result != Unavailable || !strings.HasPrefix(d.Cause.Error(), c.want) || strings.Contains(d.Cause.Error(), "k3y") {
			t.Errorf("%s: %s (%v), want %q", c.url, d.Result, d.Cause, c.want)
		}
	}
}

// An endpoint, and keys, behind TLS are believed by the CA that the config names,
// and by no other.
func TestInternalCA(t *testing.T) {
	k := testKeys()
	s := httptest.NewTLSServer(text(setOf(t, map[string]any{"a": &k.rsa.PublicKey})))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	defer s.Close()
	ca := keyFileOf(t, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})))
	token := signed(t, jwt.SigningMethodRS256, k.rsa, claims())
	for _, c := range []struct {
		ca   string
		want Result
	}{{ca, Passed}, {"", Unavailable}} {
		keys := fromURL(s.URL)
		keys.JWT.CAFile = c.ca
		set, a := adopt(t, keys, session(s.URL, func(f *Forward) { f.CAFile = c.ca }))
		if d := a.Check(t.Context(), by("session"), ask("/ws/?session_key=k3y")); d.Result != c.want {
			t.Errorf("the endpoint: %s (%v), want %s", d.Result, d.Cause, c.want)
		}
		eventually(t, "a fetch", func() bool {
			set.theSet().mu.Lock()
			defer set.theSet().mu.Unlock()
			return !set.theSet().last.IsZero()
		})
		if d := a.Check(t.Context(), by("chat"), ask("/ws/?token="+token)); d.Result != c.want {
			t.Errorf("the keys: %s (%v), want %s", d.Result, d.Cause, c.want)
		}
	}
}

// A good answer counts for a while, for the same credentials alone; a session
// that was ended is refused after that.
func TestForwardCache(t *testing.T) {
	var asked atomic.Int32
	var revoked atomic.Bool
	url := endpoint(t, func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		if revoked.Load() || !strings.Contains(r.Header.Get("X-Forwarded-Uri")+r.Header.Get("Cookie"), "k3y") {
			w.WriteHeader(401)
		}
	})
	s, a := adopt(t, session(url, func(f *Forward) { f.Cache = time.Minute }))
	var clock atomic.Int64
	for _, f := range s.now.forwarders {
		f.now = func() time.Time { return time.Unix(clock.Load(), 0) }
	}
	check := func(want Result, questions int32, target string, lines ...string) {
		t.Helper()
		before := asked.Load()
		d := a.Check(t.Context(), by("session"), ask(target, lines...))
		if n := asked.Load() - before; d.Result != want || n != questions {
			t.Errorf("%s %q: %s (%v) by %d questions, want %s by %d", target, lines, d.Result, d.Cause, n, want, questions)
		}
	}
	check(Passed, 1, "/ws/?session_key=k3y")
	check(Passed, 0, "/ws/?session_key=k3y&other=x")
	check(Passed, 1, "/ws/?session_key=k3y2")
	check(Passed, 1, "/ws/", "Cookie: sessionid=k3y")
	check(Passed, 1, "/ws/?session_key=k3y", "Cookie: sessionid=k3y")
	check(Refused, 1, "/ws/?session_key=bad")
	check(Refused, 1, "/ws/?session_key=bad") // a refusal is not remembered
	check(Refused, 1, "/ws/")
	check(Refused, 1, "/ws/") // nor is anything without credentials
	check(Passed, 1, "/ws/?session_key=k3y&session_key=bad")
	check(Passed, 1, "/ws/?session_key=k3y&session_key=bad") // nor what is given twice
	check(Passed, 1, "/ws/?session_key=k3y;session_key=k3y")
	revoked.Store(true)
	check(Passed, 0, "/ws/?session_key=k3y")
	clock.Store(59)
	check(Passed, 0, "/ws/?session_key=k3y")
	clock.Store(60)
	check(Refused, 1, "/ws/?session_key=k3y")
}

// What is remembered is bounded; who was asked about last stays.
func TestCacheIsBounded(t *testing.T) {
	c := newCache(2)
	id := func(n byte) credential { return credential{n} }
	until := time.Unix(10, 0)
	for n := byte(1); n <= 2; n++ {
		c.put(id(n), Decision{Result: Passed}, until)
	}
	c.get(id(1), time.Unix(0, 0))
	c.put(id(3), Decision{Result: Passed}, until)
	c.put(id(3), Decision{Result: Passed}, until)
	for n, want := range map[byte]bool{1: true, 2: false, 3: true} {
		if _, ok := c.get(id(n), time.Unix(9, 0)); ok != want {
			t.Errorf("%d: %v, want %v", n, ok, want)
		}
	}
	if _, ok := c.get(id(1), until); ok || len(c.byKey) != 1 || c.used.Len() != 1 {
		t.Errorf("one that is over stays: %d, %d", len(c.byKey), c.used.Len())
	}
}

// Requests with the same credentials share a question; it is given up when the
// last of them has left.
func TestForwardShares(t *testing.T) {
	var asked atomic.Int32
	open, over := make(chan struct{}), make(chan struct{}, 10)
	url := endpoint(t, func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		select {
		case <-open:
		case <-r.Context().Done():
			over <- struct{}{}
		}
	})
	s, a := adopt(t, session(url))
	var f *forwarder
	for _, f = range s.now.forwarders {
	}
	waiting := func() (n int) {
		f.mu.Lock()
		defer f.mu.Unlock()
		for _, q := range f.open {
			n += q.waiting
		}
		return n
	}
	left := errors.New("the client left")
	ctx, leave := context.WithCancelCause(t.Context())
	var results [8]Decision
	var group sync.WaitGroup
	for i := range results {
		group.Go(func() {
			with := t.Context()
			if i < 4 {
				with = ctx
			}
			results[i] = a.Check(with, by("session"), ask("/ws/?session_key=k3y"))
		})
	}
	eventually(t, "all of them wait", func() bool { return waiting() == 8 })
	leave(left)
	eventually(t, "some leave", func() bool { return waiting() == 4 })
	close(open)
	group.Wait()
	for i, d := range results {
		if i < 4 && (d.Result != Unavailable || d.Cause != left) || i >= 4 && d.Result != Passed {
			t.Errorf("%d: %s (%v)", i, d.Result, d.Cause)
		}
	}
	if n := asked.Load(); n != 1 {
		t.Errorf("%d questions, want one", n)
	}

	open = make(chan struct{})
	ctx, leave = context.WithCancelCause(t.Context())
	group.Go(func() { a.Check(ctx, by("session"), ask("/ws/?session_key=k3y")) })
	eventually(t, "it asks", func() bool { return asked.Load() == 2 })
	leave(left)
	group.Wait()
	await(t, "the end of a question that nobody waits for", over)
	if waiting() != 0 {
		t.Error("it is still open")
	}

	group.Go(func() { a.Check(t.Context(), by("session"), ask("/ws/?session_key=k3y")) })
	eventually(t, "it asks", func() bool { return asked.Load() == 3 })
	s.Close()
	group.Wait()
	await(t, "the end of a question when all ends", over)
	if d := a.Check(t.Context(), by("session"), ask("/ws/?session_key=k3y")); d.Result != Unavailable {
		t.Errorf("after the end: %s", d.Result)
	}
}

// A reload keeps what is known of an endpoint whose config is the same.
func TestForwardReload(t *testing.T) {
	var asked atomic.Int32
	url := endpoint(t, func(http.ResponseWriter, *http.Request) { asked.Add(1) })
	with := func(cache time.Duration) Config { return session(url, func(f *Forward) { f.Cache = cache }) }
	s, _ := adopt(t, with(time.Minute))
	for i, c := range []struct {
		cfg  Config
		want int32
	}{{with(time.Minute), 1}, {with(time.Minute), 1}, {with(time.Hour), 2}} {
		readopt(t, s, c.cfg).Check(t.Context(), by("session"), ask("/ws/?session_key=k3y"))
		if n := asked.Load(); n != c.want {
			t.Errorf("after reload %d: %d questions, want %d", i, n, c.want)
		}
	}
}

// In a choice of a token and a session, what is said of the one that the request
// has counts.
func TestForwardBesideTokens(t *testing.T) {
	down := endpoint(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) })
	refusing := endpoint(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(401) })
	token := named("token", Config{JWT: &JWT{Algorithms: []string{"HS256"}, KeyFile: secretFile(t), From: []Source{tokenInQuery}}})
	old := "?token=" + djangoToken(t, "exp", 1)
	for _, c := range []struct {
		url, target string
		want        Result
	}{
		{refusing, "/ws/", Refused}, {refusing, "/ws/" + old, Expired}, {refusing, "/ws/?token=x", Invalid}, {refusing, "/ws/?session_key=k3y", Refused},
		{refusing, "/ws/" + old + "&session_key=k3y", Refused},
		{down, "/ws/", Unavailable}, {down, "/ws/" + old, Expired}, {down, "/ws/?session_key=k3y", Unavailable}, {down, "/ws/" + old + "&session_key=k3y", Unavailable},
		{down, "/ws/?token=" + djangoToken(t), Passed},
	} {
		_, a := adopt(t, token, session(c.url))
		for _, rule := range []Rule{by("token", "session"), by("session", "token")} {
			if d := a.Check(t.Context(), rule, ask(c.target)); d.Result != c.want {
				t.Errorf("%.24s: %s (%v), want %s", c.target, d.Result, d.Cause, c.want)
			}
		}
	}
}
