package discovery

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"singlegate/internal/consultest"
)

// pki writes a CA and a certificate of its own for 127.0.0.1, good for either side.
func pki(t *testing.T) (ca, cert, key string) {
	t.Helper()
	dir := t.TempDir()
	caKey, certKey := newKey(t), newKey(t)
	caTemplate := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test CA"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "consul"}, NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	write := func(name, kind string, der []byte, err error) string {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	der, err := x509.CreateCertificate(rand.Reader, caTemplate, caTemplate, caKey.Public(), caKey)
	ca = write("ca.pem", "CERTIFICATE", der, err)
	der, err = x509.CreateCertificate(rand.Reader, template, caTemplate, certKey.Public(), caKey)
	cert = write("cert.pem", "CERTIFICATE", der, err)
	der, err = x509.MarshalPKCS8PrivateKey(certKey)
	key = write("key.pem", "PRIVATE KEY", der, err)
	return ca, cert, key
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestTLSToConsul(t *testing.T) {
	t.Parallel()
	ca, cert, key := pki(t)
	port := consultest.FreePort(t)
	a := consultest.Start(t, consultest.Options{Config: fmt.Sprintf(`
		ports { https = %d }
		tls { https { ca_file = %q, cert_file = %q, key_file = %q, verify_incoming = true } }
	`, port, ca, cert, key)})
	register(a, "node1")
	address := fmt.Sprintf("127.0.0.1:%d", port)

	full := ConsulConfig{Address: address, Scheme: "https", CAFile: ca, CertFile: cert, KeyFile: key}
	record(t, newSource(t, full, nil)).until(t, "node1", healthy("node1"))

	stranger := full
	stranger.CertFile, stranger.KeyFile = "", ""
	record(t, newSource(t, stranger, nil)).unknown(t, "TLS with Consul at "+address+" fails: tls: certificate required")
	trusting := full
	trusting.CAFile = ""
	record(t, newSource(t, trusting, nil)).unknown(t, "certificate signed by unknown authority")
	named := full
	named.ServerName = "server.dc1.consul"
	record(t, newSource(t, named, nil)).unknown(t, "compare ca, cert, key and server_name")
	plain := full
	plain.Scheme = "http"
	record(t, newSource(t, plain, nil)).unknown(t, "speaks HTTPS there; set scheme: https")
}
