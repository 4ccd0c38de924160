package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// syscalls is how many system calls and context switches an echo takes, by
// perf's count: most of an echo's CPU time is in them. It is a scenario of its
// own, since counting slows what is counted.
func syscalls(b *bench) error {
	if err := perfCounts(b.ctx); err != nil {
		b.progress.say("skipped syscalls: %s", err)
		b.results.Skipped = append(b.results.Skipped, "syscalls: "+err.Error())
		return nil
	}
	if err := b.restart(b.rigs); err != nil {
		return err
	}
	pace := b.options.rates[0]
	loads := []struct {
		variant string
		order   Order
	}{
		{"wss, 128 B", Order{Op: "closed", Pool: "active", Size: 128}},
		{"wss, 16 KiB", Order{Op: "closed", Pool: "active", Size: 16 << 10}},
		{fmt.Sprintf("wss, 128 B, %s/s over %s tunnels", thousands(pace.rate), thousands(pace.tunnels)), Order{Op: "paced", Pool: "paced", Size: 128, Rate: pace.rate}},
	}
	for _, r := range b.rigs {
		_, active := r.open("active", hellos[0], b.options.active, 8)
		_, paced := r.open("paced", hellos[0], pace.tunnels, 8)
		if err := errors.Join(active, paced); err != nil {
			return err
		}
	}
	for _, load := range loads {
		load.order.For = b.options.slice
		err := b.rounds("syscalls, "+load.variant, 1, b.rigs, func(r *rig) error {
			var a Answer
			calls, switches, err := r.counted(b.ctx, func() (err error) { a, err = r.call(load.order); return err })
			if err == nil {
				b.results.add("syscalls", load.variant, "system calls per echo", "", r, calls/float64(a.Count))
				b.results.add("syscalls", load.variant, "context switches per echo", "", r, switches/float64(a.Count))
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return b.each(b.rigs, func(r *rig) error { return r.shut("active", "paced") })
}

func syscallsTakes(o options, gateways int) time.Duration {
	return time.Duration(3*gateways) * (o.slice + 300*time.Millisecond)
}

// counters are what perf counts: the first one needs its tracepoints.
const counters = "raw_syscalls:sys_enter,context-switches"

// perfCounts tells why perf cannot count here.
func perfCounts(ctx context.Context) error {
	if _, err := exec.LookPath("perf"); err != nil {
		return errors.New("perf is not installed (Debian's package linux-perf)")
	}
	if err := exec.CommandContext(ctx, "perf", "stat", "-e", counters, "--", "true").Run(); err != nil {
		return errors.New("perf may not count system calls here")
	}
	return nil
}

// counted does something and returns what the gateway did meanwhile.
func (r *rig) counted(ctx context.Context, do func() error) (calls, switches float64, err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	pids, err := tree(r.gateway.cmd.Process.Pid)
	if err != nil {
		return 0, 0, err
	}
	// Counting begins when perf has acknowledged the order to.
	orderRead, order, err := os.Pipe()
	if err != nil {
		return 0, 0, err
	}
	defer order.Close()
	defer orderRead.Close()
	ack, ackWrite, err := os.Pipe()
	if err != nil {
		return 0, 0, err
	}
	defer ack.Close()
	list := strings.Trim(strings.ReplaceAll(fmt.Sprint(pids), " ", ","), "[]")
	var out strings.Builder
	cmd := exec.CommandContext(ctx, "perf", "stat", "-x,", "-e", counters, "-D", "-1", "--control", "fd:3,4", "-p", list)
	cmd.Stderr = &out
	cmd.ExtraFiles = []*os.File{orderRead, ackWrite}
	err = cmd.Start()
	ackWrite.Close()
	if err != nil {
		return 0, 0, err
	}
	io.WriteString(order, "enable\n")
	_, err = bufio.NewReader(ack).ReadString('\n')
	if err == nil {
		err = do()
	}
	cmd.Process.Signal(os.Interrupt)
	cmd.Wait() // it ends by the signal, which is no error
	if err != nil {
		return 0, 0, errors.Join(err, errors.New(out.String()))
	}
	return counts(out.String())
}

// counts reads perf's table: count, unit, name.
func counts(table string) (calls, switches float64, err error) {
	for line := range strings.Lines(table) {
		f := strings.Split(line, ",")
		if len(f) < 3 {
			continue
		}
		n, err := strconv.ParseFloat(f[0], 64)
		if err != nil {
			return 0, 0, fmt.Errorf("perf counted %q", line)
		}
		switch f[2] {
		case "raw_syscalls:sys_enter":
			calls = n
		case "context-switches":
			switches = n
		}
	}
	if calls == 0 {
		return 0, 0, fmt.Errorf("perf counted nothing: %s", table)
	}
	return calls, switches, nil
}
