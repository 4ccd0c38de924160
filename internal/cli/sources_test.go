package cli

import (
	"strings"
	"sync"
	"testing"

	"singlegate/discovery"
	"singlegate/gateway"
	"singlegate/internal/config"
)

// im is a service with nodes of these ids.
func im(source string, ids ...string) discovery.Service {
	svc := discovery.Service{Source: source}
	for _, id := range ids {
		svc.Nodes = append(svc.Nodes, discovery.Node{ID: id, Origin: source})
	}
	return svc
}

// saying is a snapshot of service im.
func saying(svc discovery.Service) discovery.Snapshot {
	return discovery.Snapshot{Services: map[string]discovery.Service{"im": svc}}
}

// fileOf is a config whose service im is in Consul, and in the file with these nodes.
func fileOf(ids ...string) *config.File {
	f := &config.File{ConsulServices: []discovery.ConsulService{{Name: "im", Service: "im"}}}
	f.Gateway.Services = []gateway.ServiceRef{{Name: "im"}}
	if len(ids) > 0 {
		f.Nodes = map[string][]discovery.Node{"im": im("file", ids...).Nodes}
	}
	return f
}

// A fed gateway keeps what is in force, and all that ever was.
type fed struct {
	feed
	t       *testing.T
	inForce discovery.Snapshot
	history []discovery.Snapshot
}

// newFed is a feed as it is when the sources of a config run.
func newFed(t *testing.T, file *config.File) *fed {
	f := &fed{t: t}
	f.publish = f.put
	f.reload(file)
	f.asked = elsewhereOf(file)
	return f
}

func (f *fed) put(s discovery.Snapshot) {
	f.inForce = s
	f.history = append(f.history, s)
}

// reload puts a config in force.
func (f *fed) reload(file *config.File) {
	f.t.Helper()
	if err := f.apply(file, func(s *discovery.Snapshot) error { f.put(*s); return nil }); err != nil {
		f.t.Fatal(err)
	}
}

// has compares what is in force of service im: its nodes, and whether there may be more.
func (f *fed) has(ids string, partial bool) {
	f.t.Helper()
	s, ok := f.inForce.Services["im"]
	var all []string
	for _, n := range s.Nodes {
		all = append(all, n.ID)
	}
	if got := strings.Join(all, " "); !ok || got != ids || s.Partial != partial || partial != (s.Fault != "") {
		f.t.Errorf("in force are %q (known %v, partial %v, fault %q), want %q, partial %v", got, ok, s.Partial, s.Fault, ids, partial)
	}
}

// A service of which the file names some nodes may have others until Consul has
// spoken, and its nodes in the file are those of the file in force at once.
func TestFeedOfAMixedService(t *testing.T) {
	f := newFed(t, fileOf("written"))
	f.has("written", true)
	f.take(discovery.Snapshot{})
	f.has("written", true)
	f.take(saying(im("consul", "node1")))
	f.has("node1 written", false)

	f.reload(fileOf("rewritten"))
	f.has("node1 rewritten", false)
	f.take(saying(im("consul", "node1", "node2")))
	f.has("node1 node2 rewritten", false)
	f.reload(fileOf())
	f.has("node1 node2", false)
}

// A node in Consul shows again when the file no longer has one of its name.
func TestFeedFreesANameThatTheFileHad(t *testing.T) {
	f := newFed(t, fileOf("node1"))
	f.take(saying(im("consul", "node1", "node2")))
	f.has("node1 node2", false)
	if origin := f.inForce.Services["im"].Nodes[0].Origin; origin != "file" {
		t.Errorf("node1 is that of %s", origin)
	}
	f.reload(fileOf("other"))
	f.has("node1 node2 other", false)
	if origin := f.inForce.Services["im"].Nodes[0].Origin; origin != "consul" {
		t.Errorf("node1 is that of %s", origin)
	}
}

// New sources that do not know a service leave it as it was.
func TestFeedKeepsWhatNewSourcesDoNotKnow(t *testing.T) {
	f := newFed(t, fileOf())
	if _, ok := f.inForce.Services["im"]; ok {
		t.Error("a service is known that nobody has spoken of")
	}
	f.take(saying(im("consul", "node1")))
	f.take(discovery.Snapshot{})
	f.has("node1", false)
	f.take(saying(im("consul")))
	f.has("", false)
}

// Services that tags name stay while it is not known which there are, go when it
// is, and give way to one of the file.
func TestFeedOfTaggedServices(t *testing.T) {
	file := fileOf()
	file.TagPrefix = "urlprefix-"
	f := newFed(t, file)
	has := func(names, partial string) {
		t.Helper()
		var all []string
		for _, name := range []string{"im", "shop", "web"} {
			if _, ok := f.inForce.Services[name]; ok {
				all = append(all, name)
			}
		}
		if got := strings.Join(all, " "); got != names || f.inForce.Partial != partial {
			t.Errorf("in force are %q (partial: %q), want %q (%q)", got, f.inForce.Partial, names, partial)
		}
	}
	tagged := discovery.Service{Tagged: true, Source: "consul"}
	has("", notAsked)
	f.take(discovery.Snapshot{Services: map[string]discovery.Service{"im": im("consul"), "web": tagged, "shop": tagged}})
	has("im shop web", "")
	f.take(discovery.Snapshot{Services: map[string]discovery.Service{"web": tagged}, Partial: "Consul is down"})
	has("im shop web", "Consul is down")
	f.take(discovery.Snapshot{Services: map[string]discovery.Service{"web": tagged}})
	has("im web", "")

	named := *file
	named.Gateway.Services = []gateway.ServiceRef{{Name: "im"}, {Name: "web"}}
	f.reload(&named)
	has("im", "")
	untagged := *file
	untagged.TagPrefix = ""
	f.reload(&untagged)
	has("im", "")
	f.reload(file)
	has("im web", "")
}

// No snapshot comes between what a reload read and what it puts in force.
func TestFeedHoldsSnapshotsBackDuringAReload(t *testing.T) {
	f := newFed(t, fileOf("old"))
	f.take(saying(im("consul", "node1")))
	var source sync.WaitGroup
	inside := make(chan struct{})
	source.Go(func() {
		<-inside
		f.take(saying(im("consul", "node1", "node2")))
	})
	err := f.apply(fileOf("new"), func(s *discovery.Snapshot) error {
		close(inside)
		f.put(*s)
		return nil
	})
	source.Wait()
	if err != nil {
		t.Fatal(err)
	}
	f.has("new node1 node2", false)
	for _, snap := range f.history[2:] {
		for _, n := range snap.Services["im"].Nodes {
			if n.ID == "old" {
				t.Error("a node shows that the file in force does not name")
			}
		}
	}
}
