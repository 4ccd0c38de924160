package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"singlegate/discovery"
	"singlegate/gateway"
	"singlegate/gateway/admin"
	"singlegate/upstream"
)

// A socket is a client's WebSocket.
type socket struct {
	t    *testing.T
	conn io.ReadWriteCloser
}

// openSocket connects and reads the greeting of a stand-in.
func openSocket(t *testing.T, s *runningSite, path string) (*socket, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	conn, early, _, err := ws.Dial(ctx, "ws://"+s.listener+path)
	if err != nil {
		return nil, err
	}
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	t.Cleanup(func() { conn.Close() })
	k := &socket{t, conn}
	if early != nil { // frames that came with the 101
		k.conn = struct {
			io.Reader
			io.WriteCloser
		}{early, conn}
	}
	k.read()
	return k, nil
}

func mustOpen(t *testing.T, s *runningSite, path string) *socket {
	t.Helper()
	k, err := openSocket(t, s, path)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// read returns a message, or the code of a Close, which it answers
// before it leaves.
func (k *socket) read() (text string, code ws.StatusCode) {
	frame, err := ws.ReadFrame(k.conn)
	if err != nil {
		k.t.Errorf("reading a frame: %v", err)
		return "", 0
	}
	if frame.Header.OpCode != ws.OpClose {
		return string(frame.Payload), 0
	}
	code, _ = ws.ParseCloseFrameData(frame.Payload)
	ws.WriteFrame(k.conn, ws.MaskFrameInPlace(frame))
	k.conn.Close()
	return "", code
}

func (k *socket) echoes() {
	k.t.Helper()
	if err := ws.WriteFrame(k.conn, ws.MaskFrameInPlace(ws.NewTextFrame([]byte("still here")))); err != nil {
		k.t.Fatal(err)
	}
	if text, code := k.read(); !strings.Contains(text, "still here") {
		k.t.Fatalf("the echo is %q, close code %d", text, code)
	}
}

// A drain from the command line to the client's close frame and back.
func TestDrainEndToEnd(t *testing.T) {
	inLanguage(t, "C")
	s := startSite(t)
	other := mustOpen(t, s, "/ws/node2")
	var mine []*socket
	for range 3 {
		mine = append(mine, mustOpen(t, s, "/ws/node1"))
	}
	_, out, _ := command(t, "nodes", "--admin", s.admin)
	says(t, out, "      3  -")

	var readers sync.WaitGroup
	codes := make([]ws.StatusCode, len(mine))
	for i, k := range mine {
		readers.Go(func() { _, codes[i] = k.read() })
	}
	code, out, errs := command(t, "drain", "node1", "--service", "im", "--per-second", "100", "--wait", "--admin", s.admin)
	if code != exitOK || errs != "" {
		t.Fatalf("exit code %d: %s%s", code, out, errs)
	}
	says(t, out, "im/node1: no tunnel is left (3 closed")
	readers.Wait()
	for i, c := range codes {
		if c != 1012 {
			t.Errorf("tunnel %d was closed with %d, want 1012", i, c)
		}
	}

	other.echoes()
	if _, err := openSocket(t, s, "/ws/node1"); err == nil || !strings.Contains(err.Error(), "503") {
		t.Errorf("a new tunnel to the drained node: %v, want a 503", err)
	}
	_, out, _ = command(t, "nodes", "--admin", s.admin)
	says(t, out, "drained")
	_, out, _ = command(t, "drain", "node1", "--admin", s.admin)
	says(t, out, "im/node1 gets no new tunnels, and has none\n")

	for _, want := range []string{"im/node1 gets new tunnels again\n", "im/node1 was not being drained: nothing to do\n"} {
		code, out, errs = command(t, "undrain", "node1", "--admin", s.admin)
		if code != exitOK || out != want {
			t.Errorf("undrain: exit code %d, %q, want %q; %s", code, out, want, errs)
		}
	}
	mustOpen(t, s, "/ws/node1").echoes()
	other.echoes()
}

// Without --wait the command says what has begun and how to undo it.
func TestDrainWithoutWaiting(t *testing.T) {
	inLanguage(t, "zh_CN.UTF-8")
	s := startSite(t)
	var readers sync.WaitGroup
	t.Cleanup(readers.Wait) // when the sockets have been closed
	for range 3 {
		k := mustOpen(t, s, "/ws/node1")
		readers.Go(func() { io.Copy(io.Discard, k.conn) })
	}
	code, out, errs := command(t, "drain", "node1", "--per-second", "1", "--admin", s.admin)
	if code != exitOK {
		t.Fatalf("exit code %d: %s", code, errs)
	}
	says(t, out, "im/node1 不再接受新隧道", "singlegate undrain node1 --service im")
	code, out, errs = command(t, "undrain", "node1", "--admin", s.admin)
	if code != exitOK || !strings.Contains(out, "重新接受") {
		t.Errorf("exit code %d: %s%s", code, out, errs)
	}
}

func TestDrainNames(t *testing.T) {
	inLanguage(t, "C")
	s := startSite(t)
	for _, c := range []struct {
		name string
		args []string
		has  []string
	}{
		{"a slip", []string{"drain", "nod1"}, []string{`there is no node "nod1"; did you mean node1`}},
		{"another case", []string{"undrain", "NODE2"}, []string{`there is no node "NODE2"; did you mean node2`}},
		{"nothing like it", []string{"drain", "weixin"}, []string{`there is no node "weixin"; there are: node1, node2, 节点`}},
		{"of another service", []string{"drain", "节点", "--service", "im"}, []string{`there is no node "节点"; there are: node1, node2`}},
		{"no such service", []string{"drain", "node1", "--service", "ims"}, []string{`there is no service "ims"; did you mean im?`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			code, out, errs := command(t, append(c.args, "--admin", s.admin)...)
			if code != exitFailure || out != "" {
				t.Errorf("exit code %d, output %q", code, out)
			}
			says(t, errs, c.has...)
		})
	}
}

func TestSuggest(t *testing.T) {
	say := english()
	var many []string
	for i := range 30 {
		many = append(many, fmt.Sprintf("connector-%02d", i))
	}
	for _, c := range []struct {
		wrong string
		names []string
		want  string
	}{
		{"x", nil, ""},
		{"nodde1", []string{"node1", "node2", "app"}, "; did you mean node1, node2?"},
		{"a", []string{"b"}, "; did you mean b?"},
		{"ab", []string{"cd"}, "; there are: cd"},
		{"conn", many, "; did you mean connector-00, connector-01, connector-02, connector-03, connector-04?"},
		{"weixin", many, "; there are: " + strings.Join(many[:10], ", ") + " and 20 more"},
		{"weixin", []string{"b", "a", "b"}, "; there are: a, b"},
		{"节点1", []string{"节点2"}, "; did you mean 节点2?"},
	} {
		if got := say.suggest(c.wrong, c.names); got != c.want {
			t.Errorf("%q: %q, want %q", c.wrong, got, c.want)
		}
	}
}

func TestShellWord(t *testing.T) {
	for s, want := range map[string]string{
		"node-1.a_b": "node-1.a_b",
		"-x":         "'-x'",
		"a b":        "'a b'",
		"it's":       `'it'\''s'`,
		"":           "''",
		"节点":         "'节点'",
	} {
		if got := shellWord(s); got != want {
			t.Errorf("%q is typed as %s, want %s", s, got, want)
		}
	}
}

// A script is an admin address that gives one answer after the other, the last
// one for ever; an answer without a time is a failure.
func script(t *testing.T, answers ...admin.Nodes) string {
	t.Helper()
	var mu sync.Mutex
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		answer := answers[0]
		if len(answers) > 1 {
			answers = answers[1:]
		}
		if answer.Time.IsZero() {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		json.NewEncoder(w).Encode(answer)
	}))
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

// seen is what the gateway says of im/node1.
func seen(tunnels int, draining bool, drains ...admin.Drain) admin.Nodes {
	node := gateway.NodeStatus{ID: "node1", Status: discovery.Passing, Tunnels: tunnels, Draining: draining}
	return admin.Nodes{
		Time: time.Now(), Drains: drains,
		Services: []admin.Service{{ServiceStatus: gateway.ServiceStatus{Name: "im", Nodes: []gateway.NodeStatus{node}}}},
	}
}

func drainOf(left int, eta float64) admin.Drain {
	return admin.Drain{DrainStatus: gateway.DrainStatus{Service: "im", Node: "node1", Left: left, PerSecond: 50}, DoneIn: eta}
}

func TestDrainWait(t *testing.T) {
	gone := admin.Nodes{Time: time.Now()}
	goneWithDrain := admin.Nodes{Time: time.Now(), Drains: []admin.Drain{drainOf(2, 1)}}
	goneLingering := admin.Nodes{Time: time.Now(), Services: []admin.Service{{ServiceStatus: gateway.ServiceStatus{
		Name: "im", Gone: []gateway.GoneNode{{ID: "node1", Tunnels: 1, Lingering: 1}},
	}}}}
	failure := admin.Nodes{}
	for _, c := range []struct {
		name    string
		answers []admin.Nodes
		out     string // what is written, %s for how long it took
		err     string
	}{
		{"to the end", []admin.Nodes{seen(400, true, drainOf(400, 8)), seen(280, true, drainOf(280, 5.6)), seen(1, true), seen(0, true)},
			"im/node1: 0 of 400 closed, 8s left\nim/node1: 120 of 400 closed, 6s left\nim/node1: 399 of 400 closed, waiting for the last\nim/node1: no tunnel is left (400 closed, in 1s)\n", ""},
		{"nothing to do", []admin.Nodes{seen(0, true)}, "im/node1: no tunnel is left (0 closed, in 1s)\n", ""},
		{"undrained by somebody", []admin.Nodes{seen(2, true, drainOf(2, 1)), seen(2, false)},
			"im/node1: 0 of 2 closed, 1s left\n", "im/node1: somebody has ended the drain; it has 2 tunnels"},
		{"deregistered meanwhile", []admin.Nodes{seen(2, true, drainOf(2, 1)), goneWithDrain, gone},
			"im/node1: 0 of 2 closed, 1s left\nim/node1: 0 of 2 closed, 1s left\nim/node1: no tunnel is left (2 closed, in 1s)\n", ""},
		{"gone, and waiting for the last", []admin.Nodes{seen(2, true, drainOf(2, 1)), goneLingering, gone},
			"im/node1: 0 of 2 closed, 1s left\nim/node1: 1 of 2 closed, waiting for the last\nim/node1: no tunnel is left (2 closed, in 1s)\n", ""},
		{"gone before", []admin.Nodes{gone}, "im/node1: the node is gone, and no drain of it is under way\n", ""},
		{"an answer missing", []admin.Nodes{failure, failure, seen(0, true)}, "im/node1: no tunnel is left (0 closed, in 1s)\n", ""},
		{"the gateway lost", []admin.Nodes{seen(2, true, drainOf(2, 1)), failure}, "im/node1: 0 of 2 closed, 1s left\n", "502 Bad Gateway"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out bytes.Buffer
			w := newDrainWait(upstream.Key{Service: "im", ID: "node1"}, 0, clientOf(t, script(t, c.answers...)), &out)
			w.every, w.between = time.Millisecond, 0
			err := w.run(context.Background())
			if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
				t.Errorf("the error is %v, want %q", err, c.err)
			}
			if out.String() != c.out {
				t.Errorf("the output is\n%swant\n%s", &out, c.out)
			}
		})
	}
}

func TestDrainWaitStuck(t *testing.T) {
	var out bytes.Buffer
	w := newDrainWait(upstream.Key{Service: "im", ID: "node1"}, 0, clientOf(t, script(t, seen(2, true))), &out)
	w.every, w.between, w.patience = time.Millisecond, time.Hour, time.Millisecond
	if err := w.run(context.Background()); err == nil || !strings.Contains(err.Error(), "2 tunnels are left") {
		t.Errorf("the error is %v", err)
	}
	if n := strings.Count(out.String(), "\n"); n != 1 {
		t.Errorf("%d lines within the time of one:\n%s", n, &out)
	}
}

func TestDrainWaitCut(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	out := &blocks{enough: 2, end: cancel}
	w := newDrainWait(upstream.Key{Service: "im", ID: "node1"}, 0, clientOf(t, script(t, seen(2, true, drainOf(2, 1)))), out)
	w.every, w.terminal = time.Millisecond, true
	if err := w.run(ctx); err == nil || err.Error() != english().waitCut {
		t.Errorf("the error is %v", err)
	}
	const line = "\rim/node1: 0 of 2 closed, 1s left\x1b[K"
	if got, want := out.String(), line+line+"\r\x1b[K"; got != want {
		t.Errorf("a terminal got %q, want %q", got, want)
	}
}
