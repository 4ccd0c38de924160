package auth

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// A publisher serves a JWK set that tests change.
type publisher struct {
	*httptest.Server
	asked atomic.Int32

	mu      sync.Mutex
	handler http.HandlerFunc
}

func publish(t *testing.T, h http.HandlerFunc) *publisher {
	p := &publisher{handler: h}
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.asked.Add(1)
		p.mu.Lock()
		h := p.handler
		p.mu.Unlock()
		h(w, r)
	}))
	t.Cleanup(p.Close)
	return p
}

func (p *publisher) now(h http.HandlerFunc) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.handler = h
}

func fromURL(url string) Config {
	return named("chat", Config{JWT: &JWT{Algorithms: []string{"RS256"}, JWKSURL: url, From: []Source{tokenInQuery}}})
}

// theSet is the running key set of a Set.
func (s *Set) theSet() *keySet {
	for _, k := range s.now.keySets {
		return k
	}
	return nil
}

// While no keys are known nobody can tell; a new key is found when a token has
// its id, and not more often than a while; keys that are known outlive their source.
func TestJWKS(t *testing.T) {
	k := testKeys()
	old, both := setOf(t, map[string]any{"a": &k.rsa.PublicKey}), setOf(t, map[string]any{"a": &k.rsa.PublicKey, "b": &k.other.PublicKey})
	byA := signed(t, jwt.SigningMethodRS256, k.rsa, claims(), "kid", "a")
	byB := signed(t, jwt.SigningMethodRS256, k.other, claims(), "kid", "b")
	byZ := signed(t, jwt.SigningMethodRS256, k.other, claims(), "kid", "z")
	open := make(chan struct{})
	p := publish(t, func(w http.ResponseWriter, r *http.Request) {
		<-open
		io.WriteString(w, old)
	})
	s, a := adopt(t, fromURL(p.URL))
	check := func(token string) Decision { return a.Check(t.Context(), by("chat"), ask("/ws/?token="+token)) }
	if d := check(byA); d.Result != Unavailable {
		t.Errorf("before the keys are known: %s (%v)", d.Result, d.Cause)
	}
	close(open)
	eventually(t, "the keys", func() bool { return check(byA).Result == Passed })
	asked := p.asked.Load()
	if d := check(byB); d.Result != Invalid || d.Cause != errNoKey || p.asked.Load() != asked {
		t.Errorf("an unknown key just after a fetch: %s (%v), %d fetches more", d.Result, d.Cause, p.asked.Load()-asked)
	}
	p.now(text(both))
	s.theSet().mu.Lock()
	s.theSet().last = time.Now().Add(-time.Hour)
	s.theSet().mu.Unlock()
	if d := check(byB); d.Result != Passed || p.asked.Load() != asked+1 {
		t.Errorf("a new key: %s (%v), %d fetches more", d.Result, d.Cause, p.asked.Load()-asked)
	}
	p.now(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) })
	s.theSet().mu.Lock()
	s.theSet().last = time.Now().Add(-time.Hour)
	s.theSet().mu.Unlock()
	if d := check(byZ); d.Result != Invalid || p.asked.Load() != asked+2 {
		t.Errorf("a key that there is not: %s (%v), %d fetches more", d.Result, d.Cause, p.asked.Load()-asked)
	}
	if d := check(byB); d.Result != Passed {
		t.Errorf("after its source has failed: %s (%v)", d.Result, d.Cause)
	}

	same := readopt(t, s, fromURL(p.URL))
	if d := same.Check(t.Context(), by("chat"), ask("/ws/?token="+byB)); d.Result != Passed {
		t.Errorf("a reload has forgotten the keys: %s (%v)", d.Result, d.Cause)
	}
	before := s.theSet()
	readopt(t, s)
	await(t, "the end of a key set that is not needed", before.done)
}

// Whatever is behind the URL: nobody passes, and nothing hangs.
func TestJWKSFaults(t *testing.T) {
	k := testKeys()
	token := signed(t, jwt.SigningMethodRS256, k.rsa, claims())
	for name, h := range map[string]http.HandlerFunc{
		"404":        http.NotFound,
		"a page":     text("<html>"),
		"huge":       text(`{"keys":[` + strings.Repeat(" ", maxKeyFile) + `]}`),
		"secrets":    text(setOf(t, map[string]any{"a": secret})),
		"a redirect": func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/elsewhere", http.StatusFound) },
		"silence":    func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
	} {
		t.Run(name, func(t *testing.T) {
			p := publish(t, h)
			s, a := adopt(t, fromURL(p.URL))
			eventually(t, "a fetch", func() bool { return p.asked.Load() > 0 })
			if d := a.Check(t.Context(), by("chat"), ask("/ws/?token="+token)); d.Result != Unavailable {
				t.Errorf("got %s (%v)", d.Result, d.Cause)
			}
			s.Close()
		})
	}
}

// Whoever waits for a fetch is let go by the end of the request, and by that of
// the Set.
func TestJWKSWaitEnds(t *testing.T) {
	k := testKeys()
	p := publish(t, text(setOf(t, map[string]any{"a": &k.rsa.PublicKey})))
	s, _ := adopt(t, fromURL(p.URL))
	set := s.theSet()
	eventually(t, "the keys", func() bool { return set.keys() != nil })
	p.now(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	wait := func(ctx context.Context) <-chan bool {
		set.mu.Lock()
		set.last = time.Time{}
		set.mu.Unlock()
		done := make(chan bool, 1)
		go func() { done <- set.again(ctx) }()
		return done
	}
	ctx, cancel := context.WithCancel(t.Context())
	first, second := wait(ctx), wait(t.Context())
	cancel()
	if await(t, "a request that ended", first) {
		t.Error("it was told that there are new keys")
	}
	eventually(t, "the fetch", func() bool { return p.asked.Load() == 2 })
	s.Close()
	if await(t, "a request while the Set ends", second) {
		t.Error("it was told that there are new keys")
	}
}
