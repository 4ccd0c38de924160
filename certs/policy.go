package certs

import (
	"crypto/tls"
	"fmt"
	"slices"
)

// A CipherSuite is one of TLS 1.2 that may be offered: forward secrecy and AEAD,
// nothing else (RFC 9325 section 4.2). Those of TLS 1.3 are always on.
type CipherSuite struct {
	ID      uint16
	Name    string // as IANA has it
	OpenSSL string // as nginx and HAProxy have it
}

// CipherSuites lists those that there are.
func CipherSuites() []CipherSuite {
	return []CipherSuite{
		{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", "ECDHE-ECDSA-AES128-GCM-SHA256"},
		{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "ECDHE-RSA-AES128-GCM-SHA256"},
		{tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", "ECDHE-ECDSA-AES256-GCM-SHA384"},
		{tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384, "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", "ECDHE-RSA-AES256-GCM-SHA384"},
		{tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256", "ECDHE-ECDSA-CHACHA20-POLY1305"},
		{tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256, "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256", "ECDHE-RSA-CHACHA20-POLY1305"},
	}
}

// A Curve is a key exchange that may be offered.
type Curve struct {
	ID      tls.CurveID
	Name    string
	Aliases []string // other names of it
	Hybrid  bool     // post-quantum: TLS 1.3 only
}

// Curves lists those that there are. Which of the offered ones is taken is up
// to crypto/tls, whatever their order.
func Curves() []Curve {
	return []Curve{
		{tls.X25519MLKEM768, "X25519MLKEM768", nil, true},
		{tls.X25519, "X25519", nil, false},
		{tls.CurveP256, "P-256", []string{"P256", "secp256r1", "prime256v1"}, false},
		{tls.CurveP384, "P-384", []string{"P384", "secp384r1"}, false},
		{tls.CurveP521, "P-521", []string{"P521", "secp521r1"}, false},
		{tls.SecP256r1MLKEM768, "SecP256r1MLKEM768", nil, true},
		{tls.SecP384r1MLKEM1024, "SecP384r1MLKEM1024", nil, true},
	}
}

// checkPolicy reports what of the policy cannot be.
func checkPolicy(cfg Config) (problems []error) {
	switch cfg.MinVersion {
	case 0, tls.VersionTLS12, tls.VersionTLS13:
	default:
		problems = append(problems, fmt.Errorf("minimum TLS version %s: expected TLS 1.2 or TLS 1.3; older ones are not secure", tls.VersionName(cfg.MinVersion)))
	}
	for _, id := range cfg.CipherSuites {
		if !slices.ContainsFunc(CipherSuites(), func(c CipherSuite) bool { return c.ID == id }) {
			problems = append(problems, fmt.Errorf("cipher suite %s: expected one of TLS 1.2 with forward secrecy and AEAD", tls.CipherSuiteName(id)))
		}
	}
	if cfg.MinVersion != tls.VersionTLS13 && cfg.Curves != nil && !slices.ContainsFunc(cfg.Curves, classic) {
		problems = append(problems, fmt.Errorf("curves: TLS 1.2 has no hybrid ones: add X25519 or P-256, or make min_version 1.3"))
	}
	return problems
}

func classic(id tls.CurveID) bool {
	return slices.ContainsFunc(Curves(), func(c Curve) bool { return c.ID == id && !c.Hybrid })
}

// listenerConfig is the configuration that listeners hold for ever. It takes
// everything but the session ticket keys from the set of the moment; the keys
// are its own, rotated by crypto/tls, and so survive every change.
func (s *Store) listenerConfig() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		NextProtos: alpn(),
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			if isChallenge(hello) {
				if m := s.managing(); m != nil {
					return challenge(m, hello)
				}
			}
			return s.current.Load().policy, nil
		},
		// Never reached by a handshake; for servers that look whether a
		// configuration has certificates.
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			return s.current.Load().certificate(hello)
		},
	}
}

// policyOf is the TLS policy of one set.
func policyOf(s *set, cfg Config) *tls.Config {
	suites := cfg.CipherSuites
	if suites == nil {
		for _, c := range CipherSuites() {
			suites = append(suites, c.ID)
		}
	}
	return &tls.Config{
		MinVersion:       max(cfg.MinVersion, tls.VersionTLS12),
		CipherSuites:     suites,
		CurvePreferences: cfg.Curves,
		NextProtos:       alpn(),
		GetCertificate:   s.certificate,

		// Messages are passed on as they come: small records at the beginning
		// would only cut them, for a first byte that nobody waits for.
		DynamicRecordSizingDisabled: true,
	}
}

// alpn is what is offered: HTTP/2 is not served, so it must not be negotiated.
func alpn() []string { return []string{"http/1.1"} }
