package upstream

import (
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"singlegate/discovery"
)

const ownNetwork = "SINGLEGATE_TEST_OWN_NETWORK"

// inOwnNetwork runs the test again in a process with a network of its own, in
// which outgoing connections have the ports of portRange only. It reports true
// there, and false here when that is done.
func inOwnNetwork(t *testing.T, portRange string) bool {
	t.Helper()
	if os.Getenv(ownNetwork) != "" {
		setLoopbackUp(t)
		if err := os.WriteFile("/proc/sys/net/ipv4/ip_local_port_range", []byte(portRange), 0); err != nil {
			t.Skip("the range of local ports cannot be set here: ", err)
		}
		return true
	}
	child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=60s")
	child.Env = append(os.Environ(), ownNetwork+"=1")
	child.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		Pdeathsig:   syscall.SIGKILL,
	}
	out, err := child.CombinedOutput()
	var exit *exec.ExitError
	switch {
	case err != nil && !errors.As(err, &exit):
		t.Skip("no network namespaces here: ", err)
	case err != nil:
		t.Fatalf("in a network of its own: %v\n%s", err, out)
	case strings.Contains(string(out), "--- SKIP"):
		t.Skipf("%s", out)
	}
	return false
}

func setLoopbackUp(t *testing.T) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		t.Fatal(err)
	}
	lo.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo); err != nil {
		t.Skip("loopback cannot be set up here: ", err)
	}
}

// listening is a node that accepts connections and leaves them alone.
func listening(t *testing.T, addr string) string {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.Addr().String()
}

// opened dials until that fails; it gives the connections and the last error.
func opened(t *testing.T, set *Set, svc *Service, addr string) (list []net.Conn, err error) {
	t.Helper()
	for len(list) < 100 {
		conn, err := set.Dial(ToNode(t.Context(), svc.Node("a")), addr)
		if err != nil {
			return list, err
		}
		t.Cleanup(func() { conn.Close() })
		list = append(list, conn)
	}
	return list, nil
}

// Two source addresses have all local ports each, for every port of a node; when
// they are used up that is said, and it is over when one is free again.
func TestSourcesHaveAllPortsEach(t *testing.T) {
	if !inOwnNetwork(t, "50000 50003") {
		return
	}
	set, svc := twoNodes(nil, "127.0.0.2", "127.0.0.3")
	ws, tcp := listening(t, "127.0.0.1:8001"), listening(t, "127.0.0.1:8002")
	all := map[string]bool{}
	var first []net.Conn
	for _, addr := range []string{ws, tcp} {
		list, err := opened(t, set, svc, addr)
		if len(list) != 8 || !errors.Is(err, ErrNoPort) {
			t.Fatalf("%s: %d connections, %v", addr, len(list), err)
		}
		for i, conn := range list {
			all[conn.LocalAddr().String()+" "+addr] = true
			if i > 0 && conn.LocalAddr().(*net.TCPAddr).IP.Equal(list[i-1].LocalAddr().(*net.TCPAddr).IP) {
				t.Errorf("connections %d and %d to %s are both from %s", i-1, i, addr, conn.LocalAddr())
			}
		}
		first = append(first, list[0])
	}
	if len(all) != 16 {
		t.Errorf("%d connections were different: %v", len(all), all)
	}
	for _, conn := range first {
		conn.(*net.TCPConn).SetLinger(0) // at once, without the time of waiting that follows an orderly end
		local := conn.LocalAddr()
		conn.Close()
		again, err := set.Dial(ToNode(t.Context(), svc.Node("a")), conn.RemoteAddr().String())
		if err != nil {
			t.Fatalf("with a port free again: %v", err)
		}
		defer again.Close()
		if again.LocalAddr().String() != local.String() {
			t.Errorf("it is from %s; want %s", again.LocalAddr(), local)
		}
	}
	if _, err := New(nil).Dial(t.Context(), ws); err != nil {
		t.Errorf("from the address that the system chooses: %v", err)
	}
}

// An IPv6 node is reached from the IPv6 addresses, port for port as well.
func TestSourcesOfBothFamilies(t *testing.T) {
	if !inOwnNetwork(t, "50000 50003") {
		return
	}
	probe, err := net.Listen("tcp", "[::1]:8000")
	if err != nil {
		t.Skip("no IPv6 here")
	}
	probe.Close()
	set, svc := twoNodes(nil, "127.0.0.2", "::1")
	for _, addr := range []string{"[::1]:8001", "[::1]:8002"} {
		list, err := opened(t, set, svc, listening(t, addr))
		if len(list) != 4 || !errors.Is(err, ErrNoPort) {
			t.Errorf("%s: %d connections, %v", addr, len(list), err)
		}
	}
}

// HTTP requests, WebSocket handshakes and checks come from the source addresses.
func TestSourcesOfEveryKind(t *testing.T) {
	from := make(chan string, 10)
	node := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, _ := net.SplitHostPort(r.RemoteAddr)
		from <- host
		w.Header().Set("Connection", "close")
	}))
	defer node.Close()
	to := netip.MustParseAddrPort(node.Listener.Addr().String())
	set := New(nil)
	set.SetSources(map[string][]netip.Addr{"s": sourcesOf("127.0.0.2", "127.0.0.3"), "other": sourcesOf("127.0.0.4")})
	view, _ := set.Apply(discovery.Static{Services: map[string][]discovery.Node{
		"s": {{ID: "a", Address: to.Addr().String(), Ports: map[string]uint16{"": to.Port()}, Weight: 1}},
	}}.Snapshot())
	ctx := ToNode(t.Context(), view.Services["s"].Node("a"))

	req, err := http.NewRequestWithContext(ctx, http.MethodGet, node.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := set.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	io.Copy(io.Discard, answer.Body)
	answer.Body.Close()
	up, err := set.Upgrade(ctx, Upgrade{Addr: to.String(), Head: []byte("GET / HTTP/1.1\r\nHost: h\r\n\r\n"), Connect: 10 * time.Second, Answer: 10 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	up.Answer.Body.Close()
	if err := set.check(t.Context(), view.Services["s"].Node("a"), Check{Kind: CheckHTTP, Path: "/", Timeout: 10 * time.Second}); err != nil {
		t.Fatal(err)
	}
	if err := set.check(t.Context(), view.Services["s"].Node("a"), Check{Kind: CheckTCP, Timeout: 10 * time.Second}); err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"127.0.0.2", "127.0.0.3", "127.0.0.2"} {
		if got := <-from; got != want {
			t.Errorf("connection %d is from %s; want %s", i, got, want)
		}
	}
	set.Close()
}
