package limit

import (
	"sync/atomic"
	"time"
)

// A Ban is for whom fails so often: After times, counted from the first one,
// within Within, bans for For. The zero value bans nobody.
type Ban struct {
	After  int
	Within time.Duration
	For    time.Duration
}

// Bans count failures by key and tell who is banned. At the bound, keys that are
// banned or have failed lately keep their places, and failures of further keys do
// not count: a ban is never shared.
type Bans struct {
	now    func() time.Time
	failed *table[failures]
	banned atomic.Int64 // that are kept; some of them may be over
}

// failures are those of one key. Times are zero where there is none.
type failures struct {
	count int
	until time.Time // when they are forgotten
	ban   time.Time // when the ban ends
}

// NewBans keeps about most keys, 0 being the default.
func NewBans(most int, now func() time.Time) *Bans {
	return &Bans{now: now, failed: newTable[failures](most)}
}

// Fail counts a failure of the key, and tells whether that has just banned it.
func (b *Bans) Fail(k Key, rule Ban) (banned bool) {
	if rule.After <= 0 {
		return false
	}
	now := b.now()
	s := b.failed.shard(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.get(k)
	if f == nil {
		f = s.add(k, func(f *failures) bool { return b.forget(f, now) })
	}
	if f == nil || now.Before(f.ban) {
		return false
	}
	if !now.Before(f.until) {
		f.count, f.until = 0, now.Add(rule.Within)
	}
	if f.count++; f.count < rule.After {
		return false
	}
	if f.ban.IsZero() {
		b.banned.Add(1)
	}
	f.count, f.until, f.ban = 0, time.Time{}, now.Add(rule.For)
	return true
}

// forget tells of failures whether they count for nothing any more. Bans are
// forgotten by Ended alone.
func (b *Bans) forget(f *failures, now time.Time) bool {
	return f.ban.IsZero() && !now.Before(f.until)
}

// Banned tells how long the key is banned yet; 0: it is not. While nobody is, it
// costs next to nothing.
func (b *Bans) Banned(k Key) time.Duration {
	if b.banned.Load() == 0 {
		return 0
	}
	s := b.failed.shard(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.get(k)
	if f == nil || f.ban.IsZero() {
		return 0
	}
	return max(f.ban.Sub(b.now()), 0)
}

// Ended forgets the bans that are over and gives their keys, and says how many
// there are yet, and when the next one ends. It looks at every key that is kept.
func (b *Bans) Ended() (over []Key, left int, next time.Time) {
	now := b.now()
	for i := range b.failed.shards {
		s := &b.failed.shards[i]
		s.mu.Lock()
		for j := len(s.entries) - 1; j >= 0; j-- { // remove brings the last one here, which was looked at
			e := &s.entries[j]
			switch ban := e.value.ban; {
			case ban.IsZero():
			case now.Before(ban):
				left++
				if next.IsZero() || ban.Before(next) {
					next = ban
				}
			default:
				over = append(over, e.key)
				b.banned.Add(-1)
				s.remove(e.key)
			}
		}
		s.mu.Unlock()
	}
	return over, left, next
}

// Lift ends all bans and forgets all failures.
func (b *Bans) Lift() {
	for i := range b.failed.shards {
		s := &b.failed.shards[i]
		s.mu.Lock()
		for _, e := range s.entries {
			if !e.value.ban.IsZero() {
				b.banned.Add(-1)
			}
		}
		clear(s.at)
		s.entries = s.entries[:0]
		s.mu.Unlock()
	}
}

// Count is how many keys are banned now, or were until a moment ago.
func (b *Bans) Count() int { return int(b.banned.Load()) }

// Keys is how many keys are kept now.
func (b *Bans) Keys() int { return b.failed.len() }
