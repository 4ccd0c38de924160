package certs

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// chainNames are the subjects that a client gets, in order.
func chainNames(t *testing.T, s *Store) (names []string) {
	t.Helper()
	conn := mustDial(t, serve(t, s.TLSConfig(), "127.0.0.1:0"), &tls.Config{ServerName: "im.example.gov"})
	for _, c := range conn.state.PeerCertificates {
		names = append(names, c.Subject.CommonName)
	}
	return names
}

// A chain that lacks its intermediates is completed from the folder, by name,
// key and signature; roots are not added.
func TestChainsAreCompleted(t *testing.T) {
	root := newCA(t, "root", nil)
	upper := newCA(t, "upper", root)
	lower := newCA(t, "lower", upper)
	namesake := newCA(t, "lower", upper)
	forged := *lower.cert
	twin := &issuer{key: ecKey(t)}
	twin.cert = sign(t, &forged, twin.key, upper)
	if !bytes.Equal(twin.cert.SubjectKeyId, lower.cert.SubjectKeyId) {
		t.Fatal("the twin has another key identifier")
	}
	key := ecKey(t)
	cert := sign(t, leaf("im.example.gov"), key, lower)
	rootless := sign(t, leaf("im.example.gov"), key, root)
	for _, c := range []struct {
		name   string
		chain  []*x509.Certificate
		folder map[string]string
		want   string
		warned bool
	}{
		{"nothing to add", []*x509.Certificate{cert, lower.cert, upper.cert}, map[string]string{"upper.pem": pemOf(upper.cert)}, "a leaf lower upper", false},
		{"both", []*x509.Certificate{cert}, map[string]string{"all.pem": pemOf(root.cert, upper.cert, namesake.cert, lower.cert)}, "a leaf lower upper", false},
		{"the upper one", []*x509.Certificate{cert, lower.cert}, map[string]string{"upper.crt": pemOf(upper.cert)}, "a leaf lower upper", false},
		{"in DER", []*x509.Certificate{cert}, map[string]string{"lower.cer": string(lower.cert.Raw)}, "a leaf lower", false},
		{"out of order", []*x509.Certificate{cert, upper.cert}, map[string]string{"lower.pem": pemOf(lower.cert)}, "a leaf lower upper", false},
		{"a namesake", []*x509.Certificate{cert}, map[string]string{"lower.pem": pemOf(namesake.cert)}, "a leaf", true},
		{"a twin with the key identifier", []*x509.Certificate{cert}, map[string]string{"lower.pem": pemOf(twin.cert)}, "a leaf", true},
		{"others", []*x509.Certificate{cert}, map[string]string{"leaf.pem": pemOf(cert), "root.pem": pemOf(root.cert), "readme.txt": "x"}, "a leaf", true},
		{"no folder", []*x509.Certificate{cert}, nil, "a leaf", true},
		{"of the root", []*x509.Certificate{rootless}, map[string]string{"root.pem": pemOf(root.cert)}, "a leaf", false},
		{"of the root, unknown", []*x509.Certificate{rootless}, map[string]string{"upper.pem": pemOf(upper.cert)}, "a leaf", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			cfg := Config{Certificates: []Source{{At: "f:1:1", Cert: write(t, dir, "im.pem", pemOf(c.chain...)+pemKey(t, key))}}}
			if c.folder != nil {
				cfg.Intermediates = filepath.Join(dir, "ca")
				if err := os.Mkdir(cfg.Intermediates, 0o700); err != nil {
					t.Fatal(err)
				}
				for name, content := range c.folder {
					write(t, cfg.Intermediates, name, content)
				}
			}
			s, err := Load(cfg)
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(chainNames(t, s), " "); got != c.want {
				t.Errorf("the chain is %q, want %q", got, c.want)
			}
			i := s.Infos()[0]
			if w := s.Warnings(); (len(w) > 0) != c.warned || i.ChainComplete == c.warned {
				t.Errorf("complete: %v, warnings %q", i.ChainComplete, w)
			}
			if want := strings.Count(c.want, " ") - len(c.chain); i.Completed != max(want, 0) {
				t.Errorf("%d are from the folder", i.Completed)
			}
		})
	}
}

func TestBrokenIntermediates(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "ca.pem", "nothing")
	for folder, want := range map[string]string{
		dir:           "f:9:3: intermediates: file " + dir + "/ca.pem: it holds no certificate in PEM or DER",
		dir + "/none": "f:9:3: intermediates: folder " + dir + "/none cannot be read (no such file or directory): check the name; a relative one is taken from the config's folder",
	} {
		if _, err := Load(Config{Intermediates: folder, IntermediatesAt: "f:9:3"}); err == nil || err.Error() != want {
			t.Errorf("the error is\n%v\nwant\n%s", err, want)
		}
	}
}

// An intermediate that comes into the folder is served, and one that breaks
// takes nothing away.
func TestIntermediatesAreFollowed(t *testing.T) {
	dir := t.TempDir()
	ca := filepath.Join(dir, "ca")
	if err := os.Mkdir(ca, 0o700); err != nil {
		t.Fatal(err)
	}
	i := issued(t, ecKey(t), "im.example.gov")
	s, d := running(t, Config{
		Certificates:  []Source{{At: "f:1:1", Cert: write(t, dir, "im.pem", pemOf(i.chain[0])+pemKey(t, i.key))}},
		Intermediates: ca, IntermediatesAt: "f:2:2",
	}, quick())
	d.await(t, 0, `warn f:1:1: `, `does not hold the issuer of its certificate, "CN=middle"`)
	rename(t, filepath.Join(ca, "middle.pem"), pemOf(i.chain[1]))
	at := d.await(t, 0, "info a certificate was read anew")
	if got := chainNames(t, s); !slices.Equal(got, []string{"a leaf", "middle"}) {
		t.Errorf("the chain is %q", got)
	}
	rename(t, filepath.Join(ca, "broken.pem"), "nothing")
	d.await(t, at, "error the folder of intermediates is not usable, what it held before goes on", "f:2:2: intermediates: file")
	if got := chainNames(t, s); !slices.Equal(got, []string{"a leaf", "middle"}) {
		t.Errorf("the chain is %q", got)
	}
	if f := s.Faults(); len(f) != 1 {
		t.Errorf("faults are %q", f)
	}
}

// With RefuseUnknown a name that none covers gets the alert made for it;
// clients without a name get the default.
func TestUnknownNames(t *testing.T) {
	dir := t.TempDir()
	pairs := []Source{pair(t, dir, "im.pem", "im.example.gov"), pair(t, dir, "wild.pem", "*.example.gov")}
	for _, refuse := range []bool{false, true} {
		s, err := Load(Config{Certificates: pairs, RefuseUnknown: refuse})
		if err != nil {
			t.Fatal(err)
		}
		address := serve(t, s.TLSConfig(), "127.0.0.1:0")
		for name, unknown := range map[string]bool{"": false, "im.example.gov": false, "a.example.gov": false, "elsewhere.test": true, "a.b.example.gov": true} {
			_, err := dial(t, address, &tls.Config{ServerName: name})
			if (err != nil) != (refuse && unknown) || err != nil && !strings.Contains(err.Error(), "unrecognized name") {
				t.Errorf("%q with refuse %v: %v", name, refuse, err)
			}
		}
	}
}

func TestSuitesAndCurves(t *testing.T) {
	dir := t.TempDir()
	suites := func(ids ...uint16) *tls.Config { return &tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: ids} }
	curves := func(ids ...tls.CurveID) *tls.Config { return &tls.Config{CurvePreferences: ids} }
	p := pair(t, dir, "im.pem", "im.example.gov")
	usual := serve(t, load(t, p).TLSConfig(), "127.0.0.1:0")
	s, err := Load(Config{
		Certificates: []Source{p},
		CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384}, Curves: []tls.CurveID{tls.CurveP384},
	})
	if err != nil {
		t.Fatal(err)
	}
	strict := serve(t, s.TLSConfig(), "127.0.0.1:0")
	for i, c := range []struct {
		address string
		client  *tls.Config
		ok      bool
	}{
		{usual, suites(tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256), true},
		{strict, suites(tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256), false},
		{strict, suites(tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384), true},
		{usual, curves(tls.X25519), true},
		{strict, curves(tls.X25519), false},
		{strict, curves(tls.CurveP384), true},
	} {
		if _, err := dial(t, c.address, c.client); (err == nil) != c.ok {
			t.Errorf("case %d: %v", i, err)
		}
	}
	if got := mustDial(t, usual, &tls.Config{}).state.CurveID; got != tls.X25519MLKEM768 {
		t.Errorf("by default the key exchange is %v, want the hybrid one", got)
	}
	if w := s.Warnings(); len(w) != 0 {
		t.Errorf("warnings: %q", w)
	}
	other, err := Load(Config{Certificates: []Source{pairWithKey(t, dir, "rsa.pem", rsaKey(), "im.example.gov")}, CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384}})
	if err != nil {
		t.Fatal(err)
	}
	if w := other.Warnings(); len(w) != 1 || !strings.Contains(w[0], "no suite of cipher_suites is for the RSA 2048 key") {
		t.Errorf("warnings: %q", w)
	}
	for want, cfg := range map[string]Config{
		"cipher suite TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA: expected one of TLS 1.2 with forward secrecy and AEAD": {CipherSuites: []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA}},
		"curves: TLS 1.2 has no hybrid ones: add X25519 or P-256, or make min_version 1.3":                       {Curves: []tls.CurveID{tls.X25519MLKEM768}},
	} {
		if _, err := Load(cfg); err == nil || err.Error() != want {
			t.Errorf("the error is %v, want %s", err, want)
		}
	}
}

// What is counted is what clients got; a session that is resumed got none.
func TestServedIsCounted(t *testing.T) {
	dir := t.TempDir()
	s := load(t, pair(t, dir, "a.pem", "a.example.gov"), pair(t, dir, "b.pem", "b.example.gov"))
	address := serve(t, s.TLSConfig(), "127.0.0.1:0")
	resuming := &tls.Config{ServerName: "b.example.gov", ClientSessionCache: tls.NewLRUClientSessionCache(1)}
	for range 3 {
		mustDial(t, address, &tls.Config{ServerName: "a.example.gov"})
		mustDial(t, address, resuming)
	}
	if i := s.Infos(); i[0].Served != 3 || i[1].Served != 1 {
		t.Errorf("served %d and %d times, want 3 and 1", i[0].Served, i[1].Served)
	}
}
