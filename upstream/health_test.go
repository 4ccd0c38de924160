package upstream

import (
	"slices"
	"sync"
	"testing"
	"time"

	"singlegate/discovery"
)

// Each ejection is longer than the one before, up to a minute; failures during
// one change nothing; a success ends it and begins anew.
func TestEjectionGrows(t *testing.T) {
	var h health
	now := time.Unix(1_700_000_000, 0)
	if !h.ejected(now).IsZero() {
		t.Error("a node of which nothing is known is ejected")
	}
	want := []time.Duration{1, 2, 4, 8, 16, 32, 60, 60, 60}
	for i, seconds := range want {
		h.failed(now)
		end := now.Add(seconds * time.Second)
		if got := h.ejected(now); !got.Equal(end) {
			t.Fatalf("failure %d: ejected for %v, want %v", i+1, got.Sub(now), seconds*time.Second)
		}
		h.failed(now.Add(time.Millisecond)) // of a request that was under way
		h.failed(end.Add(-1))
		if got := h.ejected(end.Add(-1)); !got.Equal(end) {
			t.Fatalf("failure %d: others during the ejection made it end at %v, want %v", i+1, got, end)
		}
		if got := h.ejected(end); !got.IsZero() {
			t.Fatalf("failure %d: still ejected at its end, until %v", i+1, got)
		}
		now = end
	}
	h.failed(now)
	h.worked()
	if got := h.ejected(now); !got.IsZero() {
		t.Errorf("it worked, and is ejected until %v", got)
	}
	h.failed(now)
	if got := h.ejected(now); !got.Equal(now.Add(firstEjection)) {
		t.Errorf("after a success a failure ejects for %v, want %v", got.Sub(now), firstEjection)
	}
}

// Many failures at one moment are one.
func TestFailuresAtOnceCountOnce(t *testing.T) {
	var h health
	now := time.Unix(1_700_000_000, 0)
	var group sync.WaitGroup
	for range 50 {
		group.Go(func() { h.failed(now) })
	}
	group.Wait()
	if got := h.ejected(now); !got.Equal(now.Add(firstEjection)) || h.failures.Load() != 1 {
		t.Errorf("ejected for %v after %d failures, want %v after 1", got.Sub(now), h.failures.Load(), firstEjection)
	}
}

// eject ejects a node for longer than a test takes.
func eject(n *Node) {
	for at := time.Now(); n.state.health.failures.Load() < 7; at = n.state.health.ejected(at) {
		n.state.health.failed(at)
	}
}

// pickers are the ways a balanced route picks.
var pickers = map[string]func(*Service, string, []*Node) *Node{
	"round robin":       (*Service).RoundRobin,
	"least connections": (*Service).LeastConnections,
}

// Balanced routes leave ejected and failing nodes out while there are others,
// and nodes in maintenance or being drained always.
func TestPicksByHealth(t *testing.T) {
	failing := func(id string) discovery.Node {
		n := node(id, 1)
		n.Status = discovery.Failing
		return n
	}
	closed := func(id string) discovery.Node {
		n := node(id, 1)
		n.Status = discovery.Maintenance
		return n
	}
	cases := []struct {
		name  string
		nodes []discovery.Node
		eject []string
		drain []string
		want  []string // those that may be picked, all of them
	}{
		{"all well", []discovery.Node{node("a", 1), node("b", 1)}, nil, nil, []string{"a", "b"}},
		{"one ejected", []discovery.Node{node("a", 1), node("b", 1), node("c", 1)}, []string{"b"}, nil, []string{"a", "c"}},
		{"heavy one ejected", []discovery.Node{node("a", 100), node("b", 1)}, []string{"a"}, nil, []string{"b"}},
		{"all ejected", []discovery.Node{node("a", 1), node("b", 1)}, []string{"a", "b"}, nil, []string{"a", "b"}},
		{"one failing", []discovery.Node{failing("a"), node("b", 1)}, nil, nil, []string{"b"}},
		{"one failing, the other ejected", []discovery.Node{failing("a"), node("b", 1)}, []string{"b"}, nil, []string{"a", "b"}},
		{"one in maintenance, the other ejected", []discovery.Node{closed("a"), node("b", 1)}, []string{"b"}, nil, []string{"b"}},
		{"one drained, the other failing", []discovery.Node{node("a", 1), failing("b")}, nil, []string{"a"}, []string{"b"}},
		{"none open", []discovery.Node{node("a", 1), closed("b")}, nil, []string{"a"}, nil},
	}
	for _, tc := range cases {
		for name, pick := range pickers {
			t.Run(tc.name+"/"+name, func(t *testing.T) {
				set := New(nil)
				view, _ := set.Apply(snapshot("s", tc.nodes...))
				svc := view.Services["s"]
				for _, id := range tc.eject {
					eject(svc.Node(id))
				}
				for _, id := range tc.drain {
					set.Drain(Key{"s", id}, true)
				}
				var got []string
				for range 2 * (len(svc.order) + 1) {
					n := pick(svc, "", nil)
					if n == nil {
						break
					}
					if !slices.Contains(got, n.ID) {
						got = append(got, n.ID)
					}
				}
				slices.Sort(got)
				if !slices.Equal(got, tc.want) {
					t.Errorf("picked %q, want %q", got, tc.want)
				}
			})
		}
	}
}

// When every node has failed each is tried, once a request.
func TestAllEjectedAreTried(t *testing.T) {
	for name, pick := range pickers {
		t.Run(name, func(t *testing.T) {
			svc := viewOf(node("a", 1), node("b", 1), node("c", 3))
			for _, n := range svc.Nodes() {
				eject(n)
			}
			var tried []*Node
			for range 3 {
				n := pick(svc, "", tried)
				if n == nil || slices.Contains(tried, n) {
					t.Fatalf("after %d nodes got %v", len(tried), n)
				}
				tried = append(tried, n)
			}
			if n := pick(svc, "", tried); n != nil {
				t.Errorf("all were tried, and then got %v", n.ID)
			}
		})
	}
}

// What leases find out outlives the snapshot, and is forgotten with the node.
func TestHealthOutlivesSnapshots(t *testing.T) {
	set := New(nil)
	view, _ := set.Apply(snapshot("s", node("a", 1)))
	lease := view.Services["s"].Node("a").Lease()
	lease.Failed()
	eject(lease.Node)
	view, _ = set.Apply(snapshot("s", node("a", 2)))
	if view.Services["s"].Node("a").Ejected().IsZero() {
		t.Error("a new snapshot ended the ejection")
	}
	lease.Worked() // the lease is of the view before
	if until := view.Services["s"].Node("a").Ejected(); !until.IsZero() {
		t.Errorf("it worked, and is ejected until %v", until)
	}
	eject(lease.Node)
	lease.Done()
	set.Apply(snapshot("s"))
	view, _ = set.Apply(snapshot("s", node("a", 1)))
	if until := view.Services["s"].Node("a").Ejected(); !until.IsZero() {
		t.Errorf("a node registered anew is ejected until %v", until)
	}
}
