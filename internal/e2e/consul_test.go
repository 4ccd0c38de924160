package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"singlegate/internal/consultest"
	"singlegate/internal/standin"
)

// A node that registers is reachable, one that deregisters is not, and nobody
// else notices.
func TestConsulRegisterAndDeregister(t *testing.T) {
	const tunnels = 20
	agent := consultest.Start(t, consultest.Options{})
	stays, goes := startMember(t, "node1"), startMember(t, "node2")
	s, d := startConsulSite(t, t.TempDir(), fmt.Sprintf("{consul: %q}", agent.Address), "")
	stays.register(agent)
	reachable(t, d, stays)
	e := startEchoes(tunnels)
	defer e.stop()
	e.follows(t, d, tunnels, stays)

	for range 3 {
		if err := d.answers("/ws/node2", 404, "node_unknown"); err != nil {
			t.Error(err)
		}
		goes.register(agent)
		reachable(t, d, goes)
		e.turn(t, tunnels)
		agent.Deregister("node2")
		until(t, "node2 is unknown", func() error { return d.answers("/ws/node2", 404, "node_unknown") })
		until(t, "its port is closed", goes.port.closed)
		e.turn(t, tunnels)
	}
	if got := s.im().node("node1").Tunnels; got != tunnels {
		t.Errorf("node1 has %d tunnels, want %d", got, tunnels)
	}
	e.finish(t)
}

// Consul may be killed and come back, with its state or without: every message
// of every tunnel arrives, and new connections are served at any moment.
func TestConsulKilledUnderTunnels(t *testing.T) {
	const tunnels = 500
	agent := consultest.Start(t, consultest.Options{Data: true})
	members := []member{startMember(t, "node1"), startMember(t, "node2")}
	s, d := startConsulSite(t, t.TempDir(), fmt.Sprintf("{consul: %q}", agent.Address), "")
	for _, m := range members {
		m.register(agent)
	}
	reachable(t, d, members...)
	e := startEchoes(tunnels)
	defer e.stop()
	e.follows(t, d, tunnels, members...)
	v := startVisitors(t, visitsOf(d, members...)...)
	goOn := func() {
		t.Helper()
		e.turn(t, tunnels)
		v.more(t, 8)
	}

	agent.Kill()
	s.tells("Consul")
	goOn()
	agent.Start()
	s.tells("")
	goOn()

	agent.Kill()
	agent.Wipe()
	s.tells("Consul")
	agent.Start()
	s.tells("kept")
	goOn()
	members[0].register(agent)
	s.tells("node2") // which alone is missing
	goOn()
	members[1].register(agent)
	s.tells("")
	goOn()

	v.finish(t)
	e.finish(t)
	if got := s.im(); len(got.Nodes) != len(members) || got.Source != "consul" {
		t.Errorf("in the end the gateway knows %+v", got)
	}
}

// A token that is deleted while it is in use takes nothing away; a new one in
// its file is used.
func TestConsulTokenDeleted(t *testing.T) {
	const tunnels = 10
	const rules = `service "im" { policy = "read" } node_prefix "" { policy = "read" }`
	agent := consultest.Start(t, consultest.Options{ACL: true})
	known, later := startMember(t, "node1"), startMember(t, "node2")
	known.register(agent)
	dir := t.TempDir()
	token, accessor := agent.TokenFor(rules)
	writeFile(t, dir, "token", token+"\n")
	s, d := startConsulSite(t, dir, fmt.Sprintf("{consul: {address: %q, token_file: token, wait: 1s}}", agent.Address), "")
	reachable(t, d, known)
	e := startEchoes(tunnels)
	defer e.stop()
	e.follows(t, d, tunnels, known)
	v := startVisitors(t, visitsOf(d, known)...)

	agent.DropToken(accessor)
	s.tells("token")
	e.turn(t, tunnels)
	v.more(t, 4)
	later.register(agent)
	token, _ = agent.TokenFor(rules)
	writeFile(t, dir, "token", token)
	s.tells("")
	reachable(t, d, later)
	e.turn(t, tunnels)
	v.finish(t)
	e.finish(t)
	if strings.Contains(s.log.String(), token) {
		t.Error("the log has the token")
	}
}

// A gateway that starts while Consul is down knows what its cache knows.
func TestConsulColdStartFromTheCache(t *testing.T) {
	agent := consultest.Start(t, consultest.Options{})
	m := startMember(t, "node1")
	m.register(agent)
	dir := t.TempDir()
	discovery := fmt.Sprintf("{consul: %q, cache: nodes.json}", agent.Address)
	s, d := startConsulSite(t, dir, discovery, "")
	reachable(t, d, m)
	cached(t, dir, "nodes.json", "node1")
	s.signal(syscall.SIGTERM)
	s.exit()
	agent.Kill()

	s, d = startConsulSite(t, dir, discovery, "")
	reachable(t, d, m)
	if im := s.im(); im.Source != "cache" || !strings.Contains(im.Fault, "from the cache of ") {
		t.Errorf("source %q with the fault %q, want the cache", im.Source, im.Fault)
	}
	agent.Start()
	m.register(agent)
	s.tells("")
	if im := s.im(); im.Source != "consul" {
		t.Errorf("source %q, want Consul, which is back", im.Source)
	}
	reachable(t, d, m)
}

// Without a cache it opens its listeners and says what it does not know.
func TestConsulColdStartWithoutACache(t *testing.T) {
	agent := consultest.Start(t, consultest.Options{})
	agent.Kill()
	m := startMember(t, "node1")
	s, d := startConsulSite(t, t.TempDir(), fmt.Sprintf("{consul: %q}", agent.Address), "")
	if err := d.answers("/ws/node1", 503, "no_snapshot"); err != nil {
		t.Error(err)
	}
	admin := door{address: s.admin, host: s.admin}
	if err := admin.answers("/readyz", 503, `\"im\"`); err != nil {
		t.Error(err)
	}
	if err := admin.answers("/healthz", 200, "ok"); err != nil {
		t.Error(err)
	}
	agent.Start()
	m.register(agent)
	reachable(t, d, m)
	until(t, "the gateway is ready", func() error { return admin.answers("/readyz", 200, "ready") })
}

// Two gateways of one Consul know the same.
func TestConsulTwoGatewaysAgree(t *testing.T) {
	agent := consultest.Start(t, consultest.Options{})
	m := startMember(t, "node1")
	others := []string{"node2", "node3", "node4"}
	discovery := fmt.Sprintf("{consul: %q}", agent.Address)
	first, firstDoor := startConsulSite(t, t.TempDir(), discovery, "")
	dir := t.TempDir()
	writeFile(t, dir, "gateway.yaml", strings.Split(fmt.Sprintf(consulConfig, discovery, ""), "node_ports:")[0])
	second := startSite(t, dir) // on one machine only one of them can have the ports
	secondDoor := door{address: second.listeners["plain"], host: "localhost"}

	m.register(agent)
	for _, id := range others {
		agent.Register(registration(id, m.Port(), "none"))
	}
	agent.Deregister("node3")
	agent.Maintenance("node4", true)
	settled := func(s *site) func() error {
		return func() error {
			if im := s.im(); len(im.Nodes) != 3 || im.node("node4").Status != "maintenance" {
				return fmt.Errorf("it knows %+v", im.Nodes)
			}
			return nil
		}
	}
	until(t, "the first gateway knows all", settled(first))
	until(t, "the second gateway knows all", settled(second))
	if a, b := first.im(), second.im(); !reflect.DeepEqual(a.Nodes, b.Nodes) {
		t.Errorf("the gateways know\n%+v\n%+v", a.Nodes, b.Nodes)
	}
	for _, d := range []door{firstDoor, secondDoor} {
		if err := errors.Join(d.reaches("/ws/node1", "node1"), d.reaches("/ws/node2", "node1")); err != nil {
			t.Error(err)
		}
	}
}

// Maintenance in Consul empties a node at its service's pace; operators see it.
func TestConsulMaintenanceDrains(t *testing.T) {
	const leaving, staying = 30, 5
	agent := consultest.Start(t, consultest.Options{})
	tired, fresh := startMember(t, "node1"), startMember(t, "node2")
	tired.register(agent)
	fresh.register(agent)
	dir := t.TempDir()
	s, d := startConsulSite(t, dir, fmt.Sprintf("{consul: %q}", agent.Address), ", tunnels: {maintenance: drain, per_second: 10}")
	reachable(t, d, tired, fresh)
	e := startEchoes(staying)
	defer e.stop()
	e.follows(t, d, staying, fresh)
	ends := make(chan error, leaving)
	var group sync.WaitGroup
	defer group.Wait()
	for range leaving {
		socket := d.open(t, "/ws/node1")
		nodeSays(t, socket.expect(t, ws.OpText), "node1")
		group.Go(func() { ends <- closedWith(socket, 1012) })
	}

	agent.Maintenance("node1", true)
	until(t, "the command shows a drain under way", func() error { return showsDrain(runCommand(t, dir, "nodes", "--json", "--admin", s.admin)) })
	if err := d.answers("/ws/node1", 503, "node_draining"); err != nil {
		t.Error(err)
	}
	for range leaving {
		if err := <-ends; err != nil {
			t.Error(err)
		}
	}
	e.turn(t, staying)
	agent.Maintenance("node1", false)
	reachable(t, d, tired)
	e.finish(t)
}

// showsDrain tells whether node1 is shown half emptied: closed at a pace.
func showsDrain(r result) error {
	var n nodesAnswer
	if err := json.Unmarshal([]byte(r.out), &n); err != nil || r.code != 0 {
		return fmt.Errorf("exit code %d, %v: %s%s", r.code, err, r.out, r.err)
	}
	for _, drain := range n.Drains {
		if drain.Node == "node1" && 0 < drain.Left && drain.Left < drain.Total && n.Services[0].node("node1").Status == "maintenance" {
			return nil
		}
	}
	return errors.New(r.out)
}

// The death of a node ends its own tunnels and costs no other one a byte,
// whatever Consul says of it meanwhile.
func TestConsulNodeDies(t *testing.T) {
	const each = 20
	agent := consultest.Start(t, consultest.Options{})
	dies, lives := startMember(t, "node1"), startMember(t, "node2")
	dies.register(agent)
	lives.register(agent)
	s, d := startConsulSite(t, t.TempDir(), fmt.Sprintf("{consul: %q}", agent.Address), "")
	reachable(t, d, dies, lives)
	e := startEchoes(each)
	defer e.stop()
	e.follows(t, d, each, lives)
	var doomed []*socket
	for range each {
		doomed = append(doomed, d.open(t, "/ws/node1"))
	}
	if err := dies.Close(); err != nil {
		t.Fatal(err)
	}
	for _, socket := range doomed {
		if codes, _, err := socket.end(); len(codes) > 1 || isTimeout(err) {
			t.Errorf("a tunnel of the node that died was closed with %v and ended with %v", codes, err)
		}
	}
	e.turn(t, each)
	if err := d.answers("/ws/node1", 503, "node_down"); err != nil {
		t.Error(err)
	}
	agent.Deregister("node1")
	until(t, "the node is unknown", func() error { return d.answers("/ws/node1", 404, "node_unknown") })
	e.turn(t, each)
	e.finish(t)
	if got := s.im().node("node2").Tunnels; got != each {
		t.Errorf("node2 has %d tunnels, want %d", got, each)
	}
}

func isTimeout(err error) bool {
	var timeout interface{ Timeout() bool }
	return errors.As(err, &timeout) && timeout.Timeout()
}

// Reloads do not forget what Consul said, not for a moment, and do not lose what
// it says meanwhile.
func TestConsulReloadsKeepNodes(t *testing.T) {
	const reloads = 20
	agent := consultest.Start(t, consultest.Options{})
	m := startMember(t, "node1")
	m.register(agent)
	dir := t.TempDir()
	s, d := startConsulSite(t, dir, fmt.Sprintf("{consul: %q}", agent.Address), "")
	reachable(t, d, m)
	v := startVisitors(t, slices.Concat(visitsOf(d, m), []func() error{func() error { return d.answers("/ws/node1", 200, "node1") }})...)
	config := readFile(t, filepath.Join(dir, "gateway.yaml"))
	for i := 1; i <= reloads; i++ {
		id := fmt.Sprintf("other%d", i)
		writeFile(t, dir, "gateway.yaml", strings.Replace(config, "routes: [", fmt.Sprintf("routes: [{path: \"/new%d/{node}\", service: im}, ", i), 1))
		s.signal(syscall.SIGHUP)
		agent.Register(registration(id, m.Port(), "none")) // at the same moment
		s.awaitLog(i, `"message":"reloaded: `)
		until(t, id+" is known", func() error { return d.answers("/ws/"+id, 200, "node1") })
	}
	v.finish(t)
	for _, line := range s.lines() {
		if line.Message == "node removed" {
			t.Errorf("a reload forgot %s for a moment", line.Node)
		}
	}
	if err := d.answers(fmt.Sprintf("/new%d/node1", reloads), 404, "no such path"); err != nil {
		t.Errorf("the last config is not in force: %v", err)
	}
}

// Nor does a reload that asks Consul in another way, also where the file names
// nodes of the same service.
func TestConsulReloadsOfItsSettingsKeepNodes(t *testing.T) {
	const reloads = 6
	agent := consultest.Start(t, consultest.Options{})
	m, written := startMember(t, "node1"), startMember(t, "written")
	m.register(agent)
	dir := t.TempDir()
	s, d := startConsulSite(t, dir, fmt.Sprintf("{consul: {address: %q, wait: 100s}}", agent.Address), fmt.Sprintf(", nodes: {written: %q}", written.Addr()))
	reachable(t, d, m)
	visits := append(visitsOf(d, m), func() error { return d.reaches("/ws/written", "written") })
	v := startVisitors(t, visits...)
	config := readFile(t, filepath.Join(dir, "gateway.yaml"))
	for i := 1; i <= reloads; i++ {
		writeFile(t, dir, "gateway.yaml", strings.Replace(config, "100s", fmt.Sprintf("%ds", 100+i), 1))
		s.signal(syscall.SIGHUP)
		s.awaitLog(i, `"message":"reloaded: `)
		v.more(t, int64(len(visits)))
	}
	v.finish(t)
	for _, line := range s.lines() {
		if line.Message == "node removed" {
			t.Errorf("a reload forgot %s for a moment", line.Node)
		}
	}
}

// How long it takes from a registration in Consul to an answer of the node.
func BenchmarkConsulRegisterToReachable(b *testing.B) {
	const services = 100
	binary, err := built()
	if err != nil {
		b.Fatal(err)
	}
	agent := consultest.Start(b, consultest.Options{})
	node, err := standin.Start(standin.Options{ID: "node", System: standin.Chat})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { node.Close() })
	address := fmt.Sprintf("127.0.0.1:%d", consultest.FreePort(b))
	startQuietly(b, binary, fmt.Sprintf(`
listeners: [{address: %q}]
discovery: {consul: %q}
services: {im: {consul: im}}
routes: [{path: "/im/{node}", service: im, rewrite: /}]
`, address, agent.Address))
	client := &http.Client{Transport: &http.Transport{}, Timeout: patience}
	b.Cleanup(client.CloseIdleConnections)
	status := func(id string) int {
		answer, err := client.Get("http://" + address + "/im/" + id)
		if err != nil {
			return 0
		}
		defer answer.Body.Close()
		return answer.StatusCode
	}
	agent.Register(registration("first", node.Port(), ""))
	until(b, "the gateway serves", func() error {
		if got := status("first"); got != 200 {
			return fmt.Errorf("status %d", got)
		}
		return nil
	})

	var took []time.Duration
	for n := 0; b.Loop(); n++ {
		for i := range services {
			id := fmt.Sprintf("node%d-%d", n, i)
			from := time.Now()
			agent.Register(registration(id, node.Port(), ""))
			for status(id) != 200 {
				if time.Since(from) > patience {
					b.Fatalf("%s is not reachable", id)
				}
			}
			took = append(took, time.Since(from))
		}
	}
	slices.Sort(took)
	b.ReportMetric(took[len(took)/2].Seconds()*1000, "p50-ms")
	b.ReportMetric(took[len(took)*99/100].Seconds()*1000, "p99-ms")
}

// startQuietly runs a gateway until the benchmark ends.
func startQuietly(b *testing.B, binary, config string) {
	b.Helper()
	dir := b.TempDir()
	file := filepath.Join(dir, "gateway.yaml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		b.Fatal(err)
	}
	cmd := exec.Command(binary, "run", "--config", file)
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait() // how it ends is other tests' matter
	})
}
