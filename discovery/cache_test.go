package discovery

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	"singlegate/internal/consultest"
)

// A scripted source publishes what it is told.
type scripted struct {
	snaps   chan Snapshot
	unknown map[string]string
}

func newScripted() *scripted { return &scripted{snaps: make(chan Snapshot)} }

func (s *scripted) Run(ctx context.Context, publish func(Snapshot)) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case snap, ok := <-s.snaps:
			if !ok {
				return errScript
			}
			publish(snap)
		}
	}
}

func (s *scripted) Unknown() map[string]string { return s.unknown }

var errScript = errors.New("the script is over")

var node1 = Node{
	ID: "node1", Address: "10.0.0.1", Ports: map[string]uint16{"": 80, "ws": 8083}, Names: []string{"n1"},
	Weight: 2, Meta: map[string]string{"zone": "a"}, Status: Maintenance, Origin: "consul",
}

func snapshotOf(name string, s Service) Snapshot {
	return Snapshot{Services: map[string]Service{name: s}}
}

func nodesNamed(ids ...string) []Node {
	var nodes []Node
	for _, id := range ids {
		nodes = append(nodes, Node{ID: id, Address: "10.0.0.1", Ports: map[string]uint16{"": 80}, Weight: 1, Status: Passing, Origin: "consul"})
	}
	return nodes
}

func TestCacheKeepsSnapshots(t *testing.T) {
	path := filepath.Join(t.TempDir(), "snapshot.json")
	taken := time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC)
	log := &logged{}
	source := newScripted()
	r := record(t, WithCache(path, source, []string{"im", "empty"}, log.log))
	source.snaps <- Snapshot{Services: map[string]Service{
		"im":    {Nodes: []Node{node1}, LeftOut: []LeftOut{{"x", "y"}}, Source: "consul", Taken: taken, Fault: "z"},
		"empty": {Source: "consul", Taken: taken},
		"other": {Nodes: []Node{node1}, Source: "consul", Taken: taken},
	}}
	r.until(t, "the source's snapshot", func(s Service) bool { return s.Source == "consul" && s.Fault == "z" })
	r.stop()
	if n := log.count("there is no cached snapshot yet"); n != 1 {
		t.Errorf("logged are %q", log.lines)
	}

	got, err := ReadCache(path)
	if err != nil {
		t.Fatal(err)
	}
	want := Snapshot{Services: map[string]Service{
		"im":    {Nodes: []Node{node1}, Source: "cache", Taken: taken},
		"empty": {Source: "cache", Taken: taken},
	}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
		t.Errorf("the file's mode is %v", info.Mode())
	}
	if names, _ := filepath.Glob(filepath.Join(filepath.Dir(path), ".*")); len(names) > 0 {
		t.Errorf("left behind: %q", names)
	}
}

// cached writes a snapshot of two services and gives a source that is cached there.
func cached(t *testing.T, source Source, log Log) (s Source, path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "snapshot.json")
	data, err := encodeCache(map[string]Service{
		"im":   {Nodes: nodesNamed("old"), Source: "consul", Taken: time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC)},
		"app":  {Nodes: nodesNamed("old"), Source: "consul"},
		"gone": {Nodes: nodesNamed("old"), Source: "consul"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := writeWhole(path, data); err != nil {
		t.Fatal(err)
	}
	return WithCache(path, source, []string{"im", "app"}, log), path
}

func TestCacheFillsSilence(t *testing.T) {
	source := newScripted()
	s, _ := cached(t, source, nil)
	s.(*cache).grace = time.Millisecond
	r := record(t, s)
	got := r.until(t, "the cached nodes", faulty("from the cache of 2026-05-0"))
	if ids(got) != "old" || got.Source != "cache" || !got.Taken.Equal(time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC)) {
		t.Errorf("got %+v", got)
	}
	if snap, _ := r.latest(); len(snap.Services) != 2 {
		t.Errorf("got %+v", snap)
	}
	source.snaps <- snapshotOf("im", Service{Nodes: nodesNamed("new"), Source: "consul", Taken: time.Now()})
	r.until(t, "the source's own", healthy("new"))
	if snap, _ := r.latest(); ids(snap.Services["app"]) != "old" {
		t.Errorf("the other service is %+v", snap.Services["app"])
	}
}

// A source that fails at once says so with a snapshot that lacks services.
func TestCacheFillsFault(t *testing.T) {
	source := newScripted()
	source.unknown = map[string]string{"im": "Consul refuses connections"}
	s, path := cached(t, source, nil)
	s.(*cache).grace = time.Hour
	r := record(t, s)
	source.snaps <- Snapshot{}
	r.until(t, "the cached nodes and why", faulty("Consul refuses connections; from the cache of"))
	source.snaps <- snapshotOf("im", Service{Source: "consul", Taken: time.Now()})
	r.until(t, "a service that is known to be empty", healthy(""))
	r.stop()
	snap, err := ReadCache(path)
	if err != nil || len(snap.Services) != 2 || ids(snap.Services["im"]) != "" || ids(snap.Services["app"]) != "old" {
		t.Errorf("the file has %+v, %v", snap, err)
	}
}

func TestCacheEndsWithSource(t *testing.T) {
	source := newScripted()
	s, _ := cached(t, source, nil)
	close(source.snaps)
	if err := s.Run(t.Context(), func(Snapshot) {}); !errors.Is(err, errScript) {
		t.Errorf("got %v", err)
	}
}

func TestCacheCannotBeWritten(t *testing.T) {
	log := &logged{}
	source := newScripted()
	s := WithCache(filepath.Join(t.TempDir(), "none", "snapshot.json"), source, []string{"im"}, log.log)
	s.(*cache).every = time.Millisecond
	r := record(t, s)
	for _, id := range []string{"a", "b", "c"} {
		source.snaps <- snapshotOf("im", Service{Nodes: nodesNamed(id)})
		r.until(t, id, healthy(id))
	}
	r.stop()
	if n := log.count("warn the cached snapshot cannot be written: no such file or directory"); n != 1 {
		t.Errorf("logged are %q", log.lines)
	}
}

func TestBadCaches(t *testing.T) {
	const node = `{"id":"a","address":"10.0.0.1","ports":{"":80},"weight":1,"status":"passing"}`
	with := func(nodes string) string {
		return `{"version":1,"services":{"im":{"nodes":[` + nodes + `]}}}`
	}
	tests := []struct{ name, data, want string }{
		{"empty", "", "it is broken: unexpected end of JSON input"},
		{"text", "hello", "it is broken: invalid character"},
		{"cut", with(node)[:60], "it is broken: unexpected end"},
		{"no version", "{}", "it is of version 0, and this program knows version 1"},
		{"later version", `{"version":2,"services":7}`, "it is of version 2"},
		{"other type", `{"version":1,"services":7}`, "it is broken"},
		{"large port", with(strings.Replace(node, "80", "65536", 1)), "it is broken"},
		{"no port", with(strings.Replace(node, `"":80`, "", 1)), `node "a" has no port`},
		{"port 0", with(strings.Replace(node, "80", "0", 1)), `node "a" has no port`},
		{"no id", with(strings.Replace(node, `"a"`, `""`, 1)), "its id or a name is bad or taken"},
		{"bad id", with(strings.Replace(node, `"a"`, `"a/b"`, 1)), "its id or a name is bad or taken"},
		{"double", with(node + "," + strings.Replace(node, `"a"`, `"A"`, 1)), "its id or a name is bad or taken"},
		{"address", with(strings.Replace(node, "10.0.0.1", "", 1)), `node "a" has no address`},
		{"weight", with(strings.Replace(node, `"weight":1`, `"weight":0`, 1)), `node "a" has the weight 0`},
		{"status", with(strings.Replace(node, "passing", "fine", 1)), `node "a" has an unknown status`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "snapshot.json")
			if err := os.WriteFile(path, []byte(tt.data), 0o600); err != nil {
				t.Fatal(err)
			}
			snap, err := ReadCache(path)
			if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), path) {
				t.Errorf("got %v", err)
			}
			if snap.Services != nil {
				t.Errorf("got %+v", snap)
			}
		})
	}
	if _, err := decodeCache([]byte(with(node))); err != nil {
		t.Errorf("the good one: %v", err)
	}
	if _, err := ReadCache(filepath.Join(t.TempDir(), "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("none: %v", err)
	}
	if _, err := ReadCache(t.TempDir()); err == nil {
		t.Error("a folder is read")
	}
}

// FuzzDecodeCache holds that a file is refused, or gives nodes that come back the
// same when they are written again.
func FuzzDecodeCache(f *testing.F) {
	data, err := encodeCache(map[string]Service{"im": {Nodes: []Node{node1}, Source: "consul", Taken: time.Unix(1, 0)}, "empty": {}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte(`{"version":1,"services":{"im":{"nodes":[{"id":"a","address":"::1","ports":{"":1},"weight":1,"status":"failing"}]}}}`))
	f.Add([]byte(`{"version":1,"services":null}`))
	f.Add([]byte(`{"version":1e0}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		snap, err := decodeCache(data)
		if err != nil {
			if strings.ContainsAny(err.Error(), "\n\x00") {
				t.Errorf("%q is no line", err)
			}
			return
		}
		again, err := encodeCache(snap.Services)
		if err != nil {
			t.Fatalf("%+v cannot be written: %v", snap, err)
		}
		if !json.Valid(again) {
			t.Fatal("no JSON")
		}
		back, err := decodeCache(again)
		if err != nil {
			t.Fatalf("%s cannot be read again: %v", again, err)
		}
		for name, s := range snap.Services {
			if len(back.Services[name].Nodes) != len(s.Nodes) || !back.Services[name].Taken.Equal(s.Taken) {
				t.Errorf("service %q: %+v became %+v", name, s, back.Services[name])
			}
		}
	})
}

// A gateway starts while Consul is down, serves from the cache, and goes over to
// Consul when that is back, even without its state.
func TestColdStart(t *testing.T) {
	t.Parallel()
	a := consultest.Start(t, consultest.Options{})
	register(a, "node1", "node2")
	path := filepath.Join(t.TempDir(), "snapshot.json")
	start := func() *recorder {
		source := newSource(t, ConsulConfig{Address: a.Address}, nil)
		return record(t, WithCache(path, source, []string{"im"}, nil))
	}
	r := start()
	r.until(t, "two nodes", healthy("node1 node2"))
	r.stop()
	a.Kill()

	r = start()
	s := r.until(t, "the cached nodes", faulty("refuses connections; is its agent running, and does it listen there?; from the cache of "))
	if ids(s) != "node1 node2" || s.Source != "cache" {
		t.Errorf("got %+v", s)
	}
	a.Start()
	register(a, "node1", "node2", "node3")
	s = r.until(t, "Consul's own", func(s Service) bool { return s.Source == "consul" && ids(s) == "node1 node2 node3" })
	if s.Fault != "" {
		t.Errorf("the fault is %q", s.Fault)
	}
}

// hasten makes a cache impatient.
func hasten(s Source) Source {
	s.(*cache).grace = time.Millisecond
	return s
}

// finding is a scripted source that may find services by their tags.
type finding struct{ *scripted }

func (finding) notFound() string { return "nobody has looked yet" }

// Services that only tags name come from the file until the source knows which
// there are, with their routes, and leave the file with it.
func TestCacheKeepsTaggedServices(t *testing.T) {
	path := filepath.Join(t.TempDir(), "snapshot.json")
	taken := time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC)
	tagged := func(ids ...string) Service {
		return Service{
			Nodes: nodesNamed(ids...), Source: "consul", Taken: taken, Tagged: true,
			Routes: []TagRoute{{Host: "im.example.gov", Path: "/app", Rewrite: "/", Nodes: []Share{{ids[0], 0.5}}}},
		}
	}
	data, err := encodeCache(map[string]Service{"im": tagged("node1"), "web": tagged("w1"), "named": tagged("n1")})
	if err == nil {
		err = os.WriteFile(path, data, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	source := newScripted()
	r := record(t, hasten(WithCache(path, finding{source}, []string{"named"}, nil)))
	im := r.until(t, "the cache", faulty("from the cache of "))
	want := tagged("node1")
	if !reflect.DeepEqual(im.Routes, want.Routes) || !im.Tagged || !im.Partial || !strings.HasPrefix(im.Fault, "nobody has looked yet; ") {
		t.Errorf("got %+v", im)
	}
	if snap, _ := r.latest(); len(snap.Services) != 2 || snap.Partial != "nobody has looked yet" {
		t.Errorf("got %+v", snap)
	}
	source.snaps <- Snapshot{Services: map[string]Service{"im": tagged("node2")}, Partial: "not all"}
	r.until(t, "the source", healthy("node2"))
	if snap, _ := r.latest(); len(snap.Services) != 2 || snap.Partial != "not all" {
		t.Errorf("got %+v", snap)
	}
	source.snaps <- Snapshot{Services: map[string]Service{"im": tagged("node3")}}
	r.until(t, "all of the source", healthy("node3"))
	if snap, _ := r.latest(); len(snap.Services) != 1 || snap.Partial != "" {
		t.Errorf("got %+v", snap)
	}
	r.stop()
	kept, err := ReadCache(path)
	if err != nil || len(kept.Services) != 1 || !reflect.DeepEqual(kept.Services["im"].Routes, tagged("node3").Routes) || !kept.Services["im"].Tagged {
		t.Errorf("the file has %+v, %v", kept, err)
	}

	// Who does not follow tags has no such services.
	source = newScripted()
	r = record(t, hasten(WithCache(path, source, nil, nil)))
	source.snaps <- Snapshot{Services: map[string]Service{"im": {Source: "consul"}}, Partial: ""}
	if s := r.until(t, "the source", healthy("")); s.Tagged {
		t.Errorf("got %+v", s)
	}
}

func TestCacheWithBadRoutes(t *testing.T) {
	for problem, r := range map[string]TagRoute{
		"its host is no host name":        {Host: "A.example.gov", Path: "/"},
		"its path or its rewrite":         {Path: "x"},
		"rewrite does not begin":          {Path: "/x", Rewrite: "x"},
		`there is no node "w9"`:           {Path: "/x", Nodes: []Share{{"w9", 0}}},
		`the weight of node "w1" is -1`:   {Path: "/x", Nodes: []Share{{"w1", -1}}},
		`the node "w1" has no port "tcp"`: {Path: "/x", Port: "tcp", Nodes: []Share{{"w1", 0}}},
	} {
		data, err := encodeCache(map[string]Service{"web": {Nodes: nodesNamed("w1"), Routes: []TagRoute{r}}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := decodeCache(data); err == nil || !strings.Contains(err.Error(), problem) {
			t.Errorf("want %q, got %v", problem, err)
		}
	}
}
