package relay

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/gobwas/ws"
)

// The reasons that the gateway gives on its own account.
const (
	reasonIdle     = "idle for too long"
	reasonLifetime = "tunnel lifetime over"
	reasonExpired  = "token expired"
	reasonLost     = "upstream connection lost"
	reasonSilent   = "the client does not answer"
)

var (
	errKilled      = errors.New("killed by the gateway")
	errNoClose     = errors.New("the connection ended without a Close frame")
	errNotInserted = errors.New("no Close could be sent to the client: a frame under way to it did not end in time, or it took no more, or the upstream sent no WebSocket frames")
)

// closing is a Close of the gateway on its way.
type closing struct {
	code     uint16 // for the client
	upstream uint16 // for the upstream; 0: the client's own Close is for it, or 1001 when none comes
	reason   string
	giveUp   time.Duration // until then a frame may end and the client may answer
}

// ending is how a tunnel ends, without its sockets: who is to blame, what is
// wanted, and by when. Moments are ages of the tunnel. Both ways of moving bytes
// have it in common; it is guarded by what guards its tunnel.
type ending struct {
	waits   *waits
	by      End
	cause   error
	half    bool // by is a half-close of a Bytes tunnel: a later cause replaces it
	code    uint16
	reason  string        // of the tunnel's first Close
	closes  uint8         // Close frames that peers sent
	closing *closing      // a Close of ours is wanted; nil: none
	hurry   bool          // the wait for closing to go its way is over
	pinged  time.Duration // when the client got the last Ping of ours; 0: none
	cut     bool          // both connections were closed
	cutAt   time.Duration // when both connections are closed, come what may; 0: not ending
}

// close asks for a Close and reports whether it is the first to ask.
func (e *ending) close(by End, c closing, age time.Duration) bool {
	if e.closing != nil || e.cut {
		return false
	}
	e.blame(by, nil)
	c.code, c.reason, c.giveUp = sendable(c.code), clip(c.reason), age+e.waits.answer
	e.closing = &c
	e.cutBy(c.giveUp + e.waits.linger)
	return true
}

// blame notes who ended the tunnel and why; the first one counts.
func (e *ending) blame(by End, cause error) {
	if e.by == "" || e.half {
		e.by, e.cause, e.half = by, cause, false
	}
}

// blameHalfClose is blame for an EOF of a Bytes tunnel.
func (e *ending) blameHalfClose(by End) {
	if e.by == "" {
		e.by, e.half = by, true
	}
}

// blamePanic overrides whatever was noted.
func (e *ending) blamePanic(p *PanicError) {
	if e.by != EndPanic {
		e.by, e.cause, e.half = EndPanic, p, false
	}
}

// closeSent notes a Close frame and reports whether it is the first one, which
// counts.
func (e *ending) closeSent(code uint16, reason string) bool {
	if e.code != 0 {
		return false
	}
	e.code, e.reason = code, reason
	return true
}

// closePasses notes that the Close of a peer is through.
func (e *ending) closePasses(l *lane, from End, age time.Duration) {
	e.closeSent(l.track.closing())
	e.blame(from, nil)
	if e.closes++; e.closes == 2 {
		e.cutBy(age + e.waits.half)
	}
}

// refuses notes that a frame broke a rule: its sender is told the verdict, the
// other side that the tunnel ends. It reports whether that is news.
func (e *ending) refuses(l *lane, from End, age time.Duration) bool {
	v := l.track.broken
	c := closing{code: v.code, upstream: uint16(ws.StatusGoingAway), reason: v.reason}
	if l.toClient {
		c.code, c.upstream = c.upstream, c.code
	}
	if !e.close(from, c, age) {
		return false
	}
	e.cause = &RuleError{From: from, Code: v.code, Reason: v.reason}
	return true
}

// ends notes that the peer a lane comes from has ended with err, and reports
// whether the client is to get a Close for that: not one that has said goodbye
// itself.
func (e *ending) ends(l *lane, from End, err error, age time.Duration) (lost bool) {
	if l.kind == Bytes && errors.Is(err, io.EOF) {
		e.blameHalfClose(from)
		return false
	}
	e.blame(from, causeOfEnd(l, from, err))
	e.cutBy(age + e.waits.half)
	return l.toClient && e.closes == 0 && !l.finished && l.insertable()
}

// causeOfEnd is what there is to say about a peer's end; nil when it was orderly.
func causeOfEnd(l *lane, from End, err error) error {
	switch {
	case !errors.Is(err, io.EOF):
		return fmt.Errorf("reading from the %s: %w", from, err)
	case l.track.state == tracking:
		return fmt.Errorf("%s: %w", from, errNoClose)
	default:
		return nil
	}
}

// cutBy makes sure that both connections are closed at that age.
func (e *ending) cutBy(age time.Duration) {
	if e.cutAt == 0 || age < e.cutAt {
		e.cutAt = age
	}
}

// report is what there is to tell, with what both lanes have passed.
func (e *ending) report(up, down *lane, age time.Duration) Report {
	return Report{
		EndedBy: e.by, Cause: e.cause, CloseCode: e.code, CloseReason: e.reason,
		FromClient: up.traffic(), FromUpstream: down.traffic(), Duration: age,
	}
}

// stalledError is the cause of a tunnel that a peer's not reading ended.
func stalledError(peer End, stall time.Duration) error {
	return fmt.Errorf("the %s took no byte of a pending write for %v", peer, stall)
}

// signs are a tunnel's signs of life, as ages.
type signs struct {
	now   time.Duration
	moved time.Duration // when the last byte went on, in either direction
	heard time.Duration // when the client's last byte came
}

// action is what a tunnel has to do because its time has come.
type action uint8

const (
	nothing action = iota
	cutBoth
	stopWaiting
	endIdle
	endLifetime
	endExpired
	endSilent
	sendPing
)

// due is what is to be done now, or else until when there is nothing to do; 0: for
// ever.
func (e *ending) due(o *Options, s signs) (act action, next time.Duration) {
	when := func(age time.Duration, a action) {
		switch {
		case act != nothing:
		case age <= s.now:
			act = a
		case next == 0 || age < next:
			next = age
		}
	}
	if e.cutAt != 0 {
		when(e.cutAt, cutBoth)
	}
	switch {
	case e.closing != nil:
		if !e.hurry {
			when(e.closing.giveUp, stopWaiting)
		}
		return act, next
	case o.Idle > 0:
		when(s.moved+o.Idle, endIdle)
	}
	if o.Expiry > 0 {
		when(o.Expiry, endExpired)
	}
	if o.Lifetime > 0 {
		when(o.Lifetime, endLifetime)
	}
	switch {
	case o.Rules == nil || o.Rules.Ping <= 0 || o.Kind != WebSocket:
	case e.closes > 0: // who has sent a Close need not answer, and nothing follows one
	case e.pinged > s.heard:
		when(e.pinged+o.Rules.PingTimeout, endSilent)
		when(s.now+o.Rules.Ping, nothing) // to see whether it was heard meanwhile
	default:
		when(max(s.moved, s.heard)+o.Rules.Ping, sendPing)
	}
	return act, next
}

// limit is what ends a tunnel for an action, and the Close that says so.
func (a action) limit() (by End, c closing) {
	switch a {
	case endIdle:
		return EndIdle, closing{code: uint16(ws.StatusGoingAway), reason: reasonIdle}
	case endLifetime:
		return EndLifetime, closing{code: uint16(ws.StatusGoingAway), reason: reasonLifetime}
	case endExpired:
		return EndExpired, closing{code: uint16(ws.StatusPolicyViolation), reason: reasonExpired}
	default:
		return EndClient, closing{code: uint16(ws.StatusGoingAway), reason: reasonSilent}
	}
}
