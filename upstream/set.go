// Package upstream knows the nodes behind the gateway: which there are, which
// one a request goes to, and how to reach it. It turns snapshots of package
// discovery into an immutable View and keeps what outlives a snapshot (live
// counts) by node. It imports discovery and nothing else of this module, and
// knows nothing of routes or clients.
package upstream

import (
	"cmp"
	"context"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"

	"singlegate/discovery"
)

// A Key names a node for as long as it exists, whatever its address.
type Key struct{ Service, ID string }

// Changes is what one snapshot brought, in a stable order.
type Changes struct {
	Added, Removed []Key
	Moved          []Key // same node, another address or port
	Status         []StatusChange
}

// A StatusChange is a node of which its source now says something else.
type StatusChange struct {
	Key
	From, To discovery.Status
}

// A View is everything known of the services at one moment. It is immutable
// and shared between goroutines.
type View struct {
	Services map[string]*Service // of a service that is missing nothing is known
	Partial  string              // why services that are not in the config may be missing; "": none is
}

// Set holds the nodes of every service. Its methods are safe for concurrent use.
type Set struct {
	dialer    Dialer
	transport *http.Transport
	single    *http.Transport                         // whose connections are not used again
	sources   atomic.Pointer[map[string][]netip.Addr] // by service
	tls       atomic.Pointer[map[string]TLS]          // likewise
	readers   sync.Pool                               // of *bufio.Reader, for answers to handshakes

	mu     sync.Mutex
	states map[Key]*state
	nodes  map[Key]discovery.Node
	turns  map[string]*atomic.Uint32 // by service
}

// state is what outlives a snapshot.
type state struct {
	active   atomic.Int64
	turn     atomic.Uint32 // of its service's source addresses
	draining atomic.Bool
	health   health
	checked  checked
}

// A Dialer opens connections to nodes. One that is built upon Net knows of
// source addresses.
type Dialer interface {
	DialContext(ctx context.Context, network, address string) (net.Conn, error)
}

// New returns a set without nodes. Every upstream connection is opened through
// dialer; nil means a Net.
func New(dialer Dialer) *Set {
	if dialer == nil {
		dialer = Net{}
	}
	s := &Set{dialer: dialer, states: map[Key]*state{}, nodes: map[Key]discovery.Node{}, turns: map[string]*atomic.Uint32{}}
	s.transport, s.single = s.newTransport(), s.newTransport()
	s.single.DisableKeepAlives = true
	return s
}

// Apply takes a snapshot and returns the view of it and what changed against
// the one before.
func (s *Set) Apply(snap discovery.Snapshot) (*View, Changes) {
	s.mu.Lock()
	defer s.mu.Unlock()
	view := &View{Services: make(map[string]*Service, len(snap.Services)), Partial: snap.Partial}
	next := make(map[Key]discovery.Node)
	states := make(map[Key]*state)
	turns := make(map[string]*atomic.Uint32)
	for name, known := range snap.Services {
		turns[name] = s.turns[name]
		if turns[name] == nil {
			turns[name] = &atomic.Uint32{}
		}
		svc := newService(name, known, turns[name])
		for _, n := range known.Nodes {
			key := Key{name, n.ID}
			st := s.states[key]
			if st == nil {
				st = &state{}
			}
			states[key], next[key] = st, n
			svc.add(&Node{Node: n, Service: name, state: st})
		}
		svc.order = weightedOrder(svc.nodes)
		view.Services[name] = svc
	}
	for key, st := range s.states {
		if states[key] == nil && st.active.Load() > 0 {
			states[key] = st // its tunnels live on, and count when it comes back
		}
	}
	changes := diff(s.nodes, next)
	s.nodes, s.states, s.turns = next, states, turns
	return view, changes
}

// Drain marks a node so that it gets nothing new, or ends that. It reports
// whether there is such a node. The mark survives snapshots for as long as the
// node is in them.
func (s *Set) Drain(key Key, draining bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.states[key]
	if st != nil {
		st.draining.Store(draining)
	}
	return st != nil
}

// Close drops idle connections to nodes.
func (s *Set) Close() { s.transport.CloseIdleConnections() }

func diff(before, after map[Key]discovery.Node) Changes {
	var c Changes
	for k, n := range after {
		old, known := before[k]
		switch {
		case !known:
			c.Added = append(c.Added, k)
		case !sameAddress(old, n):
			c.Moved = append(c.Moved, k)
		}
		if known && old.Status != n.Status {
			c.Status = append(c.Status, StatusChange{k, old.Status, n.Status})
		}
	}
	for k := range before {
		if _, still := after[k]; !still {
			c.Removed = append(c.Removed, k)
		}
	}
	for _, keys := range [][]Key{c.Added, c.Removed, c.Moved} {
		slices.SortFunc(keys, Key.compare)
	}
	slices.SortFunc(c.Status, func(a, b StatusChange) int { return a.Key.compare(b.Key) })
	return c
}

func (k Key) compare(other Key) int {
	return cmp.Or(cmp.Compare(k.Service, other.Service), cmp.Compare(k.ID, other.ID))
}

func (k Key) String() string { return k.Service + "/" + k.ID }

func sameAddress(a, b discovery.Node) bool {
	if a.Address != b.Address || len(a.Ports) != len(b.Ports) {
		return false
	}
	for name, port := range a.Ports {
		if b.Ports[name] != port {
			return false
		}
	}
	return true
}
