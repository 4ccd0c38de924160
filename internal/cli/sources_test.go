package cli

import (
	"testing"

	"singlegate/discovery"
	"singlegate/internal/config"
)

// im is a snapshot of service im with nodes of these ids.
func im(source string, ids ...string) discovery.Snapshot {
	svc := discovery.Service{Source: source}
	for _, id := range ids {
		svc.Nodes = append(svc.Nodes, discovery.Node{ID: id})
	}
	return discovery.Snapshot{Services: map[string]discovery.Service{"im": svc}}
}

func feedOfConsul() (f *feed, inForce *discovery.Snapshot) {
	inForce = &discovery.Snapshot{}
	f = &feed{publish: func(s discovery.Snapshot) { *inForce = s }}
	f.asked.ConsulServices = []discovery.ConsulService{{Name: "im"}}
	return f, inForce
}

// What a source says while a reload is put in force outlives the reload.
func TestFeedTellsAgainWhatAReloadUndid(t *testing.T) {
	f, inForce := feedOfConsul()
	file := &config.File{ConsulServices: f.asked.ConsulServices}
	f.take(im("consul", "node1"))
	before := f.known(file)
	f.take(im("consul", "node1", "node2"))
	*inForce = before // as the reload does
	f.again()
	if n := len(inForce.Services["im"].Nodes); n != 2 {
		t.Errorf("%d nodes are in force, want both", n)
	}

	*inForce = discovery.Snapshot{}
	f.known(file)
	f.again()
	if inForce.Services != nil {
		t.Error("a reload publishes again what nothing has undone")
	}
}

// New sources know the file's nodes first; those of Consul stay until it answers.
func TestFeedKeepsAServiceOfWhichHalfIsKnown(t *testing.T) {
	f, inForce := feedOfConsul()
	for _, step := range []struct {
		snap discovery.Snapshot
		want int
	}{
		{im("file", "written"), 1}, // at a start, half is better than nothing
		{im("file+consul", "node1", "written"), 2},
		{im("file", "written"), 2},
		{discovery.Snapshot{}, 2},
		{im("file+consul", "written"), 1},
	} {
		f.take(step.snap)
		if n := len(inForce.Services["im"].Nodes); n != step.want {
			t.Errorf("after %+v: %d nodes, want %d", step.snap, n, step.want)
		}
	}
}
