package main

import (
	"fmt"
	"io"
	"time"
)

// progress tells how far a run is.
type progress struct {
	out   io.Writer
	start time.Time
	total time.Duration // of all scenarios, as estimated
	done  time.Duration // of those that are over, as estimated

	begun   time.Time // the scenario at hand
	stretch float64   // what those that are over took, by their estimate
}

func newProgress(out io.Writer) *progress {
	now := time.Now()
	return &progress{out: out, start: now, begun: now, stretch: 1}
}

// passed notes that a scenario is over which was to take d.
func (p *progress) passed(d time.Duration) {
	p.done += d
	p.begun = time.Now()
	if p.done > 0 {
		p.stretch = float64(time.Since(p.start)) / float64(p.done)
	}
}

// say writes a line with the time that has passed and the time still to go.
func (p *progress) say(format string, args ...any) {
	left := "?"
	if p.total > 0 {
		d := time.Duration(float64(p.total-p.done)*p.stretch) - time.Since(p.begun)
		left = "about " + max(d, time.Second).Round(time.Second).String()
	}
	fmt.Fprintf(p.out, "[%s, %s left] %s\n", time.Since(p.start).Round(time.Second), left, fmt.Sprintf(format, args...))
}
