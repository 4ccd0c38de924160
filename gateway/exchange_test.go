package gateway

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The node works on the first bytes of an upload before the last ones are sent,
// and the gateway holds none of what has passed.
func TestUploadIsStreamed(t *testing.T) {
	const size, step = 64 << 20, 1 << 20
	bodies := map[string]struct {
		header string
		frame  func([]byte) string
		end    string
	}{
		"length":  {"Content-Length: " + strconv.Itoa(size), func(b []byte) string { return string(b) }, ""},
		"chunked": {"Transfer-Encoding: chunked", func(b []byte) string { return strconv.FormatInt(int64(len(b)), 16) + "\r\n" + string(b) + "\r\n" }, "0\r\n\r\n"},
	}
	for name, body := range bodies {
		t.Run(name, func(t *testing.T) {
			arrived := make(chan int)
			e := appRoute(t, httpNode(t, func(w http.ResponseWriter, r *http.Request) {
				buf := make([]byte, step)
				for total := 0; ; {
					n, err := io.ReadFull(r.Body, buf)
					if total += n; n > 0 {
						arrived <- total
					}
					if err != nil {
						io.WriteString(w, strconv.Itoa(total))
						return
					}
				}
			}))
			conn := e.dial()
			io.WriteString(conn, post(body.header, ""))
			piece := []byte(body.frame(make([]byte, step)))
			before := heap()
			for sent := step; sent <= size; sent += step {
				if _, err := conn.Write(piece); err != nil {
					t.Fatal(err)
				}
				if got := await(t, "bytes at the node", arrived); got != sent {
					t.Fatalf("%d bytes arrived of %d", got, sent)
				}
			}
			if grown := heap() - before; grown > size/4 {
				t.Errorf("%d bytes are held", grown)
			}
			io.WriteString(conn, body.end)
			if _, got := readAnswer(t, bufio.NewReader(conn)); got != strconv.Itoa(size) {
				t.Errorf("the node counted %s bytes", got)
			}
		})
	}
}

func heap() int {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}

// Bodies of many sizes, below and above what is read ahead, pass both ways as
// they are and leave the connection usable.
func TestBodiesPassUnchanged(t *testing.T) {
	e := appRoute(t, httpNode(t, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		if r.URL.RawQuery == "chunked" {
			w.(http.Flusher).Flush()
		}
		w.Write(body)
	}))
	random := rand.NewChaCha8([32]byte{})
	eachWire(t, func(t *testing.T, secure bool) {
		conn := e.dialAny(secure)
		br := bufio.NewReader(conn)
		for _, size := range []int{0, 1, 4095, 8191, 8192, 8193, 65536, 65537, 1 << 20} {
			for _, query := range []string{"", "?chunked"} {
				for _, chunked := range []bool{false, true} {
					body := make([]byte, size)
					random.Read(body)
					req, _ := http.NewRequest("POST", "http://h/app/a"+query, bytes.NewReader(body))
					if chunked {
						req.ContentLength, req.TransferEncoding = -1, []string{"chunked"}
					}
					written := make(chan error, 1)
					go func() { written <- req.Write(conn) }()
					_, got := readAnswer(t, br)
					if err := await(t, "the request is written", written); err != nil {
						t.Fatal(err)
					}
					if got != string(body) {
						t.Fatalf("%d bytes, chunked %v, answer %q: got %d bytes", size, chunked, query, len(got))
					}
				}
			}
		}
	})
}

// A client that goes away in the middle of its body: the node must not take
// what came for the whole.
func TestTruncatedUploadIsBrokenForTheNode(t *testing.T) {
	heads := map[string]string{
		"length":        post("Content-Length: 100000", strings.Repeat("x", 50000)),
		"chunk border":  post("Transfer-Encoding: chunked", "5\r\nhello\r\n"),
		"within chunk":  post("Transfer-Encoding: chunked", "a\r\nhello"),
		"within a size": post("Transfer-Encoding: chunked", "5\r\nhello\r\n5"),
		"last chunk":    post("Transfer-Encoding: chunked", "5\r\nhello\r\n0\r\n"),
	}
	endings := map[string]func(net.Conn){
		"closed":      func(c net.Conn) { c.Close() },
		"half closed": func(c net.Conn) { c.(interface{ CloseWrite() error }).CloseWrite() },
		"lost": func(c net.Conn) {
			if t, ok := c.(*tls.Conn); ok {
				c = t.NetConn() // no goodbye
			}
			c.Close()
		},
		"reset": func(c net.Conn) {
			if t, ok := c.(*tls.Conn); ok {
				c = t.NetConn()
			}
			c.(*net.TCPConn).SetLinger(0)
			c.Close()
		},
	}
	first, ended := make(chan struct{}, 1), make(chan error, 1)
	e := appRoute(t, httpNode(t, func(w http.ResponseWriter, r *http.Request) {
		io.ReadFull(r.Body, make([]byte, 5))
		first <- struct{}{}
		_, err := io.Copy(io.Discard, r.Body)
		ended <- err
	}))
	eachWire(t, func(t *testing.T, secure bool) {
		for headName, head := range heads {
			for endName, end := range endings {
				if endName == "half closed" && secure {
					continue // a goodbye alone is no end of the TCP connection; "closed" has one too
				}
				conn := e.dialAny(secure)
				io.WriteString(conn, head)
				await(t, "the first bytes at the node", first)
				end(conn)
				if err := await(t, "the end of the body", ended); err == nil {
					t.Errorf("%s, %s: the node got a whole body", headName, endName)
				}
			}
		}
	})
}

// A goodbye of TLS in the middle of a body ends it, though the TCP connection
// lives on.
func TestGoodbyeWithinUpload(t *testing.T) {
	first, ended := make(chan struct{}, 1), make(chan error, 1)
	e := appRoute(t, httpNode(t, func(w http.ResponseWriter, r *http.Request) {
		io.ReadFull(r.Body, make([]byte, 5))
		first <- struct{}{}
		_, err := io.Copy(io.Discard, r.Body)
		ended <- err
	}))
	conn := e.dialTLS()
	io.WriteString(conn, post("Transfer-Encoding: chunked", "5\r\nhello\r\n"))
	await(t, "the first bytes at the node", first)
	closeWrite(t, conn)
	if await(t, "the end of the body", ended) == nil {
		t.Error("the node got a whole body")
	}
}

// A small body is read before the node is chosen: nothing of a broken one
// reaches a node.
func TestTruncatedSmallUploadReachesNobody(t *testing.T) {
	e, node := appEdge(t)
	eachWire(t, func(t *testing.T, secure bool) {
		conn := e.dialAny(secure)
		io.WriteString(conn, post("Content-Length: 10", "hello"))
		closeWrite(t, conn)
		expectOneAnswer(t, conn, 400, "bad_request")
	})
	if seen, _ := node.all(); seen != "" {
		t.Errorf("the node got %q", seen)
	}
}

// A node that breaks off: the client must not take what came for the whole.
func TestTruncatedAnswerIsBrokenForTheClient(t *testing.T) {
	long := strings.Repeat("x", 100<<10)
	answers := map[string]string{
		"length":       "Content-Length: 10\r\n\r\nhello",
		"long":         "Content-Length: 1000000\r\n\r\n" + long,
		"no byte":      "Content-Length: 10\r\n\r\n",
		"chunk border": "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
		"within chunk": "Transfer-Encoding: chunked\r\n\r\na\r\nhello",
		"no chunk":     "Transfer-Encoding: chunked\r\n\r\n",
		"bad chunk":    "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n",
	}
	services := map[string]map[string]string{"app": {}}
	for name, answer := range answers {
		services["app"][name] = rawNode(t, func(c net.Conn) {
			readHead(bufio.NewReader(c))
			io.WriteString(c, "HTTP/1.1 200 OK\r\n"+answer)
		})
	}
	e := startEdge(t, []Route{{Paths: []string{"/{node}"}, Service: "app"}}, services)
	for name := range answers {
		t.Run(name, func(t *testing.T) {
			for _, version := range []string{"1.0", "1.1"} {
				eachWire(t, func(t *testing.T, secure bool) {
					conn := e.dialAny(secure)
					io.WriteString(conn, "GET /"+url.PathEscape(name)+" HTTP/"+version+"\r\nHost: h\r\n\r\n")
					expectBroken(t, conn)
				})
			}
			e.logs.wait(t, `"cause"`, `"status":200`, `"node":"`+name+`"`)
		})
	}
}

// expectBroken reads an answer that must end with an error other than a timeout.
// A head without any of its body may be missing altogether.
func expectBroken(t *testing.T, conn net.Conn) {
	t.Helper()
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err == nil {
		var body []byte
		if body, err = io.ReadAll(resp.Body); err == nil {
			t.Errorf("the client got %q as a whole", body)
		}
	}
	if !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the answer ended with: %v", err)
	}
}

// What a node sends reaches the client before the node goes on.
func TestAnswersAreStreamed(t *testing.T) {
	const first, second = "data: one\n\n", "data: two\n\n"
	heads := map[string]string{"chunked": "", "length": strconv.Itoa(len(first + second))}
	for name, length := range heads {
		t.Run(name, func(t *testing.T) {
			proceed := make(chan struct{})
			e := appRoute(t, httpNode(t, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "text/event-stream")
				if length != "" {
					w.Header().Set("Content-Length", length)
				}
				io.WriteString(w, first)
				w.(http.Flusher).Flush()
				<-proceed
				io.WriteString(w, second)
			}))
			for _, version := range []string{"1.1", "1.0"} {
				eachWire(t, func(t *testing.T, secure bool) {
					conn := e.dialAny(secure)
					io.WriteString(conn, "GET /app/a HTTP/"+version+"\r\nHost: h\r\n\r\n")
					resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
					if err != nil {
						t.Fatal(err)
					}
					buf := make([]byte, len(first))
					if _, err := io.ReadFull(resp.Body, buf); err != nil || string(buf) != first {
						t.Fatalf("got %q, %v", buf, err)
					}
					proceed <- struct{}{}
					if rest, err := io.ReadAll(resp.Body); err != nil || string(rest) != second {
						t.Fatalf("then %q, %v", rest, err)
					}
				})
			}
		})
	}
}

// A head whose body is long in coming is not held back either.
func TestHeadOfChunkedAnswerIsSentAtOnce(t *testing.T) {
	proceed := make(chan struct{})
	e := appRoute(t, httpNode(t, func(w http.ResponseWriter, r *http.Request) {
		w.(http.Flusher).Flush()
		<-proceed
	}))
	conn := e.dial()
	io.WriteString(conn, get("Host: h"))
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	close(proceed)
	if err != nil || resp.StatusCode != 200 {
		t.Fatalf("got %v, %v", resp, err)
	}
	if _, err := io.ReadAll(resp.Body); err != nil {
		t.Error(err)
	}
}

// A client that leaves ends the node's work, wherever the exchange is.
func TestClientThatLeavesCancels(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only on Linux is a client watched while it waits")
	}
	began, ended := make(chan struct{}, 1), make(chan struct{}, 1)
	e := appRoute(t, httpNode(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.RawQuery {
		case "download":
			w.(http.Flusher).Flush()
		case "upload":
			io.ReadFull(r.Body, make([]byte, 1))
		default:
			io.Copy(io.Discard, r.Body)
		}
		began <- struct{}{}
		if r.URL.RawQuery == "upload" {
			io.Copy(io.Discard, r.Body)
		} else {
			<-r.Context().Done()
		}
		ended <- struct{}{}
	}))
	requests := map[string]string{
		"waiting":                get("Host: h"),
		"waiting behind a body":  post("Content-Length: 3", "abc"),
		"waiting behind a large": post("Content-Length: 100000", strings.Repeat("x", 100000)),
		"waiting behind chunks":  post("Transfer-Encoding: chunked", "3\r\nabc\r\n0\r\n\r\n"),
		"download":               "GET /app/a?download HTTP/1.1\r\nHost: h\r\n\r\n",
		"upload":                 "POST /app/a?upload HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\n" + strings.Repeat("x", 50000),
	}
	eachWire(t, func(t *testing.T, secure bool) {
		for name, request := range requests {
			conn := e.dialAny(secure)
			io.WriteString(conn, request)
			await(t, name+": the node begins", began)
			conn.Close()
			await(t, name+": the node is told", ended)
		}
	})
	e.logs.wait(t, errClientLeft.Error())
}

// A download that nobody takes ends when the client is gone.
func TestClientThatLeavesFullDownload(t *testing.T) {
	ended := make(chan error)
	e := appRoute(t, httpNode(t, func(w http.ResponseWriter, r *http.Request) {
		piece := make([]byte, 64<<10)
		for {
			if _, err := w.Write(piece); err != nil {
				ended <- err
				return
			}
		}
	}))
	eachWire(t, func(t *testing.T, secure bool) {
		conn := e.dialAny(secure)
		io.WriteString(conn, get("Host: h"))
		io.ReadFull(conn, make([]byte, 1<<20))
		conn.Close()
		await(t, "the node cannot write any more", ended)
	})
}

// Waits have an end: before the head of an answer that is 504, after it the
// answer breaks off.
func TestTimeouts(t *testing.T) {
	silent := rawNode(t, func(c net.Conn) { io.Copy(io.Discard, c) })
	halfway := rawNode(t, func(c net.Conn) {
		readHead(bufio.NewReader(c))
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
		io.Copy(io.Discard, c)
	})
	short := 20 * time.Millisecond
	cases := []struct {
		name string
		tune func(*Timeouts)
		log  string
	}{
		{"read", func(t *Timeouts) { t.Read = short }, errNodeSilent.Error()},
		{"total", func(t *Timeouts) { t.Total = short }, errTotalTimeout.Error()},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			e := appRoute(t, silent, c.tune)
			for _, request := range []string{get("Host: h"), post("Content-Length: 3", "abc")} {
				resp, body := e.answerTo(request)
				if resp.StatusCode != 504 || problemCode(body) != "upstream_timeout" {
					t.Errorf("got %d %s", resp.StatusCode, body)
				}
			}
			e.logs.wait(t, `"status":504`, c.log)
			e = appRoute(t, halfway, c.tune)
			conn := e.dial()
			io.WriteString(conn, get("Host: h"))
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatal(err)
			}
			if body, err := io.ReadAll(resp.Body); err == nil || string(body) != "hello" {
				t.Errorf("got %q, %v", body, err)
			}
			e.logs.wait(t, `"status":200`, c.log)
		})
	}
}

// The time that a client takes for its body is not the node's silence.
func TestSlowUploadIsNotTheNodesSilence(t *testing.T) {
	first := make(chan struct{})
	e := appRoute(t, httpNode(t, func(w http.ResponseWriter, r *http.Request) {
		io.ReadFull(r.Body, make([]byte, 3))
		close(first)
		io.Copy(io.Discard, r.Body)
	}), func(t *Timeouts) { t.Read = 30 * time.Millisecond })
	conn := e.dial()
	io.WriteString(conn, post("Transfer-Encoding: chunked", "3\r\nabc\r\n"))
	await(t, "the first bytes", first)
	<-time.After(100 * time.Millisecond) // the case itself: a pause longer than Read
	io.WriteString(conn, "0\r\n\r\n")
	if resp, body := readAnswer(t, bufio.NewReader(conn)); resp.StatusCode != 200 {
		t.Errorf("got %d %s", resp.StatusCode, body)
	}
}

// A client that stops sending its body is given up.
func TestStalledUpload(t *testing.T) {
	ended := make(chan error, 1)
	e := appRoute(t, httpNode(t, func(w http.ResponseWriter, r *http.Request) {
		_, err := io.Copy(io.Discard, r.Body)
		ended <- err
	}), func(t *Timeouts) { t.Stall = 20 * time.Millisecond })
	conn := e.dial()
	io.WriteString(conn, post("Content-Length: 100000", strings.Repeat("x", 10000)))
	expectOneAnswer(t, conn, 400, "bad_request")
	if await(t, "the node is told", ended) == nil {
		t.Error("the node got a whole body")
	}
}

// A client that takes nothing of its answer is given up.
func TestStalledDownload(t *testing.T) {
	ended := make(chan struct{})
	e := appRoute(t, httpNode(t, func(w http.ResponseWriter, r *http.Request) {
		defer close(ended)
		piece := make([]byte, 64<<10)
		for {
			if _, err := w.Write(piece); err != nil {
				return
			}
		}
	}), func(t *Timeouts) { t.Stall = 20 * time.Millisecond })
	conn := e.dial()
	io.WriteString(conn, get("Host: h"))
	await(t, "the node is told", ended)
}

// An HTTP/1.0 client knows no chunks: the end of the connection is the end.
func TestHTTP10(t *testing.T) {
	e := appRoute(t, httpNode(t, func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		if r.URL.RawQuery == "unknown" {
			w.(http.Flusher).Flush()
		}
		io.WriteString(w, "hello")
	}))
	unknown := e.raw("GET /app/a?unknown HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
	head, body, _ := strings.Cut(unknown, "\r\n\r\n")
	if body != "hello" || strings.Contains(head, "chunked") || !strings.Contains(head, "\r\nConnection: close") {
		t.Errorf("unknown length: got %q", unknown)
	}
	unknown = e.raw("POST /app/a?unknown HTTP/1.0\r\nContent-Length: 3\r\n\r\nabc")
	if _, body, _ := strings.Cut(unknown, "\r\n\r\n"); body != "hello" {
		t.Errorf("unknown length after a body: got %q", unknown)
	}
	if plain := e.raw("GET /app/a HTTP/1.0\r\n\r\n"); !strings.HasSuffix(plain, "\r\n\r\nhello") {
		t.Errorf("without keep-alive: got %q", plain)
	}
	conn := e.dial()
	br := bufio.NewReader(conn)
	for range 2 {
		io.WriteString(conn, "GET /app/a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
		resp, body := readAnswer(t, br)
		if body != "hello" || resp.Header.Get("Connection") != "keep-alive" {
			t.Errorf("keep-alive: got %v %q", resp.Header, body)
		}
	}
}
