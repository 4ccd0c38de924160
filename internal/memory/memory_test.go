package memory

import (
	"context"
	"runtime"
	"testing"
	"time"
)

func TestDue(t *testing.T) {
	const mb = 1 << 20
	for name, c := range map[string]struct {
		trimmer
		want bool
	}{
		"quiet, half is garbage":       {trimmer{fresh: 1000, live: 50 * mb, spare: 50 * mb}, true},
		"quiet, free pages are kept":   {trimmer{fresh: 1000, live: 1 * mb, spare: 5 * mb}, true},
		"busy":                         {trimmer{fresh: 20 * mb, live: 50 * mb, spare: 50 * mb}, false},
		"quiet, little garbage":        {trimmer{fresh: 1000, live: 800 * mb, spare: 50 * mb}, false},
		"quiet, small heap, not worth": {trimmer{fresh: 1000, live: 1 * mb, spare: 2 * mb}, false},
		"quiet, all was alive before":  {trimmer{fresh: 1000, live: 50 * mb, allocated: 200 * mb, collected: 100 * mb}, true},
		"quiet, and was before":        {trimmer{fresh: 1000, live: 50 * mb, allocated: 101 * mb, collected: 100 * mb}, false},
	} {
		if got := c.due(); got != c.want {
			t.Errorf("%s: due %v, want %v", name, got, c.want)
		}
	}
}

// TestMeasure: garbage shows as such, and not as live.
func TestMeasure(t *testing.T) {
	var tr trimmer
	runtime.GC()
	tr.measure()
	before := tr
	garbage := make([][]byte, 64)
	for i := range garbage {
		garbage[i] = make([]byte, 1<<20)
	}
	tr.measure()
	if tr.fresh < 64<<20 || tr.due() {
		t.Errorf("after 64 MB: fresh %d, due %v", tr.fresh, tr.due())
	}
	runtime.KeepAlive(garbage)
	garbage = nil
	runtime.GC()
	tr.measure()
	if tr.measure(); !tr.due() {
		t.Errorf("64 MB of free pages, quiet: %+v; before %+v", tr, before)
	}
}

// TestTrimEnds: with its context, and it does nothing where GOGC is set.
func TestTrimEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { Trim(ctx); close(done) }()
	cancel()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatal("Trim goes on after its context")
	}
	t.Setenv("GOGC", "50")
	Trim(t.Context())
}
