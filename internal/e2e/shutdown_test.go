package e2e

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"singlegate/internal/standin"
)

// endingSite starts a gateway that ends in a certain way.
func endingSite(t *testing.T, shutdown string) (*site, door) {
	t.Helper()
	dir := t.TempDir()
	writeFile(t, dir, "gateway.yaml", fmt.Sprintf(`
listeners: [{name: plain, address: "127.0.0.1:0"}]
admin: {address: "127.0.0.1:0"}
services: {im: {nodes: {node1: %q}}}
routes: [{path: "/ws/{node}", service: im, rewrite: /}]
shutdown: %s
`, startNode(t, standin.Options{ID: "node1"}).Addr(), shutdown))
	s := startSite(t, dir)
	return s, door{address: s.listeners["plain"], host: "localhost"}
}

// SIGTERM: every tunnel is closed with 1001, once, and the process ends well
// within its deadline.
func TestSIGTERMClosesEveryTunnel(t *testing.T) {
	const deadline = 20 * time.Second
	s, d := endingSite(t, "{grace: 200ms, drain: 1s, deadline: 20s}")
	var sockets []*socket
	for range 50 {
		socket := d.open(t, "/ws/node1")
		nodeSays(t, socket.expect(t, ws.OpText), "node1")
		sockets = append(sockets, socket)
	}
	signalled := time.Now()
	s.signal(syscall.SIGTERM)
	var group sync.WaitGroup
	for _, socket := range sockets {
		group.Go(func() { goesAway(t, socket) })
	}
	if code := s.exit(); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
	if took := time.Since(signalled); took > deadline {
		t.Errorf("the end took %v, want it within the deadline, %v", took, deadline)
	}
	group.Wait()
	ended := 0
	for _, line := range s.lines() {
		if line.Kind == "tunnel" {
			ended++
			if line.CloseCode != 1001 || line.EndedBy != "gateway" {
				t.Errorf("a tunnel is logged with code %d by %q, want 1001 by the gateway", line.CloseCode, line.EndedBy)
			}
		}
	}
	if ended != len(sockets) {
		t.Errorf("%d tunnels are logged, want %d", ended, len(sockets))
	}
}

// During its grace a gateway says that it is not ready, takes nobody new, and
// serves those it has.
func TestGraceAfterSIGTERM(t *testing.T) {
	s, d := endingSite(t, "{grace: 1h, drain: 0, deadline: 1h}")
	socket := d.open(t, "/ws/node1")
	nodeSays(t, socket.expect(t, ws.OpText), "node1")
	s.signal(syscall.SIGTERM)
	s.awaitLog(1, `"message":"draining"`)

	answer, body := door{address: s.admin, host: s.admin}.request(t, "GET", "/readyz", "")
	if answer.StatusCode != 503 || !strings.Contains(body, "stopping") {
		t.Errorf("/readyz: %s %s, want 503 and why", answer.Status, body)
	}
	if conn, err := net.DialTimeout("tcp", d.address, patience); err == nil {
		conn.Close()
		t.Error("the listener takes new connections")
	}
	if echo := nodeSays(t, socket.ask(t, ws.OpText, "still here"), "node1").Echo; echo != "still here" {
		t.Errorf("the tunnel echoes %q", echo)
	}

	s.signal(syscall.SIGTERM) // a second one ends at once
	s.exit()
	contains(t, "the log", s.log.String(), "second signal")
	if codes, _, err := socket.end(); len(codes) > 1 || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the tunnel was closed with %v and ended with %v", codes, err)
	}
}
