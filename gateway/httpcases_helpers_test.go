package gateway

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// A httpCase is what one client sends on a connection, what its node answers,
// and everything that comes of it, byte for byte. In all texts "|" stands for
// CR LF, /NODE for the path under which the case's own node is reached, and
// ADDRESS for where it is.
type httpCase struct {
	name  string
	send  string // what the client sends; "": plainGet
	alone bool   // nothing follows it: the client ends its sending
	node  string // what the node answers; "": plainOK
	early bool   // it does so before it has read the body
	ends  string // what it does then: "" goes on, "closes", "resets"

	want    string // what the client gets, see clientTranscript
	answers int    // how many final answers are in it; 0: one
	seen    string // what the node gets, see nodeTranscript
	lives   bool   // the connection carries another request
	only    string // the one way to send it; "": every way, see runHTTPCases
}

const (
	plainGet = "GET /NODE/a HTTP/1.1|Host: h||"
	plainOK  = "HTTP/1.1 200 OK|Content-Length: 2||ok"
	gotOK    = "200 OK|Content-Length: 2||ok" // by the client
	sawGet   = "GET /NODE/a HTTP/1.1|Host: h||"
	silence  = "-" // of a node

	refused = "!400 bad_request close"
	failed  = "!502 upstream_failed"

	// unfinished, at the end of what the node gets: whether it hears of the last
	// request at all depends on when that goes wrong, but never gets all of it.
	unfinished = "(unfinished)"

	followUp   = "GET /NODE/next HTTP/1.1|Host: h|Connection: close||"
	sawNext    = "GET /NODE/next HTTP/1.1|Host: h||"
	followedUp = "200 OK|Connection: close|Content-Length: 4||next"
)

// up is a request with a body.
func up(headers, body string) string {
	return "POST /NODE/a HTTP/1.1|Host: h|" + headers + "||" + body
}

// runHTTPCases runs each case over plain and TLS, with the next request in the
// same write and the whole sent byte by byte; where the connection lives on,
// also with the next request after the answer.
func runHTTPCases(t *testing.T, cases []httpCase) {
	t.Helper()
	services := map[string]map[string]string{"app": {}}
	nodes := make([]*caseNode, len(cases))
	for i := range cases {
		nodes[i] = startCaseNode(t, &cases[i], fmt.Sprintf("%04d", i))
		services["app"][nodes[i].id] = nodes[i].addr
	}
	e := startEdge(t, []Route{{Paths: []string{"/{node}"}, Service: "app"}}, services)
	for i, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			eachWire(t, func(t *testing.T, secure bool) {
				for _, way := range c.ways() {
					got := c.run(t, e.dialAny(secure), nodes[i].id, way)
					if want := c.wanted(); got != want {
						t.Errorf("%s: the client got\n%q, want\n%q", way, got, want)
					}
					nodes[i].expect(t, way)
				}
			})
		})
	}
}

func (c *httpCase) ways() []string {
	if c.only != "" {
		return []string{c.only}
	}
	ways := []string{"at once"}
	if len(c.send) < 2000 {
		ways = append(ways, "byte by byte")
	}
	if c.lives {
		ways = append(ways, "in turn")
	}
	return ways
}

// wanted is all that the client gets.
func (c *httpCase) wanted() string {
	if c.lives {
		return c.want + followedUp
	}
	return c.want
}

// run plays the client and gives what it got until the connection ended.
func (c *httpCase) run(t *testing.T, conn net.Conn, id, way string) string {
	t.Helper()
	send, next := c.bytes(c.send, plainGet, id), c.bytes(followUp, "", id)
	var raw bytes.Buffer
	br := bufio.NewReader(io.TeeReader(conn, &raw))
	switch {
	case c.alone, way == "byte by byte" && !c.lives && c.want[0] != '!':
		// An answer that ends the connection at the client's own wish, or breaks
		// off, is not waited for: what is sent behind it may destroy it.
		next = ""
	case way != "in turn":
		send, next = send+next, ""
	}
	write(conn, send, way == "byte by byte")
	if next != "" {
		c.readAnswers(t, br, strings.HasPrefix(send, "HEAD"))
		write(conn, next, false)
	}
	if c.alone {
		conn.(interface{ CloseWrite() error }).CloseWrite()
	}
	_, err := io.Copy(io.Discard, br)
	conn.Close()
	return strings.ReplaceAll(clientTranscript(t, raw.String()), "/"+id, "/NODE") + ending(t, err)
}

// write may fail: a gateway that refuses does not read on for ever.
func write(conn net.Conn, s string, byByte bool) {
	if !byByte {
		io.WriteString(conn, s)
		return
	}
	for i := range len(s) {
		if _, err := conn.Write([]byte{s[i]}); err != nil {
			return
		}
	}
}

func (c *httpCase) bytes(text, otherwise, id string) string {
	if text == "" {
		text = otherwise
	}
	return strings.NewReplacer("|", "\r\n", "/NODE", "/"+id).Replace(text)
}

func (c *httpCase) readAnswers(t *testing.T, br *bufio.Reader, head bool) {
	t.Helper()
	request := &http.Request{Method: "GET"}
	if head {
		request.Method = "HEAD"
	}
	for left := max(c.answers, 1); left > 0; {
		answer, err := http.ReadResponse(br, request)
		if err != nil {
			t.Fatalf("in turn: reading an answer: %v", err)
		}
		if _, err := io.ReadAll(answer.Body); err != nil {
			t.Fatalf("in turn: reading a body: %v", err)
		}
		if answer.StatusCode >= 200 {
			left--
		}
	}
}

// ending says how a connection ended, when that was not in order.
func ending(t *testing.T, err error) string {
	t.Helper()
	switch {
	case err == nil:
		return ""
	case errors.Is(err, syscall.ECONNRESET):
		return "(reset)"
	case errors.Is(err, io.ErrUnexpectedEOF):
		return "(cut)" // TLS without a goodbye
	}
	t.Fatalf("the connection did not end: %v", err)
	return ""
}

var answerHead = regexp.MustCompile(`HTTP/1\.1 [^\r\n]*\r\n(?:[^\r\n]+\r\n)*\r\n(?:\{"error":"[^\n]*\n)?`)

// clientTranscript is what a client got, with the headers of each answer sorted,
// "HTTP/1.1 " left out, the gateway's Date taken away, and "|" for CR LF. An
// answer that the gateway made is "!status code", and " close" if it says so.
func clientTranscript(t *testing.T, raw string) string {
	t.Helper()
	text := answerHead.ReplaceAllStringFunc(raw, func(answer string) string {
		head, body, _ := strings.Cut(answer, "\r\n\r\n")
		lines := strings.Split(strings.TrimPrefix(head, "HTTP/1.1 "), "\r\n")
		slices.Sort(lines[1:])
		lines = slices.DeleteFunc(lines, isDateOfNow)
		if code := problemCode(body); code != "" {
			return ownTranscript(t, lines, code, len(body))
		}
		return strings.Join(lines, "\r\n") + "\r\n\r\n" + body
	})
	return strings.ReplaceAll(text, "\r\n", "|")
}

func isDateOfNow(line string) bool {
	value, ok := strings.CutPrefix(line, "Date: ")
	at, err := http.ParseTime(value)
	return ok && err == nil && time.Since(at).Abs() < time.Minute
}

// ownTranscript holds an answer of the gateway's own against the form of those.
func ownTranscript(t *testing.T, lines []string, code string, length int) string {
	t.Helper()
	text := "!" + lines[0][:3] + " " + code
	for _, line := range lines[1:] {
		name, value, _ := strings.Cut(line, ": ")
		var ok bool
		switch name {
		case "Connection":
			ok, text = value == "close", text+" close"
		case "Content-Length":
			ok = value == strconv.Itoa(length)
		case "Content-Type":
			ok = value == "application/json; charset=utf-8"
		case "Cache-Control":
			ok = value == "no-store"
		case "X-Content-Type-Options":
			ok = value == "nosniff"
		case "X-Frame-Options":
			ok = value == "DENY"
		case "Referrer-Policy":
			ok = value == "no-referrer"
		case "Content-Security-Policy":
			ok = value == nothingPolicy
		case "Allow", "Retry-After":
			ok = value != ""
		case "X-Request-Id":
			ok = len(value) == 16
		}
		if !ok {
			t.Errorf("an answer of the gateway has the header %q", line)
		}
	}
	return text
}

// A caseNode is the node of one case. It answers the follow-up in order, and
// every other request as the case says.
type caseNode struct {
	c        *httpCase
	id, addr string

	mu   sync.Mutex
	seen []string
}

func startCaseNode(t *testing.T, c *httpCase, id string) *caseNode {
	n := &caseNode{c: c, id: id}
	n.addr = rawNode(t, n.serve)
	return n
}

func (n *caseNode) serve(conn net.Conn) {
	br := bufio.NewReader(conn)
	for {
		head := readHead(br)
		if !strings.HasSuffix(head, "\r\n\r\n") {
			return
		}
		if strings.Contains(head, "/next HTTP/1.1\r\n") {
			n.note(nodeTranscript(head, "", true))
			io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnext")
			continue
		}
		if n.c.early {
			n.answer(conn)
		}
		body, whole := readFramed(br, head)
		n.note(nodeTranscript(head, body, whole))
		if !whole {
			return
		}
		if !n.c.early {
			n.answer(conn)
		}
		switch n.c.ends {
		case "resets":
			conn.(*net.TCPConn).SetLinger(0)
			return
		case "closes":
			return
		}
	}
}

func (n *caseNode) answer(conn net.Conn) {
	if n.c.node != silence {
		io.WriteString(conn, n.c.bytes(n.c.node, plainOK, n.id))
	}
}

func (n *caseNode) note(s string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.seen = append(n.seen, strings.NewReplacer("/"+n.id, "/NODE", n.addr, "ADDRESS", "\r\n", "|").Replace(s))
}

// readFramed reads a body as the head says, and tells whether all of it came.
func readFramed(br *bufio.Reader, head string) (body string, whole bool) {
	length := 0
	for line := range strings.SplitSeq(head, "\r\n") {
		if v, ok := strings.CutPrefix(line, "Content-Length: "); ok {
			length, _ = strconv.Atoi(v)
		}
		if line == "Transfer-Encoding: chunked" {
			b, err := io.ReadAll(httputil.NewChunkedReader(br))
			rest := make([]byte, 2)
			_, errEnd := io.ReadFull(br, rest)
			return string(b), err == nil && errEnd == nil && string(rest) == "\r\n"
		}
	}
	b := make([]byte, length)
	n, err := io.ReadFull(br, b)
	return string(b[:n]), err == nil
}

// nodeTranscript is a request as a node got it, without what the gateway says of
// the client, each of which must be there once.
func nodeTranscript(head, body string, whole bool) string {
	var lines []string
	own := map[string]int{}
	for line := range strings.SplitSeq(strings.TrimSuffix(head, "\r\n\r\n"), "\r\n") {
		name, _, _ := strings.Cut(line, ":")
		switch name {
		case "X-Forwarded-For", "X-Forwarded-Proto", "X-Real-IP", "Forwarded", "X-Request-Id", loopHeader:
			own[name]++
		case "X-Forwarded-Host":
		default:
			lines = append(lines, line)
		}
	}
	text := strings.Join(lines, "|") + "||" + body
	if len(own) != 6 || slices.Max([]int{own["X-Forwarded-For"], own["X-Forwarded-Proto"], own["X-Real-IP"], own["Forwarded"], own["X-Request-Id"], own[loopHeader]}) != 1 {
		text += fmt.Sprintf("(the gateway's own headers: %v)", own)
	}
	if !whole {
		text += unfinished
	}
	return text
}

// take gives what the node has got since the last run, and how often the
// request after the case's own.
func (n *caseNode) take() (seen string, next int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, s := range n.seen {
		switch {
		case s == sawNext:
			next++
		case strings.HasSuffix(s, unfinished) && strings.HasSuffix(n.c.seen, unfinished):
			// It may come late, even in the time of the next run.
		default:
			seen += s
		}
	}
	return seen, next
}

// expect holds what the node got against the case.
func (n *caseNode) expect(t *testing.T, way string) {
	t.Helper()
	want := 0
	if n.c.lives {
		want = 1
	}
	seen, next := n.take()
	// What breaks off may come to the node's notice later than to the client's.
	for range 1000 {
		if next >= want && n.c.matches(seen) {
			break
		}
		time.Sleep(time.Millisecond)
		seen, next = n.take()
	}
	if next != want {
		t.Errorf("%s: the next request was run %d times, want %d", way, next, want)
	}
	if !n.c.matches(seen) {
		t.Errorf("%s: the node got\n%q, want\n%q", way, seen, n.c.seen)
	}
	n.mu.Lock()
	n.seen = nil
	n.mu.Unlock()
}

func (c *httpCase) matches(seen string) bool {
	return seen == strings.TrimSuffix(c.seen, unfinished)
}
