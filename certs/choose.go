package certs

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// A set is one state of a Store, immutable once built.
type set struct {
	cfg       Config
	pool      intermediates
	entries   []*entry
	exact     map[string][]*entry // by DNS name or IP address; those of a wildcard that covers the name come last
	wildcards map[string][]*entry // by the name without its "*." label
	fallback  []*entry            // the first certificate, and others of just the same names
	policy    *tls.Config
	managing  func() Managed // what is got elsewhere; set by who serves the set
}

// An entry is one certificate with what it was made from.
type entry struct {
	source    Source // of this one certificate, also where the config names a folder
	alias     string // the keystore's entry
	key       crypto.Signer
	chain     []*x509.Certificate // the leaf comes first
	completed int                 // how many of chain are from the folder of intermediates
	print     fingerprint         // of all files that it was made from

	counts *counts
	shown  atomic.Pointer[tls.Certificate] // with the OCSP answer of the moment
	ocsp   atomic.Pointer[ocspState]       // nil: not asked yet, or nobody to ask
}

// counts are those of one source, whatever certificate it holds.
type counts struct{ served, ocspFailures atomic.Uint64 }

func (e *entry) leaf() *x509.Certificate { return e.chain[0] }

// inherit takes over from the entry of the same source what goes on.
func (e *entry) inherit(old *entry) {
	e.counts = old.counts
	if old.leaf().Equal(e.leaf()) {
		if state := old.ocsp.Load(); state != nil {
			e.ocsp.Store(state)
			e.show(state.staple)
		}
	}
}

// show has the entry served with an OCSP answer, or without.
func (e *entry) show(staple []byte) {
	c := &tls.Certificate{PrivateKey: e.key, Leaf: e.leaf(), OCSPStaple: staple}
	for _, cert := range e.chain {
		c.Certificate = append(c.Certificate, cert.Raw)
	}
	e.shown.Store(c)
}

// loadSet reads what cfg names; its error joins every problem.
func loadSet(cfg Config, now time.Time) (*set, error) {
	problems := checkPolicy(cfg)
	pool, err := readIntermediates(cfg.Intermediates)
	if err != nil {
		problems = append(problems, fmt.Errorf("%s: %w", cfg.IntermediatesAt, err))
	}
	var entries []*entry
	for _, source := range cfg.Certificates {
		units, err := source.units()
		if err != nil {
			problems = append(problems, fmt.Errorf("%s: %w", source.At, err))
		}
		for _, unit := range units {
			e, err := loadEntry(unit, pool, now)
			if err != nil {
				problems = append(problems, err)
				continue
			}
			entries = append(entries, e)
		}
	}
	if cfg.SharedKey != "" {
		if cfg.shared, err = ReadSharedKey(cfg.SharedKey); err != nil {
			problems = append(problems, fmt.Errorf("%s: %w", cfg.SharedKeyAt, err))
		}
	}
	if len(problems) > 0 {
		return nil, errors.Join(problems...)
	}
	return newSet(cfg, pool, entries), nil
}

func newSet(cfg Config, pool intermediates, entries []*entry) *set {
	s := &set{
		cfg:       cfg,
		pool:      pool,
		entries:   entries,
		exact:     make(map[string][]*entry),
		wildcards: make(map[string][]*entry),
	}
	for _, e := range entries {
		for _, name := range namesOf(e.leaf()) {
			name = canonicalName(name)
			if parent, ok := strings.CutPrefix(name, "*."); ok {
				s.wildcards[parent] = addOnce(s.wildcards[parent], e)
			} else {
				s.exact[name] = addOnce(s.exact[name], e)
			}
		}
		if slices.Equal(sortedNames(e), sortedNames(entries[0])) {
			s.fallback = append(s.fallback, e)
		}
	}
	for name := range s.exact {
		for _, e := range s.wildcards[parentOf(name)] {
			s.exact[name] = addOnce(s.exact[name], e)
		}
	}
	s.policy = policyOf(s, cfg)
	s.turnTickets(time.Now())
	return s
}

func addOnce(entries []*entry, e *entry) []*entry {
	if slices.Contains(entries, e) {
		return entries
	}
	return append(entries, e)
}

// byID finds the entries of sources; of several with one source, the first.
func (s *set) byID() map[string]*entry {
	all := make(map[string]*entry, len(s.entries))
	for _, e := range slices.Backward(s.entries) {
		all[e.source.id()] = e
	}
	return all
}

// lacks lists the names of old that no certificate of the set covers.
func (s *set) lacks(old *entry) []string {
	var lost []string
	for _, name := range sortedNames(old) {
		parent, wildcard := strings.CutPrefix(name, "*.")
		covered := s.exact[name] != nil || s.wildcards[parentOf(name)] != nil
		if wildcard {
			covered = s.wildcards[parent] != nil
		}
		if !covered {
			lost = append(lost, name)
		}
	}
	return lost
}

var errNoCertificate = errors.New("certs: no certificate is configured")

// certificate chooses for one handshake:
//
//  1. those whose names hold the name asked for, or, when the client sends no
//     name, the address it connected to;
//  2. those with a wildcard for it, which stands for just one label;
//  3. the one of Managed whose name it is;
//  4. the first of the config, and others that have the same names; with
//     RefuseUnknown only for clients that send no name.
//
// Among several the first wins whose kind of key the client can verify; when
// there is none, the first, so that the handshake fails with a proper alert.
// Neither a certificate nor an error has crypto/tls answer unrecognized_name.
func (s *set) certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	candidates := s.named(hello)
	if candidates == nil {
		if c, ok, err := s.managedCertificate(hello); ok {
			return c, err
		}
		if len(s.entries) == 0 {
			return nil, errNoCertificate
		}
		candidates = s.unnamed(hello)
	}
	e := oneOf(candidates, hello)
	if e == nil {
		return nil, nil
	}
	e.counts.served.Add(1)
	return e.shown.Load(), nil
}

// oneOf chooses by the client's abilities.
func oneOf(candidates []*entry, hello *tls.ClientHelloInfo) *entry {
	switch len(candidates) {
	case 0:
		return nil
	case 1:
		return candidates[0]
	}
	// The names are settled. With the name left in, SupportsCertificate would
	// refuse the default certificate.
	keysOnly := *hello
	keysOnly.ServerName = ""
	for _, e := range candidates {
		if keysOnly.SupportsCertificate(e.shown.Load()) == nil {
			return e
		}
	}
	return candidates[0]
}

// named are the certificates for the name asked for.
func (s *set) named(hello *tls.ClientHelloInfo) []*entry {
	name := canonicalName(hello.ServerName)
	if name == "" {
		name = localIP(hello)
	}
	if found := s.exact[name]; found != nil {
		return found
	}
	return s.wildcards[parentOf(name)]
}

// unnamed are those for other names.
func (s *set) unnamed(hello *tls.ClientHelloInfo) []*entry {
	if canonicalName(hello.ServerName) != "" && s.cfg.RefuseUnknown {
		return nil
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

func sortedNames(e *entry) []string {
	names := namesOf(e.leaf())
	for i, name := range names {
		names[i] = canonicalName(name)
	}
	slices.Sort(names)
	return slices.Compact(names)
}
