package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/gobwas/ws"
	"github.com/hashicorp/consul/api"

	"singlegate/internal/consultest"
	"singlegate/internal/standin"
)

// tagsConfig takes the discovery of a gateway whose other routes are in tags.
const tagsConfig = `
listeners: [{name: plain, address: "127.0.0.1:0"}]
admin: {address: "127.0.0.1:0"}
discovery: %s
routes: [{path: /taken, redirect: "https://file.example.gov/"}]
`

func startTagsSite(t *testing.T, dir, discovery string) (*site, door) {
	t.Helper()
	writeFile(t, dir, "gateway.yaml", fmt.Sprintf(tagsConfig, discovery))
	s := startSite(t, dir)
	return s, door{address: s.listeners["plain"], host: "localhost"}
}

// tag registers a stand-in as an instance of a service, by its id.
func tag(a *consultest.Agent, service string, n *standin.Node, tags ...string) {
	a.Register(api.AgentServiceRegistration{ID: n.ID(), Name: service, Address: "127.0.0.1", Port: int(n.Port()), Tags: tags})
}

// greets opens a WebSocket, which a node must greet that says it was asked for
// this path.
func (d door) greets(target, node, path string) error {
	s, err := d.handshake(target)
	if err != nil {
		return err
	}
	defer s.conn.Close()
	if s.answer.StatusCode != 101 {
		return fmt.Errorf("%s: %s %s", target, s.answer.Status, s.body)
	}
	_, greeting, err := s.next()
	var hello said
	if err == nil {
		err = json.Unmarshal(greeting, &hello)
	}
	if err != nil || hello.Node != node || hello.Path != path {
		return fmt.Errorf("%s: %q greets (%w), want node %s asked for %s", target, greeting, err, node, path)
	}
	return nil
}

// greetedBy tells whether the nodes that several WebSockets get are these.
func (d door) greetedBy(target, nodes string) error {
	var found []string
	for range 6 {
		for _, id := range []string{"w1", "w2", "s1"} {
			if d.reaches(target, id) == nil && !slices.Contains(found, id) {
				found = append(found, id)
			}
		}
	}
	slices.Sort(found)
	if got := strings.Join(found, " "); got != nodes {
		return fmt.Errorf("%s: %q greet, want %q", target, got, nodes)
	}
	return nil
}

// Services that are registered for fabio are reachable as they are.
func TestConsulTags(t *testing.T) {
	agent := consultest.Start(t, consultest.Options{})
	w1, w2, s1 := startNode(t, standin.Options{ID: "w1"}), startNode(t, standin.Options{ID: "w2"}), startNode(t, standin.Options{ID: "s1"})
	dir := t.TempDir()
	s, d := startTagsSite(t, dir, fmt.Sprintf("{consul: {address: %q, tag_routes: urlprefix-}}", agent.Address))
	named := door{address: d.address, host: "shop.example.gov"}
	until(t, "nothing is known to be there", func() error { return d.answers("/app", 404, "no_route") })

	tag(agent, "web", w1, "urlprefix-/app strip=/app", "urlprefix-shop.example.gov/", "urlprefix-:1883 proto=tcp", "urlprefix-/taken", "primary")
	until(t, "the first instance is reachable", func() error { return d.greets("/app/chat", "w1", "/chat") })
	tag(agent, "web", w2, "urlprefix-/app strip=/app", "urlprefix-/both")
	tag(agent, "shop", s1, "urlprefix-/shop", "urlprefix-/both")
	until(t, "another service is reachable", func() error { return d.greets("/shop/a", "s1", "/shop/a") })
	until(t, "both instances share what both ask for", func() error { return d.greetedBy("/app", "w1 w2") })
	until(t, "two services share what both ask for", func() error { return d.greetedBy("/both", "s1 w2") })
	s.awaitLog(1, `"route":"/both","service":"web","node":"w2"`)
	s.awaitLog(1, `"route":"/both","service":"shop","node":"s1"`)
	if err := errors.Join(named.greetedBy("/x", "w1"), named.greets("/app/x", "w1", "/app/x"), d.answers("/x", 404, "no_route"), d.answers("/taken", 301, "")); err != nil {
		t.Error(err)
	}
	r := runCommand(t, dir, "nodes", "--admin", s.admin)
	for _, want := range []string{
		"http://" + d.address + "/app\n", "http://shop.example.gov:", `web w1 on agent, tag "urlprefix-:1883 proto=tcp": it asks for a TCP port`,
		"web tag route /taken: the route at gateway.yaml:5:10 takes the same requests",
	} {
		if !strings.Contains(r.out, want) {
			t.Errorf("nodes does not tell of %q:\n%s", want, r.out)
		}
	}
	if r := runCommand(t, dir, "check", "--config", "gateway.yaml"); r.code != 0 || !strings.Contains(r.out, "more routes by tags with urlprefix-") {
		t.Errorf("check: %d %s%s", r.code, r.out, r.err)
	}

	// What a tag leaves, and then the service, ends no tunnel by itself.
	e := startEchoes(2)
	defer e.stop()
	e.follow(named.open(t, "/x"))
	e.follow(d.open(t, "/shop"))
	tag(agent, "web", w1, "urlprefix-shop.example.gov/")
	until(t, "only the other instance serves it", func() error { return d.greetedBy("/app", "w2") })
	if err := named.greets("/x", "w1", "/x"); err != nil {
		t.Error(err)
	}
	tag(agent, "web", w1)
	agent.Deregister("s1")
	until(t, "its host is gone", func() error { return named.answers("/x", 404, "no_route") })
	until(t, "the other service is gone", func() error { return d.answers("/shop", 404, "no_route") })
	e.turn(t, 2)
	until(t, "both are to be drained by the policy", func() error {
		out := runCommand(t, dir, "nodes", "--admin", s.admin).out
		if strings.Count(out, "begins in") != 2 || !strings.Contains(out, "shop") {
			return errors.New(out)
		}
		return nil
	})
	if err := d.greets("/app", "w2", "/"); err != nil {
		t.Error(err)
	}
	e.finish(t)
}

// The routes of tags outlive Consul, and a gateway that starts without it knows
// them from its cache. Without one it does not say that there are none.
func TestConsulTagsWithoutConsul(t *testing.T) {
	agent := consultest.Start(t, consultest.Options{})
	w1 := startNode(t, standin.Options{ID: "w1"})
	dir := t.TempDir()
	discovery := fmt.Sprintf("{consul: {address: %q, tag_routes: {prefix: urlprefix-, listeners: [plain]}}, cache: nodes.json}", agent.Address)
	s, d := startTagsSite(t, dir, discovery)
	tag(agent, "web", w1, "urlprefix-/app strip=/app")
	until(t, "it is reachable", func() error { return d.greets("/app", "w1", "/") })
	cached(t, dir, "nodes.json", "w1")
	agent.Kill()
	until(t, "the fault shows", func() error {
		if out := runCommand(t, dir, "nodes", "--admin", s.admin).out; !strings.Contains(out, "refuses connections") {
			return errors.New(out)
		}
		return nil
	})
	if err := d.greets("/app", "w1", "/"); err != nil {
		t.Error(err)
	}
	s.signal(syscall.SIGTERM)
	s.exit()

	s, d = startTagsSite(t, dir, discovery)
	until(t, "the cache is used", func() error { return d.greets("/app/a", "w1", "/a") })
	admin := door{address: s.admin, host: s.admin}
	if err := errors.Join(d.answers("/other", 503, "no_snapshot"), admin.answers("/readyz", 200, "ready")); err != nil {
		t.Error(err)
	}
	s.signal(syscall.SIGTERM)
	s.exit()

	s, d = startTagsSite(t, t.TempDir(), strings.Replace(discovery, "cache: nodes.json", "cache: none.json", 1))
	admin = door{address: s.admin, host: s.admin}
	if err := errors.Join(d.answers("/app", 503, "no_snapshot"), d.answers("/taken", 301, ""), admin.answers("/readyz", 503, "routes that tags ask for")); err != nil {
		t.Error(err)
	}
	agent.Start()
	tag(agent, "web", w1, "urlprefix-/app")
	until(t, "it is reachable again", func() error { return d.greets("/app", "w1", "/app") })
	until(t, "and what is not there is known", func() error { return d.answers("/other", 404, "no_route") })
}

// Tags of a service in the file leave it as it is, and reloads that turn tags
// on and off touch no tunnel of it.
func TestConsulTagsOfAServiceInTheFile(t *testing.T) {
	agent := consultest.Start(t, consultest.Options{})
	m := startMember(t, "node1")
	dir := t.TempDir()
	s, d := startConsulSite(t, dir, fmt.Sprintf("{consul: {address: %q, tag_routes: urlprefix-}}", agent.Address), "")
	_, public, _ := strings.Cut(m.port.address, ":")
	r := registration("node1", m.Port(), public)
	r.Tags = []string{"urlprefix-/im"}
	agent.Register(r)
	reachable(t, d, m)
	until(t, "its tag is a route, too", func() error { return d.greets("/im", "node1", "/im") })
	e := startEchoes(2)
	defer e.stop()
	e.follow(d.open(t, "/im"))
	e.follow(d.open(t, "/ws/node1"))
	config := readFile(t, filepath.Join(dir, "gateway.yaml"))
	for i, text := range []string{strings.Replace(config, ", tag_routes: urlprefix-", "", 1), config} {
		writeFile(t, dir, "gateway.yaml", text)
		s.signal(syscall.SIGHUP)
		s.awaitLog(i+1, `"message":"reloaded: `)
		e.turn(t, 2)
		if i == 0 {
			if err := errors.Join(d.answers("/im", 404, "no_route"), d.reaches("/ws/node1", "node1")); err != nil {
				t.Error(err)
			}
		}
	}
	until(t, "the route is back", func() error { return d.greets("/im", "node1", "/im") })
	until(t, "the two tunnels are all there are", func() error {
		if got := s.im(); len(got.Nodes) != 1 || got.node("node1").Tunnels != 2 {
			return fmt.Errorf("the service is %+v", got)
		}
		return nil
	})
	e.finish(t)
	for _, line := range s.lines() {
		if line.Message == "node removed" {
			t.Errorf("%s was forgotten for a moment", line.Node)
		}
	}
}

// A service with nodes in the file and in Consul: before Consul has spoken, a
// node that the file does not name is not unknown.
func TestConsulMixedServiceColdStart(t *testing.T) {
	agent := consultest.Start(t, consultest.Options{})
	agent.Kill()
	m, written := startMember(t, "node1"), startMember(t, "written")
	_, d := startConsulSite(t, t.TempDir(), fmt.Sprintf("{consul: %q}", agent.Address), fmt.Sprintf(", nodes: {written: %q}", written.Addr()))
	if err := errors.Join(d.reaches("/ws/written", "written"), d.answers("/ws/node1", 503, "no_snapshot")); err != nil {
		t.Error(err)
	}
	agent.Start()
	m.register(agent)
	reachable(t, d, m)
	if err := errors.Join(d.reaches("/ws/written", "written"), d.answers("/ws/node2", 404, "node_unknown")); err != nil {
		t.Error(err)
	}
}

// A reload that names other nodes of such a service brings no old one back, also
// when Consul has news at that moment.
func TestConsulMixedServiceReloads(t *testing.T) {
	const reloads = 15
	agent := consultest.Start(t, consultest.Options{})
	m := startMember(t, "node1")
	m.register(agent)
	dir := t.TempDir()
	s, d := startConsulSite(t, dir, fmt.Sprintf("{consul: %q}", agent.Address), fmt.Sprintf(", nodes: {written0: %q}", m.Addr()))
	reachable(t, d, m)
	config := readFile(t, filepath.Join(dir, "gateway.yaml"))
	socket := d.open(t, "/ws/node1")
	nodeSays(t, socket.expect(t, ws.OpText), "node1")
	for i := 1; i <= reloads; i++ {
		writeFile(t, dir, "gateway.yaml", strings.Replace(config, "written0", fmt.Sprintf("written%d", i), 1))
		s.signal(syscall.SIGHUP)
		agent.Register(registration(fmt.Sprintf("other%d", i), m.Port(), "none"))
		s.awaitLog(i, `"message":"reloaded: `)
		if err := errors.Join(d.reaches(fmt.Sprintf("/ws/written%d", i), "node1"), d.answers(fmt.Sprintf("/ws/written%d", i-1), 404, "node_unknown")); err != nil {
			t.Error(err)
		}
	}
	added := map[string]int{}
	for _, line := range s.lines() {
		if line.Message == "node added" {
			added[line.Node]++
		}
		if line.Message == "node removed" && !strings.HasPrefix(line.Node, "written") {
			t.Errorf("%s was forgotten for a moment", line.Node)
		}
	}
	for id, times := range added {
		if times != 1 {
			t.Errorf("%s was added %d times", id, times)
		}
	}
	socket.ask(t, ws.OpText, "still there")
}
