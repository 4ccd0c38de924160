package main

import (
	"errors"
	"fmt"
	"time"
)

// The tunnels that are watched during a storm, and their messages a second.
const (
	liveTunnels = 50
	liveRate    = 500
)

// storm has many clients connect at once, while some tunnels go on as before. A
// gateway begins anew for each storm.
func storm(b *bench) error {
	return b.rounds("storm", b.options.repeats, b.rigs, b.stormOf)
}

func (b *bench) stormOf(r *rig) error {
	if err := r.restart(b.ctx); err != nil {
		return err
	}
	defer r.stopGateway()
	if _, err := r.ofLive(Order{Op: "open", Target: r.target(wss, true), N: liveTunnels, Parallel: 8, Size: 200}); err != nil {
		return err
	}
	quiet, err := r.ofLive(Order{Op: "paced", Size: 128, Rate: liveRate, For: b.options.slice})
	if err != nil {
		return err
	}
	var a Answer
	var u usage
	during, err := r.watch(func() error {
		if err := b.pause(200 * time.Millisecond); err != nil {
			return err
		}
		u, err = r.measure(func() (err error) {
			a, err = r.open("idle", hellos[0], b.options.storm, b.options.storm)
			return err
		})
		return err
	})
	if err != nil {
		return err
	}
	variant := thousands(b.options.storm) + " clients at once"
	b.results.add("storm", variant, "until all are back", "s", r, a.Took.Seconds())
	b.results.add("storm", variant, "a connect, median", "s", r, a.Latency.quantile(0.5).Seconds())
	b.results.add("storm", variant, "gateway's CPU per connect", "µs", r, micros(u.gateway)/float64(a.Count))
	b.latencies("storm", fmt.Sprintf("%d live tunnels before", liveTunnels), r, quiet.Latency)
	b.latencies("storm", fmt.Sprintf("%d live tunnels meanwhile", liveTunnels), r, during.Latency)
	_, closing := r.ofLive(Order{Op: "close"})
	return errors.Join(r.shut("idle"), closing)
}

// ofLive has the generator of the live tunnels carry an order out.
func (r *rig) ofLive(o Order) (Answer, error) {
	o.Pool = "live"
	return r.check(r.live.call(o))
}

// watch has messages go over the live tunnels while something is done.
func (r *rig) watch(do func() error) (Answer, error) {
	var a Answer
	var watching error
	done := make(chan struct{})
	go func() {
		defer close(done)
		a, watching = r.ofLive(Order{Op: "paced", Size: 128, Rate: liveRate, For: 3 * connectWithin})
	}()
	err := do()
	_, stopping := r.ofLive(Order{Op: "stop"})
	<-done
	return a, errors.Join(err, stopping, watching)
}

func stormTakes(o options, gateways int) time.Duration {
	return time.Duration(o.repeats*gateways) * (time.Duration(o.storm)*2*time.Millisecond + 5*time.Second)
}

// churnRounds is how often the tunnels come and go.
const churnRounds = 10

// churn opens and closes the same number of tunnels over and over: memory that
// grows with them is lost.
func churn(b *bench) error {
	return b.rounds("churn", max(b.options.repeats/2, 1), b.rigs, b.churnOf)
}

func (b *bench) churnOf(r *rig) error {
	if err := r.restart(b.ctx); err != nil {
		return err
	}
	defer r.stopGateway()
	if err := b.pause(b.options.settle); err != nil {
		return err
	}
	before, err := r.resident()
	if err != nil {
		return err
	}
	var after [churnRounds]float64
	for i := range after {
		if _, err := r.open("idle", hellos[0], b.options.churn, 16); err != nil {
			return err
		}
		if err := r.shut("idle"); err != nil {
			return err
		}
		settle := b.options.settle / 5
		if i == churnRounds-1 { // who gives memory back only now and then has its time
			settle = b.options.settle
		}
		if err := b.pause(settle); err != nil {
			return err
		}
		now, err := r.resident()
		if err != nil {
			return err
		}
		after[i] = float64(now-before) / (1 << 20)
	}
	variant := fmt.Sprintf("%s tunnels, %d times", thousands(b.options.churn), churnRounds)
	b.results.add("churn", variant, "resident after the 1st, above the start", "MB", r, after[0])
	b.results.add("churn", variant, "resident after the 5th", "MB", r, after[4])
	b.results.add("churn", variant, "resident after the last", "MB", r, after[churnRounds-1])
	return nil
}

func churnTakes(o options, gateways int) time.Duration {
	return time.Duration(max(o.repeats/2, 1)*gateways*churnRounds) * (time.Duration(o.churn)*1500*time.Microsecond + o.settle/5)
}
