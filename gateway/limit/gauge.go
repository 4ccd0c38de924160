package limit

import "sync"

// A Gauge counts how much of something each key has at a time.
type Gauge struct {
	counts *table[int64]

	mu     sync.Mutex
	shared map[uint64]int64 // of the keys of a scope that there was no room for
}

// NewGauge keeps about most keys, 0 being the default.
func NewGauge(most int) *Gauge {
	return &Gauge{counts: newTable[int64](most), shared: map[uint64]int64{}}
}

// Enter counts one more for the key, unless it has as many as it may. Each one
// that has entered leaves once. Keys for which there is no room count together.
func (g *Gauge) Enter(k Key, most int) bool {
	s := g.counts.shard(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.get(k)
	if n == nil && most > 0 {
		n = s.add(k, func(n *int64) bool { return false }) // who has none is not kept
	}
	if n == nil {
		return g.enterShared(k.scope, most)
	}
	if *n >= int64(most) {
		return false
	}
	*n++
	return true
}

func (g *Gauge) enterShared(scope uint64, most int) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shared[scope] >= int64(most) {
		return false
	}
	g.shared[scope]++
	return true
}

// Leave counts one less. A key that found no room at first and has its own count
// by now leaves that first: in all it has left as often as it has entered.
func (g *Gauge) Leave(k Key) {
	s := g.counts.shard(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.get(k)
	if n == nil {
		g.leaveShared(k.scope)
		return
	}
	if *n--; *n == 0 {
		s.remove(k)
	}
}

func (g *Gauge) leaveShared(scope uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shared[scope]--; g.shared[scope] <= 0 {
		delete(g.shared, scope)
	}
}

// Full tells whether Enter would say no now.
func (g *Gauge) Full(k Key, most int) bool {
	s := g.counts.shard(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := s.get(k); n != nil {
		return *n >= int64(most)
	}
	if len(s.entries) < s.most {
		return most <= 0
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.shared[k.scope] >= int64(most)
}

// Keys is how many keys have a count of their own now.
func (g *Gauge) Keys() int { return g.counts.len() }
