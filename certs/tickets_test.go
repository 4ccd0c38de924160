package certs

import (
	"crypto/tls"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// Keys follow the clock, and a ticket is good for a day and a half at least.
func TestTicketKeys(t *testing.T) {
	secret := []byte(strings.Repeat("s", MinSharedKey))
	start := time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC)
	made := ticketKeys(secret, start)[0]
	if got := ticketKeys(secret, start.Add(ticketPeriod-time.Second))[0]; got != made {
		t.Error("the key turned within its period")
	}
	if got := ticketKeys(secret, start.Add(ticketPeriod))[0]; got == made {
		t.Error("the key did not turn")
	}
	for _, c := range []struct {
		later time.Duration
		taken bool
	}{{-time.Minute, true}, {3 * ticketPeriod, true}, {4 * ticketPeriod, false}} {
		if got := slices.Contains(ticketKeys(secret, start.Add(c.later)), made); got != c.taken {
			t.Errorf("%v later it is taken: %v", c.later, got)
		}
	}
	if ticketKeys([]byte(strings.Repeat("t", MinSharedKey)), start)[0] == made {
		t.Error("another secret gives the same key")
	}
}

// A session begun with one gateway goes on with another that has the same key
// file, and with no other.
func TestTicketsAreShared(t *testing.T) {
	dir := t.TempDir()
	key := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	one, other := key("one", strings.Repeat("1", MinSharedKey)), key("other", strings.Repeat("2", MinSharedKey))
	dev, err := DevCertificate(filepath.Join(dir, "ca"), []string{"localhost"})
	if err != nil {
		t.Fatal(err)
	}
	gateway := func(shared string) *tls.Config {
		s, err := Load(Config{Certificates: []Source{{Cert: dev.CertFile, Key: dev.KeyFile}}, SharedKey: shared})
		if err != nil {
			t.Fatal(err)
		}
		return s.TLSConfig()
	}
	first, twin, stranger := gateway(one), gateway(one), gateway(other)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		client := &tls.Config{InsecureSkipVerify: true, ServerName: "localhost", MaxVersion: version, ClientSessionCache: tls.NewLRUClientSessionCache(4)}
		for _, c := range []struct {
			name    string
			server  *tls.Config
			resumed bool
		}{{"first", first, false}, {"again", first, true}, {"its twin", twin, true}, {"a stranger", stranger, false}} {
			if got := resumes(t, c.server, client); got != c.resumed {
				t.Errorf("%s, %s: resumed %v", tls.VersionName(version), c.name, got)
			}
		}
	}
	if _, err := Load(Config{SharedKeyAt: "f:1:2", SharedKey: key("short", "x")}); err == nil || !strings.Contains(err.Error(), "f:1:2") || !strings.Contains(err.Error(), "openssl rand") {
		t.Errorf("a short key: %v", err)
	}
}

// resumes makes a connection and tells whether its session went on.
func resumes(t *testing.T, server, config *tls.Config) bool {
	t.Helper()
	c := mustDial(t, serve(t, server, "127.0.0.1:0"), config)
	if err := c.echo("read it, so that the ticket is read as well"); err != nil {
		t.Fatal(err)
	}
	return c.state.DidResume
}
