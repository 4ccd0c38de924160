package relay

import (
	"fmt"
	"time"

	"github.com/gobwas/ws"
)

// Rules are what frames of a WebSocket must keep to. A frame that breaks one
// does not go on: its sender gets a Close with the code that says why, the other
// side a Close 1001. Where there is a limit, bytes that are no frames end the tunnel
// with 1002. Without rules everything goes on as it is. Rules may be shared
// by tunnels and must not be changed after the first Start with them.
type Rules struct {
	// MaxFrame and MaxMessage bound the payload of a data frame and of a whole
	// message from either side, as it is on the wire (compressed messages count
	// compressed). More ends the tunnel with 1009, at the header of the frame that
	// goes over. 0: no limit.
	MaxFrame, MaxMessage int64

	// MessageRate bounds the messages a second from the client, with bursts of
	// as many. More ends the tunnel with 1008. 0: no limit.
	MessageRate int

	// Strict ends the tunnel with 1002 at what RFC 6455 §5 forbids: a client's
	// frame without a mask or a node's with one, reserved bits that no extension
	// was negotiated for, reserved opcodes, lengths that are not in the shortest
	// form, fragmented or long control frames, continuations without a beginning.
	Strict bool

	// Ping is after how much silence in both directions the client gets a Ping of
	// the gateway's; a client from which then nothing comes for PingTimeout is
	// taken for dead. Its answer is kept from the node. Ping 0: none.
	Ping, PingTimeout time.Duration
}

// verdict is why a frame does not go on.
type verdict struct {
	code   uint16
	reason string
}

// An inspector keeps one direction of a tunnel to the rules.
type inspector struct {
	*Rules
	fromClient bool
	reserved   byte          // bits of a frame's first byte that extensions may set
	now        time.Duration // age of the tunnel, as of the last read
	tokens     float64       // messages that may come at once
	counted    time.Duration // when tokens was brought up to date
}

func newInspector(o *Options, fromClient bool) *inspector {
	if o.Kind != WebSocket || o.Rules == nil {
		return nil
	}
	return &inspector{Rules: o.Rules, fromClient: fromClient, reserved: o.Reserved, tokens: float64(o.Rules.MessageRate)}
}

// judge looks at a frame's header, which t has just taken over.
func (i *inspector) judge(t *tracker, head []byte) *verdict {
	if i.Strict {
		if wrong := i.violation(t, head); wrong != "" {
			return &verdict{uint16(ws.StatusProtocolError), wrong}
		}
	}
	if t.implausible() && i.limits() {
		return &verdict{uint16(ws.StatusProtocolError), "not a WebSocket frame"}
	}
	if t.op.IsControl() {
		return nil
	}
	sum := t.left
	if t.op == ws.OpContinuation {
		sum += t.sum
	}
	switch {
	case i.MaxFrame > 0 && t.left > uint64(i.MaxFrame):
		return &verdict{uint16(ws.StatusMessageTooBig), fmt.Sprintf("a frame must not be larger than %d bytes", i.MaxFrame)}
	case i.MaxMessage > 0 && sum > uint64(i.MaxMessage):
		return &verdict{uint16(ws.StatusMessageTooBig), fmt.Sprintf("a message must not be larger than %d bytes", i.MaxMessage)}
	case i.fromClient && t.op != ws.OpContinuation && !i.inRate():
		return &verdict{uint16(ws.StatusPolicyViolation), fmt.Sprintf("more than %d messages a second", i.MessageRate)}
	}
	return nil
}

// limits tells whether there are any, past which bytes that are no frames would go.
func (i *inspector) limits() bool {
	return i.MaxFrame > 0 || i.MaxMessage > 0 || i.fromClient && i.MessageRate > 0
}

// violation is what RFC 6455 forbids about a header; "": nothing.
func (i *inspector) violation(t *tracker, head []byte) string {
	switch {
	case i.fromClient && !t.masked:
		return "a client's frame must be masked"
	case !i.fromClient && t.masked:
		return "a server's frame must not be masked"
	case head[0]&0x70&^i.reserved != 0:
		return "reserved bits without an extension"
	case t.op.IsReserved():
		return "reserved opcode"
	case tooLong(head, t.left):
		return "length not in its shortest form, or too large"
	case t.op.IsControl() && !t.fin:
		return "fragmented control frame"
	case t.op.IsControl() && t.left > ws.MaxControlFramePayloadSize:
		return "control frame of more than 125 bytes"
	case t.op == ws.OpClose && t.left == 1:
		return "Close with half a code"
	case t.op == ws.OpContinuation && t.message == 0:
		return "continuation without a message"
	case !t.op.IsControl() && t.op != ws.OpContinuation && t.message != 0:
		return "new message inside of another"
	}
	return ""
}

// tooLong tells lengths that RFC 6455 §5.2 wants written shorter, or not at all.
func tooLong(head []byte, length uint64) bool {
	switch head[1] & 0x7f {
	case 126:
		return length < 126
	case 127:
		return length < 1<<16 || length >= 1<<63
	}
	return false
}

// inRate counts a message and tells whether it is within the rate.
func (i *inspector) inRate() bool {
	if i.MessageRate <= 0 {
		return true
	}
	most := float64(i.MessageRate)
	i.tokens = min(most, i.tokens+(i.now-i.counted).Seconds()*most)
	i.counted = i.now
	if i.tokens < 1 {
		return false
	}
	i.tokens--
	return true
}
