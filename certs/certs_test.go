package certs

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestChoiceByName(t *testing.T) {
	dir := t.TempDir()
	s := load(t,
		pair(t, dir, "default.pem", "default.example.gov"),
		pair(t, dir, "wild.pem", "*.im.example.gov"),
		pair(t, dir, "exact.pem", "Node1.IM.example.gov", "im.example.gov"),
		pair(t, dir, "second.pem", "im.example.gov", "later.example.gov"),
		pair(t, dir, "ip.pem", "127.0.0.1", "::1"),
	)
	v4 := serve(t, s.TLSConfig(), "127.0.0.1:0")
	addresses := map[string]string{"4": v4, "other": serve(t, s.TLSConfig(), "127.0.0.2:0")}
	if probe, err := net.Listen("tcp", "[::1]:0"); err == nil {
		probe.Close()
		addresses["6"] = serve(t, s.TLSConfig(), "[::1]:0")
	}
	for _, c := range []struct{ address, name, want string }{
		{"4", "im.example.gov", "exact.pem"}, // of two, the first in the file
		{"4", "IM.Example.GOV", "exact.pem"},
		{"4", "node1.im.example.gov", "exact.pem"}, // though the wildcard stands before
		{"4", "node2.im.example.gov", "wild.pem"},
		{"4", "NODE2.im.example.gov", "wild.pem"},
		{"4", "a.node2.im.example.gov", "default.pem"}, // a wildcard is one label
		{"4", "later.example.gov", "second.pem"},
		{"4", "example.gov", "default.pem"},
		{"4", "gov", "default.pem"},
		{"4", "", "ip.pem"},
		{"6", "", "ip.pem"},
		{"other", "", "default.pem"},
		{"other", "node2.im.example.gov", "wild.pem"},
	} {
		t.Run(c.address+"/"+c.name, func(t *testing.T) {
			address, ok := addresses[c.address]
			if !ok {
				t.Skip("no IPv6 loopback here")
			}
			// Go's client sends the name as it is, and none when it is empty.
			got := s.source(mustDial(t, address, &tls.Config{ServerName: c.name}).leaf())
			if got != c.want {
				t.Errorf("the certificate is that of %s, expected %s", got, c.want)
			}
		})
	}
}

// crypto/tls refuses such names in a hello before the store sees them, but not
// every caller need come by that way.
func TestNameWithTrailingDotOrAddress(t *testing.T) {
	dir := t.TempDir()
	s := load(t, pair(t, dir, "default.pem", "default.example.gov"), pair(t, dir, "im.pem", "im.example.gov"), pair(t, dir, "ip.pem", "192.0.2.7"))
	for name, want := range map[string]string{"im.example.gov.": "im.pem", "192.0.2.7": "ip.pem", ".": "default.pem"} {
		cert, err := s.TLSConfig().GetCertificate(&tls.ClientHelloInfo{ServerName: name})
		if err != nil {
			t.Fatal(err)
		}
		if got := s.source(cert.Leaf); got != want {
			t.Errorf("%q: the certificate is that of %s, expected %s", name, got, want)
		}
	}
}

func TestChoiceByKind(t *testing.T) {
	dir := t.TempDir()
	s := load(t,
		pair(t, dir, "default-ec.pem", "im.example.gov"),
		pair(t, dir, "wild-ec.pem", "*.example.gov"),
		pairWithKey(t, dir, "default-rsa.pem", rsaKey(), "IM.example.gov"),
		pairWithKey(t, dir, "wild-rsa.pem", rsaKey(), "*.example.gov"),
		pair(t, dir, "lone-ec.pem", "lone.example.gov"),
	)
	address := serve(t, s.TLSConfig(), "127.0.0.1:0")
	ec := []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256}
	rsa := []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}
	for _, c := range []struct {
		name   string
		suites []uint16
		want   string
	}{
		{"im.example.gov", ec, "default-ec.pem"},
		{"im.example.gov", rsa, "default-rsa.pem"},
		{"im.example.gov", slices.Concat(rsa, ec), "default-ec.pem"}, // order of the file
		{"a.example.gov", ec, "wild-ec.pem"},
		{"a.example.gov", rsa, "wild-rsa.pem"},
		{"lone.example.gov", ec, "lone-ec.pem"},
		{"lone.example.gov", rsa, "wild-rsa.pem"}, // it covers the name too
		{"elsewhere.test", ec, "default-ec.pem"},
		{"elsewhere.test", rsa, "default-rsa.pem"},
		{"", rsa, "default-rsa.pem"},
	} {
		conn := mustDial(t, address, &tls.Config{ServerName: c.name, MaxVersion: tls.VersionTLS12, CipherSuites: c.suites})
		if got := s.source(conn.leaf()); got != c.want {
			t.Errorf("%q with %v: the certificate is that of %s, expected %s", c.name, c.suites, got, c.want)
		}
	}
	conn := mustDial(t, address, &tls.Config{ServerName: "im.example.gov"})
	if got := s.source(conn.leaf()); got != "default-ec.pem" {
		t.Errorf("TLS 1.3: the certificate is that of %s, expected the first", got)
	}
}

func TestChoiceDoesNotAllocate(t *testing.T) {
	dir := t.TempDir()
	s := load(t, pair(t, dir, "default.pem", "im.example.gov"), pair(t, dir, "wild.pem", "*.example.gov"))
	for _, managed := range []Managed{nil, &fakeManaged{names: []string{"acme.test"}}} {
		s.Manage(managed)
		for _, name := range []string{"im.example.gov", "other.example.gov", "elsewhere.test"} {
			hello := &tls.ClientHelloInfo{ServerName: name, SupportedProtos: []string{"http/1.1"}}
			if n := testing.AllocsPerRun(100, func() {
				s.listeners.GetConfigForClient(hello)
				choose := s.current.Load()
				choose.named(hello)
				choose.managedCertificate(hello)
				choose.unnamed(hello)
			}); n != 0 {
				t.Errorf("%s: %v allocations", name, n)
			}
		}
	}
}

func TestPolicy(t *testing.T) {
	dir := t.TempDir()
	cfg := Config{Certificates: []Source{
		pair(t, dir, "ec.pem", "im.example.gov"), pairWithKey(t, dir, "rsa.pem", rsaKey(), "im.example.gov"),
	}}
	s, err := Load(cfg)
	if err != nil {
		t.Fatal(err)
	}
	address := serve(t, s.TLSConfig(), "127.0.0.1:0")
	const protocolVersion, noALPN, handshakeFailure = "protocol version not supported", "no application protocol", "handshake failure"
	check := func(name string, config *tls.Config, want string) {
		t.Helper()
		_, err := dial(t, address, config)
		if want == "" && err != nil {
			t.Errorf("%s: refused: %v", name, err)
		}
		if want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: error %v, expected one with %q", name, err, want)
		}
	}
	only := func(version uint16) *tls.Config { return &tls.Config{MinVersion: version, MaxVersion: version} }
	suite := func(id uint16) *tls.Config {
		return &tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{id}}
	}
	check("TLS 1.1", only(tls.VersionTLS11), protocolVersion)
	check("TLS 1.2", only(tls.VersionTLS12), "")
	check("TLS 1.3", only(tls.VersionTLS13), "")
	check("CBC", suite(tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA), handshakeFailure)
	check("RSA key exchange", suite(tls.TLS_RSA_WITH_AES_128_GCM_SHA256), handshakeFailure)
	check("ChaCha20", suite(tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256), "")
	check("only h2", &tls.Config{NextProtos: []string{"h2"}}, noALPN)

	conn := mustDial(t, address, &tls.Config{NextProtos: []string{"h2", "http/1.1"}})
	if got := conn.state.NegotiatedProtocol; got != "http/1.1" {
		t.Errorf("ALPN chose %q, expected http/1.1", got)
	}

	cfg.MinVersion = tls.VersionTLS13
	if err := reload(s, cfg); err != nil {
		t.Fatal(err)
	}
	check("TLS 1.2 after the minimum became 1.3", only(tls.VersionTLS12), protocolVersion)
	check("TLS 1.3 after the minimum became 1.3", only(tls.VersionTLS13), "")
}

func TestReload(t *testing.T) {
	dir := t.TempDir()
	name := &tls.Config{ServerName: "im.example.gov"}
	p := pair(t, dir, "im.pem", "im.example.gov")
	s := load(t, p)
	address := serve(t, s.TLSConfig(), "127.0.0.1:0")
	before := mustDial(t, address, name.Clone())

	pair(t, dir, "im.pem", "im.example.gov") // another certificate in the same file
	if err := reload(s, Config{Certificates: []Source{p}}); err != nil {
		t.Fatal(err)
	}
	if err := before.echo("still here"); err != nil {
		t.Errorf("the connection from before the reload: %v", err)
	}
	after := mustDial(t, address, name.Clone())
	if after.leaf().Equal(before.leaf()) {
		t.Error("a new connection got the old certificate")
	}

	write(t, dir, "im.pem", "half a fi")
	other := pair(t, dir, "other.pem", "other.example.gov")
	if err := reload(s, Config{Certificates: []Source{other, p}, MinVersion: tls.VersionTLS13}); err == nil {
		t.Fatal("a broken file was accepted")
	}
	old := name.Clone()
	old.MaxVersion = tls.VersionTLS12
	if !mustDial(t, address, old).leaf().Equal(after.leaf()) {
		t.Error("a refused reload changed what is served")
	}
	if infos := s.Infos(); len(infos) != 1 || infos[0].Source != p.Cert {
		t.Errorf("a refused reload changed the infos: %v", infos)
	}
}

func TestSessionsSurviveReload(t *testing.T) {
	for name, version := range map[string]uint16{"1.2": tls.VersionTLS12, "1.3": tls.VersionTLS13} {
		t.Run(name, func(t *testing.T) {
			p := pair(t, t.TempDir(), "im.pem", "im.example.gov")
			s := load(t, p)
			first, second := serve(t, s.TLSConfig(), "127.0.0.1:0"), serve(t, s.TLSConfig(), "127.0.0.1:0")
			config := &tls.Config{ServerName: "im.example.gov", MaxVersion: version, ClientSessionCache: tls.NewLRUClientSessionCache(4)}
			if mustDial(t, first, config).state.DidResume {
				t.Fatal("the first connection resumed a session")
			}
			if err := reload(s, Config{Certificates: []Source{p}}); err != nil {
				t.Fatal(err)
			}
			if !mustDial(t, second, config).state.DidResume {
				t.Error("after a reload, on another listener, the session was not resumed")
			}
		})
	}
}

func TestInfos(t *testing.T) {
	dir := t.TempDir()
	s := load(t, pair(t, dir, "a.pem", "im.example.gov", "10.0.0.1", "*.im.example.gov"), pair(t, dir, "b.pem", "b.example.gov"))
	infos := s.Infos()
	for i := range infos {
		if left := time.Until(infos[i].NotAfter); left < 999*time.Hour || left > 1001*time.Hour {
			t.Errorf("NotAfter is in %v", left)
		}
		infos[i].NotAfter = time.Time{}
	}
	want := []Info{
		{Names: []string{"im.example.gov", "*.im.example.gov", "10.0.0.1"}, Issuer: "a leaf", SelfSigned: true, Chain: 1, ChainComplete: true, Key: "ECDSA P-256", Source: filepath.Join(dir, "a.pem"), Default: true},
		{Names: []string{"b.example.gov"}, Issuer: "a leaf", SelfSigned: true, Chain: 1, ChainComplete: true, Key: "ECDSA P-256", Source: filepath.Join(dir, "b.pem")},
	}
	if !reflect.DeepEqual(infos, want) {
		t.Errorf("infos are %+v, expected %+v", infos, want)
	}
}

func TestWarnings(t *testing.T) {
	dir := t.TempDir()
	root := newCA(t, "root", nil)
	middle := newCA(t, "middle", root)
	namesake := newCA(t, "middle", root)
	key := ecKey(t)
	good := sign(t, leaf("im.example.gov"), key, middle)
	ending := leaf("im.example.gov")
	ending.NotAfter = time.Now().Add(49 * time.Hour)
	endingOn := ending.NotAfter.UTC().Format(time.DateOnly)
	const noIssuer = `singlegate.yaml:7:7: im.pem does not hold the issuer of its certificate, "CN=middle": clients that do not know it (mobile devices, mini-programs) will refuse the connection; append the intermediate certificate to the file, or put it into the folder that tls.intermediates names; where that is the root which all clients trust, putting it there ends this warning`
	for _, c := range []struct {
		name  string
		chain []*x509.Certificate
		want  []string
	}{
		{"with its intermediate", []*x509.Certificate{good, middle.cert}, nil},
		{"with all", []*x509.Certificate{good, middle.cert, root.cert}, nil},
		{"self-signed", []*x509.Certificate{sign(t, leaf("im.example.gov"), key, nil)}, nil},
		{"alone", []*x509.Certificate{good}, []string{noIssuer}},
		{"only with the root", []*x509.Certificate{good, root.cert}, []string{noIssuer}},
		{"with another of that name", []*x509.Certificate{good, namesake.cert}, []string{noIssuer}},
		{"ending", []*x509.Certificate{sign(t, ending, key, middle), middle.cert},
			[]string{"singlegate.yaml:7:7: the certificate in im.pem expires on " + endingOn + ", in 2 days: renew it"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := load(t, Source{At: "singlegate.yaml:7:7", Cert: write(t, dir, "im.pem", pemOf(c.chain...)+pemKey(t, key))})
			got := s.Warnings()
			for i := range got {
				got[i] = strings.ReplaceAll(got[i], dir+string(filepath.Separator), "")
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("warnings are\n%s\nexpected\n%s", strings.Join(got, "\n"), strings.Join(c.want, "\n"))
			}
		})
	}
}

func TestWarningsFollowTheClock(t *testing.T) {
	s := load(t, pair(t, t.TempDir(), "im.pem", "im.example.gov"))
	end := s.Infos()[0].NotAfter
	for _, c := range []struct {
		at   time.Time
		want string
	}{
		{end.Add(-30*oneDay - time.Second), ""},
		{end.Add(-30*oneDay + time.Second), "in 29 days: renew it"},
		{end.Add(-time.Second), "in 0 days: renew it"},
		{end.Add(time.Second), "expired on"},
	} {
		got := strings.Join(textsOf(s.current.Load().warnings(c.at)), "\n")
		if (c.want == "") != (got == "") || !strings.Contains(got, c.want) {
			t.Errorf("%v from the end: warnings %q, expected %q", c.at.Sub(end), got, c.want)
		}
	}
}
