package e2e

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"singlegate/internal/consultest"
	"singlegate/internal/pebbletest"
	"singlegate/internal/standin"
)

func portOf(t *testing.T, address string) int {
	t.Helper()
	_, text, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// An acmeSite is a gateway whose certificates come from a real ACME server, and
// what its config is made of.
type acmeSite struct {
	*site
	dir, node, plain, secure, admin string
}

// acmeSite begins none of it.
func newACMESite(t *testing.T) *acmeSite {
	t.Helper()
	return &acmeSite{dir: t.TempDir(), node: startNode(t, standin.Options{ID: "node1"}).Addr(), plain: freeAddress(t), secure: freeAddress(t), admin: freeAddress(t)}
}

// acmeConfig has a plain listener on which nothing would let a challenge through.
const acmeConfig = `
listeners:
  - {name: plain, address: %[1]q}
  - {name: tls, address: %[2]q, tls: true}
admin: {address: %[3]q}
services: {im: {nodes: {node1: %[4]q}}}
routes:
  - {path: /, listeners: [plain], redirect: https}
  - {path: "/.well-known", service: im, allow: [192.0.2.1]}
  - {path: "/ws/{node}", listeners: [tls], service: im, rewrite: /}
%[5]s
`

func (s *acmeSite) write(t *testing.T, tls string) {
	t.Helper()
	writeFile(t, s.dir, "gateway.yaml", fmt.Sprintf(acmeConfig, s.plain, s.secure, s.admin, s.node, tls))
}

func (s *acmeSite) start(t *testing.T) {
	t.Helper()
	if r := runCommand(t, s.dir, "check", "--config", "gateway.yaml"); r.code != 0 {
		t.Fatalf("check: exit code %d\n%s", r.code, r.err)
	}
	s.site = startSite(t, s.dir)
}

// shows makes a handshake for a name, which must succeed.
func (s *acmeSite) shows(name string, roots *x509.CertPool) (*x509.Certificate, error) {
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: patience}, "tcp", s.secure, &tls.Config{ServerName: name, RootCAs: roots})
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0], nil
}

// await waits until a name has a certificate that is good for something.
func (s *acmeSite) await(t *testing.T, name string, roots *x509.CertPool, good func(*x509.Certificate) bool) (c *x509.Certificate) {
	t.Helper()
	until(t, name+" has its certificate", func() (err error) {
		if c, err = s.shows(name, roots); err == nil && !good(c) {
			err = errors.New("it is not the one")
		}
		return err
	})
	return c
}

func anyCertificate(*x509.Certificate) bool { return true }

// Certificates come by each kind of challenge that listeners of the gateway take,
// and are renewed under live tunnels.
func TestACME(t *testing.T) {
	for _, kind := range []string{"http-01", "tls-alpn-01"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			s := newACMESite(t)
			o := pebbletest.Options{HTTPPort: portOf(t, s.plain), TLSPort: 1, Validity: 24 * time.Second}
			if kind != "http-01" {
				o.HTTPPort, o.TLSPort = 1, portOf(t, s.secure)
			}
			server := pebbletest.Start(t, o)
			s.write(t, fmt.Sprintf(`tls: {certificates: [{acme: {names: [im.localhost, IM2.localhost], directory: %q, ca: %q, storage: ./acme}}]}`, server.Directory, server.CAFile))
			s.start(t)
			roots := server.Issued(t)
			first := s.await(t, "im.localhost", roots, anyCertificate)
			s.await(t, "im2.localhost", roots, anyCertificate)

			const tunnels = 100
			echoes := startEchoes(tunnels)
			defer echoes.stop()
			d := door{address: s.secure, host: "im.localhost", roots: roots}
			for range tunnels {
				echoes.follow(d.open(t, "/ws/node1"))
			}
			for range 2 {
				was := first
				first = s.await(t, "im.localhost", roots, func(c *x509.Certificate) bool { return !c.Equal(was) })
				echoes.turn(t, tunnels)
			}
			if err := echoes.stop(); err != nil {
				t.Error(err)
			}
			if plain, body := (door{address: s.plain, host: "im.localhost"}).request(t, "GET", "/.well-known/acme-challenge/none", ""); plain.StatusCode != 403 {
				t.Errorf("what is no challenge of ours: %s %s, want 403 by its route", plain.Status, body)
			}
			r := runCommand(t, s.dir, "certs", "--config", "gateway.yaml")
			contains(t, "certs", r.out, "im.localhost", "im2.localhost", "acme 127.0.0.1")
			_, metrics := (door{address: s.admin, host: s.admin}).request(t, "GET", "/metrics", "")
			contains(t, "metrics", metrics, `singlegate_certificate_renewal_fault{alias="",name="im.localhost",source="acme 127.0.0.1"} 0`)
		})
	}
}

// consulToken makes a token that the guide's rules are enough for.
func consulToken(t *testing.T, agent *consultest.Agent, rules ...string) string {
	t.Helper()
	guide := readFile(t, filepath.Join(root, "single_address.md"))
	contains(t, "the guide", guide, rules...)
	policy, _, err := agent.API.ACL().PolicyCreate(&api.ACLPolicy{Name: "certificates", Rules: strings.Join(rules, "\n")}, nil)
	if err != nil {
		t.Fatal(err)
	}
	token, _, err := agent.API.ACL().TokenCreate(&api.ACLToken{Policies: []*api.ACLTokenPolicyLink{{ID: policy.ID}}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return token.SecretID
}

// Two gateways that share their certificates in Consul get one, whichever of them
// the ACME server asks; they serve it also when that server is gone.
func TestACMEShared(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t, consultest.Options{ACL: true})
	token := consulToken(t, agent, `key_prefix "singlegate/certs" { policy = "write" }`, `session_prefix "" { policy = "write" }`)
	a, b := newACMESite(t), newACMESite(t)
	server := pebbletest.Start(t, pebbletest.Options{HTTPPort: portOf(t, a.plain), TLSPort: portOf(t, a.secure)})
	for _, s := range []*acmeSite{a, b} {
		writeFile(t, s.dir, "site.key", strings.Repeat("k", 44))
		writeFile(t, s.dir, "consul.token", token)
		s.write(t, fmt.Sprintf("discovery: {consul: {address: %q, token_file: consul.token}}\ntls: {shared: {key_file: site.key, consul: singlegate/certs}, certificates: [{acme: {names: [shared.localhost], directory: %q, ca: %q}}]}",
			agent.Address, server.Directory, server.CAFile))
	}
	b.start(t) // it orders, and the server asks the other
	a.start(t)
	roots := server.Issued(t)
	one, two := a.await(t, "shared.localhost", roots, anyCertificate), b.await(t, "shared.localhost", roots, anyCertificate)
	if !one.Equal(two) {
		t.Error("the gateways have different certificates")
	}
	if n := server.Orders(); n != 1 {
		t.Errorf("%d certificates were issued, want 1", n)
	}

	server.Stop()
	b.site.stop()
	b.start(t)
	if again := b.await(t, "shared.localhost", roots, anyCertificate); !again.Equal(one) {
		t.Error("a restart brought another certificate")
	}

	values, _, err := agent.API.KV().List("singlegate/certs/", nil)
	if err != nil || len(values) == 0 {
		t.Fatalf("%d values in Consul, %v", len(values), err)
	}
	for _, v := range values {
		if strings.Contains(string(v.Value), "PRIVATE KEY") {
			t.Errorf("%s is in plain", v.Key)
		}
	}
}

// Consul is not there at the start: that is said, other certificates are served,
// and the one by ACME comes when Consul does.
func TestACMEWithoutConsul(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t, consultest.Options{})
	agent.Kill()
	s := newACMESite(t)
	server := pebbletest.Start(t, pebbletest.Options{HTTPPort: portOf(t, s.plain), TLSPort: portOf(t, s.secure)})
	writeCertificate(t, s.dir)
	writeFile(t, s.dir, "site.key", strings.Repeat("k", 44))
	s.write(t, fmt.Sprintf("discovery: {consul: %q}\ntls: {shared: {key_file: site.key, consul: singlegate/certs}, certificates: [{cert: cert.pem, key: key.pem}, {acme: {names: [late.example.gov], directory: %q, ca: %q}}]}",
		agent.Address, server.Directory, server.CAFile))
	s.start(t)
	s.awaitLog(1, "a certificate by ACME could not be got or renewed")
	if _, err := s.shows("localhost", rootsOf(t, filepath.Join(s.dir, "cert.pem"))); err != nil {
		t.Error(err)
	}
	if _, err := s.shows("late.example.gov", server.Issued(t)); err == nil {
		t.Error("a handshake was made without a certificate")
	}
	s.awaitLog(1, "there is no certificate for late.example.gov yet")
	if answer, body := (door{address: s.admin, host: s.admin}).request(t, "GET", "/readyz", ""); answer.StatusCode != 200 {
		t.Errorf("/readyz: %s %s", answer.Status, body)
	}
	r := runCommand(t, s.dir, "certs", "--config", "gateway.yaml")
	contains(t, "certs", r.out, "late.example.gov (acme 127.0.0.1): it could not be got or renewed so far: ")
	agent.Start()
	s.await(t, "late.example.gov", server.Issued(t), anyCertificate)
}

// A reload that adds a name leaves no moment without the certificates that there
// were.
func TestACMEReload(t *testing.T) {
	t.Parallel()
	s := newACMESite(t)
	server := pebbletest.Start(t, pebbletest.Options{HTTPPort: portOf(t, s.plain), TLSPort: portOf(t, s.secure)})
	config := func(names string) {
		s.write(t, fmt.Sprintf(`tls: {unknown_name: refuse, certificates: [{acme: {names: [%s], directory: %q, ca: %q, storage: ./acme}}]}`, names, server.Directory, server.CAFile))
	}
	config("one.localhost")
	s.start(t)
	roots := server.Issued(t)
	one := s.await(t, "one.localhost", roots, anyCertificate)

	var stop atomic.Bool
	var dialling sync.WaitGroup
	failed := make(chan error, 4)
	for range cap(failed) {
		dialling.Go(func() {
			for !stop.Load() {
				if c, err := s.shows("one.localhost", roots); err != nil || !c.Equal(one) {
					failed <- fmt.Errorf("a handshake during the reloads: %v %w", c, err)
					return
				}
			}
		})
	}
	config("one.localhost, two.localhost")
	s.signal(syscall.SIGHUP)
	s.awaitLog(1, `"message":"reloaded: `)
	s.await(t, "two.localhost", roots, anyCertificate)
	config("one.localhost")
	s.signal(syscall.SIGHUP)
	s.awaitLog(2, `"message":"reloaded: `)
	stop.Store(true)
	dialling.Wait()
	select {
	case err := <-failed:
		t.Error(err)
	default:
	}
	until(t, "the name that is gone is refused", func() error {
		if _, err := s.shows("two.localhost", roots); err == nil {
			return errors.New("it is served")
		}
		return nil
	})
	if n := server.Orders(); n != 2 {
		t.Errorf("%d certificates were issued, want 2", n)
	}
}
