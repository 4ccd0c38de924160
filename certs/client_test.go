package certs

import (
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestClient(t *testing.T) {
	dir := t.TempDir()
	ca := newCA(t, "nodes", nil)
	key := ecKey(t)
	cert := sign(t, &x509.Certificate{NotAfter: time.Now().Add(time.Hour)}, key, ca) // a client's needs no names
	write := func(name string, blocks ...*pem.Block) string {
		var text []byte
		for _, b := range blocks {
			text = append(text, pem.EncodeToMemory(b)...)
		}
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certBlock, keyBlock := &pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}, &pem.Block{Type: "PRIVATE KEY", Bytes: der}
	caFile, certFile, keyFile := write("ca.pem", &pem.Block{Type: "CERTIFICATE", Bytes: ca.cert.Raw}), write("c.pem", certBlock), write("c.key", keyBlock)
	both := write("both.pem", certBlock, keyBlock)

	for _, c := range []Client{
		{CA: caFile, Cert: certFile, Key: keyFile, ServerName: "im.example.gov"},
		{CA: caFile, Cert: both},
		{},
		{Unverified: true},
	} {
		cfg, err := c.Config()
		if err != nil {
			t.Fatal(err)
		}
		if (cfg.RootCAs != nil) != (c.CA != "") || len(cfg.Certificates) > 0 != (c.Cert != "") || cfg.ServerName != c.ServerName || cfg.InsecureSkipVerify != c.Unverified {
			t.Errorf("%+v became %+v", c, cfg)
		}
	}
	for _, c := range []struct {
		client Client
		says   []string
	}{
		{Client{At: "f:1:2", CA: filepath.Join(dir, "none")}, []string{"f:1:2: tls: CA file", "does not exist"}},
		{Client{CA: keyFile}, []string{"holds no certificate"}},
		{Client{Cert: certFile}, []string{"certificate file", "key file"}},
		{Client{Cert: certFile, Key: caFile, CA: dir}, []string{"is not a regular file", "expected PEM"}},
	} {
		_, err := c.client.Config()
		if err == nil {
			t.Errorf("%+v has no error", c.client)
			continue
		}
		for _, part := range c.says {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%v does not say %q", err, part)
			}
		}
	}
}
