package e2e

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"singlegate/internal/standin"
)

// The two configs that alternate. The second one lacks a route and a listener
// that tunnels came by, and has others; the certificate's files change with it.
const (
	reloadBefore = `
listeners:
  - {name: plain, address: "127.0.0.1:0"}
  - {name: tls, address: "localhost:0", tls: true}
  - {name: extra, address: %[2]q}
admin: {address: %[3]q}
tls: {certificates: [{cert: cert.pem, key: key.pem}]}
services: {im: {nodes: {node1: %[1]q}}}
routes:
  - {path: "/ws/{node}", service: im, rewrite: /}
  - {path: "/old/{node}", service: im, rewrite: /}
`
	reloadAfter = `
listeners:
  - {name: tls, address: "localhost:0", tls: true}
  - {name: plain, address: "127.0.0.1:0"}
admin: {address: %[3]q}
tls: {certificates: [{cert: cert.pem, key: key.pem}], min_version: 1.3}
services: {im: {nodes: {node1: %[1]q}}, more: {nodes: {node1: %[1]q}}}
routes:
  - {path: "/new/{node}", service: more, rewrite: /}
  - {path: "/ws/{node}", service: im, rewrite: /, timeouts: {idle: 30m}}
`
)

// Reloads touch no tunnel: two hundred of them echo without a pause while
// config and certificate change twenty times.
func TestReloadsTouchNoTunnel(t *testing.T) {
	const tunnels, reloads = 200, 20
	dir := t.TempDir()
	node, extra, admin := startNode(t, standin.Options{ID: "node1"}).Addr(), freeAddress(t), freeAddress(t)
	write := func(config string) {
		t.Helper()
		writeFile(t, dir, "gateway.yaml", fmt.Sprintf(config, node, extra, admin))
	}
	write(reloadBefore)
	cert := writeCertificate(t, dir)
	s := startSite(t, dir)
	secure := door{address: s.listeners["tls"], host: "localhost", roots: rootsOf(t, filepath.Join(dir, "cert.pem"))}
	plain := door{address: s.listeners["plain"], host: "localhost"}
	ways := []struct {
		door   door
		target string
	}{
		{secure, "/ws/node1"}, {secure, "/old/node1"}, {plain, "/ws/node1"}, {plain, "/old/node1"}, {door{address: extra, host: "localhost"}, "/ws/node1"},
	}

	e := startEchoes(tunnels)
	defer e.stop()
	for i := range tunnels {
		way := ways[i%len(ways)]
		e.follow(way.door.open(t, way.target))
	}
	for i := 1; i <= reloads; i++ {
		if i == reloads/2 {
			refusedReload(t, s, dir)
		}
		if i%2 == 1 {
			write(reloadAfter)
		} else {
			write(reloadBefore)
		}
		cert = writeCertificate(t, dir)
		s.signal(syscall.SIGHUP)
		s.awaitLog(i, `"message":"reloaded: `)
		e.turn(t, tunnels) // every tunnel moves under this config
	}
	if err := e.stop(); err != nil {
		t.Error(err)
	}
	for _, line := range s.lines() {
		if line.Kind == "tunnel" {
			t.Errorf("a tunnel ended: %+v", line)
		}
		if strings.HasPrefix(line.Message, "reloaded: ") && line.Tunnels != tunnels {
			t.Errorf("%d tunnels at a reload, want %d", line.Tunnels, tunnels)
		}
	}
	t.Logf("%d messages came back in order", e.messages.Load())

	t.Run("new connections see the new certificate", func(t *testing.T) {
		secure.roots = rootsOf(t, filepath.Join(dir, "cert.pem"))
		if got := shownCertificate(t, secure); !got.Equal(cert) {
			t.Errorf("serial number %v, want %v", got.SerialNumber, cert.SerialNumber)
		}
		secure.open(t, "/old/node1") // the first config is in force
		secure.refused(t, 404, "/new/node1")
		door{address: extra, host: "localhost"}.open(t, "/ws/node1")
	})
}

// refusedReload sends a config that is wrong: it must change nothing and be
// explained.
func refusedReload(t *testing.T, s *site, dir string) {
	t.Helper()
	before := strings.Count(s.log.String(), `"message":"reloaded: `)
	writeFile(t, dir, "gateway.yaml", strings.ReplaceAll(goodConfig, "service: im,", "service: gone,"))
	s.signal(syscall.SIGHUP)
	s.awaitLog(1, "reload refused")
	contains(t, "the log", s.log.String(), `gateway.yaml:5:40: there is no service \"gone\"`)
	if n := strings.Count(s.log.String(), `"message":"reloaded: `); n != before {
		t.Error("the wrong config was put in force")
	}
}

func shownCertificate(t *testing.T, d door) *x509.Certificate {
	t.Helper()
	conn, err := d.dial()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	return conn.(*tls.Conn).ConnectionState().PeerCertificates[0]
}

// echoes sends numbered messages through WebSockets and checks that each comes
// back, in order, until it is stopped.
type echoes struct {
	work     sync.WaitGroup
	stopped  atomic.Bool
	messages atomic.Int64
	round    atomic.Int64  // turn begins one
	turned   chan struct{} // a socket's messages were all back, once per round
	failed   chan error    // one per socket at most
}

// startEchoes is for at most so many sockets.
func startEchoes(sockets int) *echoes {
	return &echoes{turned: make(chan struct{}, sockets), failed: make(chan error, sockets)}
}

// follow lets a socket, whose first message is the node's greeting, echo.
func (e *echoes) follow(s *socket) {
	e.work.Go(func() {
		if err := e.run(s); err != nil {
			e.failed <- err
		}
	})
}

func (e *echoes) run(s *socket) error {
	if op, greeting, err := s.next(); op != ws.OpText {
		return fmt.Errorf("got opcode %#x %q, %w before the first message", op, greeting, err)
	}
	const underWay = 3
	told := int64(0)
	for next := uint64(0); !e.stopped.Load(); next += underWay {
		round := e.round.Load()
		if err := echo(s, next, next+underWay); err != nil {
			return err
		}
		e.messages.Add(underWay)
		if round > told {
			told = round
			e.turned <- struct{}{}
		}
	}
	return nil
}

// echo sends the messages from first to before end and reads them back. They have
// a time of their own, as a tunnel may live for as long as its test likes.
func echo(s *socket, first, end uint64) error {
	if err := s.conn.SetDeadline(time.Now().Add(2 * patience)); err != nil {
		return err
	}
	for n := first; n < end; n++ {
		if err := s.send(ws.OpBinary, numbered(n)); err != nil {
			return fmt.Errorf("sending message %d: %w", n, err)
		}
	}
	for n := first; n < end; n++ {
		op, got, err := s.next()
		if err != nil {
			return fmt.Errorf("message %d did not come back: %w", n, err)
		}
		if op != ws.OpBinary || !bytes.Equal(got, numbered(n)) {
			return fmt.Errorf("opcode %#x with %d bytes came back, want message %d", op, len(got), n)
		}
	}
	return nil
}

// numbered is a message that is not like any other one; some are longer than
// any buffer of the gateway's.
func numbered(n uint64) []byte {
	length := 16
	if n%64 == 0 {
		length = 40_000
	}
	return binary.BigEndian.AppendUint64(make([]byte, length, length+8), n)
}

// turn waits until every one of so many sockets has had messages back that were
// sent after the call.
func (e *echoes) turn(t *testing.T, sockets int) {
	t.Helper()
	e.round.Add(1)
	timeout := time.After(patience)
	for range sockets {
		select {
		case <-e.turned:
		case err := <-e.failed:
			t.Fatal(err)
		case <-timeout:
			t.Fatal("a tunnel stands still")
		}
	}
}

// stop ends the echoes and tells what went wrong first. It may be called again.
func (e *echoes) stop() error {
	e.stopped.Store(true)
	e.work.Wait()
	select {
	case err := <-e.failed:
		return err
	default:
		return nil
	}
}

// A reload may come at any time, also in the moment in which the gateway says
// that it is ready.
func TestSignalsAreTakenFromTheFirstMoment(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, dir, "gateway.yaml", goodConfig)
	for range 5 {
		s := startSite(t, dir)
		s.signal(syscall.SIGHUP)
		s.awaitLog(1, `"message":"reloaded: `)
		s.signal(syscall.SIGTERM)
		if code := s.exit(); code != 0 {
			t.Fatalf("exit code %d after SIGTERM, want 0", code)
		}
	}
}

// A storm of reloads: five hundred tunnels, fifty signals as fast as they can be
// sent while the certificate's files are replaced all the time. No tunnel ends
// and no message is lost, new connections see the newest certificate, and what
// the storm took of goroutines and descriptors comes back.
func TestReloadStorm(t *testing.T) {
	const tunnels, signals = 500, 50
	dir := t.TempDir()
	node, admin := startNode(t, standin.Options{ID: "node1"}).Addr(), freeAddress(t)
	writeFile(t, dir, "gateway.yaml", fmt.Sprintf(reloadBefore, node, freeAddress(t), admin))
	writeCertificate(t, dir)
	s := startSite(t, dir)
	metrics := door{address: admin, host: admin}
	secure := door{address: s.listeners["tls"], host: "localhost", roots: rootsOf(t, filepath.Join(dir, "cert.pem"))}
	e := startEchoes(tunnels)
	defer e.stop()
	for range tunnels {
		e.follow(secure.open(t, "/ws/node1"))
	}
	e.turn(t, tunnels)
	before := usage(t, metrics)

	var cert *x509.Certificate
	for range signals {
		cert = writeCertificate(t, dir) // key and certificate of two moments may meet: that is refused
		s.signal(syscall.SIGHUP)
	}
	e.turn(t, tunnels)
	sent := strings.Count(s.log.String(), `"message":"reloaded: `)
	s.signal(syscall.SIGHUP) // signals that come at once count as one: this one sees the last files
	s.awaitLog(sent+1, `"message":"reloaded: `)
	secure.roots = rootsOf(t, filepath.Join(dir, "cert.pem"))
	awaitCertificate(t, secure, cert)
	e.turn(t, tunnels)
	awaitUsage(t, metrics, before)
	if err := e.stop(); err != nil {
		t.Error(err)
	}
	for _, line := range s.lines() {
		if line.Kind == "tunnel" {
			t.Errorf("a tunnel ended: %+v", line)
		}
		if strings.HasPrefix(line.Message, "reloaded: ") && line.Tunnels != tunnels {
			t.Errorf("%d tunnels at a reload, want %d", line.Tunnels, tunnels)
		}
	}
	t.Logf("%d messages came back in order, over %d reloads", e.messages.Load(), strings.Count(s.log.String(), `"message":"reloaded: `))
}

// awaitCertificate waits until that certificate is shown to who connects.
func awaitCertificate(t *testing.T, d door, want *x509.Certificate) {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); ; <-tick.C {
		conn, err := d.dial() // fails while it is another one
		if err == nil {
			got := conn.(*tls.Conn).ConnectionState().PeerCertificates[0]
			conn.Close()
			if got.Equal(want) {
				return
			}
		}
		if time.Now().After(end) {
			t.Fatalf("the last certificate is not shown: %v", err)
		}
	}
}

// usage is what a gateway has of goroutines and open files.
func usage(t *testing.T, metrics door) [2]int {
	t.Helper()
	_, text := metrics.request(t, "GET", "/metrics", "")
	var u [2]int
	for i, name := range []string{"go_goroutines", "process_open_fds"} {
		_, rest, found := strings.Cut(text, "\n"+name+" ")
		if _, err := fmt.Sscan(rest, &u[i]); !found || err != nil {
			t.Fatalf("no metric %s: %v", name, err)
		}
	}
	return u
}

// awaitUsage waits until a gateway has no more than that, but for a few of
// connections that come and go.
func awaitUsage(t *testing.T, metrics door, most [2]int) {
	t.Helper()
	const few = 5
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); ; <-tick.C {
		now := usage(t, metrics)
		if now[0] <= most[0]+few && now[1] <= most[1]+few {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("goroutines and descriptors: %v, and %v before", now, most)
		}
	}
}
