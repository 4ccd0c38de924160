package certs

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// A set is one state of a Store, immutable once built.
type set struct {
	entries   []entry
	exact     map[string][]*tls.Certificate // by DNS name or IP address; those of a wildcard that covers the name come last
	wildcards map[string][]*tls.Certificate // by the name without its "*." label
	fallback  []*tls.Certificate            // the first certificate, and others of just the same names
	policy    *tls.Config
}

// An entry is one certificate with what it was made from.
type entry struct {
	pair  Pair
	cert  *tls.Certificate
	chain []*x509.Certificate // the leaf comes first
}

func (e entry) leaf() *x509.Certificate { return e.chain[0] }

// loadSet reads what cfg names; its error joins every problem.
func loadSet(cfg Config, now time.Time) (*set, error) {
	var problems []error
	switch cfg.MinVersion {
	case 0:
		cfg.MinVersion = tls.VersionTLS12
	case tls.VersionTLS12, tls.VersionTLS13:
	default:
		problems = append(problems, fmt.Errorf("minimum TLS version %s: expected TLS 1.2 or TLS 1.3; older ones are not secure", tls.VersionName(cfg.MinVersion)))
	}
	var entries []entry
	for _, pair := range cfg.Certificates {
		e, err := loadPair(pair, now)
		if err != nil {
			problems = append(problems, err)
			continue
		}
		entries = append(entries, e)
	}
	if len(problems) > 0 {
		return nil, errors.Join(problems...)
	}
	return newSet(entries, cfg.MinVersion), nil
}

func newSet(entries []entry, minVersion uint16) *set {
	s := &set{
		entries:   entries,
		exact:     make(map[string][]*tls.Certificate),
		wildcards: make(map[string][]*tls.Certificate),
	}
	for _, e := range entries {
		for _, name := range namesOf(e.leaf()) {
			name = canonicalName(name)
			if parent, ok := strings.CutPrefix(name, "*."); ok {
				s.wildcards[parent] = addOnce(s.wildcards[parent], e.cert)
			} else {
				s.exact[name] = addOnce(s.exact[name], e.cert)
			}
		}
		if slices.Equal(sortedNames(e), sortedNames(entries[0])) {
			s.fallback = append(s.fallback, e.cert)
		}
	}
	for name := range s.exact {
		for _, cert := range s.wildcards[parentOf(name)] {
			s.exact[name] = addOnce(s.exact[name], cert)
		}
	}
	s.policy = policyOf(s, minVersion)
	return s
}

func addOnce(certs []*tls.Certificate, cert *tls.Certificate) []*tls.Certificate {
	if slices.Contains(certs, cert) {
		return certs
	}
	return append(certs, cert)
}

var errNoCertificate = errors.New("certs: no certificate is configured")

// certificate chooses for one handshake:
//
//  1. those whose names hold the name asked for, or, when the client sends no
//     name, the address it connected to;
//  2. those with a wildcard for it, which stands for just one label;
//  3. the first of the config, and others that have the same names.
//
// Among several the first wins whose kind of key the client can verify; when
// there is none, the first, so that the handshake fails with a proper alert.
func (s *set) certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	candidates := s.candidates(hello)
	switch len(candidates) {
	case 0:
		return nil, errNoCertificate
	case 1:
		return candidates[0], nil
	}
	// The names are settled. With the name left in, SupportsCertificate would
	// refuse the default certificate.
	keysOnly := *hello
	keysOnly.ServerName = ""
	for _, cert := range candidates {
		if keysOnly.SupportsCertificate(cert) == nil {
			return cert, nil
		}
	}
	return candidates[0], nil
}

func (s *set) candidates(hello *tls.ClientHelloInfo) []*tls.Certificate {
	name := canonicalName(hello.ServerName)
	if name == "" {
		name = localIP(hello)
	}
	if found := s.exact[name]; found != nil {
		return found
	}
	if found := s.wildcards[parentOf(name)]; found != nil {
		return found
	}
	return s.fallback
}

// localIP is the address that the client connected to.
func localIP(hello *tls.ClientHelloInfo) string {
	if hello.Conn == nil || hello.Conn.LocalAddr() == nil {
		return ""
	}
	addr, err := netip.ParseAddrPort(hello.Conn.LocalAddr().String())
	if err != nil {
		return ""
	}
	return addr.Addr().Unmap().WithZone("").String()
}

// canonicalName makes equal names equal: lower case, no trailing dot. It does
// not allocate for a name that is canonical already.
func canonicalName(name string) string {
	return strings.ToLower(strings.TrimSuffix(name, "."))
}

// parentOf is the name without its first label: what a wildcard is looked up by.
func parentOf(name string) string {
	_, parent, _ := strings.Cut(name, ".")
	return parent
}

// namesOf lists what a leaf is good for. The common name does not count: no
// client looks at it where there are, or should be, alternative names (RFC 9525
// section 2).
func namesOf(leaf *x509.Certificate) []string {
	names := slices.Clone(leaf.DNSNames)
	for _, ip := range leaf.IPAddresses {
		names = append(names, ip.String())
	}
	return names
}

func sortedNames(e entry) []string {
	names := namesOf(e.leaf())
	for i, name := range names {
		names[i] = canonicalName(name)
	}
	slices.Sort(names)
	return slices.Compact(names)
}
