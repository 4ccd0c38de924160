package certs

import "crypto/tls"

// listenerConfig is the configuration that listeners hold for ever. It takes
// everything but the session ticket keys from the set of the moment; the keys
// are its own, rotated by crypto/tls, and so survive every Reload.
func (s *Store) listenerConfig() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		NextProtos: alpn(),
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			return s.current.Load().policy, nil
		},
		// Never reached by a handshake; for servers that look whether a
		// configuration has certificates.
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			return s.current.Load().certificate(hello)
		},
	}
}

// policyOf is the TLS policy of one set. The cipher suites concern TLS 1.2
// only: forward secrecy and AEAD, nothing else (RFC 9325 section 4.2).
func policyOf(s *set, minVersion uint16) *tls.Config {
	return &tls.Config{
		MinVersion: minVersion,
		CipherSuites: []uint16{
			tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
			tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
			tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
			tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
			tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
			tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
		},
		NextProtos:     alpn(),
		GetCertificate: s.certificate,

		// Messages are passed on as they come: small records at the beginning
		// would only cut them, for a first byte that nobody waits for.
		DynamicRecordSizingDisabled: true,
	}
}

// alpn is what is offered: HTTP/2 is not served, so it must not be negotiated.
func alpn() []string { return []string{"http/1.1"} }
