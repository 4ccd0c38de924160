package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"sync/atomic"
	"time"
)

// The attackers: few addresses, apart from those of the other clients, and so many
// of them at a time.
const (
	floodSources  = 4
	floodParallel = 32
)

// attackLimits are what a singlegate gets in the second half, behind the limits with
// which its config ends: a handshake costs
// it most, and a storm of everybody else must pass.
const attackLimits = `  connections_per_ip: 1000
  handshakes_per_ip: {rate: 50/s, burst: 200}
`

// attacks has some tunnels go on while others flood the gateway: with TLS
// handshakes, with connections that are closed at once, and as a storm of clients
// that come back. singlegate is measured without limits by address and with them.
func attacks(b *bench) error {
	return b.rounds("attacks", max(b.options.repeats/2, 1), b.rigs, func(r *rig) error {
		if err := b.attacksOf(r, ""); err != nil || !r.peer.ours {
			return err
		}
		limited, plain := *r.peer, r.peer
		limited.prepare = func(s site) (argv, env []string, err error) {
			if argv, env, err = plain.prepare(s); err == nil {
				err = appendTo(argv[len(argv)-1], attackLimits)
			}
			return argv, env, err
		}
		r.peer = &limited
		defer func() { r.peer = plain }()
		return b.attacksOf(r, limitedVariant)
	})
}

// limitedVariant ends the names of the rows of the second half.
const limitedVariant = ", limits by address"

func appendTo(path, text string) error {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

func (b *bench) attacksOf(r *rig, limits string) error {
	if err := r.restart(b.ctx); err != nil {
		return err
	}
	defer r.stopGateway()
	if _, err := r.ofLive(Order{Op: "open", Target: r.target(wss, true), N: liveTunnels, Parallel: 8, Size: 200}); err != nil {
		return err
	}
	quiet := Order{Op: "paced", Size: 128, Rate: liveRate, For: b.options.slice}
	before, err := r.ofLive(quiet)
	if err != nil {
		return err
	}
	b.latencies("attacks", "live tunnels before"+limits, r, before.Latency)
	for _, flood := range []struct {
		name string
		size int
	}{{"handshake flood", 1}, {"connect flood", 0}} {
		var a Answer
		during, err := r.watch(func() (err error) {
			a, err = r.call(Order{Op: "flood", Target: r.target(wss, false), Parallel: floodParallel, Size: flood.size, For: b.options.slice})
			return err
		})
		if err != nil {
			return fmt.Errorf("%s: %w", flood.name, err)
		}
		b.latencies("attacks", "live tunnels in a "+flood.name+limits, r, during.Latency)
		b.results.add("attacks", flood.name+limits, "got through", "/s", r, float64(a.Count)/a.Took.Seconds())
	}
	during, err := r.watch(func() error {
		_, err := r.open("idle", hellos[0], b.options.storm, b.options.storm)
		return err
	})
	if err != nil {
		return fmt.Errorf("reconnect storm: %w", err)
	}
	b.latencies("attacks", "live tunnels in a reconnect storm"+limits, r, during.Latency)
	if err := r.shut("idle"); err != nil {
		return err
	}
	after, err := r.ofLive(quiet)
	if err != nil {
		return err
	}
	b.latencies("attacks", "live tunnels after"+limits, r, after.Latency)
	_, err = r.ofLive(Order{Op: "close"})
	return err
}

func attacksTakes(o options, gateways int) time.Duration {
	each := 5*o.slice + time.Duration(o.storm)*2*time.Millisecond + 5*time.Second
	return time.Duration(max(o.repeats/2, 1)*(gateways+1)) * each
}

// flood connects over and over for as long as it says, Parallel at a time, from a
// few addresses: with Size 1 for a TLS handshake, else for nothing. What the
// gateway refuses is no error. Count is what got through.
func (l *loader) flood(ctx context.Context, o Order) Answer {
	d := newDialer(o.Target, &l.next)
	var t tally
	var stop atomic.Bool
	start := time.Now()
	for i := range o.Parallel {
		source := &net.TCPAddr{IP: net.IPv4(127, 0, 2, byte(1+i%floodSources))}
		t.Go(func() {
			dial := net.Dialer{LocalAddr: source, Control: bindLate, KeepAlive: -1, Timeout: echoWithin}
			for !stop.Load() {
				conn, err := dial.DialContext(ctx, "tcp4", o.Target.Address)
				if err != nil {
					t.fail(err)
					return
				}
				conn.SetDeadline(time.Now().Add(echoWithin))
				if o.Size == 0 || tls.Client(conn, d.tls).HandshakeContext(ctx) == nil {
					t.count.Add(1)
				}
				conn.(*net.TCPConn).SetLinger(0) // its port is free again at once
				conn.Close()
			}
		})
	}
	time.Sleep(o.For)
	stop.Store(true)
	t.Wait()
	a := t.answer()
	a.Took = time.Since(start)
	return a
}
