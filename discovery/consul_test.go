package discovery

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"singlegate/internal/consultest"
)

func TestRegisteredNode(t *testing.T) {
	t.Parallel()
	a := consultest.Start(t, consultest.Options{})
	r := record(t, newSource(t, ConsulConfig{Address: a.Address}, nil))
	r.until(t, "a service without nodes", healthy(""))
	a.Register(api.AgentServiceRegistration{
		Name: "im", ID: "node1", Port: 8083, Address: "10.0.0.1", Meta: map[string]string{"zone": "a"},
		Weights: &api.AgentWeights{Passing: 7, Warning: 2},
	})
	got := r.until(t, "node1", healthy("node1"))
	want := Node{
		ID: "node1", Address: "10.0.0.1", Ports: map[string]uint16{"": 8083}, Weight: 7,
		Meta: map[string]string{"zone": "a"}, Status: Passing, Origin: "consul",
	}
	if !reflect.DeepEqual(got.Nodes[0], want) {
		t.Errorf("got %+v\nwant %+v", got.Nodes[0], want)
	}
	if got.Source != "consul" || got.Taken.IsZero() {
		t.Errorf("source %q, taken %v", got.Source, got.Taken)
	}

	a.Maintenance("node1", true)
	r.until(t, "maintenance", func(s Service) bool { return ids(s) == "node1" && s.Nodes[0].Status == Maintenance })
	a.Maintenance("node1", false)
	r.until(t, "no maintenance", func(s Service) bool { return ids(s) == "node1" && s.Nodes[0].Status == Passing })

	register(a, "node2")
	r.until(t, "node2", healthy("node1 node2"))
	a.Deregister("node1")
	r.until(t, "node1 is gone", healthy("node2"))
	a.Deregister("node2")
	r.until(t, "all are gone", healthy(""))
}

func TestChecks(t *testing.T) {
	t.Parallel()
	a := consultest.Start(t, consultest.Options{})
	node := registration("node1")
	node.Check = &api.AgentServiceCheck{CheckID: "alive", TTL: "1h", Status: "critical"}
	node.Weights = &api.AgentWeights{Passing: 7, Warning: 2}
	a.Register(node)
	r := record(t, newSource(t, ConsulConfig{Address: a.Address}, nil))
	for _, tt := range []struct {
		state  string
		status Status
		weight int
	}{{"fail", Failing, 7}, {"pass", Passing, 7}, {"warn", Passing, 2}} {
		if err := a.API.Agent().UpdateTTL("alive", "", tt.state); err != nil {
			t.Fatal(err)
		}
		r.until(t, tt.state, func(s Service) bool {
			return ids(s) == "node1" && s.Nodes[0].Status == tt.status && s.Nodes[0].Weight == tt.weight
		})
	}
}

// Two services are of one Consul service, a third takes its ports from two others.
func TestSharedAndSiblings(t *testing.T) {
	t.Parallel()
	a := consultest.Start(t, consultest.Options{})
	meta := map[string]string{"node": "n1", "bad": "0"}
	a.Register(api.AgentServiceRegistration{Name: "im", ID: "im-1", Port: 80, Address: "10.0.0.1", Meta: meta, Tags: []string{"blue"}})
	a.Register(api.AgentServiceRegistration{Name: "im", ID: "im-2", Port: 81, Address: "10.0.0.2", Tags: []string{"green"}})
	a.Register(api.AgentServiceRegistration{Name: "im-tcp", ID: "im-tcp-1", Port: 1883, Address: "10.0.0.1", Meta: meta})
	log := &logged{}
	source := newSource(t, ConsulConfig{Address: a.Address}, log.log,
		ConsulService{Name: "blue", Service: "im", Tag: "blue"},
		ConsulService{Name: "all", Service: "im"},
		ConsulService{Name: "im", Service: "im", NodeID: "meta.node", Ports: map[string]PortFrom{"http": {}, "tcp": {Sibling: "im-tcp"}, "ws": {Number: 8083}}},
	)
	if got := source.watched(); !slices.Equal(got, []string{"im", "im-tcp"}) {
		t.Errorf("watched are %q", got)
	}
	r := record(t, source)
	got := r.until(t, "n1", healthy("n1"))
	if want := map[string]uint16{"http": 80, "tcp": 1883, "ws": 8083}; !reflect.DeepEqual(got.Nodes[0].Ports, want) {
		t.Errorf("ports %v", got.Nodes[0].Ports)
	}
	if len(got.LeftOut) != 1 || got.LeftOut[0].Instance != "im-2 on agent" || !strings.Contains(got.LeftOut[0].Reason, `no meta key "node"`) {
		t.Errorf("left out: %+v", got.LeftOut)
	}
	snap, _ := r.latest()
	if blue, all := ids(snap.Services["blue"]), ids(snap.Services["all"]); blue != "im-1" || all != "im-1 im-2" {
		t.Errorf("blue is %q, all is %q", blue, all)
	}

	a.Register(api.AgentServiceRegistration{Name: "im-tcp", ID: "im-tcp-1", Port: 1884, Address: "10.0.0.1", Meta: meta})
	r.until(t, "the sibling's new port", func(s Service) bool { return ids(s) == "n1" && s.Nodes[0].Ports["tcp"] == 1884 })
	if n := log.count("cannot be a node"); n != 1 {
		t.Errorf("what is left out was logged %d times: %q", n, log.lines)
	}
}

// A query whose wait is over says that nothing has changed, which is news too.
func TestWaitIsOver(t *testing.T) {
	t.Parallel()
	a := consultest.Start(t, consultest.Options{})
	register(a, "node1")
	r := record(t, newSource(t, ConsulConfig{Address: a.Address, Wait: time.Second}, nil))
	first := r.until(t, "node1", healthy("node1"))
	r.until(t, "a later confirmation", func(s Service) bool { return ids(s) == "node1" && s.Taken.After(first.Taken) })
}

func TestManyNodesAndFlapping(t *testing.T) {
	t.Parallel()
	a := consultest.Start(t, consultest.Options{})
	var want []string
	for i := range 200 {
		want = append(want, fmt.Sprintf("node%03d", i))
	}
	register(a, want...)
	r := record(t, newSource(t, ConsulConfig{Address: a.Address}, nil))
	all := strings.Join(want, " ")
	r.until(t, "200 nodes", healthy(all))
	for range 20 {
		a.Deregister("node100")
		register(a, "node100")
	}
	a.Deregister("node100")
	r.until(t, "199 nodes", healthy(strings.Replace(all, " node100", "", 1)))
	r.neverLoses(t, slices.Delete(want, 100, 101)...)
}

func TestRestartWithData(t *testing.T) {
	t.Parallel()
	a := consultest.Start(t, consultest.Options{Data: true})
	register(a, "node1", "node2", "node3")
	r := record(t, newSource(t, ConsulConfig{Address: a.Address}, nil))
	before := r.until(t, "three nodes", healthy("node1 node2 node3"))
	a.Kill()
	fault := r.until(t, "a fault", faulty("refuses connections"))
	if !fault.Taken.Equal(before.Taken) {
		t.Errorf("taken moved from %v to %v during a fault", before.Taken, fault.Taken)
	}
	a.Start()
	after := r.until(t, "three nodes again", healthy("node1 node2 node3"))
	if !after.Taken.After(before.Taken) {
		t.Error("taken stands still after the fault")
	}
	r.neverLoses(t, "node1", "node2", "node3")
	a.Deregister("node2")
	register(a, "node4")
	r.until(t, "news", healthy("node1 node3 node4"))
}

// Consul comes back without its state: what it has forgotten is kept until it
// is registered again, whatever it lists meanwhile.
func TestRestartWiped(t *testing.T) {
	t.Parallel()
	a := consultest.Start(t, consultest.Options{})
	register(a, "node1", "node2", "node3", "node4")
	r := record(t, newSource(t, ConsulConfig{Address: a.Address}, nil))
	r.until(t, "four nodes", healthy("node1 node2 node3 node4"))
	a.Kill()
	r.until(t, "a fault", faulty("refuses connections"))
	a.Start()
	r.until(t, "a Consul without state", faulty("its state"))
	register(a, "node2")
	r.until(t, "the first is back", faulty("came back without node1 on agent, node3 on agent, node4 on agent"))
	register(a, "node1", "node4")
	moved := registration("node3")
	moved.Address = "10.0.0.33"
	a.Register(moved)
	s := r.until(t, "all are back", healthy("node1 node2 node3 node4"))
	if s.Nodes[2].Address != "10.0.0.33" {
		t.Errorf("node3 is at %s", s.Nodes[2].Address)
	}
	r.neverLoses(t, "node1", "node2", "node3", "node4")
	a.Deregister("node1")
	r.until(t, "node1 is gone", healthy("node2 node3 node4"))
}

// What is not registered again in time is gone.
func TestRestartWipedAndSettled(t *testing.T) {
	t.Parallel()
	a := consultest.Start(t, consultest.Options{})
	register(a, "node1", "node2")
	source := newSource(t, ConsulConfig{Address: a.Address}, nil)
	source.timing.settle = 100 * time.Millisecond
	r := record(t, source)
	r.until(t, "two nodes", healthy("node1 node2"))
	a.Kill()
	a.Start()
	register(a, "node1")
	r.until(t, "node2 is gone", healthy("node1"))
}

func TestTokens(t *testing.T) {
	t.Parallel()
	a := consultest.Start(t, consultest.Options{ACL: true})
	register(a, "node1")
	const rules = `service "im" { policy = "read" } node_prefix "" { policy = "read" }`
	file := filepath.Join(t.TempDir(), "consul.token")
	write := func(secret string) {
		if err := writeWhole(file, []byte(secret+"\n")); err != nil {
			t.Fatal(err)
		}
	}
	secret, accessor := a.TokenFor(rules)
	source := newSource(t, ConsulConfig{Address: a.Address, TokenFile: file, Wait: time.Second}, nil)
	r := record(t, source)
	r.unknown(t, "the token for Consul cannot be read")
	write("")
	r.unknown(t, "is empty")
	write(secret)
	r.until(t, "node1", healthy("node1"))

	a.DropToken(accessor)
	s := r.until(t, "a refused token", faulty("Consul refuses the token in "+file+" (403"))
	if strings.Contains(s.Fault, secret) {
		t.Error("the fault shows the token")
	}
	secret, _ = a.TokenFor(`service "im" { policy = "read" }`)
	write(secret)
	r.until(t, "a token that may not read nodes", faulty("may not read everything"))
	register(a, "node2")
	secret, _ = a.TokenFor(rules)
	write(secret)
	r.until(t, "both nodes", healthy("node1 node2"))
	r.neverLoses(t, "node1")
}

// A caller without a token is told that there is nothing.
func TestNoToken(t *testing.T) {
	t.Parallel()
	a := consultest.Start(t, consultest.Options{ACL: true})
	register(a, "node1")
	r := record(t, newSource(t, ConsulConfig{Address: a.Address}, nil))
	r.unknown(t, "hides all from callers without a token")
}

// A token that may read some nodes only: what it sees is all there is, but it
// cannot make nodes go that a better token has seen.
func TestCutDownList(t *testing.T) {
	t.Parallel()
	a := consultest.Start(t, consultest.Options{ACL: true})
	register(a, "node1")
	_, err := a.API.Catalog().Register(&api.CatalogRegistration{
		Node: "other", Address: "10.0.0.2", Service: &api.AgentService{Service: "im", ID: "node2", Port: 80},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	full, _ := a.TokenFor(`service "im" { policy = "read" } node_prefix "" { policy = "read" }`)
	part, _ := a.TokenFor(`service "im" { policy = "read" } node "agent" { policy = "read" }`)
	file := filepath.Join(t.TempDir(), "consul.token")
	if err := os.WriteFile(file, []byte(part), 0o600); err != nil {
		t.Fatal(err)
	}
	source := newSource(t, ConsulConfig{Address: a.Address, TokenFile: file, Wait: time.Second}, nil)
	r := record(t, source)
	r.until(t, "what the token may read", healthy("node1"))
	if err := os.WriteFile(file, []byte(full), 0o600); err != nil {
		t.Fatal(err)
	}
	r.until(t, "everything", healthy("node1 node2"))
	if err := os.WriteFile(file, []byte(part), 0o600); err != nil {
		t.Fatal(err)
	}
	s := r.until(t, "less again", faulty("may not read everything"))
	if ids(s) != "node1 node2" {
		t.Errorf("nodes are %q", ids(s))
	}
}

func TestUnreachable(t *testing.T) {
	t.Parallel()
	a := consultest.Start(t, consultest.Options{})
	other := newSource(t, ConsulConfig{Address: a.Address, Datacenter: "elsewhere"}, nil)
	record(t, other).unknown(t, `Consul knows no datacenter "elsewhere"`)
	tls := newSource(t, ConsulConfig{Address: a.Address, Scheme: "https"}, nil)
	record(t, tls).unknown(t, "speaks plain HTTP there; set scheme: http")
	a.Kill()
	r := record(t, newSource(t, ConsulConfig{Address: a.Address}, nil))
	r.unknown(t, "Consul at "+a.Address+" refuses connections")
	if snap, _ := r.latest(); len(snap.Services) != 0 {
		t.Errorf("got %+v", snap)
	}
}

// Servers that have not found each other answer, but have no leader.
func TestNoLeader(t *testing.T) {
	t.Parallel()
	a := consultest.Start(t, consultest.Options{Data: true, Servers: 2})
	r := record(t, newSource(t, ConsulConfig{Address: a.Address, Wait: time.Second}, nil))
	r.unknown(t, "have no leader")

	b := consultest.Start(t, consultest.Options{Data: true, Servers: 2, Join: a})
	b.Register(registration("node1"))
	r.until(t, "node1", healthy("node1"))
	b.Kill()
	s := r.until(t, "a lost leader", faulty("Consul"))
	if ids(s) != "node1" {
		t.Errorf("nodes are %q", ids(s))
	}
	r.neverLoses(t, "node1")
}

func TestStaleReads(t *testing.T) {
	t.Parallel()
	a := consultest.Start(t, consultest.Options{})
	register(a, "node1")
	r := record(t, newSource(t, ConsulConfig{Address: a.Address, Stale: true}, nil))
	r.until(t, "node1", healthy("node1"))
	a.Deregister("node1")
	r.until(t, "none", healthy(""))
}

func TestTwoGatewaysAgree(t *testing.T) {
	t.Parallel()
	a := consultest.Start(t, consultest.Options{})
	register(a, "node2", "node1")
	one := record(t, newSource(t, ConsulConfig{Address: a.Address}, nil)).until(t, "two nodes", healthy("node1 node2"))
	two := record(t, newSource(t, ConsulConfig{Address: a.Address}, nil)).until(t, "two nodes", healthy("node1 node2"))
	if !reflect.DeepEqual(one.Nodes, two.Nodes) {
		t.Errorf("one has %+v\nthe other %+v", one.Nodes, two.Nodes)
	}
}

func TestBadConsulConfig(t *testing.T) {
	tests := []struct {
		name    string
		cfg     ConsulConfig
		service ConsulService
		want    string
	}{
		{"wait", ConsulConfig{Wait: time.Hour}, im, "discovery.consul: wait is 1h0m0s; Consul takes 1s to 10m"},
		{"ca", ConsulConfig{CAFile: "none.pem"}, im, "discovery.consul: the certificates for Consul cannot be used"},
		{"name", ConsulConfig{}, ConsulService{At: "a:1:2", Name: "x"}, `a:1:2: service "x": it needs a name and the name of a service in Consul`},
		{"node id", ConsulConfig{}, ConsulService{At: "a:1:2", Name: "x", Service: "x", NodeID: "meta."}, `node_id is "meta."`},
		{"slash", ConsulConfig{}, ConsulService{At: "a:1:2", Name: "x", Service: "a/b"}, `no service with a name like "a/b"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := NewConsul(tt.cfg, []ConsulService{tt.service}, nil)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestEnvironment(t *testing.T) {
	a := consultest.Start(t, consultest.Options{ACL: true})
	register(a, "node1")
	t.Setenv("CONSUL_HTTP_ADDR", a.Address)
	t.Setenv("CONSUL_HTTP_TOKEN", consultest.Token)
	record(t, newSource(t, ConsulConfig{}, nil)).until(t, "node1", healthy("node1"))

	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(consultest.Token), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("CONSUL_HTTP_TOKEN", "")
	t.Setenv("CONSUL_HTTP_TOKEN_FILE", file)
	record(t, newSource(t, ConsulConfig{}, nil)).until(t, "node1", healthy("node1"))
}

// BenchmarkRegistration prints how long it takes from the begin of a registration
// until the node is in a snapshot.
func BenchmarkRegistration(b *testing.B) {
	a := consultest.Start(b, consultest.Options{})
	r := record(b, newSource(b, ConsulConfig{Address: a.Address}, nil))
	r.until(b, "a service without nodes", healthy(""))
	for b.Loop() {
		var delays []time.Duration
		for i := range 100 {
			id := fmt.Sprintf("node%03d", i)
			begin := time.Now()
			a.Register(registration(id))
			r.until(b, id, func(s Service) bool { return strings.HasSuffix(ids(s), id) })
			delays = append(delays, time.Since(begin))
		}
		slices.Sort(delays)
		b.ReportMetric(float64(delays[50].Microseconds())/1000, "p50-ms")
		b.ReportMetric(float64(delays[99].Microseconds())/1000, "p99-ms")
		for i := range 100 {
			a.Deregister(fmt.Sprintf("node%03d", i))
		}
		r.until(b, "none", healthy(""))
	}
}
