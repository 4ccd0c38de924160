package gateway

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
)

// A body that is larger than the route allows never reaches a node whole: not at
// all where its length is declared, and cut off where it is chunked.
func TestBodyLimit(t *testing.T) {
	t.Parallel()
	const limit = 64 << 10
	read := make(chan int64, 1)
	node := httpNode(t, func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		if err != nil {
			n = -n
		}
		read <- n
	})
	e := startEdge(t, []Route{{Paths: []string{"/app"}, Service: "app", Policies: Policies{MaxBody: limit}}},
		map[string]map[string]string{"app": {"app1": node}})
	chunk := func(n int) string { return fmt.Sprintf("%x\r\n%s\r\n", n, strings.Repeat("x", n)) }
	plain := func(n int) string {
		return fmt.Sprintf("Content-Length: %d\r\n\r\n%s", n, strings.Repeat("x", n))
	}
	const chunked = "Transfer-Encoding: chunked\r\n\r\n"
	cases := []struct {
		name, rest string
		status     int
		reaches    int64 // bytes that reach the node; -1: it is not asked; -2: it is cut off
	}{
		{"as large as may be", plain(limit), 200, limit},
		{"one byte more", plain(limit + 1), 413, -1},
		{"one byte more, asking first", fmt.Sprintf("Expect: 100-continue\r\nContent-Length: %d\r\n\r\n", limit+1), 413, -1},
		{"chunked, as large as may be", chunked + chunk(limit/2) + chunk(limit/2) + "0\r\n\r\n", 200, limit},
		{"chunked, one byte more", chunked + chunk(limit) + chunk(1) + "0\r\n\r\n", 413, -2},
		{"chunked without an end", chunked + strings.Repeat(chunk(limit/2), 20), 413, -2},
		{"one large chunk", chunked + chunk(4*limit), 413, -2},
		{"no body", "\r\n", 200, 0},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			eachWire(t, func(t *testing.T, secure bool) {
				conn := e.dialAny(secure)
				go io.WriteString(conn, "POST /app HTTP/1.1\r\nHost: h\r\n"+c.rest)
				resp, body := readAnswer(t, bufio.NewReader(conn))
				if resp.StatusCode != c.status {
					t.Fatalf("%s %s", resp.Status, body)
				}
				if c.status == 413 {
					if problemCode(body) != "body_too_large" || !strings.Contains(body, "65536") || !resp.Close {
						t.Errorf("%v %s", resp.Header, body)
					}
					rest, err := io.ReadAll(conn) // no reset before the client has read the answer
					if err != nil && !errors.Is(err, net.ErrClosed) || len(rest) > 0 {
						t.Errorf("then %q, %v", rest, err)
					}
				}
				switch c.reaches {
				case -1:
					if len(read) > 0 {
						t.Errorf("the node got %d bytes", <-read)
					}
				case -2:
					if got := await(t, "the node's request ends", read); got > 0 || got < -limit {
						t.Errorf("the node got %d bytes (negative: cut off)", got)
					}
				default:
					if got := await(t, "the node's request ends", read); got != c.reaches {
						t.Errorf("the node got %d bytes", got)
					}
				}
			})
		})
	}
}

// Once the answer has begun it cannot become a 413: it is cut.
func TestBodyLimitWhileAnswering(t *testing.T) {
	t.Parallel()
	node := rawNode(t, func(c net.Conn) {
		readHead(bufio.NewReader(c))
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nbegun")
		io.Copy(io.Discard, c)
	})
	e := startEdge(t, []Route{{Paths: []string{"/app"}, Service: "app", Policies: Policies{MaxBody: 10}}},
		map[string]map[string]string{"app": {"app1": node}})
	conn := e.dial()
	io.WriteString(conn, "POST /app HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n")
	br := bufio.NewReader(conn)
	resp, err := http.ReadResponse(br, nil)
	if err != nil || resp.StatusCode != 200 {
		t.Fatal(resp, err)
	}
	if _, err := io.ReadFull(resp.Body, make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	io.WriteString(conn, "9\r\n123456789\r\n")
	if rest, err := io.ReadAll(resp.Body); err == nil {
		t.Errorf("the answer came whole: %q", rest)
	}
	e.logs.wait(t, `"bytes_in":11`, "max_body")
}
