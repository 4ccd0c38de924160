package certs

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Managed are certificates that are got and renewed elsewhere, as by ACME. All
// methods are safe for concurrent use, and but for Challenge they do not wait.
type Managed interface {
	// Serves tells whether Certificate is for handshakes with that name. It does not
	// allocate for a name in lower case without a final dot.
	Serves(name string) bool

	// Certificate is the one for such a name; "" stands for the first name of all.
	// While there is none yet the error says why.
	Certificate(name string) (*tls.Certificate, error)

	// Challenge is the certificate for a handshake by which an ACME server verifies
	// a name (RFC 8737).
	Challenge(hello *tls.ClientHelloInfo) (*tls.Certificate, error)

	// States tells of every name, the first one first.
	States() []ManagedState
}

// A ManagedState tells of one name.
type ManagedState struct {
	At          string // where it is written
	Name        string
	Source      string           // "acme ca.internal"
	Certificate *tls.Certificate // with its Leaf; nil: there is none yet
	Fault       string           // why it could not be got or renewed the last time; "": nothing is wrong
	Served      uint64
}

// challengeProtocol is the one ALPN name of handshakes that are challenges.
const challengeProtocol = "acme-tls/1"

// Manage has the names of m served that no certificate of the store covers, from
// now on, whatever is adopted; nil ends that.
func (s *Store) Manage(m Managed) {
	if m == nil {
		s.managed.Store(nil)
		return
	}
	s.managed.Store(&m)
	wake(s.news)
}

func (s *Store) managing() Managed {
	if m := s.managed.Load(); m != nil {
		return *m
	}
	return nil
}

// Covers tells whether a certificate of the store itself is for a name, which may
// be a wildcard.
func (s *Store) Covers(name string) bool {
	set, name := s.current.Load(), canonicalName(name)
	return set.exact[name] != nil || set.wildcards[parentOf(name)] != nil
}

// challenge is the configuration for one handshake that is a challenge: that
// protocol alone, and no ticket that would be good for anything else.
func challenge(m Managed, hello *tls.ClientHelloInfo) (*tls.Config, error) {
	c, err := m.Challenge(hello)
	if err != nil {
		return nil, fmt.Errorf("a challenge for %q: %w", hello.ServerName, err)
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS12, NextProtos: []string{challengeProtocol}, SessionTicketsDisabled: true,
		Certificates: []tls.Certificate{*c},
	}, nil
}

func isChallenge(hello *tls.ClientHelloInfo) bool {
	return len(hello.SupportedProtos) == 1 && hello.SupportedProtos[0] == challengeProtocol
}

// A NoCertificateError is a handshake for a name whose certificate is still being
// got. Its method NoCertificate is how others can tell.
type NoCertificateError struct{ cause error }

// Error implements error.
func (e *NoCertificateError) Error() string { return e.cause.Error() }

// Unwrap gives the cause.
func (e *NoCertificateError) Unwrap() error { return e.cause }

// NoCertificate is true.
func (e *NoCertificateError) NoCertificate() bool { return true }

// managedCertificate is the one for a handshake whose name no certificate of the
// set covers; ok is false when the default is to answer.
func (s *set) managedCertificate(hello *tls.ClientHelloInfo) (c *tls.Certificate, ok bool, err error) {
	if s.managing == nil {
		return nil, false, nil
	}
	m := s.managing()
	if m == nil {
		return nil, false, nil
	}
	name := canonicalName(hello.ServerName)
	if !m.Serves(name) {
		if len(s.entries) > 0 || name != "" && s.cfg.RefuseUnknown {
			return nil, len(s.entries) == 0, nil
		}
		name = ""
	}
	if c, err = m.Certificate(name); err != nil {
		return nil, true, &NoCertificateError{err}
	}
	return c, true, nil
}

// managedInfos describes what is got elsewhere.
func (s *Store) managedInfos(set *set) []Info {
	m := s.managing()
	if m == nil {
		return nil
	}
	var infos []Info
	for _, state := range m.States() {
		info := Info{Names: []string{state.Name}, Source: state.Source}
		if e, err := state.entry(); err == nil {
			info = e.info(set)
		}
		info.Served, info.Fault = state.Served, state.Fault
		infos = append(infos, info)
	}
	if len(set.entries) == 0 && len(infos) > 0 {
		infos[0].Default = true
	}
	return infos
}

var errNoneYet = errors.New("there is no certificate yet")

// entry is the certificate as if it were one of the files.
func (m ManagedState) entry() (*entry, error) {
	if m.Certificate == nil {
		return nil, errNoneYet
	}
	e := &entry{source: Source{At: m.At, Cert: m.Source}, counts: new(counts)}
	for _, der := range m.Certificate.Certificate {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, err
		}
		e.chain = append(e.chain, c)
	}
	if len(m.Certificate.OCSPStaple) > 0 {
		e.ocsp.Store(&ocspState{status: "good", staple: m.Certificate.OCSPStaple})
	}
	return e, nil
}

// lateShare is the share of its life with which a certificate should have been
// renewed: it is tried when a third is left.
const lateShare = 6

// managedWarnings tells of certificates that are not renewed in time.
func (s *Store) managedWarnings(now time.Time) []warning {
	m := s.managing()
	if m == nil {
		return nil
	}
	var all []warning
	for _, state := range m.States() {
		if state.Certificate == nil {
			continue
		}
		leaf := state.Certificate.Leaf
		left, life := leaf.NotAfter.Sub(now), leaf.NotAfter.Sub(leaf.NotBefore)
		if left > life/lateShare {
			continue
		}
		steps := expirySteps()
		step := slices.IndexFunc(steps, func(days int) bool { return left < time.Duration(days)*oneDay })
		text := fmt.Sprintf("%s: the certificate for %s (%s) ends on %s and should have been renewed", state.At, state.Name, state.Source, leaf.NotAfter.UTC().Format(time.DateTime))
		if state.Fault != "" {
			text += ": " + state.Fault
		}
		all = append(all, warning{fmt.Sprintf("managed %s %x %d %t", state.Name, leaf.SerialNumber, step, left <= 0), text})
	}
	return all
}
