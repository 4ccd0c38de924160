// Package discovery says where nodes come from.
//
// A Source watches one origin of nodes (the config file, Consul, DNS) and
// publishes immutable snapshots. The package knows nothing of routes or tunnels
// and imports nothing else of this module.
package discovery

import (
	"context"
	"time"
)

// A Node is one instance of a service. Its ID is stable while its address and
// ports may change. Nodes are values inside a Snapshot: never modify one.
type Node struct {
	ID      string            // unique within its service
	Address string            // host name or IP address, without a port and without brackets
	Ports   map[string]uint16 // by name; a node with one unnamed port has it under ""
	Names   []string          // further names under which a route's {node} finds it
	Weight  int               // share of balanced requests, at least 1
	Meta    map[string]string // what was registered with it
	Status  Status
	Origin  string // where it is declared: "singlegate.yaml:12:5", "consul"
}

// Port is the node's port by name; the empty name stands for its only one,
// whatever that is called.
func (n *Node) Port(name string) (port uint16, ok bool) {
	port, ok = n.Ports[name]
	if !ok && name == "" && len(n.Ports) == 1 {
		for _, port = range n.Ports {
			ok = true
		}
	}
	return port, ok
}

// Status is what a node's source says of its health.
type Status string

// A failing node is not picked by balanced routes, but pinned ones still try
// it: its source may be wrong. A node in maintenance gets no new tunnels.
const (
	Passing     Status = "passing"
	Failing     Status = "failing"
	Maintenance Status = "maintenance"
)

// A Snapshot is everything a source knows at one moment. It is immutable once
// published; readers may keep it and share it between goroutines.
type Snapshot struct {
	Services map[string]Service // by name; of a service that is missing nothing is known

	// Partial says why services that only their tags name may be missing. "":
	// none is, or nobody asks for them.
	Partial string
}

// A Service is what is known of one service's nodes.
type Service struct {
	Nodes   []Node    // ordered by id
	LeftOut []LeftOut // instances that could not become nodes
	Source  string    // "file", "consul", "dns", "cache", or several: "file+consul"
	Taken   time.Time // when its source last confirmed it
	Fault   string    // why it is not fresher; "" while its source is well
	Partial bool      // a source of it has not spoken yet: there may be further nodes

	Routes []TagRoute // what tags of its instances ask for, by host, path and rewrite
	Tagged bool       // only tags name it: it is no service of the config
}

// A TagRoute is a route that instances of a service ask for by their tags.
type TagRoute struct {
	Host    string  `json:"host,omitempty"`    // in lower case; "": every host
	Path    string  `json:"path"`              // a prefix; begins with /
	Rewrite string  `json:"rewrite,omitempty"` // stands upstream in place of the prefix; "": the path goes on unchanged
	Port    string  `json:"port,omitempty"`    // the name of the nodes' port
	Nodes   []Share `json:"nodes"`             // those that serve it, by id
}

// A Share is the part of a route's requests that a node gets.
type Share struct {
	Node   string  `json:"node"`             // its id
	Weight float64 `json:"weight,omitempty"` // of one, as it was asked for; 0: an equal part of what the others leave
}

// LeftOut is an instance that is registered but cannot be a node, or a tag of
// one that asks for what no route can do.
type LeftOut struct {
	Instance string // as its source names it
	Reason   string // what is wrong with it, and what was expected
}

// A Source publishes snapshots until its context ends.
type Source interface {
	// Run calls publish with the first snapshot as soon as there is one and
	// with every later one, in order and never concurrently, until ctx ends;
	// then it returns. publish does not block for long and keeps the snapshot.
	Run(ctx context.Context, publish func(Snapshot)) error
}

// Static is the Source of nodes written in the config file.
type Static struct {
	Services map[string][]Node
}

// Snapshot is all that the source ever publishes.
func (s Static) Snapshot() Snapshot {
	snap := Snapshot{Services: make(map[string]Service, len(s.Services))}
	for name, nodes := range s.Services {
		snap.Services[name] = Service{Nodes: nodes, Source: "file", Taken: time.Now()}
	}
	return snap
}

// Run implements Source: it publishes once and waits for the end.
func (s Static) Run(ctx context.Context, publish func(Snapshot)) error {
	publish(s.Snapshot())
	<-ctx.Done()
	return nil
}
