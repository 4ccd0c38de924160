package main

import (
	"fmt"
	"time"
)

// perMessage records what one message, there and back, took.
func (b *bench) perMessage(scenario, variant string, r *rig, u usage, a Answer) {
	per := func(d time.Duration) float64 { return float64(d) / float64(a.Count) / 1000 }
	b.results.add(scenario, variant, "CPU per echo", "µs", r, per(u.gateway))
	b.results.add(scenario, variant, "echoes", "/s", r, float64(a.Count)/a.Took.Seconds())
	b.results.add(scenario, variant, "generator's CPU per echo", "µs", r, per(u.load))
	b.results.add(scenario, variant, "nodes' CPU per echo", "µs", r, per(u.node))
}

// messages is the CPU time of an echo, in a closed loop over some tunnels.
func messages(b *bench) error {
	if err := b.restart(b.rigs); err != nil {
		return err
	}
	for _, h := range []hello{hellos[0], hellos[2], hellos[3]} {
		kind := h.kind
		rigs := b.able(kind)
		err := b.each(rigs, func(r *rig) error {
			_, err := r.open("active", h, b.options.active, 8)
			return err
		})
		if err != nil {
			return err
		}
		for i, size := range b.options.sizes {
			if kind != wss && i > 0 && size != 16<<10 {
				continue // the other kinds: the smallest, and 16 KiB
			}
			if err := b.closed("messages", fmt.Sprintf("%s, %s", kind, bytesText(size)), rigs, size, b.options.rounds); err != nil {
				return err
			}
		}
		if err := b.each(rigs, func(r *rig) error { return r.shut("active") }); err != nil {
			return err
		}
	}
	return nil
}

// closed runs rounds of a closed loop over the pool "active", after a short one
// that nobody counts.
func (b *bench) closed(scenario, variant string, rigs []*rig, size, rounds int) error {
	loop := Order{Op: "closed", Pool: "active", Size: size, For: b.options.slice / 3}
	if err := b.each(rigs, func(r *rig) error { _, err := r.call(loop); return err }); err != nil {
		return err
	}
	loop.For = b.options.slice
	return b.rounds(scenario+", "+variant, rounds, rigs, func(r *rig) error {
		var a Answer
		u, err := r.measure(func() (err error) { a, err = r.call(loop); return err })
		if err == nil {
			b.perMessage(scenario, variant, r, u, a)
		}
		return err
	})
}

func messagesTakes(o options, gateways int) time.Duration {
	rows := len(o.sizes) + 4
	return time.Duration(rows*(o.rounds+1)*gateways) * (o.slice + 50*time.Millisecond)
}

// paced is CPU time and latency of messages that come at a fixed rate.
func paced(b *bench) error {
	if err := b.restart(b.rigs); err != nil {
		return err
	}
	for _, p := range b.options.rates {
		variant := fmt.Sprintf("wss, 128 B, %s/s over %s tunnels", thousands(p.rate), thousands(p.tunnels))
		order := Order{Op: "paced", Pool: "paced", Size: 128, Rate: p.rate, For: b.options.slice}
		err := b.each(b.rigs, func(r *rig) error {
			_, err := r.open("paced", hellos[0], p.tunnels, 8)
			if err == nil {
				_, err = r.call(order)
			}
			return err
		})
		if err != nil {
			return err
		}
		err = b.rounds("paced, "+variant, b.options.rounds, b.rigs, func(r *rig) error {
			var a Answer
			u, err := r.measure(func() (err error) { a, err = r.call(order); return err })
			if err != nil {
				return err
			}
			b.perMessage("paced", variant, r, u, a)
			b.latencies("paced", variant, r, a.Latency)
			b.results.add("paced", variant, "generator late, p99", "µs", r, micros(a.Late.quantile(0.99)))
			return nil
		})
		if err != nil {
			return err
		}
		if err := b.each(b.rigs, func(r *rig) error { return r.shut("paced") }); err != nil {
			return err
		}
	}
	return nil
}

// latencies records a round's percentiles, and adds it to those of all rounds.
func (b *bench) latencies(scenario, variant string, r *rig, l Buckets) {
	for _, q := range []struct {
		name string
		q    float64
	}{{"p50", 0.5}, {"p99", 0.99}, {"p99.9", 0.999}} {
		b.results.add(scenario, variant, "latency, "+q.name, "µs", r, micros(l.quantile(q.q)))
	}
	b.results.merge(scenario, variant, r, l)
}

func micros(d time.Duration) float64 { return float64(d) / 1000 }

func pacedTakes(o options, gateways int) time.Duration {
	return time.Duration(len(o.rates)*(o.rounds+1)*gateways) * (o.slice + 80*time.Millisecond)
}

// connects is the CPU time of a TLS handshake without resumption, an upgrade,
// one echo and the close.
func connects(b *bench) error {
	if err := b.restart(b.rigs); err != nil {
		return err
	}
	for _, h := range hellos {
		rigs := b.able(h.kind)
		order := func(r *rig) Order {
			return Order{Op: "connects", Target: r.target(h.kind, h.hybrid), Parallel: 8, Size: 128, For: b.options.slice}
		}
		if err := b.each(rigs, func(r *rig) error { _, err := r.call(order(r)); return err }); err != nil {
			return err
		}
		err := b.rounds("connects, "+h.name, b.options.rounds, rigs, func(r *rig) error {
			var a Answer
			u, err := r.measure(func() (err error) { a, err = r.call(order(r)); return err })
			if err != nil {
				return err
			}
			b.results.add("connects", h.name, "CPU per connect", "µs", r, float64(u.gateway)/float64(a.Count)/1000)
			b.results.add("connects", h.name, "connects", "/s", r, float64(a.Count)/a.Took.Seconds())
			b.results.add("connects", h.name, "generator's CPU per connect", "µs", r, float64(u.load)/float64(a.Count)/1000)
			return r.sameCipher(h, a)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func connectsTakes(o options, gateways int) time.Duration {
	return time.Duration(len(hellos)*(o.rounds+1)*gateways) * (o.slice + 50*time.Millisecond)
}

// slope is what messages cost beside more and more idle tunnels.
func slope(b *bench) error {
	if err := b.restart(b.rigs); err != nil {
		return err
	}
	rounds := max(b.options.rounds/2, 2)
	err := b.each(b.rigs, func(r *rig) error {
		_, err := r.open("active", hellos[0], b.options.active, 8)
		return err
	})
	if err != nil {
		return err
	}
	const metric = "CPU per echo"
	variant := func(idle int) string { return fmt.Sprintf("wss, 128 B, beside %s idle tunnels", thousands(idle)) }
	open := 0
	for _, idle := range b.options.idle {
		b.progress.say("slope: opening %d idle tunnels on each", idle)
		err := b.each(b.rigs, func(r *rig) error {
			_, err := r.open("idle", hellos[0], idle-open, 16)
			return err
		})
		if err != nil {
			return err
		}
		open = idle
		if err := b.closed("slope", variant(idle), b.rigs, 128, rounds); err != nil {
			return err
		}
	}
	for _, r := range b.rigs {
		for round := range rounds {
			var x, y []float64
			for _, idle := range b.options.idle {
				x = append(x, float64(idle)/1000)
				y = append(y, b.results.values("slope", variant(idle), metric, r)[round]*1000)
			}
			b.results.add("slope", "per 1,000 idle tunnels more", "CPU per echo, more", "ns", r, slopeOf(x, y))
		}
	}
	return b.each(b.rigs, func(r *rig) error {
		defer r.stopGateway()
		return r.shut("idle", "active")
	})
}

func slopeTakes(o options, gateways int) time.Duration {
	open := time.Duration(o.idle[len(o.idle)-1]*gateways) * 1500 * time.Microsecond
	return open + time.Duration(len(o.idle)*(max(o.rounds/2, 2)+1)*gateways)*(o.slice+50*time.Millisecond)
}
