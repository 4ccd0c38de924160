package upstream

import (
	"net"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"singlegate/discovery"
)

// A Node is one node of a view. It is immutable but for its count of leases,
// which it shares with the same node in earlier and later views.
type Node struct {
	discovery.Node
	Service string
	state   *state
}

// Key names the node across views.
func (n *Node) Key() Key { return Key{n.Service, n.ID} }

// Draining tells whether the node was marked to get nothing new.
func (n *Node) Draining() bool { return n.state.draining.Load() }

// Closed tells whether the node gets nothing new, by mark or by maintenance.
func (n *Node) Closed() bool { return n.Draining() || n.Status == discovery.Maintenance }

// Failing tells whether the node's source or its own check says that it does
// not work.
func (n *Node) Failing() bool { return n.Status == discovery.Failing || n.state.checked.bad() }

// Standing is what is to be thought of the node: its source's word, and that of
// its own check.
func (n *Node) Standing() discovery.Status {
	switch {
	case n.Status == discovery.Maintenance:
		return discovery.Maintenance
	case n.Failing():
		return discovery.Failing
	}
	return discovery.Passing
}

// Ejected tells until when balanced routes leave the node out because requests
// found it unreachable; the zero time: they do not.
func (n *Node) Ejected() time.Time { return n.state.health.ejected(time.Now()) }

// Active is how many leases the node has now.
func (n *Node) Active() int64 { return n.state.active.Load() }

// Addr is host:port of the named port; the empty name stands for the node's
// only port, whatever its name.
func (n *Node) Addr(port string) (addr string, ok bool) {
	p, ok := n.Port(port)
	return net.JoinHostPort(n.Address, strconv.Itoa(int(p))), ok
}

// Lease takes the node for one request or tunnel.
func (n *Node) Lease() *Lease {
	n.state.active.Add(1)
	return &Lease{Node: n}
}

// A Lease is one request's or tunnel's use of a node.
type Lease struct {
	Node   *Node
	done   atomic.Bool
	onDone func()
}

// OnDone has f called when the node is given back. It may be called once, by
// whoever took the lease, before anybody else has it.
func (l *Lease) OnDone(f func()) { l.onDone = f }

// Failed notes that the node could not be reached or did not answer a handshake.
func (l *Lease) Failed() { l.Node.state.health.failed(time.Now()) }

// Worked notes that it could.
func (l *Lease) Worked() { l.Node.state.health.worked() }

// Done gives the node back. Calling it again does nothing.
func (l *Lease) Done() {
	if l.done.CompareAndSwap(false, true) {
		l.Node.state.active.Add(-1)
		if l.onDone != nil {
			l.onDone()
		}
	}
}

// A Service is a named set of nodes in one view. Picking is safe for concurrent
// use and never blocks.
type Service struct {
	Name    string
	Source  string // where the snapshot of it came from
	Taken   time.Time
	Fault   string // why it is not fresher
	LeftOut []discovery.LeftOut
	Partial bool                 // there may be further nodes, of which a source has not spoken yet
	Routes  []discovery.TagRoute // what its nodes ask for
	Tagged  bool                 // it is no service of the config

	nodes  []*Node
	byName map[string]*Node // ids and names, as written
	byFold map[string]*Node // the same in lower case, for host names
	order  []*Node          // nodes as often as their weights say, interleaved
	next   *atomic.Uint32   // shared with the same service in earlier and later views
}

func newService(name string, known discovery.Service, next *atomic.Uint32) *Service {
	return &Service{
		Name: name, Source: known.Source, Taken: known.Taken, Fault: known.Fault, LeftOut: known.LeftOut,
		Partial: known.Partial, Routes: known.Routes, Tagged: known.Tagged,
		next: next, byName: map[string]*Node{}, byFold: map[string]*Node{},
	}
}

func (s *Service) add(n *Node) {
	s.nodes = append(s.nodes, n)
	for _, name := range append([]string{n.ID}, n.Names...) {
		s.byName[name] = n
		s.byFold[strings.ToLower(name)] = n
	}
}

// Nodes are all nodes of the service, in the order of the snapshot. Read only.
func (s *Service) Nodes() []*Node { return s.nodes }

// Node finds a node by its id or one of its names; nil: there is none.
func (s *Service) Node(name string) *Node { return s.byName[name] }

// NodeByHost finds a node by a label of a host name, which has no case.
func (s *Service) NodeByHost(label string) *Node { return s.byFold[label] }

// RoundRobin picks the next node that has the port and is not in tried, each
// as often as its weight says; nil when there is none. Nodes that fail are left
// out unless all do.
func (s *Service) RoundRobin(port string, tried []*Node) *Node {
	if len(s.order) == 0 {
		return nil
	}
	start, now := s.turn(len(s.order)), time.Now()
	for _, grade := range []grade{well, open} {
		for i := range s.order {
			if n := s.order[(start+i)%len(s.order)]; n.grade(now) >= grade && usable(n, port, tried) {
				return n
			}
		}
	}
	return nil
}

// LeastConnections picks the node with the fewest leases for its weight, in
// turn among equals; nil when there is none. Nodes that fail are left out
// unless all do.
func (s *Service) LeastConnections(port string, tried []*Node) *Node {
	if len(s.nodes) == 0 {
		return nil
	}
	start, now := s.turn(len(s.nodes)), time.Now()
	var best *Node
	for i := range s.nodes {
		n := s.nodes[(start+i)%len(s.nodes)]
		if n.grade(now) > closed && usable(n, port, tried) && (best == nil || n.better(best, now)) {
			best = n
		}
	}
	return best
}

// A grade is how much a balanced route likes a node.
type grade int

const (
	closed grade = iota // gets nothing new
	open                // fails its check, or requests found it unreachable
	well
)

func (n *Node) grade(now time.Time) grade {
	switch {
	case n.Closed():
		return closed
	case n.Failing(), !n.state.health.ejected(now).IsZero():
		return open
	}
	return well
}

func (n *Node) better(than *Node, now time.Time) bool {
	if a, b := n.grade(now), than.grade(now); a != b {
		return a > b
	}
	return n.load() < than.load()
}

// turn is where the next search among n begins.
func (s *Service) turn(n int) int { return int((s.next.Add(1) - 1) % uint32(n)) }

func (n *Node) load() float64 { return float64(n.Active()) / float64(max(n.Weight, 1)) }

func usable(n *Node, port string, tried []*Node) bool {
	for _, t := range tried {
		if t == n {
			return false
		}
	}
	_, ok := n.Addr(port)
	return ok
}

// maxOrder bounds the memory of a service's order; beyond it weights are scaled
// down, never below one.
const maxOrder = 1024

// weightedOrder lists every node as often as its weight says, spread evenly:
// the smooth weighted round robin, unrolled once per snapshot so that picking
// is one atomic add.
func weightedOrder(nodes []*Node) []*Node {
	weights := make([]int, len(nodes))
	total, divisor := 0, 0
	for i, n := range nodes {
		weights[i] = max(n.Weight, 1)
		total += weights[i]
		divisor = gcd(weights[i], divisor)
	}
	if divisor > 1 || total > maxOrder {
		scale := max(divisor, (total+maxOrder-1)/maxOrder)
		total = 0
		for i := range weights {
			weights[i] = max(weights[i]/scale, 1)
			total += weights[i]
		}
	}
	order := make([]*Node, 0, total)
	current := make([]int, len(nodes))
	for range total {
		best := 0
		for i := range nodes {
			current[i] += weights[i]
			if current[i] > current[best] {
				best = i
			}
		}
		current[best] -= total
		order = append(order, nodes[best])
	}
	return order
}

func gcd(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}
