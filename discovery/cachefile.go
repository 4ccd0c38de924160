package discovery

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

const (
	cacheVersion = 1
	maxCache     = 64 << 20 // bytes
)

// cacheFile is the cached snapshot as it stands on disk.
type cacheFile struct {
	Version  int                      `json:"version"`
	Services map[string]cachedService `json:"services"`
}

type cachedService struct {
	Source string       `json:"source"`
	Taken  time.Time    `json:"taken"`
	Nodes  []cachedNode `json:"nodes"`
	Routes []TagRoute   `json:"routes,omitempty"`
	Tagged bool         `json:"tagged,omitempty"`
}

type cachedNode struct {
	ID      string            `json:"id"`
	Address string            `json:"address"`
	Ports   map[string]uint16 `json:"ports"`
	Names   []string          `json:"names,omitempty"`
	Weight  int               `json:"weight"`
	Meta    map[string]string `json:"meta,omitempty"`
	Status  Status            `json:"status"`
	Origin  string            `json:"origin"`
}

// ReadCache reads a snapshot that WithCache has written. Every service of it has
// the source "cache", and the Taken of the time when its source confirmed it. An
// error says what is wrong with the file and what to do; one that is fs.ErrNotExist
// means that none was written yet.
func ReadCache(path string) (Snapshot, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Snapshot{}, fmt.Errorf("there is no cached snapshot yet: %w", err)
	}
	if err != nil {
		return Snapshot{}, fmt.Errorf("the cached snapshot cannot be read: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxCache+1))
	if err != nil {
		return Snapshot{}, fmt.Errorf("the cached snapshot cannot be read: %w", err)
	}
	snap, err := decodeCache(data)
	if err != nil {
		return Snapshot{}, fmt.Errorf("the cached snapshot %s is not used: %w; it is written anew when its source answers", path, err)
	}
	return snap, nil
}

// decodeCache takes a file that is whole and good, or nothing of it.
func decodeCache(data []byte) (Snapshot, error) {
	if len(data) > maxCache {
		return Snapshot{}, fmt.Errorf("it is larger than %d MiB", maxCache>>20)
	}
	var version struct{ Version int }
	if err := json.Unmarshal(data, &version); err != nil {
		return Snapshot{}, fmt.Errorf("it is broken: %w", err)
	}
	if version.Version != cacheVersion {
		return Snapshot{}, fmt.Errorf("it is of version %d, and this program knows version %d", version.Version, cacheVersion)
	}
	var file cacheFile
	if err := json.Unmarshal(data, &file); err != nil {
		return Snapshot{}, fmt.Errorf("it is broken: %w", err)
	}
	snap := Snapshot{Services: make(map[string]Service, len(file.Services))}
	for name, s := range file.Services {
		nodes, err := s.decode()
		if err != nil {
			return Snapshot{}, fmt.Errorf("it is broken: service %s: %w", quoted(name), err)
		}
		snap.Services[name] = Service{Nodes: nodes, Source: "cache", Taken: s.Taken, Routes: s.Routes, Tagged: s.Tagged}
	}
	return snap, nil
}

// decode holds nodes to what the sources promise of theirs.
func (s cachedService) decode() ([]Node, error) {
	var nodes []Node
	taken := map[string]bool{}
	for _, c := range s.Nodes {
		n := Node(c)
		for _, name := range append([]string{n.ID}, n.Names...) {
			key := strings.ToLower(name)
			if problem := checkID(name); problem != "" || taken[key] {
				return nil, fmt.Errorf("node %s: its id or a name is bad or taken", quoted(n.ID))
			}
			taken[key] = true
		}
		switch {
		case !isHost(n.Address):
			return nil, fmt.Errorf("node %s has no address", quoted(n.ID))
		case len(n.Ports) == 0 || slices.Contains(slices.Collect(maps.Values(n.Ports)), 0):
			return nil, fmt.Errorf("node %s has no port, or one that is 0", quoted(n.ID))
		case n.Weight < 1 || n.Weight > maxWeight:
			return nil, fmt.Errorf("node %s has the weight %d", quoted(n.ID), n.Weight)
		case !slices.Contains([]Status{Passing, Failing, Maintenance}, n.Status):
			return nil, fmt.Errorf("node %s has an unknown status", quoted(n.ID))
		}
		nodes = append(nodes, n)
	}
	slices.SortFunc(nodes, func(x, y Node) int { return strings.Compare(x.ID, y.ID) })
	for _, r := range s.Routes {
		if problem := r.check(nodes); problem != "" {
			return nil, fmt.Errorf("route %s: %s", quoted(r.Host+r.Path), problem)
		}
	}
	return nodes, nil
}

// check gives what is wrong with a route, or "".
func (r *TagRoute) check(nodes []Node) string {
	switch {
	case r.Host != "" && !isHost(r.Host) || r.Host != strings.ToLower(r.Host):
		return "its host is no host name in lower case"
	case !strings.HasPrefix(r.Path, "/") || r.Rewrite != "" && !strings.HasPrefix(r.Rewrite, "/"):
		return "its path or its rewrite does not begin with a slash"
	}
	for _, share := range r.Nodes {
		i := slices.IndexFunc(nodes, func(n Node) bool { return n.ID == share.Node })
		switch {
		case i < 0:
			return fmt.Sprintf("there is no node %s", quoted(share.Node))
		case !(share.Weight >= 0 && share.Weight <= maxShare):
			return fmt.Sprintf("the weight of node %s is %v", quoted(share.Node), share.Weight)
		}
		if _, ok := nodes[i].Port(r.Port); !ok {
			return fmt.Sprintf("the node %s has no port %s", quoted(share.Node), quoted(r.Port))
		}
	}
	return ""
}

// encodeCache is the opposite of decodeCache. What is left out and what was wrong
// with a source is not kept.
func encodeCache(services map[string]Service) ([]byte, error) {
	file := cacheFile{Version: cacheVersion, Services: map[string]cachedService{}}
	for name, s := range services {
		c := cachedService{Source: s.Source, Taken: s.Taken.UTC(), Nodes: []cachedNode{}, Routes: s.Routes, Tagged: s.Tagged}
		for _, n := range s.Nodes {
			c.Nodes = append(c.Nodes, cachedNode(n))
		}
		file.Services[name] = c
	}
	return json.MarshalIndent(file, "", " ")
}

// writeWhole leaves either the old content at path or the new one, whatever
// happens meanwhile, readable by its owner only.
func writeWhole(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-") // 0600
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	if dir, err := os.Open(filepath.Dir(path)); err == nil {
		_ = dir.Sync() // not every system can; the content is whole either way
		_ = dir.Close()
	}
	return nil
}
