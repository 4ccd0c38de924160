package gateway

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"singlegate/discovery"
	"singlegate/gateway/relay"
	"singlegate/upstream"
)

// told is what the server's own metrics say now: "tunnels{im,node1}", without
// "singlegate_", labels in the order of their names.
func told(t *testing.T, s *Server) map[string]float64 {
	t.Helper()
	families, err := s.Metrics().Gather()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]float64{}
	for _, f := range families {
		name, ours := strings.CutPrefix(f.GetName(), "singlegate_")
		for _, m := range f.GetMetric() {
			if !ours {
				continue
			}
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, l.GetValue())
			}
			series := name
			if len(labels) > 0 {
				series += "{" + strings.Join(labels, ",") + "}"
			}
			all[series] = m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	return all
}

// tells waits until the metrics of that name are these.
func (e *edge) tells(name string, want map[string]float64) {
	e.t.Helper()
	var got map[string]float64
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		got = told(e.t, e.Server)
		maps.DeleteFunc(got, func(series string, _ float64) bool {
			base, _, _ := strings.Cut(series, "{")
			return base != name
		})
		if maps.Equal(got, want) {
			return
		}
	}
	e.t.Errorf("%s is %v, want %v", name, got, want)
}

func TestMetricsOfRequests(t *testing.T) {
	node := httpNode(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/api/odd" {
			w.WriteHeader(799)
		}
		io.WriteString(w, "hello")
	})
	e := startEdge(t, []Route{
		{At: "a", Paths: []string{"/api"}, Service: "web"},
		{At: "b", Host: "{node}.im.example.gov", Paths: []string{"/"}, Service: "im"},
		{At: "c", Paths: []string{"/ws/{node}"}, Service: "im"},
		{At: "d", Paths: []string{"/check"}, Page: "check"},
	}, map[string]map[string]string{"web": {"w1": node}, "im": {"node1": echoNode(t), "down": refusedAddr(t)}})

	for _, path := range []string{"/api", "/api/odd", "/api", "/nowhere", "/nowhere/else", "/check/"} {
		e.answerTo("GET " + path + " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
	}
	e.raw("not HTTP\r\n\r\n")
	e.answerTo(handshake("/ws/node9"))
	e.answerTo(handshake("/ws/down"))
	c, _ := open(t, e.dial(), handshake("/ws/node1"))
	e.tells("requests_total", map[string]float64{
		"requests_total{/api,200}": 2, "requests_total{/api,other}": 1,
		"requests_total{,404}": 2, "requests_total{,400}": 1,
		"requests_total{/check,200}":     1,
		"requests_total{/ws/{node},404}": 1,
		"requests_total{/ws/{node},503}": 1,
		"requests_total{/ws/{node},101}": 1,
	})
	e.tells("refused_total", map[string]float64{
		"refused_total{no_route}": 2, "refused_total{bad_request}": 1, "refused_total{node_unknown}": 1, "refused_total{node_down}": 1,
	})
	c.goodbye()
}

func TestMetricsOfTunnels(t *testing.T) {
	f := fleet{}
	f.add("node1", echoNode(t))
	f.add("node2", echoNode(t))
	e := startFleet(t, f, withPolicy(func(p *TunnelPolicy) { p.Deregistered = PolicyKeep }))
	e.tells("tunnels", map[string]float64{"tunnels{node1,im}": 0, "tunnels{node2,im}": 0})

	a, b := e.openWS("node1"), e.openWS("node1")
	b.lives() // 12 bytes of text: 14 from the node, 18 with a mask
	e.tells("tunnels", map[string]float64{"tunnels{node1,im}": 2, "tunnels{node2,im}": 0})
	b.goodbye() // 2 bytes: 4 from the node, 8 with a mask
	e.tells("tunnels_total", map[string]float64{"tunnels_total{client,node1,im}": 1})
	e.tells("tunnel_bytes_total", map[string]float64{"tunnel_bytes_total{in,node1,im}": 26, "tunnel_bytes_total{out,node1,im}": 18})
	e.tells("tunnel_messages_total", map[string]float64{"tunnel_messages_total{in,node1,im}": 1, "tunnel_messages_total{out,node1,im}": 1})

	// A node that is gone is told of for as long as it has tunnels, and its
	// counts a while longer.
	delete(f, "node1")
	delete(f, "node2")
	e.Publish(f.snapshot())
	e.tells("tunnels", map[string]float64{"tunnels{node1,im}": 1})
	a.lives()
	a.goodbye()
	e.tells("tunnels", map[string]float64{})
	e.tells("tunnels_total", map[string]float64{"tunnels_total{client,node1,im}": 2})
	setClock(e.metrics.traffic, time.Now().Add(keepGone+time.Minute))
	e.tells("tunnels_total", map[string]float64{})
	e.tells("tunnel_bytes_total", map[string]float64{})
}

// What tunnels carry is counted as it passes and not once more at the end; a node
// that leaves takes nothing away, and one that comes back counts on.
func TestTrafficIsCountedLive(t *testing.T) {
	f := fleet{}
	f.add("node1", echoNode(t))
	f.add("node2", echoNode(t))
	e := startFleet(t, f, withPolicy(func(p *TunnelPolicy) { p.Deregistered = PolicyKeep }))
	counted := func(messages, in, out float64) {
		t.Helper()
		e.tells("tunnel_messages_total", map[string]float64{"tunnel_messages_total{in,node1,im}": messages, "tunnel_messages_total{out,node1,im}": messages})
		e.tells("tunnel_bytes_total", map[string]float64{"tunnel_bytes_total{in,node1,im}": in, "tunnel_bytes_total{out,node1,im}": out})
	}
	a, b := e.openWS("node1"), e.openWS("node1")
	a.lives() // 12 bytes of text: 14 from the node, 18 with a mask
	counted(1, 18, 14)
	b.lives()
	a.lives()
	counted(3, 54, 42)
	if got, want := e.Services()[0].Nodes[0].Traffic, (Traffic{54, 3, 42, 3}); got != want {
		t.Errorf("the node's traffic is %+v, want %+v", got, want)
	}
	if got := e.Services()[0].Nodes[1].Traffic; got != (Traffic{}) {
		t.Errorf("the other node's traffic is %+v", got)
	}
	b.goodbye() // 2 bytes: 4 from the node, 8 with a mask
	e.tells("tunnels_total", map[string]float64{"tunnels_total{client,node1,im}": 1})
	counted(3, 62, 46)

	node1 := f["node1"]
	delete(f, "node1")
	e.Publish(f.snapshot())
	told(t, e.Server) // which notes when it went
	setClock(e.metrics.traffic, time.Now().Add(keepGone+time.Minute))
	a.lives()
	counted(4, 80, 60)
	a.goodbye()
	e.tells("tunnels_total", map[string]float64{"tunnels_total{client,node1,im}": 2})
	counted(4, 88, 64)
	f["node1"] = node1
	e.Publish(f.snapshot())
	c := e.openWS("node1")
	c.lives()
	counted(5, 106, 78)
	c.goodbye()
}

func setClock(t *traffic, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.now = func() time.Time { return now }
}

// Nodes with ever new ids are forgotten even if nobody asks for metrics, and
// one that comes back counts on.
func TestTrafficForgets(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	tr := newTraffic()
	tr.now = func() time.Time { return now }
	there := map[string]bool{"stays": true, "returns": true}
	has := func(k upstream.Key) bool { return there[k.ID] }
	end := func(id string) {
		tr.ended(upstream.Key{Service: "im", ID: id}, relay.Report{EndedBy: relay.EndIdle}, has)
	}
	end("stays")
	end("returns")
	for i := range 50 {
		now = now.Add(time.Minute)
		end(fmt.Sprintf("pod-%d", i))
		there["returns"] = i%10 > 2
	}
	if n, most := len(tr.nodes), 2+int(keepGone/time.Minute)+2; n > most {
		t.Errorf("%d nodes are kept, want at most %d", n, most)
	}
	end("returns")
	for id, want := range map[string]int64{"stays": 1, "returns": 2} {
		if n := tr.nodes[upstream.Key{Service: "im", ID: id}]; n == nil || n.ended[relay.EndIdle] != want {
			t.Errorf("%s has %+v, want %d tunnels ended", id, n, want)
		}
	}
}

// However many nodes have a port of their own, the ports of a rule are one
// listener and one route.
func TestMetricsOfNodePorts(t *testing.T) {
	f := fleet{}
	f.add("node1", echoNode(t))
	f.add("node2", echoNode(t))
	base := freePorts(t, 2) - 1
	e := startFleet(t, f, func(c *Config) {
		c.NodePorts = []NodePort{{At: "p", Service: "im", Kind: "http", TLS: true, Listen: PortRule{Base: base}}}
	})
	for i := range 2 {
		addr := loopback(base + 1 + i)
		c, _ := open(t, e.dialTo(addr, true), handshake("/"))
		c.goodbye()
		plain := e.dialTo(addr, false)
		io.WriteString(plain, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		io.Copy(io.Discard, plain)
	}
	e.tells("requests_total", map[string]float64{"requests_total{port im/{node} http,101}": 2})
	e.tells("handshake_failures_total", map[string]float64{"handshake_failures_total{not_tls,im/{node} http}": 2})
}

// A TCP connection is no request, but its refusal is one.
func TestMetricsOfTCP(t *testing.T) {
	f := fleet{}
	f.add("node1", tcpNode(t, "node1"))
	f.add("node2", refusedAddr(t))
	base := freePorts(t, 2) - 1
	e := startFleet(t, f, func(c *Config) {
		c.NodePorts = []NodePort{{At: "p", Service: "im", Kind: "tcp", Listen: PortRule{Base: base}}}
	})
	down := e.dialTo(loopback(base+2), false)
	io.Copy(io.Discard, down)
	e.tells("refused_total", map[string]float64{"refused_total{node_down}": 1})
	up := e.dialTo(loopback(base+1), false)
	e.tells("tunnels", map[string]float64{"tunnels{node1,im}": 1, "tunnels{node2,im}": 0})
	up.Close()
	e.tells("tunnels", map[string]float64{"tunnels{node1,im}": 0, "tunnels{node2,im}": 0})
	e.tells("requests_total", map[string]float64{})
}

func TestMetricsOfHandshakes(t *testing.T) {
	e := startEdge(t, nil, nil)
	c := guarded(t, tls.Client(e.dialTo(e.secure, false), &tls.Config{ServerName: "localhost"})).(*tls.Conn) // trusts nobody
	if err := c.Handshake(); err == nil {
		t.Fatal("the handshake succeeded")
	}
	plain := e.dialTo(e.secure, false)
	io.WriteString(plain, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	io.Copy(io.Discard, plain)
	e.dialTo(e.secure, false).Close()
	e.tells("handshake_failures_total", map[string]float64{
		"handshake_failures_total{client_refused,tls}": 1, "handshake_failures_total{not_tls,tls}": 1, "handshake_failures_total{client_left,tls}": 1,
	})
}

func TestMetricsOfNodes(t *testing.T) {
	e := startEdge(t, []Route{{At: "r", Paths: []string{"/"}, Service: "im"}}, map[string]map[string]string{"im": nil, "app": nil}, func(c *Config) {
		c.Services = append(c.Services, ServiceRef{Name: "unknown", Ports: []string{""}})
		c.NodePorts = []NodePort{{At: "p", Service: "im", Kind: "tcp", Host: "127.0.0.1", Listen: PortRule{Meta: "public"}}}
	})
	f := fleet{}
	for id, s := range map[string]discovery.Status{
		"a": discovery.Passing, "b": discovery.Passing, "c": discovery.Failing, "d": discovery.Maintenance, "e": "", "f": discovery.Maintenance, "g": discovery.Passing,
	} {
		f.add(id, "127.0.0.1:1", status(s))
	}
	snap := f.snapshot()
	im := snap.Services["im"]
	im.Source, im.Taken, im.Fault = "file+consul", time.Now().Add(-time.Hour), "consul: connection refused"
	im.LeftOut = []discovery.LeftOut{{Instance: "x", Reason: "no port"}, {Instance: "y", Reason: "no id"}}
	snap.Services["im"] = im
	snap.Services["app"] = discovery.Service{Source: "file", Taken: time.Now().Add(-time.Hour)}
	e.Publish(snap)
	if err := e.Drain("im", "f", 1); err != nil {
		t.Fatal(err)
	}
	lease := e.state.Load().table.service("im").Node("g").Lease()
	lease.Failed()
	lease.Done()

	e.tells("nodes", map[string]float64{
		"nodes{im,passing}": 3, "nodes{im,failing}": 1, "nodes{im,maintenance}": 1, "nodes{im,ejected}": 1, "nodes{im,draining}": 1,
		"nodes{app,passing}": 0, "nodes{app,failing}": 0, "nodes{app,maintenance}": 0, "nodes{app,ejected}": 0, "nodes{app,draining}": 0,
	})
	e.tells("left_out", map[string]float64{"left_out{im}": 2, "left_out{app}": 0})
	e.tells("snapshot_fault", map[string]float64{"snapshot_fault{im}": 1, "snapshot_fault{app}": 0, "snapshot_fault{unknown}": 1})
	e.tells("port_faults", map[string]float64{"port_faults": 7})
	all := told(t, e.Server)
	if age := all["snapshot_age_seconds{im,file+consul}"]; age < 3600 || age > 3700 {
		t.Errorf("the snapshot is %v seconds old", age)
	}
	for series := range all {
		if strings.HasPrefix(series, "snapshot_age_seconds") && !strings.Contains(series, "im") {
			t.Errorf("%s: a file does not age", series)
		}
	}
}

func TestMetricsOfDrains(t *testing.T) {
	f := fleet{}
	f.add("node1", echoNode(t))
	e := startFleet(t, f, func(*Config) {})
	a, b := e.openWS("node1"), e.openWS("node1")
	e.tells("drains", map[string]float64{"drains": 0})
	if err := e.Drain("im", "node1", 1); err != nil {
		t.Fatal(err)
	}
	e.tells("drains", map[string]float64{"drains": 1})
	if err := e.Undrain("im", "node1"); err != nil {
		t.Fatal(err)
	}
	e.tells("drains", map[string]float64{"drains": 0})
	a.Close()
	b.Close()
}

func TestHealth(t *testing.T) {
	later := time.Now().Add(time.Hour)
	for _, c := range []struct {
		node NodeStatus
		want Health
	}{
		{NodeStatus{}, HealthPassing},
		{NodeStatus{Status: discovery.Passing}, HealthPassing},
		{NodeStatus{Status: discovery.Passing, EjectedUntil: later}, HealthEjected},
		{NodeStatus{Status: discovery.Failing, EjectedUntil: later}, HealthFailing},
		{NodeStatus{Status: discovery.Maintenance, EjectedUntil: later}, HealthMaintenance},
		{NodeStatus{Status: discovery.Maintenance, Draining: true}, HealthDraining},
	} {
		if got := c.node.Health(); got != c.want {
			t.Errorf("%+v is %s, want %s", c.node, got, c.want)
		}
		if !slices.Contains(healths(), c.want) {
			t.Errorf("%s is not among all healths", c.want)
		}
	}
}

// A tunnel that a defect ended counts as a panic.
func TestMetricsOfPanics(t *testing.T) {
	e := startEdge(t, nil, nil)
	rec := &record{server: e.Server, service: "im"}
	rec.logTunnel(relay.WebSocket, "node1", relay.Report{EndedBy: relay.EndPanic, Cause: errors.New("defect")})
	e.tells("panics_total", map[string]float64{"panics_total": 1})
	e.tells("tunnels_total", map[string]float64{"tunnels_total{panic,node1,im}": 1})
}

// The process and the runtime are told of, and nothing is in a global registry.
func TestMetricsOfTheProcess(t *testing.T) {
	e := startEdge(t, nil, nil)
	families, err := e.Metrics().Gather()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range families {
		names = append(names, f.GetName())
	}
	if !slices.Contains(names, "go_goroutines") {
		t.Errorf("go_goroutines is missing in %v", names)
	}
	if problems, err := testutil.GatherAndLint(e.Metrics()); err != nil || len(problems) > 0 {
		t.Errorf("promlint: %v, %v", problems, err)
	}
	global, err := prometheus.DefaultGatherer.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range global {
		if strings.HasPrefix(f.GetName(), "singlegate") {
			t.Errorf("%s is in the global registry", f.GetName())
		}
	}
}

func TestCounters(t *testing.T) {
	c := newCounters(prometheus.CounterOpts{Name: "x_total"}, []string{"n"}, func(n int) []string { return []string{fmt.Sprint("\xff", n)} })
	c.most = 20
	for n := range 30 {
		c.inc(n)
		c.inc(n)
	}
	if n := testutil.CollectAndCount(c.vec); n != 21 {
		t.Errorf("%d series, want 20 and one for the rest", n)
	}
	if v := testutil.ToFloat64(c.vec.WithLabelValues("other")); v != 20 {
		t.Errorf("the rest counts %v, want 20", v)
	}
	if v := testutil.ToFloat64(c.vec.WithLabelValues("\uFFFD7")); v != 2 {
		t.Errorf("7 counts %v, want 2", v)
	}
	if allocs := testing.AllocsPerRun(100, func() { c.inc(7) }); allocs != 0 {
		t.Errorf("counting allocates %v times", allocs)
	}
}

// Requests of a route are counted without allocating.
func TestCountingAllocatesNothing(t *testing.T) {
	e := startEdge(t, nil, nil)
	rec := &record{server: e.Server, method: "GET", origin: origin{name: "/api"}}
	rec.count(200)
	if allocs := testing.AllocsPerRun(100, func() { rec.count(200) }); allocs != 0 {
		t.Errorf("counting a request allocates %v times", allocs)
	}
}

// goodbye closes a tunnel as clients do, and waits for the end.
func (c *wsConn) goodbye() {
	c.t.Helper()
	c.send(ws.OpClose, string(ws.NewCloseFrameBody(1000, "")))
	c.expectClose(1000, "")
	c.expectEnd()
}
