package relay

import (
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
)

const defaultStall = 60 * time.Second

// The reasons that the gateway gives on its own account.
const (
	reasonIdle     = "idle for too long"
	reasonLifetime = "tunnel lifetime over"
	reasonLost     = "upstream connection lost"
)

var errKilled = errors.New("killed by the gateway")

// past is a deadline that is over, whatever the clock says.
var past = time.Unix(1, 0)

// A Tunnel is a live two-way connection. Its methods are safe for concurrent
// use, at any time, also after it has ended.
//
// Its two directions run on their own and meet only in the fields behind mu. One
// that waits in a read is woken by a read deadline in the past and then looks
// at those fields; nobody but a direction itself writes to its destination.
// Every wait of a tunnel that is ending is bounded by cutAt.
type Tunnel struct {
	engine   *Engine
	options  Options
	started  time.Time
	client   leg
	upstream leg
	up, down direction    // client → upstream, upstream → client
	moved    atomic.Int64 // when the last byte moved, in nanoseconds after started

	mu      sync.Mutex
	timer   *time.Timer // calls check when the earliest of all waits is over
	report  Report      // EndedBy, Cause and the Close; the rest is filled in at the end
	half    bool        // EndedBy is a half-close of a Bytes tunnel: a later cause replaces it
	closing *closing    // a Close of ours is wanted; nil: none
	hurry   bool        // the wait for closing to go its way is over
	cutAt   time.Time   // when both connections are closed, come what may; zero: not ending
	cut     bool        // they were
	closes  int         // Close frames that peers sent
	running int         // directions
}

// closing is a Close of the gateway on its way to the client.
type closing struct {
	code   uint16
	reason string
	giveUp time.Time // until then a frame may end and the client may answer
}

func newTunnel(e *Engine, client, upstream Leg, o Options) *Tunnel {
	if o.Stall <= 0 {
		o.Stall = defaultStall
	}
	t := &Tunnel{
		engine:   e,
		options:  o,
		started:  time.Now(),
		client:   newLeg(EndClient, client.Conn),
		upstream: newLeg(EndUpstream, upstream.Conn),
		running:  2,
	}
	t.up = direction{t: t, src: &t.client, dst: &t.upstream, early: client.Early}
	t.down = direction{t: t, src: &t.upstream, dst: &t.client, early: upstream.Early}
	return t
}

func (t *Tunnel) start() {
	t.mu.Lock()
	t.suspect(t.client.clearDeadlines())
	t.suspect(t.upstream.clearDeadlines())
	t.arm(t.started)
	t.mu.Unlock()
	go t.up.run()
	go t.down.run()
}

// Close ends the tunnel in order and returns at once.
//
// WebSocket: a Close with the code and the reason goes to the client as soon as
// no frame is under way to it, and nothing follows it. The client's own Close
// still reaches the upstream; when none comes, the upstream gets a Close 1001.
// Then both write sides are closed, and the connections when both peers have
// closed theirs too. Every step is bounded: after about 8 s both connections
// are closed, whatever the peers do, and the report's cause then tells whether
// the Close could be sent. A tunnel on which a peer's Close is already through
// gets no second one in that direction.
//
// Bytes: both write sides are closed after what was read so far.
//
// A code that must not be sent (RFC 6455 §7.4) becomes 1001; a reason is cut to
// 123 bytes of valid UTF-8. Only the first call counts, and none after the
// tunnel has ended or an idle or lifetime limit was hit.
func (t *Tunnel) Close(code uint16, reason string) {
	defer t.rescue()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.close(EndGateway, code, reason)
}

// Kill closes both connections at once, without a Close frame and without
// regard for what is in flight.
func (t *Tunnel) Kill() {
	defer t.rescue()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.blame(EndGateway, errKilled)
	t.cutNow()
}

// close begins the closing order. Under mu.
func (t *Tunnel) close(by End, code uint16, reason string) {
	if t.closing != nil || t.cut {
		return
	}
	t.blame(by, nil)
	now := time.Now()
	t.closing = &closing{sendable(code), clip(reason), now.Add(t.engine.waits.answer)}
	t.cutBy(t.closing.giveUp.Add(t.engine.waits.linger))
	t.up.wake()
	t.down.wake()
}

// stopWaiting makes both directions finish with what they have. A write that is
// under way gets a last moment. Under mu.
func (t *Tunnel) stopWaiting() {
	if t.hurry {
		return
	}
	t.hurry = true
	last := time.Now().Add(t.engine.waits.last)
	t.client.conn.SetWriteDeadline(last)
	t.upstream.conn.SetWriteDeadline(last)
	t.up.wake()
	t.down.wake()
}

// blame notes who ended the tunnel and why; the first one counts. Under mu.
func (t *Tunnel) blame(by End, cause error) {
	if t.report.EndedBy == "" || t.half {
		t.report.EndedBy, t.report.Cause, t.half = by, cause, false
	}
}

// blameHalfClose is blame for an EOF of a Bytes tunnel. Under mu.
func (t *Tunnel) blameHalfClose(by End) {
	if t.report.EndedBy == "" {
		t.report.EndedBy, t.half = by, true
	}
}

// closeSent notes a Close frame and reports whether it is the first one, which
// counts. Under mu.
func (t *Tunnel) closeSent(code uint16, reason string) bool {
	if t.report.CloseCode != 0 {
		return false
	}
	t.report.CloseCode, t.report.CloseReason = code, reason
	return true
}

// suspect notes err when it is a panic, and ends the tunnel then. Under mu.
func (t *Tunnel) suspect(err error) {
	var p *PanicError
	if !errors.As(err, &p) {
		return
	}
	if t.report.EndedBy != EndPanic {
		t.report.EndedBy, t.report.Cause, t.half = EndPanic, p, false
	}
	t.cutNow()
}

// rescue, deferred, turns a panic into the end of this tunnel. Not under mu.
func (t *Tunnel) rescue() {
	if v := recover(); v != nil {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.suspect(&PanicError{Value: v, Stack: debug.Stack()})
	}
}

// cutNow closes both connections. Under mu.
func (t *Tunnel) cutNow() {
	if t.cut {
		return
	}
	t.cut = true
	t.suspect(t.client.cut())
	t.suspect(t.upstream.cut())
}

// cutBy makes sure that both connections are closed by then. Under mu.
func (t *Tunnel) cutBy(then time.Time) {
	if t.cutAt.IsZero() || then.Before(t.cutAt) {
		t.cutAt = then
	}
	t.arm(time.Now())
}

// arm sets the timer to the earliest wait there is. Under mu.
func (t *Tunnel) arm(now time.Time) {
	next := t.cutAt
	sooner := func(then time.Time) {
		if next.IsZero() || then.Before(next) {
			next = then
		}
	}
	if t.closing == nil {
		if t.options.Idle > 0 {
			sooner(t.idleAt())
		}
		if t.options.Lifetime > 0 {
			sooner(t.started.Add(t.options.Lifetime))
		}
	} else if !t.hurry {
		sooner(t.closing.giveUp)
	}
	switch {
	case next.IsZero() || t.cut || t.running == 0:
	case t.timer == nil:
		t.timer = time.AfterFunc(next.Sub(now), t.check)
	default:
		t.timer.Reset(next.Sub(now))
	}
}

func (t *Tunnel) idleAt() time.Time {
	return t.started.Add(time.Duration(t.moved.Load()) + t.options.Idle)
}

// check does what is due. The timer calls it.
func (t *Tunnel) check() {
	defer t.rescue()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.running == 0 || t.cut {
		return
	}
	now := time.Now()
	due := func(then time.Time) bool { return !then.After(now) }
	switch {
	case !t.cutAt.IsZero() && due(t.cutAt):
		t.cutNow()
	case t.closing != nil:
		if due(t.closing.giveUp) {
			t.stopWaiting()
		}
	case t.options.Idle > 0 && due(t.idleAt()):
		t.close(EndIdle, 1001, reasonIdle)
	case t.options.Lifetime > 0 && due(t.started.Add(t.options.Lifetime)):
		t.close(EndLifetime, 1001, reasonLifetime)
	}
	t.arm(now)
}

// touch notes that bytes moved, and returns how old the tunnel is.
func (t *Tunnel) touch() time.Duration {
	age := time.Since(t.started)
	t.moved.Store(int64(age))
	return age
}

// toShut picks the legs whose write side is to be closed now that a direction
// has finished; the caller closes them. After a Close of ours the client's side
// stays open until the client has answered (RFC 6455 §7.1.1). Under mu.
func (t *Tunnel) toShut() (legs [2]*leg) {
	if t.down.finished && !t.client.shut && (!t.down.inserted || t.up.finished) {
		t.client.shut = true
		legs[0] = &t.client
	}
	if t.up.finished && !t.upstream.shut {
		t.upstream.shut = true
		legs[1] = &t.upstream
	}
	if t.up.finished && t.down.finished {
		t.cutBy(time.Now().Add(t.engine.waits.linger))
	}
	return legs
}

// left is called by each direction as its last act; the second one ends the
// tunnel.
func (t *Tunnel) left() {
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
func (t *Tunnel) end() {
	defer t.engine.leave()
	t.mu.Lock()
	t.cutNow()
	t.suspect(t.client.close())
	t.suspect(t.upstream.close())
	t.report.FromClient = t.up.traffic()
	t.report.FromUpstream = t.down.traffic()
	t.report.Duration = time.Since(t.started)
	report := t.report
	t.mu.Unlock()
	if t.options.Ended != nil {
		t.options.Ended(report)
	}
}

// stalledError is the cause of a tunnel that a peer's not reading ended.
func (t *Tunnel) stalledError(l *leg) error {
	return fmt.Errorf("the %s took no byte of a pending write for %v", l.end, t.options.Stall)
}
