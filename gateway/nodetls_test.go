package gateway

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"testing"

	"github.com/gobwas/ws"

	"singlegate/upstream"
)

// secureNode is rawNode with TLS.
func secureNode(t *testing.T, cfg *tls.Config, f func(net.Conn)) string {
	return rawNode(t, func(c net.Conn) {
		over := tls.Server(c, cfg)
		if over.Handshake() == nil {
			f(over)
			over.Close()
		}
	})
}

// speaking sets how the service is spoken to.
func speaking(service string, t upstream.TLS) func(*Config) {
	return func(c *Config) {
		for i := range c.Services {
			if c.Services[i].Name == service {
				c.Services[i].TLS = &t
			}
		}
	}
}

// Nodes that speak TLS are reached over HTTP, WebSocket and TCP alike, and a
// tunnel to one costs no goroutine where those to others cost none.
func TestNodesWithTLS(t *testing.T) {
	cert, roots := testCertificate(t)
	cfg := &tls.Config{Certificates: []tls.Certificate{cert}}
	web := secureNode(t, cfg, func(c net.Conn) {
		readHead(bufio.NewReader(c))
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello")
	})
	sock := secureNode(t, cfg, func(c net.Conn) {
		br := bufio.NewReader(c)
		io.WriteString(c, switching(readHead(br)))
		echo(c, br)
	})
	e := startEdge(t, []Route{{Paths: []string{"/app"}, Service: "app"}, {Paths: []string{"/ws"}, Service: "im"}},
		map[string]map[string]string{"app": {"a": web}, "im": {"node1": sock}},
		speaking("app", upstream.TLS{Config: &tls.Config{RootCAs: roots}}),
		speaking("im", upstream.TLS{Config: &tls.Config{RootCAs: roots, ServerName: "im.example.gov"}}))
	for range 2 {
		if resp, body := e.answerTo("GET /app HTTP/1.1\r\nHost: h\r\n\r\n"); resp.StatusCode != 200 || body != "hello" {
			t.Errorf("got %s %q", resp.Status, body)
		}
	}
	bothWays(t, e, func(t *testing.T, conn net.Conn) {
		c, _ := open(t, conn, handshake("/ws"))
		for _, n := range []int{5, 70_000} {
			c.send(ws.OpBinary, strings.Repeat("x", n))
			c.expect(ws.OpBinary, strings.Repeat("x", n))
		}
		if runtime.GOOS == "linux" {
			stacks := make([]byte, 1<<20)
			stacks = stacks[:runtime.Stack(stacks, true)]
			if strings.Contains(string(stacks), "relay.(*direction)") {
				t.Errorf("the tunnel runs on goroutines of its own:\n%s", stacks)
			}
		}
		c.send(ws.OpClose, string(ws.NewCloseFrameBody(4321, "bye")))
		c.expectClose(4321, "bye")
		c.expectEnd()
	})
}

// Whose certificate is not as the config says, and who does not know ours, is
// not spoken to.
func TestNodesWithWrongTLS(t *testing.T) {
	cert, roots := testCertificate(t)
	own, ownRoots := testCertificate(t)
	plain := &tls.Config{Certificates: []tls.Certificate{cert}}
	asking := &tls.Config{Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: ownRoots}
	for _, c := range []struct {
		name   string
		node   *tls.Config
		client *tls.Config
		status int
		says   string
	}{
		{"trusted", plain, &tls.Config{RootCAs: roots}, 200, ""},
		{"unverified", plain, &tls.Config{InsecureSkipVerify: true}, 200, ""},
		{"another authority", plain, &tls.Config{RootCAs: ownRoots}, 502, "certificate"},
		{"no authority", plain, &tls.Config{RootCAs: x509.NewCertPool()}, 502, "certificate"},
		{"another name", plain, &tls.Config{RootCAs: roots, ServerName: "other.example.gov"}, 502, "other.example.gov"},
		{"with a certificate of ours", asking, &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{own}}, 200, ""},
		{"without", asking, &tls.Config{RootCAs: roots}, 502, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			web := secureNode(t, c.node, func(c net.Conn) {
				readHead(bufio.NewReader(c))
				io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello")
			})
			e := startEdge(t, []Route{{Paths: []string{"/app"}, Service: "app"}}, map[string]map[string]string{"app": {"a": web}},
				speaking("app", upstream.TLS{Config: c.client}))
			resp, body := e.answerTo("GET /app HTTP/1.1\r\nHost: h\r\n\r\n")
			if resp.StatusCode != c.status || strings.Contains(body, "certificate") {
				t.Errorf("got %s %s", resp.Status, body)
			}
			if c.status != http.StatusOK {
				e.logs.wait(t, `"status":502`, c.says)
			}
		})
	}
}

// Only the ports that are named speak TLS, and a reload may change that.
func TestNodePortsWithTLS(t *testing.T) {
	cert, roots := testCertificate(t)
	node := secureNode(t, &tls.Config{Certificates: []tls.Certificate{cert}}, func(c net.Conn) {
		readHead(bufio.NewReader(c))
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
		io.Copy(io.Discard, c)
	})
	e := startEdge(t, []Route{{Paths: []string{"/app"}, Service: "app"}}, map[string]map[string]string{"app": {"a": node}},
		speaking("app", upstream.TLS{Config: &tls.Config{RootCAs: roots}, Ports: []string{"other"}}))
	if resp, _ := e.answerTo("GET /app HTTP/1.1\r\nHost: h\r\n\r\n"); resp.StatusCode != 502 {
		t.Errorf("without TLS: %s", resp.Status)
	}
	cfg := e.cfg
	cfg.Services = append([]ServiceRef(nil), cfg.Services...)
	cfg.Services[0].TLS = &upstream.TLS{Config: &tls.Config{RootCAs: roots}}
	if err := e.Apply(cfg, nil); err != nil {
		t.Fatal(err)
	}
	if resp, _ := e.answerTo("GET /app HTTP/1.1\r\nHost: h\r\n\r\n"); resp.StatusCode != 200 {
		t.Errorf("with TLS: %s", resp.Status)
	}
}
