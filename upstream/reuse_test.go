package upstream

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"singlegate/discovery"
)

const (
	okAnswer  = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
	badAnswer = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
)

// ask sends one request and gives the answer's body.
func ask(t *testing.T, s *Set, method, addr, body string) (string, error) {
	req, err := http.NewRequestWithContext(t.Context(), method, "http://"+addr+"/", nil)
	if err != nil {
		return "", err
	}
	if body != "" {
		req.ContentLength = int64(len(body))
		b := &onceBody{Reader: strings.NewReader(body)}
		req.Body, req.GetBody = b, b.again
	}
	answer, err := s.RoundTrip(req)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	got, err := io.ReadAll(answer.Body)
	return string(got), err
}

// A onceBody can be sent again as long as nothing was read of it, as the body of
// a client.
type onceBody struct {
	io.Reader
	touched bool
}

func (b *onceBody) Read(p []byte) (int, error) {
	b.touched = true
	return b.Reader.Read(p)
}

func (b *onceBody) Close() error { return nil }

func (b *onceBody) again() (io.ReadCloser, error) {
	if b.touched {
		return nil, errors.New("touched")
	}
	return b, nil
}

// A countingNode answers requests with f, which gets the number of the
// connection and of the request on it and tells whether the connection goes on;
// closed gets a word for each connection that the node has ended.
type countingNode struct {
	addr        string
	conns, asks atomic.Int64
	closed      chan struct{}
}

func startCounting(t *testing.T, f func(c net.Conn, conn, n int) bool) *countingNode {
	node := &countingNode{closed: make(chan struct{}, 1000)}
	node.addr = rawNode(t, "127.0.0.1:0", func(c net.Conn) {
		conn := int(node.conns.Add(1))
		br := bufio.NewReader(c)
		for n := 1; ; n++ {
			req, err := http.ReadRequest(br)
			if err != nil {
				return
			}
			io.Copy(io.Discard, req.Body)
			node.asks.Add(1)
			if !f(c, conn, n) {
				c.Close()
				node.closed <- struct{}{}
				return
			}
		}
	})
	return node
}

// What a node sends unasked is never an answer to the next request.
func TestUnaskedBytesAreNoAnswer(t *testing.T) {
	node := startCounting(t, func(c net.Conn, conn, n int) bool {
		_, err := io.WriteString(c, okAnswer+badAnswer)
		return err == nil
	})
	s := New(nil)
	defer s.Close()
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for range 200 {
				if got, err := ask(t, s, "GET", node.addr, ""); got != "ok" || err != nil {
					t.Errorf("got %q, %v", got, err)
					return
				}
			}
		})
	}
	group.Wait()
}

// A connection of which the system knows that it has ended is not written into,
// whatever the request.
func TestEndedConnectionsAreNotUsed(t *testing.T) {
	for name, end := range map[string]func(net.Conn){
		"closed": func(net.Conn) {},
		"reset":  func(c net.Conn) { c.(*net.TCPConn).SetLinger(0) },
		"408":    func(c net.Conn) { io.WriteString(c, "HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n") },
	} {
		t.Run(name, func(t *testing.T) {
			node := startCounting(t, func(c net.Conn, conn, n int) bool {
				io.WriteString(c, okAnswer)
				end(c)
				return false
			})
			s := New(nil)
			defer s.Close()
			const requests = 100
			for range requests {
				if got, err := ask(t, s, "POST", node.addr, "hello"); got != "ok" || err != nil {
					t.Fatalf("got %q, %v", got, err)
				}
				<-node.closed
			}
			if n := node.asks.Load(); n != requests {
				t.Errorf("the node was asked %d times", n)
			}
		})
	}
}

// A node that ends a pooled connection while a request is on its way: what can
// be sent twice is, what cannot is not.
func TestConnectionsThatEndUnderARequest(t *testing.T) {
	for _, tt := range []struct {
		method, body string
		arrivals     int64
		fails        bool
	}{
		{"GET", "", 2, false}, {"HEAD", "", 2, false}, {"OPTIONS", "", 2, false}, {"PUT", "", 2, false}, {"DELETE", "", 2, false},
		{"POST", "", 1, true}, {"PATCH", "", 1, true}, {"POST", "hello", 1, true}, {"PUT", "hello", 1, true}, {"GET", "hello", 1, true},
	} {
		for _, reset := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s%s reset %v", tt.method, tt.body, reset), func(t *testing.T) {
				node := startCounting(t, func(c net.Conn, conn, n int) bool {
					if conn == 1 && n == 2 {
						if reset {
							c.(*net.TCPConn).SetLinger(0)
						}
						return false
					}
					answer := okAnswer
					if tt.method == "HEAD" && conn == 2 {
						answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"
					}
					io.WriteString(c, answer)
					return true
				})
				s := New(nil)
				defer s.Close()
				if _, err := ask(t, s, "GET", node.addr, ""); err != nil {
					t.Fatal(err)
				}
				if _, err := ask(t, s, tt.method, node.addr, tt.body); (err != nil) != tt.fails {
					t.Errorf("got %v", err)
				}
				if n := node.asks.Load() - 1; n != tt.arrivals {
					t.Errorf("it arrived %d times", n)
				}
			})
		}
	}
}

// A node that says for how long it keeps idle connections is taken at its word.
func TestKeepAliveOfNodes(t *testing.T) {
	for value, conns := range map[string]int64{"timeout=0": 2, "max=100, Timeout=\"0\"": 2, "timeout=60": 1, "timeout=x": 1, "max=0": 1, "": 1} {
		node := startCounting(t, func(c net.Conn, conn, n int) bool {
			io.WriteString(c, strings.Replace(okAnswer, "\r\n\r\n", "\r\nKeep-Alive: "+value+"\r\n\r\n", 1))
			return true
		})
		s := New(nil)
		for range 2 {
			if _, err := ask(t, s, "POST", node.addr, "hello"); err != nil {
				t.Fatal(err)
			}
		}
		if n := node.conns.Load(); n != conns {
			t.Errorf("%s: %d connections, want %d", value, n, conns)
		}
		s.Close()
	}
}

func TestOverdueConnections(t *testing.T) {
	for _, tt := range []struct {
		keep, idle time.Duration
		overdue    bool
	}{
		{-1, time.Hour, false}, {5 * time.Second, 3900 * time.Millisecond, false}, {5 * time.Second, 4100 * time.Millisecond, true},
		{time.Second, 400 * time.Millisecond, false}, {time.Second, 600 * time.Millisecond, true}, {time.Hour, time.Minute, false},
	} {
		c := &pooledConn{keep: tt.keep, lastRead: time.Now().Add(-tt.idle)}
		if c.overdue() != tt.overdue {
			t.Errorf("kept for %v, idle for %v: overdue %v", tt.keep, tt.idle, !tt.overdue)
		}
	}
}

// How many connections requests take: one after the other one, at once as many
// as there are, and those are used again.
func TestConnectionsAreReused(t *testing.T) {
	const parallel = 200
	var gate sync.WaitGroup
	node := startCounting(t, func(c net.Conn, conn, n int) bool {
		gate.Done()
		gate.Wait() // until all are there
		io.WriteString(c, okAnswer)
		return true
	})
	s := New(nil)
	defer s.Close()
	for range 50 {
		gate.Add(1)
		if _, err := ask(t, s, "POST", node.addr, "hello"); err != nil {
			t.Fatal(err)
		}
	}
	if n := node.conns.Load(); n != 1 {
		t.Errorf("%d connections for requests in turn", n)
	}
	for range 3 {
		gate.Add(parallel)
		var group sync.WaitGroup
		for range parallel {
			group.Go(func() {
				if _, err := ask(t, s, "POST", node.addr, "hello"); err != nil {
					t.Error(err)
				}
			})
		}
		group.Wait()
	}
	if n := node.conns.Load(); n != parallel {
		t.Errorf("%d connections for %d requests at once, three times over", n, parallel)
	}
}

// A connection that was opened to a node is not used for another that has come
// to its address.
func TestConnectionsAreANodes(t *testing.T) {
	served := startCounting(t, func(c net.Conn, conn, n int) bool {
		io.WriteString(c, okAnswer)
		return true
	})
	s := New(nil)
	defer s.Close()
	askAs := func(service, id string) {
		t.Helper()
		view, _ := s.Apply(discovery.Snapshot{Services: map[string]discovery.Service{service: {Nodes: []discovery.Node{node(id, 1)}}}})
		ctx := ToNode(t.Context(), view.Services[service].Node(id))
		req, _ := http.NewRequestWithContext(ctx, "GET", "http://"+served.addr+"/", nil)
		answer, err := s.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, answer.Body)
		answer.Body.Close()
	}
	for i, who := range [][2]string{{"im", "node1"}, {"im", "node1"}, {"im", "node2"}, {"app", "node2"}, {"im", "node1"}} {
		askAs(who[0], who[1])
		if want := []int64{1, 1, 2, 3, 3}[i]; served.conns.Load() != want {
			t.Errorf("%v: %d connections, want %d", who, served.conns.Load(), want)
		}
	}
}

// The Host of a request without one is the node's address.
func TestHostOfRequests(t *testing.T) {
	var seen bytes.Buffer
	addr := rawNode(t, "127.0.0.1:0", func(c net.Conn) {
		req, err := http.ReadRequest(bufio.NewReader(c))
		if err == nil {
			seen.WriteString(req.Host)
			io.WriteString(c, okAnswer)
		}
	})
	s := New(nil)
	defer s.Close()
	if _, err := ask(t, s, "GET", addr, ""); err != nil || seen.String() != addr {
		t.Errorf("the node got the host %q, %v", seen.String(), err)
	}
}

// Connections over TLS are used again as well.
func TestSecureConnectionsAreReused(t *testing.T) {
	var conns atomic.Int64
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) }))
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			conns.Add(1)
		}
	}
	server.StartTLS()
	defer server.Close()
	s := New(nil)
	defer s.Close()
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	s.SetTLS(map[string]TLS{"s": {Config: &tls.Config{RootCAs: roots, ServerName: "example.com"}}})
	view, _ := s.Apply(snapshot("s", node("a", 1)))
	for range 50 {
		req, _ := http.NewRequestWithContext(ToNode(t.Context(), view.Services["s"].Node("a")), "POST", "http://"+server.Listener.Addr().String()+"/", strings.NewReader("hello"))
		answer, err := s.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(answer.Body); string(got) != "hello" || err != nil {
			t.Fatalf("got %q, %v", got, err)
		}
		answer.Body.Close()
	}
	if n := conns.Load(); n != 1 {
		t.Errorf("%d connections", n)
	}
}

func FuzzKeepAlive(f *testing.F) {
	for _, seed := range []string{"timeout=5, max=100", "timeout=-1", "timeout=99999999999", `Timeout="5"`, "timeout", ",,=,"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, value string) {
		if keep := keepAliveOf(value); keep < -1 || keep > 1e6*time.Second {
			t.Errorf("%q is %v", value, keep)
		}
	})
}

// A body that could be read again, and even a word that the request may come
// twice, do not make it come twice once a part of it was sent.
func TestBodiesAreNotSentTwice(t *testing.T) {
	node := startCounting(t, func(c net.Conn, conn, n int) bool {
		if conn == 1 && n == 2 {
			return false
		}
		_, err := io.WriteString(c, okAnswer)
		return err == nil
	})
	s := New(nil)
	defer s.Close()
	for i := range 2 {
		req, err := http.NewRequestWithContext(t.Context(), "POST", "http://"+node.addr+"/", strings.NewReader("hello"))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Idempotency-Key", "x")
		answer, err := s.RoundTrip(req)
		if (err != nil) != (i == 1) {
			t.Errorf("request %d: %v", i, err)
		}
		if err == nil {
			io.Copy(io.Discard, answer.Body)
			answer.Body.Close()
		}
	}
	if n := node.asks.Load(); n != 2 {
		t.Errorf("%d requests arrived", n)
	}
}
