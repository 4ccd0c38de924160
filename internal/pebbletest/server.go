// Package pebbletest runs Pebble, a real ACME server, and the DNS server it asks,
// for tests. It may import the certificate maker of package certs and nothing
// else of this module.
package pebbletest

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"singlegate/certs"
)

// Options of a Server.
type Options struct {
	HTTPPort, TLSPort int               // where challenges are asked for
	Validity          time.Duration     // of certificates; 0: 90 days
	AccountKeys       map[string]string // key id → MAC key in base64url: accounts must be bound to one
}

// A Server is one Pebble with its DNS, in which every name is 127.0.0.1.
type Server struct {
	Directory string // URL
	CAFile    string // PEM of whom its own certificate is verified by
	DNS       string // URL of the DNS server's management: set-txt, clear-txt
	Roots     *x509.CertPool

	management string
	client     *http.Client
	log        *output
	stops      []func()
}

// Stop ends the server before its test does.
func (s *Server) Stop() {
	for _, stop := range s.stops {
		stop()
	}
}

// Start runs a server until the test ends.
func Start(t testing.TB, o Options) *Server {
	t.Helper()
	dir := t.TempDir()
	own, err := certs.DevCertificate(filepath.Join(dir, "ca"), []string{"127.0.0.1", "localhost"})
	if err != nil {
		t.Fatal(err)
	}
	addresses := freeAddresses(t, 4)
	address := func(i int) string { return addresses[i] }
	s := &Server{
		Directory: "https://" + address(0) + "/dir", CAFile: own.CAFile, DNS: "http://" + address(2),
		management: "https://" + address(1), log: &output{},
	}
	ca, err := os.ReadFile(own.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	s.Roots = x509.NewCertPool()
	s.Roots.AppendCertsFromPEM(ca)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: s.Roots}, DisableKeepAlives: true}
	s.client = &http.Client{Transport: transport, Timeout: 10 * time.Second}

	config := filepath.Join(dir, "pebble.json")
	writeConfig(t, config, o, address(0), address(1), own)
	s.run(t, "pebble-challtestsrv", nil, "-defaultIPv6", "", "-doh", "", "-http01", "", "-https01", "", "-tlsalpn01", "",
		"-dnsserver", address(3), "-management", address(2))
	s.run(t, "pebble", []string{"PEBBLE_VA_NOSLEEP=1", "PEBBLE_WFE_NONCEREJECT=0"}, "-config", config, "-dnsserver", address(3))
	s.await(t, s.Directory, address(2))
	return s
}

func writeConfig(t testing.TB, path string, o Options, listen, management string, own certs.DevCert) {
	t.Helper()
	validity := int(o.Validity / time.Second)
	if validity == 0 {
		validity = 90 * 24 * 3600
	}
	text, err := json.Marshal(map[string]any{"pebble": map[string]any{
		"listenAddress": listen, "managementListenAddress": management,
		"certificate": own.CertFile, "privateKey": own.KeyFile,
		"httpPort": o.HTTPPort, "tlsPort": o.TLSPort,
		"externalAccountBindingRequired": len(o.AccountKeys) > 0, "externalAccountMACKeys": o.AccountKeys,
		"retryAfter":   map[string]int{"authz": 1, "order": 1},
		"keyAlgorithm": "ecdsa",
		"profiles":     map[string]any{"default": map[string]any{"description": "for tests", "validityPeriod": validity}},
	}})
	if err == nil {
		err = os.WriteFile(path, text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// freeAddresses are free for TCP and UDP.
func freeAddresses(t testing.TB, n int) (list []string) {
	t.Helper()
	for len(list) < n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		if p, err := net.ListenPacket("udp", l.Addr().String()); err == nil {
			defer p.Close()
			list = append(list, l.Addr().String())
		}
	}
	return list
}

// run runs a tool of internal/realpebble until the test ends.
func (s *Server) run(t testing.TB, tool string, env []string, args ...string) {
	t.Helper()
	path, err := built(tool)
	switch {
	case err == nil:
	case os.Getenv("CI") == "true":
		t.Fatal(err)
	default:
		t.Skip(err)
	}
	cmd := exec.Command(path, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = s.log, s.log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stop := sync.OnceFunc(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	s.stops = append(s.stops, stop)
	t.Cleanup(func() {
		stop()
		if t.Failed() {
			t.Logf("the log of %s and others:\n%s", tool, s.Log())
		}
	})
}

// built is the path of a tool, which Go builds when it is first asked for, and
// keeps.
func built(tool string) (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "internal", "realpebble", "go.mod")); err == nil {
			break
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("no folder internal/realpebble above the test")
		}
	}
	cmd := exec.Command("go", "tool", "-modfile=internal/realpebble/go.mod", "-n", tool)
	cmd.Dir = dir
	var problem bytes.Buffer
	cmd.Stderr = &problem
	path, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("no %s to test with: %w\n%s", tool, err, problem.Bytes())
	}
	return strings.TrimSpace(string(path)), nil
}

// await waits until both servers answer.
func (s *Server) await(t testing.TB, directory, dns string) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		resp, err := s.client.Get(directory)
		if err == nil {
			resp.Body.Close()
			var c net.Conn
			if c, err = net.Dial("tcp", dns); err == nil {
				c.Close()
				return
			}
		}
		if time.Now().After(end) {
			t.Fatalf("Pebble does not answer: %v\n%s", err, s.Log())
		}
	}
}

// Issued is whom the server's certificates are verified by.
func (s *Server) Issued(t testing.TB) *x509.CertPool {
	t.Helper()
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM([]byte(s.Root(t)))
	return pool
}

// Root is the same as PEM.
func (s *Server) Root(t testing.TB) string {
	t.Helper()
	resp, err := s.client.Get(s.management + "/roots/0")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if block, _ := pem.Decode(text); err != nil || block == nil {
		t.Fatalf("the server's root is %q, %v", text, err)
	}
	return string(text)
}

// Log is what the servers have said.
func (s *Server) Log() string { return s.log.String() }

// Orders is how many certificates were issued.
func (s *Server) Orders() int { return strings.Count(s.Log(), "Issued certificate serial") }

type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}
