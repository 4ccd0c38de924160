package limit

import (
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"sync"
	"testing"
	"time"
)

// A clock stands still unless it is moved.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func newClock() *clock { return &clock{t: time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC)} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

func key(i int) Key { return Text(fmt.Sprint("key ", i)) }

func TestAddressKeys(t *testing.T) {
	key := func(s string, bits int) Key { return Address(netip.MustParseAddr(s), bits) }
	for _, c := range []struct {
		a, b string
		bits int
		same bool
	}{
		{"192.0.2.1", "192.0.2.1", 64, true},
		{"192.0.2.1", "192.0.2.2", 64, false},
		{"192.0.2.1", "::ffff:192.0.2.1", 64, true},
		{"2001:db8::1", "2001:db8::ffff:1", 64, true},
		{"2001:db8::1", "2001:db8:0:1::1", 64, false},
		{"2001:db8::1", "2001:db8:0:1::1", 56, true},
		{"2001:db8::1", "2001:db8::2", 128, false},
		{"fe80::1%eth0", "fe80::1%eth1", 128, true},
		{"::", "0.0.0.0", 64, false},
		{"::ffff:0:1", "::ffff:0:0:1", 64, false}, // the first is IPv4
	} {
		if (key(c.a, c.bits) == key(c.b, c.bits)) != c.same {
			t.Errorf("%s and %s by /%d: want the same %v", c.a, c.b, c.bits, c.same)
		}
	}
	if got := key("2001:db8:1:2:3::4", 64).Addr().String(); got != "2001:db8:1:2::" {
		t.Errorf("got %s", got)
	}
	if got := key("::ffff:192.0.2.1", 64).Addr().String(); got != "192.0.2.1" {
		t.Errorf("got %s", got)
	}
	if a := Text("a"); a.In(ScopeOf("x")) == a.In(ScopeOf("y")) || a.In(ScopeOf("")) != a {
		t.Error("scopes do not tell keys apart")
	}
}

// In no stretch of time does a key get more than its burst and what the time
// allows, and never less than a plain count of tokens would give it.
func TestBucketsAreTokenBuckets(t *testing.T) {
	for seed := range uint64(60) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		c := newClock()
		b := NewBuckets(0, c.now)
		r := Every(1+rnd.IntN(50), time.Duration(1+rnd.IntN(60))*time.Second, 1+rnd.IntN(20))
		tokens, last := float64(r.Burst), c.now()
		for range 500 {
			c.pass(time.Duration(rnd.Int64N(int64(2*r.Interval) + 1)))
			if rnd.IntN(50) == 0 {
				c.pass(time.Duration(rnd.Int64N(int64(r.Interval) * int64(r.Burst) * 2)))
			}
			now := c.now()
			tokens = min(tokens+float64(now.Sub(last))/float64(r.Interval), float64(r.Burst))
			last = now
			wait := b.Take(key(1), r)
			const hair = 1e-6
			switch {
			case wait == 0 && tokens < 1-hair:
				t.Fatalf("seed %d: taken with %v tokens", seed, tokens)
			case wait != 0 && tokens > 1+hair:
				t.Fatalf("seed %d: refused with %v tokens", seed, tokens)
			case wait == 0:
				tokens--
			default:
				missing := time.Duration((1 - tokens) * float64(r.Interval))
				if d := wait - missing; d < -time.Microsecond || d > time.Microsecond {
					t.Fatalf("seed %d: told to wait %v, want %v", seed, wait, missing)
				}
			}
		}
	}
}

// Who waits as long as he was told gets one.
func TestWaitIsEnough(t *testing.T) {
	c := newClock()
	b := NewBuckets(0, c.now)
	r := Every(3, time.Minute, 2)
	for range 50 {
		wait := b.Take(key(1), r)
		if wait > 20*time.Second {
			t.Fatalf("told to wait %v", wait)
		}
		c.pass(wait)
		if wait > 0 && b.Take(key(1), r) != 0 {
			t.Fatal("refused after the wait")
		}
	}
}

// Odd rates neither panic nor overflow.
func TestOddRates(t *testing.T) {
	c := newClock()
	b := NewBuckets(0, c.now)
	for range 3 {
		if b.Take(key(1), Rate{}) != 0 {
			t.Error("no rate is a limit")
		}
	}
	if r := Every(math.MaxInt, time.Second, 0); r.Interval != 1 || r.Burst != 1 {
		t.Errorf("got %+v", r)
	}
	if r := Every(0, time.Second, 1); r.Interval != time.Second {
		t.Errorf("got %+v", r)
	}
	long := Rate{Interval: math.MaxInt64 / 8, Burst: math.MaxInt}
	for i := range 3 {
		if wait := b.Take(key(2), long); wait < 0 || i == 0 && wait != 0 {
			t.Errorf("got %v", wait)
		}
	}
}

// Whatever keys come, no more than the bound are kept; those in use keep their
// buckets, and the others share one, which is no bigger.
func TestBucketsAreBounded(t *testing.T) {
	const most = 64
	c := newClock()
	b := NewBuckets(most, c.now)
	r := Every(1, time.Minute, 3)
	for i := range 10 * most {
		b.Take(key(i), r)
	}
	if n := b.Keys(); n > most {
		t.Fatalf("%d keys are kept", n)
	}
	kept := 0
	for i := range 10 * most {
		if b.full.shard(key(i)).get(key(i)) == nil {
			continue
		}
		kept++
		for j := range 3 {
			if wait := b.Take(key(i), r); (wait != 0) != (j == 2) {
				t.Fatalf("key %d, take %d: %v", i, j+2, wait)
			}
		}
	}
	if kept == 0 || kept > most {
		t.Fatalf("%d keys have buckets", kept)
	}
	if wait := b.Take(key(10*most+1), r); wait == 0 {
		t.Error("a new key gets more than all new keys together may have")
	}
	if wait := b.Take(key(1).In(7), r); b.full.shard(key(1).In(7)).get(key(1).In(7)) == nil && wait != 0 {
		t.Error("another scope shares the bucket")
	}

	c.pass(time.Hour) // every bucket is full, which is as good as none
	for i := range most / 4 {
		if b.Take(key(20*most+i), r) != 0 {
			t.Fatal("a new key finds no room though nobody else needs it")
		}
	}
	c.pass(time.Hour)
	for i := range 3 * shards {
		b.Take(key(30*most+i), r)
	}
	if n := b.Keys(); n > most {
		t.Errorf("%d keys are kept", n)
	}
}

// The buckets that are shared are bounded as well.
func TestSharedBucketsAreBounded(t *testing.T) {
	c := newClock()
	b := NewBuckets(1, c.now)
	r := Every(1, time.Minute, 1)
	for i := range shards * 8 {
		b.Take(key(i), r)
	}
	for i := range maxScopes + 10 {
		b.Take(key(-1).In(Scope(i)), r)
	}
	if n := len(b.shared); n > maxScopes {
		t.Errorf("%d shared buckets", n)
	}
	c.pass(time.Hour)
	for i := range shards * 8 {
		b.Take(key(1000+i), r)
	}
	b.Take(key(-1).In(1<<40), r)
	if n := len(b.shared); n > 2 { // theirs and this one
		t.Errorf("%d shared buckets are kept though they are full", n)
	}
}

// A gauge holds to its bound for every key, known or not, in any order of coming
// and going, and forgets who has left.
func TestGauge(t *testing.T) {
	for _, bound := range []int{16, 1 << 10} {
		for seed := range uint64(10) {
			rnd := rand.New(rand.NewPCG(seed, 2))
			g := NewGauge(bound)
			const most = 3
			in := map[int]int{}
			total := 0
			for range 3000 {
				i := rnd.IntN(100)
				full := g.Full(key(i), most)
				switch {
				case rnd.IntN(2) == 0 && in[i] > 0:
					g.Leave(key(i))
					in[i]--
					total--
				case g.Enter(key(i), most):
					if full {
						t.Fatalf("seed %d: entered though it was full", seed)
					}
					in[i]++
					total++
				case !full:
					t.Fatalf("seed %d: refused though it was not full", seed)
				case bound >= 1<<10 && in[i] < most:
					t.Fatalf("seed %d: refused with %d", seed, in[i])
				}
				// Who came when there was no room may have some of the shared ones beside his own.
				if in[i] > 2*most {
					t.Fatalf("seed %d: key %d has %d", seed, i, in[i])
				}
				if g.Keys() > bound || total > (bound+1)*most {
					t.Fatalf("seed %d: %d keys, %d in all", seed, g.Keys(), total)
				}
			}
			for i, n := range in {
				for range n {
					g.Leave(key(i))
				}
			}
			if g.Keys() != 0 || len(g.shared) != 0 {
				t.Fatalf("seed %d: %d keys are left, and %v", seed, g.Keys(), g.shared)
			}
		}
	}
}

func TestBans(t *testing.T) {
	c := newClock()
	b := NewBans(0, c.now)
	rule := Ban{After: 3, Within: time.Minute, For: 10 * time.Minute}
	fail := func(i int) bool { return b.Fail(key(i), rule) }
	for range 2 { // in two minutes, of which each counts by itself
		for range 2 {
			if fail(1) || b.Banned(key(1)) != 0 {
				t.Fatal("banned too early")
			}
		}
		c.pass(time.Minute)
	}
	c.pass(-time.Minute)
	if !fail(1) || b.Banned(key(1)) != 10*time.Minute || b.Count() != 1 {
		t.Fatal("not banned")
	}
	if fail(1) || b.Banned(key(2)) != 0 {
		t.Fatal("banned twice, or somebody else")
	}
	c.pass(10*time.Minute - 1)
	if over, left, next := b.Ended(); b.Banned(key(1)) != 1 || len(over) != 0 || left != 1 || next.Sub(c.now()) != 1 {
		t.Fatal("the ban is over too early")
	}
	c.pass(1)
	if b.Banned(key(1)) != 0 {
		t.Fatal("the ban is not over")
	}
	if over, left, _ := b.Ended(); len(over) != 1 || over[0] != key(1) || left != 0 || b.Count() != 0 || b.Keys() != 0 {
		t.Fatalf("ended: %v, %d left", over, left)
	}
	for range 3 {
		fail(3)
	}
	b.Lift()
	if b.Banned(key(3)) != 0 || b.Count() != 0 || b.Keys() != 0 {
		t.Error("still banned")
	}
	if b.Fail(key(4), Ban{}) || b.Keys() != 0 {
		t.Error("no rule, and something counts")
	}
}

// A ban that is over and was not asked for yet is begun anew, and counted once.
func TestBanAgain(t *testing.T) {
	c := newClock()
	b := NewBans(0, c.now)
	rule := Ban{After: 1, Within: time.Minute, For: time.Minute}
	for range 3 {
		if !b.Fail(key(1), rule) || b.Count() != 1 {
			t.Fatal("not banned once")
		}
		c.pass(2 * time.Minute)
	}
}

// At the bound who is banned stays so, and nobody is banned for others.
func TestBansAreBounded(t *testing.T) {
	const most = 32
	c := newClock()
	b := NewBans(most, c.now)
	rule := Ban{After: 1, Within: time.Minute, For: time.Hour}
	banned := 0
	for i := range 100 * most {
		if b.Fail(key(i), rule) {
			banned++
		}
	}
	if banned != b.Count() || banned > most || b.Keys() > most {
		t.Fatalf("%d banned, %d counted, %d kept", banned, b.Count(), b.Keys())
	}
	c.pass(30 * time.Minute)
	still := 0
	for i := range 100 * most {
		if b.Banned(key(i)) > 0 {
			still++
		}
	}
	if still != banned {
		t.Errorf("%d of %d are still banned", still, banned)
	}
	c.pass(time.Hour)
	if over, _, _ := b.Ended(); len(over) != banned || b.Keys() != 0 {
		t.Errorf("%d bans ended, %d keys left", len(over), b.Keys())
	}
}

func TestKnownKeysCostNoAllocation(t *testing.T) {
	now := time.Now
	b, g, bans := NewBuckets(0, now), NewGauge(0), NewBans(0, now)
	r, rule := Every(1, time.Hour, 5), Ban{After: 1 << 30, Within: time.Hour, For: time.Hour}
	other := Ban{After: 1, Within: time.Hour, For: time.Hour}
	a := netip.MustParseAddr("2001:db8::1")
	g.Enter(Address(a, 64), 100)
	bans.Fail(Text("x"), other)
	for what, f := range map[string]func(){
		"Take":   func() { b.Take(Address(a, 64).In(3), r) },
		"Gauge":  func() { g.Enter(Address(a, 64), 100); g.Full(Address(a, 64), 100); g.Leave(Address(a, 64)) },
		"Fail":   func() { bans.Fail(Address(a, 64), rule) },
		"Banned": func() { bans.Banned(Text("x")); bans.Banned(Address(a, 64)) },
	} {
		f()
		if n := testing.AllocsPerRun(200, f); n != 0 {
			t.Errorf("%s: %v allocations", what, n)
		}
	}
}

// Many at once get as much as one after the other.
func TestManyAtOnce(t *testing.T) {
	c := newClock()
	b, g := NewBuckets(0, c.now), NewGauge(0)
	r := Every(1, time.Hour, 100)
	var mu sync.Mutex
	taken, entered := 0, 0
	var group sync.WaitGroup
	for range 16 {
		group.Go(func() {
			for range 50 {
				took, in := b.Take(key(1), r) == 0, g.Enter(key(1), 100)
				mu.Lock()
				if took {
					taken++
				}
				if in {
					entered++
				}
				mu.Unlock()
			}
		})
	}
	group.Wait()
	if taken != 100 || entered != 100 {
		t.Errorf("taken %d, entered %d", taken, entered)
	}
}
