package gateway

import (
	"bufio"
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"testing"
)

// A descriptorHog takes descriptors of the process, lowest free number first.
type descriptorHog struct {
	t     *testing.T
	files []*os.File
}

// upTo takes all numbers below n.
func (h *descriptorHog) upTo(n int) {
	h.t.Helper()
	for {
		f, err := os.Open(os.DevNull)
		if err != nil {
			h.t.Fatal(err)
		}
		if int(f.Fd()) >= n {
			f.Close()
			return
		}
		h.files = append(h.files, f)
	}
}

func (h *descriptorHog) release() {
	for _, f := range h.files {
		f.Close()
	}
	h.files = nil
}

// crowdedEdge is an edge with a limit of descriptors a little above what is
// open now.
func crowdedEdge(t *testing.T) (*edge, *Descriptors, *descriptorHog) {
	if runtime.GOOS == "windows" {
		t.Skip("descriptors have no numbers here")
	}
	hog := &descriptorHog{t: t}
	t.Cleanup(hog.release)
	probe, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	fds := NewDescriptors(int(probe.Fd()) + 120)
	probe.Close()
	snap := nodesOf(map[string]map[string]string{"app": {"a": httpNode(t, echoTarget)}, "closing": {"a": rawNode(t, func(c net.Conn) {
		readHead(bufio.NewReader(c))
		io.WriteString(c, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
	})}})
	e := startEdgeOver(t, fds, fds, []Route{{Paths: []string{"/app"}, Service: "app"}, {Paths: []string{"/closing"}, Service: "closing"}}, snap)
	return e, fds, hog
}

// With descriptors running out, new connections are refused in a proper way and
// those that there are go on; with none left they are closed at once; with room
// again everything is as before.
func TestDescriptorsRunOut(t *testing.T) {
	e, fds, hog := crowdedEdge(t)
	old := e.dial()
	br := bufio.NewReader(old)
	goesOn := func() {
		t.Helper()
		io.WriteString(old, get("Host: h"))
		if _, body := readAnswer(t, br); body != "/app/a" {
			t.Errorf("a connection that was there got %q", body)
		}
	}
	goesOn()

	hog.upTo(fds.limit - fds.reserve)
	eachWire(t, func(t *testing.T, secure bool) {
		conn := e.dialAny(secure)
		io.WriteString(conn, get("Host: h")+hidden)
		answers, ended, err := answersOn(conn, 2)
		if err != nil || !ended || len(answers) != 1 {
			t.Fatalf("%d answers, ended %v: %v", len(answers), ended, err)
		}
		if a := answers[0]; a.StatusCode != 503 || problemCode(a.body) != "overloaded" || a.Header.Get("Retry-After") == "" {
			t.Errorf("got %d %v %s", a.StatusCode, a.Header, a.body)
		}
		conn.Close()
	})
	e.logs.wait(t, "file descriptors are nearly used up", `"limit"`)
	goesOn()

	hog.upTo(fds.limit - fds.reserve/4)
	conn := e.dial()
	io.WriteString(conn, get("Host: h"))
	if got, _ := io.ReadAll(conn); len(got) > 0 {
		t.Errorf("got %q", got)
	}
	conn.Close()
	goesOn()

	hog.release()
	if resp, body := e.answerTo(get("Host: h")); resp.StatusCode != 200 {
		t.Errorf("with room again: got %d %s", resp.StatusCode, body)
	}
}

// A connection to a node does not take what a refusal may need.
func TestNodesDoNotUseUpTheReserve(t *testing.T) {
	e, fds, hog := crowdedEdge(t)
	conn := e.dial()
	br := bufio.NewReader(conn)
	ask := func() (int, string) {
		io.WriteString(conn, "GET /closing HTTP/1.1\r\nHost: h\r\n\r\n") // a new connection to the node each time
		resp, body := readAnswer(t, br)
		return resp.StatusCode, problemCode(body)
	}
	if status, _ := ask(); status != 200 {
		t.Fatalf("got %d", status)
	}
	hog.upTo(fds.limit - fds.reserve) // half of the reserve is for clients that were let in
	if status, _ := ask(); status != 200 {
		t.Errorf("in the reserve: got %d", status)
	}
	// What the connections before have given back shows a little later: it is
	// taken until nothing is left.
	eventually(t, "connections to nodes are refused", func() bool {
		hog.upTo(fds.limit - fds.reserve/2)
		status, code := ask()
		return status == 503 && code == "overloaded"
	})
	hog.upTo(fds.limit - fds.reserve/2)
	if _, err := fds.DialContext(t.Context(), "tcp", e.plain); !errors.Is(err, ErrDescriptors) {
		t.Errorf("DialContext: %v", err)
	}
}

func TestDescriptorLimits(t *testing.T) {
	system := descriptorLimit()
	for _, c := range []struct{ asked, limit int }{{0, system}, {100, 100}, {1 << 29, system}} {
		d := NewDescriptors(c.asked)
		if system != 0 && d.limit != c.limit {
			t.Errorf("NewDescriptors(%d): limit %d, want %d", c.asked, d.limit, c.limit)
		}
		if d.limit > 0 && (d.reserve <= 0 || d.reserve >= d.limit) || d.Tunnels() < 0 || d.Tunnels()*2 > d.limit {
			t.Errorf("NewDescriptors(%d): reserve %d, %d tunnels", c.asked, d.reserve, d.Tunnels())
		}
	}
}
