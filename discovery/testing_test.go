package discovery

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"singlegate/internal/consultest"
	"singlegate/internal/leaktest"
)

// limit bounds every wait for something that is going to happen.
const limit = 30 * time.Second

func TestMain(m *testing.M) { leaktest.Main(m, "persistConn") }

// A recorder keeps what a running source publishes.
type recorder struct {
	mu     sync.Mutex
	snaps  []Snapshot
	news   chan struct{} // closed at the next one
	stop   func()
	source Source
}

// record runs a source until the test ends or stop is called.
func record(t testing.TB, s Source) *recorder {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	r := &recorder{news: make(chan struct{}), source: s}
	over := make(chan error, 1)
	go func() { over <- s.Run(ctx, r.publish) }()
	r.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-over; err != nil {
			t.Errorf("the source ended with %v", err)
		}
	})
	t.Cleanup(r.stop)
	return r
}

func (r *recorder) publish(s Snapshot) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.snaps = append(r.snaps, s)
	close(r.news)
	r.news = make(chan struct{})
}

func (r *recorder) latest() (Snapshot, chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.snaps) == 0 {
		return Snapshot{}, r.news
	}
	return r.snaps[len(r.snaps)-1], r.news
}

// all gives every snapshot so far.
func (r *recorder) all() []Snapshot {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.snaps)
}

// until waits for a snapshot whose service im is as wanted.
func (r *recorder) until(t testing.TB, what string, ok func(Service) bool) Service {
	t.Helper()
	over := time.After(limit)
	for {
		snap, news := r.latest()
		if s, known := snap.Services["im"]; known && ok(s) {
			return s
		}
		select {
		case <-news:
		case <-over:
			s := snap.Services["im"]
			t.Fatalf("waited in vain for: %s; there is %.200q, fault %q, left out %+v, not known is %v", what, ids(s), s.Fault, s.LeftOut, unknownOf(r.source))
		}
	}
}

// unknown waits until nothing is known of the service im for a reason like this.
func (r *recorder) unknown(t testing.TB, part string) {
	t.Helper()
	over := time.After(limit)
	for {
		snap, news := r.latest()
		why := unknownOf(r.source)["im"]
		if _, known := snap.Services["im"]; !known && strings.Contains(why, part) {
			return
		}
		select {
		case <-news:
		case <-over:
			t.Fatalf("waited in vain for the reason %q, it is %q; the last snapshot is %+v", part, why, snap)
		}
	}
}

func ids(s Service) string {
	var all []string
	for _, n := range s.Nodes {
		all = append(all, n.ID)
	}
	return strings.Join(all, " ")
}

func hasIDs(want string) func(Service) bool {
	return func(s Service) bool { return ids(s) == want }
}

// healthy is hasIDs for a source that is well.
func healthy(want string) func(Service) bool {
	return func(s Service) bool { return ids(s) == want && s.Fault == "" }
}

func faulty(part string) func(Service) bool {
	return func(s Service) bool { return strings.Contains(s.Fault, part) }
}

// neverLoses fails the test if a snapshot since the first with the service lacks
// one of the nodes.
func (r *recorder) neverLoses(t testing.TB, want ...string) {
	t.Helper()
	seen := false
	for i, snap := range r.all() {
		s, ok := snap.Services["im"]
		if !ok && seen {
			t.Errorf("snapshot %d lacks the service", i)
		}
		for _, id := range want {
			has := slices.ContainsFunc(s.Nodes, func(n Node) bool { return n.ID == id })
			if !has && seen {
				t.Fatalf("snapshot %d lacks the node %s: it has %q", i, id, ids(s))
			}
			seen = seen || has && id == want[len(want)-1]
		}
	}
}

// logged keeps what a source logs.
type logged struct {
	mu    sync.Mutex
	lines []string
}

func (l *logged) log(level, message string, pairs ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, strings.TrimSpace(fmt.Sprintln(append([]any{level, message}, pairs...)...)))
}

func (l *logged) count(part string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for _, line := range l.lines {
		if strings.Contains(line, part) {
			n++
		}
	}
	return n
}

// im is the service that most tests have.
var im = ConsulService{At: "test:1:1", Name: "im", Service: "im"}

// newSource makes a Consul source in a hurry.
func newSource(t testing.TB, cfg ConsulConfig, log Log, services ...ConsulService) *Consul {
	t.Helper()
	if len(services) == 0 {
		services = []ConsulService{im}
	}
	c, err := NewConsul(cfg, services, log)
	if err != nil {
		t.Fatal(err)
	}
	c.timing.confirm = 50 * time.Millisecond
	c.timing.leastPause = 10 * time.Millisecond
	c.timing.mostPause = 100 * time.Millisecond
	c.timing.recheck = time.Second
	return c
}

func registration(id string) api.AgentServiceRegistration {
	return api.AgentServiceRegistration{Name: "im", ID: id, Port: 8083, Address: "10.0.0.1"}
}

func register(a *consultest.Agent, ids ...string) {
	for _, id := range ids {
		a.Register(registration(id))
	}
}
