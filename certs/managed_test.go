package certs

import (
	"crypto/tls"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
)

// fakeManaged has certificates by name; nil: it is still being got.
type fakeManaged struct {
	names []string
	held  map[string]*tls.Certificate
}

func (f *fakeManaged) Serves(name string) bool { return slices.Contains(f.names, name) }

func (f *fakeManaged) Certificate(name string) (*tls.Certificate, error) {
	if name == "" {
		name = f.names[0]
	}
	if c := f.held[name]; c != nil {
		return c, nil
	}
	return nil, errors.New("it is being got")
}

func (f *fakeManaged) Challenge(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	return f.Certificate(hello.ServerName)
}

func (f *fakeManaged) States() (states []ManagedState) {
	for _, name := range f.names {
		s := ManagedState{At: "gateway.yaml:3:7", Name: name, Source: "acme ca.internal", Certificate: f.held[name], Served: 7}
		if s.Certificate == nil {
			s.Fault = "the server is gone"
		}
		states = append(states, s)
	}
	return states
}

// manage makes a managed certificate that has such a part of its life left.
func manage(t *testing.T, name string, left time.Duration) *tls.Certificate {
	t.Helper()
	key, template := ecKey(t), leaf(name)
	template.NotBefore, template.NotAfter = time.Now().Add(-100*time.Hour), time.Now().Add(left)
	c := sign(t, template, key, nil)
	return &tls.Certificate{Certificate: [][]byte{c.Raw}, PrivateKey: key, Leaf: c}
}

// Files come first, then what is got elsewhere, then the default.
func TestManagedChoice(t *testing.T) {
	dir := t.TempDir()
	m := &fakeManaged{names: []string{"acme.test", "x.wild.test", "exact.test", "coming.test"}, held: map[string]*tls.Certificate{}}
	for _, name := range m.names[:3] {
		m.held[name] = manage(t, name, 1000*time.Hour)
	}
	sources := []Source{pair(t, dir, "default.pem", "exact.test"), pair(t, dir, "wild.pem", "*.wild.test")}
	for _, c := range []struct {
		name     string
		sources  []Source
		refuse   bool
		asked    string
		expected string // the first name of the certificate; "": the handshake fails
	}{
		{"a file", sources, false, "exact.test", "exact.test file"},
		{"a file's wildcard", sources, false, "x.wild.test", "*.wild.test file"},
		{"ACME", sources, false, "ACME.test.", "acme.test"},
		{"unknown", sources, false, "else.test", "exact.test file"},
		{"unknown, refused", sources, true, "else.test", ""},
		{"no name", sources, true, "", "exact.test file"},
		{"still being got", sources, false, "coming.test", ""},
		{"ACME alone", nil, false, "x.wild.test", "x.wild.test"},
		{"ACME alone, unknown", nil, false, "else.test", "acme.test"},
		{"ACME alone, unknown, refused", nil, true, "else.test", ""},
		{"ACME alone, no name", nil, true, "", "acme.test"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, err := Load(Config{Certificates: c.sources, RefuseUnknown: c.refuse})
			if err != nil {
				t.Fatal(err)
			}
			s.Manage(m)
			other, err := Load(Config{Certificates: c.sources, RefuseUnknown: c.refuse})
			if err != nil {
				t.Fatal(err)
			}
			s.Adopt(other) // what is managed stays
			hello := &tls.ClientHelloInfo{ServerName: c.asked}
			got, err := s.current.Load().certificate(hello)
			text := ""
			if got != nil {
				text = got.Leaf.DNSNames[0]
				if m.held[text] == nil || !m.held[text].Leaf.Equal(got.Leaf) {
					text += " file"
				}
			}
			if text != c.expected {
				t.Errorf("%q is answered with %q (%v), want %q", c.asked, text, err, c.expected)
			}
			lacking, ok := errors.AsType[*NoCertificateError](err)
			if (c.asked == "coming.test") != (ok && lacking.NoCertificate()) {
				t.Errorf("the error is %v", err)
			}
		})
	}
}

// Handshakes of challenges speak their protocol alone, others never do.
func TestManagedChallenge(t *testing.T) {
	dir := t.TempDir()
	s := load(t, pair(t, dir, "default.pem", "exact.test"))
	address := serve(t, s.TLSConfig(), "127.0.0.1:0")
	ask := func(name string) (tls.ConnectionState, error) {
		conn, err := tls.Dial("tcp", address, &tls.Config{ServerName: name, InsecureSkipVerify: true, NextProtos: []string{challengeProtocol}})
		if err != nil {
			return tls.ConnectionState{}, err
		}
		defer conn.Close()
		return conn.ConnectionState(), nil
	}
	if _, err := ask("acme.test"); err == nil {
		t.Error("without anything managed the protocol is spoken")
	}
	s.Manage(&fakeManaged{names: []string{"acme.test"}, held: map[string]*tls.Certificate{"acme.test": manage(t, "acme.test", time.Hour)}})
	state, err := ask("acme.test")
	if err != nil || state.NegotiatedProtocol != challengeProtocol || state.PeerCertificates[0].DNSNames[0] != "acme.test" {
		t.Errorf("%+v, %v", state.NegotiatedProtocol, err)
	}
	if _, err := ask("exact.test"); err == nil {
		t.Error("a name that is not managed has a challenge")
	}
	s.Manage(nil)
	if _, err := ask("acme.test"); err == nil {
		t.Error("what is managed no more has a challenge")
	}
}

// What operators see: the state of each name, and a warning when one is late.
func TestManagedInfos(t *testing.T) {
	s := load(t)
	m := &fakeManaged{names: []string{"fresh.test", "late.test", "coming.test"}, held: map[string]*tls.Certificate{
		"fresh.test": manage(t, "fresh.test", 100*time.Hour), "late.test": manage(t, "late.test", 10*time.Hour),
	}}
	s.Manage(m)
	infos := s.Infos()
	if len(infos) != 3 || !infos[0].Default || infos[1].Default {
		t.Fatalf("%+v", infos)
	}
	for i, name := range m.names {
		if infos[i].Names[0] != name || infos[i].Source != "acme ca.internal" || infos[i].Served != 7 {
			t.Errorf("%+v", infos[i])
		}
	}
	if infos[0].NotAfter.IsZero() || infos[0].Key != "ECDSA P-256" || infos[0].Fault != "" || !infos[2].NotAfter.IsZero() || infos[2].Fault == "" {
		t.Errorf("%+v", infos)
	}
	warnings := s.Warnings()
	if len(warnings) != 1 || !strings.HasPrefix(warnings[0], "gateway.yaml:3:7: the certificate for late.test (acme ca.internal) ends on ") {
		t.Errorf("%q", warnings)
	}
	if !load(t, pair(t, t.TempDir(), "x.pem", "*.wild.test")).Covers("X.wild.test") || s.Covers("fresh.test") {
		t.Error("Covers is wrong")
	}
}
