package consulkv

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"singlegate/internal/consultest"
	"singlegate/internal/leaktest"
)

func TestMain(m *testing.M) { leaktest.Main(m, "persistConn") }

var secret = []byte(strings.Repeat("k", MinSecret))

func newStore(t *testing.T, client *api.Client, prefix string, secret []byte) *Store {
	t.Helper()
	s, err := New(client, prefix, secret)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestStore(t *testing.T) {
	t.Parallel()
	a := consultest.Start(t, consultest.Options{})
	ctx := t.Context()
	s, twin := newStore(t, a.API, "/singlegate/certs/", secret), newStore(t, a.API, "singlegate/certs", secret)
	values := map[string]string{"acme/a/x.key": "PRIVATE", "acme/a/x.crt": "public", "acme/b/y.key": "", "top": "t"}
	for key, value := range values {
		if err := s.Store(ctx, key, []byte(value)); err != nil {
			t.Fatal(err)
		}
	}
	for key, value := range values {
		got, err := twin.Load(ctx, key)
		if err != nil || string(got) != value {
			t.Errorf("%s: %q %v", key, got, err)
		}
		info, err := twin.Stat(ctx, key)
		if err != nil || !info.IsTerminal || info.Size != int64(len(value)) || time.Since(info.Modified).Abs() > time.Hour {
			t.Errorf("%s: %+v %v", key, info, err)
		}
	}
	for _, c := range []struct {
		folder    string
		recursive bool
		want      []string
	}{
		{"", false, []string{"acme", "top"}},
		{"acme", false, []string{"acme/a", "acme/b"}},
		{"acme/a/", false, []string{"acme/a/x.crt", "acme/a/x.key"}},
		{"acme", true, []string{"acme/a", "acme/a/x.crt", "acme/a/x.key", "acme/b", "acme/b/y.key"}},
	} {
		if got, err := s.List(ctx, c.folder, c.recursive); err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%q %v: %v %v", c.folder, c.recursive, got, err)
		}
	}
	if info, err := s.Stat(ctx, "acme/a"); err != nil || info.IsTerminal {
		t.Errorf("a folder: %+v %v", info, err)
	}
	if !s.Exists(ctx, "acme") || !s.Exists(ctx, "top") || s.Exists(ctx, "to") || s.Exists(ctx, "acme/a/x") {
		t.Error("Exists is wrong")
	}
	if err := s.Delete(ctx, "acme/a"); err != nil {
		t.Fatal(err)
	}
	if err := s.Delete(ctx, "never/there"); err != nil {
		t.Error(err)
	}
	for _, err := range []error{
		second(s.Load(ctx, "acme/a/x.key")), second(s.Load(ctx, "none")), second(s.Stat(ctx, "none")), second(s.List(ctx, "none", true)),
	} {
		if !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("got %v, want that it is not there", err)
		}
	}
	if _, err := s.Load(ctx, "acme/b/y.key"); err != nil {
		t.Errorf("what stands beside a deleted folder: %v", err)
	}
}

func second[T any](_ T, err error) error { return err }

// Consul sees no value; one that was moved, changed or stored with another secret
// is not taken.
func TestSealed(t *testing.T) {
	t.Parallel()
	a := consultest.Start(t, consultest.Options{})
	ctx := t.Context()
	s := newStore(t, a.API, "p", secret)
	if err := s.Store(ctx, "k", []byte("PRIVATE KEY")); err != nil {
		t.Fatal(err)
	}
	pair, _, err := a.API.KV().Get("p/k", nil)
	if err != nil || bytes.Contains(pair.Value, []byte("PRIVATE")) {
		t.Fatalf("Consul has %q %v", pair.Value, err)
	}
	put := func(key string, value []byte) {
		if _, err := a.API.KV().Put(&api.KVPair{Key: "p/" + key, Value: value}, nil); err != nil {
			t.Fatal(err)
		}
	}
	put("moved", pair.Value)
	for i := range pair.Value {
		changed := bytes.Clone(pair.Value)
		changed[i] ^= 1
		if _, _, err := s.decrypt("k", changed); err == nil {
			t.Errorf("a change of byte %d is taken", i)
		}
	}
	for n := range pair.Value {
		if _, _, err := s.decrypt("k", pair.Value[:n]); err == nil {
			t.Errorf("%d bytes of it are taken", n)
		}
	}
	put("other", []byte("something else"))
	for _, key := range []string{"moved", "other"} {
		if _, err := s.Load(ctx, key); err == nil || strings.Contains(err.Error(), "PRIVATE") {
			t.Errorf("%s: %v", key, err)
		}
	}
	other := newStore(t, a.API, "p", []byte(strings.Repeat("o", MinSecret)))
	if _, err := other.Load(ctx, "k"); err == nil || !strings.Contains(err.Error(), "another key file") {
		t.Errorf("with another secret: %v", err)
	}
	if err := s.Store(ctx, "big", make([]byte, maxValue)); err == nil || !strings.Contains(err.Error(), "524288 at most") {
		t.Errorf("a value that is too large: %v", err)
	}
	if _, err := New(a.API, "p", secret[1:]); err == nil || !strings.Contains(err.Error(), "openssl rand") {
		t.Errorf("a secret that is too short: %v", err)
	}
}

// One holds a lock at a time, a waiting one gets it when it is given back, and a
// wait ends with its context.
func TestLock(t *testing.T) {
	t.Parallel()
	a := consultest.Start(t, consultest.Options{})
	ctx := t.Context()
	one, two := newStore(t, a.API, "p", secret), newStore(t, a.API, "p", secret)
	if err := one.Lock(ctx, "issue/im.example.gov"); err != nil {
		t.Fatal(err)
	}
	if err := one.Lock(ctx, "issue/another"); err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithCancelCause(ctx)
	given := errors.New("given up")
	waited := make(chan error)
	go func() { waited <- two.Lock(short, "issue/im.example.gov") }()
	cancel(given)
	if err := <-waited; !errors.Is(err, given) && !errors.Is(err, context.Canceled) {
		t.Errorf("the wait ended with %v", err)
	}

	go func() { waited <- two.Lock(ctx, "issue/im.example.gov") }()
	if err := one.Unlock(ctx, "issue/im.example.gov"); err != nil {
		t.Fatal(err)
	}
	if err := <-waited; err != nil {
		t.Error(err)
	}
	for _, err := range []error{two.Unlock(ctx, "issue/im.example.gov"), one.Unlock(ctx, "issue/another")} {
		if err != nil {
			t.Error(err)
		}
	}
	if err := one.Unlock(ctx, "issue/another"); err == nil {
		t.Error("a lock that is not held was given back")
	}
	if keys, _, err := a.API.KV().Keys("p/locks/", "", nil); err != nil || len(keys) > 0 {
		t.Errorf("left over: %v %v", keys, err)
	}
}
