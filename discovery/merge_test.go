package discovery

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestMerge(t *testing.T) {
	early, late := time.Unix(100, 0), time.Unix(200, 0)
	consul := newScripted()
	consul.unknown = map[string]string{"im": "Consul has not answered for it yet"}
	other := newScripted()
	file := nodesNamed("node1", "node2")
	file[0].Names, file[0].Origin, file[1].Origin = []string{"first"}, "singlegate.yaml:3:4", "singlegate.yaml:5:6"
	static := Static{Services: map[string][]Node{"im": file, "app": nodesNamed("app1")}}
	r := record(t, Merge(static, consul, other))
	s := r.until(t, "the file's nodes", hasIDs("node1 node2"))
	if s.Source != "file" || s.Fault != "Consul has not answered for it yet" || !s.Partial {
		t.Errorf("got %+v", s)
	}

	consul.unknown = nil
	consul.snaps <- snapshotOf("im", Service{
		Nodes: nodesNamed("FIRST", "node0", "node2"), LeftOut: []LeftOut{{"x", "y"}}, Source: "consul", Taken: late, Fault: "one",
	})
	other.snaps <- snapshotOf("im", Service{Nodes: nodesNamed("node0", "node3"), Source: "dns", Taken: early, Fault: "two"})
	s = r.until(t, "both sources", func(s Service) bool { return s.Source == "file+consul+dns" })
	if s.Partial || ids(s) != "node0 node1 node2 node3" || !s.Taken.Equal(early) || s.Fault != "one; two" {
		t.Errorf("nodes %q, taken %v, fault %q", ids(s), s.Taken, s.Fault)
	}
	if s.Nodes[2].Origin != "singlegate.yaml:5:6" {
		t.Errorf("node2 is that of %s", s.Nodes[2].Origin)
	}
	want := []LeftOut{
		{"x", "y"},
		{"FIRST", `its name "FIRST" is taken by the node "node1" of singlegate.yaml:3:4, which comes first; rename one of them`},
		{"node2", `its name "node2" is taken by the node "node2" of singlegate.yaml:5:6, which comes first; rename one of them`},
		{"node0", `its name "node0" is taken by the node "node0" of consul, which comes first; rename one of them`},
	}
	if !reflect.DeepEqual(s.LeftOut, want) {
		t.Errorf("left out: %+v", s.LeftOut)
	}
	if snap, _ := r.latest(); ids(snap.Services["app"]) != "app1" {
		t.Errorf("got %+v", snap)
	}
}

// Routes lead to the nodes that asked for them, or to nobody.
func TestJoinRoutes(t *testing.T) {
	route := func(path string, nodes ...string) TagRoute {
		r := TagRoute{Path: path}
		for _, id := range nodes {
			r.Nodes = append(r.Nodes, Share{Node: id})
		}
		return r
	}
	consul := Service{Nodes: nodesNamed("node1", "node2"), Source: "consul", Routes: []TagRoute{route("/a", "node1", "node2"), route("/b", "node1")}}
	got := Join(snapshotOf("im", Service{Nodes: nodesNamed("node1"), Source: "file"}), snapshotOf("im", consul)).Services["im"]
	if want := []TagRoute{route("/a", "node2")}; !reflect.DeepEqual(got.Routes, want) || ids(got) != "node1 node2" {
		t.Errorf("got %+v", got)
	}
	if len(consul.Routes[0].Nodes) != 2 {
		t.Error("what a source has published was changed")
	}
}

// Who has not heard of all sources does not know which services tags name.
func TestMergeIsPartial(t *testing.T) {
	tags, other := newScripted(), newScripted()
	r := record(t, Merge(finding{tags}, other))
	other.snaps <- snapshotOf("im", Service{Source: "dns"})
	r.untilAll(t, "half", func(s Snapshot) bool { return s.Partial == "nobody has looked yet" })
	tags.snaps <- Snapshot{}
	r.untilAll(t, "all", func(s Snapshot) bool { return s.Partial == "" })
}

func TestMergePublishesChanges(t *testing.T) {
	now := time.Unix(1000, 0)
	snap := func(id, fault string, taken int64) Snapshot {
		return snapshotOf("im", Service{Nodes: nodesNamed(id), Fault: fault, Taken: time.Unix(taken, 0)})
	}
	var p publication
	for i, tt := range []struct {
		after time.Duration
		snap  Snapshot
		want  bool
	}{
		{0, snap("a", "", 1), true},
		{0, snap("a", "", 1), false},
		{0, snap("a", "", 2), false},
		{0, snap("b", "", 2), true},
		{0, snap("b", "x", 2), true},
		{time.Hour, snap("b", "x", 2), false},
		{time.Hour, snap("b", "x", 3), true},
	} {
		now = now.Add(tt.after)
		if got := p.differs(tt.snap, now); got != tt.want {
			t.Errorf("step %d: %v", i, got)
		}
	}
}

func TestMergeEnds(t *testing.T) {
	one, two := newScripted(), newScripted()
	close(two.snaps)
	if err := Merge(one, two).Run(t.Context(), func(Snapshot) {}); !errors.Is(err, errScript) {
		t.Errorf("got %v", err)
	}
	record(t, Merge()).stop()
}

func TestMergeExplains(t *testing.T) {
	one, two := newScripted(), newScripted()
	one.unknown = map[string]string{"im": "a", "app": "b"}
	two.unknown = map[string]string{"im": "c"}
	got := unknownOf(Merge(one, two, Static{}))
	if len(got) != 2 || !strings.Contains(got["im"], "a; c") && !strings.Contains(got["im"], "c; a") || got["app"] != "b" {
		t.Errorf("got %v", got)
	}
}
