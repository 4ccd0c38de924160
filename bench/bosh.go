package main

import (
	"errors"
	"fmt"
	"time"
)

// pollHold is how long a node holds the polls of the rows with CPU time. A real
// one holds them for a minute: what a cycle costs does not depend on it.
const pollHold = time.Second

// bosh is long polling over HTTPS, with a browser's hello: what a poll that is
// held keeps in memory, and what one costs from its request to its answer.
// nginx has what its operators write for it: no buffering, connections to the
// node that are used again.
func bosh(b *bench) error {
	rigs := b.polling()
	for round := range b.options.repeats {
		b.progress.say("bosh, memory: round %d of %d", round+1, b.options.repeats)
		if err := b.heldPolls(rigs); err != nil {
			return err
		}
	}
	return b.pollCycles(rigs)
}

// polling are the rigs whose gateway is set up for long polling.
func (b *bench) polling() []*rig {
	var able []*rig
	for _, r := range b.rigs {
		if r.peer.polls {
			able = append(able, r)
		}
	}
	return able
}

// heldPolls has every session make one poll that is answered at once, and then
// one that is held.
func (b *bench) heldPolls(rigs []*rig) error {
	if err := b.restart(rigs); err != nil {
		return err
	}
	before := make(map[*rig]int)
	err := b.settled(rigs, func(r *rig) (err error) {
		before[r], err = r.resident()
		return err
	})
	if err != nil {
		return err
	}
	n := b.options.polls
	err = b.each(rigs, func(r *rig) error {
		if err := r.openSessions(n); err != nil {
			return err
		}
		_, err := r.call(Order{Op: "hold", Pool: "polls", Hold: time.Hour})
		return err
	})
	if err != nil {
		return err
	}
	variant := thousands(n) + " polls held"
	err = b.settled(rigs, func(r *rig) error {
		now, err := r.resident()
		if err != nil {
			return err
		}
		b.results.add("bosh", variant, "resident per poll", "KB", r, float64(now-before[r])/float64(n)/1024)
		return b.inside(variant, r, n)
	})
	if err != nil {
		return err
	}
	return b.each(rigs, func(r *rig) error {
		defer r.stopGateway()
		_, err := r.call(Order{Op: "drop", Pool: "polls"})
		return err
	})
}

func (r *rig) openSessions(n int) error {
	t := r.target(wss, true)
	t.Paths = nil
	_, err := r.call(Order{Op: "sessions", Pool: "polls", Target: t, N: n, Parallel: 16})
	return err
}

// pollCycles has the sessions of one gateway after the other poll without a
// pause.
func (b *bench) pollCycles(rigs []*rig) error {
	if err := b.restart(rigs); err != nil {
		return err
	}
	n := b.options.polls
	if err := b.each(rigs, func(r *rig) error { return r.openSessions(n) }); err != nil {
		return err
	}
	variant := fmt.Sprintf("%s sessions, polls of %s", thousands(n), pollHold)
	err := b.rounds("bosh", b.options.rounds, rigs, func(r *rig) error {
		cycles, u, err := b.steadyPolls(r)
		if err != nil {
			return err
		}
		per := func(d time.Duration) float64 { return micros(d) / float64(cycles) }
		b.results.add("bosh", variant, "CPU per cycle", "µs", r, per(u.gateway))
		b.results.add("bosh", variant, "cycles", "/s", r, float64(cycles)/pollTurn(b.options).Seconds())
		b.results.add("bosh", variant, "generator's CPU per cycle", "µs", r, per(u.load))
		b.results.add("bosh", variant, "nodes' CPU per cycle", "µs", r, per(u.node))
		return nil
	})
	if err != nil {
		return err
	}
	return b.each(rigs, func(r *rig) error {
		defer r.stopGateway()
		_, err := r.call(Order{Op: "drop", Pool: "polls"})
		return err
	})
}

// steadyPolls measures while all sessions poll: not while they begin, and not
// while they end.
func (b *bench) steadyPolls(r *rig) (cycles int, u usage, err error) {
	begin, window := pollHold+pollHold/4, pollTurn(b.options)
	ended := make(chan error, 1)
	go func() {
		_, err := r.call(Order{Op: "polls", Pool: "polls", Hold: pollHold, For: begin + window})
		ended <- err
	}()
	if err := b.pause(begin); err != nil {
		return 0, u, err
	}
	first, err := r.call(Order{Op: "polled"})
	if err != nil {
		return 0, u, err
	}
	u, err = r.measure(func() error { return b.pause(window) })
	last, errLast := r.call(Order{Op: "polled"})
	return last.Count - first.Count, u, errors.Join(err, errLast, <-ended)
}

// pollTurn is how long the polls of a gateway are measured in its turn.
func pollTurn(o options) time.Duration { return 2 * o.slice }

func boshTakes(o options, gateways int) time.Duration {
	gateways = min(gateways, 2)
	opening := time.Duration(o.polls*gateways) * 1500 * time.Microsecond
	return time.Duration(o.repeats)*(opening+2*o.settle) + opening + time.Duration(o.rounds*gateways)*(pollTurn(o)+5*pollHold/2)
}
