package main

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// A histogram counts durations in buckets that are at most 1/64 wide. Add is
// safe for concurrent use and allocates nothing.
type histogram struct {
	counts [40 * 64]atomic.Uint32
}

// bucketOf is the bucket of a duration; the last one takes what is longer than
// any wait of the bench.
func bucketOf(d time.Duration) int {
	n := uint64(max(d, 0))
	if n < 64 {
		return int(n)
	}
	shift := bits.Len64(n) - 7
	return min((shift+1)*64+int(n>>shift)-64, 40*64-1)
}

// bucketEnd is the longest duration of a bucket.
func bucketEnd(i int) time.Duration {
	if i < 64 {
		return time.Duration(i)
	}
	shift := i/64 - 1
	return time.Duration((uint64(i%64)+65)<<shift - 1)
}

func (h *histogram) add(d time.Duration) { h.counts[bucketOf(d)].Add(1) }

// Buckets are a histogram's counts by bucket, as they are sent and kept.
type Buckets map[int]uint64

func (h *histogram) buckets() Buckets {
	b := make(Buckets)
	for i := range h.counts {
		if n := h.counts[i].Load(); n > 0 {
			b[i] = uint64(n)
		}
	}
	return b
}

// merge adds another histogram's counts.
func (b Buckets) merge(o Buckets) {
	for i, n := range o {
		b[i] += n
	}
}

// quantile is the duration that a share q of all does not exceed; 0 for none.
func (b Buckets) quantile(q float64) time.Duration {
	var total uint64
	for _, n := range b {
		total += n
	}
	if total == 0 {
		return 0
	}
	rank := uint64(q*float64(total-1)) + 1
	for i := range 40 * 64 {
		n := b[i]
		if n >= rank {
			return bucketEnd(i)
		}
		rank -= n
	}
	return 0
}
