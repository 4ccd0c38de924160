package discovery

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/consul/api"
)

// entry makes an instance with a service id, as Consul lists it.
func entry(id string, change ...func(*api.ServiceEntry)) *api.ServiceEntry {
	e := &api.ServiceEntry{
		Node:    &api.Node{Node: "agent", Address: "10.0.0.9"},
		Service: &api.AgentService{ID: id, Service: "im", Port: 80, Weights: api.AgentWeights{Passing: 1, Warning: 1}},
	}
	for _, c := range change {
		c(e)
	}
	return e
}

func meta(pairs ...string) func(*api.ServiceEntry) {
	return func(e *api.ServiceEntry) {
		e.Service.Meta = map[string]string{}
		for i := 0; i < len(pairs); i += 2 {
			e.Service.Meta[pairs[i]] = pairs[i+1]
		}
	}
}

func on(node string) func(*api.ServiceEntry) {
	return func(e *api.ServiceEntry) { e.Node.Node = node }
}

func tags(tags ...string) func(*api.ServiceEntry) {
	return func(e *api.ServiceEntry) { e.Service.Tags = tags }
}

func at(address string, port int) func(*api.ServiceEntry) {
	return func(e *api.ServiceEntry) { e.Service.Address, e.Service.Port = address, port }
}

func check(id, status string) func(*api.ServiceEntry) {
	return func(e *api.ServiceEntry) {
		e.Checks = append(e.Checks, &api.HealthCheck{CheckID: id, Status: status})
	}
}

func TestBuild(t *testing.T) {
	ports := func(name string, from PortFrom) map[string]PortFrom { return map[string]PortFrom{name: from} }
	tests := []struct {
		name     string
		service  ConsulService
		entries  []*api.ServiceEntry
		siblings []*api.ServiceEntry // of im-tcp
		want     string              // nodes as shown by brief, or what is left out: "-instance: reason"
	}{
		{"service id", ConsulService{}, []*api.ServiceEntry{entry("b"), entry("a")}, nil, "a=10.0.0.9:80 b=10.0.0.9:80"},
		{"consul's node", ConsulService{NodeID: "node"}, []*api.ServiceEntry{entry("im", on("n2")), entry("im", on("n1"))}, nil, "n1=10.0.0.9:80 n2=10.0.0.9:80"},
		{"meta", ConsulService{NodeID: "meta.node"}, []*api.ServiceEntry{entry("x", meta("node", "n1"))}, nil, "n1=10.0.0.9:80"},
		{"no meta", ConsulService{NodeID: "meta.node"}, []*api.ServiceEntry{entry("x"), entry("y", meta("node", "n1"))}, nil,
			`n1=10.0.0.9:80 -x on agent: it has no meta key "node", which gives the node id; register it with one, or change node_id`},
		{"tag", ConsulService{NodeID: "tag.node="}, []*api.ServiceEntry{entry("x", tags("a", "node=n1", "node=n1"))}, nil, "n1=10.0.0.9:80"},
		{"no tag", ConsulService{NodeID: "tag.node="}, []*api.ServiceEntry{entry("x", tags("node-n1"))}, nil,
			`-x on agent: none of its tags begins with "node=", which gives the node id; register it with one, or change node_id`},
		{"two tags", ConsulService{NodeID: "tag.node="}, []*api.ServiceEntry{entry("x", tags("node=n1", "node=n2"))}, nil,
			`-x on agent: two of its tags begin with "node=", which gives the node id; leave one`},
		{"empty tag", ConsulService{NodeID: "tag.node="}, []*api.ServiceEntry{entry("x", tags("node="))}, nil,
			`-x on agent: its tag with "node=" gives the node id "", which is empty; a node needs one`},
		{"empty id", ConsulService{}, []*api.ServiceEntry{entry("")}, nil,
			`- on agent: its service id gives the node id "", which is empty; a node needs one`},
		{"slash", ConsulService{}, []*api.ServiceEntry{entry("a/b")}, nil,
			`-a/b on agent: its service id gives the node id "a/b", but an id stands in paths and has no slash, space or control character`},
		{"space", ConsulService{NodeID: "node"}, []*api.ServiceEntry{entry("a", on("a b"))}, nil,
			`-a on a b: the name of its Consul node gives the node id "a b", but an id stands in paths and has no slash, space or control character`},
		{"control", ConsulService{NodeID: "meta.k"}, []*api.ServiceEntry{entry("a", meta("k", "a\nb"))}, nil,
			`-a on agent: its meta key "k" gives the node id "a\nb", but an id stands in paths and has no slash, space or control character`},
		{"long", ConsulService{}, []*api.ServiceEntry{entry(strings.Repeat("x", 256))}, nil,
			fmt.Sprintf(`-%s… on agent: its service id gives the node id "%[1]s…", which is longer than 255 bytes`, strings.Repeat("x", 60))},
		{"not utf-8", ConsulService{}, []*api.ServiceEntry{entry("\xff")}, nil,
			`-\xff on agent: its service id gives the node id "\xff", which is not UTF-8`},
		{"double", ConsulService{NodeID: "meta.node"},
			[]*api.ServiceEntry{entry("x2", meta("node", "N1"), at("10.0.0.2", 80)), entry("x1", meta("node", "n1"), at("10.0.0.1", 80))}, nil,
			`n1=10.0.0.1:80 -x2 on agent: its node id "N1" is that of x1 on agent already (case does not count); give each instance a node id of its own`},
		{"double id", ConsulService{}, []*api.ServiceEntry{entry("im", on("b")), entry("im", on("a"))}, nil,
			`im=10.0.0.9:80 -im on b: its node id "im" is that of im on a already (case does not count); give each instance a node id of its own, or take it from elsewhere with node_id: node`},

		{"own address", ConsulService{}, []*api.ServiceEntry{entry("a", at("im.internal", 1))}, nil, "a=im.internal:1"},
		{"brackets", ConsulService{}, []*api.ServiceEntry{entry("a", at("[::1]", 1))}, nil, "a=::1:1"},
		{"address with port", ConsulService{}, []*api.ServiceEntry{entry("a", at("10.0.0.1:80", 1))}, nil,
			`-a on agent: its address is "10.0.0.1:80", neither an IP address nor a host name; the port is registered apart from it`},
		{"bad node address", ConsulService{}, []*api.ServiceEntry{entry("a", func(e *api.ServiceEntry) { e.Node.Address = "http://x" })}, nil,
			`-a on agent: the address of its Consul node is "http://x", neither an IP address nor a host name; the port is registered apart from it`},
		{"no address", ConsulService{}, []*api.ServiceEntry{entry("a", func(e *api.ServiceEntry) { e.Node.Address = "" })}, nil,
			`-a on agent: neither it nor its Consul node has an address`},
		{"socket", ConsulService{}, []*api.ServiceEntry{entry("a", func(e *api.ServiceEntry) { e.Service.SocketPath = "/run/x" })}, nil,
			`-a on agent: it listens on a Unix socket, which a gateway elsewhere cannot reach; register an address and a port`},

		{"port", ConsulService{Ports: ports("ws", PortFrom{})}, []*api.ServiceEntry{entry("a")}, nil, "a=10.0.0.9:ws/80"},
		{"no port", ConsulService{}, []*api.ServiceEntry{entry("a", at("", 0))}, nil, `-a on agent: its port: the instance is registered without a port`},
		{"large port", ConsulService{}, []*api.ServiceEntry{entry("a", at("", 65536))}, nil, `-a on agent: its port: 65536 is registered, which is not between 1 and 65535`},
		{"number", ConsulService{Ports: ports("ws", PortFrom{Number: 8083})}, []*api.ServiceEntry{entry("a", at("", 0))}, nil, "a=10.0.0.9:ws/8083"},
		{"meta port", ConsulService{Ports: ports("ws", PortFrom{Meta: "ws"})}, []*api.ServiceEntry{entry("a", meta("ws", "65535"))}, nil, "a=10.0.0.9:ws/65535"},
		{"no meta port", ConsulService{Ports: ports("ws", PortFrom{Meta: "ws"})}, []*api.ServiceEntry{entry("a")}, nil,
			`-a on agent: port "ws": the instance has no meta key "ws"; register it with one`},
		{"bad meta port", ConsulService{Ports: ports("ws", PortFrom{Meta: "ws"})}, []*api.ServiceEntry{entry("a", meta("ws", "0")), entry("b", meta("ws", "+8"))}, nil,
			`-a on agent: port "ws": the meta key "ws" is "0", not a port between 1 and 65535 -b on agent: port "ws": the meta key "ws" is "+8", not a port between 1 and 65535`},
		{"sibling", ConsulService{NodeID: "meta.n", Ports: map[string]PortFrom{"http": {}, "tcp": {Sibling: "im-tcp"}}},
			[]*api.ServiceEntry{entry("a", meta("n", "N1"))}, []*api.ServiceEntry{entry("bad"), entry("t", meta("n", "n1"), at("10.0.0.9", 1883))}, "N1=10.0.0.9:http/80,tcp/1883"},
		{"no sibling", ConsulService{Ports: ports("tcp", PortFrom{Sibling: "im-tcp"})}, []*api.ServiceEntry{entry("a")}, nil,
			`-a on agent: port "tcp": Consul's service "im-tcp" has no instance with the node id "a"; register it there too, with the same node id`},
		{"sibling elsewhere", ConsulService{Ports: ports("tcp", PortFrom{Sibling: "im-tcp"})}, []*api.ServiceEntry{entry("a")}, []*api.ServiceEntry{entry("a", at("10.0.0.1", 1))},
			`-a on agent: port "tcp": in Consul's service "im-tcp", a on agent: it has the address "10.0.0.1" there and "10.0.0.9" here; a node has one`},

		{"tagged only", ConsulService{Tag: "blue"}, []*api.ServiceEntry{entry("a", tags("blue")), entry("b"), entry("c/d", tags("green"))}, nil, "a=10.0.0.9:80"},
		{"nothing", ConsulService{}, nil, nil, ""},
		{"holes", ConsulService{}, []*api.ServiceEntry{nil, {}, {Node: &api.Node{}}, {Service: &api.AgentService{}}}, nil, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			siblings := map[string]instances{"im-tcp": {listed: tt.siblings}}
			nodes, _, leftOut := build(tt.service, instances{listed: tt.entries}, siblings)
			if got := shown(nodes, leftOut); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

func shown(nodes []Node, leftOut []LeftOut) string {
	var all []string
	for _, n := range nodes {
		var ports []string
		for name, p := range n.Ports {
			if name != "" {
				name += "/"
			}
			ports = append(ports, fmt.Sprint(name, p))
		}
		slices.Sort(ports)
		all = append(all, n.ID+"="+n.Address+":"+strings.Join(ports, ","))
	}
	for _, l := range leftOut {
		all = append(all, "-"+l.Instance+": "+l.Reason)
	}
	return strings.Join(all, " ")
}

func TestHealthAndWeight(t *testing.T) {
	weights := func(passing, warning int) func(*api.ServiceEntry) {
		return func(e *api.ServiceEntry) { e.Service.Weights = api.AgentWeights{Passing: passing, Warning: warning} }
	}
	tests := []struct {
		name   string
		entry  *api.ServiceEntry
		status Status
		weight int
	}{
		{"no checks", entry("a", weights(3, 2)), Passing, 3},
		{"passing", entry("a", weights(3, 2), check("c", "passing")), Passing, 3},
		{"warning", entry("a", weights(3, 2), check("c", "warning"), check("d", "passing")), Passing, 2},
		{"critical", entry("a", weights(3, 2), check("c", "warning"), check("d", "critical")), Failing, 3},
		{"maintenance", entry("a", check("_service_maintenance:a", "critical"), check("d", "critical")), Maintenance, 1},
		{"node maintenance", entry("a", check("_node_maintenance", "critical")), Maintenance, 1},
		{"least", entry("a", weights(0, 0), check("c", "warning")), Passing, 1},
		{"most", entry("a", weights(65535, 1)), Passing, 1000},
		{"no check", entry("a", func(e *api.ServiceEntry) { e.Checks = api.HealthChecks{nil} }), Passing, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if status, weight := health(tt.entry); status != tt.status || weight != tt.weight {
				t.Errorf("got %s, %d", status, weight)
			}
		})
	}
}

// What is kept gives way to what is listed and is never reported.
func TestBuildKept(t *testing.T) {
	own := instances{
		listed: []*api.ServiceEntry{entry("y", meta("n", "n1"), at("10.0.0.2", 80))},
		kept:   []*api.ServiceEntry{entry("x", meta("n", "n1"), at("10.0.0.1", 80)), entry("z", meta("n", "n2")), entry("bad")},
	}
	nodes, _, leftOut := build(ConsulService{NodeID: "meta.n"}, own, nil)
	if got, want := shown(nodes, leftOut), "n1=10.0.0.2:80 n2=10.0.0.9:80"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// FuzzBuild holds what the rest of the gateway relies on for any registration.
func FuzzBuild(f *testing.F) {
	f.Add([]byte(`[{"Node":{"Node":"a","Address":"10.0.0.1"},"Service":{"ID":"x","Port":80,"Meta":{"node":"n","ws":"81"},"Tags":["node=b"]},"Checks":[{"Status":"critical","CheckID":"_node_maintenance"}]}]`), "meta.node")
	f.Add([]byte(`[null,{},{"Service":{}},{"Node":{},"Checks":[null]}]`), "node")
	f.Add([]byte(`[{"Node":{"Node":"\u0000"},"Service":{"ID":"/","Address":"[::1]","Port":-1,"Tags":["node="]}}]`), "tag.node=")
	f.Fuzz(func(t *testing.T, data []byte, rule string) {
		var entries []*api.ServiceEntry
		if json.Unmarshal(data, &entries) != nil {
			return
		}
		s := ConsulService{Name: "im", Service: "im", NodeID: rule, Ports: map[string]PortFrom{"": {}, "ws": {Meta: "ws"}, "tcp": {Sibling: "s"}}}
		half := len(entries) / 2
		nodes, _, leftOut := build(s, instances{entries[:half], entries[half:]}, map[string]instances{"s": {listed: entries}})
		if _, err := encodeCache(map[string]Service{"im": {Nodes: nodes}}); err != nil {
			t.Fatal(err)
		}
		if len(nodes)+len(leftOut) > len(entries) {
			t.Errorf("%d nodes and %d left out of %d", len(nodes), len(leftOut), len(entries))
		}
		ids := map[string]bool{}
		for _, n := range nodes {
			key := strings.ToLower(n.ID)
			if ids[key] || checkID(n.ID) != "" || !isHost(n.Address) || len(n.Ports) != 3 || n.Weight < 1 || n.Status == "" {
				t.Errorf("%+v is no node", n)
			}
			ids[key] = true
			for name, port := range n.Ports {
				if port == 0 {
					t.Errorf("port %q of %s is 0", name, n.ID)
				}
			}
		}
		for _, l := range leftOut {
			if l.Reason == "" || strings.ContainsAny(l.Instance+l.Reason, "\n\x00") || len(l.Reason) > 2000 {
				t.Errorf("%+v is no line", l)
			}
		}
		again, _, _ := build(s, instances{entries[:half], entries[half:]}, map[string]instances{"s": {listed: entries}})
		if !reflect.DeepEqual(nodes, again) {
			t.Error("built twice, the nodes differ")
		}
	})
}
