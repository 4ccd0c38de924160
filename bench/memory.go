package main

import (
	"fmt"
	"slices"
	"time"
)

// A hello is how a client begins.
type hello struct {
	kind   string
	hybrid bool
	name   string
}

const browserHello = "wss, browser's hello"

var hellos = []hello{
	{wss, true, browserHello},
	{wss, false, "wss, X25519 hello"},
	{ws, false, "ws"},
	{tcp, false, "tcp"},
}

// memory is what an idle tunnel holds: at each number of tunnels, after one
// small message each way on every one, and at the highest number after one of
// 16 KiB. All gateways begin anew for each kind of tunnel.
func memory(b *bench) error {
	for round := range b.options.repeats {
		for _, h := range hellos {
			b.progress.say("memory of %s: round %d of %d", h.name, round+1, b.options.repeats)
			if err := b.memoryOf(h, b.able(h.kind)); err != nil {
				return fmt.Errorf("%s: %w", h.name, err)
			}
		}
	}
	return nil
}

// memoryOf takes the steps with one gateway after the other, but waits and reads
// with all of them at once: waiting is most of it.
func (b *bench) memoryOf(h hello, rigs []*rig) error {
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
	open := 0
	read := func(after string) error {
		return b.settled(rigs, func(r *rig) error {
			now, err := r.resident()
			if err != nil {
				return err
			}
			variant := fmt.Sprintf("%s, %s tunnels, after %s", h.name, thousands(open), after)
			b.results.add("memory", variant, "resident per tunnel", "KB", r, float64(now-before[r])/float64(open)/1024)
			return b.inside(variant, r, open)
		})
	}
	for _, n := range slices.Sorted(slices.Values(b.options.tunnels)) {
		if err := b.each(rigs, func(r *rig) error { _, err := r.open("idle", h, n-open, 16); return err }); err != nil {
			return err
		}
		open = n
		if err := read("200 bytes"); err != nil {
			return err
		}
	}
	err = b.each(rigs, func(r *rig) error {
		_, err := r.call(Order{Op: "each", Pool: "idle", Parallel: 16, Size: 16 << 10})
		return err
	})
	if err != nil {
		return err
	}
	if err := read("16 KiB"); err != nil {
		return err
	}
	return b.each(rigs, func(r *rig) error {
		defer r.stopGateway()
		return r.shut("idle")
	})
}

// settled waits until memory may be read, and reads it.
func (b *bench) settled(rigs []*rig, read func(*rig) error) error {
	if err := b.pause(b.options.settle); err != nil {
		return err
	}
	return b.each(rigs, read)
}

// inside records what a singlegate says of its own memory: where the resident
// memory is.
func (b *bench) inside(variant string, r *rig, tunnels int) error {
	if !r.peer.ours {
		return nil
	}
	m, err := r.metrics(b.ctx)
	if err != nil {
		return err
	}
	for _, part := range []struct {
		name  string
		bytes float64
	}{
		{"heap, spans in use", m["go_memstats_heap_inuse_bytes"]},
		{"heap, objects, garbage included", m["go_memstats_heap_alloc_bytes"]},
		{"heap, free but kept", m["go_memstats_heap_idle_bytes"] - m["go_memstats_heap_released_bytes"]},
		{"stacks", m["go_memstats_stack_inuse_bytes"]},
	} {
		b.results.add("inside", variant, part.name, "KB per tunnel", r, part.bytes/float64(tunnels)/1024)
	}
	b.results.add("inside", variant, "goroutines", "per tunnel", r, m["go_goroutines"]/float64(tunnels))
	return nil
}

func memoryTakes(o options, gateways int) time.Duration {
	opening := time.Duration(slices.Max(o.tunnels)*gateways) * 1500 * time.Microsecond
	return (opening + time.Duration(len(o.tunnels)+2)*o.settle + 3*time.Second) * time.Duration(len(hellos)*o.repeats)
}
