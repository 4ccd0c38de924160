package gateway

import (
	"encoding/json"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"singlegate/discovery"
)

// portOf is the port of the listener of that name, with its colon.
func (e *edge) portOf(name string) string {
	_, port, _ := net.SplitHostPort(e.address(name))
	return ":" + port
}

// A node's entry points are the URLs that lead to it and to no other: by path,
// by name and by its own ports, on every listener that serves them, as clients
// name the gateway.
func TestEntryPoints(t *testing.T) {
	routes := func() []Route {
		return []Route{
			{Host: "{node}.im.example.gov", Paths: []string{"/"}, Service: "im"},
			{Paths: []string{"/ws/{node}/"}, Service: "im", Rewrite: "/"},
			{Paths: []string{"/api/{node}/v1"}, Service: "im", Accept: AcceptHTTP, Listeners: []string{"plain"}},
			{Paths: []string{"/any"}, Service: "im"},              // balanced: leads to no node in particular
			{Paths: []string{"/other/{node}"}, Service: "others"}, // of another service
		}
	}
	f := fleet{}
	f.add("node1", "127.0.0.9:9", func(n *discovery.Node) { n.Names = []string{"No-1"} })
	f.add("node2", "127.0.0.9:9", status(discovery.Maintenance))
	cases := []struct {
		name string
		tune func(*Config)
		want map[string][]string // PLAIN, TLS, P1, P2: ports
	}{
		{
			name: "as bound", tune: func(*Config) {},
			want: map[string][]string{
				"node1": {
					"tcp://127.0.0.1P1", "ws://127.0.0.1PLAIN/ws/No-1", "ws://no-1.im.example.govPLAIN", "http://127.0.0.1PLAIN/api/No-1/v1",
					"wss://no-1.im.example.govTLS", "wss://127.0.0.1TLS/ws/No-1", "wss://127.0.0.1P3",
				},
				"node2": {
					"tcp://127.0.0.1P2", "ws://127.0.0.1PLAIN/ws/node2", "ws://node2.im.example.govPLAIN", "http://127.0.0.1PLAIN/api/node2/v1",
					"wss://node2.im.example.govTLS", "wss://127.0.0.1TLS/ws/node2",
				},
			},
		},
		{
			name: "public", tune: func(c *Config) {
				c.Public = Public{Host: "im.example.gov", Port: 443}
				c.Listeners[0].Public = Public{Host: "2001:db8::1", Port: 80}
			},
			want: map[string][]string{
				"node1": {
					"tcp://im.example.govP1", "ws://[2001:db8::1]/ws/No-1", "ws://no-1.im.example.gov", "http://[2001:db8::1]/api/No-1/v1",
					"wss://no-1.im.example.gov", "wss://im.example.gov/ws/No-1", "wss://im.example.govP3",
				},
				"node2": {
					"tcp://im.example.govP2", "ws://[2001:db8::1]/ws/node2", "ws://node2.im.example.gov", "http://[2001:db8::1]/api/node2/v1",
					"wss://node2.im.example.gov", "wss://im.example.gov/ws/node2",
				},
			},
		},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			base := freePorts(t, 3)
			e := startEdge(t, routes(), map[string]map[string]string{"im": nil}, func(c *Config) {
				c.Listeners[1].Address = "127.0.0.1:0"
				c.Services = []ServiceRef{{Name: "im"}, {Name: "others"}}
				tc.tune(c)
			})
			cfg := e.cfg
			cfg.Listeners = append(slices.Clone(cfg.Listeners), Listener{Name: "balanced", Address: "127.0.0.1:0", Service: "im"})
			cfg.NodePorts = []NodePort{
				{Service: "im", Kind: "tcp", Listen: PortRule{Base: base - 1}},
				{Service: "im", Kind: "http", TLS: true, Listen: PortRule{Map: map[string]uint16{"node1": uint16(base + 2)}}},
			}
			e.apply(cfg, f)
			ports := strings.NewReplacer("PLAIN", e.portOf("plain"), "TLS", e.portOf("tls"),
				"P1", fmt.Sprint(":", base), "P2", fmt.Sprint(":", base+1), "P3", fmt.Sprint(":", base+2))
			services := e.Services()
			if len(services) != 2 || services[0].Name != "im" || services[1].Name != "others" || services[1].Known || len(services[0].Nodes) != 2 {
				t.Fatalf("the services are %+v", services)
			}
			for _, n := range services[0].Nodes {
				var want []string
				for _, url := range tc.want[n.ID] {
					url = ports.Replace(url)
					want = append(want, url)
					if web, ok := strings.CutPrefix(url, "ws"); ok { // routes send both kinds to the nodes' only port
						want = append(want, "http"+web)
					}
				}
				slices.Sort(want)
				if got := slices.Sorted(slices.Values(n.EntryPoints)); !slices.Equal(got, want) {
					t.Errorf("%s:\n got %q\nwant %q", n.ID, got, want)
				}
			}
		})
	}
}

// A node's own port is listed by what it is there for: as the routes to the
// node's port say, and both where none does.
func TestEntryPointsOfPorts(t *testing.T) {
	base := freePorts(t, 4)
	f := fleet{}
	f.add("node1", "127.0.0.9:9", func(n *discovery.Node) {
		n.Ports = map[string]uint16{"http": 80, "ws": 81, "both": 82, "other": 83, "alias": 81}
	})
	e := startFleet(t, f, func(c *Config) {
		c.Routes = []Route{
			{Paths: []string{"/api", "/im"}, Service: "im", Port: "http"},
			{Paths: []string{"/files/{node}"}, Service: "im", Port: "http", Accept: AcceptHTTP},
			{Paths: []string{"/ws/{node}"}, Service: "im", Port: "ws"},
			{Paths: []string{"/any"}, Service: "im", Port: "both"},
			{Paths: []string{"/live"}, Service: "im", Port: "both", Accept: AcceptWebSocket},
			{Paths: []string{"/{node}"}, Service: "im", Port: "both"},
			{Paths: []string{"/elsewhere/{node}"}, Service: "web", Port: "http"},
		}
		c.Services = []ServiceRef{{Name: "im"}, {Name: "web"}}
		for i, port := range []string{"http", "alias", "both", "other"} {
			c.NodePorts = append(c.NodePorts, NodePort{Service: "im", Port: port, Kind: "http", Listen: PortRule{Map: map[string]uint16{"node1": uint16(base + i)}}})
		}
	})
	var got []string
	for _, url := range e.Services()[0].Nodes[0].EntryPoints {
		if !strings.HasPrefix(url, "wss:") && !strings.HasPrefix(url, "https:") { // of the other listener
			got = append(got, strings.Replace(url, "127.0.0.1"+e.portOf("plain"), "PLAIN", 1))
		}
	}
	at := func(i int) string { return loopback(base + i) }
	want := []string{
		"http://PLAIN/files/node1", "ws://PLAIN/ws/node1", "ws://PLAIN/node1", "http://PLAIN/node1",
		"http://" + at(0), "ws://" + at(1), "ws://" + at(2), "http://" + at(2), "ws://" + at(3), "http://" + at(3),
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("the entry points are\n%q, want\n%q", got, want)
	}
}

// Everything that operators ask about a service is in its status.
func TestServiceStatus(t *testing.T) {
	e := startFleet(t, fleet{}, withPolicy(func(*TunnelPolicy) {}))
	addr, down := echoNode(t), refusedAddr(t)
	f := fleet{}
	f.add("node2", addr, func(n *discovery.Node) { n.Origin, n.Names = "consul", []string{"two"} })
	f.add("node1", addr, status("")) // as files have it
	f.add("node3", down, status(discovery.Failing))
	snap := f.snapshot()
	taken := time.Now().Add(-time.Minute)
	svc := snap.Services["im"]
	svc.Source, svc.Taken, svc.Fault = "file+consul", taken, "consul is away"
	svc.LeftOut = []discovery.LeftOut{{Instance: "im-9", Reason: "has no meta.node"}}
	snap.Services["im"] = svc
	e.Publish(snap)
	e.openWS("two").lives()
	if status, _ := e.handshakeAnswer("/ws/node3"); status != 503 {
		t.Errorf("a node that refuses answers %d", status)
	}
	if err := e.Drain("im", "node1", 0); err != nil {
		t.Fatal(err)
	}

	got := e.Services()
	if len(got) != 1 || !got[0].Known || got[0].Source != "file+consul" || !got[0].Taken.Equal(taken) || got[0].Fault != "consul is away" ||
		!slices.Equal(got[0].LeftOut, svc.LeftOut) || len(got[0].Nodes) != 3 {
		t.Fatalf("the services are %+v", got)
	}
	one, two, three := got[0].Nodes[0], got[0].Nodes[1], got[0].Nodes[2]
	if one.ID != "node1" || one.Status != discovery.Passing || !one.Draining || one.Tunnels != 0 || !one.EjectedUntil.IsZero() {
		t.Errorf("node1: %+v", one)
	}
	if two.ID != "node2" || two.Origin != "consul" || !slices.Equal(two.Names, []string{"two"}) || two.Draining || two.Tunnels != 1 || two.Address != "127.0.0.1" {
		t.Errorf("node2: %+v", two)
	}
	if three.ID != "node3" || three.Status != discovery.Failing {
		t.Errorf("node3: %+v", three)
	}
	text, err := json.Marshal(got)
	if err != nil || !strings.Contains(string(text), `"left_out":[{`) {
		t.Errorf("as JSON: %s, %v", text, err)
	}
}
