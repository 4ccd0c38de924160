package e2e

import (
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/gobwas/ws"
)

// A demo is a running "singlegate demo" and what it printed.
type demo struct {
	*process
	address string // host:port
	page    string // URL
	ca      string // file
	curl    string // the line to paste
	door    door
}

var demoPrints = map[string]*regexp.Regexp{
	"the page's URL":  regexp.MustCompile(`(?m)^ +page +(https://\S+)$`),
	"the wss URL":     regexp.MustCompile(`(?m)^ +wss +wss://([^/]+)/ws/node1\b`),
	"the CA's file":   regexp.MustCompile(`(?m)^ +CA +(.+)$`),
	"the curl's line": regexp.MustCompile(`(?m)^ +(curl .+)$`),
}

func startDemo(t *testing.T, dir, listen string) *demo {
	t.Helper()
	d := &demo{process: startProcess(t, exec.Command(command(t), "demo", "--listen", listen, "--dir", dir))}
	greeting := d.await(d.out, "the greeting", func(text string) bool { return strings.Contains(text, "Ctrl-C ends it.") })
	printed := func(what string) string {
		t.Helper()
		found := demoPrints[what].FindStringSubmatch(greeting)
		if found == nil {
			t.Fatalf("the demo did not print %s:\n%s", what, greeting)
		}
		return found[1]
	}
	d.page, d.address, d.ca, d.curl = printed("the page's URL"), printed("the wss URL"), printed("the CA's file"), printed("the curl's line")
	d.door = door{address: d.address, host: d.address, roots: rootsOf(t, d.ca)}
	return d
}

func TestDemo(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a folder with $5") // with what shells mind
	d := startDemo(t, dir, "127.0.0.1:0")
	ca := readFile(t, d.ca)

	t.Run("the curl line works as it is printed", func(t *testing.T) { pasteCurl(t, d) })
	var sockets []*socket
	for _, node := range []string{"node1", "node2", "node3"} {
		s := d.door.open(t, "/ws/"+node)
		nodeSays(t, s.expect(t, ws.OpText), node)
		if echo := nodeSays(t, s.ask(t, ws.OpText, "hello"), node).Echo; echo != "hello" {
			t.Errorf("%s echoes %q", node, echo)
		}
		sockets = append(sockets, s)
	}
	t.Run("an unknown node is refused", func(t *testing.T) {
		d.door.refused(t, 404, "/ws/node10")
	})
	d.signal(syscall.SIGTERM)
	for _, s := range sockets {
		goesAway(t, s)
	}
	if code := d.exit(); code != 0 {
		t.Errorf("exit code %d after SIGTERM, want 0", code)
	}

	t.Run("a second start keeps the CA", func(t *testing.T) {
		again := startDemo(t, dir, "127.0.0.1:0")
		if again.ca != d.ca || readFile(t, again.ca) != ca {
			t.Error("the file of the CA has changed")
		}
		old := door{address: again.address, host: again.address, roots: d.door.roots}
		if answer, _ := old.request(t, "GET", "/api/version", ""); answer.StatusCode != 200 {
			t.Errorf("GET /api/version: %s", answer.Status)
		}
	})
}

// pasteCurl runs the line that the demo printed as a shell would.
func pasteCurl(t *testing.T, d *demo) {
	t.Helper()
	program(t, "curl")
	r := runToEnd(t, exec.Command(program(t, "sh"), "-c", d.curl))
	if r.code != 0 {
		t.Fatalf("%s\nexit code %d: %s", d.curl, r.code, r.err)
	}
	if node := decode[said](t, r.out).Node; !strings.HasPrefix(node, "node") {
		t.Errorf("the answer names no node: %s", r.out)
	}
}

// A home folder may be called so.
func TestDemoQuotesItsFolderForTheShell(t *testing.T) {
	pasteCurl(t, startDemo(t, filepath.Join(t.TempDir(), "o'brien"), "127.0.0.1:0"))
}

// goesAway reads to the end of a WebSocket that must be closed with 1001, once.
func goesAway(t *testing.T, s *socket) {
	t.Helper()
	codes, _, err := s.end()
	if err != nil {
		t.Errorf("the WebSocket ended with %v, want a clean end", err)
	}
	if len(codes) != 1 || codes[0] != ws.StatusGoingAway {
		t.Errorf("closed with %v, want 1001 once", codes)
	}
}

func TestDemoWhenThePortIsTaken(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	address := taken.Addr().String()
	r := runCommand(t, t.TempDir(), "demo", "--listen", address, "--dir", t.TempDir())
	if r.code != 1 {
		t.Errorf("exit code %d, want 1", r.code)
	}
	contains(t, "the message", r.err, address, "--listen")
	if r.out != "" {
		t.Errorf("standard output has %q", r.out)
	}
}

func TestDemoSaysWhatIsWrongWithItsFlags(t *testing.T) {
	for _, listen := range []string{"8443", "localhost", "127.0.0.1:https:1"} {
		r := runCommand(t, t.TempDir(), "demo", "--listen", listen, "--dir", t.TempDir())
		if r.code != 1 && r.code != 2 {
			t.Errorf("--listen %s: exit code %d", listen, r.code)
		}
		contains(t, "the message", r.err, "--listen", fmt.Sprintf("%q", listen), "HOST:PORT")
	}
}
