package upstream

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"
)

func readerOf(c net.Conn) *bufio.Reader { return bufio.NewReader(c) }

const testKey = "dGhlIHNhbXBsZSBub25jZQ=="

// switchAnswer is the 101 that accepts a key.
func switchAnswer(key string) string {
	return "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " + AcceptFor(key) + "\r\n\r\n"
}

func handshakeTo(addr, key string) Upgrade {
	return Upgrade{
		Addr: addr, Key: key, Connect: 10 * time.Second, Answer: 10 * time.Second,
		Head: []byte("GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: " + key + "\r\n\r\n"),
	}
}

// The example of RFC 6455 section 1.3.
func TestAcceptFor(t *testing.T) {
	if got := AcceptFor(testKey); got != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" {
		t.Errorf("got %s", got)
	}
}

// Only a 101 that is right in every respect is one.
func TestUpgradeChecksTheSwitch(t *testing.T) {
	accept := "Sec-WebSocket-Accept: " + AcceptFor(testKey)
	const upgrade, connection = "Upgrade: websocket", "Connection: Upgrade"
	cases := []struct {
		name    string
		headers []string
		ok      bool
	}{
		{"right", []string{upgrade, connection, accept}, true},
		{"other cases", []string{"upgrade: WebSocket", "connection: keep-alive, upgrade", "SEC-WEBSOCKET-ACCEPT: " + AcceptFor(testKey)}, true},
		{"Connection in two lines", []string{upgrade, "Connection: keep-alive", connection, accept}, true},
		{"no Upgrade", []string{connection, accept}, false},
		{"h2c", []string{"Upgrade: h2c", connection, accept}, false},
		{"Upgrade list", []string{"Upgrade: websocket, h2c", connection, accept}, false},
		{"Upgrade twice", []string{upgrade, upgrade, connection, accept}, false},
		{"no Connection", []string{upgrade, accept}, false},
		{"Connection without Upgrade", []string{upgrade, "Connection: keep-alive, notupgrade", accept}, false},
		{"no Accept", []string{upgrade, connection}, false},
		{"Accept of another key", []string{upgrade, connection, "Sec-WebSocket-Accept: " + AcceptFor("other")}, false},
		{"Accept in another case", []string{upgrade, connection, strings.ToUpper(accept)}, false},
		{"Accept twice", []string{upgrade, connection, accept, accept}, false},
		{"Accept echoes the key", []string{upgrade, connection, "Sec-WebSocket-Accept: " + testKey}, false},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			ended := make(chan struct{})
			addr := rawNode(t, "127.0.0.1:0", func(conn net.Conn) {
				defer close(ended)
				http.ReadRequest(readerOf(conn))
				io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\n"+strings.Join(c.headers, "\r\n")+"\r\n\r\n")
				io.Copy(io.Discard, conn)
			})
			up, err := New(nil).Upgrade(t.Context(), handshakeTo(addr, testKey))
			if c.ok != (err == nil) || err != nil && !errors.Is(err, ErrNotWebSocket) {
				t.Fatalf("got %v", err)
			}
			if err == nil {
				up.Conn.Close()
			}
			<-ended // where it was refused, Upgrade has closed the connection
		})
	}
}

// What the node sends right behind its answer is the caller's, in order.
func TestUpgradeKeepsEarlyBytes(t *testing.T) {
	for _, size := range []int{0, 1, 100, 4000, 100_000} {
		early := bytes.Repeat([]byte("0123456789"), size/10+1)[:size]
		head := ""
		addr := rawNode(t, "127.0.0.1:0", func(c net.Conn) {
			br := readerOf(c)
			for !strings.HasSuffix(head, "\r\n\r\n") {
				line, err := br.ReadString('\n')
				if head += line; err != nil {
					return
				}
			}
			c.Write(append([]byte("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"+switchAnswer(testKey)), early...))
			io.Copy(c, br) // and echo
		})
		u := handshakeTo(addr, testKey)
		up, err := New(nil).Upgrade(t.Context(), u)
		if err != nil {
			t.Fatal(err)
		}
		go up.Conn.Write([]byte("echoed"))
		got := append([]byte(nil), up.Early...)
		rest := make([]byte, size+len("echoed")-len(got))
		if _, err := io.ReadFull(up.Conn, rest); err != nil {
			t.Fatal(err)
		}
		if got = append(got, rest...); string(got) != string(early)+"echoed" {
			t.Errorf("%d early bytes: got %d bytes", size, len(got))
		}
		if head != string(u.Head) {
			t.Errorf("the node got %q", head)
		}
		up.Conn.Close()
	}
}

// A node that sniffs the protocol in its first read sees the whole head there.
func TestUpgradeSendsItsHeadInOneWrite(t *testing.T) {
	var writes [][]byte
	set := New(dialerFunc(func(context.Context, string, string) (net.Conn, error) {
		client, server := net.Pipe()
		go func() {
			io.Copy(io.Discard, server)
			server.Close()
		}()
		return &writeRecorder{Conn: client, writes: &writes}, nil
	}))
	u := handshakeTo("10.0.0.1:80", testKey)
	u.Answer = 50 * time.Millisecond
	if _, err := set.Upgrade(t.Context(), u); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	if len(writes) != 1 || !bytes.Equal(writes[0], u.Head) {
		t.Errorf("%d writes: %q", len(writes), writes)
	}
}

type writeRecorder struct {
	net.Conn
	writes *[][]byte
}

func (w *writeRecorder) Write(p []byte) (int, error) {
	*w.writes = append(*w.writes, bytes.Clone(p))
	return w.Conn.Write(p)
}

// An answer that is no 101 can be read to its end, however long it is.
func TestUpgradeRefusedByTheNode(t *testing.T) {
	long := strings.Repeat("x", 1<<20)
	cases := []struct {
		answer string
		status int
		body   string
	}{
		{"HTTP/1.1 401 Unauthorized\r\nContent-Length: 6\r\nWWW-Authenticate: Basic\r\n\r\ndenied", 401, "denied"},
		{"HTTP/1.1 403 Forbidden\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n", 403, "abcdef"},
		{"HTTP/1.1 200 OK\r\n\r\nuntil the end", 200, "until the end"},
		{"HTTP/1.0 200 OK\r\n\r\n" + long, 200, long},
		{"HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\nContent-Length: 0\r\n\r\n", 426, ""},
		{"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy", 503, "busy"},
	}
	for _, c := range cases {
		addr := rawNode(t, "127.0.0.1:0", answering(c.answer))
		up, err := New(nil).Upgrade(t.Context(), handshakeTo(addr, testKey))
		if err != nil {
			t.Fatal(err)
		}
		if up.Conn != nil || up.Answer.StatusCode != c.status {
			t.Errorf("got %+v", up)
		}
		if body, err := io.ReadAll(up.Answer.Body); err != nil || string(body) != c.body {
			t.Errorf("status %d: got %d bytes, %v", c.status, len(body), err)
		}
		up.Answer.Body.Close()
	}
}

// Closing the body of a refusal does not wait for what is left of it.
func TestUpgradeRefusalIsClosedAtOnce(t *testing.T) {
	ended := make(chan struct{})
	addr := rawNode(t, "127.0.0.1:0", func(c net.Conn) {
		defer close(ended)
		http.ReadRequest(readerOf(c))
		io.WriteString(c, "HTTP/1.1 403 Forbidden\r\nContent-Length: 1000\r\n\r\nbegun")
		io.Copy(io.Discard, c)
	})
	up, err := New(nil).Upgrade(t.Context(), handshakeTo(addr, testKey))
	if err != nil {
		t.Fatal(err)
	}
	up.Answer.Body.Close()
	<-ended
}

func TestUpgradeWithBadAnswers(t *testing.T) {
	filler := "X-A: " + strings.Repeat("x", 1000) + "\r\n"
	cases := []struct {
		name, answer string
		want         error // nil: any
	}{
		{"nothing", "", io.ErrUnexpectedEOF},
		{"half a head", "HTTP/1.1 101 Switching", io.ErrUnexpectedEOF},
		{"garbage", "SSH-2.0-OpenSSH\r\n\r\n", nil},
		{"HTTP/2 preface", "\x00\x00\x12\x04\x00\x00\x00\x00\x00", nil},
		{"huge head", "HTTP/1.1 101 Switching Protocols\r\n" + strings.Repeat(filler, 100) + "\r\n", ErrHeadTooLarge},
		{"endless line", "HTTP/1.1 101 " + strings.Repeat("x", 100<<10), ErrHeadTooLarge},
		{"endless interim answers", strings.Repeat("HTTP/1.1 100 Continue\r\n\r\n", 100), nil},
		{"huge interim answers", strings.Repeat("HTTP/1.1 103 Early Hints\r\n"+strings.Repeat(filler, 30)+"\r\n", 4), ErrHeadTooLarge},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			addr := rawNode(t, "127.0.0.1:0", answering(c.answer))
			up, err := New(nil).Upgrade(t.Context(), handshakeTo(addr, testKey))
			if err == nil {
				t.Fatalf("got %+v", up)
			}
			if DialFailed(err) || c.want != nil && !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
}

// A node that answers too slowly, or not at all, is given up and its connection
// closed.
func TestUpgradeTimesOut(t *testing.T) {
	for _, begun := range []string{"", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: web"} {
		ended := make(chan struct{})
		addr := rawNode(t, "127.0.0.1:0", func(c net.Conn) {
			defer close(ended)
			http.ReadRequest(readerOf(c))
			io.WriteString(c, begun)
			io.Copy(io.Discard, c)
		})
		u := handshakeTo(addr, testKey)
		u.Answer = 20 * time.Millisecond
		if _, err := New(nil).Upgrade(t.Context(), u); !errors.Is(err, os.ErrDeadlineExceeded) || DialFailed(err) {
			t.Errorf("got %v", err)
		}
		<-ended
	}
}

// When the context ends, its cause is the error, whatever was going on.
func TestUpgradeIsCancelled(t *testing.T) {
	gone := errors.New("the client left")
	ctx, cancel := context.WithCancelCause(t.Context())
	ended := make(chan struct{})
	addr := rawNode(t, "127.0.0.1:0", func(c net.Conn) {
		defer close(ended)
		http.ReadRequest(readerOf(c))
		cancel(gone)
		io.Copy(io.Discard, c)
	})
	if _, err := New(nil).Upgrade(ctx, handshakeTo(addr, testKey)); err != gone {
		t.Errorf("while the node answers: %v", err)
	}
	<-ended
	ctx, cancel = context.WithCancelCause(t.Context())
	set := New(dialerFunc(func(ctx context.Context, _, _ string) (net.Conn, error) {
		cancel(gone)
		<-ctx.Done()
		return nil, ctx.Err()
	}))
	if _, err := set.Upgrade(ctx, handshakeTo("10.0.0.1:80", testKey)); err != gone {
		t.Errorf("while dialling: %v", err)
	}
}

// Whatever a node answers: no panic, no more read than allowed, and a 101 only
// when it is one.
func FuzzAnswer(f *testing.F) {
	for _, s := range []string{
		switchAnswer(testKey), switchAnswer(testKey) + "early", "HTTP/1.1 100 Continue\r\n\r\n" + switchAnswer(testKey),
		"HTTP/1.1 401 Unauthorized\r\nContent-Length: 3\r\n\r\nabc", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
		"HTTP/1.1 101\r\nUpgrade:\r\nConnection:\r\n\r\n", "HTTP/9.9 999 \r\n\r\n", "\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, answer []byte) {
		conn := &scripted{in: bytes.NewReader(answer)}
		up, err := new(Set).exchange(conn, handshakeTo("", testKey))
		if err != nil {
			return
		}
		if up.Conn == nil {
			if up.Answer.StatusCode == http.StatusSwitchingProtocols {
				t.Fatal("a 101 without its connection")
			}
			io.Copy(io.Discard, io.LimitReader(up.Answer.Body, 1<<20))
			up.Answer.Body.Close()
			return
		}
		if !bytes.Contains(answer, []byte(AcceptFor(testKey))) || !bytes.HasSuffix(answer[:len(answer)-conn.in.Len()], up.Early) {
			t.Fatalf("%q was taken for a 101 with %q behind it", answer, up.Early)
		}
	})
}

// scripted is a connection whose peer says one thing.
type scripted struct {
	net.Conn
	in *bytes.Reader
}

func (s *scripted) Read(p []byte) (int, error)    { return s.in.Read(p) }
func (s *scripted) Write(p []byte) (int, error)   { return len(p), nil }
func (s *scripted) SetDeadline(t time.Time) error { return nil }
func (s *scripted) Close() error                  { return nil }
