package relay

import (
	"fmt"
	"golang.org/x/sys/unix"
	"runtime/debug"
	"time"
)

// loopTunnel is a tunnel in a loop, whose goroutine alone touches it; Close and
// Kill go by the loop's mailbox.
type loopTunnel struct {
	engine   *Engine
	loop     *loop
	options  Options
	born     time.Duration // of the loop's clock
	client   socket
	upstream socket
	up, down flow // client → upstream, upstream → client

	ending
	moved time.Duration // when the last byte went on, as an age
	heard time.Duration // when the client's last byte came
	dueAt time.Duration // of the loop's clock: nothing is due before

	index   int           // in loop.live
	queued  bool          // in loop.ready
	noted   bool          // the tunnel's first Close is ours
	hurried time.Duration // when hurry began
}

// A flow is a lane in a loop.
type flow struct {
	lane
	src, dst *socket
	more     bool // src may have something, in its socket or above it
}

// startInLoop starts a tunnel in a loop, or returns nil when that cannot be: the
// connections are as they were then.
func (e *Engine) startInLoop(client, upstream Leg, o Options) Tunnel {
	if e.noLoops {
		return nil
	}
	fromClient, err := take(client.Conn)
	if err != nil {
		return nil
	}
	fromUpstream, err := take(upstream.Conn)
	if err != nil {
		fromClient.giveBack()
		return nil
	}
	l := e.loops.pick(e)
	if l == nil {
		fromClient.giveBack()
		fromUpstream.giveBack()
		return nil
	}
	t := &loopTunnel{engine: e, loop: l, options: o, ending: ending{waits: &e.waits}}
	t.up.init(&t.options, false)
	t.down.init(&t.options, true)
	t.up.src, t.up.dst = &t.client, &t.upstream
	t.down.src, t.down.dst = &t.upstream, &t.client
	t.client.init(t, fromClient)
	t.upstream.init(t, fromUpstream)
	l.post(func() { t.begin(client.Early, upstream.Early) })
	return t
}

func (s *socket) init(t *loopTunnel, k taking) {
	s.tunnel = t
	s.readable, s.slot = true, -1
	k.over(s)
}

// begin is a tunnel's first act in its loop.
func (t *loopTunnel) begin(fromClient, fromUpstream []byte) {
	defer t.rescue()
	t.born = t.loop.now
	t.loop.enlist(t)
	for _, s := range []*socket{&t.client, &t.upstream} {
		if err := t.loop.add(s); err != nil {
			t.blame(EndGateway, err)
			t.end()
			return
		}
	}
	t.up.early(fromClient)
	t.down.early(fromUpstream)
	t.up.more, t.down.more = true, true // TLS may hold decrypted bytes already
	t.turn()
	t.check()
}

// Close implements Tunnel.
func (t *loopTunnel) Close(code uint16, reason string) {
	t.loop.post(func() {
		if !t.cut {
			defer t.rescue()
			t.close(EndGateway, closing{code: code, reason: reason})
			t.settle()
		}
	})
}

// Kill implements Tunnel.
func (t *loopTunnel) Kill() {
	t.loop.post(func() {
		if !t.cut {
			t.blame(EndGateway, errKilled)
			t.end()
		}
	})
}

func (t *loopTunnel) age() time.Duration { return t.loop.now - t.born }

// rescue, deferred, turns a panic into the end of this tunnel.
func (t *loopTunnel) rescue() {
	if v := recover(); v != nil {
		t.blamePanic(&PanicError{Value: v, Stack: debug.Stack()})
		t.end()
	}
}

// event is what epoll has to say about a socket.
func (t *loopTunnel) event(s *socket, what uint32) {
	const gone = unix.EPOLLRDHUP | unix.EPOLLHUP | unix.EPOLLERR
	from := &t.up
	if s == &t.upstream {
		from = &t.down
	}
	if what&(unix.EPOLLIN|gone) != 0 {
		s.readable, from.more = true, true
		s.hungUp = s.hungUp || what&gone != 0
	}
	t.loop.goOn(t)
}

// turn moves what can be moved now, and sees what follows from it.
func (t *loopTunnel) turn() {
	if t.cut {
		return
	}
	defer t.rescue()
	for _, s := range [...]*socket{&t.client, &t.upstream} {
		if s.pressed() && s.flush() {
			t.moved = t.age()
		}
	}
	t.up.pump(t)
	t.down.pump(t)
	t.settle()
	if !t.cut && (t.up.canPump() || t.down.canPump()) {
		t.loop.goOn(t)
	}
}

// pressed tells whether something waits to be written.
func (s *socket) pressed() bool { return len(s.queue) > 0 || s.goodbye && !s.shut }

// canPump tells whether reading makes sense now. A peer that takes nothing is not
// sent more, and one whose own answers (of TLS) pile up is not read.
func (f *flow) canPump() bool {
	return f.more && !f.over && len(f.src.queue) < highWater &&
		(len(f.dst.queue) == 0 || f.finished || f.dst.failed != nil)
}

// pump reads once around and passes it on.
func (f *flow) pump(t *loopTunnel) {
	if !f.canPump() {
		return
	}
	in := t.loop.in
	held := f.hold(in)
	n, err := f.fill(in[held : held+turnBytes])
	if n > 0 {
		t.took(f, in[:held+n])
	}
	if err != nil {
		t.ends(f, err)
	}
}

// fill reads until there is no more, or b is full, or the peer has had its turn
// with many small records, or the answers of TLS to it pile up.
func (f *flow) fill(b []byte) (n int, err error) {
	for reads := 0; n < len(b) && reads < turnReads && len(f.src.queue) < highWater; reads++ {
		m, err := f.src.read(b[n:])
		n += m
		switch {
		case err == errWouldBlock:
			f.more = false
			return n, nil
		case err != nil:
			f.more = false
			return n, err
		case f.src.tls == nil && !f.src.readable:
			f.more = false
			return n, nil
		}
	}
	return n, nil
}

// early passes on what was read before the tunnel began.
func (f *flow) early(b []byte) {
	if len(b) > 0 {
		f.src.tunnel.took(f, b)
	}
}

// took passes on b, which was read from f's peer, with what was held before it.
func (t *loopTunnel) took(f *flow, b []byte) {
	if f == &t.up {
		t.heard = t.age()
	}
	before := f.track.state
	whole := f.pass(b, t.age())
	if len(whole) > 0 {
		t.moved = t.age()
		f.dst.write(whole)
		f.went(len(whole))
	}
	switch state := f.track.state; {
	case state == before:
	case state == closed:
		t.closePasses(&f.lane, f.src.end(), t.age())
	case state == refused:
		t.refuses(&f.lane, f.src.end(), t.age())
	}
}

// ends notes that f's peer has ended.
func (t *loopTunnel) ends(f *flow, err error) {
	f.over = true
	if t.ending.ends(&f.lane, f.src.end(), err, t.age()) && !t.up.over {
		t.close(EndUpstream, closing{code: codeBadGateway, reason: reasonLost})
	}
}

func (t *loopTunnel) close(by End, c closing) { t.ending.close(by, c, t.age()) }

// settle sees what follows from what has happened: a direction finishes, a write
// side is closed, the tunnel ends.
func (t *loopTunnel) settle() {
	for _, f := range [...]*flow{&t.up, &t.down} {
		t.notice(f)
		f.closing, f.hurry = t.closing, t.hurry
		if !f.finished && f.done() {
			t.finish(f)
		}
	}
	t.shut()
	if t.up.over && t.down.over && t.client.done() && t.upstream.done() {
		t.end()
	}
	if t.cutAt != 0 { // then it is ending, and nothing is far away
		t.dueAt = 0
	}
}

// done tells whether nothing more goes to the peer.
func (s *socket) done() bool { return s.shut || s.failed != nil }

// notice takes up that f's destination has failed.
func (t *loopTunnel) notice(f *flow) {
	if f.dst.failed != nil && !f.broken {
		f.broken = true
		t.blame(f.dst.end(), fmt.Errorf("writing to the %s: %w", f.dst.end(), f.dst.failed))
		t.cutBy(t.age() + t.waits.half)
	}
}

// finish writes f's last bytes.
func (t *loopTunnel) finish(f *flow) {
	b, insert := f.last()
	f.dst.write(b)
	f.finished, f.inserted = true, insert
	switch {
	case insert && f.toClient:
		t.noted = t.closeSent(f.closing.code, f.closing.reason)
	case !insert:
		f.went(len(b))
	}
	if f.noCloseSent() && t.cause == nil {
		t.cause = errNotInserted
	}
}

// shut closes write sides. After a Close of ours the client's stays open until
// the client has answered (RFC 6455 §7.1.1).
func (t *loopTunnel) shut() {
	if t.down.finished && (!t.down.inserted || t.up.finished) {
		t.client.closeWrite()
	}
	if t.up.finished {
		t.upstream.closeWrite()
	}
	if t.up.finished && t.down.finished {
		t.cutBy(t.age() + t.waits.linger) // of the first time
	}
}

// check does what is due, and notes when to look again.
func (t *loopTunnel) check() {
	defer t.rescue()
	act, next := t.due(&t.options, signs{now: t.age(), moved: t.moved, heard: t.heard})
	for _, s := range [...]*socket{&t.client, &t.upstream} {
		if by := t.stallsAt(s); by > 0 && by <= t.age() {
			t.stalls(s)
		} else if by > 0 && (next == 0 || by < next) {
			next = by
		}
	}
	t.dueAt = never
	if next > 0 {
		t.dueAt = t.born + next
	}
	if act != nothing {
		t.dueAt = 0
		t.act(act)
	}
	t.settle()
}

const never = 1<<63 - 1

// act does what is due.
func (t *loopTunnel) act(act action) {
	switch act {
	case cutBoth:
		t.end()
	case stopWaiting:
		t.stopWaiting()
	case sendPing:
		if !t.down.finished && t.down.insertable() {
			t.pinged = t.age()
			t.client.write(t.down.ping(&t.up.lane))
		}
	default:
		by, c := act.limit()
		t.close(by, c)
		if act == endSilent {
			t.cause = ErrSilent
			t.stopWaiting()
		}
	}
}

// stopWaiting makes both directions finish with what they have. What is queued
// gets a last moment.
func (t *loopTunnel) stopWaiting() {
	if !t.hurry {
		t.hurry, t.hurried = true, t.age()
	}
}

// stallsAt is when a peer that takes nothing more will have had its time; 0: it
// is not waited for.
func (t *loopTunnel) stallsAt(s *socket) time.Duration {
	switch {
	case len(s.queue) == 0:
		return 0
	case t.hurry:
		return t.hurried + t.waits.last
	default:
		return s.moving + t.options.Stall
	}
}

// stalls gives up a peer that takes nothing. The upstream's loss is told to the
// client; a client that does not read cannot be told anything.
func (t *loopTunnel) stalls(s *socket) {
	err := stalledError(s.end(), t.options.Stall)
	s.fail(err)
	if s == &t.client {
		t.down.broken = true
	} else {
		t.up.broken = true
	}
	t.blame(EndStalled, err)
	t.close(EndStalled, closing{code: codeBadGateway, reason: reasonLost})
	t.stopWaiting()
}

// end closes both connections and reports.
func (t *loopTunnel) end() {
	if t.cut {
		return
	}
	t.cut = true
	if t.down.inserted && (len(t.client.queue) > 0 || t.client.unsent) {
		if t.noted {
			t.code, t.reason = 0, ""
		}
		if t.cause == nil {
			t.cause = errNotInserted
		}
	}
	t.loop.remove(&t.client)
	t.loop.remove(&t.upstream)
	t.loop.delist(t)
	report := t.report(&t.up.lane, &t.down.lane, t.age())
	go func() { // a slow log must not stop the loop
		defer t.engine.leave()
		if t.options.Ended != nil {
			t.options.Ended(report)
		}
	}()
}
