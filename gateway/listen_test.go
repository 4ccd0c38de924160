package gateway

import (
	"bufio"
	"crypto/tls"
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"
)

// A connection that never says anything is ended without a word; one that has
// begun a request is told what is wrong.
func TestSilentAndSlowClients(t *testing.T) {
	e, node := appEdge(t, func(c *Config) {
		c.Limits.HeadTimeout, c.Limits.KeepAlive = 50*time.Millisecond, 50*time.Millisecond
	})
	eachWire(t, func(t *testing.T, secure bool) {
		if got, reset := awaitEnd(t, e.dialAny(secure)); got != "" || reset {
			t.Errorf("silent: got %q, reset %v", got, reset)
		}
		conn := e.dialAny(secure)
		io.WriteString(conn, "GET /app/a HTTP/1.1\r\nHos")
		expectOneAnswer(t, conn, 408, "head_timeout")

		conn = e.dialAny(secure)
		br := bufio.NewReader(conn)
		io.WriteString(conn, get("Host: h"))
		if _, body := readAnswer(t, br); body != "app1" {
			t.Errorf("got %q", body)
		}
		if got, reset := awaitEnd(t, br); got != "" || reset {
			t.Errorf("idle: got %q, reset %v", got, reset)
		}
		conn = e.dialAny(secure)
		br = bufio.NewReader(conn)
		io.WriteString(conn, get("Host: h")+"GET /app/SLOW HTTP/1.1\r\n")
		readAnswer(t, br)
		if resp, body := readAnswer(t, br); resp.StatusCode != 408 || problemCode(body) != "head_timeout" {
			t.Errorf("slow second head: got %d %s", resp.StatusCode, body)
		}
	})
	if seen, _ := node.all(); strings.Contains(seen, "SLOW") {
		t.Error("half a head reached the node")
	}
}

// The limit of a head is not that of a body.
func TestSlowSmallBody(t *testing.T) {
	e, node := appEdge(t, func(c *Config) { c.Limits.HeadTimeout = 50 * time.Millisecond })
	conn := e.dial()
	io.WriteString(conn, post("Content-Length: 5", "he"))
	<-time.After(150 * time.Millisecond) // the case itself: a pause longer than HeadTimeout
	io.WriteString(conn, "llo")
	if resp, body := readAnswer(t, bufio.NewReader(conn)); resp.StatusCode != 200 {
		t.Errorf("got %d %s", resp.StatusCode, body)
	}
	if r := node.only(t); r.body != "hello" {
		t.Errorf("the node got %q", r.body)
	}
}

// dialSecureRaw opens a TCP connection to the TLS listener.
func (e *edge) dialSecureRaw() net.Conn {
	e.t.Helper()
	c, err := net.Dial("tcp", e.secure)
	if err != nil {
		e.t.Fatal(err)
	}
	return guarded(e.t, c)
}

func TestHandshakeTimeout(t *testing.T) {
	e, _ := appEdge(t, func(c *Config) { c.Limits.HandshakeTimeout = 50 * time.Millisecond })
	for name, begin := range map[string][]byte{"silent": nil, "half a hello": clientHello(t)[:50]} {
		conn := e.dialSecureRaw()
		conn.Write(begin)
		if got, reset := awaitEnd(t, conn); got != "" || reset {
			t.Errorf("%s: got %q, reset %v", name, got, reset)
		}
	}
	e.logs.wait(t, `"cause":"timeout"`)
}

// clientHello is the first record that a TLS client sends.
func clientHello(t *testing.T) []byte {
	t.Helper()
	client, server := net.Pipe()
	defer server.Close()
	done := make(chan error, 1)
	go func() { done <- tls.Client(client, &tls.Config{ServerName: "localhost"}).Handshake() }()
	head := make([]byte, 5)
	if _, err := io.ReadFull(server, head); err != nil {
		t.Fatal(err)
	}
	body := make([]byte, binary.BigEndian.Uint16(head[3:]))
	if _, err := io.ReadFull(server, body); err != nil {
		t.Fatal(err)
	}
	client.Close()
	<-done
	return append(head, body...)
}

// Whoever speaks plain HTTP to a TLS port is told so, also when the request is
// longer than what was read of it.
func TestPlainHTTPToTLSPort(t *testing.T) {
	e, node := appEdge(t)
	for _, request := range []string{get("Host: h"), post("X-A: "+strings.Repeat("x", 8000)+"\r\nContent-Length: 100000", strings.Repeat("x", 100000))} {
		conn := e.dialSecureRaw()
		io.WriteString(conn, request)
		answers, ended, err := answersOn(conn, 2)
		if err != nil || !ended || len(answers) != 1 {
			t.Fatalf("%d answers, ended %v: %v", len(answers), ended, err)
		}
		if a := answers[0]; a.StatusCode != 400 || !strings.Contains(a.body, "https://") {
			t.Errorf("got %d %q", a.StatusCode, a.body)
		}
	}
	conn := e.dialSecureRaw()
	io.WriteString(conn, "\x00\x01\x02\x03\x04\x05 no HTTP")
	if got, _ := awaitEnd(t, conn); strings.Contains(got, "HTTP") {
		t.Errorf("got %q", got)
	}
	e.logs.wait(t, `"cause":"not_tls"`)
	if seen, _ := node.all(); seen != "" {
		t.Errorf("the node got %q", seen)
	}
}

// Clients that wait in the middle of a handshake hold no place of those that
// limit how many compute at a time.
func TestSilentTLSClientsHoldNobodyUp(t *testing.T) {
	e, _ := appEdge(t)
	hello := clientHello(t)
	for i := range 2 * (runtime.GOMAXPROCS(0) + 1) {
		conn := e.dialSecureRaw()
		switch i % 2 {
		case 0:
			conn.Write(hello[:i*3%len(hello)])
		case 1: // says hello and never takes part again
			conn.Write(hello)
			io.ReadFull(conn, make([]byte, 5))
		}
	}
	conn := e.dialTLS()
	io.WriteString(conn, get("Host: h"))
	if _, body := readAnswer(t, bufio.NewReader(conn)); body != "app1" {
		t.Errorf("got %q", body)
	}
}

func TestALPN(t *testing.T) {
	e, _ := appEdge(t)
	for _, c := range []struct {
		offers []string
		chosen string
	}{{nil, ""}, {[]string{"http/1.1"}, "http/1.1"}, {[]string{"h2", "http/1.1"}, "http/1.1"}} {
		conn, err := tls.Dial("tcp", e.secure, &tls.Config{RootCAs: e.roots, ServerName: "localhost", NextProtos: c.offers})
		if err != nil {
			t.Errorf("%q: %v", c.offers, err)
			continue
		}
		guarded(t, conn)
		if got := conn.ConnectionState().NegotiatedProtocol; got != c.chosen {
			t.Errorf("%q: %q was chosen", c.offers, got)
		}
		io.WriteString(conn, get("Host: h"))
		if _, body := readAnswer(t, bufio.NewReader(conn)); body != "app1" {
			t.Errorf("%q: got %q", c.offers, body)
		}
	}
}

// A panic in a handshake (of a certificate source) ends that connection, and
// what the client sends next begins no other handshake.
func TestPanicInHandshake(t *testing.T) {
	snap := nodesOf(map[string]map[string]string{"app": {"a": httpNode(t, echoTarget)}})
	e := startEdgeOver(t, NewDescriptors(0), nil, []Route{{Paths: []string{"/app"}, Service: "app"}}, snap, func(c *tls.Config) {
		cert := c.Certificates[0]
		c.Certificates = nil
		c.GetCertificate = func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			if hello.ServerName == "localhost" && len(hello.SupportedProtos) == 0 {
				panic("no such luck")
			}
			return &cert, nil
		}
	})
	hello := clientHello(t)
	conn := e.dialSecureRaw()
	second := append([]byte(nil), hello...)
	second[2] = 3 // the version that a record has once there was a hello
	conn.Write(append(hello, second...))
	awaitEnd(t, conn)
	e.logs.wait(t, "TLS handshake failed", "no such luck")

	good, err := tls.Dial("tcp", e.secure, &tls.Config{RootCAs: e.roots, ServerName: "localhost", NextProtos: []string{"http/1.1"}})
	if err != nil {
		t.Fatal(err)
	}
	guarded(t, good)
	io.WriteString(good, get("Host: h"))
	if _, body := readAnswer(t, bufio.NewReader(good)); body != "/app/a" {
		t.Errorf("got %q", body)
	}
}

func TestIPv6Listener(t *testing.T) {
	probe, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		t.Skip("no IPv6 here")
	}
	probe.Close()
	e, node := appEdge(t, func(c *Config) {
		c.Listeners = []Listener{{At: "test:1:1", Name: "v6", Address: "[::1]:0"}}
	})
	resp, err := e.client().Get("http://" + e.plain + "/app/a")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("got %d", resp.StatusCode)
	}
	r := node.only(t)
	if got := r.values("X-Forwarded-For"); len(got) != 1 || got[0] != "::1" {
		t.Errorf("X-Forwarded-For: %q", got)
	}
	if got := r.values("Forwarded"); len(got) != 1 || !strings.HasPrefix(got[0], `for="[::1]";`) {
		t.Errorf("Forwarded: %q", got)
	}
}

func TestListenErrorsTeach(t *testing.T) {
	e, _ := appEdge(t)
	cfg := e.cfg
	cfg.Listeners = append(cfg.Listeners[:2:2], Listener{At: "file:7:3", Name: "second", Address: e.plain})
	err := e.Apply(cfg, nil)
	if err == nil || !strings.HasPrefix(err.Error(), "file:7:3: listener second: ") || !strings.Contains(err.Error(), "another process listens there") {
		t.Errorf("got %v", err)
	}
	if resp, _ := e.answerTo(get("Host: h")); resp.StatusCode != 200 {
		t.Errorf("after a refused config: %d", resp.StatusCode)
	}
}
