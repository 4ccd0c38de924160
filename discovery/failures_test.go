package discovery

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"singlegate/internal/consultest"
)

// counting makes a source whose failures are counted.
func counting(t *testing.T, cfg ConsulConfig, services ...ConsulService) (*Consul, *Failures) {
	t.Helper()
	c, f := newSource(t, cfg, nil, services...), &Failures{}
	c.CountFailures(f)
	return c, f
}

// onlyCounts waits until failures of this kind were counted for im, and fails
// the test if another kind was.
func onlyCounts(t *testing.T, f *Failures, kind FailureKind) {
	t.Helper()
	for end := time.Now().Add(limit); f.Counts()[Failure{"im", kind}] == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for a failure of the kind %q; there are %v", kind, f.Counts())
		}
	}
	for _, other := range FailureKinds() {
		if n := f.Counts()[Failure{"im", other}]; other != kind && n > 0 {
			t.Errorf("%d failures of the kind %q are counted beside %q", n, other, kind)
		}
	}
}

// Whatever is wrong with a real Consul, its queries are counted by what it is,
// and none is while all is well.
func TestFailuresOfConsulAreCounted(t *testing.T) {
	t.Parallel()
	t.Run("unreachable", func(t *testing.T) {
		a := consultest.Start(t, consultest.Options{})
		register(a, "node1")
		c, f := counting(t, ConsulConfig{Address: a.Address})
		r := record(t, c)
		r.until(t, "node1", healthy("node1"))
		if got := f.Counts(); len(got) != len(FailureKinds()) || slices.Max(slices.Collect(maps.Values(got))) > 0 {
			t.Errorf("without a failure there are %v, want 0 of every kind", got)
		}
		a.Kill()
		r.until(t, "a fault", faulty("Consul"))
		onlyCounts(t, f, Unreachable)
	})
	t.Run("no leader", func(t *testing.T) {
		a := consultest.Start(t, consultest.Options{Data: true, Servers: 2})
		c, f := counting(t, ConsulConfig{Address: a.Address, Wait: time.Second})
		record(t, c)
		onlyCounts(t, f, NoLeader)
	})
	t.Run("refused and hidden", func(t *testing.T) {
		a := consultest.Start(t, consultest.Options{ACL: true})
		file := filepath.Join(t.TempDir(), "token")
		if err := os.WriteFile(file, []byte("5e0a7e55-0000-4000-8000-00000000dead"), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, cfg := range []ConsulConfig{{Address: a.Address, TokenFile: file}, {Address: a.Address}} {
			c, f := counting(t, cfg)
			record(t, c)
			onlyCounts(t, f, Refused)
		}
	})
	t.Run("other", func(t *testing.T) {
		a := consultest.Start(t, consultest.Options{})
		c, f := counting(t, ConsulConfig{Address: a.Address, Datacenter: "elsewhere"})
		record(t, c)
		onlyCounts(t, f, OtherFault)
	})
}

// A query that several services wait for is counted for each of them; a source
// that takes over goes on counting those that it has.
func TestFailuresByService(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	services := []ConsulService{im, {Name: "web", Service: "web", Ports: map[string]PortFrom{"tcp": {Sibling: "im"}}}, {Name: "old", Service: "old"}}
	c, f := counting(t, ConsulConfig{Address: l.Addr().String()}, services...)
	r := record(t, c)
	for _, name := range []string{"im", "web", "old"} {
		for end := time.Now().Add(limit); f.Counts()[Failure{name, Unreachable}] == 0; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("nothing is counted for %s: %v", name, f.Counts())
			}
		}
	}
	r.stop()
	before := f.Counts()
	newSource(t, ConsulConfig{Address: l.Addr().String()}, nil, services[:2]...).CountFailures(f)
	after := f.Counts()
	for what, n := range before {
		if got, there := after[what]; there != (what.Service != "old") || there && got != n {
			t.Errorf("%v was %d, and is %d, %v", what, n, got, there)
		}
	}
}

func TestFailureKinds(t *testing.T) {
	dialing := func(err error) error {
		return &url.Error{Op: "Get", Err: &net.OpError{Op: "dial", Err: err}}
	}
	for _, c := range []struct {
		err  error
		want FailureKind
	}{
		{dialing(syscall.ECONNREFUSED), Unreachable},
		{dialing(syscall.EHOSTUNREACH), Unreachable},
		{dialing(os.ErrDeadlineExceeded), Unreachable},
		{dialing(&net.DNSError{IsNotFound: true}), Unreachable},
		{context.DeadlineExceeded, Unreachable},
		{fmt.Errorf("reading: %w", io.ErrUnexpectedEOF), Unreachable},
		{api.StatusError{Code: 403, Body: "ACL not found"}, Refused},
		{api.StatusError{Code: 500, Body: "No cluster leader"}, NoLeader},
		{api.StatusError{Code: 500, Body: "rpc error making call: EOF\n"}, NoLeader},
		{api.StatusError{Code: 500, Body: "rpc error getting client: failed to get conn: dial tcp 127.0.0.1:0->127.0.0.1:8300: connect: connection refused"}, NoLeader},
		{api.StatusError{Code: 500, Body: "No known Consul servers"}, NoLeader},
		{api.StatusError{Code: 500, Body: "Raft leader not found in server lookup mapping"}, NoLeader},
		{api.StatusError{Code: 500, Body: "rpc error making call: no such thing"}, OtherFault},
		{api.StatusError{Code: 429}, OtherFault},
		{&tokenError{"the token file is empty"}, OtherFault},
		{dialing(x509.UnknownAuthorityError{}), OtherFault},
		{errors.New("anything else"), OtherFault},
	} {
		if got := failureOf(c.err); got != c.want {
			t.Errorf("%v is %q, want %q", c.err, got, c.want)
		}
	}
}

// An answer may be a fault as well.
func TestFailuresInAnswers(t *testing.T) {
	some := []*api.ServiceEntry{{}}
	for _, c := range []struct {
		name string
		a    answer
		want FailureKind
	}{
		{"well", answer{entries: some, leader: true, index: 1}, ""},
		{"empty", answer{leader: true, index: 1}, ""},
		{"no leader", answer{entries: some, index: 1}, NoLeader},
		{"no token", answer{leader: true, blind: true}, Refused},
		{"cut down to nothing", answer{leader: true, filtered: true}, Refused},
	} {
		b := &belief{}
		b.answered(c.a, time.Now())
		if got := b.failureIn(c.a); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}
