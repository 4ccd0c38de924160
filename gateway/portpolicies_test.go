package gateway

import (
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
)

// The ports of nodes keep to the same policies; on those for TCP an address that
// may not use them is closed, and the node hears nothing of it.
func TestPortsKeepPolicies(t *testing.T) {
	t.Parallel()
	asked := make(chan string, 10)
	tcp := rawNode(t, func(c net.Conn) {
		asked <- "tcp"
		io.WriteString(c, "hello")
	})
	app := httpNode(t, func(w http.ResponseWriter, r *http.Request) {
		asked <- r.Header.Get("X-Key")
		w.Header().Set("Server", "secret")
	})
	here, elsewhere := prefixes("127.0.0.0/8"), prefixes("10.0.0.0/8")
	base := freePorts(t, 5)
	startEdge(t, nil, map[string]map[string]string{"im": {"n0": tcp}, "app": {"n0": app}}, func(c *Config) {
		port := func(service, kind string, i int, p Policies) {
			c.NodePorts = append(c.NodePorts, NodePort{Service: service, Kind: kind, Listen: PortRule{Base: base + i}, Timeouts: DefaultTimeouts(), Policies: p})
		}
		c.NodePorts = nil
		port("im", "tcp", 0, Policies{Allow: here})
		port("im", "tcp", 1, Policies{Allow: elsewhere})
		port("im", "tcp", 2, Policies{Deny: here})
		port("app", "http", 3, Policies{Deny: here})
		port("app", "http", 4, Policies{
			MaxBody: 3, CORS: &CORS{Origins: []string{webPage}},
			RequestHeaders:  HeaderEdits{Set: []Header{{"X-Key", "key"}}},
			ResponseHeaders: HeaderEdits{Remove: []string{"Server"}},
		})
	})
	for i, want := range []string{"hello", "", ""} {
		c, err := net.Dial("tcp", loopback(base+i))
		if err != nil {
			t.Fatal(err)
		}
		if got, _ := io.ReadAll(guarded(t, c)); string(got) != want {
			t.Errorf("port %d: %q, want %q", i, got, want)
		}
	}
	for _, c := range []struct {
		port   int
		head   string
		status int
	}{
		{3, "GET / HTTP/1.1\r\n\r\n", 403},
		{4, "GET / HTTP/1.1\r\n\r\n", 200},
		{4, "POST / HTTP/1.1\r\nContent-Length: 4\r\n\r\n1234", 413},
		{4, "OPTIONS / HTTP/1.1\r\nAccess-Control-Request-Method: GET\r\n\r\n", 204},
	} {
		conn, err := net.Dial("tcp", loopback(base+c.port))
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(guarded(t, conn), strings.Replace(c.head, "HTTP/1.1\r\n", "HTTP/1.1\r\nHost: h\r\nConnection: close\r\nOrigin: "+webPage+"\r\n", 1))
		answers, _, err := answersOn(conn, 1)
		if err != nil || len(answers) != 1 || answers[0].StatusCode != c.status {
			t.Fatalf("%q: %v, %v", c.head, answers, err)
		}
		if h := answers[0].Header; c.port == 4 && (h.Get("Access-Control-Allow-Origin") != webPage || h.Get("Server") != "") {
			t.Errorf("%q: %v", c.head, h)
		}
	}
	close(asked)
	var all []string
	for a := range asked {
		all = append(all, a)
	}
	if got := strings.Join(all, " "); got != "tcp key" {
		t.Errorf("the nodes were asked: %q", got)
	}
}
