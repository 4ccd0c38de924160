package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"singlegate/discovery"
	"singlegate/internal/leaktest"
)

func TestMain(m *testing.M) { leaktest.Main(m, "http.(*persistConn)") }

// rawNode handles each connection with f on the given address until the test ends.
func rawNode(t *testing.T, address string, f func(net.Conn)) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Skipf("cannot listen: %v", err)
	}
	var group sync.WaitGroup
	group.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.SetDeadline(time.Now().Add(20 * time.Second))
			group.Go(func() {
				defer c.Close()
				f(c)
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		group.Wait()
	})
	return l.Addr().String()
}

func answering(answer string) func(net.Conn) {
	return func(c net.Conn) {
		http.ReadRequest(readerOf(c))
		io.WriteString(c, answer)
	}
}

// node makes a node with one unnamed port.
func node(id string, weight int) discovery.Node {
	return discovery.Node{ID: id, Address: "10.0.0.1", Ports: map[string]uint16{"": 80}, Weight: weight}
}

func snapshot(service string, nodes ...discovery.Node) discovery.Snapshot {
	return discovery.Static{Services: map[string][]discovery.Node{service: nodes}}.Snapshot()
}

func viewOf(nodes ...discovery.Node) *Service {
	view, _ := New(nil).Apply(snapshot("s", nodes...))
	return view.Services["s"]
}

// Over one round every node is picked as often as its weight says, and no node
// twice in a row more often than its weight makes necessary.
func TestRoundRobinFollowsWeights(t *testing.T) {
	cases := []struct {
		weights, counts []int // counts: picks in one round
	}{
		{[]int{1}, []int{1}},
		{[]int{1, 1, 1}, []int{1, 1, 1}},
		{[]int{2, 1}, []int{2, 1}},
		{[]int{5, 1, 1}, []int{5, 1, 1}},
		{[]int{4, 2, 2}, []int{2, 1, 1}},
		{[]int{0, -3, 2}, []int{1, 1, 2}}, // at least 1 each
		{[]int{100, 100}, []int{1, 1}},
		{[]int{1000, 3000}, []int{1, 3}},
		{[]int{1_000_000, 1}, []int{1023, 1}}, // scaled down, never away
	}
	for _, c := range cases {
		var nodes []discovery.Node
		round := 0
		for i, w := range c.weights {
			nodes = append(nodes, node(fmt.Sprint(i), w))
			round += c.counts[i]
		}
		s := viewOf(nodes...)
		for range 3 { // every round, wherever it begins
			counts := make([]int, len(c.weights))
			for range round {
				var i int
				fmt.Sscan(s.RoundRobin("", nil).ID, &i)
				counts[i]++
			}
			if !slices.Equal(counts, c.counts) {
				t.Errorf("weights %v: picked %v, want %v", c.weights, counts, c.counts)
			}
		}
	}
}

func TestRoundRobinIsSmooth(t *testing.T) {
	s := viewOf(node("a", 5), node("b", 1), node("c", 1))
	var picked strings.Builder
	for range 7 {
		picked.WriteString(s.RoundRobin("", nil).ID)
	}
	if got := picked.String(); got != "aabacaa" {
		t.Errorf("picked %s, want aabacaa", got)
	}
}

// Concurrent pickers get their shares too: each turn is given out once.
func TestRoundRobinIsExactWhenConcurrent(t *testing.T) {
	s := viewOf(node("a", 3), node("b", 1))
	var mu sync.Mutex
	counts := map[string]int{}
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for range 100 {
				id := s.RoundRobin("", nil).ID
				mu.Lock()
				counts[id]++
				mu.Unlock()
			}
		})
	}
	group.Wait()
	if counts["a"] != 600 || counts["b"] != 200 {
		t.Errorf("picked %v", counts)
	}
}

// Snapshots that change nothing must not send every request to the first node.
func TestRoundRobinGoesOnAcrossSnapshots(t *testing.T) {
	set := New(nil)
	counts := map[string]int{}
	for range 10 {
		view, _ := set.Apply(snapshot("s", node("a", 1), node("b", 1)))
		counts[view.Services["s"].RoundRobin("", nil).ID]++
	}
	if counts["a"] != 5 || counts["b"] != 5 {
		t.Errorf("picked %v", counts)
	}
}

func TestLeastConnections(t *testing.T) {
	s := viewOf(node("a", 1), node("b", 1), node("c", 2))
	var leases []*Lease
	counts := map[string]int{}
	for range 8 {
		n := s.LeastConnections("", nil)
		leases = append(leases, n.Lease())
		counts[n.ID]++
	}
	if counts["a"] != 2 || counts["b"] != 2 || counts["c"] != 4 {
		t.Errorf("picked %v", counts)
	}
	for _, l := range leases {
		if l.Node.ID == "b" {
			l.Done()
			l.Done() // again: nothing
		}
	}
	for range 3 {
		if got := s.LeastConnections("", nil).ID; got != "b" {
			t.Errorf("picked %s, want the one without leases", got)
		}
	}
	for _, n := range s.Nodes() {
		if n.Active() < 0 {
			t.Errorf("%s has %d leases", n.ID, n.Active())
		}
	}
}

func TestLeastConnectionsTakesTurnsAmongEquals(t *testing.T) {
	s := viewOf(node("a", 1), node("b", 1), node("c", 1))
	counts := map[string]int{}
	for range 9 {
		counts[s.LeastConnections("", nil).ID]++
	}
	if counts["a"] != 3 || counts["b"] != 3 || counts["c"] != 3 {
		t.Errorf("picked %v", counts)
	}
}

func TestPickingSkipsTriedNodesAndMissingPorts(t *testing.T) {
	other := discovery.Node{ID: "tcp-only", Address: "10.0.0.9", Ports: map[string]uint16{"tcp": 1, "x": 2}, Weight: 10}
	s := viewOf(node("a", 5), other, node("b", 1))
	for name, pick := range map[string]func(string, []*Node) *Node{"round robin": s.RoundRobin, "least connections": s.LeastConnections} {
		for range 8 { // wherever it begins
			var tried []*Node
			for n := pick("", tried); n != nil; n = pick("", tried) {
				if slices.Contains(tried, n) || n.ID == "tcp-only" {
					t.Fatalf("%s: picked %s after %d others", name, n.ID, len(tried))
				}
				tried = append(tried, n)
			}
			if len(tried) != 2 {
				t.Errorf("%s: %d nodes were picked, want 2", name, len(tried))
			}
		}
		if n := pick("tcp", nil); n == nil || n.ID != "tcp-only" {
			t.Errorf("%s: port tcp: got %v", name, n)
		}
		if n := pick("none", nil); n != nil {
			t.Errorf("%s: port none: got %s", name, n.ID)
		}
	}
	empty := viewOf()
	if empty.RoundRobin("", nil) != nil || empty.LeastConnections("", nil) != nil {
		t.Error("a node was picked out of none")
	}
}

func TestNodeAddresses(t *testing.T) {
	s := viewOf(
		discovery.Node{ID: "one", Address: "10.0.0.1", Ports: map[string]uint16{"ws": 81}},
		discovery.Node{ID: "two", Address: "fd00::1", Ports: map[string]uint16{"ws": 81, "http": 82}},
	)
	cases := []struct{ node, port, addr string }{
		{"one", "", "10.0.0.1:81"}, {"one", "ws", "10.0.0.1:81"}, {"one", "http", ""},
		{"two", "", ""}, {"two", "http", "[fd00::1]:82"},
	}
	for _, c := range cases {
		addr, ok := s.Node(c.node).Addr(c.port)
		if ok != (c.addr != "") || ok && addr != c.addr {
			t.Errorf("%s %q: %s, %v", c.node, c.port, addr, ok)
		}
	}
}

func TestNodesByName(t *testing.T) {
	n := node("Node1", 1)
	n.Names = []string{"3050", "Gate"}
	s := viewOf(n, node("b", 1))
	for _, name := range []string{"Node1", "3050", "Gate"} {
		if got := s.Node(name); got == nil || got.ID != "Node1" {
			t.Errorf("%s: %v", name, got)
		}
		if got := s.NodeByHost(strings.ToLower(name)); got == nil || got.ID != "Node1" {
			t.Errorf("host %s: %v", name, got)
		}
	}
	for _, name := range []string{"node1", "gate", "", "c"} {
		if got := s.Node(name); got != nil {
			t.Errorf("%q found %s", name, got.ID)
		}
	}
}

func TestChangesOfSnapshots(t *testing.T) {
	at := func(n discovery.Node, address string, port uint16) discovery.Node {
		n.Address, n.Ports = address, map[string]uint16{"": port}
		return n
	}
	renamed := node("a", 7)
	renamed.Names = []string{"x"}
	set := New(nil)
	steps := []struct {
		nodes []discovery.Node
		want  string
	}{
		{[]discovery.Node{node("b", 1), node("a", 1)}, "+a +b"},
		{[]discovery.Node{node("a", 1), node("b", 1)}, ""},
		{[]discovery.Node{renamed, node("b", 2)}, ""}, // names and weights move nothing
		{[]discovery.Node{at(renamed, "10.0.0.2", 80), node("b", 1)}, "~a"},
		{[]discovery.Node{at(renamed, "10.0.0.2", 81), node("c", 1)}, "+c -b ~a"},
		{[]discovery.Node{{ID: "a", Address: "10.0.0.2", Ports: map[string]uint16{"": 81, "ws": 82}}}, "-c ~a"},
		{[]discovery.Node{{ID: "a", Address: "10.0.0.2", Ports: map[string]uint16{"": 81, "tcp": 82}}}, "~a"},
		{nil, "-a"},
		{[]discovery.Node{node("a", 1)}, "+a"},
	}
	for i, s := range steps {
		view, c := set.Apply(snapshot("s", s.nodes...))
		var got []string
		for _, list := range []struct {
			sign string
			keys []Key
		}{{"+", c.Added}, {"-", c.Removed}, {"~", c.Moved}} {
			for _, k := range list.keys {
				got = append(got, list.sign+k.ID)
			}
		}
		if strings.Join(got, " ") != s.want {
			t.Errorf("step %d: %v, want %s", i, got, s.want)
		}
		if view.Services["s"].Source != "file" || len(view.Services["s"].Nodes()) != len(s.nodes) {
			t.Errorf("step %d: view %+v", i, view)
		}
	}
}

// A lease counts for its node whatever snapshots come, and until its node goes.
func TestLeasesSurviveSnapshots(t *testing.T) {
	set := New(nil)
	first, _ := set.Apply(snapshot("s", node("a", 1), node("b", 1)))
	lease := first.Services["s"].Node("a").Lease()
	moved := node("a", 1)
	moved.Address = "10.9.9.9"
	second, _ := set.Apply(snapshot("s", node("b", 1), moved))
	a := second.Services["s"].Node("a")
	if a.Active() != 1 || a.Address != "10.9.9.9" || first.Services["s"].Node("a").Address != "10.0.0.1" {
		t.Errorf("%s has %d leases", a.Address, a.Active())
	}
	if got := second.Services["s"].LeastConnections("", nil).ID; got != "b" {
		t.Errorf("picked %s", got)
	}
	set.Apply(snapshot("s", node("b", 1)))
	lease.Done() // of a node that is no more
	third, _ := set.Apply(snapshot("s", moved))
	if n := third.Services["s"].Node("a").Active(); n != 0 {
		t.Errorf("a node that came back has %d leases", n)
	}
	if k := lease.Node.Key(); k != (Key{"s", "a"}) {
		t.Errorf("key %v", k)
	}
}

// localhost may stand for either address family, whichever the node listens on.
func TestLocalhostReachesBothFamilies(t *testing.T) {
	for _, address := range []string{"127.0.0.1:0", "[::1]:0"} {
		t.Run(address, func(t *testing.T) {
			const key = "dGhlIHNhbXBsZSBub25jZQ=="
			addr := rawNode(t, address, func(c net.Conn) {
				req, err := http.ReadRequest(readerOf(c))
				if err != nil {
					return
				}
				if req.Header.Get("Upgrade") == "" {
					io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
					return
				}
				io.WriteString(c, switchAnswer(key))
			})
			_, port, _ := net.SplitHostPort(addr)
			if strings.HasPrefix(address, "[") && !resolvesToV6("localhost") {
				t.Skip("localhost has no IPv6 address here")
			}
			set := New(nil)
			defer set.Close()
			req, _ := http.NewRequest("GET", "http://localhost:"+port+"/", nil)
			answer, err := set.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			answer.Body.Close()
			up, err := set.Upgrade(t.Context(), handshakeTo("localhost:"+port, key))
			if err != nil {
				t.Fatal(err)
			}
			up.Conn.Close()
		})
	}
}

func resolvesToV6(name string) bool {
	addrs, _ := net.DefaultResolver.LookupNetIP(context.Background(), "ip6", name)
	return len(addrs) > 0
}

// A failed dial is told from a failed exchange: only after the first may
// another node be tried.
func TestDialFailed(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	refused := l.Addr().String()
	l.Close()
	closing := rawNode(t, "127.0.0.1:0", answering(""))
	set := New(nil)
	defer set.Close()
	for addr, want := range map[string]bool{refused: true, closing: false, "no-such-host.invalid:80": true} {
		req, _ := http.NewRequest("GET", "http://"+addr+"/", nil)
		if _, err := set.RoundTrip(req); err == nil || DialFailed(err) != want {
			t.Errorf("RoundTrip %s: %v, DialFailed %v", addr, err, DialFailed(err))
		}
		if _, err := set.Upgrade(t.Context(), handshakeTo(addr, "k")); err == nil || DialFailed(err) != want {
			t.Errorf("Upgrade %s: %v, DialFailed %v", addr, err, DialFailed(err))
		}
	}
}

type dialerFunc func(ctx context.Context, network, address string) (net.Conn, error)

func (f dialerFunc) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	return f(ctx, network, address)
}

// A dial that takes too long is a failed dial.
func TestConnectTimeout(t *testing.T) {
	set := New(dialerFunc(func(ctx context.Context, _, _ string) (net.Conn, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}))
	ctx := WithConnectTimeout(t.Context(), 10*time.Millisecond)
	req, _ := http.NewRequestWithContext(ctx, "GET", "http://10.0.0.1/", nil)
	if _, err := set.RoundTrip(req); !DialFailed(err) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("RoundTrip: %v", err)
	}
	u := handshakeTo("10.0.0.1:80", "k")
	u.Connect = 10 * time.Millisecond
	if _, err := set.Upgrade(t.Context(), u); !DialFailed(err) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Upgrade: %v", err)
	}
}

// A panic of the dialer belongs to the request for which it dialled.
func TestPanicOfTheDialer(t *testing.T) {
	set := New(dialerFunc(func(context.Context, string, string) (net.Conn, error) { panic("no such luck") }))
	req, _ := http.NewRequest("GET", "http://10.0.0.1/", nil)
	for name, f := range map[string]func(){
		"RoundTrip": func() { set.RoundTrip(req) },
		"Upgrade":   func() { set.Upgrade(t.Context(), handshakeTo("10.0.0.1:80", "k")) },
	} {
		func() {
			defer func() {
				if v := recover(); v == nil || !strings.Contains(fmt.Sprint(v), "no such luck") {
					t.Errorf("%s: recovered %v", name, v)
				}
			}()
			f()
		}()
	}
}
