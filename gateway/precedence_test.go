package gateway

import "testing"

// precedenceRoutes are routes of which several match most requests.
func precedenceRoutes() []Route {
	return []Route{
		{At: "none", Paths: []string{"/"}},
		{At: "ws", Paths: []string{"/"}, Accept: AcceptWebSocket},
		{At: "node", Paths: []string{"/ws/{node}"}},
		{At: "literal", Paths: []string{"/ws/node9/", "/..;/no path"}},
		{At: "host", Host: "web.example.gov", Paths: []string{"/"}, Listeners: []string{"plain"}},
		{At: "nodehost", Host: "{node}.Example.gov", Paths: []string{"/"}},
		{At: "static", Paths: []string{"/site"}, Static: "a folder that is not there"},
		{At: "second", Paths: []string{"/b", "/a/b"}},
		{At: "third", Paths: []string{"/a/b"}},
	}
}

type choice struct {
	listener, host, path string
	websocket            bool
	want                 string // "": none
}

func precedenceChoices() []choice {
	return []choice{
		{"tls", "im.other", "/x", false, "none"},
		{"tls", "im.other", "/x", true, "ws"},
		{"tls", "im.other", "/ws/node1", true, "node"},
		{"tls", "im.other", "/w%73/node1", true, "node"},
		{"tls", "im.other", "/ws/%E8%8A%82", true, "node"},
		{"tls", "im.other", "/ws/node9/a", true, "literal"},
		{"plain", "web.example.gov", "/ws/node1", true, "host"},
		{"plain", "WEB.example.gov", "/", false, "host"},
		{"tls", "web.example.gov", "/ws/node1", true, "nodehost"},
		{"tls", "a.b.example.gov", "/ws", true, "ws"},
		{"tls", "im.other", "/site/a", true, "ws"},
		{"tls", "im.other", "/site/a", false, "static"},
		{"tls", "im.other", "/sites", false, "none"},
		{"tls", "im.other", "/a/b/c", false, "second"},
		{"tls", "im.other", "/..;/", false, ""},
	}
}

func TestPrecedence(t *testing.T) {
	routes := precedenceRoutes()
	p := PrecedenceOf(routes)
	for _, c := range precedenceChoices() {
		got := ""
		if i := p.Winner(c.listener, c.host, c.path, c.websocket); i >= 0 {
			got = routes[i].At
		}
		if got != c.want {
			t.Errorf("%+v: %q", c, got)
		}
	}
	if i := PrecedenceOf(routes[2:3]).Winner("tls", "h", "/ws", true); i >= 0 {
		t.Errorf("a path without a node is taken by %s", routes[2+i].At)
	}
}

// What is foretold is what the table of a running gateway does.
func TestPrecedenceIsTheTables(t *testing.T) {
	routes := precedenceRoutes()
	routes[3].Paths, routes[6].Static = routes[3].Paths[:1], t.TempDir()
	compiled, err := compileRoutes(&Config{Routes: routes})
	if err != nil {
		t.Fatal(err)
	}
	p, table := PrecedenceOf(routes), &table{routes: compiled}
	for _, c := range precedenceChoices() {
		host, err := canonicalHost(c.host)
		if err != nil {
			t.Fatal(err)
		}
		path, err := canonicalPath(c.path)
		if err != nil {
			continue // refused before there is a match
		}
		m, ok := table.match(c.listener, host, path, c.websocket)
		if i := p.Winner(c.listener, c.host, c.path, c.websocket); ok != (i >= 0) || ok && m.route.At != routes[i].At {
			t.Errorf("%+v: the table takes %+v", c, m.route)
		}
	}
}
