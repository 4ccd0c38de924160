package relay

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"time"

	"github.com/gobwas/ws"
)

var (
	errNoClose     = errors.New("the connection ended without a Close frame")
	errNotInserted = errors.New("no Close could be sent to the client: a frame under way to it did not end in time, or it took no more, or the upstream sent no WebSocket frames")
)

// A direction moves what src's peer sends to dst. It flows until it has
// finished, and then reads on and discards, because closing a socket with
// unread input resets it and takes what was written last with it.
//
// Its fields belong to the goroutine of run, except those under mu.
type direction struct {
	t        *Tunnel
	src, dst *leg
	early    []byte
	track    tracker // of WebSockets
	buf      []byte
	held     int           // bytes of an incomplete header at the beginning of buf, not yet passed on
	passed   int64         // bytes written to dst
	writeBy  time.Duration // the write deadline of dst, as an age of the tunnel

	closing  *closing // Tunnel.closing and hurry, as heed saw them last
	hurry    bool
	over     bool // src has ended
	broken   bool // dst takes no more
	inserted bool // dst got a Close of ours; settled when finished

	finished bool // nothing more will be written to dst; written under t.mu

	woken atomic.Bool // there is something to heed, and src's read deadline is in the past; stored under t.mu
}

// run is the goroutine of a direction.
func (d *direction) run() {
	defer d.t.left()
	defer d.t.rescue()
	d.buf = d.t.engine.buffers.get(smallBuffer)
	if len(d.early) > 0 {
		d.t.touch()
		d.pass(d.early, len(d.early))
		d.early = nil
	}
	for {
		n, err := d.src.conn.Read(d.buf[d.held:])
		if n > 0 {
			d.t.touch()
			if d.woken.Load() { // the read had begun before
				d.heed()
			}
			d.fit(d.pass(d.buf[:d.held+n], n))
		}
		if err != nil && (!errors.Is(err, os.ErrDeadlineExceeded) || !d.heed()) {
			d.end(err)
			break
		}
	}
	d.t.engine.buffers.put(d.buf)
}

// pass passes on b, whose last fresh bytes are new and whose others were held
// back, and returns how long b was.
func (d *direction) pass(b []byte, fresh int) int {
	switch {
	case d.finished:
		d.held = 0
	case d.t.options.Kind == Bytes:
		d.write(b)
		d.decide()
	default:
		d.passFrames(b, len(b)-fresh)
		d.decide()
	}
	return len(b)
}

// passFrames passes on b, whose first seen bytes the tracker knows, as far as an
// incomplete header or, when closing, the place where the direction may finish.
func (d *direction) passFrames(b []byte, seen int) {
	before := d.track.state
	for seen < len(b) {
		seen += d.track.next(b[seen:])
		if d.closing != nil && d.ready() {
			break
		}
	}
	if d.track.state == closed && before != closed {
		d.closePasses()
	}
	whole := seen - d.track.held()
	d.write(b[:whole])
	d.held = copy(d.buf, b[whole:seen])
}

// fit moves to a buffer that suits reads like the last one, which took n bytes
// with those held back.
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
	buf := d.t.engine.buffers.get(size)
	copy(buf, d.buf[:d.held])
	d.t.engine.buffers.put(d.buf)
	d.buf = buf
}

// write writes b to dst, unless dst is broken.
func (d *direction) write(b []byte) {
	for len(b) > 0 && !d.broken {
		part := b[:min(len(b), largeBuffer)]
		d.allow()
		n, err := d.dst.conn.Write(part)
		d.passed += int64(n)
		b = b[n:]
		if n > 0 {
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
}

// allow sees to it that the next write may take as long as a stall. It renews
// the deadline at most once per half of that time.
func (d *direction) allow() {
	stall := d.t.options.Stall
	age := time.Since(d.t.started)
	if d.writeBy-age >= stall {
		return
	}
	d.t.mu.Lock()
	defer d.t.mu.Unlock()
	d.writeBy = age + stall + stall/2
	by := d.t.started.Add(d.writeBy)
	if d.t.hurry {
		by = time.Now().Add(d.t.engine.waits.last)
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
		d.t.blame(EndStalled, d.t.stalledError(d.dst))
		d.t.close(EndStalled, codeBadGateway, reasonLost)
		d.t.stopWaiting()
		return
	}
	d.t.blame(d.dst.end, fmt.Errorf("writing to the %s: %w", d.dst.end, err))
	d.t.cutBy(time.Now().Add(d.t.engine.waits.half))
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
	if !d.lookUp() {
		return false
	}
	d.decide()
	return true
}

func (d *direction) lookUp() bool {
	d.t.mu.Lock()
	defer d.t.mu.Unlock()
	if !d.woken.Load() || d.t.cut {
		return false
	}
	d.woken.Store(false)
	d.src.conn.SetReadDeadline(time.Time{})
	d.closing = d.t.closing
	if d.t.hurry {
		d.hurry, d.writeBy = true, 0
	}
	return true
}

// decide finishes the direction when there is no reason to go on.
func (d *direction) decide() {
	if !d.finished && (d.broken || d.over || d.hurry || d.closing != nil && d.ready()) {
		d.finish()
	}
}

// ready tells whether a direction that is closing may finish: the one to the
// client where a frame may be inserted, the other one after the client's Close.
func (d *direction) ready() bool {
	switch {
	case d.t.options.Kind == Bytes, d.track.state != tracking:
		return true
	default:
		return d.toClient() && d.track.insertable()
	}
}

func (d *direction) toClient() bool { return d == &d.t.down }

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
	if t.options.Kind == Bytes && errors.Is(err, io.EOF) {
		t.blameHalfClose(d.src.end)
		return
	}
	t.blame(d.src.end, d.cause(err))
	t.cutBy(time.Now().Add(t.engine.waits.half))
	if d.toClient() && !d.finished && !d.dst.over && d.canInsert() {
		t.close(EndUpstream, codeBadGateway, reasonLost)
	}
	d.closing = t.closing
}

// cause is what there is to say about src's end; nil when it was orderly.
func (d *direction) cause(err error) error {
	switch {
	case !errors.Is(err, io.EOF):
		return fmt.Errorf("reading from the %s: %w", d.src.end, err)
	case d.track.state == tracking:
		return fmt.Errorf("%s: %w", d.src.end, errNoClose)
	default:
		return nil
	}
}

// closePasses notes that the Close of src's peer is through.
func (d *direction) closePasses() {
	t := d.t
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closeSent(d.track.closing())
	t.blame(d.src.end, nil)
	if t.closes++; t.closes == 2 {
		t.cutBy(time.Now().Add(t.engine.waits.half))
	}
}

// canInsert tells whether a Close may go to dst where it is now.
func (d *direction) canInsert() bool {
	return d.t.options.Kind == WebSocket && !d.broken && d.track.insertable()
}

// finish writes the last bytes to dst and closes its write side when it is time
// for that.
func (d *direction) finish() {
	switch {
	case d.closing != nil && d.canInsert():
		d.insertClose()
	case d.over:
		d.write(d.buf[:d.held])
	}
	d.held = 0
	for _, l := range d.finishes() {
		if l != nil {
			l.closeWrite() // an error shows in the other direction, or at cutAt
		}
	}
}

func (d *direction) finishes() [2]*leg {
	d.t.mu.Lock()
	defer d.t.mu.Unlock()
	d.finished = true
	wanted := d.toClient() && d.t.options.Kind == WebSocket && d.t.closing != nil && d.track.state != closed
	if wanted && !d.inserted && d.t.report.Cause == nil {
		d.t.report.Cause = errNotInserted
	}
	return d.t.toShut()
}

// insertClose sends our Close to dst: to the client the one that is wanted, to
// an upstream that got none from the client a "going away". Held bytes are
// dropped, and the Close is not counted as traffic.
func (d *direction) insertClose() {
	passed := d.passed
	if d.toClient() {
		first := d.noteClose(d.closing) // before the client can answer it
		d.write(closeFrame(d.closing.code, d.closing.reason))
		if d.inserted = !d.broken; first && d.broken {
			d.noteClose(&closing{})
		}
	} else {
		d.write(maskedCloseFrame(uint16(ws.StatusGoingAway), d.closing.reason))
	}
	d.passed = passed
}

// noteClose notes our Close, or with code 0 that there was none after all, and
// reports whether it is the tunnel's first.
func (d *direction) noteClose(c *closing) bool {
	d.t.mu.Lock()
	defer d.t.mu.Unlock()
	if c.code == 0 {
		d.t.report.CloseCode, d.t.report.CloseReason = 0, ""
	}
	return d.t.closeSent(c.code, c.reason)
}

// traffic is what was passed on, once the tunnel has ended.
func (d *direction) traffic() Traffic {
	return Traffic{Bytes: d.passed, Messages: d.track.messages()}
}
