package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"
)

// profileFor is how long perf looks at one kind of load.
const profileFor = 8 * time.Second

// profile has perf look at each singlegate under a few kinds of load, and leaves
// perf's data and its reports in a folder. The gateway needs nothing for it: Go
// keeps frame pointers, and an unstripped binary its symbols.
func (b *bench) profile(folder string) error {
	if _, err := exec.LookPath("perf"); err != nil {
		return errors.New("perf is not installed; it is in Debian's package linux-perf")
	}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	for _, r := range b.rigs {
		if !r.peer.ours {
			continue
		}
		if err := r.restart(b.ctx); err != nil {
			return err
		}
		_, active := r.open("active", hellos[0], b.options.active, 8)
		_, paced := r.open("paced", hellos[0], 200, 8)
		if err := errors.Join(active, paced); err != nil {
			return err
		}
		for _, load := range []struct {
			name  string
			order Order
		}{
			{"128B", Order{Op: "closed", Pool: "active", Size: 128}},
			{"16KiB", Order{Op: "closed", Pool: "active", Size: 16 << 10}},
			{"paced", Order{Op: "paced", Pool: "paced", Size: 128, Rate: 5000}},
			{"connects", Order{Op: "connects", Target: r.target(wss, false), Parallel: 8, Size: 128}},
		} {
			load.order.For = profileFor
			b.progress.say("profile of %s: %s", r.peer.name, load.name)
			if err := b.perf(r, filepath.Join(folder, r.peer.name+"-"+load.name), load.order); err != nil {
				return err
			}
		}
	}
	return nil
}

// perf records the gateway while an order is carried out.
func (b *bench) perf(r *rig, path string, o Order) error {
	ctx, cancel := context.WithTimeout(b.ctx, profileFor+time.Minute)
	defer cancel()
	seconds := strconv.Itoa(int(profileFor/time.Second) - 1)
	record := exec.CommandContext(ctx, "perf", "record", "-q", "-g", "-F", "999", "-o", path+".perf", "-p", strconv.Itoa(r.gateway.cmd.Process.Pid), "--", "sleep", seconds)
	if err := record.Start(); err != nil {
		return err
	}
	_, err := r.call(o)
	if err := errors.Join(err, record.Wait()); err != nil {
		return fmt.Errorf("perf: %w", err)
	}
	for _, view := range []struct {
		suffix string
		args   []string
	}{
		{"flat", []string{"--no-children", "-g", "none", "--sort", "symbol"}},
		{"callers", []string{"--children", "-g", "caller,0.5,callee,function,percent", "--sort", "symbol", "--percent-limit", "1"}},
	} {
		out, err := exec.CommandContext(ctx, "perf", append([]string{"report", "--stdio", "-q", "-i", path + ".perf"}, view.args...)...).Output()
		if err != nil {
			return fmt.Errorf("perf report: %w", err)
		}
		if err := os.WriteFile(path+"."+view.suffix+".txt", out, 0o644); err != nil {
			return err
		}
	}
	return nil
}
