package livecheck

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"math/big"
	"net"
	"net/netip"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"singlegate/internal/leaktest"
	"singlegate/internal/standin"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

// today is when the tests' checks take place; certificates are made around it.
var today = time.Date(2029, 6, 1, 12, 0, 0, 0, time.UTC)

// A worldDialer leads the addresses of a config to servers on loopback. What is
// not in it refuses.
type worldDialer struct {
	to   map[string]string // address → real address
	errs map[string]error
}

func newWorldDialer() *worldDialer {
	return &worldDialer{to: map[string]string{}, errs: map[string]error{}}
}

func (d *worldDialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	if err := d.errs[address]; err != nil {
		return nil, err
	}
	named := tcpAddr(address)
	real, ok := d.to[address]
	if !ok {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Addr: named, Err: os.NewSyscallError("connect", errRefused)}
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, network, real)
	if err != nil {
		return nil, err
	}
	return renamed{conn, named}, nil
}

// tcpAddr stands for the address that a name would resolve to.
func tcpAddr(address string) *net.TCPAddr {
	addr, err := netip.ParseAddrPort(address)
	if err != nil {
		_, port, _ := net.SplitHostPort(address)
		addr = netip.MustParseAddrPort("203.0.113.7:" + port)
	}
	return net.TCPAddrFromAddrPort(addr)
}

type renamed struct {
	net.Conn
	remote net.Addr
}

func (r renamed) RemoteAddr() net.Addr { return r.remote }

func dialError(err error) error {
	return &net.OpError{Op: "dial", Net: "tcp", Err: err}
}

// nowhere is a machine that nothing is known of.
func nowhere() machine {
	return machine{
		readFile:  func(string) ([]byte, error) { return nil, fs.ErrNotExist },
		addresses: func() []netip.Addr { return nil },
	}
}

// gatewayMachine is 10.0.0.5; on it something listens on 127.0.0.1:8083,
// 10.0.0.9:8084 and, on every address, port 443.
func gatewayMachine() machine {
	const table = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F93 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1
   1: 0900000A:1F94 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 2 1
   2: 0500000A:1F95 0100007F:1F90 01 00000000:00000000 00:00000000 00000000     0        0 3 1
   3: 00000000:01BB 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4 1
`
	return machine{
		readFile: func(name string) ([]byte, error) {
			if name != "/proc/net/tcp" {
				return nil, fs.ErrNotExist
			}
			return []byte(littleEndian(table)), nil
		},
		addresses: func() []netip.Addr { return []netip.Addr{netip.MustParseAddr("10.0.0.5")} },
	}
}

// littleEndian turns the addresses of a table that a little-endian kernel wrote
// into what this machine's would have written.
func littleEndian(table string) string {
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		return regexp.MustCompile(`\b(..)(..)(..)(..):`).ReplaceAllString(table, "$4$3$2$1:")
	}
	return table
}

func proberFor(t testing.TB, d Dialer) *prober {
	t.Helper()
	o := Options{Dialer: d, Timeout: 5 * time.Second, Settle: 20 * time.Millisecond, Now: func() time.Time { return today }}
	return &prober{Options: o.withDefaults(), local: nowhere()}
}

// bounded is the context of one probe.
func bounded(t testing.TB, p *prober) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), p.Timeout)
	t.Cleanup(cancel)
	return ctx
}

// serve answers every connection with f until the test ends, and gives the
// address.
func serve(t testing.TB, f func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var work sync.WaitGroup
	work.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			work.Go(func() {
				defer c.Close()
				stop := context.AfterFunc(t.Context(), func() { c.Close() })
				defer stop()
				c.SetDeadline(time.Now().Add(20 * time.Second))
				f(c)
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		work.Wait()
	})
	return l.Addr().String()
}

// says answers a request with fixed bytes. ACCEPT stands for the right
// Sec-WebSocket-Accept.
func says(answer string) func(net.Conn) { return saysTo("", answer, "") }

// saysTo is says for servers that have another answer for request heads without
// some text.
func saysTo(text, answer, otherwise string) func(net.Conn) {
	return func(c net.Conn) {
		var head strings.Builder
		r := bufio.NewReader(io.TeeReader(c, &head))
		key := readHead(r)
		if !strings.Contains(head.String(), text) {
			io.WriteString(c, otherwise)
		} else {
			io.WriteString(c, strings.ReplaceAll(answer, "ACCEPT", acceptFor(key)))
		}
		endSending(c)
		io.Copy(io.Discard, r)
	}
}

// banner speaks first.
func banner(text string) func(net.Conn) {
	return func(c net.Conn) {
		io.WriteString(c, text)
		io.Copy(io.Discard, c)
	}
}

// silent reads and says nothing.
func silent(c net.Conn) { io.Copy(io.Discard, c) }

// hangsUp ends the connection when something has come.
func hangsUp(c net.Conn) { c.Read(make([]byte, 1<<10)) }

func endSending(c net.Conn) {
	if w, ok := c.(interface{ CloseWrite() error }); ok {
		w.CloseWrite()
	}
}

// readHead reads a request head and gives its Sec-WebSocket-Key.
func readHead(r *bufio.Reader) (key string) {
	for {
		line, err := r.ReadString('\n')
		if name, value, _ := strings.Cut(line, ":"); strings.EqualFold(name, "Sec-WebSocket-Key") {
			key = strings.TrimSpace(value)
		}
		if err != nil || strings.TrimSpace(line) == "" {
			return key
		}
	}
}

// node starts a stand-in.
func node(t testing.TB, id string, system standin.System) string {
	t.Helper()
	n, err := standin.Start(standin.Options{ID: id, System: system})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	return n.Addr()
}

// A ca signs test certificates.
type ca struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newKeyPair(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newCA(t testing.TB, name string, parent *ca, aia ...string) *ca {
	t.Helper()
	c := &ca{key: newKeyPair(t)}
	c.cert = sign(t, &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		IssuingCertificateURL: aia,
	}, c.key, parent)
	return c
}

// sign issues a template; without an issuer it is self-signed.
func sign(t testing.TB, template *x509.Certificate, key *ecdsa.PrivateKey, by *ca) *x509.Certificate {
	t.Helper()
	template.SerialNumber = big.NewInt(1)
	if template.NotBefore.IsZero() {
		template.NotBefore = today.AddDate(-1, 0, 0)
	}
	if template.NotAfter.IsZero() {
		template.NotAfter = today.AddDate(1, 0, 0)
	}
	if by == nil {
		by = &ca{template, key}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, by.cert, key.Public(), by.key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// leafFor is a template of a server's certificate.
func leafFor(names ...string) *x509.Certificate {
	return &x509.Certificate{Subject: pkix.Name{CommonName: "im"}, DNSNames: names, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
}

// issue makes a certificate to serve, with the chain that is sent.
func (c *ca) issue(t testing.TB, template *x509.Certificate, chain ...*ca) tls.Certificate {
	t.Helper()
	key := newKeyPair(t)
	cert := tls.Certificate{PrivateKey: key, Certificate: [][]byte{sign(t, template, key, c).Raw}}
	for _, above := range chain {
		cert.Certificate = append(cert.Certificate, above.cert.Raw)
	}
	return cert
}

func poolOf(cas ...*ca) *x509.CertPool {
	pool := x509.NewCertPool()
	for _, c := range cas {
		pool.AddCert(c.cert)
	}
	return pool
}

// sure checks that a finding can be said in both languages, without a gap.
func sure(t testing.TB, findings ...Finding) {
	t.Helper()
	gap := regexp.MustCompile(`\{[a-z]+\}`)
	for _, f := range findings {
		for _, l := range []language{englishTexts(), chineseTexts()} {
			words := l.texts[f.Code]
			if words.short == "" {
				t.Errorf("%s has no text", f.Code)
			}
			for _, m := range gap.FindAllString(words.short+words.why+words.todo, -1) {
				if _, ok := f.Params[m[1:len(m)-1]]; !ok && m != nodeVariable {
					t.Errorf("%s: nothing is known for %s; params %v", f.Code, m, f.Params)
				}
			}
		}
	}
}

// is compares a finding with what was expected: a mark and code, and params as
// name=part of its value.
func is(t testing.TB, f Finding, mark Mark, code Code, params ...string) {
	t.Helper()
	if f.Mark != mark || f.Code != code {
		t.Fatalf("found %s %s %v, want %s %s", f.Mark, f.Code, f.Params, mark, code)
	}
	for _, p := range params {
		name, want, _ := strings.Cut(p, "=")
		if !strings.Contains(f.Params[name], want) {
			t.Errorf("%s: %s is %q, want %q in it", code, name, f.Params[name], want)
		}
	}
	sure(t, f)
}

var errTest = errors.New("something odd")
