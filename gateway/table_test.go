package gateway

import (
	"testing"

	"singlegate/upstream"
)

// tableOf compiles routes over two nodes, node1 (also called 3050) and node10.
func tableOf(t testing.TB, routes ...Route) *table {
	t.Helper()
	for i := range routes {
		if routes[i].Service == "" && routes[i].Redirect == "" && routes[i].Page == "" {
			routes[i].Service = "im"
		}
	}
	compiled, err := compileRoutes(&Config{Routes: routes})
	if err != nil {
		t.Fatal(err)
	}
	snap := nodesOf(map[string]map[string]string{"im": {"node1": "10.0.0.1:1", "node10": "10.0.0.2:1"}})
	for i, n := range snap.Services["im"].Nodes {
		if n.ID == "node1" {
			snap.Services["im"].Nodes[i].Names = []string{"3050"}
		}
	}
	view, _ := upstream.New(nil).Apply(snap)
	return &table{routes: compiled, view: view}
}

// The table of the design: what each request becomes upstream.
func TestRewrite(t *testing.T) {
	cases := []struct{ path, rewrite, request, want string }{
		{"/ws/{node}", "/", "/ws/node1", "/"},
		{"/ws/{node}", "/", "/ws/node1/", "/"},
		{"/ws/{node}", "/", "/ws/node1/a", "/a"},
		{"/ws/{node}", "", "/ws/node1/a", "/ws/node1/a"},
		{"/ws/{node}", "/chat/", "/ws/node1", "/chat/"},
		{"/ws/{node}", "/chat/", "/ws/node1/a", "/chat/a"},
		{"/ws/{node}", "/chat", "/ws/node1/", "/chat/"},
		{"/ws/{node}/im", "/", "/ws/node1/im/x", "/x"},
		{"/app/", "/", "/app", "/"},
		{"/app/", "/", "/app/login", "/login"},
		{"/http-bind", "", "/http-bind", "/http-bind"},
		{"/http-bind", "", "/http-bind/", "/http-bind/"},
		{"/", "", "/any/thing", "/any/thing"},
		{"/", "/sub", "/x", "/sub/x"},
	}
	for _, c := range cases {
		m, ok := tableOf(t, Route{Paths: []string{c.path}, Rewrite: c.rewrite}).match("l", "h", c.request, false)
		if !ok || m.path != c.want {
			t.Errorf("%s (rewrite %q): %s → %q, %v; want %q", c.path, c.rewrite, c.request, m.path, ok, c.want)
		}
	}
}

func TestWhichRoute(t *testing.T) {
	tab := tableOf(t,
		Route{At: "any", Paths: []string{"/"}},
		Route{At: "any-ws", Paths: []string{"/"}, Accept: AcceptWebSocket},
		Route{At: "ws-node", Paths: []string{"/ws/{node}"}},
		Route{At: "ws-literal", Paths: []string{"/ws/status"}},
		Route{At: "ws", Paths: []string{"/ws"}},
		Route{At: "deep", Paths: []string{"/ws/{node}/deep/"}},
		Route{At: "host-node", Host: "{node}.im.example.gov", Paths: []string{"/"}},
		Route{At: "host", Host: "im.example.gov", Paths: []string{"/"}},
		Route{At: "host-exact", Host: "web.im.example.gov", Paths: []string{"/"}},
		Route{At: "listener", Paths: []string{"/ws/{node}"}, Listeners: []string{"other"}, Accept: AcceptHTTP},
		Route{At: "http", Paths: []string{"/only"}, Accept: AcceptHTTP},
	)
	cases := []struct {
		listener, host, path string
		websocket            bool
		want                 string
	}{
		{"l", "x", "/", false, "any"},
		{"l", "x", "/", true, "any-ws"},
		{"l", "x", "/other", true, "any-ws"},
		{"l", "x", "/ws", false, "ws"},
		{"l", "x", "/ws/", false, "ws"},
		{"l", "x", "/wsx", false, "any"},
		{"l", "x", "/ws/node1", false, "ws-node"},
		{"l", "x", "/ws/unknown", false, "ws-node"}, // never falls through
		{"l", "x", "/ws/status", false, "ws-literal"},
		{"l", "x", "/ws/status/x", false, "ws-literal"},
		{"l", "x", "/ws/node1/deep", false, "deep"},
		{"l", "x", "/ws/node1/deeper", false, "ws-node"},
		{"other", "x", "/ws/node1", false, "listener"},
		{"other", "x", "/ws/node1", true, "ws-node"},
		{"l", "im.example.gov", "/ws/node1", false, "host"},
		{"l", "node1.im.example.gov", "/ws/x", false, "host-node"},
		{"l", "web.im.example.gov", "/", false, "host-exact"},
		{"l", "a.b.im.example.gov", "/", false, "any"}, // {node} is one label
		{"l", ".im.example.gov", "/", false, "any"},
		{"l", "x", "/only", false, "http"},
		{"l", "x", "/only", true, "any-ws"},
	}
	for _, c := range cases {
		m, ok := tab.match(c.listener, c.host, c.path, c.websocket)
		if !ok || m.route.At != c.want {
			t.Errorf("%s %s%s websocket=%v → %v, want %s", c.listener, c.host, c.path, c.websocket, m.route, c.want)
		}
	}
}

// A pinned request reaches its node or none, however it is spelled.
func TestPinnedNode(t *testing.T) {
	tab := tableOf(t, Route{Paths: []string{"/ws/{node}"}}, Route{Host: "{node}.x", Paths: []string{"/"}}, Route{Paths: []string{"/"}})
	cases := []struct{ host, path, want string }{
		{"h", "/ws/node1", "node1"},
		{"h", "/ws/node10", "node10"},
		{"h", "/ws/node1/x", "node1"},
		{"h", "/ws/3050", "node1"},
		{"h", "/ws/node", ""},
		{"h", "/ws/node100", ""},
		{"h", "/ws/NODE1", ""},
		{"h", "/ws/node1;x", ""},
		{"h", "/ws/%256eode1", ""},
		{"h", "/ws/node1%2Fx", ""},
		{"node1.x", "/", "node1"},
		{"3050.x", "/ws/node10", "node1"},
		{"nobody.x", "/", ""},
	}
	for _, c := range cases {
		m, ok := tab.match("l", c.host, c.path, true)
		if !ok || !m.route.pinned() {
			t.Errorf("%s%s: not the pinned route", c.host, c.path)
			continue
		}
		got := ""
		if m.node != nil {
			got = m.node.ID
		}
		if got != c.want {
			t.Errorf("%s%s → node %q, want %q", c.host, c.path, got, c.want)
		}
	}
}

func TestMatchAllocatesNothing(t *testing.T) {
	tab := tableOf(t, Route{Paths: []string{"/ws/{node}"}}, Route{Paths: []string{"/"}})
	if n := testing.AllocsPerRun(100, func() { tab.match("l", "h", "/ws/node1", true) }); n != 0 {
		t.Errorf("match allocates %v times", n)
	}
}
