// Package acme gets certificates from an ACME server (RFC 8555) and renews them,
// by certmagic. Gateways that share a storage share their certificates: one of
// them gets each, and any of them answers the challenges.
//
// The package is a leaf: it imports nothing else of this module.
package acme

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3/acme"
)

// Config says which certificates to get, from whom, and how to show that the
// names are ours.
type Config struct {
	Names     []string       // each gets a certificate of its own; a wildcard needs Hook
	Directory string         // URL of the ACME server's directory
	Email     string         // for the account; "": none
	Roots     *x509.CertPool // whom the server's certificate is verified by; nil: the system's

	// External account binding (RFC 8555 section 7.3.4), where the server asks for it.
	KeyID, MACKey string

	// HTTP and TLS are the addresses of listeners of ours on which HTTPChallenge
	// and Certificate are asked; "": there is none, and no such challenge is taken.
	HTTP, TLS Address

	Hook    string // a program that sets and removes the TXT record of a dns-01 challenge; "": dns-01 is not used, else nothing but it
	Storage certmagic.Storage

	NoStapling bool // no OCSP responder is asked
}

// An Address is where a listener listens. The zero value means nowhere.
type Address struct {
	Host string
	Port int
}

// A Log takes what a Manager has to tell. The level is "debug", "info", "warn" or
// "error", pairs are names (strings) and values by turns.
type Log func(level, message string, pairs ...any)

// A Manager keeps the certificates of a Config. Its methods are safe for
// concurrent use; Run is called once.
type Manager struct {
	names  []string // canonical
	served []atomic.Uint64
	cache  *certmagic.Cache
	magic  *certmagic.Config
	issuer *certmagic.ACMEIssuer
	log    Log
	places chan struct{} // for questions to the storage that strangers cause

	mu     sync.Mutex
	faults map[string]string
}

// maxAsked bounds the questions about challenges to the storage at a time.
const maxAsked = 16

// New returns a manager that has no certificate yet. It must be run, or closed by
// running it with a context that has ended.
func New(cfg Config, log Log) (*Manager, error) {
	if cfg.Hook == "" && slices.ContainsFunc(cfg.Names, isWildcard) {
		return nil, errors.New("a wildcard needs a dns-01 challenge: name a program that sets TXT records (hook)")
	}
	if cfg.Hook == "" && cfg.HTTP == (Address{}) && cfg.TLS == (Address{}) {
		return nil, errors.New("there is no listener on which a challenge could be answered, and no hook for dns-01")
	}
	if log == nil {
		log = func(string, string, ...any) {}
	}
	logger := bridge(log)
	m := &Manager{faults: map[string]string{}, log: log, places: make(chan struct{}, maxAsked), served: make([]atomic.Uint64, len(cfg.Names))}
	for _, name := range cfg.Names {
		m.names = append(m.names, canonical(name))
	}
	m.cache = certmagic.NewCache(certmagic.CacheOptions{
		GetConfigForCert:   func(certmagic.Certificate) (*certmagic.Config, error) { return m.magic, nil },
		RenewCheckInterval: lookPause,
		Logger:             logger,
	})
	m.magic = certmagic.New(m.cache, certmagic.Config{
		Storage: cfg.Storage,
		// With it an order names the certificate that it replaces, which servers
		// refuse when the account is another one since, as after a change of Email:
		// it would never be renewed.
		DisableARI:     true,
		KeySource:      certmagic.StandardKeyGenerator{KeyType: certmagic.P256},
		OCSP:           certmagic.OCSPConfig{DisableStapling: cfg.NoStapling},
		OnEvent:        m.event,
		ShouldEmitFunc: func(event string) bool { return event == "cert_failed" || event == "cert_obtained" },
		Logger:         logger,
	})
	m.issuer = certmagic.NewACMEIssuer(m.magic, cfg.issuer())
	m.issuer.Logger = logger
	m.magic.Issuers = []certmagic.Issuer{m.issuer}
	return m, nil
}

// lookPause is how often certificates are looked at, which asks nobody while none
// is near its end. certmagic renews whatever ends within five of it, at each look.
const lookPause = 10 * time.Second

// orderTime bounds the getting of one certificate.
const orderTime = 5 * time.Minute

func (cfg Config) issuer() certmagic.ACMEIssuer {
	is := certmagic.ACMEIssuer{
		CA:                      cfg.Directory,
		Email:                   cfg.Email,
		Agreed:                  true,
		TrustedRoots:            cfg.Roots,
		DisableHTTPChallenge:    cfg.HTTP == Address{},
		DisableTLSALPNChallenge: cfg.TLS == Address{},
		ListenHost:              cfg.listenHost(),
		AltHTTPPort:             cfg.HTTP.Port,
		AltTLSALPNPort:          cfg.TLS.Port,
		CertObtainTimeout:       orderTime,
	}
	if cfg.KeyID != "" {
		is.ExternalAccount = &acme.EAB{KeyID: cfg.KeyID, MACKey: cfg.MACKey}
	}
	if cfg.Hook != "" {
		is.DNS01Solver = hook(cfg.Hook)
	}
	return is
}

// listenHost is where certmagic looks whether somebody listens for challenges. It
// takes one host for both kinds, and opens a socket of its own where nobody does:
// where ours differ it is every address, which cannot be had while we have one.
func (cfg Config) listenHost() string {
	switch {
	case cfg.TLS == (Address{}):
		return cfg.HTTP.Host
	case cfg.HTTP == (Address{}) || cfg.HTTP.Host == cfg.TLS.Host:
		return cfg.TLS.Host
	}
	return ""
}

func isWildcard(name string) bool { return strings.HasPrefix(name, "*.") }

func canonical(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }

// Run gets certificates and renews them until ctx ends. A failure is tried again,
// less and less often.
func (m *Manager) Run(ctx context.Context) {
	defer m.cache.Stop()
	if ctx.Err() != nil {
		return
	}
	var names sync.WaitGroup
	for _, name := range m.names {
		names.Go(func() { m.manage(ctx, name) })
	}
	names.Wait()
	<-ctx.Done()
}

// manage brings one certificate into the cache, where it is then kept fresh: from
// the storage if it is there, else from the server.
func (m *Manager) manage(ctx context.Context, name string) {
	for wait := storageWait; ctx.Err() == nil; wait = min(2*wait, maxStorageWait) {
		_, err := m.magic.CacheManagedCertificate(ctx, name)
		if errors.Is(err, fs.ErrNotExist) {
			if err = m.magic.ObtainCertAsync(ctx, name); err == nil {
				_, err = m.magic.CacheManagedCertificate(ctx, name)
			}
		}
		if err == nil {
			m.note(name, "")
			return
		}
		if ctx.Err() != nil {
			return
		}
		m.note(name, err.Error())
		select {
		case <-time.After(wait):
		case <-ctx.Done():
		}
	}
}

// How long to wait when the storage cannot be used, or the server was asked in
// vain for days.
const (
	storageWait    = 2 * time.Second
	maxStorageWait = 5 * time.Minute
)

func (m *Manager) event(_ context.Context, event string, data map[string]any) error {
	name, _ := data["identifier"].(string)
	err, _ := data["error"].(error)
	switch {
	case event == "cert_failed" && err != nil && !errors.Is(err, context.Canceled):
		m.note(name, err.Error())
	case event == "cert_obtained":
		m.note(name, "")
	}
	return nil
}

// note keeps what is wrong with a name, and tells it when that is new.
func (m *Manager) note(name, fault string) {
	m.mu.Lock()
	before := m.faults[name]
	m.faults[name] = fault
	m.mu.Unlock()
	if fault != "" && fault != before {
		m.log("error", "a certificate by ACME could not be got or renewed; it is tried again", "name", name, "reason", fault)
	}
}

// Serves tells whether handshakes for that name are the manager's. It allocates
// nothing for a name in lower case.
func (m *Manager) Serves(name string) bool { return m.place(canonical(name)) >= 0 }

// place is the index of the name that covers one, -1 when none does.
func (m *Manager) place(name string) int {
	if i := slices.Index(m.names, name); i >= 0 {
		return i
	}
	_, parent, _ := strings.Cut(name, ".")
	return slices.IndexFunc(m.names, func(n string) bool { return isWildcard(n) && n[2:] == parent })
}

// held is the certificate that is kept for one of the names; nil: there is none.
func (m *Manager) held(name string) (found *tls.Certificate) {
	for _, c := range m.cache.AllMatchingCertificates(name) {
		if slices.Contains(c.Names, name) && (found == nil || c.Leaf.NotAfter.After(found.Leaf.NotAfter)) {
			found = &c.Certificate
		}
	}
	return found
}

// Certificate is the one for a name that the manager serves; "" stands for the
// first of its names. While there is none yet the error says why.
func (m *Manager) Certificate(name string) (*tls.Certificate, error) {
	i := 0
	if name != "" {
		i = m.place(canonical(name))
	}
	if i < 0 {
		return nil, errNotOurs
	}
	c := m.held(m.names[i])
	if c == nil {
		return nil, fmt.Errorf("there is no certificate for %s yet: %s", m.names[i], m.fault(m.names[i]))
	}
	m.served[i].Add(1)
	return c, nil
}

// fault is why there is no certificate.
func (m *Manager) fault(name string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return cmp.Or(m.faults[name], "it is being got")
}

var (
	errNotOurs = errors.New("acme: the name is none of ours")
	errTooMany = errors.New("acme: too many ask for challenges at the moment")
)

// Challenge is the certificate for a handshake of a tls-alpn-01 challenge (RFC
// 8737), which is to be made with ALPN acme-tls/1 alone. It may ask the storage.
func (m *Manager) Challenge(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if !slices.Contains(m.names, canonical(hello.ServerName)) {
		return nil, errNotOurs
	}
	if !m.enter() {
		return nil, errTooMany
	}
	defer m.leave()
	return m.magic.GetCertificate(hello)
}

// enter tells whether the storage may be asked; then leave is called.
func (m *Manager) enter() bool {
	select {
	case m.places <- struct{}{}:
		return true
	default:
		return false
	}
}

func (m *Manager) leave() { <-m.places }

// challengePath begins the paths of http-01 challenges (RFC 8555 section 8.3).
const challengePath = "/.well-known/acme-challenge/"

// askTime bounds the answering of one request.
const askTime = 5 * time.Second

// HTTPChallenge answers the request of an http-01 challenge, whose host has no
// port. It may ask the storage. Requests for which it is false are not about a
// challenge of ours.
func (m *Manager) HTTPChallenge(host, path string) (answer string, ok bool) {
	if !strings.HasPrefix(path, challengePath) || !slices.Contains(m.names, canonical(host)) || !m.enter() {
		return "", false
	}
	defer m.leave()
	ctx, cancel := context.WithTimeout(context.Background(), askTime)
	defer cancel()
	r := (&http.Request{Method: http.MethodGet, Host: host, URL: &url.URL{Path: path}, Header: http.Header{}}).WithContext(ctx)
	var w recorder
	if !m.issuer.HandleHTTPChallenge(&w, r) {
		return "", false
	}
	return w.body.String(), true
}

// recorder is where certmagic writes an answer.
type recorder struct {
	header http.Header
	body   bytes.Buffer
}

func (r *recorder) Header() http.Header {
	if r.header == nil {
		r.header = http.Header{}
	}
	return r.header
}

func (r *recorder) Write(p []byte) (int, error) { return r.body.Write(p) }
func (r *recorder) WriteHeader(int)             {}

// A Status tells of one name.
type Status struct {
	Name        string
	Certificate *tls.Certificate // nil: there is none yet
	Fault       string           // why it could not be got or renewed the last time; "": nothing is wrong
	Served      uint64           // handshakes that it was chosen for
}

// Statuses tells of every name, in the order of the config.
func (m *Manager) Statuses() []Status {
	var list []Status
	for i, name := range m.names {
		s := Status{Name: name, Certificate: m.held(name), Served: m.served[i].Load()}
		m.mu.Lock()
		s.Fault = m.faults[name]
		m.mu.Unlock()
		if s.Certificate == nil && s.Fault == "" {
			s.Fault = "it is being got"
		}
		list = append(list, s)
	}
	return list
}

// Files is a storage in a folder of this machine, for a gateway that is alone.
func Files(folder string) certmagic.Storage { return &certmagic.FileStorage{Path: folder} }
