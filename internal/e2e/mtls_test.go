package e2e

import (
	"bufio"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"singlegate/internal/standin"
)

func testMutualTLS(t *testing.T, e *example) {
	startNode(t, standin.Options{ID: "node1", Address: "127.0.0.1:17001"})
	e.start(t)
	e.checkIt(t)
	alice := e.door(t, "tls", "localhost")
	stranger := alice
	old := alice
	alice.tune = shows(keyPair(t, e.dir, "alice"))
	old.tune = func(cfg *tls.Config) { alice.tune(cfg); cfg.MaxVersion = tls.VersionTLS12 }
	for name, c := range map[string]struct {
		door door
		want bool
	}{"alice": {alice, true}, "without a certificate": {stranger, false}, "in TLS 1.2, against tls_policy": {old, false}} {
		if got := c.door.isLetIn(); got != c.want {
			t.Errorf("%s: let in %v", name, got)
		}
	}

	echoes := startEchoes(1)
	defer echoes.stop()
	echoes.follow(alice.open(t, "/ws/node1"))
	for _, line := range shellLines(section(t, e.readme, "Revoke it")) {
		if r := runToEnd(t, e.shell(t, line.command)); r.code != 0 {
			t.Fatalf("%s: exit code %d\n%s", line.command, r.code, r.err)
		}
	}
	awaitLetIn(t, alice, false)
	e.awaitLog(1, `"subject":"CN=alice,O=Ministry","error":"the client's certificate is revoked"`)
	echoes.turn(t, 1)
	if err := echoes.stop(); err != nil {
		t.Error(err)
	}
}

// shows is a client with that certificate, whatever the server would like.
func shows(cert *tls.Certificate) func(*tls.Config) {
	return func(cfg *tls.Config) {
		cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cert, nil }
	}
}

func keyPair(t *testing.T, dir, name string) *tls.Certificate {
	t.Helper()
	cert, err := tls.LoadX509KeyPair(filepath.Join(dir, name+".pem"), filepath.Join(dir, name+".key"))
	if err != nil {
		t.Fatal(err)
	}
	return &cert
}

// isLetIn tells whether a request is answered.
func (d door) isLetIn() bool {
	answer, _, err := d.tryRequest("GET", "/api/version", "")
	return err == nil && answer.StatusCode == http.StatusOK
}

// awaitLetIn waits until a client is let in, or is not.
func awaitLetIn(t *testing.T, d door, want bool) {
	t.Helper()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); d.isLetIn() != want; <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("let in is still %v", !want)
		}
	}
}

// A clientCA is `openssl ca` in a folder, with the example's file.
type clientCA struct {
	t   *testing.T
	dir string
}

// moreExtensions are for certificates that the example has none of.
const moreExtensions = `
[server]
extendedKeyUsage = serverAuth
[sub]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
`

// newClientCA makes one that is its own root.
func newClientCA(t *testing.T, dir string) *clientCA {
	t.Helper()
	ca := makeCA(t, dir)
	ca.openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30", "-keyout", "ca.key", "-out", "ca.pem",
		"-subj", "/CN="+filepath.Base(dir), "-addext", "keyUsage = critical, keyCertSign, cRLSign")
	ca.publish()
	return ca
}

func makeCA(t *testing.T, dir string) *clientCA {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	writeFile(t, dir, "ca.cnf", readFile(t, filepath.Join(root, "examples", "mutual-tls", "ca.cnf"))+moreExtensions)
	writeFile(t, dir, "index.txt", "")
	return &clientCA{t, dir}
}

func (ca *clientCA) openssl(args ...string) {
	ca.t.Helper()
	cmd := exec.Command(program(ca.t, "openssl"), args...)
	cmd.Dir = ca.dir
	if r := runToEnd(ca.t, cmd); r.code != 0 {
		ca.t.Fatalf("openssl %s: exit code %d\n%s", strings.Join(args, " "), r.code, r.err)
	}
}

// issue makes a certificate for a client; options are for openssl ca.
func (ca *clientCA) issue(name string, options ...string) *tls.Certificate {
	ca.t.Helper()
	ca.openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", name+".key", "-out", name+".csr", "-subj", "/O=Ministry/CN="+name)
	ca.openssl(append([]string{"ca", "-config", "ca.cnf", "-batch", "-notext", "-in", name + ".csr", "-out", name + ".pem"}, options...)...)
	return keyPair(ca.t, ca.dir, name)
}

// under makes a CA whose certificate is of this one.
func (ca *clientCA) under(name string) *clientCA {
	ca.t.Helper()
	ca.issue(name, "-extensions", "sub")
	sub := makeCA(ca.t, filepath.Join(ca.dir, name))
	for _, end := range []string{".pem", ".key"} {
		writeFile(ca.t, sub.dir, "ca"+end, readFile(ca.t, filepath.Join(ca.dir, name+end)))
	}
	return sub
}

func (ca *clientCA) revoke(name string) {
	ca.t.Helper()
	ca.openssl("ca", "-config", "ca.cnf", "-revoke", name+".pem")
	ca.publish()
}

// publish replaces the list of what is revoked.
func (ca *clientCA) publish() {
	ca.t.Helper()
	ca.openssl("ca", "-config", "ca.cnf", "-gencrl", "-out", "new.pem")
	if err := os.Rename(filepath.Join(ca.dir, "new.pem"), filepath.Join(ca.dir, "crl.pem")); err != nil {
		ca.t.Fatal(err)
	}
}

const mutualConfig = `
listeners:
  - {name: plain, address: "127.0.0.1:0"}
  - {name: open, address: "localhost:0", tls: true}
  - {name: required, address: "localhost:0", tls: true, client_certificates: {mode: require, ca: clients/ca.pem, crl: clients/crl.pem, headers: {X-Client-Subject: subject}}}
  - {name: if given, address: "localhost:0", tls: true, client_certificates: {mode: verify_if_given, ca: clients/ca.pem, crl: clients/crl.pem, headers: {X-Client-Serial: serial}}}
admin: {address: %[3]q}
tls: {certificates: [{cert: cert.pem, key: key.pem}]}
services: {im: {nodes: {node1: %[1]q}}, web: {nodes: {web1: %[2]q}}}
routes:
  - {path: "/ws/{node}", service: im, rewrite: /}
  - {path: /, service: web}
node_ports:
  - {service: web, kind: http, tls: true, address: 127.0.0.1, listen: {web1: %[4]s}, client_certificates: {mode: require, ca: clients/ca.pem, crl: clients/crl.pem, headers: {X-Client-Print: fingerprint}}}
`

// A mutual is a gateway that asks for certificates, and those who come.
type mutual struct {
	*site
	dir   string
	ca    *clientCA
	doors map[string]door // by listener; "port" is that of the node
}

// startMutual runs it, before a node that tells of the headers it gets and one
// that speaks WebSocket.
func startMutual(t *testing.T) *mutual {
	t.Helper()
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = json.NewEncoder(w).Encode(r.Header)
	}))
	t.Cleanup(web.Close)
	dir := t.TempDir()
	writeCertificate(t, dir)
	m := &mutual{dir: dir, ca: newClientCA(t, filepath.Join(dir, "clients")), doors: map[string]door{}}
	port := freeAddress(t)
	_, number, _ := strings.Cut(port, ":")
	writeFile(t, dir, "gateway.yaml", fmt.Sprintf(mutualConfig, startNode(t, standin.Options{ID: "node1"}).Addr(), web.Listener.Addr(), freeAddress(t), number))
	m.site = startSite(t, dir)
	roots := rootsOf(t, filepath.Join(dir, "cert.pem"))
	for _, name := range []string{"open", "required", "if given"} {
		m.doors[name] = door{address: m.listeners[name], host: "localhost", roots: roots}
	}
	m.doors["plain"] = door{address: m.listeners["plain"], host: "localhost"}
	m.doors["port"] = door{address: port, host: "localhost", roots: roots}
	return m
}

// as is a door for somebody who shows that certificate; nil: who shows none.
func (m *mutual) as(name string, cert *tls.Certificate) door {
	d := m.doors[name]
	if cert != nil {
		d.tune = shows(cert)
	}
	return d
}

// Who is let in by certificate, and who not; what becomes of that while files
// change under the gateway; and that tunnels feel nothing of it.
func TestMutualTLS(t *testing.T) {
	t.Parallel()
	m := startMutual(t)
	good := m.ca.issue("good")
	indirect := m.ca.under("branch").issue("indirect")
	branch := keyPair(t, m.ca.dir, "branch")
	indirect.Certificate = append(indirect.Certificate, branch.Certificate[0])
	alone := *indirect
	alone.Certificate = alone.Certificate[:1]
	shown := map[string]*tls.Certificate{
		"none": nil, "good": good, "through an intermediate": indirect, "without its intermediate": &alone,
		"revoked later": m.ca.issue("later"),
		"expired":       m.ca.issue("expired", "-startdate", "20200101000000Z", "-enddate", "20200201000000Z"),
		"foreign":       newClientCA(t, filepath.Join(m.dir, "foreign")).issue("good"),
		"for servers":   m.ca.issue("server", "-extensions", "server"),
	}
	expect := func(when string, lets ...string) {
		t.Helper()
		for name, cert := range shown {
			for _, at := range []string{"required", "if given", "port"} {
				want := false
				for _, l := range lets {
					want = want || l == name
				}
				if got := m.as(at, cert).isLetIn(); got != (want || name == "none" && at == "if given") {
					t.Errorf("%s: %s at %q: let in %v", when, name, at, got)
				}
			}
		}
	}
	expect("at first", "good", "through an intermediate", "revoked later")

	echoes := startEchoes(3)
	defer echoes.stop()
	echoes.follow(m.as("required", good).open(t, "/ws/node1"))
	echoes.follow(m.as("required", shown["revoked later"]).open(t, "/ws/node1"))
	echoes.follow(m.as("if given", nil).open(t, "/ws/node1"))

	m.ca.revoke("later")
	for _, at := range []string{"required", "if given", "port"} {
		awaitLetIn(t, m.as(at, shown["revoked later"]), false)
	}
	expect("after the revocation", "good", "through an intermediate")
	echoes.turn(t, 3)

	// A branch is revoked, and with it everybody under it.
	m.ca.revoke("branch")
	for _, at := range []string{"required", "if given", "port"} {
		awaitLetIn(t, m.as(at, indirect), false)
	}
	expect("after the branch's revocation", "good")

	for name, broken := range map[string]string{"ca.pem": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "crl.pem": "nothing"} {
		file := filepath.Join(m.ca.dir, name)
		right := readFile(t, file)
		writeFile(t, m.ca.dir, name, right+broken)
		if name == "crl.pem" {
			writeFile(t, m.ca.dir, name, broken)
		}
		for _, at := range []string{"required", "if given", "port"} {
			awaitLetIn(t, m.as(at, good), false)
		}
		expect(name + " is broken")
		m.signal(syscall.SIGHUP) // a reload does not help
		m.await(m.log, "a refused reload", func(log string) bool {
			_, after, found := strings.Cut(log, "reload refused")
			return found && strings.Contains(after, name)
		})
		expect(name + " is broken, after a reload")
		echoes.turn(t, 3)
		writeFile(t, m.ca.dir, name, right)
		for _, at := range []string{"required", "if given", "port"} {
			awaitLetIn(t, m.as(at, good), true)
		}
		expect(name+" is mended", "good")
	}
	echoes.turn(t, 3)
	if err := echoes.stop(); err != nil {
		t.Error(err)
	}
	for _, reason := range []string{"no client certificate can be verified until this is mended: CA file", "the client's certificate is revoked"} {
		m.awaitLog(1, reason)
	}
}

// Nodes hear of certificates from the gateway alone, whatever clients send and
// wherever they come in.
func TestNodesHearOfCertificatesFromTheGatewayAlone(t *testing.T) {
	t.Parallel()
	m := startMutual(t)
	good := m.ca.issue("good")
	var forged []string
	for _, name := range []string{"X-Client-Subject", "x-client-serial", "X-CLIENT-PRINT", "X_Client_Subject", "X-Client_Serial", "x_client_print"} {
		forged = append(forged, name, "forged")
	}
	for _, c := range []struct {
		at      string
		cert    *tls.Certificate
		name    string // of the header that the node gets; "": none
		letters int    // of it, at least
	}{
		{at: "plain"}, {at: "open"}, {at: "open", cert: good}, {at: "if given"},
		{at: "required", cert: good, name: "X-Client-Subject", letters: len("CN=good,O=Ministry")},
		{at: "if given", cert: good, name: "X-Client-Serial", letters: 16},
		{at: "port", cert: good, name: "X-Client-Print", letters: 64},
	} {
		_, body := m.as(c.at, c.cert).request(t, "GET", "/", "", forged...)
		if strings.Contains(body, "forged") {
			t.Errorf("at %q the node got what the client forged: %s", c.at, body)
		}
		headers := decode[http.Header](t, body)
		for _, name := range []string{"X-Client-Subject", "X-Client-Serial", "X-Client-Print"} {
			if got := headers.Get(name); name == c.name && len(got) < c.letters || name != c.name && got != "" {
				t.Errorf("at %q: %s is %q", c.at, name, got)
			}
		}
	}
}

// A session that a client resumes is verified anew: no ticket outlives the
// certificate that it was given to.
func TestNoSessionOutlivesARevocation(t *testing.T) {
	t.Parallel()
	m := startMutual(t)
	cert := m.ca.issue("good")
	versions := map[string]uint16{"1.2": tls.VersionTLS12, "1.3": tls.VersionTLS13}
	doors := map[string]door{}
	for name, version := range versions {
		for _, at := range []string{"required", "if given", "port"} {
			d, cache := m.as(at, cert), tls.NewLRUClientSessionCache(1)
			d.tune = func(cfg *tls.Config) {
				shows(cert)(cfg)
				cfg.MinVersion, cfg.MaxVersion, cfg.ClientSessionCache = version, version, cache
			}
			doors[at+" "+name] = d
		}
	}
	for name, d := range doors {
		for i := range 2 {
			if resumed, err := d.resumes(); err != nil || resumed != (i == 1) {
				t.Errorf("%s, connection %d: resumed %v, %v", name, i+1, resumed, err)
			}
		}
	}
	m.ca.revoke("good")
	for _, at := range []string{"required", "if given", "port"} {
		awaitLetIn(t, m.as(at, cert), false) // by a full handshake, so that the sessions stay as they are
	}
	for name, d := range doors {
		if resumed, err := d.resumes(); err == nil {
			t.Errorf("%s: a revoked client is let in, resumed %v", name, resumed)
		}
	}
}

// resumes makes a request and tells whether its session was one from before.
func (d door) resumes() (bool, error) {
	conn, err := d.dial()
	if err != nil {
		return false, err
	}
	defer conn.Close()
	if _, err := fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", d.host); err != nil {
		return false, err
	}
	answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return false, err
	}
	defer answer.Body.Close()
	_, err = io.Copy(io.Discard, answer.Body)
	return conn.(*tls.Conn).ConnectionState().DidResume, err
}
