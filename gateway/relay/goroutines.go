package relay

import (
	"errors"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
)

// past is a deadline that is over, whatever the clock says.
var past = time.Unix(1, 0)

// goTunnel is a tunnel on two goroutines.
//
// Its two directions run on their own and meet only in the fields behind mu. One
// that waits in a read is woken by a read deadline in the past and then looks
// at those fields; nobody but a direction itself writes to its destination.
// Every wait of a tunnel that is ending is bounded by ending.cutAt.
type goTunnel struct {
	engine   *Engine
	options  Options
	started  time.Time
	client   leg
	upstream leg
	up, down direction    // client → upstream, upstream → client
	moved    atomic.Int64 // when the last byte went on, in nanoseconds after started
	heard    atomic.Int64 // when the client's last byte came

	mu sync.Mutex
	ending
	timer   *time.Timer // calls check when the earliest of all waits is over
	pinging bool        // a Ping of ours is wanted
	running int         // directions
}

func newGoTunnel(e *Engine, client, upstream Leg, o Options) *goTunnel {
	t := &goTunnel{
		engine:   e,
		options:  o,
		started:  time.Now(),
		client:   newLeg(EndClient, client.Conn),
		upstream: newLeg(EndUpstream, upstream.Conn),
		running:  2,
		ending:   ending{waits: &e.waits},
	}
	t.up = direction{t: t, src: &t.client, dst: &t.upstream, early: client.Early}
	t.down = direction{t: t, src: &t.upstream, dst: &t.client, early: upstream.Early}
	t.up.init(&o, false)
	t.down.init(&o, true)
	return t
}

func (t *goTunnel) start() {
	t.mu.Lock()
	t.suspect(t.client.clearDeadlines())
	t.suspect(t.upstream.clearDeadlines())
	t.arm()
	t.mu.Unlock()
	go t.up.run()
	go t.down.run()
}

// Close implements Tunnel.
func (t *goTunnel) Close(code uint16, reason string) {
	defer t.rescue()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.close(EndGateway, closing{code: code, reason: reason})
}

// Kill implements Tunnel.
func (t *goTunnel) Kill() {
	defer t.rescue()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.blame(EndGateway, errKilled)
	t.cutNow()
}

// close begins the closing order. Under mu.
func (t *goTunnel) close(by End, c closing) {
	if t.ending.close(by, c, t.age()) {
		t.wake()
	}
}

// wake makes both directions look at what has changed. Under mu.
func (t *goTunnel) wake() {
	t.arm()
	t.up.wake()
	t.down.wake()
}

// stopWaiting makes both directions finish with what they have. A write that is
// under way gets a last moment. Under mu.
func (t *goTunnel) stopWaiting() {
	if t.hurry {
		return
	}
	t.hurry = true
	last := time.Now().Add(t.waits.last)
	t.client.conn.SetWriteDeadline(last)
	t.upstream.conn.SetWriteDeadline(last)
	t.wake()
}

// suspect notes err when it is a panic, and ends the tunnel then. Under mu.
func (t *goTunnel) suspect(err error) {
	if p, ok := errors.AsType[*PanicError](err); ok {
		t.blamePanic(p)
		t.cutNow()
	}
}

// rescue, deferred, turns a panic into the end of this tunnel. Not under mu.
func (t *goTunnel) rescue() {
	if v := recover(); v != nil {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.suspect(&PanicError{Value: v, Stack: debug.Stack()})
	}
}

// cutNow closes both connections. Under mu.
func (t *goTunnel) cutNow() {
	if t.cut {
		return
	}
	t.cut = true
	t.suspect(t.client.cut())
	t.suspect(t.upstream.cut())
}

func (t *goTunnel) age() time.Duration { return time.Since(t.started) }

func (t *goTunnel) signs() signs {
	return signs{now: t.age(), moved: time.Duration(t.moved.Load()), heard: time.Duration(t.heard.Load())}
}

// arm sets the timer to the earliest wait there is. Under mu.
func (t *goTunnel) arm() {
	now := t.signs()
	act, next := t.due(&t.options, now)
	if act != nothing {
		next = now.now
	}
	wait := max(next-now.now, 0)
	switch {
	case next == 0 || t.cut || t.running == 0:
	case t.timer == nil:
		t.timer = time.AfterFunc(wait, t.check)
	default:
		t.timer.Reset(wait)
	}
}

// check does what is due. The timer calls it.
func (t *goTunnel) check() {
	defer t.rescue()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.running == 0 || t.cut {
		return
	}
	switch act, _ := t.due(&t.options, t.signs()); act {
	case nothing:
	case cutBoth:
		t.cutNow()
	case stopWaiting:
		t.stopWaiting()
	case sendPing:
		t.pinged, t.pinging = t.age(), true
		t.down.wake()
	default:
		by, c := act.limit()
		t.close(by, c)
		if act == endSilent {
			t.cause = ErrSilent
			t.stopWaiting()
		}
	}
	t.arm()
}

// touch notes that bytes went on, and returns how old the tunnel is.
func (t *goTunnel) touch() time.Duration {
	age := t.age()
	t.moved.Store(int64(age))
	return age
}

// toShut picks the legs whose write side is to be closed now that a direction
// has finished; the caller closes them. After a Close of ours the client's side
// stays open until the client has answered (RFC 6455 §7.1.1). Under mu.
func (t *goTunnel) toShut() (legs [2]*leg) {
	if t.down.finished && !t.client.shut && (!t.down.inserted || t.up.finished) {
		t.client.shut = true
		legs[0] = &t.client
	}
	if t.up.finished && !t.upstream.shut {
		t.upstream.shut = true
		legs[1] = &t.upstream
	}
	if t.up.finished && t.down.finished {
		t.cutBy(t.age() + t.waits.linger)
		t.arm()
	}
	return legs
}

// left is called by each direction as its last act; the second one ends the
// tunnel.
func (t *goTunnel) left() {
	t.mu.Lock()
	t.running--
	running := t.running
	if running == 0 && t.timer != nil {
		t.timer.Stop()
	}
	t.mu.Unlock()
	if running == 0 {
		t.end()
	}
}

// end closes what is open and reports.
func (t *goTunnel) end() {
	defer t.engine.leave()
	t.mu.Lock()
	t.cutNow()
	t.suspect(t.client.close())
	t.suspect(t.upstream.close())
	report := t.report(&t.up.lane, &t.down.lane, t.age())
	t.mu.Unlock()
	if t.options.Ended != nil {
		t.options.Ended(report)
	}
}
