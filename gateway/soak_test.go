package gateway

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"regexp"
	"runtime"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

var (
	soakTime = flag.Duration("soak", 0, "how long TestSoak loads the gateway; 0: for a moment")
	soakSeed = flag.Uint64("soak.seed", 0, "what TestSoak draws its load from; 0: something new")
)

// A gateway under everything that clients, nodes and operators do at once loses
// no byte and keeps nothing: what it held before the load it holds after it, and
// under load it does not grow.
//
//	go test -v -run TestSoak -soak 3m -timeout 30m ./gateway
//
// The same seed draws the same load; how the system mixes it is another matter.
func TestSoak(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("it counts what /proc shows")
	}
	seed := *soakSeed
	for seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("-soak.seed %d", seed)
	before := settled()
	t.Run("load", func(t *testing.T) { soakLoad(t, seed) })
	expectBack(t, "what the gateway and the load had is given back with their end", before)
}

// soakLoad loads the gateway twice. The first time fills what grows with the
// most there ever was at once (tables, pools, the descriptors of goroutines),
// which is then in what the second time is compared with.
func soakLoad(t *testing.T, seed uint64) {
	total, every := *soakTime, max(*soakTime/90, 250*time.Millisecond)
	if total == 0 {
		total = 2 * time.Second
	}
	s := startSoak(t, seed)
	s.during(max(total/8, 500*time.Millisecond), every)
	s.idle()
	before := measure()
	t.Logf("idle, warm: %v", before)
	samples := s.during(total, every)
	s.idle()
	after := expectBack(t, "after the load", before)
	t.Logf("idle, after the load: %v", after)
	t.Logf("seen: %v", s.tally())

	if grown := after.heap - before.heap; grown > heapSlack {
		t.Errorf("the heap kept %s of the load, more than %s", size(grown), size(heapSlack))
	}
	if *soakTime > 0 {
		expectSteady(t, samples)
		s.expectSeen("ended by client", "ended by upstream", "ended by gateway", "ended by stalled")
	}
}

// heapSlack is by how much the heap of an idle gateway may differ before and
// after a load. What differs is high-water marks that the second load, being the
// longer one, pushes up a little: tens of goroutines at half a kilobyte, and
// slices of tables. That comes to some 50 KiB, whatever the load's length. A tunnel
// that is not let go of is 5 to 20 KB, and 50 a second end.
const heapSlack = 256 << 10

// A sample is what the process holds at one moment.
type sample struct {
	goroutines  int // without those that keptByFasthttp tells
	descriptors int
	heap        int // bytes that are alive
	tunnels     int
}

func (s sample) String() string {
	return fmt.Sprintf("%d goroutines, %d descriptors, %s of heap", s.goroutines, s.descriptors, size(s.heap))
}

func size(n int) string { return fmt.Sprintf("%.2f MiB", float64(n)/(1<<20)) }

func measure() sample {
	runtime.GC()
	runtime.GC() // what pools held is let go of by the second one
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return sample{goroutines: goroutines(), descriptors: len(descriptors()), heap: int(m.HeapAlloc)}
}

// descriptors are those that are open, by what they lead to. The one that reads
// the folder is among them.
func descriptors() (list []string) {
	folder, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		panic(err)
	}
	for _, d := range folder {
		to, _ := os.Readlink("/proc/self/fd/" + d.Name())
		list = append(list, to)
	}
	return list
}

// stacks are all goroutines, those with the same stack together.
func stacks() []string {
	var b bytes.Buffer
	pprof.Lookup("goroutine").WriteTo(&b, 1)
	return strings.Split(strings.TrimSpace(b.String()), "\n\n")
}

var stackHead = regexp.MustCompile(`(?m)^(\d+) @ `)

func goroutines() (n int) {
	for _, stack := range stacks() {
		if keptByFasthttp(stack) {
			continue
		}
		if head := stackHead.FindStringSubmatch(stack); head != nil {
			more, _ := strconv.Atoi(head[1])
			n += more
		}
	}
	return n
}

// keptByFasthttp: its clock, workers that are idle, and who ends those; they stay
// for up to ten seconds, also when the server is gone that they worked for.
func keptByFasthttp(stack string) bool {
	idle := strings.Contains(stack, "(*workerPool).workerFunc") && !strings.Contains(stack, "(*Server).serveConn")
	return idle || strings.Contains(stack, "(*workerPool).Start") || strings.Contains(stack, "fasthttp.updateServerDate")
}

// settled measures once nothing winds down any more that tests before left.
func settled() sample {
	last := measure()
	for same := 0; same < 5; time.Sleep(20 * time.Millisecond) {
		now := measure()
		if same++; now.goroutines != last.goroutines || now.descriptors != last.descriptors {
			same = 0
		}
		last = now
	}
	return last
}

// expectBack waits until goroutines and descriptors are as many as before. Fewer
// there may be: what tests before this one left behind has ended meanwhile.
func expectBack(t *testing.T, when string, before sample) sample {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		now := measure()
		switch {
		case now.goroutines <= before.goroutines && now.descriptors <= before.descriptors:
			return now
		case time.Now().After(deadline):
			t.Errorf("%s: there are %v; there were %v\n%.8000s\n%q", when, now, before, strings.Join(stacks(), "\n\n"), descriptors())
			return now
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// during loads the gateway for so long, and samples.
func (s *soak) during(total, every time.Duration) (samples []sample) {
	ctx, stop := context.WithTimeout(context.Background(), total)
	defer stop()
	var group sync.WaitGroup
	s.begin(ctx, &group, total)
	began := time.Now()
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-ticker.C:
			now := measure()
			now.tunnels = s.e.Tunnels()
			samples = append(samples, now)
			took := time.Since(began)
			s.t.Logf("%6.1fs, %5.1fs to go: %v, %d tunnels", took.Seconds(), max(0, total-took).Seconds(), now, now.tunnels)
			s.readLog()
		}
	}
	s.expectLoops()
	group.Wait()
	return samples
}

// expectSteady compares the second quarter of a load with the last one. The load
// is drawn at random, but by a fixed number of workers: counts move by some
// percent from sample to sample, and the medians of quarters by less than one.
// So a twentieth, and a little for short runs with few samples, is beyond chance;
// for the heap, which also has what is in flight in it, twice that.
func expectSteady(t *testing.T, samples []sample) {
	t.Helper()
	quarter := len(samples) / 4
	if quarter < 3 {
		t.Errorf("%d samples are too few to tell growth by", len(samples))
		return
	}
	second, last := samples[quarter:2*quarter], samples[len(samples)-quarter:]
	for _, c := range []struct {
		what  string
		of    func(sample) int
		slack func(int) int
	}{
		{"goroutines", func(s sample) int { return s.goroutines }, func(n int) int { return n/20 + 10 }},
		{"descriptors", func(s sample) int { return s.descriptors }, func(n int) int { return n/20 + 10 }},
		{"bytes of heap", func(s sample) int { return s.heap }, func(n int) int { return n/10 + 1<<20 }},
		{"tunnels", func(s sample) int { return s.tunnels }, func(n int) int { return n/20 + 10 }},
	} {
		was, is := median(second, c.of), median(last, c.of)
		t.Logf("%s under load: %d in the second quarter, %d in the last", c.what, was, is)
		if is > was+c.slack(was) {
			t.Errorf("%s grew under load: %d in the second quarter, %d in the last", c.what, was, is)
		}
	}
}

func median(samples []sample, of func(sample) int) int {
	var list []int
	for _, s := range samples {
		list = append(list, of(s))
	}
	slices.Sort(list)
	return list[len(list)/2]
}
