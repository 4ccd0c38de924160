package gateway

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"singlegate/discovery"
)

// A reload of everything — routes, listeners, nodes — under echoing tunnels
// loses no message, and no tunnel notices.
func TestReloadTouchesNoTunnel(t *testing.T) {
	routes, nodes := pinned(echoNode(t))
	e := startEdge(t, routes, nodes)
	const clients, reloads = 50, 20
	stop := make(chan struct{})
	var group sync.WaitGroup
	for i := range clients {
		c, _ := open(t, e.dialEither(i), handshake("/ws/node1"))
		group.Go(func() {
			for n := 0; ; n++ {
				message := fmt.Sprintf("%d-%d", i, n)
				c.send(ws.OpText, message)
				c.expect(ws.OpText, message)
				select {
				case <-stop:
					return
				default:
				}
			}
		})
	}
	other := e.cfg
	other.Routes = []Route{{At: "r2", Paths: []string{"/other"}, Service: "other", Timeouts: DefaultTimeouts()}}
	other.Listeners = []Listener{e.cfg.Listeners[1], {Name: "extra", Address: "127.0.0.1:00"}}
	otherNodes, oldNodes := nodesOf(map[string]map[string]string{"other": {"n": refusedAddr(t)}}), nodesOf(nodes)
	for i := range reloads {
		cfg, snap := other, otherNodes
		if i%2 == 1 {
			cfg, snap = e.cfg, oldNodes
		}
		if err := e.Apply(cfg, &snap); err != nil {
			t.Error(err)
		}
	}
	close(stop)
	group.Wait()
	if n := e.Tunnels(); n != clients {
		t.Errorf("%d tunnels live, want %d", n, clients)
	}
	if strings.Contains(e.logs.all(), `"kind":"tunnel"`) {
		t.Error("a tunnel ended")
	}
}

// A config that cannot be put in force changes nothing, and the error names
// everything that is wrong.
func TestApplyIsAllOrNothing(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	e := startEdge(t, []Route{{At: "r", Paths: []string{"/"}, Service: "im"}},
		map[string]map[string]string{"im": {"n": httpNode(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "old") })}})
	bad := e.cfg
	bad.Listeners = append([]Listener{
		{At: "f:3:5", Name: "new", Address: "127.0.0.1:00"},
		{At: "f:4:5", Name: "taken", Address: taken.Addr().String()},
	}, e.cfg.Listeners...)
	bad.Routes = []Route{{At: "f:9:3", Paths: []string{"/"}, Static: filepath.Join(t.TempDir(), "missing")}}
	if err := e.Apply(bad, nil); err == nil || !strings.HasPrefix(err.Error(), "f:9:3: ") {
		t.Errorf("a missing folder: %v", err)
	}
	bad.Routes = e.cfg.Routes
	if err := e.Apply(bad, nil); err == nil || !strings.HasPrefix(err.Error(), "f:4:5: listener taken: ") {
		t.Errorf("a taken port: %v", err)
	}
	if entries := e.Entries(); len(entries) != 2 {
		t.Errorf("%d listeners are open, want the 2 from before", len(entries))
	}
	if _, body := e.answerTo("GET / HTTP/1.1\r\nHost: x\r\n\r\n"); body != "old" {
		t.Errorf("the old config answers %q", body)
	}
}

// A listener that goes lets its request finish; one that comes answers.
func TestListenersComeAndGo(t *testing.T) {
	release := make(chan struct{})
	node := httpNode(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			<-release
		}
		io.WriteString(w, "done")
	})
	e := startEdge(t, []Route{{At: "r", Paths: []string{"/"}, Service: "im"}}, map[string]map[string]string{"im": {"n": node}})
	answer := make(chan string, 1)
	go func() {
		resp, err := e.client().Get("http://" + e.plain + "/slow")
		if err != nil {
			answer <- err.Error()
			return
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		answer <- string(body)
	}()
	eventually(t, "the request is under way", func() bool {
		return e.state.Load().table.view.Services["im"].Node("n").Active() == 1
	})
	cfg := e.cfg
	cfg.Listeners = []Listener{{At: "f", Name: "new", Address: "127.0.0.1:00"}}
	if err := e.Apply(cfg, nil); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the old listener refuses", func() bool {
		c, err := net.Dial("tcp", e.plain)
		if err == nil {
			c.Close()
		}
		return err != nil
	})
	resp, err := e.client().Get("http://" + e.Entries()[0].Address.String() + "/")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	close(release)
	if got := <-answer; got != "done" {
		t.Errorf("the request on the old listener got %q", got)
	}
}

func TestReadiness(t *testing.T) {
	e := startEdge(t, []Route{{At: "r", Paths: []string{"/"}, Service: "im"}}, map[string]map[string]string{"im": {}})
	if reasons := e.Ready(); len(reasons) > 0 {
		t.Errorf("not ready: %q", reasons)
	}
	e.Publish(discovery.Snapshot{})
	if reasons := e.Ready(); len(reasons) != 1 || !strings.Contains(reasons[0], `"im"`) {
		t.Errorf("without a snapshot of im: %q", reasons)
	}
	if resp, body := e.answerTo("GET / HTTP/1.1\r\nHost: x\r\n\r\n"); resp.StatusCode != 503 || problemCode(body) != "no_snapshot" {
		t.Errorf("without a snapshot: %s %s", resp.Status, body)
	}
	e.Shutdown(context.Background())
	if reasons := e.Ready(); len(reasons) != 1 {
		t.Errorf("stopped, and says %q", reasons)
	}
	if err := e.Apply(e.cfg, nil); err == nil {
		t.Error("a stopped server takes a config")
	}
}

// A request under way when the gateway is told to stop gets its answer.
func TestShutdownLetsRequestsFinish(t *testing.T) {
	asked, release := make(chan struct{}), make(chan struct{})
	node := httpNode(t, func(w http.ResponseWriter, _ *http.Request) {
		close(asked)
		<-release
		io.WriteString(w, "finished")
	})
	e := startEdge(t, []Route{{At: "r", Paths: []string{"/"}, Service: "im"}}, map[string]map[string]string{"im": {"n": node}})
	c := e.dial()
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	<-asked
	done := make(chan struct{})
	go func() {
		defer close(done)
		e.Shutdown(context.Background())
	}()
	eventually(t, "the gateway is stopping", func() bool { return e.stopping.Err() != nil })
	close(release)
	answer, err := io.ReadAll(c)
	if err != nil || !strings.HasSuffix(string(answer), "finished") {
		t.Errorf("got %q, %v", answer, err)
	}
	<-done
}

// A request that will not end is cut at the deadline, or at once when the
// context ends: the second signal.
func TestShutdownCuts(t *testing.T) {
	for _, how := range []string{"deadline", "second signal"} {
		t.Run(how, func(t *testing.T) {
			asked := make(chan struct{}, 1)
			node := httpNode(t, func(_ http.ResponseWriter, r *http.Request) {
				asked <- struct{}{}
				<-r.Context().Done()
			})
			e := startEdge(t, []Route{{At: "r", Paths: []string{"/"}, Service: "im"}}, map[string]map[string]string{"im": {"n": node}},
				func(c *Config) {
					c.Shutdown.Deadline = time.Hour
					if how == "deadline" {
						c.Shutdown.Deadline = 100 * time.Millisecond
					}
				})
			c := e.dialTLS()
			io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
			<-asked
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			done := make(chan struct{})
			go func() {
				defer close(done)
				e.Shutdown(ctx)
			}()
			if how == "second signal" {
				eventually(t, "the gateway is stopping", func() bool { return e.stopping.Err() != nil })
				cancel()
			}
			<-done
		})
	}
}

// A static folder outlives the table that a request took it from.
func TestReloadUnderStaticRequest(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "a.txt"), []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	e := startEdge(t, []Route{{At: "r", Paths: []string{"/site"}, Static: dir}}, nil)
	if resp, _ := e.answerTo("GET /site HTTP/1.1\r\nHost: x\r\n\r\n"); resp.StatusCode != 301 || resp.Header.Get("Location") != "/site/" {
		t.Errorf("the mount without a slash: %s to %q", resp.Status, resp.Header.Get("Location"))
	}
	for range 20 {
		if err := e.Apply(e.cfg, nil); err != nil {
			t.Fatal(err)
		}
		if _, body := e.answerTo("GET /site/a.txt HTTP/1.1\r\nHost: x\r\n\r\n"); body != "text" {
			t.Errorf("got %q", body)
		}
	}
}
