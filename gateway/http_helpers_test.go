package gateway

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
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

// only is the one request that came.
func (r *recorder) only(t *testing.T) recorded {
	t.Helper()
	_, list := r.all()
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
