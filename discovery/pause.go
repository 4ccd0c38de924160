package discovery

import (
	"context"
	"math/rand/v2"
	"time"
)

// A backoff gives the pauses between attempts that fail: twice as long each
// time, from least to most, of which a random part of up to a half is left out
// so that many watchers do not come back as one.
type backoff struct {
	least, most time.Duration
	failures    int
}

func (b *backoff) next() time.Duration {
	d := b.least
	for range b.failures {
		if d *= 2; d >= b.most {
			d = b.most
			break
		}
	}
	b.failures++
	return d - rand.N(d/2+1)
}

func (b *backoff) reset() { b.failures = 0 }

// jittered is d less a random part of up to a tenth.
func jittered(d time.Duration) time.Duration { return d - rand.N(d/10+1) }

// pause waits for d or until ctx ends or, looked at twice a second, early is true.
func pause(ctx context.Context, d time.Duration, early func() bool) {
	over := time.NewTimer(d)
	defer over.Stop()
	look := time.NewTicker(500 * time.Millisecond)
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-over.C:
			return
		case <-look.C:
			if early != nil && early() {
				return
			}
		}
	}
}

// A pace bounds how often something runs: a burst at once, then one every step.
type pace struct {
	step  time.Duration
	burst int
	next  time.Time // when the allowance would be used up no more
}

// wait gives how long to wait before running once more at the time now.
func (p *pace) wait(now time.Time) time.Duration {
	if p.next.Before(now) {
		p.next = now
	}
	p.next = p.next.Add(p.step)
	return max(0, p.next.Sub(now)-time.Duration(p.burst)*p.step)
}
