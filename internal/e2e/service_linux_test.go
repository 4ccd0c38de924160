package e2e

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"singlegate/internal/standin"
)

// A serviceManager stands in for systemd: it opens sockets, passes them to the
// gateway, and hears what that says of itself.
type serviceManager struct {
	t      *testing.T
	dir    string
	notify *net.UnixConn
	names  []string
	files  []*os.File
}

func newServiceManager(t *testing.T) *serviceManager {
	t.Helper()
	m := &serviceManager{t: t, dir: t.TempDir()}
	var err error
	m.notify, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(m.dir, "notify"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.notify.Close() })
	return m
}

// socket opens one that will be passed.
func (m *serviceManager) socket(name string) (address string) {
	m.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		m.t.Fatal(err)
	}
	defer l.Close()
	file, err := l.(*net.TCPListener).File()
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { file.Close() })
	m.names, m.files = append(m.names, name), append(m.files, file)
	return l.Addr().String()
}

// start runs the gateway with gateway.yaml of the manager's folder.
func (m *serviceManager) start() *site {
	m.t.Helper()
	// The shell knows the number that the process will have.
	cmd := exec.Command("sh", "-c", `LISTEN_PID=$$ exec "$0" "$@"`, command(m.t), "run", "--config", "gateway.yaml")
	cmd.Dir = m.dir
	cmd.ExtraFiles = m.files
	cmd.Env = append(os.Environ(),
		"NOTIFY_SOCKET="+m.notify.LocalAddr().String(), "WATCHDOG_USEC=200000",
		fmt.Sprintf("LISTEN_FDS=%d", len(m.files)), "LISTEN_FDNAMES="+strings.Join(m.names, ":"))
	s := &site{process: startProcess(m.t, cmd), listeners: map[string]string{}}
	s.awaitLog(1, `"message":"ready: `)
	return s
}

// hears waits until the gateway says something that begins so, and returns what
// it said until then, pings of the watchdog left out.
func (m *serviceManager) hears(prefix string) (before []string) {
	m.t.Helper()
	buffer := make([]byte, 4096)
	m.notify.SetReadDeadline(time.Now().Add(patience))
	for {
		n, err := m.notify.Read(buffer)
		if err != nil {
			m.t.Fatalf("waiting for %q: %v; it said %q", prefix, err, before)
		}
		said := string(buffer[:n])
		if strings.HasPrefix(said, prefix) {
			return before
		}
		if said != "WATCHDOG=1" {
			before = append(before, said)
		}
	}
}

// get asks for the nodes of the check page over a connection that was made
// before.
func get(t *testing.T, conn net.Conn) {
	t.Helper()
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	if _, err := fmt.Fprintf(conn, "GET /_check/nodes.json HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("status %d", resp.StatusCode)
	}
}

func dialPassed(t *testing.T, address string) net.Conn {
	t.Helper()
	conn, err := net.DialTimeout("tcp", address, patience)
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

const passedConfig = `
listeners:
  - {name: web, address: %q}
  - {name: tls, address: "127.0.0.1:1"}
  - {name: own, address: "127.0.0.1:0"}
services: {im: {nodes: {node1: %q}}}
node_ports: [{service: im, kind: tcp, address: 127.0.0.1, listen: {node1: %s}}]
routes: [{path: /_check/, page: check}]
shutdown: {grace: 0s, drain: 0s, deadline: 20s}
`

// Sockets that were passed are used, by address or by name, whatever their port;
// other listeners and node ports open their own; while the gateway is away
// nobody is refused.
func TestPassedSockets(t *testing.T) {
	m := newServiceManager(t)
	byAddress, byName, unwanted := m.socket("singlegate.socket"), m.socket("tls"), m.socket("old")
	_, nodePort, _ := net.SplitHostPort(freeAddress(t))
	writeFile(t, m.dir, "gateway.yaml", fmt.Sprintf(passedConfig, byAddress, startNode(t, standin.Options{ID: "node1"}).Addr(), nodePort))

	s := m.start()
	m.hears("READY=1\nSTATUS=3 listeners, ")
	get(t, dialPassed(t, byAddress))
	get(t, dialPassed(t, byName))
	dialPassed(t, "127.0.0.1:"+nodePort).Close()
	s.awaitLog(2, `listens on a socket that the service manager passed`)
	s.awaitLog(1, `"listener":"own","address":"127.0.0.1:0","time":`)
	s.awaitLog(1, `"socket":"`+unwanted+` (named \"old\")"`)

	s.signal(syscall.SIGTERM)
	m.hears("STOPPING=1\nEXTEND_TIMEOUT_USEC=25000000")
	if code := s.exit(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	waiting := dialPassed(t, byAddress)
	m.start()
	get(t, waiting)
}

// What systemd hears: ready, reloads from beginning to end, also refused ones,
// and that the gateway is alive.
func TestServiceManagerIsTold(t *testing.T) {
	m := newServiceManager(t)
	const good = `
listeners: [{name: own, address: "127.0.0.1:0"}]
routes: [{path: /_check/, page: check}]
`
	writeFile(t, m.dir, "gateway.yaml", good)
	s := m.start()
	m.hears("READY=1\n")
	m.hears("WATCHDOG=1")
	for i, config := range []string{good, "nonsense: true\n", good} {
		writeFile(t, m.dir, "gateway.yaml", config)
		s.signal(syscall.SIGHUP)
		m.hears("RELOADING=1\nMONOTONIC_USEC=")
		if before := m.hears("READY=1\nSTATUS=1 listener, "); len(before) > 0 {
			t.Errorf("reload %d: between its beginning and end it says %q", i, before)
		}
	}
	s.awaitLog(2, `"message":"reloaded: `)
	s.awaitLog(1, `reload refused`)
	m.hears("WATCHDOG=1")
}
