package limit

import (
	"math"
	"sync"
	"time"
)

// A Rate is how often something may happen: Burst times at once, and again once
// in each Interval that passes. The zero value sets no limit.
type Rate struct {
	Interval time.Duration
	Burst    int
}

// Every is so many in each period, with bursts of as many as said.
func Every(n int, period time.Duration, burst int) Rate {
	return Rate{Interval: max(period/time.Duration(max(n, 1)), 1), Burst: max(burst, 1)}
}

// tolerance is how far ahead of time a key may be; the longest one there is must
// not overflow.
func (r Rate) tolerance() int64 {
	if t := int64(r.Interval) * int64(r.Burst); t/int64(r.Burst) == int64(r.Interval) {
		return t
	}
	return math.MaxInt64 / 4
}

// Buckets are a token bucket for each key. They work by the generic cell rate
// algorithm: all that is kept of a bucket is the time at which it will be full
// again, 8 bytes (golang.org/x/time/rate has a mutex and five fields for each),
// and one that is full is the same as one that is not there, so that forgetting
// it gives nobody anything.
type Buckets struct {
	now   func() time.Time
	start time.Time
	full  *table[int64] // when each will be full again, in nanoseconds since start

	mu     sync.Mutex
	shared map[uint64]int64 // for the keys of a scope that there was no room for
}

// NewBuckets keeps about most keys, 0 being the default, and reads the time from
// now, which should be monotonic.
func NewBuckets(most int, now func() time.Time) *Buckets {
	return &Buckets{now: now, start: now(), full: newTable[int64](most), shared: map[uint64]int64{}}
}

// Take takes one from the bucket of the key. When there is none, it takes nothing
// and says after how long there will be one. A key for which there is no room
// takes from one bucket with all others of its scope that there is no room for.
func (b *Buckets) Take(k Key, r Rate) (wait time.Duration) {
	if r.Burst <= 0 || r.Interval <= 0 {
		return 0
	}
	now := int64(b.now().Sub(b.start))
	s := b.full.shard(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	full := s.get(k)
	if full == nil {
		full = s.add(k, func(full *int64) bool { return *full <= now })
	}
	if full == nil {
		return b.takeShared(k.scope, now, r)
	}
	return take(full, now, r)
}

// take is the algorithm: full is when the bucket will be full again.
func take(full *int64, now int64, r Rate) (wait time.Duration) {
	next := max(*full, now) + int64(r.Interval)
	if early := next - now - r.tolerance(); early > 0 {
		return time.Duration(early)
	}
	*full = next
	return 0
}

// maxScopes bounds the shared buckets; many reloads may have brought many routes.
const maxScopes = 4096

func (b *Buckets) takeShared(scope uint64, now int64, r Rate) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	full, known := b.shared[scope]
	if !known && len(b.shared) >= maxScopes {
		for other, full := range b.shared {
			if full <= now {
				delete(b.shared, other)
			}
		}
		if len(b.shared) >= maxScopes {
			return r.Interval
		}
	}
	wait := take(&full, now, r)
	b.shared[scope] = full
	return wait
}

// Keys is how many keys are kept now.
func (b *Buckets) Keys() int { return b.full.len() }
