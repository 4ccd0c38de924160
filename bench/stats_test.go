package main

import (
	"math"
	"testing"
	"time"
)

func TestHistogram(t *testing.T) {
	for d := time.Duration(1); d < time.Hour; d += d/7 + 1 {
		i := bucketOf(d)
		end := bucketEnd(i)
		if end < d || float64(end-d) > float64(d)/64+1 {
			t.Fatalf("%d ns is in a bucket that ends at %d ns", d, end)
		}
		if bucketOf(end) != i || bucketOf(end+1) != i+1 {
			t.Fatalf("bucket %d does not end at %d ns", i, end)
		}
	}
	var h histogram
	for i := range 1000 {
		h.add(time.Duration(i+1) * time.Microsecond)
	}
	b := h.buckets()
	for _, q := range []float64{0.5, 0.99, 0.999} {
		want := time.Duration(q * float64(time.Millisecond))
		if got := b.quantile(q); got < want || float64(got) > 1.02*float64(want) {
			t.Errorf("quantile %v is %v, want %v", q, got, want)
		}
	}
	if (Buckets{}).quantile(0.5) != 0 {
		t.Error("nothing has a median")
	}
}

func TestRatio(t *testing.T) {
	r := ratioOf([]float64{1, 2, 4}, []float64{2, 4, 8})
	if math.Abs(r.Value-0.5) > 1e-9 || math.Abs(r.High-r.Low) > 1e-9 {
		t.Errorf("%+v, want 0.5 exactly", r)
	}
	// Logarithms -1, 0, 1: their deviation is 1, and t of 2 degrees is 4.303.
	r = ratioOf([]float64{1 / math.E, 1, math.E}, []float64{1, 1, 1})
	if want := math.Exp(4.303 / math.Sqrt(3)); math.Abs(r.Value-1) > 1e-9 || math.Abs(r.High-want) > 1e-3 {
		t.Errorf("%+v, want up to %v", r, want)
	}
	if r := ratioOf([]float64{3}, []float64{2}); !math.IsInf(r.High, 1) {
		t.Errorf("one round cannot have the interval %+v", r)
	}
}

func TestStudentT(t *testing.T) {
	for df, want := range map[int]float64{1: 12.706, 9: 2.262, 10: 2.228, 19: 2.093, 30: 2.042, 1000: 1.962} {
		if got := studentT(df); math.Abs(got-want) > 0.002 {
			t.Errorf("t of %d degrees is %v, want %v", df, got, want)
		}
	}
}

func TestSlopeAndMedian(t *testing.T) {
	if got := slopeOf([]float64{0, 1, 2}, []float64{5, 7, 9}); got != 2 {
		t.Errorf("the slope is %v, want 2", got)
	}
	if got := median([]float64{4, 1, 3, 2}); got != 2.5 {
		t.Errorf("the median is %v, want 2.5", got)
	}
}
