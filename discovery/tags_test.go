package discovery

import (
	"context"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"singlegate/internal/consultest"
)

// taggedEntry is an instance of a service web.
func taggedEntry(id, node string, tags ...string) *api.ServiceEntry {
	return &api.ServiceEntry{
		Node:    &api.Node{Node: node, Address: "10.0.0.1"},
		Service: &api.AgentService{Service: "web", ID: id, Port: 80, Tags: tags},
	}
}

func TestRoutesOfTags(t *testing.T) {
	found := ConsulService{Name: "web", Service: "web", NodeID: idOfTagged, prefix: "urlprefix-", tagged: true}
	named := ConsulService{Name: "shop", Service: "web", prefix: "urlprefix-", Ports: map[string]PortFrom{"admin": {Number: 9000}, "http": {}}}
	tests := []struct {
		name    string
		service ConsulService
		entries []*api.ServiceEntry
		nodes   string
		routes  []TagRoute
		leftOut []LeftOut
	}{
		{
			name: "instances with different tags", service: found,
			entries: []*api.ServiceEntry{
				taggedEntry("w1", "a", "urlprefix-/app strip=/app", "blue"), taggedEntry("w2", "a", " urlprefix-/app strip=/app weight=0.1", "urlprefix-Shop.example.gov/"),
				taggedEntry("w3", "a", "green"),
			},
			nodes: "w1 w2",
			routes: []TagRoute{
				{Path: "/app", Rewrite: "/", Nodes: []Share{{"w1", 0}, {"w2", 0.1}}},
				{Host: "shop.example.gov", Path: "/", Nodes: []Share{{"w2", 0}}},
			},
		},
		{
			name: "one tag of several is broken", service: found,
			entries: []*api.ServiceEntry{taggedEntry("w1", "a", "urlprefix-/x", "urlprefix-:1883 proto=tcp", "urlprefix-/y proto=https")},
			nodes:   "w1",
			routes:  []TagRoute{{Path: "/x", Nodes: []Share{{"w1", 0}}}},
			leftOut: []LeftOut{
				{`w1 on a, tag "urlprefix-:1883 proto=tcp"`, "it asks for a TCP port; write a listener with service and port for it, or node_ports"},
				{`w1 on a, tag "urlprefix-/y proto=https"`, `the option "proto=https" is not supported, only strip and weight; write a route instead`},
			},
		},
		{
			name: "only a broken tag, of several instances", service: found,
			entries: []*api.ServiceEntry{taggedEntry("w2", "a", "urlprefix-x"), taggedEntry("w1", "a", "urlprefix-x")},
			nodes:   "w1 w2",
			leftOut: []LeftOut{{`w1 on a, tag "urlprefix-x"`, "it has no path; write x/ for the whole host"}},
		},
		{
			name: "two strips", service: found,
			entries: []*api.ServiceEntry{taggedEntry("w1", "a", "urlprefix-/x strip=/x"), taggedEntry("w2", "a", "urlprefix-/x")},
			nodes:   "w1 w2",
			routes:  []TagRoute{{Path: "/x", Nodes: []Share{{"w2", 0}}}, {Path: "/x", Rewrite: "/", Nodes: []Share{{"w1", 0}}}},
		},
		{
			name: "registered under the bare name on each agent", service: found,
			entries: []*api.ServiceEntry{taggedEntry("web", "b", "urlprefix-/x"), taggedEntry("web", "a", "urlprefix-/x", "urlprefix-/x weight=1")},
			nodes:   "a b",
			routes:  []TagRoute{{Path: "/x", Nodes: []Share{{"a", 0}, {"b", 0}}}},
		},
		{
			name: "a service of the config", service: named,
			entries: []*api.ServiceEntry{taggedEntry("w1", "a", "urlprefix-/x"), taggedEntry("w2", "a")},
			nodes:   "w1 w2",
			routes:  []TagRoute{{Path: "/x", Port: "http", Nodes: []Share{{"w1", 0}}}},
		},
		{
			name: "… without the registered port", service: ConsulService{Name: "web", prefix: "urlprefix-", Ports: map[string]PortFrom{"ws": {Number: 81}}},
			entries: []*api.ServiceEntry{taggedEntry("w1", "a", "urlprefix-/x")},
			nodes:   "w1",
			leftOut: []LeftOut{{
				`w1 on a, tag "urlprefix-/x"`, "it leads to the registered port, and the service's ports do not name that; add one with the value port",
			}},
		},
		{
			name: "tags that ask for nothing", service: ConsulService{Name: "web"},
			entries: []*api.ServiceEntry{taggedEntry("w1", "a", "urlprefix-/x", "urlprefix-x")},
			nodes:   "w1",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			nodes, routes, leftOut := build(tt.service, instances{listed: tt.entries}, nil)
			if got := ids(Service{Nodes: nodes}); got != tt.nodes {
				t.Errorf("nodes %q, want %q", got, tt.nodes)
			}
			if !reflect.DeepEqual(routes, tt.routes) {
				t.Errorf("routes\n%+v, want\n%+v", routes, tt.routes)
			}
			if !reflect.DeepEqual(leftOut, tt.leftOut) {
				t.Errorf("left out\n%+v, want\n%+v", leftOut, tt.leftOut)
			}
		})
	}
}

// Instances that are only kept serve their routes as well.
func TestRoutesOfKeptInstances(t *testing.T) {
	s := ConsulService{Name: "web", prefix: "urlprefix-"}
	_, routes, _ := build(s, instances{
		listed: []*api.ServiceEntry{taggedEntry("w2", "a", "urlprefix-/x")},
		kept:   []*api.ServiceEntry{taggedEntry("w1", "a", "urlprefix-/x", "urlprefix-/y")},
	}, nil)
	want := []TagRoute{{Path: "/x", Nodes: []Share{{"w1", 0}, {"w2", 0}}}, {Path: "/y", Nodes: []Share{{"w1", 0}}}}
	if !reflect.DeepEqual(routes, want) {
		t.Errorf("got %+v", routes)
	}
}

func TestTaggedServicesAreBounded(t *testing.T) {
	log := &logged{}
	source := &Consul{log: log.log, services: []ConsulService{{Name: "a", Service: "s000"}}}
	k := &consulKnowledge{source: source}
	var v view
	for i := range maxTagged + 3 {
		name := fmt.Sprintf("s%03d", maxTagged+2-i)
		v.listed = append(v.listed, &api.ServiceEntry{Node: &api.Node{}, Service: &api.AgentService{Service: name}})
	}
	names, beyond := k.taggedNames(v)
	if len(names) != maxTagged || names[0] != "s001" || !slices.Equal(beyond, []string{"s151", "s152"}) {
		t.Errorf("%d from %s, and beyond %q", len(names), names[0], beyond)
	}
	for range 2 {
		k.logBeyond(beyond)
	}
	if n := log.count("is not followed"); n != 2 {
		t.Errorf("logged are %q", log.lines)
	}
}

// A service without tags is not asked for any more, unless the config needs it.
func TestWatchesFollowTheList(t *testing.T) {
	source := tagSource(t, ConsulConfig{Address: "127.0.0.1:1"}, nil, nil, ConsulService{
		Name: "mine", Service: "im", Ports: map[string]PortFrom{"tcp": {Sibling: "im-tcp"}},
	})
	ctx, cancel := context.WithCancel(t.Context())
	w := &watches{source: source, ctx: ctx, updates: make(chan update), lists: make(chan update), running: map[string]running{}}
	defer w.group.Wait()
	defer cancel()
	w.begin()
	k := &consulKnowledge{source: source, views: map[string]view{}, services: map[string]Service{}}
	k.catalog.followed = map[string]ConsulService{}
	list := func(names ...string) view {
		v := view{known: true}
		for _, name := range names {
			v.listed = append(v.listed, &api.ServiceEntry{Node: &api.Node{}, Service: &api.AgentService{Service: name}})
		}
		return v
	}
	for _, tt := range []struct {
		listed []string
		want   string
	}{
		{[]string{"im", "im-tcp", "web"}, " im im-tcp web"},
		{[]string{"shop"}, " im im-tcp shop"},
		{nil, " im im-tcp"},
	} {
		k.found(list(tt.listed...), w)
		if got := strings.Join(slices.Sorted(maps.Keys(w.running)), " "); got != tt.want {
			t.Errorf("with %q there are watches of %q, want %q", tt.listed, got, tt.want)
		}
	}
}

// tagSource follows tags, and the services that are given.
func tagSource(t testing.TB, cfg ConsulConfig, log Log, taken []string, services ...ConsulService) *Consul {
	c := newSource(t, cfg, log, im)
	c.services = services
	c.FollowTags("urlprefix-", taken)
	return c
}

// untilAll waits for a snapshot as wanted.
func (r *recorder) untilAll(t testing.TB, what string, ok func(Snapshot) bool) Snapshot {
	t.Helper()
	over := time.After(limit)
	for {
		snap, news := r.latest()
		if snap.Services != nil && ok(snap) {
			return snap
		}
		select {
		case <-news:
		case <-over:
			t.Fatalf("waited in vain for: %s; there is %+v, not known is %v", what, snap, unknownOf(r.source))
		}
	}
}

func tag(a *consultest.Agent, service, id string, tags ...string) {
	a.Register(api.AgentServiceRegistration{Name: service, ID: id, Port: 8083, Address: "10.0.0.1", Tags: tags})
}

// routesOf are the routes of a service in one line.
func routesOf(s Service) string {
	var all []string
	for _, r := range s.Routes {
		var nodes []string
		for _, n := range r.Nodes {
			nodes = append(nodes, n.Node)
		}
		all = append(all, r.Host+r.Path+"→"+r.Rewrite+" "+strings.Join(nodes, ","))
	}
	return strings.Join(all, "; ")
}

// has tells whether a service has just these routes and is well.
func has(service, routes string) func(Snapshot) bool {
	return func(snap Snapshot) bool {
		s, ok := snap.Services[service]
		return ok && routesOf(s) == routes && s.Fault == "" && snap.Partial == ""
	}
}

// hasNot tells whether all is known, and a service not among it.
func hasNot(service string) func(Snapshot) bool {
	return func(snap Snapshot) bool {
		_, ok := snap.Services[service]
		return !ok && snap.Partial == ""
	}
}

func TestTaggedServices(t *testing.T) {
	t.Parallel()
	a := consultest.Start(t, consultest.Options{})
	r := record(t, tagSource(t, ConsulConfig{Address: a.Address}, nil, nil))
	r.untilAll(t, "nothing, and certain of it", func(s Snapshot) bool { return len(s.Services) == 0 && s.Partial == "" })
	tag(a, "web", "w1", "urlprefix-/app strip=/app")
	tag(a, "db", "db", "primary")
	s := r.untilAll(t, "a service", has("web", "/app→/ w1"))
	if len(s.Services) != 1 || !s.Services["web"].Tagged {
		t.Errorf("got %+v", s)
	}
	tag(a, "web", "w2", "urlprefix-/app strip=/app", "urlprefix-im.example.gov/")
	tag(a, "shop", "s1", "urlprefix-/shop")
	r.untilAll(t, "another instance", has("web", "/app→/ w1,w2; im.example.gov/→ w2"))
	r.untilAll(t, "another service", has("shop", "/shop→ s1"))
	tag(a, "web", "w2", "urlprefix-/app strip=/app")
	r.untilAll(t, "a tag less", has("web", "/app→/ w1,w2"))
	tag(a, "web", "w1", "other")
	s = r.untilAll(t, "an instance without tags", has("web", "/app→/ w2"))
	if got := ids(s.Services["web"]); got != "w2" {
		t.Errorf("nodes are %q", got)
	}
	tag(a, "web", "w2")
	r.untilAll(t, "a service without tags", hasNot("web"))
	tag(a, "web", "w1", "urlprefix-/again")
	r.untilAll(t, "tags again", has("web", "/again→ w1"))
	a.Deregister("w1")
	a.Deregister("w2")
	r.untilAll(t, "a service that is gone", hasNot("web"))
	a.Deregister("s1")
	r.untilAll(t, "nothing", func(s Snapshot) bool { return len(s.Services) == 0 && s.Partial == "" })
}

// A service of the config stays what it is, and gives its name to no other one.
func TestTagsOfConfiguredServices(t *testing.T) {
	t.Parallel()
	a := consultest.Start(t, consultest.Options{})
	tag(a, "im", "node1", "urlprefix-/im", "live")
	tag(a, "im", "node2", "live")
	tag(a, "im", "node3", "urlprefix-/im")
	tag(a, "web", "w1", "urlprefix-/web")
	mine := ConsulService{Name: "mine", Service: "im", Tag: "live", Ports: map[string]PortFrom{"http": {}}}
	r := record(t, tagSource(t, ConsulConfig{Address: a.Address}, nil, []string{"mine", "web"}, mine))
	s := r.untilAll(t, "both services", has("mine", "/im→ node1"))
	if got := s.Services["mine"]; ids(got) != "node1 node2" || got.Tagged || got.Routes[0].Port != "http" {
		t.Errorf("got %+v", got)
	}
	s = r.untilAll(t, "the other service", has("web@consul", "/web→ w1"))
	if len(s.Services) != 2 {
		t.Errorf("services are %+v", s.Services)
	}
}

// Consul is killed and comes back without its state: no route goes.
func TestTagsOutliveConsul(t *testing.T) {
	t.Parallel()
	a := consultest.Start(t, consultest.Options{})
	for _, id := range []string{"1", "2"} {
		tag(a, "im", "node"+id, "urlprefix-/im")
		tag(a, "web", "w"+id, "urlprefix-/web")
	}
	r := record(t, tagSource(t, ConsulConfig{Address: a.Address}, nil, nil))
	r.until(t, "im", healthy("node1 node2"))
	r.untilAll(t, "both", has("web", "/web→ w1,w2"))
	before := len(r.all())
	a.Kill()
	r.until(t, "a fault", faulty("refuses connections"))
	a.Start()
	r.until(t, "a Consul without state", faulty("its state"))
	tag(a, "web", "w2", "urlprefix-/web")
	r.untilAll(t, "the first is back", func(s Snapshot) bool {
		return strings.Contains(s.Services["web"].Fault, "came back without w1 on agent")
	})
	for _, id := range []string{"1", "2"} {
		tag(a, "im", "node"+id, "urlprefix-/im")
		tag(a, "web", "w"+id, "urlprefix-/web")
	}
	r.until(t, "im again", healthy("node1 node2"))
	r.untilAll(t, "both again", has("web", "/web→ w1,w2"))
	for i, snap := range r.all()[before:] {
		if im, web := routesOf(snap.Services["im"]), routesOf(snap.Services["web"]); im != "/im→ node1,node2" || web != "/web→ w1,w2" {
			t.Fatalf("snapshot %d has %q and %q", i, im, web)
		}
	}
	tag(a, "web", "w1")
	tag(a, "web", "w2")
	r.untilAll(t, "tags that go", hasNot("web"))
}

func TestTagsBehindACL(t *testing.T) {
	t.Parallel()
	a := consultest.Start(t, consultest.Options{ACL: true})
	tag(a, "im", "node1", "urlprefix-/im")
	tag(a, "web", "w1", "urlprefix-/web")
	part, _ := a.TokenFor(`service "im" { policy = "read" } node_prefix "" { policy = "read" }`)
	file := t.TempDir() + "/token"
	write := func(secret string) {
		if err := writeWhole(file, []byte(secret)); err != nil {
			t.Fatal(err)
		}
	}
	blind := record(t, tagSource(t, ConsulConfig{Address: a.Address}, nil, nil))
	blind.untilAll(t, "a reason", func(s Snapshot) bool {
		return strings.Contains(s.Partial, "lists no service with tags for routes, but it hides all from callers without a token")
	})
	write("00000000-0000-0000-0000-000000000000")
	refused := record(t, tagSource(t, ConsulConfig{Address: a.Address, TokenFile: file}, nil, nil))
	refused.untilAll(t, "a reason", func(s Snapshot) bool {
		return strings.Contains(s.Partial, "it needs service:read for the services with tags, and node:read")
	})
	write(part)
	r := record(t, tagSource(t, ConsulConfig{Address: a.Address, TokenFile: file, Wait: time.Second}, nil, nil))
	r.untilAll(t, "what the token may read", has("im", "/im→ node1"))
	full, _ := a.TokenFor(`service_prefix "" { policy = "read" } node_prefix "" { policy = "read" }`)
	write(full)
	r.untilAll(t, "everything", has("web", "/web→ w1"))
}
