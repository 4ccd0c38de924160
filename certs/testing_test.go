package certs

import (
	"bufio"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// rsaKey is made once: it is slow under the race detector.
var rsaKey = sync.OnceValue(func() crypto.Signer {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return key
})

func ecKey(t testing.TB) crypto.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// An issuer signs test certificates.
type issuer struct {
	cert *x509.Certificate
	key  crypto.Signer
}

func newCA(t testing.TB, name string, parent *issuer) *issuer {
	t.Helper()
	ca := &issuer{key: ecKey(t)}
	ca.cert = sign(t, &x509.Certificate{
		Subject:               pkix.Name{CommonName: name},
		NotAfter:              time.Now().Add(1000 * time.Hour),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}, ca.key, parent)
	return ca
}

// sign issues template for key; without an issuer it is self-signed.
func sign(t testing.TB, template *x509.Certificate, key crypto.Signer, by *issuer) *x509.Certificate {
	t.Helper()
	if template.NotBefore.IsZero() {
		template.NotBefore = time.Now().Add(-100 * time.Hour)
	}
	if by == nil {
		by = &issuer{cert: template, key: key}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, by.cert, key.Public(), by.key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// leaf is a template that passes every check.
func leaf(names ...string) *x509.Certificate {
	c := &x509.Certificate{Subject: pkix.Name{CommonName: "a leaf"}, NotAfter: time.Now().Add(1000 * time.Hour)}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			c.IPAddresses = append(c.IPAddresses, ip)
		} else {
			c.DNSNames = append(c.DNSNames, name)
		}
	}
	return c
}

func pemOf(certs ...*x509.Certificate) string {
	var ders [][]byte
	for _, c := range certs {
		ders = append(ders, c.Raw)
	}
	return string(encodeCerts(ders...))
}

func pemKey(t testing.TB, key crypto.Signer) string {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

func write(t testing.TB, dir, name, content string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// pair writes a self-signed certificate with a key of its own, both in one
// file.
func pair(t testing.TB, dir, file string, names ...string) Source {
	t.Helper()
	return pairWithKey(t, dir, file, ecKey(t), names...)
}

func pairWithKey(t testing.TB, dir, file string, key crypto.Signer, names ...string) Source {
	t.Helper()
	return Source{At: "singlegate.yaml:7:7", Cert: write(t, dir, file, pemOf(sign(t, leaf(names...), key, nil))+pemKey(t, key))}
}

func load(t testing.TB, pairs ...Source) *Store {
	t.Helper()
	s, err := Load(Config{Certificates: pairs})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// reload does with a new config what the gateway does with it.
func reload(s *Store, cfg Config) error {
	next, err := Load(cfg)
	if err == nil {
		err = s.Judge(next)
	}
	if err == nil {
		s.Adopt(next)
	}
	return err
}

func textsOf(warnings []warning) (texts []string) {
	for _, w := range warnings {
		texts = append(texts, w.text)
	}
	return texts
}

// source says which file a certificate was read from.
func (s *Store) source(cert *x509.Certificate) string {
	for _, e := range s.current.Load().entries {
		if e.leaf().Equal(cert) {
			return filepath.Base(e.source.file())
		}
	}
	return "none of this set"
}

// serve echoes lines over TLS on loopback until the test ends, and gives the
// address.
func serve(t testing.TB, config *tls.Config, address string) string {
	t.Helper()
	listener, err := tls.Listen("tcp", address, config)
	if err != nil {
		t.Fatal(err)
	}
	var conns sync.WaitGroup
	conns.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			conns.Go(func() {
				defer conn.Close()
				conn.SetDeadline(time.Now().Add(30 * time.Second))
				io.Copy(conn, conn)
			})
		}
	})
	t.Cleanup(func() {
		listener.Close()
		conns.Wait()
	})
	return listener.Addr().String()
}

// A client is a connection that was greeted, and its state after that.
type client struct {
	*tls.Conn
	lines *bufio.Reader
	state tls.ConnectionState
}

// leaf is what the server presented.
func (c *client) leaf() *x509.Certificate { return c.state.PeerCertificates[0] }

func (c *client) echo(line string) error {
	if _, err := fmt.Fprintln(c, line); err != nil {
		return err
	}
	got, err := c.lines.ReadString('\n')
	if err == nil && got != line+"\n" {
		err = fmt.Errorf("echo of %q is %q", line, got)
	}
	return err
}

// dial connects and greets, which also brings TLS 1.3 session tickets. It
// trusts everything: which certificate comes is what tests look at.
func dial(t testing.TB, address string, config *tls.Config) (*client, error) {
	t.Helper()
	config.InsecureSkipVerify = true
	raw, err := net.DialTimeout("tcp", address, 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { raw.Close() })
	raw.SetDeadline(time.Now().Add(30 * time.Second))
	conn := tls.Client(raw, config)
	c := &client{Conn: conn, lines: bufio.NewReader(conn)}
	if err := errors.Join(conn.Handshake(), c.echo("hello")); err != nil {
		return nil, err
	}
	c.state = conn.ConnectionState()
	return c, nil
}

func mustDial(t testing.TB, address string, config *tls.Config) *client {
	t.Helper()
	c, err := dial(t, address, config)
	if err != nil {
		t.Fatal(err)
	}
	return c
}
