package certs

import (
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestBrokenInputs(t *testing.T) {
	dir := t.TempDir()
	ca := newCA(t, "ca", nil)
	key, otherKey := ecKey(t), ecKey(t)
	good := sign(t, leaf("im.example.gov"), key, ca)
	day0, day9 := time.Now().Add(-90*24*time.Hour), time.Now().Add(9*24*time.Hour)
	expired, early, nameless := leaf("im.example.gov"), leaf("im.example.gov"), leaf()
	expired.NotBefore, expired.NotAfter = day0.Add(-time.Hour), day0
	early.NotBefore = day9
	nameless.Subject = pkix.Name{CommonName: "im.example.gov"}
	old := leaf()
	old.NotBefore, old.NotAfter = expired.NotBefore, expired.NotAfter
	today := day(time.Now())

	files := map[string]string{
		"good.pem":      pemOf(good),
		"good.key":      pemKey(t, key),
		"other.key":     pemKey(t, otherKey),
		"reversed.pem":  pemOf(ca.cert, good),
		"expired.pem":   pemOf(sign(t, expired, key, ca)),
		"early.pem":     pemOf(sign(t, early, key, ca)),
		"nameless.pem":  pemOf(sign(t, nameless, key, ca)),
		"old.pem":       pemOf(sign(t, old, key, ca)),
		"encrypted.key": string(pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: []byte("secret")})),
		"legacy.key": string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: []byte("secret"),
			Headers: map[string]string{"Proc-Type": "4,ENCRYPTED", "DEK-Info": "AES-256-CBC,00"}})),
		"garbled.key": string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: []byte("secret")})),
		"garbled.pem": string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("nothing")})),
		"request.pem": string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: []byte("nothing")})),
		"text.pem":    "secret text",
		"empty.pem":   "",
		"der.pem":     string(good.Raw),
		"store.jks":   "\xfe\xed\xfe\xed\x00",
		"huge.pem":    strings.Repeat("x", maxFileSize+1),
	}
	for name, content := range files {
		write(t, dir, name, content)
	}
	if err := os.Mkdir(filepath.Join(dir, "folder"), 0o700); err != nil {
		t.Fatal(err)
	}

	const at = "singlegate.yaml:7:7: "
	for _, c := range []struct{ name, cert, key, want string }{
		{"no name", "", "good.key", at + "no certificate file: name one"},
		{"missing", "missing.pem", "good.key", at + "certificate file missing.pem does not exist: check the name; a relative one is taken from the config's folder"},
		{"missing key", "good.pem", "missing.key", at + "key file missing.key does not exist: check the name; a relative one is taken from the config's folder"},
		{"folder", "folder", "good.key", at + "certificate file folder is not a regular file: name a PEM file"},
		{"huge", "huge.pem", "good.key", at + "certificate file huge.pem is larger than 1048576 bytes: no PEM file of a certificate is"},
		{"no PEM", "text.pem", "good.key", at + "certificate file text.pem holds no PEM: expected a block that begins with -----BEGIN"},
		{"no PEM in the key", "good.pem", "text.pem", at + "key file text.pem holds no PEM: expected a block that begins with -----BEGIN"},
		{"empty", "empty.pem", "good.key", at + "certificate file empty.pem is empty: expected PEM, which begins with -----BEGIN"},
		{"DER", "der.pem", "good.key", at + "certificate file der.pem is binary (DER or PKCS#12), not PEM: name a PKCS#12 file as keystore, and convert DER with openssl x509 -inform der"},
		{"JKS", "store.jks", "good.key", at + "certificate file store.jks is a Java keystore, not PEM: name it as keystore"},
		{"request", "request.pem", "good.key", at + "certificate file request.pem holds no certificate, only CERTIFICATE REQUEST: expected a CERTIFICATE block; are cert and key swapped?"},
		{"garbled", "garbled.pem", "good.key", at + "certificate file garbled.pem: certificate number 1 cannot be parsed (x509: malformed certificate): expected an X.509 certificate with an RSA, ECDSA (P-256, P-384, P-521) or Ed25519 key"},
		{"garbled key", "good.pem", "garbled.key", at + "the EC PRIVATE KEY block in garbled.key cannot be parsed: expected an RSA, ECDSA or Ed25519 key in PKCS#8, PKCS#1 or SEC 1 form"},
		{"no key", "good.pem", "", at + "certificate file good.pem holds no private key: name the file that does as key"},
		{"certificate as key", "good.pem", "nameless.pem", at + "key file nameless.pem holds a certificate and no private key: are cert and key swapped?"},
		{"request as key", "good.pem", "request.pem", at + "key file request.pem holds no private key, only CERTIFICATE REQUEST: expected a PRIVATE KEY block"},
		{"swapped", "good.key", "good.pem", at + "certificate file good.key holds no certificate, only PRIVATE KEY: expected a CERTIFICATE block; are cert and key swapped?\n" +
			at + "key file good.pem holds a certificate and no private key: are cert and key swapped?"},
		{"encrypted", "good.pem", "encrypted.key", at + "the private key in encrypted.key is encrypted: name the file that holds its password as password_file"},
		{"encrypted, old form", "good.pem", "legacy.key", at + "the private key in legacy.key is encrypted: name the file that holds its password as password_file"},
		{"another key", "good.pem", "other.key", at + "certificate file good.pem: its certificate (im.example.gov) does not belong to the key in other.key: use the key that the certificate was requested with"},
		{"leaf last", "reversed.pem", "good.key", at + "certificate file reversed.pem: the key belongs to certificate number 2 of the file: put that one first, then its intermediates"},
		{"expired", "expired.pem", "good.key", at + "certificate file expired.pem: the certificate expired on " + day(day0) + ": renew it, or set this machine's clock (it says " + today + ")"},
		{"early", "early.pem", "good.key", at + "certificate file early.pem: the certificate is not valid before " + day(day9) + ": set this machine's clock (it says " + today + "), or wait"},
		{"no names", "nameless.pem", "good.key", at + "certificate file nameless.pem: the certificate has no DNS name and no IP address among its subject alternative names, and clients ignore the common name: have it issued again with the names that clients use"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := Source{At: "singlegate.yaml:7:7"}
			if c.cert != "" {
				p.Cert = filepath.Join(dir, c.cert)
			}
			if c.key != "" {
				p.Key = filepath.Join(dir, c.key)
			}
			_, err := Load(Config{Certificates: []Source{p}})
			if err == nil {
				t.Fatal("accepted")
			}
			got := strings.ReplaceAll(err.Error(), dir+string(filepath.Separator), "")
			if got != c.want {
				t.Errorf("the error is\n%s\nexpected\n%s", got, c.want)
			}
			if strings.Contains(got, "secret") {
				t.Error("the error holds a part of a file")
			}
		})
	}

	t.Run("all at once", func(t *testing.T) {
		in := func(name string) string { return filepath.Join(dir, name) }
		_, err := Load(Config{MinVersion: tls.VersionTLS11, Certificates: []Source{
			{At: "f:1:1", Cert: in("old.pem"), Key: in("other.key")},
			{At: "f:2:2", Cert: in("good.pem"), Key: in("good.key")},
			{At: "f:3:3", Cert: in("missing.pem"), Key: in("text.pem")},
		}})
		if err == nil {
			t.Fatal("accepted")
		}
		var begins []string
		for line := range strings.Lines(err.Error()) {
			begins = append(begins, strings.Join(strings.Fields(line)[:4], " "))
		}
		const want = "minimum TLS version TLS|f:1:1: certificate file DIR/old.pem:|f:1:1: certificate file DIR/old.pem:|f:1:1: certificate file DIR/old.pem:|f:3:3: certificate file DIR/missing.pem|f:3:3: key file DIR/text.pem"
		if got := strings.ReplaceAll(strings.Join(begins, "|"), dir, "DIR"); got != want {
			t.Errorf("the errors are\n%s\nexpected\n%s", got, want)
		}
	})
	t.Run("none at all", func(t *testing.T) {
		s, err := Load(Config{})
		if err != nil || len(s.Infos()) != 0 || len(s.Warnings()) != 0 {
			t.Fatalf("a site without TLS: %v", err)
		}
		if _, err := s.TLSConfig().GetConfigForClient(&tls.ClientHelloInfo{}); err != nil {
			t.Fatal(err)
		}
		if _, err := s.current.Load().certificate(&tls.ClientHelloInfo{}); err != errNoCertificate {
			t.Errorf("the error is %v", err)
		}
	})
}

func TestUnreadableFile(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root may read everything")
	}
	p := pair(t, t.TempDir(), "im.pem", "im.example.gov")
	if err := os.Chmod(p.Cert, 0); err != nil {
		t.Fatal(err)
	}
	_, err := Load(Config{Certificates: []Source{p}})
	if err == nil || !strings.Contains(err.Error(), "may not be read by this user: give the gateway's user permission to read it") {
		t.Errorf("the error is %v", err)
	}
}

func TestKeyForms(t *testing.T) {
	dir := t.TempDir()
	ec := ecKey(t).(*ecdsa.PrivateKey)
	sec1, err := x509.MarshalECPrivateKey(ec)
	if err != nil {
		t.Fatal(err)
	}
	cert := sign(t, leaf("im.example.gov"), ec, nil)
	sec1PEM := string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: sec1}))
	parameters := string(pem.EncodeToMemory(&pem.Block{Type: "EC PARAMETERS", Bytes: []byte{6, 0}}))
	for name, p := range map[string]Source{
		"PKCS#8":                 {Cert: write(t, dir, "a.pem", pemOf(cert)), Key: write(t, dir, "a.key", pemKey(t, ec))},
		"SEC 1 after parameters": {Cert: write(t, dir, "b.pem", pemOf(cert)), Key: write(t, dir, "b.key", parameters+sec1PEM)},
		"key first in one file":  {Cert: write(t, dir, "c.pem", sec1PEM+pemOf(cert))},
		"one file named twice":   {Cert: filepath.Join(dir, "c.pem"), Key: filepath.Join(dir, "c.pem")},
		"text around":            {Cert: write(t, dir, "d.pem", "Bag Attributes\n"+pemOf(cert)+"Key Attributes\n"+sec1PEM+"\n\n")},
	} {
		if _, err := Load(Config{Certificates: []Source{p}}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Whatever the files hold, loading answers without a panic, and a set that was
// accepted has a key that is its leaf's.
func FuzzLoad(f *testing.F) {
	key := ecKey(f)
	good := pemOf(sign(f, leaf("im.example.gov"), key, nil))
	f.Add([]byte(good), []byte(pemKey(f, key)))
	f.Add([]byte(good+good), []byte(good))
	f.Add([]byte("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"), []byte("-----BEGIN PRIVATE KEY-----\nMA==\n-----END PRIVATE KEY-----\n"))
	f.Add([]byte{0x30}, []byte{})
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, cert, key []byte) {
		p := Source{At: "f:1:1", Cert: write(t, dir, "fuzz.pem", string(cert)), Key: write(t, dir, "fuzz.key", string(key))}
		s, err := Load(Config{Certificates: []Source{p}})
		if err != nil {
			if !strings.HasPrefix(err.Error(), "f:1:1: ") {
				t.Errorf("the error does not say where: %v", err)
			}
			return
		}
		e := s.current.Load().entries[0]
		if _, err := tls.X509KeyPair(cert, key); err != nil {
			t.Errorf("accepted, but crypto/tls says %v", err)
		}
		e.warnings(intermediates{}, time.Now())
	})
}
