package certs

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

func devCert(t *testing.T, dir string, hosts ...string) DevCert {
	t.Helper()
	d, err := DevCertificate(dir, hosts)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func read(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// A client that trusts the CA file connects by every name.
func TestDevCertificateServes(t *testing.T) {
	d := devCert(t, filepath.Join(t.TempDir(), "new", "dev"), "IM.example.test", "*.im.example.test", "10.1.2.3", "im.example.test")
	s := load(t, Source{At: "dev", Cert: d.CertFile, Key: d.KeyFile})
	if w := s.Warnings(); len(w) > 0 {
		t.Errorf("warnings: %v", w)
	}
	want := []string{"im.example.test", "*.im.example.test", "localhost", "10.1.2.3", "127.0.0.1", "::1"}
	if got := s.Infos()[0].Names; !slices.Equal(got, want) {
		t.Errorf("names are %v, expected %v", got, want)
	}
	address := serve(t, s.TLSConfig(), "127.0.0.1:0")
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(read(t, d.CAFile)) {
		t.Fatal("the CA file holds no certificate")
	}
	for _, name := range []string{"im.example.test", "node1.im.example.test", "localhost", "127.0.0.1", "::1", "10.1.2.3"} {
		conn, err := tls.Dial("tcp", address, &tls.Config{ServerName: name, RootCAs: roots})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		conn.Close()
	}
}

func TestDevCertificateIsKept(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "dev")
	first := devCert(t, dir, "a.test", "b.test")
	if !first.Created {
		t.Error("Created is false at the first call")
	}
	ca, cert, key := read(t, first.CAFile), read(t, first.CertFile), read(t, first.KeyFile)
	parsed, err := devDir{path: dir}.certs(devCAFile)
	if err != nil {
		t.Fatal(err)
	}
	host, _ := os.Hostname()
	if got := parsed[0].Subject.CommonName; got != "singlegate development CA "+host {
		t.Errorf("the CA's name is %q", got)
	}

	second := devCert(t, dir, "b.test")
	first.Created = false
	if second != first {
		t.Errorf("the second call gives %+v, expected %+v", second, first)
	}
	if !bytes.Equal(read(t, first.CertFile), cert) {
		t.Error("the certificate was issued again without need")
	}
	devCert(t, dir, "c.test")
	if bytes.Equal(read(t, first.CertFile), cert) {
		t.Error("the certificate was not issued again for a new host")
	}
	if !bytes.Equal(read(t, first.CAFile), ca) || !bytes.Equal(read(t, first.KeyFile), key) {
		t.Error("the CA or the key changed")
	}

	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode() != 0o600 {
			t.Errorf("%s has mode %v", e.Name(), info.Mode())
		}
		names = append(names, e.Name())
	}
	if want := []string{"ca.key", "ca.pem", "dev.key", "dev.pem"}; !slices.Equal(names, want) {
		t.Errorf("the folder holds %v, expected %v", names, want)
	}
	if info, _ := os.Stat(dir); info.Mode().Perm() != 0o700 {
		t.Errorf("the folder has mode %v", info.Mode())
	}
}

// Each case changes the folder so that the certificate has to be issued again.
func TestDevCertificateIssuedAgain(t *testing.T) {
	for name, change := range map[string]func(t *testing.T, dir string, ca devCA, key string){
		"ends soon": func(t *testing.T, dir string, ca devCA, _ string) {
			key, err := devDir{path: dir}.key(devKeyFile)
			if err != nil {
				t.Fatal(err)
			}
			template := leaf("a.test", "localhost", "127.0.0.1", "::1")
			template.NotAfter = time.Now().Add(devLeafRenew - time.Minute)
			write(t, dir, devCertFile, pemOf(sign(t, template, key, &issuer{ca.cert, ca.key}), ca.cert))
		},
		"other CA": func(t *testing.T, dir string, _ devCA, _ string) {
			for _, file := range []string{devCAFile, devCAKeyFile} {
				if err := os.Remove(filepath.Join(dir, file)); err != nil {
					t.Fatal(err)
				}
			}
		},
		"other CA of the same key": func(t *testing.T, dir string, _ devCA, _ string) {
			if err := os.Remove(filepath.Join(dir, devCAFile)); err != nil {
				t.Fatal(err)
			}
		},
		"other key": func(t *testing.T, dir string, _ devCA, _ string) { write(t, dir, devKeyFile, pemKey(t, ecKey(t))) },
		"damaged":   func(t *testing.T, dir string, _ devCA, _ string) { write(t, dir, devCertFile, "half a fi") },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			d := devCert(t, dir, "a.test")
			before := read(t, d.CertFile)
			ca, _, err := devDir{path: dir, now: time.Now()}.ca()
			if err != nil {
				t.Fatal(err)
			}
			change(t, dir, ca, d.KeyFile)
			devCert(t, dir, "a.test")
			if bytes.Equal(read(t, d.CertFile), before) {
				t.Fatal("the certificate is the old one")
			}
			checkDev(t, d)
			if left := time.Until(load(t, Source{Cert: d.CertFile, Key: d.KeyFile}).Infos()[0].NotAfter); left < 300*24*time.Hour || left > devLeafLife {
				t.Errorf("the certificate is good for %v", left)
			}
		})
	}
}

// checkDev verifies that certificate, key and CA belong together.
func checkDev(t *testing.T, d DevCert) {
	t.Helper()
	s := load(t, Source{At: "dev", Cert: d.CertFile, Key: d.KeyFile})
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(read(t, d.CAFile))
	if _, err := s.current.Load().entries[0].leaf().Verify(x509.VerifyOptions{Roots: roots, DNSName: "localhost"}); err != nil {
		t.Errorf("the certificate is not of the CA: %v", err)
	}
}

func TestDevCABroken(t *testing.T) {
	const restore = "; if it cannot be restored, delete "
	for _, c := range []struct {
		name, file, content, want string
	}{
		{"certificate", devCAFile, "half a fi", "development CA: certificate file DIR/ca.pem holds no PEM: expected a block that begins with -----BEGIN" + restore + "DIR/ca.pem to have it created anew: clients must then trust the new one"},
		{"other certificate", devCAFile, pemOf(newCA(t, "other", nil).cert), "development CA: DIR/ca.pem does not belong to DIR/ca.key" + restore + "DIR/ca.pem to have it created anew: clients must then trust the new one"},
		{"no CA", devCAFile, pemOf(sign(t, leaf("a.test"), ecKey(t), nil)), "development CA: DIR/ca.pem holds no CA certificate" + restore + "DIR/ca.pem to have it created anew: clients must then trust the new one"},
		{"key", devCAKeyFile, "half a fi", "development CA: key file DIR/ca.key holds no PEM: expected a block that begins with -----BEGIN" + restore + "DIR/ca.key to have it created anew"},
		{"no key", devCAKeyFile, "", "development CA: DIR/ca.key is missing, so DIR/ca.pem cannot issue any more: put the key back, or delete DIR/ca.pem to have a new CA created, which clients must then trust anew"},
		{"leaf key", devKeyFile, "half a fi", "development certificate: key file DIR/dev.key holds no PEM: expected a block that begins with -----BEGIN" + restore + "DIR/dev.key to have it created anew"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			d := devCert(t, dir)
			before := read(t, d.CertFile)
			if c.content == "" {
				os.Remove(filepath.Join(dir, c.file))
			} else {
				write(t, dir, c.file, c.content)
			}
			_, err := DevCertificate(dir, nil)
			if err == nil {
				t.Fatal("accepted")
			}
			if got := strings.ReplaceAll(err.Error(), dir, "DIR"); got != c.want {
				t.Errorf("the error is\n%s\nexpected\n%s", got, c.want)
			}
			if c.content != "" && string(read(t, filepath.Join(dir, c.file))) != c.content {
				t.Error("the broken file was replaced")
			}
			if !bytes.Equal(read(t, d.CertFile), before) {
				t.Error("a certificate was issued all the same")
			}
		})
	}
}

func TestDevCAExpired(t *testing.T) {
	dir := t.TempDir()
	devCert(t, dir)
	_, _, err := devDir{path: dir, now: time.Now().Add(devCALife + time.Hour)}.ca()
	if err == nil || !strings.Contains(err.Error(), "ca.pem expired on ") {
		t.Errorf("the error is %v", err)
	}
}

// In the CA's last days a certificate ends with it, and is not issued again and
// again for that.
func TestDevCAEnding(t *testing.T) {
	dir := t.TempDir()
	names := []string{"localhost"}
	d := devDir{path: dir, now: time.Now()}
	ca, _, err := d.ca()
	if err != nil {
		t.Fatal(err)
	}
	d.now = ca.cert.NotAfter.Add(-24 * time.Hour)
	if err := d.leaf(ca, names); err != nil {
		t.Fatal(err)
	}
	chain, err := d.certs(devCertFile)
	if err != nil {
		t.Fatal(err)
	}
	if !chain[0].NotAfter.Equal(ca.cert.NotAfter) {
		t.Errorf("the certificate ends %v, the CA %v", chain[0].NotAfter, ca.cert.NotAfter)
	}
	key, err := d.key(devKeyFile)
	if err != nil {
		t.Fatal(err)
	}
	if !d.leafIsGood(ca, key, names) {
		t.Error("it would be issued again at every call")
	}
}

func TestDevHosts(t *testing.T) {
	for _, host := range []string{"", "a..b", "im.example.test:443", "https://im.example.test", "[::1]", "政务.test", "*", "a.*.test"} {
		_, err := DevCertificate(t.TempDir(), []string{host})
		if err == nil || !strings.Contains(err.Error(), "is neither a DNS name nor an IP address: write it without scheme, port and brackets") {
			t.Errorf("%q: the error is %v", host, err)
		}
	}
}

// Many first starts at once end with one CA, one key, and a certificate that
// fits both.
func TestDevCertificateConcurrently(t *testing.T) {
	for range 5 {
		dir := filepath.Join(t.TempDir(), "dev")
		var starts sync.WaitGroup
		created := make(chan struct{}, 8)
		for i := range cap(created) {
			starts.Go(func() {
				d, err := DevCertificate(dir, []string{string(rune('a'+i)) + ".test"})
				if err != nil {
					t.Error(err)
					return
				}
				if d.Created {
					created <- struct{}{}
				}
				if _, err := Load(Config{Certificates: []Source{{Cert: d.CertFile, Key: d.KeyFile}}}); err != nil {
					t.Error(err)
				}
			})
		}
		starts.Wait()
		if len(created) != 1 {
			t.Errorf("%d calls say they created the CA", len(created))
		}
		d := devCert(t, dir)
		if d.Created {
			t.Error("the CA was created once more")
		}
		checkDev(t, d)
	}
}
