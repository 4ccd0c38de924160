// Package discovery says where nodes come from.
//
// A Source watches one origin of nodes (the config file; Consul) and publishes
// immutable snapshots. The package knows nothing of routes, health or tunnels
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
	Origin  string            // where it is declared: "singlegate.yaml:12:5"
}

// A Snapshot is everything a source knows at one moment. It is immutable once
// published; readers may keep it and share it between goroutines.
type Snapshot struct {
	Services map[string][]Node // nodes by service name; a service without nodes has an empty entry
	Source   string            // "file", …
	Taken    time.Time         // when the source knew it
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
	return Snapshot{Services: s.Services, Source: "file", Taken: time.Now()}
}

// Run implements Source: it publishes once and waits for the end.
func (s Static) Run(ctx context.Context, publish func(Snapshot)) error {
	publish(s.Snapshot())
	<-ctx.Done()
	return nil
}
