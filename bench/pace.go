package main

import (
	"runtime"
	"syscall"
	"time"
	"unsafe"
)

// paced sends Rate messages a second over the pool's tunnels, each at its own
// moment, whether or not the echo of the one before is there. Latency counts
// from that moment: a gateway that stalls delays all messages due meanwhile,
// and all of them show it (no coordinated omission). It ends after For, or when
// the order stop comes, at the end of a round over the pool.
func (l *loader) paced(o Order) Answer {
	pool := l.pool(o.Pool)
	stop := make(chan struct{})
	l.mu.Lock()
	l.stops[o.Pool] = stop
	l.mu.Unlock()
	p := &pacer{pool: pool, start: time.Now().Add(20 * time.Millisecond), gap: time.Second / time.Duration(o.Rate)}
	for i, c := range pool {
		c.SetDeadline(p.start.Add(o.For + echoWithin))
		m := newMessage(o.Size, c.kind != tcp)
		p.tally.Go(func() { p.receive(i, c, m) })
	}
	p.tally.Go(func() { p.send(o, stop) })
	p.tally.Wait()
	l.mu.Lock()
	delete(l.stops, o.Pool)
	l.mu.Unlock()
	a := p.tally.answer()
	a.Took = time.Since(p.start)
	a.Latency, a.Late = p.latency.buckets(), p.late.buckets()
	return a
}

// A pacer is one paced order: message k goes over tunnel k modulo their number,
// and is due at start plus k gaps.
type pacer struct {
	pool          []*client
	start         time.Time
	gap           time.Duration
	latency, late histogram
	tally         tally
}

// due is the moment of a tunnel's message number k.
func (p *pacer) due(tunnel, k int) time.Time {
	return p.start.Add(time.Duration(k*len(p.pool)+tunnel) * p.gap)
}

// send writes from one thread that sleeps until each message is due. The
// runtime's timers are a millisecond late at times; the system's are not.
func (p *pacer) send(o Order, stop <-chan struct{}) {
	runtime.LockOSThread() // for good: the thread ends with the goroutine
	const setTimerSlack = 29
	syscall.RawSyscall(syscall.SYS_PRCTL, setTimerSlack, 1, 0)
	// Ahead of the gateways, where that is allowed: on this clock all depends.
	syscall.Setpriority(syscall.PRIO_PROCESS, 0, -19)

	m := newMessage(o.Size, p.pool[0].kind != tcp)
	end := p.start.Add(o.For)
	for k, last := 0, false; !last; k++ {
		select {
		case <-stop:
			last = true
		default:
			last = !p.due(0, k+1).Before(end)
		}
		for i, c := range p.pool {
			due := p.due(i, k)
			sleepUntil(due)
			p.late.add(time.Since(due))
			id := c.id
			if last {
				id |= lastMessage
			}
			m.number(id)
			if _, err := c.Write(m.out); err != nil {
				// Its reader ends at the deadline, or when the tunnel does.
				p.tally.fail(err)
				c.Close()
			}
		}
	}
}

// sleepUntil sleeps in the system. The runtime is not told: it would give the
// thread's processor away, and on a busy machine the thread would wait for one.
func sleepUntil(due time.Time) {
	if wait := time.Until(due); wait > 0 {
		t := syscall.NsecToTimespec(int64(wait))
		syscall.RawSyscall(syscall.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&t)), 0, 0)
	}
}

// receive reads a tunnel's echoes until the one of its last message.
func (p *pacer) receive(tunnel int, c *client, m *message) {
	m.number(c.id)
	last := newMessage(len(m.wantID), c.kind != tcp)
	last.number(c.id | lastMessage)
	last.in = m.in
	for k := 0; ; k++ {
		err := c.receive(m)
		if err != nil && last.check() != nil {
			p.tally.fail(err)
			return
		}
		p.latency.add(time.Since(p.due(tunnel, k)))
		p.tally.count.Add(1)
		if err != nil {
			return
		}
	}
}
