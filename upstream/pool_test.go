package upstream

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"singlegate/discovery"
)

// poolView is a view of a service with nodes a, b, c and d in these states.
func poolView(t *testing.T, set *Set, status ...discovery.Status) []*Node {
	t.Helper()
	svc := discovery.Service{}
	for i, st := range status {
		svc.Nodes = append(svc.Nodes, discovery.Node{
			ID: string(rune('a' + i)), Address: "10.0.0.1", Ports: map[string]uint16{"": 80}, Weight: i + 1, Status: st,
		})
	}
	view, _ := set.Apply(discovery.Snapshot{Services: map[string]discovery.Service{"web": svc}})
	return view.Services["web"].Nodes()
}

// weights are a pool's nodes with their weights.
func weights(s *Service) string {
	var all []string
	for _, n := range s.Nodes() {
		all = append(all, fmt.Sprintf("%s:%d", n.ID, n.Weight))
	}
	return strings.Join(all, " ")
}

func TestPoolWeights(t *testing.T) {
	ok, bad, closed := discovery.Passing, discovery.Failing, discovery.Maintenance
	for _, tt := range []struct {
		name   string
		status []discovery.Status
		shares []float64
		want   string
	}{
		{"no shares: the nodes' own", []discovery.Status{ok, ok, ok}, []float64{0, 0, 0}, "a:1 b:2 c:3"},
		{"one share, and the rest", []discovery.Status{ok, ok, ok}, []float64{0.1, 0, 0}, "a:100 b:450 c:450"},
		{"shares below a whole, and no rest", []discovery.Status{ok, ok}, []float64{0.1, 0.3}, "a:250 b:750"},
		{"shares of more than a whole", []discovery.Status{ok, ok}, []float64{1, 3}, "a:250 b:750"},
		{"a whole that leaves nothing", []discovery.Status{ok, ok, ok}, []float64{0.5, 0.5, 0}, "a:500 b:500"},
		{"a tiny share is one", []discovery.Status{ok, ok}, []float64{0.00001, 0}, "a:1 b:1000"},
		{"the share that the others have alone", []discovery.Status{bad, ok}, []float64{0, 0.1}, "a:1 b:1000"},
		{"who does not work leaves its part", []discovery.Status{closed, ok, ok}, []float64{0.9, 0, 0}, "a:1 b:500 c:500"},
		{"nobody works", []discovery.Status{bad, closed}, []float64{0.9, 0}, "a:1 b:1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var members []Member
			for i, n := range poolView(t, New(nil), tt.status...) {
				members = append(members, Member{n, tt.shares[i]})
			}
			if got := weights(Pool("web", members, nil)); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

// A pool picks its own nodes only, goes on with its turn in a new view, and its
// leases are those of the nodes.
func TestPoolPicks(t *testing.T) {
	set := New(nil)
	nodes := poolView(t, set, "", "", "")
	members := []Member{{nodes[0], 0.5}, {nodes[1], 0}}
	pool := Pool("web", members, nil)
	var picked []string
	for range 4 {
		picked = append(picked, pool.RoundRobin("", nil).ID)
		pool = Pool("web", members, pool)
	}
	if want := []string{"a", "b", "a", "b"}; !slices.Equal(picked, want) {
		t.Errorf("picked %q, want %q", picked, want)
	}
	first := pool.RoundRobin("", nil)
	if second := pool.RoundRobin("", []*Node{first}); second == nil || second.ID == first.ID {
		t.Errorf("%s was tried and is picked again", first.ID)
	}
	lease := first.Lease()
	defer lease.Done()
	if first.ID != "a" || nodes[0].Active() != 1 || nodes[0].Weight != 1 {
		t.Errorf("%s was leased: the node of the view has %d leases and the weight %d", first.ID, nodes[0].Active(), nodes[0].Weight)
	}
	set.Drain(nodes[0].Key(), true)
	for range 3 {
		if n := pool.RoundRobin("", nil); n.ID != "b" {
			t.Errorf("%s is draining and picked", n.ID)
		}
	}
}
