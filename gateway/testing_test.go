package gateway

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"singlegate/discovery"
	"singlegate/upstream"
)

// An edge is a gateway under test: a plain and a TLS listener on loopback
// ports, and what it logs.
type edge struct {
	*Server
	t      *testing.T
	cfg    Config
	plain  string // host:port
	secure string
	roots  *x509.CertPool
	logs   *logLines
	noted  auditSwitch
}

// nodesOf makes a snapshot: service → node id → address.
func nodesOf(services map[string]map[string]string) discovery.Snapshot {
	static := discovery.Static{Services: map[string][]discovery.Node{}}
	for name, nodes := range services {
		static.Services[name] = []discovery.Node{}
		for id, addr := range nodes {
			host, port, err := net.SplitHostPort(addr)
			if err != nil {
				panic(err)
			}
			p, _ := strconv.Atoi(port)
			static.Services[name] = append(static.Services[name], discovery.Node{
				ID: id, Address: host, Ports: map[string]uint16{"": uint16(p)}, Weight: 1,
			})
		}
	}
	return static.Snapshot()
}

// startEdge runs a gateway with these routes over these nodes until the test
// ends. Routes get default timeouts where they have none. tune may change the
// config before it is applied.
func startEdge(t *testing.T, routes []Route, services map[string]map[string]string, tune ...func(*Config)) *edge {
	t.Helper()
	e := &edge{t: t, logs: newLogLines()}
	var cert tls.Certificate
	cert, e.roots = testCertificate(t)
	fds := NewDescriptors(0)
	s, err := New(Options{
		Log: zerolog.New(e.logs), Access: zerolog.New(e.logs), Audit: &e.noted,
		TLS:      &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"http/1.1"}},
		Upstream: upstream.New(fds), Descriptors: fds,
	})
	if err != nil {
		t.Fatal(err)
	}
	e.Server = s
	e.cfg = testConfig(routes, services)
	for _, f := range tune {
		f(&e.cfg)
	}
	snap := nodesOf(services)
	if err := s.Apply(e.cfg, &snap); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		s.Shutdown(ctx)
		if t.Failed() {
			t.Logf("the gateway's log:\n%s", e.logs.tail(30))
		}
	})
	for _, entry := range s.Entries() {
		if entry.implied != nil {
			continue // a node's own port
		}
		if entry.TLS {
			e.secure = entry.Address.String()
		} else {
			e.plain = entry.Address.String()
		}
	}
	return e
}

func testConfig(routes []Route, services map[string]map[string]string) Config {
	for i := range routes {
		if routes[i].Timeouts == (Timeouts{}) {
			routes[i].Timeouts = DefaultTimeouts()
		}
	}
	cfg := Config{
		Listeners: []Listener{
			{At: "test:1:1", Name: "plain", Address: "127.0.0.1:0"},
			{At: "test:2:1", Name: "tls", Address: "localhost:0", TLS: true},
		},
		Routes:   routes,
		Limits:   DefaultLimits(),
		Shutdown: Shutdown{Deadline: 5 * time.Second},
	}
	for name := range services {
		cfg.Services = append(cfg.Services, ServiceRef{Name: name, Ports: []string{""}})
	}
	return cfg
}

func testCertificate(t *testing.T) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		DNSNames: []string{"localhost", "im.example.gov", "*.im.example.gov"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, pool
}

// dial opens a connection to the plain listener, dialTLS to the other.
func (e *edge) dial() net.Conn {
	e.t.Helper()
	c, err := net.Dial("tcp", e.plain)
	if err != nil {
		e.t.Fatal(err)
	}
	return guarded(e.t, c)
}

func (e *edge) dialTLS() *tls.Conn {
	e.t.Helper()
	c, err := tls.Dial("tcp", e.secure, &tls.Config{RootCAs: e.roots, ServerName: "localhost"})
	if err != nil {
		e.t.Fatal(err)
	}
	guarded(e.t, c)
	return c
}

// dialEither alternates between the two.
func (e *edge) dialEither(i int) net.Conn {
	if i%2 == 0 {
		return e.dial()
	}
	return e.dialTLS()
}

// guarded gives a connection of a test a deadline and an end.
func guarded(t *testing.T, c net.Conn) net.Conn {
	c.SetDeadline(time.Now().Add(20 * time.Second))
	t.Cleanup(func() { c.Close() })
	return c
}

// client is an HTTP client that follows no redirects and trusts the edge.
func (e *edge) client() *http.Client {
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: e.roots}, DisableCompression: true}
	e.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{
		Transport: tr, Timeout: 20 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// raw sends bytes on a fresh plain connection and returns everything that comes
// back until the gateway closes.
func (e *edge) raw(request string) string {
	e.t.Helper()
	c := e.dial()
	io.WriteString(c, request)
	answer, err := io.ReadAll(c)
	if err != nil {
		e.t.Errorf("reading until the end: %v (got %q)", err, answer)
	}
	return string(answer)
}

// answerTo sends one request on a fresh plain connection and reads one answer.
func (e *edge) answerTo(request string) (*http.Response, string) {
	e.t.Helper()
	c := e.dial()
	io.WriteString(c, request)
	return readAnswer(e.t, bufio.NewReader(c))
}

func readAnswer(t *testing.T, br *bufio.Reader) (*http.Response, string) {
	t.Helper()
	resp, err := http.ReadResponse(br, nil)
	if err != nil {
		t.Fatalf("reading an answer: %v", err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("reading an answer's body: %v", err)
	}
	return resp, string(body)
}

// problemCode is the "error" of a gateway-made JSON answer.
func problemCode(body string) string {
	var p struct{ Error string }
	json.Unmarshal([]byte(body), &p)
	return p.Error
}

// httpNode is a node that answers HTTP with h; its address is returned.
func httpNode(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

// rawNode is a node that handles each connection with f; its address is returned.
func rawNode(t *testing.T, f func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	group.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.SetDeadline(time.Now().Add(20 * time.Second))
			group.Go(func() {
				defer c.Close()
				f(c)
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		group.Wait()
	})
	return l.Addr().String()
}

// readHead reads a request head off a connection, as a node would.
func readHead(br *bufio.Reader) string {
	var head strings.Builder
	for {
		line, err := br.ReadString('\n')
		head.WriteString(line)
		if err != nil || line == "\r\n" {
			return head.String()
		}
	}
}

// refusedAddr is an address where nothing listens until the test ends: the port
// of a connection's own end, which nobody else is given meanwhile.
func refusedAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	other, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { other.Close() })
	return c.LocalAddr().String()
}

// logLines collects what the gateway logs and lets tests wait for a line.
type logLines struct {
	mu    sync.Mutex
	lines []string
	more  chan struct{}
}

func newLogLines() *logLines { return &logLines{more: make(chan struct{})} }

func (l *logLines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, string(bytes.TrimSpace(p)))
	close(l.more)
	l.more = make(chan struct{})
	return len(p), nil
}

// wait returns the first line that contains all parts, waiting for it.
func (l *logLines) wait(t *testing.T, parts ...string) string {
	t.Helper()
	timeout := time.After(20 * time.Second)
	for {
		l.mu.Lock()
		lines, more := l.lines, l.more
		l.mu.Unlock()
		for _, line := range lines {
			if containsAll(line, parts) {
				return line
			}
		}
		select {
		case <-more:
		case <-timeout:
			t.Fatalf("no log line with %q in:\n%s", parts, strings.Join(lines, "\n"))
		}
	}
}

// tail is the end of what was logged.
func (l *logLines) tail(lines int) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.lines[max(0, len(l.lines)-lines):], "\n")
}

func (l *logLines) all() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.lines, "\n")
}

func containsAll(s string, parts []string) bool {
	for _, p := range parts {
		if !strings.Contains(s, p) {
			return false
		}
	}
	return true
}

// eventually waits for a condition that another goroutine brings about and of
// which there is no signal.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
		runtime.Gosched()
		time.Sleep(time.Millisecond)
	}
}
