package gateway

import (
	"crypto/tls"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
)

// A listener's policy is its own: what it does not name is as for all of them.
func TestTLSPolicyOfAListener(t *testing.T) {
	const aes, chacha = tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
	e := startEdge(t, nil, nil, func(c *Config) {
		add := func(name string, p *TLSPolicy) {
			c.Listeners = append(c.Listeners, Listener{At: "test:" + name, Name: name, Address: "127.0.0.1:0", TLS: true, Policy: p})
		}
		add("new", &TLSPolicy{MinVersion: tls.VersionTLS13})
		add("one suite", &TLSPolicy{CipherSuites: []uint16{chacha}})
		add("one curve", &TLSPolicy{Curves: []tls.CurveID{tls.CurveP384}})
	})
	addresses := map[string]string{}
	for _, entry := range e.Entries() {
		addresses[entry.Name] = entry.Address.String()
	}
	old := tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{aes}}
	other := tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{chacha}}
	x25519, p384 := tls.Config{CurvePreferences: []tls.CurveID{tls.X25519}}, tls.Config{CurvePreferences: []tls.CurveID{tls.CurveP384}}
	for _, c := range []struct {
		client *tls.Config
		name   string
		lets   []string
	}{
		{&tls.Config{}, "anything", []string{"tls", "new", "one suite", "one curve"}},
		{&old, "TLS 1.2", []string{"tls", "one curve"}},
		{&other, "TLS 1.2 with ChaCha20", []string{"tls", "one suite", "one curve"}},
		{&x25519, "X25519", []string{"tls", "new", "one suite"}},
		{&p384, "P-384", []string{"tls", "new", "one suite", "one curve"}},
	} {
		for _, name := range []string{"tls", "new", "one suite", "one curve"} {
			cfg := c.client.Clone()
			cfg.RootCAs, cfg.ServerName = e.roots, "localhost"
			conn, err := tls.Dial("tcp", addresses[name], cfg)
			if err == nil {
				conn.Close()
			}
			if (err == nil) != slices.Contains(c.lets, name) {
				t.Errorf("%s at %q: %v", c.name, name, err)
			}
		}
	}
}

// The ports of nodes have a policy and ask for certificates as listeners do, and
// no listener lets pass what they tell nodes.
func TestTLSOfNodePorts(t *testing.T) {
	node := startRecorder(t, "node1")
	port := freePorts(t, 1)
	letIn := "good"
	ask := func(cfg *tls.Config) {
		cfg.ClientAuth = tls.RequireAnyClientCert
		cfg.VerifyConnection = func(state tls.ConnectionState) error {
			if name := state.PeerCertificates[0].Subject.CommonName; name != letIn {
				return fmt.Errorf("%s is not let in", name)
			}
			return nil
		}
	}
	e := startEdge(t, []Route{{Paths: []string{"/app"}, Service: "app"}}, map[string]map[string]string{"app": {"node1": node.addr}}, func(c *Config) {
		c.NodePorts = []NodePort{{
			At: "f:1:1", Service: "app", Kind: "http", TLS: true, Host: "127.0.0.1", Listen: PortRule{Base: port - 1}, Timeouts: DefaultTimeouts(),
			Policy:  &TLSPolicy{MinVersion: tls.VersionTLS13},
			Clients: &ClientCertificates{Ask: ask, Headers: map[string]CertificateField{"X-Device": FieldSubject}},
		}}
	})
	const request = "GET /app HTTP/1.1\r\nHost: h\r\nConnection: close\r\nX-Device: CN=forged\r\nx_device: CN=forged\r\n\r\n"
	address := fmt.Sprintf("127.0.0.1:%d", port)
	connect := func(tune func(*tls.Config)) error {
		cfg := &tls.Config{RootCAs: e.roots, ServerName: "localhost"}
		tune(cfg)
		conn, err := tls.Dial("tcp", address, cfg)
		if err != nil {
			return err
		}
		guarded(t, conn)
		if _, err = io.WriteString(conn, request); err == nil {
			_, err = io.ReadAll(conn) // TLS 1.3 tells of a refusal here only
		}
		return err
	}
	shown := func(name string) func(*tls.Config) {
		return func(cfg *tls.Config) { cfg.Certificates = []tls.Certificate{clientCertificate(t, name)} }
	}
	if err := connect(shown("good")); err != nil {
		t.Fatal(err)
	}
	if got := node.only(t).values("X-Device"); len(got) != 1 || got[0] != "CN=good,O=Ministry" {
		t.Errorf("the node hears %q", got)
	}
	for name, tune := range map[string]func(*tls.Config){
		"no certificate": func(*tls.Config) {},
		"another one":    shown("bad"),
		"an old version": func(cfg *tls.Config) { shown("good")(cfg); cfg.MaxVersion = tls.VersionTLS12 },
	} {
		if connect(tune) == nil {
			t.Errorf("%s is let in", name)
		}
	}
	if list := node.take(); len(list) != 0 {
		t.Errorf("the node was asked: %v", list)
	}
	e.raw(request)
	if got := node.only(t); strings.Contains(got.head, "forged") {
		t.Errorf("by another listener: %s", got.head)
	}
}
