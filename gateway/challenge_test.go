package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"singlegate/upstream"
)

// startChallenged runs a gateway that knows a challenge, and whose handshakes are
// those of cfg.
func startChallenged(t *testing.T, cfg *tls.Config, c Config, challenge Challenge) (*Server, *logLines) {
	t.Helper()
	logs, fds := newLogLines(), NewDescriptors(0)
	s, err := New(Options{Log: zerolog.New(logs), Access: zerolog.New(logs), TLS: cfg, Upstream: upstream.New(fds), Descriptors: fds, Challenge: challenge})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		s.Shutdown(ctx)
	})
	snap := nodesOf(map[string]map[string]string{"im": {"node1": "127.0.0.1:1"}})
	if err := s.Apply(c, &snap); err != nil {
		t.Fatal(err)
	}
	return s, logs
}

// Challenges are answered before any route, on every listener; whatever is none
// goes on to the routes.
func TestHTTPChallenges(t *testing.T) {
	cert, roots := testCertificate(t)
	routes := []Route{{At: "test:3:1", Paths: []string{"/"}, Redirect: "https"}}
	var mu sync.Mutex
	var asked []string
	s, _ := startChallenged(t, &tls.Config{Certificates: []tls.Certificate{cert}}, testConfig(routes, nil), func(host, path string) (string, bool) {
		mu.Lock()
		defer mu.Unlock()
		asked = append(asked, host+" "+path)
		return "token.print", host == "im.example.gov" && path == "/.well-known/acme-challenge/token"
	})
	ask := func(e Entry, request string) string {
		t.Helper()
		conn, err := net.Dial("tcp", e.Address.String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if e.TLS {
			conn = tls.Client(conn, &tls.Config{RootCAs: roots, ServerName: "im.example.gov"})
		}
		conn.SetDeadline(time.Now().Add(10 * time.Second))
		io.WriteString(conn, request+"\r\nConnection: close\r\n\r\n")
		answer, err := io.ReadAll(conn)
		if err != nil {
			t.Fatal(err)
		}
		return string(answer)
	}
	const path, host = "/.well-known/acme-challenge/", " HTTP/1.1\r\nHost: IM.example.gov:80"
	for _, e := range s.Entries() {
		if got := ask(e, "GET "+path+"token"+host); !strings.HasPrefix(got, "HTTP/1.1 200") || !strings.HasSuffix(got, "\r\n\r\ntoken.print") {
			t.Errorf("%s: %q", e.Name, got)
		}
		if got := ask(e, "HEAD "+path+"token"+host); !strings.HasPrefix(got, "HTTP/1.1 200") || !strings.HasSuffix(got, "\r\n\r\n") {
			t.Errorf("%s: %q", e.Name, got)
		}
		if got := ask(e, "GET "+path+"other"+host); !strings.HasPrefix(got, "HTTP/1.1 301") {
			t.Errorf("%s: not ours: %q", e.Name, got)
		}
	}
	mu.Lock()
	asked = nil
	mu.Unlock()
	e := s.Entries()[0]
	for _, request := range []string{"POST " + path + "token" + host, "GET /" + host, "GET " + path + strings.Repeat("x", maxChallengePath) + host} {
		if got := ask(e, request); !strings.HasPrefix(got, "HTTP/1.1 30") {
			t.Errorf("%.80q: %q", request, got)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if len(asked) != 0 {
		t.Errorf("asked about %q", asked)
	}
}

type noneYet struct{ error }

func (noneYet) NoCertificate() bool { return true }

// A connection whose handshake was a challenge ends with it, on listeners of any
// kind, and no client certificate is asked for. A certificate that is still being
// got is said to be that.
func TestTLSChallenges(t *testing.T) {
	cert, _ := testCertificate(t)
	cfg := &tls.Config{GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		switch {
		case len(hello.SupportedProtos) == 1 && hello.SupportedProtos[0] == challengeProtocol:
			return &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{challengeProtocol}}, nil
		case hello.ServerName == "coming.example.gov":
			return nil, noneYet{errors.New("it is being got")}
		}
		return &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"http/1.1"}}, nil
	}}
	c := testConfig([]Route{{At: "test:9:1", Paths: []string{"/"}, Page: "check"}}, map[string]map[string]string{"im": nil})
	ask := func(c *tls.Config) { c.ClientAuth = tls.RequireAnyClientCert }
	c.Listeners = []Listener{
		{At: "test:1:1", Name: "tls", Address: "127.0.0.1:0", TLS: true},
		{At: "test:2:1", Name: "asks", Address: "127.0.0.1:0", TLS: true, Clients: &ClientCertificates{Ask: ask}},
		{At: "test:3:1", Name: "tcp", Address: "127.0.0.1:0", TLS: true, Service: "im", Timeouts: DefaultTimeouts()},
	}
	s, logs := startChallenged(t, cfg, c, nil)
	for _, e := range s.Entries() {
		conn, err := tls.Dial("tcp", e.Address.String(), &tls.Config{InsecureSkipVerify: true, ServerName: "im.example.gov", NextProtos: []string{challengeProtocol}})
		if err != nil {
			t.Errorf("%s: %v", e.Name, err)
			continue
		}
		conn.SetDeadline(time.Now().Add(10 * time.Second))
		if p := conn.ConnectionState().NegotiatedProtocol; p != challengeProtocol {
			t.Errorf("%s: the protocol is %q", e.Name, p)
		}
		io.WriteString(conn, "GET / HTTP/1.1\r\nHost: im.example.gov\r\n\r\n")
		if answer, _ := io.ReadAll(conn); len(answer) != 0 {
			t.Errorf("%s: it went on with %q", e.Name, answer)
		}
		conn.Close()
	}
	if _, err := tls.Dial("tcp", s.Entries()[0].Address.String(), &tls.Config{InsecureSkipVerify: true, ServerName: "coming.example.gov"}); err == nil {
		t.Error("a handshake without a certificate")
	}
	for end := time.Now().Add(10 * time.Second); !strings.Contains(logs.tail(50), `"cause":"no_certificate"`); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("no cause in\n%s", logs.tail(50))
		}
	}
}
