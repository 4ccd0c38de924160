// Package acme gets certificates from an ACME server (RFC 8555) and renews them,
// by certmagic. Gateways that share a storage share their certificates: one of
// them gets each, and any of them answers the challenges.
//
// The package is a leaf: it imports nothing else of this module.
package acme

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io/fs"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
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

	renewCheck time.Duration // how often certificates are looked at; 0: as certmagic does
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
	cache  *certmagic.Cache
	magic  *certmagic.Config
	issuer *certmagic.ACMEIssuer

	mu     sync.Mutex
	faults map[string]string
}

// New returns a manager that has no certificate yet. It must be run, or closed by
// running it with a context that has ended.
func New(cfg Config, log Log) (*Manager, error) {
	if cfg.Hook == "" && slices.ContainsFunc(cfg.Names, isWildcard) {
		return nil, errors.New("a wildcard needs a dns-01 challenge: name a program that sets TXT records (hook)")
	}
	if cfg.Hook == "" && cfg.HTTP == (Address{}) && cfg.TLS == (Address{}) {
		return nil, errors.New("there is no listener on which a challenge could be answered, and no hook for dns-01")
	}
	logger := bridge(log)
	m := &Manager{faults: map[string]string{}}
	for _, name := range cfg.Names {
		m.names = append(m.names, canonical(name))
	}
	m.cache = certmagic.NewCache(certmagic.CacheOptions{
		GetConfigForCert:   func(certmagic.Certificate) (*certmagic.Config, error) { return m.magic, nil },
		RenewCheckInterval: cfg.renewCheck,
		Logger:             logger,
	})
	m.magic = certmagic.New(m.cache, certmagic.Config{
		Storage: cfg.Storage,
		// With it an order names the certificate that it replaces, which servers
		// refuse when the account is another one since, as after a change of Email:
		// it would never be renewed.
		DisableARI:     true,
		KeySource:      certmagic.StandardKeyGenerator{KeyType: certmagic.P256},
		OnEvent:        m.event,
		ShouldEmitFunc: func(event string) bool { return event == "cert_failed" || event == "cert_obtained" },
		Logger:         logger,
	})
	m.issuer = certmagic.NewACMEIssuer(m.magic, cfg.issuer())
	m.issuer.Logger = logger
	m.magic.Issuers = []certmagic.Issuer{m.issuer}
	return m, nil
}

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
		ListenHost:              cfg.HTTP.Host,
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
	case event == "cert_failed" && err != nil:
		m.note(name, err.Error())
	case event == "cert_obtained":
		m.note(name, "")
	}
	return nil
}

func (m *Manager) note(name, fault string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.faults[name] = fault
}

// Serves tells whether handshakes for that name are the manager's. It allocates
// nothing for a name in lower case.
func (m *Manager) Serves(name string) bool {
	name = canonical(name)
	if slices.Contains(m.names, name) {
		return true
	}
	_, parent, _ := strings.Cut(name, ".")
	return slices.ContainsFunc(m.names, func(n string) bool { return isWildcard(n) && n[2:] == parent })
}

// IsChallenge tells whether a handshake asks for the certificate of a tls-alpn-01
// challenge (RFC 8737); it is then to be made with ALPN acme-tls/1 alone.
func IsChallenge(hello *tls.ClientHelloInfo) bool {
	return slices.Equal(hello.SupportedProtos, []string{Protocol})
}

// Protocol is the ALPN name of tls-alpn-01 challenges.
const Protocol = "acme-tls/1"

// Certificate is the one for a handshake that the manager serves, or that is a
// challenge. While there is none yet it is an error.
func (m *Manager) Certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	return m.magic.GetCertificate(hello)
}

// challengePath begins the paths of http-01 challenges (RFC 8555 section 8.3).
const challengePath = "/.well-known/acme-challenge/"

// HTTPChallenge answers the request of an http-01 challenge. It may ask the
// storage. Requests for which it is false are not about a challenge of ours.
func (m *Manager) HTTPChallenge(host, path string) (answer string, ok bool) {
	if !strings.HasPrefix(path, challengePath) {
		return "", false
	}
	r := (&http.Request{Method: http.MethodGet, Host: host, URL: &url.URL{Path: path}, Header: http.Header{}}).WithContext(context.Background())
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
}

// Statuses tells of every name, in the order of the config.
func (m *Manager) Statuses() []Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	var list []Status
	for _, name := range m.names {
		s := Status{Name: name, Fault: m.faults[name]}
		for _, c := range m.cache.AllMatchingCertificates(name) {
			if slices.Contains(c.Names, name) {
				s.Certificate = &c.Certificate
			}
		}
		if s.Certificate == nil && s.Fault == "" {
			s.Fault = "it is being got"
		}
		list = append(list, s)
	}
	return list
}

// Files is a storage in a folder of this machine, for a gateway that is alone.
func Files(folder string) certmagic.Storage { return &certmagic.FileStorage{Path: folder} }
