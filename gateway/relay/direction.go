package relay

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"time"
)

// A direction is a lane on a goroutine: it moves what src's peer sends to dst.
// It flows until it has finished, and then reads on and discards, because
// closing a socket with unread input resets it and takes what was written last
// with it.
//
// Its fields belong to the goroutine of run, except those under mu; finished is
// also written under mu.
type direction struct {
	lane
	t        *goTunnel
	src, dst *leg
	early    []byte
	buf      []byte
	writeBy  time.Duration // the write deadline of dst, as an age of the tunnel
	ours     bool          // a Ping is being written, which does not count as traffic

	woken atomic.Bool // there is something to heed, and src's read deadline is in the past; stored under t.mu
}

// run is the goroutine of a direction.
func (d *direction) run() {
	defer d.t.left()
	defer d.t.rescue()
	d.buf = d.t.engine.buffers.get(smallBuffer)
	if len(d.early) > 0 {
		d.took(d.early)
		d.early = nil
	}
	for {
		held := d.hold(d.buf)
		n, err := d.src.conn.Read(d.buf[held:])
		if n > 0 {
			if d.woken.Load() { // the read had begun before
				d.heed()
			}
			d.took(d.buf[:held+n])
			d.fit(held + n)
		}
		if err != nil && (!errors.Is(err, os.ErrDeadlineExceeded) || !d.heed()) {
			d.end(err)
			break
		}
	}
	d.t.engine.buffers.put(d.buf)
}

// took passes on b, which was read, with what was held before it.
func (d *direction) took(b []byte) {
	if !d.toClient {
		d.t.heard.Store(int64(d.t.age()))
	}
	before := d.track.state
	whole := d.pass(b, d.t.age())
	if len(whole) > 0 {
		d.t.touch()
	}
	if state := d.track.state; state != before {
		d.turned(state)
	}
	d.went(d.write(whole))
	d.decide()
}

// turned notes that a Close is through, or that a frame broke a rule.
func (d *direction) turned(state trackState) {
	d.t.mu.Lock()
	defer d.t.mu.Unlock()
	switch state {
	case closed:
		d.t.closePasses(&d.lane, d.src.end, d.t.age())
		d.t.arm()
	case refused:
		if d.t.refuses(&d.lane, d.src.end, d.t.age()) {
			d.t.wake()
		}
		d.closing = d.t.closing
	}
}

// fit moves to a buffer that suits reads like the last one, after which there
// were n bytes.
func (d *direction) fit(n int) {
	size := len(d.buf)
	switch {
	case size == smallBuffer && n == size:
		size = largeBuffer
	case size == largeBuffer && n <= smallBuffer/2:
		size = smallBuffer
	default:
		return
	}
	d.t.engine.buffers.put(d.buf)
	d.buf = d.t.engine.buffers.get(size)
}

// write writes b to dst, unless dst is broken, and returns how much of it dst took.
func (d *direction) write(b []byte) (written int) {
	for len(b) > 0 && !d.broken {
		part := b[:min(len(b), largeBuffer)]
		d.allow()
		n, err := d.dst.conn.Write(part)
		written += n
		b = b[n:]
		if n > 0 && !d.ours {
			d.t.touch()
		}
		switch {
		case err == nil && n == len(part):
		case err == nil:
			d.breaks(io.ErrShortWrite)
		case n > 0 && errors.Is(err, os.ErrDeadlineExceeded) && d.stillWaiting():
		default:
			d.breaks(err)
		}
	}
	return written
}

// allow sees to it that the next write may take as long as a stall. It renews
// the deadline at most once per half of that time.
func (d *direction) allow() {
	stall := d.t.options.Stall
	age := d.t.age()
	if d.writeBy-age >= stall {
		return
	}
	d.t.mu.Lock()
	defer d.t.mu.Unlock()
	d.writeBy = age + stall + stall/2
	by := d.t.started.Add(d.writeBy)
	if d.t.hurry {
		by = time.Now().Add(d.t.waits.last)
	}
	d.dst.conn.SetWriteDeadline(by)
}

// stillWaiting tells whether there is time for another part of a write, and
// makes allow renew the deadline.
func (d *direction) stillWaiting() bool {
	d.writeBy = 0
	d.t.mu.Lock()
	defer d.t.mu.Unlock()
	return !d.t.hurry
}

// breaks notes that dst takes no more. One that stalled does not say so to the
// other direction's read, so that one is told.
func (d *direction) breaks(err error) {
	d.broken = true
	d.t.mu.Lock()
	defer d.t.mu.Unlock()
	if errors.Is(err, os.ErrDeadlineExceeded) {
		d.t.blame(EndStalled, stalledError(d.dst.end, d.t.options.Stall))
		d.t.close(EndStalled, closing{code: codeBadGateway, reason: reasonLost})
		d.t.stopWaiting()
		return
	}
	d.t.blame(d.dst.end, fmt.Errorf("writing to the %s: %w", d.dst.end, err))
	d.t.cutBy(d.t.age() + d.t.waits.half)
	d.t.arm()
}

// wake makes a read of src return, so that the direction heeds what has
// changed. Under mu.
func (d *direction) wake() {
	d.woken.Store(true)
	d.src.conn.SetReadDeadline(past)
}

// heed takes up what has changed after a read timed out. It reports false when
// nobody had woken the direction.
func (d *direction) heed() bool {
	woken, ping := d.lookUp()
	if !woken {
		return false
	}
	if ping {
		d.pings()
	}
	d.decide()
	return true
}

// pings sends a Ping of ours. Where none may stand, the silence that asks for one
// begins anew.
func (d *direction) pings() {
	if d.finished || !d.insertable() {
		d.t.heard.Store(int64(d.t.age()))
		return
	}
	d.ours = true
	d.write(d.ping(&d.t.up.lane))
	d.ours = false
}

func (d *direction) lookUp() (woken, ping bool) {
	d.t.mu.Lock()
	defer d.t.mu.Unlock()
	if !d.woken.Load() || d.t.cut {
		return false, false
	}
	d.woken.Store(false)
	d.src.conn.SetReadDeadline(time.Time{})
	d.closing = d.t.closing
	if d.t.hurry {
		d.hurry, d.writeBy = true, 0
	}
	if d.toClient {
		ping, d.t.pinging = d.t.pinging, false
	}
	return true, ping
}

// decide finishes the direction when there is no reason to go on.
func (d *direction) decide() {
	if !d.finished && d.done() {
		d.finish()
	}
}

// end notes how src ended and finishes the direction.
func (d *direction) end(err error) {
	d.over = true
	d.noteEnd(err)
	d.decide()
}

func (d *direction) noteEnd(err error) {
	t := d.t
	t.mu.Lock()
	defer t.mu.Unlock()
	d.src.over = true
	if t.cut {
		d.broken = true
		return
	}
	lost := t.ends(&d.lane, d.src.end, err, t.age())
	t.arm()
	if lost && !d.dst.over {
		t.close(EndUpstream, closing{code: codeBadGateway, reason: reasonLost})
	}
	d.closing = t.closing
}

// finish writes the last bytes to dst and closes its write side when it is time
// for that.
func (d *direction) finish() {
	d.t.mu.Lock()
	b, insert := d.last()
	first := insert && d.toClient && d.t.closeSent(d.closing.code, d.closing.reason) // before the client can answer it
	d.t.mu.Unlock()
	n := d.write(b)
	if !insert {
		d.went(n)
	}
	for _, l := range d.finishes(insert, first) {
		if l != nil {
			l.closeWrite() // an error shows in the other direction, or at cutAt
		}
	}
}

func (d *direction) finishes(insert, first bool) [2]*leg {
	d.t.mu.Lock()
	defer d.t.mu.Unlock()
	d.finished, d.inserted = true, insert && !d.broken
	if first && d.broken {
		d.t.code, d.t.reason = 0, ""
	}
	if d.closing = d.t.closing; d.noCloseSent() && d.t.cause == nil {
		d.t.cause = errNotInserted
	}
	return d.t.toShut()
}
