package relay

import (
	"crypto/rand"
	"sync/atomic"
	"time"

	"github.com/gobwas/ws"
)

// A lane is one direction of a tunnel without its sockets: what of the bytes
// that one peer sends may go on to the other, where something of the gateway's
// may stand between them, and when nothing more is to go on. Both ways of moving
// bytes have it in common. Not safe for concurrent use.
type lane struct {
	kind     Kind
	toClient bool
	track    tracker // of WebSockets

	held    [maxHeader - 1]byte            // the first heldLen: seen, and not passed on
	heldLen uint8                          // an incomplete header, or the beginning of a Pong that may answer ours
	holding bool                           // it is such a Pong
	nonce   atomic.Pointer[[nonceLen]byte] // of our last Ping, while its answer may come on this lane; stored by the other lane

	closing  *closing // of the tunnel, as this lane has heeded it; nil: it goes on
	hurry    bool     // the wait for closing to go its way is over
	over     bool     // the peer it comes from has ended
	broken   bool     // the peer it goes to takes no more
	inserted bool     // a Close of ours is in it
	finished bool     // nothing more goes on
	passed   int64    // bytes that went on
	meter    *Count   // nil: nobody wants to know before the end
	metered  int64    // messages that meter knows of
}

// nonceLen keeps a held Pong (header, mask and nonce, without its last byte) as
// short as a held header.
const nonceLen = 8

func (l *lane) init(o *Options, toClient bool) {
	l.kind, l.toClient = o.Kind, toClient
	l.track.rules = newInspector(o, !toClient)
	switch {
	case o.Meter == nil:
	case toClient:
		l.meter = &o.Meter.FromUpstream
	default:
		l.meter = &o.Meter.FromClient
	}
}

// hold puts what is held back at the beginning of b, before the place for the
// next read, and returns how much that is.
func (l *lane) hold(b []byte) int { return copy(b, l.held[:l.heldLen]) }

// pass returns what of b goes on. b begins with what hold has put there. An
// answer to our Ping is cut out of b; what follows a Close that is to be inserted,
// or a frame that is refused, is dropped.
func (l *lane) pass(b []byte, age time.Duration) []byte {
	switch {
	case l.finished:
		l.heldLen = 0
		return nil
	case l.kind == Bytes:
		return b
	}
	if l.track.rules != nil {
		l.track.rules.now = age
	}
	return l.frames(b)
}

func (l *lane) frames(b []byte) []byte {
	seen, start := int(l.heldLen), 0 // start: of the frame that begins or is held
	for seen < len(b) && !(l.closing != nil && l.ready()) {
		if l.track.left == 0 {
			start = seen - l.track.held()
		}
		whole := l.track.left == 0 || l.holding // no part of the frame has gone on
		seen += l.track.next(b[seen:])
		if l.track.state == refused {
			break
		}
		if l.holding = whole && l.mayAnswer(); l.holding && l.track.left == 0 {
			b, seen = l.answer(b, start, seen)
		}
	}
	return l.keep(b, seen, start)
}

// keep notes what of b[:seen] is held back, and returns what goes on.
func (l *lane) keep(b []byte, seen, start int) []byte {
	end := seen - l.track.held()
	switch {
	case l.track.state == refused:
		end, seen = start, start
	case l.holding:
		end = start
	}
	l.heldLen = uint8(copy(l.held[:], b[end:seen]))
	return b[:end]
}

// mayAnswer tells whether the current frame, as far as it has come, may be the
// answer to our Ping.
func (l *lane) mayAnswer() bool {
	return l.track.op == ws.OpPong && l.track.have == 0 && l.nonce.Load() != nil && l.track.head[1]&0x7f == nonceLen
}

// answer takes the complete Pong b[start:end] out of b when it is the answer to
// our Ping, and returns b and where to go on.
func (l *lane) answer(b []byte, start, end int) ([]byte, int) {
	l.holding = false
	nonce := l.nonce.Load()
	for i, c := range b[start+int(l.track.size) : end] {
		if l.track.masked {
			c ^= l.track.mask[i&3]
		}
		if c != nonce[i] {
			return b, end
		}
	}
	l.nonce.CompareAndSwap(nonce, nil)
	*l.track.controls(ws.OpPong)--
	return append(b[:start], b[end:]...), start
}

// went notes that n bytes of the peer's went on.
func (l *lane) went(n int) {
	l.passed += int64(n)
	if l.meter == nil {
		return
	}
	l.meter.Bytes.Add(int64(n))
	if m := l.track.messages(); m != l.metered {
		l.meter.Messages.Add(m - l.metered)
		l.metered = m
	}
}

// insertable tells whether a frame of ours may stand where the lane is now.
func (l *lane) insertable() bool {
	return l.kind == WebSocket && !l.broken && (l.track.state == refused || l.track.insertable())
}

// ready tells whether a lane that is closing may finish: the one to a side that
// is to get our Close where one may stand, the other one after the client's.
func (l *lane) ready() bool {
	switch {
	case l.kind == Bytes, l.track.state != tracking:
		return true
	default:
		return l.track.insertable() && l.code() != 0
	}
}

// done tells whether there is no reason for the lane to go on.
func (l *lane) done() bool {
	return l.broken || l.over || l.hurry || l.closing != nil && l.ready()
}

// code is that of the Close which this lane is to carry; 0: the client's own.
func (l *lane) code() uint16 {
	if l.toClient {
		return l.closing.code
	}
	return l.closing.upstream
}

// last returns what the lane ends with: our Close where one is wanted and may
// stand, or what was held back.
func (l *lane) last() (b []byte, insert bool) {
	held := l.held[:l.heldLen]
	l.heldLen = 0
	switch {
	case l.closing != nil && l.insertable():
		return l.close(), true
	case l.over:
		return held, false
	}
	return nil, false
}

// close is our Close for the lane: to an upstream that got none from the client
// a "going away", unless it is the one to be blamed.
func (l *lane) close() []byte {
	if l.toClient {
		return closeFrame(l.closing.code, l.closing.reason)
	}
	code := l.code()
	if code == 0 {
		code = uint16(ws.StatusGoingAway)
	}
	return maskedCloseFrame(code, l.closing.reason)
}

// noCloseSent tells whether a Close of ours was wanted and the client got none
// at all.
func (l *lane) noCloseSent() bool {
	return l.toClient && l.kind == WebSocket && l.closing != nil && l.track.state != closed && !l.inserted
}

// ping is a Ping of ours, to be answered on the lane back.
func (l *lane) ping(back *lane) []byte {
	nonce := new([nonceLen]byte)
	rand.Read(nonce[:]) // never fails
	back.nonce.Store(nonce)
	return ws.MustCompileFrame(ws.NewPingFrame(nonce[:]))
}

// traffic is what has passed.
func (l *lane) traffic() Traffic {
	t := &l.track
	return Traffic{
		Bytes: l.passed, Messages: t.messages(), Largest: int64(t.largest),
		Text: *t.of(ws.OpText), Binary: *t.of(ws.OpBinary),
		Pings: int64(*t.controls(ws.OpPing)), Pongs: int64(*t.controls(ws.OpPong)),
	}
}
