package upstream

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"singlegate/discovery"
)

// nodeAt is a node at a loopback address.
func nodeAt(t *testing.T, id, addr string) discovery.Node {
	t.Helper()
	a, err := net.ResolveTCPAddr("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	return discovery.Node{ID: id, Address: "127.0.0.1", Ports: map[string]uint16{"": uint16(a.Port)}, Weight: 1}
}

// A node that fails its check is left out until it passes again; the others
// are not touched.
func TestChecksLeaveNodesOut(t *testing.T) {
	var broken atomic.Bool
	flaky := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/healthz" || r.Host != "im.example.gov" {
			t.Errorf("asked for %s of %s", r.URL.Path, r.Host)
		}
		if broken.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	defer flaky.Close()
	steady := httptest.NewServer(http.NotFoundHandler()) // 404 is an answer
	defer steady.Close()

	s := New(nil)
	view, _ := s.Apply(snapshot("im", nodeAt(t, "flaky", flaky.Listener.Addr().String()), nodeAt(t, "steady", steady.Listener.Addr().String())))
	ctx, cancel := context.WithCancel(context.Background())
	changes := make(chan error, 10)
	var group sync.WaitGroup
	group.Go(func() {
		s.RunChecks(ctx, map[string]Check{"im": {Kind: CheckHTTP, Path: "/healthz", Host: "im.example.gov", Every: time.Millisecond, Timeout: 5 * time.Second}},
			func() *View { return view },
			func(key Key, err error) {
				if key.ID != "flaky" {
					t.Errorf("%v changed: %v", key, err)
				}
				changes <- err
			})
	})
	defer func() {
		cancel()
		group.Wait()
		s.Close()
	}()

	broken.Store(true)
	if err := <-changes; err == nil || !strings.Contains(err.Error(), "503") {
		t.Errorf("began to fail with %v", err)
	}
	svc := view.Services["im"]
	if n := svc.Node("flaky"); n.Standing() != discovery.Failing {
		t.Errorf("the node is %s", n.Standing())
	}
	for range 10 {
		if n := svc.RoundRobin("", nil); n.ID != "steady" {
			t.Fatalf("picked %s, which fails", n.ID)
		}
	}
	broken.Store(false)
	if err := <-changes; err != nil {
		t.Errorf("works again, and says %v", err)
	}
	if n := svc.Node("flaky"); n.Standing() != discovery.Passing {
		t.Errorf("the node is %s", n.Standing())
	}
}

func TestCheckKinds(t *testing.T) {
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/broken" {
			w.WriteHeader(http.StatusInternalServerError)
		}
	}))
	defer web.Close()
	socket := rawNode(t, "127.0.0.1:0", func(c net.Conn) {
		br := bufio.NewReader(c)
		key := ""
		for {
			line, err := br.ReadString('\n')
			if err != nil || line == "\r\n" {
				break
			}
			if k, v, _ := strings.Cut(strings.TrimSpace(line), ": "); k == "Sec-WebSocket-Key" {
				key = v
			}
		}
		io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "+AcceptFor(key)+"\r\n\r\n")
	})
	webAddr := web.Listener.Addr().String()
	gone := httptest.NewServer(nil)
	gone.Close()
	cases := []struct {
		name, addr string
		check      Check
		ok         bool
	}{
		{"tcp", webAddr, Check{Kind: CheckTCP}, true},
		{"tcp refused", gone.Listener.Addr().String(), Check{Kind: CheckTCP}, false},
		{"http", webAddr, Check{Kind: CheckHTTP, Path: "/"}, true},
		{"http 500", webAddr, Check{Kind: CheckHTTP, Path: "/broken"}, false},
		{"http refused", gone.Listener.Addr().String(), Check{Kind: CheckHTTP, Path: "/"}, false},
		{"websocket", socket, Check{Kind: CheckWebSocket, Path: "/"}, true},
		{"websocket at an HTTP server", webAddr, Check{Kind: CheckWebSocket, Path: "/"}, false},
		{"a port that is not there", webAddr, Check{Kind: CheckTCP, Port: "ws"}, false},
	}
	s := New(nil)
	defer s.Close()
	for _, c := range cases {
		view, _ := s.Apply(snapshot("s", nodeAt(t, "n", c.addr)))
		c.check.Timeout = 5 * time.Second
		if err := s.check(context.Background(), view.Services["s"].Node("n"), c.check); (err == nil) != c.ok {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// One failure is none; two in a row count; one success takes it back.
func TestCheckedTakesTwoFailures(t *testing.T) {
	var c checked
	bad := errors.New("bad")
	for i, step := range []struct {
		err          error
		changed, bad bool
	}{{bad, false, false}, {nil, false, false}, {bad, false, false}, {bad, true, true}, {bad, false, true}, {nil, true, false}, {nil, false, false}} {
		if changed := c.take(step.err); changed != step.changed || c.bad() != step.bad {
			t.Errorf("step %d: changed %v, bad %v", i, changed, c.bad())
		}
	}
}
