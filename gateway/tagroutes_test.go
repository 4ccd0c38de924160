package gateway

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"singlegate/discovery"
)

// A taggedSite is what a snapshot of services with tags is made of.
type taggedSite struct {
	e     *edge
	snap  discovery.Snapshot
	addrs map[string]string // by node
}

// startTagged runs a gateway with these routes of the file and nodes web/w1,
// web/w2 and shop/s1, which tell their name and what they are asked for.
func startTagged(t *testing.T, routes []Route, tune ...func(*Config)) *taggedSite {
	t.Helper()
	tune = append(tune, func(c *Config) {
		c.TagRoutes = &Route{At: "tags", Accept: AcceptAny, Timeouts: DefaultTimeouts()}
	})
	slices.Reverse(tune)
	s := &taggedSite{e: startEdge(t, routes, nil, tune...), addrs: map[string]string{}}
	services := map[string]map[string]string{"web": {}, "shop": {}}
	for _, n := range []struct{ service, id string }{{"web", "w1"}, {"web", "w2"}, {"shop", "s1"}} {
		addr := httpNode(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, "%s %s", n.id, r.RequestURI) })
		services[n.service][n.id] = addr
		s.addrs[n.id] = addr
	}
	s.snap = nodesOf(services)
	return s
}

// publish makes these the routes of the services' tags.
func (s *taggedSite) publish(routes map[string][]discovery.TagRoute) {
	snap := discovery.Snapshot{Services: map[string]discovery.Service{}, Partial: s.snap.Partial}
	for name, svc := range s.snap.Services {
		svc.Routes, svc.Tagged, svc.Source = routes[name], true, "consul"
		snap.Services[name] = svc
	}
	s.e.Publish(snap)
}

// tagRoute is one for all of these nodes alike.
func tagRoute(host, path, rewrite string, nodes ...string) discovery.TagRoute {
	r := discovery.TagRoute{Host: host, Path: path, Rewrite: rewrite}
	for _, id := range nodes {
		r.Nodes = append(r.Nodes, discovery.Share{Node: id})
	}
	return r
}

// get asks n times for a path of a host and gives each answer that came, once,
// in order.
func (s *taggedSite) get(host, path string, n int) string {
	s.e.t.Helper()
	var answers []string
	for range n {
		_, body := s.e.answerTo("GET " + path + " HTTP/1.1\r\nHost: " + host + "\r\nConnection: close\r\n\r\n")
		if code := problemCode(body); code != "" {
			body = code
		}
		if !slices.Contains(answers, body) {
			answers = append(answers, body)
		}
	}
	slices.Sort(answers)
	return strings.Join(answers, ", ")
}

// gets compares what several requests each get.
func (s *taggedSite) gets(host, path, want string) {
	s.e.t.Helper()
	if got := s.get(host, path, 6); got != want {
		s.e.t.Errorf("%s%s: got %q, want %q", host, path, got, want)
	}
}

func TestTagRoutes(t *testing.T) {
	s := startTagged(t, nil)
	s.gets("x", "/app/a", "no_route")
	s.publish(map[string][]discovery.TagRoute{
		"web": {
			tagRoute("", "/app/", "/", "w1", "w2"),
			tagRoute("", "/one", "", "w2"),
			tagRoute("", "/shared", "", "w1"),
			tagRoute("shop.example.gov", "/", "", "w1"),
			tagRoute("", "/d%6fwn/a%2fb", "/a%2fb", "w1"),
		},
		"shop": {tagRoute("", "/shared/", "", "s1", "gone")},
	})
	s.gets("x", "/app/a?b=c", "w1 /a?b=c, w2 /a?b=c")
	s.gets("x", "/app", "w1 /, w2 /")
	s.gets("x", "/application", "no_route")
	s.gets("x", "/one/a", "w2 /one/a")
	s.gets("x", "/shared/a", "s1 /shared/a, w1 /shared/a")
	s.gets("shop.example.gov", "/shared", "w1 /shared") // a host comes before a path
	s.gets("x", "/down/a%2Fb/c", "w1 /a%2Fb/c")
	s.e.logs.wait(t, `"kind":"request"`, `"service":"web"`, `"node":"w1"`, `"route":"/shared"`)

	s.publish(map[string][]discovery.TagRoute{"web": {tagRoute("", "/app", "", "w2")}})
	s.gets("x", "/app/a", "w2 /app/a")
	s.gets("x", "/one/a", "no_route")
	s.gets("x", "/shared/a", "no_route")
	s.e.logs.wait(t, "route of a tag removed", `"route":"shop.example.gov/"`)
}

// Shares are parts of what the route is asked for, whatever snapshots come.
func TestTagRouteShares(t *testing.T) {
	s := startTagged(t, nil)
	count := map[string]int{}
	for range 40 {
		r := tagRoute("", "/", "", "w1", "w2")
		r.Nodes[0].Weight = 0.25
		s.publish(map[string][]discovery.TagRoute{"web": {r}})
		node, _, _ := strings.Cut(s.get("x", "/", 1), " ")
		count[node]++
	}
	if count["w1"] != 10 || count["w2"] != 30 {
		t.Errorf("got %v, want a quarter for w1", count)
	}
}

// A route of the file comes first where both take a request, and only there.
func TestFileComesBeforeTags(t *testing.T) {
	routes := []Route{
		{At: "f:1:1", Host: "h", Paths: []string{"/all/"}, Redirect: "https://all.example.gov/"},
		{At: "f:2:1", Paths: []string{"/http"}, Accept: AcceptHTTP, Redirect: "https://http.example.gov/"},
		{At: "f:3:1", Paths: []string{"/plain"}, Listeners: []string{"plain"}, Redirect: "https://plain.example.gov/"},
		{At: "f:4:1", Paths: []string{"/both"}, Listeners: []string{"plain"}, Redirect: "https://both.example.gov/"},
		{At: "f:5:1", Paths: []string{"/both"}, Listeners: []string{"tls"}, Redirect: "https://both.example.gov/"},
		{At: "f:6:1", Paths: []string{"/deeper/{node}"}, Redirect: "https://deeper.example.gov/"},
	}
	s := startTagged(t, routes)
	s.publish(map[string][]discovery.TagRoute{"web": {
		tagRoute("h", "/all", "", "w1"), tagRoute("", "/http", "", "w1"), tagRoute("", "/plain", "", "w1"), tagRoute("", "/both", "", "w1"),
		tagRoute("", "/deeper", "", "w1"), tagRoute("", "/all", "", "w1"),
	}})
	secure := func(path string) string {
		resp, err := s.e.client().Get("https://" + s.e.secure + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		return string(body)
	}
	s.gets("x", "/all", "w1 /all")
	s.gets("x", "/deeper", "w1 /deeper")
	s.gets("x", "/http", "")
	s.gets("x", "/plain", "")
	if got := secure("/plain"); got != "w1 /plain" {
		t.Errorf("over TLS: %q", got)
	}
	status := s.e.Services()[1]
	want := []discovery.LeftOut{
		{Instance: "tag route h/all", Reason: "the route at f:1:1 takes the same requests, and the config file comes first; remove that route, or the tag"},
		{Instance: "tag route /both", Reason: "the route at f:5:1 takes the same requests, and the config file comes first; remove that route, or the tag"},
	}
	if !slices.Equal(status.LeftOut, want) {
		t.Errorf("left out are %+v", status.LeftOut)
	}
	s.e.tells("left_out", map[string]float64{"left_out{shop}": 0, "left_out{web}": 2})
	plainPort, tlsPort := s.e.portOf("plain"), s.e.portOf("tls")
	for _, u := range []string{"http://127.0.0.1" + plainPort + "/http", "https://127.0.0.1" + tlsPort + "/plain", "http://127.0.0.1" + plainPort + "/deeper"} {
		if !slices.Contains(status.Nodes[0].EntryPoints, u) {
			t.Errorf("%s is not among %q", u, status.Nodes[0].EntryPoints)
		}
	}
	for _, u := range status.Nodes[0].EntryPoints {
		if strings.HasSuffix(u, "/both") || strings.HasPrefix(u, "http://h"+plainPort) {
			t.Errorf("%s leads elsewhere", u)
		}
	}
	if len(status.Nodes[1].EntryPoints) != 0 {
		t.Errorf("w2 serves nothing but has %q", status.Nodes[1].EntryPoints)
	}
}

// What cannot be served is left out by itself, and reported once.
func TestTagRoutesLeftOut(t *testing.T) {
	s := startTagged(t, nil)
	for range 2 {
		s.publish(map[string][]discovery.TagRoute{
			"web": {
				tagRoute("", "/x", "/", "w1"), tagRoute("", "/a/../../b", "", "w1"), tagRoute("", "/good", "", "w1"), tagRoute("", "/%zz", "", "w1"),
				tagRoute("", "/y", "/../x", "w1"),
			},
			"shop": {tagRoute("", "/x", "", "s1")},
		})
	}
	s.gets("x", "/x", "s1 /x")
	s.gets("x", "/good", "w1 /good")
	var reasons []string
	for _, l := range s.e.Services()[1].LeftOut {
		reasons = append(reasons, l.Instance+": "+l.Reason)
	}
	want := []string{
		`tag route /x: a tag of service "shop" asks for the same requests with another strip (or another port); give all the same`,
		"tag route /a/../../b: " + errAboveRoot.Error(), "tag route /%zz: " + errPercent.Error(), "tag route /y: " + errAboveRoot.Error(),
	}
	if !slices.Equal(reasons, want) {
		t.Errorf("got %q", reasons)
	}
	if n := strings.Count(s.e.logs.all(), "a tag cannot be a route"); n != 4 {
		t.Errorf("logged %d times, want each once", n)
	}
}

func TestTagRoutesAreBounded(t *testing.T) {
	s := startTagged(t, nil)
	var routes []discovery.TagRoute
	for i := range maxTagRoutes + 2 {
		routes = append(routes, tagRoute("", fmt.Sprintf("/%04d", i), "", "w1"))
	}
	s.publish(map[string][]discovery.TagRoute{"web": routes})
	s.gets("x", "/0999", "w1 /0999")
	s.gets("x", "/1000", "no_route")
	if n := len(s.e.Services()[1].LeftOut); n != 2 {
		t.Errorf("%d are left out, want 2", n)
	}
}

// While it is not known which routes tags ask for, nobody is told that there is
// none, and a gateway that knows of none is not ready.
func TestTagRoutesUnknown(t *testing.T) {
	s := startTagged(t, []Route{{Paths: []string{"/file"}, Redirect: "https://x.example.gov/"}})
	s.snap.Partial = "Consul is away"
	s.e.Publish(discovery.Snapshot{Partial: s.snap.Partial})
	s.gets("x", "/app", "no_snapshot")
	s.gets("x", "/file", "")
	if got := s.e.Ready(); !slices.Equal(got, []string{"nothing is known of routes that tags ask for: Consul is away"}) {
		t.Errorf("ready: %q", got)
	}
	s.publish(map[string][]discovery.TagRoute{"web": {tagRoute("", "/app", "", "w1")}})
	s.gets("x", "/app", "w1 /app")
	s.gets("x", "/other", "no_snapshot")
	if got := s.e.Ready(); len(got) != 0 {
		t.Errorf("ready: %q", got)
	}
	s.snap.Partial = ""
	s.publish(nil)
	s.gets("x", "/app", "no_route")
}

// Without tag_routes in the config nobody gets a route by a tag.
func TestTagsWithoutTheSwitch(t *testing.T) {
	s := startTagged(t, nil, func(c *Config) { c.TagRoutes = nil })
	s.publish(map[string][]discovery.TagRoute{"web": {tagRoute("", "/app", "", "w1")}})
	s.gets("x", "/app", "no_route")
}

func TestTagRoutesOnSomeListeners(t *testing.T) {
	s := startTagged(t, nil, func(c *Config) { c.TagRoutes.Listeners = []string{"tls"} })
	s.publish(map[string][]discovery.TagRoute{"web": {tagRoute("", "/app", "", "w1")}})
	s.gets("x", "/app", "no_route")
	resp, err := s.e.client().Get("https://" + s.e.secure + "/app")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 200 {
		t.Errorf("over TLS: %s", resp.Status)
	}
}

// A node that a source may yet name is not unknown before it has spoken.
func TestPartlyKnownService(t *testing.T) {
	f := fleet{}
	f.add("node1", startRecorder(t, "node1").addr)
	e := startFleet(t, f, func(*Config) {})
	get := func(node string) string {
		_, body := e.answerTo("GET /ws/" + node + " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
		return problemCode(body)
	}
	snap := f.snapshot()
	snap.Services["im"] = snap.Services["im"].Half("Consul has not answered yet")
	e.Publish(snap)
	if got := get("node2"); got != "no_snapshot" {
		t.Errorf("half is known: %q", got)
	}
	if got := get("node1"); got != "" {
		t.Errorf("a node that is known: %q", got)
	}
	e.Publish(f.snapshot())
	if got := get("node2"); got != "node_unknown" {
		t.Errorf("all is known: %q", got)
	}
}
