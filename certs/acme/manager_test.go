package acme

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"

	"singlegate/certs/consulkv"
	"singlegate/internal/consultest"
	"singlegate/internal/leaktest"
	"singlegate/internal/pebbletest"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

// patience bounds every wait for something that is going to happen.
const patience = 60 * time.Second

// A site is a listener for HTTP and one for TLS, which ask the managers.
type site struct {
	http, tls Address

	mu       sync.Mutex
	managers []*Manager
}

func startSite(t *testing.T) *site {
	t.Helper()
	s := &site{}
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for _, m := range s.all() {
			if answer, ok := m.HTTPChallenge(hostOf(r), r.URL.Path); ok {
				io.WriteString(w, answer)
				return
			}
		}
		w.WriteHeader(http.StatusNotFound)
	}))
	t.Cleanup(web.Close)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cfg := &tls.Config{GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		c := &tls.Config{GetCertificate: s.certificate}
		if slices.Equal(hello.SupportedProtos, []string{"acme-tls/1"}) {
			c.NextProtos = []string{"acme-tls/1"}
		}
		return c, nil
	}}
	var conns sync.WaitGroup
	conns.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			conns.Go(func() {
				c.SetDeadline(time.Now().Add(10 * time.Second))
				tls.Server(c, cfg).Handshake()
				c.Close()
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		conns.Wait()
	})
	s.http, s.tls = addressOf(web.Listener), addressOf(l)
	return s
}

func hostOf(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.Host)
	if err != nil {
		return r.Host
	}
	return host
}

func addressOf(l net.Listener) Address {
	a := l.Addr().(*net.TCPAddr)
	return Address{Host: a.IP.String(), Port: a.Port}
}

func (s *site) all() []*Manager {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]*Manager(nil), s.managers...)
}

func (s *site) certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	err := fmt.Errorf("nobody serves %q", hello.ServerName)
	for _, m := range s.all() {
		var c *tls.Certificate
		if len(hello.SupportedProtos) == 1 {
			c, err = m.Challenge(hello)
		} else {
			c, err = m.Certificate(hello.ServerName)
		}
		if err == nil {
			return c, nil
		}
	}
	return nil, err
}

// run runs a manager of the site until the test ends.
func (s *site) run(t *testing.T, cfg Config) *Manager {
	t.Helper()
	m, err := New(cfg, func(level, message string, pairs ...any) {
		if level != "debug" {
			t.Log(level, message, fmt.Sprint(pairs...))
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	s.managers = append(s.managers, m)
	s.mu.Unlock()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		m.Run(ctx)
		close(ended)
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	return m
}

// certificate waits until the manager has one for every name and gives the first.
func (m *Manager) await(t *testing.T, good func(*x509.Certificate) bool) *x509.Certificate {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		all := true
		var first *x509.Certificate
		statuses := m.Statuses()
		for _, s := range statuses {
			if s.Certificate == nil || s.Fault != "" || !good(s.Certificate.Leaf) {
				all = false
				break
			}
			if first == nil {
				first = s.Certificate.Leaf
			}
		}
		if all {
			return first
		}
		if time.Now().After(end) {
			t.Fatalf("no certificate: %+v", statuses)
		}
	}
}

func whatever(*x509.Certificate) bool { return true }

// Each kind of challenge leads to certificates that clients accept.
func TestChallenges(t *testing.T) {
	t.Parallel()
	s := startSite(t)
	server := pebbletest.Start(t, pebbletest.Options{HTTPPort: s.http.Port, TLSPort: s.tls.Port})
	program := filepath.Join(t.TempDir(), "hook")
	script := fmt.Sprintf(`#!/bin/sh
case $1 in
present) curl -sf -d "{\"host\": \"$2\", \"value\": \"$3\"}" %[1]s/set-txt ;;
cleanup) curl -sf -d "{\"host\": \"$2\"}" %[1]s/clear-txt ;;
esac
`, server.DNS)
	if err := os.WriteFile(program, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name  string
		names []string
		tune  func(*Config)
	}{
		{"http-01", []string{"a.im.example.gov", "B.im.example.gov."}, func(c *Config) { c.HTTP = s.http }},
		{"tls-alpn-01", []string{"c.im.example.gov"}, func(c *Config) { c.TLS = s.tls }},
		{"dns-01", []string{"*.im.example.gov"}, func(c *Config) { c.Hook = program }},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := Config{Names: c.names, Directory: server.Directory, Roots: server.Roots, Storage: Files(t.TempDir()), Email: "ops@example.gov"}
			c.tune(&cfg)
			m := s.run(t, cfg)
			m.await(t, whatever)
			for _, name := range c.names {
				name = strings.Replace(canonical(name), "*", "x", 1)
				if !m.Serves(strings.ToUpper(name)) || m.Serves("y.x."+name) {
					t.Errorf("Serves is wrong for %s", name)
				}
				conn, err := tls.Dial("tcp", fmt.Sprintf("%s:%d", s.tls.Host, s.tls.Port), &tls.Config{ServerName: name, RootCAs: server.Issued(t)})
				if err != nil {
					t.Errorf("%s: %v", name, err)
					continue
				}
				conn.Close()
			}
		})
	}
}

// A server that wants an external account gets one; without, nothing is got, and
// the status says why.
func TestExternalAccount(t *testing.T) {
	t.Parallel()
	s := startSite(t)
	const key = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"
	server := pebbletest.Start(t, pebbletest.Options{HTTPPort: s.http.Port, TLSPort: s.tls.Port, AccountKeys: map[string]string{"kid-1": key}})
	// certmagic knows challenges by their name in the whole process, so each manager
	// of these tests has names of its own.
	base := Config{Names: []string{"bound.example.gov"}, Directory: server.Directory, Roots: server.Roots, HTTP: s.http}
	bound, unbound := base, base
	bound.Storage, bound.KeyID, bound.MACKey = Files(t.TempDir()), "kid-1", key
	unbound.Storage, unbound.Names = Files(t.TempDir()), []string{"unbound.example.gov"}
	s.run(t, bound).await(t, whatever)
	m := s.run(t, unbound)
	for end := time.Now().Add(patience); !strings.Contains(strings.ToLower(m.Statuses()[0].Fault), "external"); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("got %+v", m.Statuses())
		}
	}
	if strings.Contains(m.Statuses()[0].Fault, key) {
		t.Error("the fault holds the key")
	}
}

// Two gateways that share a storage in Consul get one certificate, whichever of
// them answers the challenge; a third that comes later needs no server.
func TestSharedInConsul(t *testing.T) {
	t.Parallel()
	s := startSite(t)
	server := pebbletest.Start(t, pebbletest.Options{HTTPPort: s.http.Port, TLSPort: s.tls.Port})
	agent := consultest.Start(t, consultest.Options{})
	shared := func() certmagic.Storage {
		store, err := consulkv.New(agent.API, "singlegate/certs", []byte(strings.Repeat("k", consulkv.MinSecret)))
		if err != nil {
			t.Fatal(err)
		}
		return store
	}
	cfg := Config{Names: []string{"shared.example.gov"}, Directory: server.Directory, Roots: server.Roots, HTTP: s.http}
	var racing []*Manager
	for range 2 {
		cfg.Storage = shared()
		racing = append(racing, s.run(t, cfg))
	}
	one, two := racing[0].await(t, whatever), racing[1].await(t, whatever)
	cfg.Storage, cfg.Directory = shared(), server.Directory
	three := s.run(t, cfg).await(t, whatever)
	if !one.Equal(two) || !one.Equal(three) {
		t.Error("the gateways have different certificates")
	}
	if n := server.Orders(); n != 1 {
		t.Errorf("%d certificates were issued, want 1", n)
	}
}

// A certificate near its end is replaced by itself.
func TestRenewal(t *testing.T) {
	t.Parallel()
	s := startSite(t)
	server := pebbletest.Start(t, pebbletest.Options{HTTPPort: s.http.Port, TLSPort: s.tls.Port, Validity: 20 * time.Second})
	m := s.run(t, Config{
		Names: []string{"renewed.example.gov"}, Directory: server.Directory, Roots: server.Roots, HTTP: s.http,
		Storage: Files(t.TempDir()),
	})
	first := m.await(t, whatever)
	m.await(t, func(c *x509.Certificate) bool { return !c.Equal(first) })
}

// certmagic would open a socket on a host where none of our listeners is, and
// answer challenges by itself.
func TestNoSocketOfItsOwn(t *testing.T) {
	t.Parallel()
	s := startSite(t)
	web := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(web.Close)
	l, err := net.Listen("tcp", "127.0.0.2:0")
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { l.Close() })
	server := pebbletest.Start(t, pebbletest.Options{HTTPPort: addressOf(web.Listener).Port, TLSPort: addressOf(l).Port})
	m := s.run(t, Config{
		Names: []string{"elsewhere.example.gov"}, Directory: server.Directory, Roots: server.Roots, Storage: Files(t.TempDir()),
		HTTP: addressOf(web.Listener), TLS: addressOf(l),
	})
	for end := time.Now().Add(patience); !strings.Contains(m.Statuses()[0].Fault, "authorization failed"); time.Sleep(20 * time.Millisecond) {
		if m.Statuses()[0].Certificate != nil || time.Now().After(end) {
			t.Fatalf("somebody answered the challenge, or nobody was asked: %+v", m.Statuses())
		}
	}
}

func TestBadConfig(t *testing.T) {
	for _, c := range []struct {
		cfg  Config
		says string
	}{
		{Config{Names: []string{"*.example.gov"}, HTTP: Address{Port: 80}}, "dns-01"},
		{Config{Names: []string{"im.example.gov"}}, "no listener"},
	} {
		if _, err := New(c.cfg, nil); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%+v: %v", c.cfg, err)
		}
	}
}
