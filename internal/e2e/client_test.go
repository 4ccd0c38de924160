package e2e

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"
)

// A door is an address of a gateway as a client uses it.
type door struct {
	address string         // host:port to connect to
	host    string         // the Host header
	roots   *x509.CertPool // nil: plain
	name    string         // the server's name for TLS; "": that of host

	tune func(*tls.Config) // nil: nothing else about TLS
}

func (d door) dial() (net.Conn, error) {
	dialer := &net.Dialer{Timeout: patience}
	var conn net.Conn
	var err error
	if d.roots == nil {
		conn, err = dialer.Dial("tcp", d.address)
	} else {
		cfg := &tls.Config{RootCAs: d.roots, ServerName: d.serverName()}
		if d.tune != nil {
			d.tune(cfg)
		}
		conn, err = tls.DialWithDialer(dialer, "tcp", d.address, cfg)
	}
	if err != nil {
		return nil, err
	}
	return conn, conn.SetDeadline(time.Now().Add(2 * patience))
}

func (d door) serverName() string {
	if d.name != "" {
		return d.name
	}
	if name, _, err := net.SplitHostPort(d.host); err == nil {
		return name
	}
	return d.host
}

// request makes one HTTP request on a connection of its own and returns the
// answer with its body. headers are names and values in turn.
func (d door) request(t *testing.T, method, target, body string, headers ...string) (*http.Response, string) {
	t.Helper()
	answer, text, err := d.tryRequest(method, target, body, headers...)
	if err != nil {
		t.Fatalf("%s %s: %v", method, target, err)
	}
	return answer, text
}

// tryRequest is request for any goroutine.
func (d door) tryRequest(method, target, body string, headers ...string) (*http.Response, string, error) {
	conn, err := d.dial()
	if err != nil {
		return nil, "", err
	}
	defer conn.Close()
	head := fmt.Sprintf("%s %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n", method, target, d.host)
	for i := 0; i+1 < len(headers); i += 2 {
		head += headers[i] + ": " + headers[i+1] + "\r\n"
	}
	if body != "" {
		head += fmt.Sprintf("Content-Length: %d\r\n", len(body))
	}
	if _, err := io.WriteString(conn, head+"\r\n"+body); err != nil {
		return nil, "", err
	}
	answer, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		return nil, "", err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	return answer, string(text), err
}

// A socket is the client's end of a WebSocket.
type socket struct {
	conn   net.Conn
	reader *bufio.Reader
	answer *http.Response // to the handshake
	body   string         // of an answer that is no 101
}

// handshake asks for a WebSocket; the answer may be any. headers are names and
// values in turn.
func (d door) handshake(target string, headers ...string) (*socket, error) {
	conn, err := d.dial()
	if err != nil {
		return nil, err
	}
	head := "GET " + target + " HTTP/1.1\r\nHost: " + d.host + "\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
	for i := 0; i+1 < len(headers); i += 2 {
		head += headers[i] + ": " + headers[i+1] + "\r\n"
	}
	s := &socket{conn: conn, reader: bufio.NewReader(conn)}
	if _, err = io.WriteString(conn, head+"\r\n"); err == nil {
		s.answer, err = http.ReadResponse(s.reader, &http.Request{Method: http.MethodGet})
	}
	if err == nil && s.answer.StatusCode != http.StatusSwitchingProtocols {
		var body []byte
		body, err = io.ReadAll(s.answer.Body)
		s.body = string(body)
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return s, nil
}

// open asks for a WebSocket that must be granted, and closes it with the test.
func (d door) open(t *testing.T, target string, headers ...string) *socket {
	t.Helper()
	s, err := d.handshake(target, headers...)
	if err != nil {
		t.Fatalf("handshake for %s: %v", target, err)
	}
	t.Cleanup(func() { s.conn.Close() })
	if s.answer.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("handshake for %s: %s %s, want 101", target, s.answer.Status, s.body)
	}
	return s
}

// refused asks for a WebSocket that must be refused with a status, and returns
// the answer's body.
func (d door) refused(t *testing.T, status int, target string, headers ...string) string {
	t.Helper()
	s, err := d.handshake(target, headers...)
	if err != nil {
		t.Fatalf("handshake for %s: %v", target, err)
	}
	s.conn.Close()
	if s.answer.StatusCode != status {
		t.Errorf("handshake for %s: %s %s, want %d", target, s.answer.Status, s.body, status)
	}
	return s.body
}

// send writes one masked frame.
func (s *socket) send(op ws.OpCode, payload []byte) error {
	_, err := s.conn.Write(ws.MustCompileFrame(ws.MaskFrame(ws.NewFrame(op, true, payload))))
	return err
}

// next reads one frame.
func (s *socket) next() (ws.OpCode, []byte, error) {
	frame, err := ws.ReadFrame(s.reader)
	return frame.Header.OpCode, frame.Payload, err
}

// ask sends a message and returns the next one of the same kind.
func (s *socket) ask(t *testing.T, op ws.OpCode, payload string) string {
	t.Helper()
	if err := s.send(op, []byte(payload)); err != nil {
		t.Fatal(err)
	}
	return s.expect(t, op)
}

// expect reads a frame that must be of one kind.
func (s *socket) expect(t *testing.T, op ws.OpCode) string {
	t.Helper()
	got, payload, err := s.next()
	if err != nil {
		t.Fatalf("reading a frame: %v", err)
	}
	if got != op {
		t.Fatalf("got a frame with opcode %#x %q, want opcode %#x", got, payload, op)
	}
	return string(payload)
}

// end reads to the end of the connection, answers the first Close, closes its
// own side when the gateway has, and returns the codes of all Close frames with
// their reasons.
func (s *socket) end() (codes []ws.StatusCode, reasons []string, err error) {
	defer s.conn.Close()
	for {
		op, payload, err := s.next()
		switch {
		case errors.Is(err, io.EOF):
			return codes, reasons, nil
		case err != nil:
			return codes, reasons, err
		case op != ws.OpClose:
			continue
		}
		code, reason := ws.ParseCloseFrameData(payload)
		codes, reasons = append(codes, code), append(reasons, reason)
		if len(codes) == 1 {
			if err := s.send(ws.OpClose, payload[:min(2, len(payload))]); err != nil {
				return codes, reasons, err
			}
		}
	}
}

// decode reads JSON into a new T.
func decode[T any](t *testing.T, text string) T {
	t.Helper()
	var v T
	if err := json.NewDecoder(bytes.NewReader([]byte(text))).Decode(&v); err != nil {
		t.Fatalf("not the JSON that was expected: %v: %s", err, text)
	}
	return v
}

// A said is what stand-in nodes tell of themselves, and what they were told.
type said struct {
	Node, Event, Path, Query, Protocol, Echo, Body string
	Error                                          string // the gateway's, in a refusal
	Bytes                                          int64
	Port                                           int
	Headers                                        map[string]string
}

// nodeSays decodes what a stand-in says, which must be the node that is wanted.
func nodeSays(t *testing.T, text, node string) said {
	t.Helper()
	s := decode[said](t, text)
	if s.Node != node {
		t.Errorf("node %q answered, want %q: %s", s.Node, node, strings.TrimSpace(text))
	}
	return s
}
