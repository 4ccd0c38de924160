package limit

import (
	"hash/maphash"
	"sync"
)

// DefaultKeys is how many keys a Buckets, Gauge or Bans keeps at most when it is
// asked for 0: about 5 MB of them.
const DefaultKeys = 1 << 16

// shards is how many locks the keys are under.
const shards = 16

// A table is what is kept of keys: bounded, in shards.
type table[V any] struct {
	seed   maphash.Seed
	shards [shards]shard[V]
}

// A shard has its entries side by side, so that looking for one that counts for
// nothing any more never walks over empty places.
type shard[V any] struct {
	mu      sync.Mutex
	most    int
	at      map[Key]int32
	entries []entry[V]
	hand    int // where the search for idle entries goes on
}

type entry[V any] struct {
	key   Key
	value V
}

// newTable keeps about most keys, which the shards have in equal parts; 0: the
// default.
func newTable[V any](most int) *table[V] {
	if most <= 0 {
		most = DefaultKeys
	}
	t := &table[V]{seed: maphash.MakeSeed()}
	for i := range t.shards {
		t.shards[i].most = (most + shards - 1) / shards
		t.shards[i].at = map[Key]int32{}
	}
	return t
}

// shard is that of a key; which one, clients cannot foresee.
func (t *table[V]) shard(k Key) *shard[V] {
	var h maphash.Hash
	h.SetSeed(t.seed)
	h.Write(k.id[:])
	return &t.shards[(h.Sum64()+k.scope)%shards]
}

// len is how many keys are kept.
func (t *table[V]) len() (n int) {
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.Lock()
		n += len(s.entries)
		s.mu.Unlock()
	}
	return n
}

// get is the value of a key; nil: none is kept. It is valid under the lock, until
// a key comes or goes.
func (s *shard[V]) get(k Key) *V {
	i, ok := s.at[k]
	if !ok {
		return nil
	}
	return &s.entries[i].value
}

// lookedAt is how many entries a new key has looked at. With more than one, a
// table that was full of idle entries becomes small again.
const lookedAt = 4

// add makes room for a new key, which has the zero value; nil: every place is in
// use. idle tells of a value whether it counts for nothing any more.
func (s *shard[V]) add(k Key, idle func(*V) bool) *V {
	for range min(lookedAt, len(s.entries)) {
		if s.hand >= len(s.entries) {
			s.hand = 0
		}
		if e := &s.entries[s.hand]; idle(&e.value) {
			s.remove(e.key)
			continue
		}
		s.hand++
	}
	if len(s.entries) >= s.most {
		return nil
	}
	s.at[k] = int32(len(s.entries))
	s.entries = append(s.entries, entry[V]{key: k})
	return &s.entries[len(s.entries)-1].value
}

// remove forgets a key; the last entry takes its place.
func (s *shard[V]) remove(k Key) {
	i, ok := s.at[k]
	if !ok {
		return
	}
	last := int32(len(s.entries) - 1)
	s.entries[i] = s.entries[last]
	s.at[s.entries[i].key] = i
	s.entries = s.entries[:last]
	delete(s.at, k)
}
