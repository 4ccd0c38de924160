// Package relay moves bytes between the two legs of a tunnel.
//
// It is for connections whose handshakes are over: an upgraded WebSocket, or an
// opaque TCP connection. Data passes untouched. Of WebSocket it knows frames and
// nothing above them, so that a Close of the gateway stands between two frames
// and never inside one. It knows nothing of HTTP, routes or Consul and imports
// nothing else of this module.
//
// An Engine runs tunnels, Start hands two legs to it, and from then on a tunnel
// is three things to its starter: Close, Kill, and a Report when it has ended.
//
// There are two ways of moving bytes. On Linux a few loops, each with an epoll
// set of its own, do it for all tunnels: an idle tunnel then has no goroutine and
// no buffer (loop_linux.go, looptunnel_linux.go, socket_linux.go). Elsewhere, and
// for connections whose socket cannot be taken over, two goroutines per tunnel do
// it (goroutines.go, direction.go). What both have in common is pure: a lane per
// direction decides what goes on (lane.go, tracker.go, rules.go), and ending.go
// knows how a tunnel ends.
package relay

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Kind is what a tunnel carries.
type Kind uint8

// The kinds.
const (
	Bytes     Kind = iota // opaque TCP
	WebSocket             // RFC 6455 frames: they are tracked, and a Close is inserted between two of them
)

// A Leg is one side of a tunnel.
type Leg struct {
	// Conn is owned by the tunnel from Start on, which clears its deadlines
	// first. A *net.TCPConn, a *tls.Conn whose handshake is over, or anything
	// with CloseWrite() error; without that method a half-close cannot be passed
	// on, and the leg is closed whole where its write side would have been. A
	// Conn over another one says so with NetConn() net.Conn, as *tls.Conn does:
	// the inner one is then closed where a goodbye must not block. Close may be
	// called more than once and from any goroutine, on either of them. A read
	// that timed out must be resumable.
	Conn net.Conn

	// Early are bytes that were already read from this leg's peer. They are
	// forwarded before anything else. Owned by the tunnel from Start on.
	Early []byte
}

// A Swapper is a connection that stands under a *tls.Conn and can be given
// another one to stand on.
type Swapper interface {
	net.Conn

	// NetConn is what calls go to.
	NetConn() net.Conn

	// Swap makes every later call go to next. Nobody may be calling meanwhile.
	Swap(next net.Conn)
}

// Options are what a tunnel is started with.
type Options struct {
	Kind Kind

	// Idle ends a tunnel on which no byte moved in either direction for so long,
	// with Close 1001. 0: no limit.
	Idle time.Duration

	// Lifetime ends a tunnel that is so old, with Close 1001. 0: no limit.
	Lifetime time.Duration

	// Expiry ends a tunnel that is so old, with Close 1008 "token expired": what
	// its client was let in by holds no longer. 0: it holds for ever.
	Expiry time.Duration

	// Stall ends a tunnel one of whose peers takes no byte of a pending write
	// for so long (and up to half as long again, because deadlines are renewed
	// coarsely). On a TLS leg progress shows only once a write of at most 32 KiB
	// is through. 0: 60 s.
	Stall time.Duration

	// Rules for the frames of a WebSocket; nil: none.
	Rules *Rules

	// Reserved are the bits of a frame's first byte (of 0x70) that the
	// negotiated extensions may set: 0x40 with permessage-deflate (RFC 7692 §6).
	Reserved byte

	// Meter, if not nil, is told of traffic while it passes. Tunnels may share one.
	Meter *Meter

	// Ended, if not nil, is called exactly once, after both connections were
	// closed and nothing of the tunnel runs any more; it may be called before
	// Start has returned. It must not panic. Engine.Wait waits for it.
	Ended func(Report)
}

// A Meter counts what passes, as Traffic does. It is safe for concurrent use.
type Meter struct{ FromClient, FromUpstream Count }

// A Count is one direction of a Meter.
type Count struct{ Bytes, Messages atomic.Int64 }

// End is who or what ended a tunnel.
type End string

// The ends. The first cause counts, except that a panic always shows and that
// a half-close of a Bytes tunnel counts only when nothing worse follows.
const (
	EndClient   End = "client"   // it sent a Close, ended its stream, or its connection failed
	EndUpstream End = "upstream" // likewise
	EndGateway  End = "gateway"  // Close or Kill
	EndIdle     End = "idle"     // Options.Idle
	EndLifetime End = "lifetime" // Options.Lifetime
	EndExpired  End = "expired"  // Options.Expiry
	EndStalled  End = "stalled"  // Options.Stall; the cause names the leg
	EndPanic    End = "panic"    // a defect, of this package or of a connection; the cause is a *PanicError
)

// Traffic is what was passed on from one peer. What was discarded because the
// tunnel was closing is not in it, nor is a Close that the gateway inserted.
type Traffic struct {
	Bytes    int64 // as they were on the wire, with frame headers
	Messages int64 // complete text and binary messages; 0 for Bytes tunnels
	Largest  int64 // payload bytes of the largest of them, on the wire

	Text, Binary Tally
	Pings, Pongs int64 // frames, without those of the gateway
}

// A Tally is what passed of one kind of message.
type Tally struct {
	Messages int64 // complete ones
	Payload  int64 // bytes, as they were on the wire (compressed ones count compressed)
}

// A Report is what there is to tell about a tunnel that has ended.
type Report struct {
	EndedBy End
	Cause   error // nil when the end was orderly

	// CloseCode and CloseReason are those of the first Close frame of the
	// tunnel, whoever sent it. Code 0: there was none; 1005: it had no code (RFC
	// 6455 §7.1.5). The reason is valid UTF-8 of at most 123 bytes; it is the
	// peer's text, control characters and all.
	CloseCode   uint16
	CloseReason string

	FromClient   Traffic
	FromUpstream Traffic
	Duration     time.Duration // from Start until both connections were closed
}

// PanicError is the cause of a tunnel that a panic ended.
type PanicError struct {
	Value any    // what was passed to panic
	Stack []byte // of the goroutine that panicked
}

// Error names the panic's value, without the stack.
func (e *PanicError) Error() string { return fmt.Sprintf("panic: %v", e.Value) }

// RuleError is the cause of a tunnel that was ended because a frame broke one of
// its Rules.
type RuleError struct {
	From   End    // who sent it
	Code   uint16 // of the Close that the sender got: 1002, 1008, 1009
	Reason string // likewise
}

// Error says who broke which rule.
func (e *RuleError) Error() string {
	return fmt.Sprintf("the %s broke a rule (%d): %s", e.From, e.Code, e.Reason)
}

// ErrSilent is the cause of a tunnel whose client did not answer a Ping.
var ErrSilent = errors.New("the client did not answer a Ping")

// A Tunnel is a live two-way connection. Its methods are safe for concurrent
// use, at any time, also after it has ended, and return at once.
type Tunnel interface {
	// Close ends the tunnel in order.
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
	// tunnel has ended or an idle, lifetime or expiry limit was hit.
	Close(code uint16, reason string)

	// Kill closes both connections, without a Close frame and without regard for
	// what is in flight.
	Kill()
}

// An Engine runs tunnels. Its methods are safe for concurrent use.
type Engine struct {
	// Crowded, if not nil, tells whether more work waits for the processors than
	// they get done, as in a storm of TLS handshakes. The Go runtime then looks at
	// the network seldom, and the loops look for themselves, every millisecond. It
	// is called often, by any goroutine; set it before the first Start.
	Crowded func() bool

	buffers buffers
	waits   waits
	loops   loops
	noLoops bool // for tests

	mu    sync.Mutex
	live  int
	empty chan struct{} // closed while no tunnel lives
}

// New returns an Engine without tunnels. It holds no resources until the first
// one is started.
func New() *Engine {
	empty := make(chan struct{})
	close(empty)
	return &Engine{waits: defaultWaits(), empty: empty}
}

// Start begins to move bytes between the two legs and returns at once. The
// connections and early bytes belong to the tunnel from here on.
func (e *Engine) Start(client, upstream Leg, o Options) Tunnel {
	if o.Stall <= 0 {
		o.Stall = defaultStall
	}
	e.enter()
	if t := e.startInLoop(client, upstream, o); t != nil {
		return t
	}
	t := newGoTunnel(e, client, upstream, o)
	t.start()
	return t
}

const defaultStall = 60 * time.Second

// Wait returns nil as soon as every tunnel that was started has ended and its
// Ended has returned, or the context's error when that comes first. Tunnels
// started meanwhile are waited for as well.
func (e *Engine) Wait(ctx context.Context) error {
	e.mu.Lock()
	empty := e.empty
	e.mu.Unlock()
	select {
	case <-empty:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("relay: waiting for tunnels to end: %w", ctx.Err())
	}
}

// Close gives back what the engine holds. Every tunnel must have ended, and no
// other may be started.
func (e *Engine) Close() { e.loops.close() }

func (e *Engine) enter() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.live == 0 {
		e.empty = make(chan struct{})
	}
	e.live++
}

func (e *Engine) leave() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.live--
	if e.live == 0 {
		close(e.empty)
	}
}

// waits bound how long a tunnel that is ending may take. They are fields, not
// constants, so that tests need not sit through them.
type waits struct {
	answer time.Duration // for a frame to end and for the client's own Close, after the gateway closed
	linger time.Duration // for EOF, once nothing more is to be written to either leg
	half   time.Duration // for the rest, after one leg of a WebSocket ended, a leg failed, or both Closes passed
	last   time.Duration // for one more write, after answer is over
	tick   time.Duration // how often a loop looks what is due
}

func defaultWaits() waits {
	return waits{answer: 5 * time.Second, linger: 3 * time.Second, half: 10 * time.Second, last: time.Second, tick: time.Second}
}
