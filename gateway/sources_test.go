package gateway

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/gobwas/ws"
)

// WebSockets, TCP connections and HTTP requests reach the node from the source
// addresses of its service, in turn; a reload changes them for new ones.
func TestSourceAddresses(t *testing.T) {
	sources := []netip.Addr{netip.MustParseAddr("127.0.0.2"), netip.MustParseAddr("127.0.0.3")}
	for _, a := range sources {
		if err := bindable(a); err != nil {
			t.Skip("there is one loopback address only: ", err)
		}
	}
	f := fleet{}
	f.add("node1", rawNode(t, func(c net.Conn) {
		host, _, _ := net.SplitHostPort(c.RemoteAddr().String())
		br := bufio.NewReader(c)
		head := readHead(br)
		switch {
		case headerIn(head, "Upgrade") != "":
			io.WriteString(c, switching(head)+string(serverFrame(ws.OpText, host)))
			echo(c, br)
		default:
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s", len(host), host)
		}
	}))
	base := freePorts(t, 1)
	with := func(list []netip.Addr) func(*Config) {
		return func(c *Config) {
			c.Services = []ServiceRef{{Name: "im", Ports: []string{""}, SourceAddresses: list}}
			c.NodePorts = []NodePort{{Service: "im", Kind: "tcp", Listen: PortRule{Base: base - 1}}}
		}
	}
	e := startFleet(t, f, with(sources))
	socket := func() string { return string(e.openWS("node1").next().Payload) }
	ways := map[string]func() string{
		"websocket": socket,
		"http": func() string {
			_, body := e.answerTo("GET /ws/node1 HTTP/1.1\r\nHost: h\r\n\r\n")
			return body
		},
		"tcp": func() string {
			c := e.dialTo(loopback(base), false)
			io.WriteString(c, get("Host: h"))
			_, body := readAnswer(t, bufio.NewReader(c))
			return body
		},
	}
	for name, from := range ways {
		if a, b, c := from(), from(), from(); a == b || a != c || !strings.HasPrefix(a, "127.0.0.") || a == "127.0.0.1" {
			t.Errorf("%s: from %s, %s, %s", name, a, b, c)
		}
	}
	old := e.openWS("node1")
	old.next()
	cfg := e.cfg
	with(nil)(&cfg)
	e.apply(cfg, f)
	if from := socket(); from != "127.0.0.1" {
		t.Errorf("without source addresses: from %s", from)
	}
	old.lives()
}

// An address of another machine is refused, with the place of the service and
// with the addresses that there are.
func TestForeignSourceAddresses(t *testing.T) {
	f := fleet{}
	f.add("node1", imNode(t, "node1"))
	e := startFleet(t, f, func(*Config) {})
	cfg := e.cfg
	cfg.Services = []ServiceRef{{At: "file:7:3", Name: "im", Ports: []string{""}, SourceAddresses: []netip.Addr{
		netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("192.0.2.77"), netip.MustParseAddr("2001:db8::77"),
	}}}
	checked, applied := Check(cfg), e.Apply(cfg, nil)
	if checked == nil || applied == nil || checked.Error() != applied.Error() {
		t.Fatalf("Check says %v, Apply %v", checked, applied)
	}
	lines := strings.Split(applied.Error(), "\n")
	if len(lines) != 2 {
		t.Fatalf("got %q", lines)
	}
	for i, a := range []string{"192.0.2.77", "2001:db8::77"} {
		if !strings.HasPrefix(lines[i], `file:7:3: service "im": source_addresses: `+a+" cannot be used (") || !strings.Contains(lines[i], "; this machine has ") {
			t.Errorf("got %q", lines[i])
		}
	}
	if _, own, _ := strings.Cut(lines[0], "this machine has "); net.ParseIP(strings.Split(own, ", ")[0]) == nil {
		t.Errorf("the addresses there are: %q", own)
	}
	e.openWS("node1").expect(ws.OpText, "node1") // the old config goes on
}
