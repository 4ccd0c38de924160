package main

import (
	"math"
	"slices"
)

// An interval is a value with its 95 % confidence interval.
type interval struct{ Value, Low, High float64 }

// ratioOf is the geometric mean of a[i]/b[i] over the rounds i that both have,
// with the interval of Student's t on the logarithms. With one round the
// interval is everything.
func ratioOf(a, b []float64) interval {
	n := min(len(a), len(b))
	logs := make([]float64, 0, n)
	for i := range n {
		if a[i] > 0 && b[i] > 0 {
			logs = append(logs, math.Log(a[i]/b[i]))
		}
	}
	mean, half := meanOf(logs)
	return interval{math.Exp(mean), math.Exp(mean - half), math.Exp(mean + half)}
}

// meanOf is the mean and half the width of its interval.
func meanOf(x []float64) (mean, half float64) {
	n := float64(len(x))
	if n == 0 {
		return math.NaN(), math.Inf(1)
	}
	for _, v := range x {
		mean += v / n
	}
	if n < 2 {
		return mean, math.Inf(1)
	}
	var sum float64
	for _, v := range x {
		sum += (v - mean) * (v - mean)
	}
	return mean, studentT(len(x)-1) * math.Sqrt(sum/(n-1)/n)
}

// studentT is the 97.5 % quantile of Student's distribution: a table for few
// degrees of freedom, and then the expansion of Cornish and Fisher, which is
// right to three digits there.
func studentT(df int) float64 {
	table := []float64{12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262}
	if df <= len(table) {
		return table[df-1]
	}
	const z = 1.959964
	const z3, z5, z7 = z * z * z, z * z * z * z * z, z * z * z * z * z * z * z
	n := float64(df)
	return z + (z3+z)/(4*n) + (5*z5+16*z3+3*z)/(96*n*n) + (3*z7+19*z5+17*z3-15*z)/(384*n*n*n)
}

// median is the middle of x; NaN for none.
func median(x []float64) float64 {
	if len(x) == 0 {
		return math.NaN()
	}
	s := slices.Sorted(slices.Values(x))
	if n := len(s); n%2 == 0 {
		return (s[n/2-1] + s[n/2]) / 2
	}
	return s[len(s)/2]
}

// slopeOf is the slope of the least squares line through the points.
func slopeOf(x, y []float64) float64 {
	mx, _ := meanOf(x)
	my, _ := meanOf(y)
	var xy, xx float64
	for i := range x {
		xy += (x[i] - mx) * (y[i] - my)
		xx += (x[i] - mx) * (x[i] - mx)
	}
	return xy / xx
}
