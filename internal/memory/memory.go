// Package memory keeps the memory of the process near what it holds. It knows
// nothing of what the process does and imports nothing else of this module.
//
// An edge gateway holds many small things for hours, and makes garbage only when
// clients come and go. Go's collector, left alone, lets a heap grow to twice what
// is live before it looks, and nothing makes it look when the last storm of
// connects is over. A lower GOGC would make every connect dearer; so the collector
// runs as it does by default while much is going on, and once more when it has
// become quiet, and what that frees goes back to the system.
package memory

import (
	"context"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"

	"github.com/KimMachineGun/automemlimit/memlimit"
	"github.com/rs/zerolog"
)

// Bound makes the collector work harder near the memory limit of the process's
// cgroup, at 90 % of it. The environment's GOMEMLIMIT, or AUTOMEMLIMIT=off, has
// precedence. Outside of a cgroup with a limit nothing happens.
func Bound(log zerolog.Logger) {
	before := debug.SetMemoryLimit(-1)
	limit, err := memlimit.Set()
	switch {
	case err != nil:
		log.Debug().Err(err).Msg("no memory limit found")
	case limit != before:
		log.Info().Int64("bytes", limit).Msg("the collector keeps to the cgroup's memory limit")
	}
}

const (
	look    = time.Second
	quiet   = 2 << 20         // bytes allocated between two looks: less is quiet
	worth   = 4 << 20         // bytes to be given back: less is not worth a collection
	between = 5 * time.Second // two collections, at least
)

// Trim collects garbage and returns memory to the system when it has become quiet
// and there is enough of both, until ctx ends. A collection costs some 0.5 ms of
// CPU per megabyte held and stops nothing; there is at most one in five seconds. With
// GOGC in the environment, whose owner wants it otherwise, Trim does nothing.
func Trim(ctx context.Context) {
	if os.Getenv("GOGC") != "" {
		return
	}
	ticker := time.NewTicker(look)
	defer ticker.Stop()
	var t trimmer
	t.measure()
	for last := (time.Time{}); ; {
		select {
		case <-ctx.Done():
			return
		case now := <-ticker.C:
			if t.measure(); now.Sub(last) >= between && t.due() {
				last = now
				debug.FreeOSMemory()
				t.measure()
				t.collected = t.allocated
			}
		}
	}
}

// A trimmer knows the heap as it was the last two times it was measured.
type trimmer struct {
	samples   [4]metrics.Sample
	allocated uint64 // since the process began
	collected uint64 // allocated, as of the last time that Trim collected
	fresh     uint64 // allocated between the last two times
	live      uint64 // what the last collection left
	spare     uint64 // what another one could give back, about
}

func (t *trimmer) measure() {
	for i, name := range [...]string{
		"/gc/heap/allocs:bytes", "/gc/heap/live:bytes", "/memory/classes/heap/objects:bytes", "/memory/classes/heap/free:bytes",
	} {
		t.samples[i].Name = name
	}
	metrics.Read(t.samples[:])
	allocated := t.samples[0].Value.Uint64()
	t.fresh, t.allocated = allocated-t.allocated, allocated
	t.live = t.samples[1].Value.Uint64()
	held, free := t.samples[2].Value.Uint64(), t.samples[3].Value.Uint64()
	t.spare = held - min(held, t.live) + free
}

// due tells whether it is quiet and the garbage is worth a collection. How much
// there is, is known only of what was allocated after the last collection: what
// that one found alive may have died since. So much work done since Trim's own last
// one is a reason as well.
func (t *trimmer) due() bool {
	garbage := t.spare > max(worth, t.live/8)
	worked := t.allocated-t.collected > max(worth, t.live/4)
	return t.fresh < quiet && (garbage || worked)
}
