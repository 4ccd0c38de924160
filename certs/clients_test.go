package certs

import (
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// clientCert makes a client's certificate.
func clientCert(t *testing.T, ca *issuer, serial int64, tune ...func(*x509.Certificate)) tls.Certificate {
	t.Helper()
	key := ecKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), NotAfter: time.Now().Add(time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	for _, f := range tune {
		f(template)
	}
	cert := sign(t, template, key, ca)
	return tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key}
}

// listOf is a revocation list in PEM.
func listOf(t *testing.T, ca *issuer, next time.Time, serials ...int64) string {
	t.Helper()
	template := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: next.Add(-48 * time.Hour), NextUpdate: next}
	for _, n := range serials {
		template.RevokedCertificateEntries = append(template.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: big.NewInt(n), RevocationTime: time.Now().Add(-time.Hour)})
	}
	der, err := x509.CreateRevocationList(rand.Reader, template, ca.cert, ca.key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der}))
}

// asking is a server that asks clients so.
func asking(t *testing.T, c *Clients) string {
	t.Helper()
	dev, err := DevCertificate(filepath.Join(t.TempDir(), "ca"), []string{"localhost"})
	if err != nil {
		t.Fatal(err)
	}
	store := load(t, Source{Cert: dev.CertFile, Key: dev.KeyFile})
	base := store.TLSConfig()
	return serve(t, &tls.Config{GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		cfg, err := base.GetConfigForClient(hello)
		cfg = cfg.Clone()
		c.Ask(cfg)
		return cfg, err
	}}, "127.0.0.1:0")
}

// isLetIn tells whether the server speaks with a client.
func isLetIn(t *testing.T, address string, shown ...tls.Certificate) bool {
	t.Helper()
	cfg := &tls.Config{InsecureSkipVerify: true, GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		if len(shown) == 0 {
			return &tls.Certificate{}, nil
		}
		return &shown[0], nil // whatever the server would like
	}}
	c, err := dial(t, address, cfg)
	return err == nil && c.echo("hello") == nil
}

func TestClients(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ca, foreign := newCA(t, "clients", nil), newCA(t, "foreign", nil)
	sub := newCA(t, "sub", ca)
	good, revoked := clientCert(t, ca, 7), clientCert(t, ca, 8)
	indirect := clientCert(t, sub, 9)
	indirect.Certificate = append(indirect.Certificate, sub.cert.Raw)
	cfg := ClientConfig{
		CA: write(t, dir, "ca.pem", pemOf(ca.cert)), CRL: write(t, dir, "crl.pem", listOf(t, ca, time.Now().Add(time.Hour), 8)),
	}
	for _, c := range []struct {
		name               string
		optional           bool
		shown              []tls.Certificate
		required, ifGiven_ bool
	}{
		{name: "none", required: false, ifGiven_: true},
		{name: "good", shown: []tls.Certificate{good}, required: true, ifGiven_: true},
		{name: "through an intermediate", shown: []tls.Certificate{indirect}, required: true, ifGiven_: true},
		{name: "revoked", shown: []tls.Certificate{revoked}},
		{name: "foreign", shown: []tls.Certificate{clientCert(t, foreign, 7)}},
		{name: "expired", shown: []tls.Certificate{clientCert(t, ca, 10, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })}},
		{name: "for servers", shown: []tls.Certificate{clientCert(t, ca, 11, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} })}},
	} {
		for _, optional := range []bool{false, true} {
			cfg := cfg
			cfg.Optional = optional
			clients, err := LoadClients(cfg)
			if err != nil {
				t.Fatal(err)
			}
			want := c.required && !optional || c.ifGiven_ && optional
			if got := isLetIn(t, asking(t, clients), c.shown...); got != want {
				t.Errorf("%s, optional %v: let in %v", c.name, optional, got)
			}
		}
	}
}

// Files that change are followed, and a broken one lets nobody in, also not by a
// session from before.
func TestClientsFollowTheirFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ca, other := newCA(t, "clients", nil), newCA(t, "other", nil)
	mine, theirs := clientCert(t, ca, 7), clientCert(t, other, 7)
	next := time.Now().Add(time.Hour)
	cfg := ClientConfig{CA: write(t, dir, "ca.pem", pemOf(ca.cert)), CRL: write(t, dir, "crl.pem", listOf(t, ca, next))}
	clients, err := LoadClients(cfg)
	if err != nil {
		t.Fatal(err)
	}
	leafOf := func(c tls.Certificate) []*x509.Certificate {
		cert, err := x509.ParseCertificate(c.Certificate[0])
		if err != nil {
			t.Fatal(err)
		}
		return []*x509.Certificate{cert}
	}
	state := func() [2]bool {
		clients.mu.Lock()
		clients.looked = time.Time{}
		clients.mu.Unlock()
		return [2]bool{clients.verify(leafOf(mine), time.Now()) == nil, clients.verify(leafOf(theirs), time.Now()) == nil}
	}
	for _, step := range []struct {
		name, file, text string
		want             [2]bool
	}{
		{"nothing", "", "", [2]bool{true, false}},
		{"revoked", "crl.pem", listOf(t, ca, next, 7), [2]bool{}},
		{"no more", "crl.pem", listOf(t, ca, next), [2]bool{true, false}},
		{"an old list", "crl.pem", listOf(t, ca, time.Now().Add(-time.Minute)), [2]bool{}},
		{"a broken list", "crl.pem", "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n", [2]bool{}},
		{"mended", "crl.pem", listOf(t, ca, next), [2]bool{true, false}},
		{"a broken CA", "ca.pem", pemOf(ca.cert) + "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", [2]bool{}},
		{"no CA", "ca.pem", "", [2]bool{}},
		{"a list of nobody", "ca.pem", pemOf(other.cert), [2]bool{}},
		{"both", "ca.pem", pemOf(ca.cert, other.cert), [2]bool{true, true}},
	} {
		if step.file != "" {
			write(t, dir, step.file, step.text)
		}
		if got := state(); got != step.want {
			t.Errorf("%s: %v, want %v", step.name, got, step.want)
		}
	}
	if err := os.Remove(cfg.CRL); err != nil {
		t.Fatal(err)
	}
	if got := state(); got != [2]bool{} {
		t.Errorf("the list is gone: %v", got)
	}
}

func TestBadClientFiles(t *testing.T) {
	dir := t.TempDir()
	ca := newCA(t, "clients", nil)
	caFile := write(t, dir, "ca.pem", pemOf(ca.cert))
	for _, c := range []struct {
		cfg  ClientConfig
		says string
	}{
		{ClientConfig{At: "f:3:4", CA: filepath.Join(dir, "none")}, "f:3:4: client_certificates: CA file"},
		{ClientConfig{CA: write(t, dir, "key.pem", pemKey(t, ecKey(t)))}, "expected certificates alone"},
		{ClientConfig{CA: caFile, CRL: caFile}, "expected X509 CRL alone"},
		{ClientConfig{CA: caFile, CRL: write(t, dir, "foreign.pem", listOf(t, newCA(t, "foreign", nil), time.Now().Add(time.Hour)))}, "none of the CA file"},
		{ClientConfig{CA: caFile, CRL: write(t, dir, "empty.pem", "")}, "cannot be parsed"},
	} {
		if _, err := LoadClients(c.cfg); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%+v: %v, want %q", c.cfg, err, c.says)
		}
	}
}
