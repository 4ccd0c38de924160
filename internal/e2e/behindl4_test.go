package e2e

import (
	"crypto/tls"
	"io"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"singlegate/internal/standin"
)

// HAProxy passes TCP on with PROXY headers; the gateway behind it knows the
// clients all the same, and lets in nobody who comes past HAProxy.
func testBehindL4(t *testing.T, e *example) {
	haproxy := program(t, "haproxy")
	for id, address := range map[string]string{"node1": "127.0.0.1:18601", "node2": "127.0.0.1:18602"} {
		startNode(t, standin.Options{ID: id, Address: address})
	}
	e.start(t)
	cmd := exec.Command(haproxy, "-db", "-f", "haproxy.cfg")
	cmd.Dir = e.dir
	startProcess(t, cmd)
	balancer := door{address: "127.0.0.1:18443", host: "localhost:18443", roots: rootsOf(t, e.ca)}
	eventuallyServes(t, balancer)

	for _, node := range []string{"node1", "node2"} {
		s := balancer.open(t, "/ws/"+node)
		nodeSays(t, s.ask(t, ws.OpText, "hello"), node)
		if err := s.send(ws.OpClose, nil); err != nil {
			t.Fatal(err)
		}
		if _, _, err := s.end(); err != nil {
			t.Errorf("%s: the end: %v", node, err)
		}
	}
	if log := e.log.String(); strings.Contains(log, `"client":"127.0.0.5"`) {
		t.Fatalf("nobody has come from there yet:\n%s", log)
	}
	e.checkIt(t)
	e.awaitLog(3, `"client":"127.0.0.5"`) // a page and two tunnels
	for _, header := range []string{"", "PROXY TCP4 192.0.2.1 127.0.0.1 1 2\r\n"} {
		if got := pastBalancer(t, header); got != "" {
			t.Errorf("past the balancer, with %q: %q", header, got)
		}
	}
	e.awaitLog(1, "the peer is none of trusted_proxies")
	if log := e.log.String(); strings.Contains(log, "192.0.2.1") {
		t.Error("a stranger's header is believed")
	}
}

// eventuallyServes waits until the balancer has found its gateway.
func eventuallyServes(t *testing.T, d door) {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		answer, _, err := d.tryRequest("GET", "/", "")
		if err == nil && answer.StatusCode == 200 {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("HAProxy does not serve: %v", err)
		}
	}
}

// pastBalancer connects to the gateway from an address that is not the balancer's,
// and gives what comes back until the end.
func pastBalancer(t *testing.T, header string) string {
	t.Helper()
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 6)}, Timeout: patience}
	conn, err := dialer.Dial("tcp", "127.0.0.1:18444")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	io.WriteString(conn, header)
	secure := tls.Client(conn, &tls.Config{InsecureSkipVerify: true})
	io.WriteString(secure, "GET / HTTP/1.1\r\nHost: h\r\n\r\n")
	got, _ := io.ReadAll(secure)
	return string(got)
}
