//go:build unix

package systemd

import (
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// A manager is the other end of NOTIFY_SOCKET.
func manager(t *testing.T) (path string, hear func() string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "notify")
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Skipf("no datagrams by names here: %v", err)
	}
	t.Cleanup(func() { socket.Close() })
	return path, func() string {
		t.Helper()
		buffer := make([]byte, 4096)
		socket.SetReadDeadline(time.Now().Add(10 * time.Second))
		n, err := socket.Read(buffer)
		if err != nil {
			t.Fatal(err)
		}
		return string(buffer[:n])
	}
}

func environment(pairs ...string) func(string) string {
	return func(name string) string {
		for i := 0; i < len(pairs); i += 2 {
			if pairs[i] == name {
				return pairs[i+1]
			}
		}
		return ""
	}
}

func TestNotify(t *testing.T) {
	path, hear := manager(t)
	n := NewNotifier(environment("NOTIFY_SOCKET", path))
	for _, c := range []struct {
		say  func() error
		want string
	}{
		{func() error { return n.Ready("2 listeners") }, "READY=1\nSTATUS=2 listeners"},
		{n.Reloading, "RELOADING=1\nMONOTONIC_USEC="},
		{func() error { return n.Stopping(35 * time.Second) }, "STOPPING=1\nEXTEND_TIMEOUT_USEC=35000000\n"},
		{n.Alive, "WATCHDOG=1"},
	} {
		if err := c.say(); err != nil {
			t.Fatal(err)
		}
		if got := hear(); !strings.HasPrefix(got, c.want) {
			t.Errorf("systemd hears %q, want %q", got, c.want)
		}
	}
}

func TestNobodyToNotify(t *testing.T) {
	for _, path := range []string{"", "vsock:2:1234", "relative"} {
		n := NewNotifier(environment("NOTIFY_SOCKET", path, "WATCHDOG_USEC", "1000000"))
		if n != nil || n.Ready("x") != nil || n.Watchdog() != 0 {
			t.Errorf("NOTIFY_SOCKET=%q: somebody is told", path)
		}
	}
	gone := NewNotifier(environment("NOTIFY_SOCKET", filepath.Join(t.TempDir(), "gone")))
	if err := gone.Alive(); err == nil {
		t.Error("a socket that is not there takes a message")
	}
}

func TestWatchdogTime(t *testing.T) {
	own := strconv.Itoa(os.Getpid())
	for _, c := range []struct {
		usec, pid string
		want      time.Duration
	}{
		{"30000000", own, 15 * time.Second},
		{"30000000", "", 15 * time.Second},
		{"30000000", "1", 0},
		{"", own, 0}, {"0", own, 0}, {"-5", own, 0}, {"x", own, 0}, {"99999999999999999999", own, 0},
	} {
		n := NewNotifier(environment("NOTIFY_SOCKET", "/nowhere", "WATCHDOG_USEC", c.usec, "WATCHDOG_PID", c.pid))
		if got := n.Watchdog(); got != c.want {
			t.Errorf("WATCHDOG_USEC=%q for %q: every %v, want %v", c.usec, c.pid, got, c.want)
		}
	}
}

// passedFile is a listening socket as a service manager passes it, with the
// address that it listens on.
func passedFile(t *testing.T, name, address string) (*os.File, string) {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	file, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	return os.NewFile(uintptr(dup(t, file)), name), l.Addr().String()
}

func TestSocketsGoToTheirListeners(t *testing.T) {
	every, everyAddress := passedFile(t, "singlegate.socket", ":0")
	named, namedAddress := passedFile(t, "tls", "127.0.0.1:0")
	s, err := socketsOf([]*os.File{every, named})
	if err != nil || !s.Passed() {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(everyAddress)
	if unused := s.Unused(); len(unused) != 2 || !strings.Contains(unused[0], "singlegate.socket") {
		t.Errorf("nobody listens, and unused are %v", unused)
	}
	plain := listen(t, s, "plain", ":"+port)
	if got := plain.Addr().String(); got != everyAddress {
		t.Errorf("by address: %s, want %s", got, everyAddress)
	}
	secure := listen(t, s, "tls", ":443") // another address: the name counts
	if got := secure.Addr().String(); got != namedAddress {
		t.Errorf("by name: %s, want %s", got, namedAddress)
	}
	if got, ok := s.Used(":443"); !ok || got.String() != namedAddress || len(s.Unused()) != 0 {
		t.Errorf(":443 has %v (%v), unused are %v", got, ok, s.Unused())
	}
	if moved := listen(t, s, "tls", "127.0.0.1:0"); moved.Addr().String() == namedAddress {
		t.Error("a listener that moves gets the socket that it has still")
	}
	own := listen(t, s, "other", "127.0.0.1:0")
	if _, ok := s.Used("127.0.0.1:0"); ok || own.Addr().String() == namedAddress {
		t.Errorf("%s has a passed socket", own.Addr())
	}
}

// A socket that its listener gave back takes connections all the same, and the
// next listener gets them.
func TestSocketOutlivesItsListener(t *testing.T) {
	file, address := passedFile(t, "x", "127.0.0.1:0")
	s, err := socketsOf([]*os.File{file})
	if err != nil {
		t.Fatal(err)
	}
	first := listen(t, s, "a", address)
	if _, err := s.Listen("b", address); err == nil {
		t.Error("two listeners have one socket")
	}
	first.Close()
	first.Close()
	if _, ok := s.Used(address); ok || len(s.Unused()) != 1 {
		t.Errorf("unused are %v", s.Unused())
	}
	client, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatalf("between two listeners: %v", err)
	}
	defer client.Close()
	conn, err := listen(t, s, "b", address).Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if conn.RemoteAddr().String() != client.LocalAddr().String() {
		t.Errorf("accepted %s, want %s", conn.RemoteAddr(), client.LocalAddr())
	}
}

func listen(t *testing.T, s *Sockets, name, address string) net.Listener {
	t.Helper()
	l, err := s.Listen(name, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func TestServes(t *testing.T) {
	for _, c := range []struct {
		socket, address string
		want            bool
	}{
		{"[::]:443", ":443", true}, {"[::]:443", "0.0.0.0:443", true}, {"0.0.0.0:443", "[::]:443", true},
		{"[::]:443", ":80", false}, {"[::]:443", "10.0.0.1:443", false}, {"10.0.0.1:443", ":443", false},
		{"10.0.0.1:443", "10.0.0.1:443", true}, {"[::ffff:10.0.0.1]:443", "10.0.0.1:443", true},
		{"127.0.0.1:80", "localhost:80", true}, {"10.0.0.1:80", "localhost:80", false},
		{"10.0.0.1:80", "gw.example:80", false}, {"10.0.0.1:80", "10.0.0.1", false},
	} {
		p := passedSocket{address: mustAddress(t, c.socket)}
		if got := p.serves(c.address); got != c.want {
			t.Errorf("a socket at %s for %s: %v, want %v", c.socket, c.address, got, c.want)
		}
	}
}

func TestOddSockets(t *testing.T) {
	file, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	good, _ := passedFile(t, "good", "127.0.0.1:0")
	s, err := socketsOf([]*os.File{file, good})
	if err == nil || !strings.Contains(err.Error(), os.DevNull) || len(s.Unused()) != 1 {
		t.Errorf("%v, %v", s.Unused(), err)
	}
	for _, env := range [][]string{
		nil,
		{"LISTEN_FDS", "1"},
		{"LISTEN_FDS", "1", "LISTEN_PID", "1"},
		{"LISTEN_FDS", "none", "LISTEN_PID", strconv.Itoa(os.Getpid())},
		{"LISTEN_FDS", "0", "LISTEN_PID", strconv.Itoa(os.Getpid())},
	} {
		if s, err := Inherited(environment(env...)); s != nil || err != nil {
			t.Errorf("%v: %v, %v", env, s, err)
		}
	}
	if _, err := Inherited(environment("LISTEN_FDS", "999999", "LISTEN_PID", strconv.Itoa(os.Getpid()))); err == nil {
		t.Error("a million descriptors are taken")
	}
}
