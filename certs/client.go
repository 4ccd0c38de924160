package certs

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
)

// A Client is how the gateway speaks TLS to a server of the site's own.
type Client struct {
	At         string // where it is written; begins every error about it
	CA         string // PEM file with the authorities that are trusted; "": the system's
	Cert, Key  string // PEM files of the certificate that is shown; "": none is
	ServerName string // the name that is asked for and verified; "": that of the address
	Unverified bool   // any certificate will do: the traffic is hidden, but from nobody who can come between
}

// sessionsKept bounds the sessions that a client may resume.
const sessionsKept = 256

// Config opens the client's files. The error joins everything that is wrong with
// them.
func (c Client) Config() (*tls.Config, error) {
	cfg := &tls.Config{
		ServerName:         c.ServerName,
		InsecureSkipVerify: c.Unverified,
		MinVersion:         tls.VersionTLS12,
		ClientSessionCache: tls.NewLRUClientSessionCache(sessionsKept),
	}
	var errCA, errCert error
	if c.CA != "" {
		cfg.RootCAs, errCA = authorities(c.CA)
	}
	if c.Cert != "" {
		cfg.Certificates, errCert = c.shown()
	}
	if err := errors.Join(errCA, errCert); err != nil {
		return nil, fmt.Errorf("%s: tls: %w", c.At, err)
	}
	return cfg, nil
}

// shown is the certificate that the client shows.
func (c Client) shown() ([]tls.Certificate, error) {
	cert, err := readFile(c.Cert)
	if err != nil {
		return nil, fmt.Errorf("certificate file %s %w", c.Cert, err)
	}
	key, err := readFile(cmp.Or(c.Key, c.Cert))
	if err != nil {
		return nil, fmt.Errorf("key file %s %w", cmp.Or(c.Key, c.Cert), err)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("certificate file %s with key file %s: %w; expected PEM, an unencrypted key, and that they belong together", c.Cert, cmp.Or(c.Key, c.Cert), err)
	}
	return []tls.Certificate{pair}, nil
}

// authorities reads a PEM file of certificates that others are verified by.
func authorities(name string) (*x509.CertPool, error) {
	data, err := readFile(name)
	if err != nil {
		return nil, fmt.Errorf("CA file %s %w", name, err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(data) {
		return nil, fmt.Errorf("CA file %s holds no certificate in PEM: expected a block that begins with -----BEGIN CERTIFICATE", name)
	}
	return roots, nil
}
