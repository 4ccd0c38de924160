package gateway

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"math/big"
	"strings"
	"testing"
	"time"
)

// clientCertificate is one of a client, signed by nobody else.
func clientCertificate(t *testing.T, name string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(0xabc), Subject: pkix.Name{CommonName: name, Organization: []string{"Ministry"}}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// Nodes hear of a client's certificate under the headers that the config names,
// from nobody but the gateway, whatever the listener.
func TestClientCertificates(t *testing.T) {
	node := startRecorder(t, "app1")
	var refused string
	ask := func(cfg *tls.Config) {
		cfg.ClientAuth = tls.RequestClientCert
		cfg.VerifyConnection = func(state tls.ConnectionState) error {
			if len(state.PeerCertificates) > 0 && state.PeerCertificates[0].Subject.CommonName == "refused" {
				refused = "yes"
				return x509.CertificateInvalidError{Reason: x509.Expired}
			}
			return nil
		}
	}
	e := startEdge(t, []Route{{Paths: []string{"/app"}, Service: "app"}}, map[string]map[string]string{"app": {"app1": node.addr}}, func(c *Config) {
		c.Listeners[1].Clients = &ClientCertificates{Ask: ask, Headers: map[string]CertificateField{
			"X-Client-Subject": FieldSubject, "X-Client-Serial": FieldSerial, "X-Client-Print": FieldFingerprint, "X-Client-Cert": FieldPEM,
		}}
	})
	const forged = "x-client-subject: CN=forged\r\nX-Client_Serial: 1\r\nX-Client-Other: stays\r\n"
	request := "GET /app HTTP/1.1\r\nHost: h\r\nConnection: close\r\n" + forged + "\r\n"
	ask200 := func(conn io.ReadWriter) recorded {
		t.Helper()
		io.WriteString(conn, request)
		io.Copy(io.Discard, conn)
		return node.only(t)
	}
	over := func(shown ...tls.Certificate) *tls.Conn {
		c, err := tls.Dial("tcp", e.secure, &tls.Config{RootCAs: e.roots, ServerName: "localhost", Certificates: shown})
		if err != nil {
			t.Fatal(err)
		}
		guarded(t, c)
		return c
	}
	got := ask200(over(clientCertificate(t, "张三")))
	if s := got.values("X-Client-Subject"); len(s) != 1 || s[0] != "CN=张三,O=Ministry" {
		t.Errorf("subject %q", s)
	}
	if s := got.values("X-Client-Serial"); len(s) != 1 || s[0] != "abc" {
		t.Errorf("serial %q", s)
	}
	if s := got.values("X-Client-Print"); len(s) != 1 || len(s[0]) != 64 {
		t.Errorf("fingerprint %q", s)
	}
	if s := got.values("X-Client-Cert"); len(s) != 1 || !strings.HasPrefix(s[0], "-----BEGIN+CERTIFICATE-----%0A") {
		t.Errorf("certificate %q", s)
	}
	for name, conn := range map[string]io.ReadWriter{"plain": e.dial(), "without one": over()} {
		if got := ask200(conn); strings.Contains(strings.ToLower(got.head), "client-s") || strings.Contains(got.head, "forged") || len(got.values("X-Client-Other")) != 1 {
			t.Errorf("%s: %s", name, got.head)
		}
	}
	c := over(clientCertificate(t, "refused"))
	io.WriteString(c, request)
	if b, err := io.ReadAll(c); err == nil || len(b) > 0 {
		t.Errorf("a client that is not let in got %q, %v", b, err)
	}
	if list := node.take(); len(list) != 0 || refused == "" {
		t.Errorf("a client that is not let in reached the node: %v", list)
	}
	e.logs.wait(t, `"subject":"CN=refused,O=Ministry","error":"x509: certificate has expired`)
	e.tells("handshake_failures_total", map[string]float64{"handshake_failures_total{client_certificate,tls}": 1})
}
