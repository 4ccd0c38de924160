// Package certs says where certificates come from: PEM files, and a development
// CA for machines that have none yet. A Store keeps the certificates of all TLS
// listeners, chooses one for every handshake, and swaps the whole set without
// touching a connection. It also holds the TLS policy: versions, cipher suites,
// ALPN.
//
// The package is a leaf: it imports the standard library only, and knows
// nothing of listeners, routes or the config file.
package certs

import (
	"crypto/tls"
	"fmt"
	"slices"
	"sync/atomic"
	"time"
)

// A Pair names the files of one certificate. Relative names are taken from the
// working directory.
type Pair struct {
	At   string // where it is written, "singlegate.yaml:7:7"; begins every error and warning about it
	Cert string // PEM file with the leaf, followed by its intermediates
	Key  string // PEM file with the private key; "" when Cert holds it too
}

// Config says what a Store serves.
type Config struct {
	Certificates []Pair // the first is the default, for clients that ask for a name that none covers
	MinVersion   uint16 // tls.VersionTLS12 or tls.VersionTLS13; 0 means TLS 1.2
}

// A Store holds the certificates and the TLS policy of the gateway's listeners.
// Its methods may be called at any time from any goroutine.
type Store struct {
	current   atomic.Pointer[set]
	listeners *tls.Config
}

// Load reads all certificates and checks them: files, PEM, that the key belongs
// to the leaf, validity at this moment, names. The error joins every problem,
// each beginning with the Pair's At; no error holds key material. Without any
// certificate the store is empty, for sites without TLS: handshakes fail.
func Load(cfg Config) (*Store, error) {
	first, err := loadSet(cfg, time.Now())
	if err != nil {
		return nil, err
	}
	s := new(Store)
	s.current.Store(first)
	s.listeners = s.listenerConfig()
	return s, nil
}

// Reload reads everything anew and serves it to handshakes that begin from now
// on. It is all or nothing: when it fails, the old set goes on, and the error
// says what Load would have said. Established connections and session tickets
// are not touched. The files are always read, also when cfg is the same as
// before.
func (s *Store) Reload(cfg Config) error {
	next, err := loadSet(cfg, time.Now())
	if err != nil {
		return err
	}
	s.current.Store(next)
	return nil
}

// Adopt serves what other holds, from now on. It cannot fail: other was checked
// when it was loaded.
func (s *Store) Adopt(other *Store) { s.current.Store(other.current.Load()) }

// TLSConfig is the configuration for every listener; it follows each later
// Reload. All calls return the same value, so that a session ticket of one
// listener is good at the others: it must not be modified, only cloned.
func (s *Store) TLSConfig() *tls.Config { return s.listeners }

// Info describes one certificate, for start-up logs and metrics.
type Info struct {
	Names    []string // DNS names and IP addresses of the leaf
	NotAfter time.Time
	Source   string // the certificate's file
	Default  bool   // it answers when no certificate covers the name asked for
}

// Infos describes the certificates served now, in the order of the config.
func (s *Store) Infos() []Info {
	entries := s.current.Load().entries
	infos := make([]Info, len(entries))
	for i, e := range entries {
		infos[i] = Info{
			Names:    namesOf(e.leaf()),
			NotAfter: e.leaf().NotAfter,
			Source:   e.pair.Cert,
			Default:  i == 0,
		}
	}
	return infos
}

// expirySoon is how long before its end a certificate is warned about.
const expirySoon = 21 * 24 * time.Hour

// Warnings tells what is wrong with the certificates served now but did not
// keep them from being served: a chain without its intermediate, an end of
// validity within 21 days. Each begins with the Pair's At. It looks at the
// clock, so asking again later may bring more.
func (s *Store) Warnings() []string { return s.current.Load().warnings(time.Now()) }

func (s *set) warnings(now time.Time) []string {
	var all []string
	for _, e := range s.entries {
		all = append(all, e.warnings(now)...)
	}
	return all
}

func (e entry) warnings(now time.Time) []string {
	var all []string
	warn := func(format string, args ...any) {
		all = append(all, e.pair.At+": "+fmt.Sprintf(format, args...))
	}
	leaf := e.leaf()
	if !isSelfIssued(leaf) && !slices.ContainsFunc(e.chain[1:], isIssuerOf(leaf)) {
		warn("%s does not hold the issuer of its certificate, %q: clients that do not know it (mobile devices, mini-programs) will refuse the connection; "+
			"append the intermediate certificate to the file, or ignore this when that is the root which all clients trust",
			e.pair.Cert, leaf.Issuer.String())
	}
	for i, c := range e.chain {
		what := "the certificate"
		if i > 0 {
			what = fmt.Sprintf("the intermediate %q", c.Subject.String())
		}
		switch left := c.NotAfter.Sub(now); {
		case left <= 0:
			warn("%s in %s expired on %s: clients refuse it; renew it", what, e.pair.Cert, day(c.NotAfter))
		case left < expirySoon:
			warn("%s in %s expires on %s, in %d days: renew it", what, e.pair.Cert, day(c.NotAfter), int(left/(24*time.Hour)))
		}
	}
	return all
}

func day(t time.Time) string { return t.UTC().Format(time.DateOnly) }
