package gateway

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"singlegate/discovery"
	"singlegate/upstream"
)

// A recorder is a node that writes down every byte and request that reaches it
// and answers each whole request with 200 and its own name.
type recorder struct {
	name string
	addr string

	mu       sync.Mutex
	bytes    bytes.Buffer
	requests []recorded
}

// recorded is one request as it came: its head byte for byte, and its body.
type recorded struct {
	head, body string
	broken     bool // the body did not come whole
}

func (r recorded) line() string {
	line, _, _ := strings.Cut(r.head, "\r\n")
	return line
}

// values are those of all headers with exactly this spelling of the name.
func (r recorded) values(name string) []string {
	var values []string
	for line := range strings.SplitSeq(r.head, "\r\n") {
		if v, ok := strings.CutPrefix(line, name+": "); ok {
			values = append(values, v)
		}
	}
	return values
}

func startRecorder(t *testing.T, name string) *recorder {
	r := &recorder{name: name}
	r.addr = rawNode(t, r.serve)
	return r
}

// serve takes one request of a connection. What follows it on the connection is
// written down too: it must never be a second request.
func (r *recorder) serve(c net.Conn) {
	br := bufio.NewReader(c)
	head := readHead(br)
	body := bufio.NewReader(io.MultiReader(strings.NewReader(head), br))
	req, err := http.ReadRequest(body)
	if err != nil {
		r.note(head)
		return
	}
	b, err := io.ReadAll(req.Body)
	r.mu.Lock()
	r.bytes.WriteString(head + string(b))
	r.requests = append(r.requests, recorded{head, string(b), err != nil})
	r.mu.Unlock()
	if err != nil {
		return
	}
	answer := "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: " + strconv.Itoa(len(r.name)) + "\r\n\r\n"
	if req.Method != "HEAD" {
		answer += r.name
	}
	io.WriteString(c, answer)
	closeWriteQuietly(c)
	rest, _ := io.ReadAll(body)
	r.note(string(rest))
}

func closeWriteQuietly(c net.Conn) {
	if t, ok := c.(*net.TCPConn); ok {
		t.CloseWrite()
	}
}

func (r *recorder) note(s string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.bytes.WriteString(s)
}

// all is every byte that came, and the requests among them.
func (r *recorder) all() (string, []recorded) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.bytes.String(), append([]recorded(nil), r.requests...)
}

// take gives the requests that came since the last time.
func (r *recorder) take() []recorded {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := r.requests
	r.requests = nil
	return list
}

// only is the one request that came since the last time.
func (r *recorder) only(t *testing.T) recorded {
	t.Helper()
	list := r.take()
	if len(list) != 1 {
		t.Fatalf("%d requests reached %s, want one", len(list), r.name)
	}
	return list[0]
}

// answersOn reads answers off a connection until it ends. An end in the middle
// of one, or a reset, is an error.
func answersOn(c net.Conn, n int) (answers []gotAnswer, ended bool, err error) {
	br := bufio.NewReader(c)
	for len(answers) < n {
		if _, err := br.Peek(1); err == io.EOF {
			return answers, true, nil
		}
		resp, err := http.ReadResponse(br, nil)
		if err != nil {
			return answers, false, err
		}
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			return answers, false, err
		}
		answers = append(answers, gotAnswer{resp, string(body)})
	}
	return answers, false, nil
}

type gotAnswer struct {
	*http.Response
	body string
}

// closeWrite ends the sending side of a test's connection.
func closeWrite(t *testing.T, c net.Conn) {
	t.Helper()
	if err := c.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		t.Fatal(err)
	}
}

// awaitEnd reads a connection to its end and tells whether that was clean.
func awaitEnd(t *testing.T, c io.Reader) (rest string, reset bool) {
	t.Helper()
	b, err := io.ReadAll(c)
	if err != nil && !errors.Is(err, syscall.ECONNRESET) {
		t.Fatalf("the connection did not end: %v", err)
	}
	return string(b), err != nil
}

// echoTarget answers with the request target as it came.
func echoTarget(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.RequestURI) }

// inOrder is a service of these nodes, in this order: round robin begins with the first.
// The name of each is its address.
func inOrder(service string, addrs ...string) discovery.Snapshot {
	static := discovery.Static{Services: map[string][]discovery.Node{}}
	for _, addr := range addrs {
		one := nodesOf(map[string]map[string]string{service: {addr: addr}})
		static.Services[service] = append(static.Services[service], one.Services[service].Nodes...)
	}
	return static.Snapshot()
}

// appRoute is an edge whose only route, /app, goes to one node.
func appRoute(t *testing.T, addr string, timeouts ...func(*Timeouts)) *edge {
	t.Helper()
	route := Route{Paths: []string{"/app"}, Service: "app", Timeouts: DefaultTimeouts()}
	for _, f := range timeouts {
		f(&route.Timeouts)
	}
	return startEdge(t, []Route{route}, map[string]map[string]string{"app": {"app1": addr}})
}

// startEdgeOver is startEdge with descriptors, a dialer and TLS settings of the
// test's own.
func startEdgeOver(t *testing.T, fds *Descriptors, dialer upstream.Dialer, routes []Route, snap discovery.Snapshot, tune ...func(*tls.Config)) *edge {
	t.Helper()
	e := &edge{t: t, logs: newLogLines()}
	var cert tls.Certificate
	cert, e.roots = testCertificate(t)
	cfg := &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"http/1.1"}}
	for _, f := range tune {
		f(cfg)
	}
	s, err := New(Options{
		Log: zerolog.New(e.logs), Access: zerolog.New(e.logs), TLS: cfg,
		Upstream: upstream.New(dialer), Descriptors: fds,
	})
	if err != nil {
		t.Fatal(err)
	}
	e.Server, e.cfg = s, testConfig(routes, nil)
	for name := range snap.Services {
		e.cfg.Services = append(e.cfg.Services, ServiceRef{Name: name, Ports: []string{""}})
	}
	if err := s.Apply(e.cfg, &snap); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		s.Shutdown(ctx)
	})
	entries := s.Entries()
	e.plain, e.secure = entries[0].Address.String(), entries[1].Address.String()
	return e
}

// eachWire runs f over the plain and over the TLS listener.
func eachWire(t *testing.T, f func(t *testing.T, secure bool)) {
	for _, secure := range []bool{false, true} {
		name := "plain"
		if secure {
			name = "tls"
		}
		t.Run(name, func(t *testing.T) { f(t, secure) })
	}
}

// await waits for a signal of another goroutine.
func await[T any](t *testing.T, what string, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(20 * time.Second):
		t.Fatalf("waited in vain: %s", what)
		panic("unreachable")
	}
}
