package upstream

import (
	"sync/atomic"
	"time"
)

// health is what requests have found out about a node, beside what its source
// says: a node that refused connections or did not answer handshakes is left
// out by balanced routes for a while, longer each time. Its methods are safe for
// concurrent use.
type health struct {
	failures atomic.Int32 // in a row
	until    atomic.Int64 // unix nanoseconds; 0: not ejected
}

const (
	firstEjection   = time.Second
	longestEjection = time.Minute
)

// failed ejects the node. Failures while it is ejected anyway count once: they
// are of requests that were under way, or of pinned ones.
func (h *health) failed(now time.Time) {
	until := h.until.Load()
	if now.UnixNano() < until {
		return
	}
	n := h.failures.Load()
	d := longestEjection
	if n < 6 {
		d = min(firstEjection<<n, longestEjection)
	}
	if h.until.CompareAndSwap(until, now.Add(d).UnixNano()) {
		h.failures.Add(1)
	}
}

func (h *health) worked() {
	if h.failures.Load() != 0 {
		h.failures.Store(0)
		h.until.Store(0)
	}
}

// ejected tells until when the node is left out; the zero time: it is not.
func (h *health) ejected(now time.Time) time.Time {
	until := h.until.Load()
	if until <= now.UnixNano() {
		return time.Time{}
	}
	return time.Unix(0, until)
}
