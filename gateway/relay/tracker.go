package relay

import (
	"encoding/binary"

	"github.com/gobwas/ws"
)

// maxHeader is the longest frame header: 2 bytes, 8 of length, 4 of mask (RFC
// 6455 §5.2). At most one byte less than that can be an incomplete one.
const maxHeader = 14

// trackState is how much a tracker knows.
type trackState uint8

const (
	tracking trackState = iota
	closed              // a Close frame has passed; whatever follows is not looked at
	lost                // the bytes are not frames; whatever follows is not looked at
	refused             // the current frame breaks a rule: it and whatever follows must not go on
)

// A tracker follows the frames of one direction of a WebSocket, header by
// header. It keeps no payload but that of a Close, copies nothing else, allocates
// nothing before the Close, and gives the same answers however the stream is cut
// into chunks. Without rules it checks only what keeps it in step: reserved bits
// belong to extensions, and what a message may hold is the peers' affair. The
// zero value stands at the beginning of a stream. Not safe for concurrent use.
type tracker struct {
	state   trackState
	have    uint8           // bytes of an incomplete header in head
	head    [maxHeader]byte // while have > 0
	size    uint8           // of the current frame's header
	op      ws.OpCode       // of the current frame
	message ws.OpCode       // of the message that continuation frames belong to; 0: none
	fin     bool
	masked  bool
	mask    [4]byte
	left    uint64 // payload bytes of the current frame still to come
	sum     uint64 // payload bytes of the current message, with all of the current frame
	largest uint64 // payload bytes of the largest complete message

	rules  *inspector // asked about every header; nil: everything goes
	broken *verdict   // while refused
	last   *lastWords // of the Close; nil: it had no payload

	data    [2]Tally  // text, binary
	control [3]uint32 // frames: close, ping, pong
}

// lastWords is the unmasked payload of a Close.
type lastWords struct {
	body [ws.MaxControlFramePayloadSize]byte
	n    uint8
}

// of returns the tally of text or binary. Continuation frames are in that of the
// message they continue.
func (t *tracker) of(op ws.OpCode) *Tally { return &t.data[op-ws.OpText] }

// controls returns the count of close, ping or pong.
func (t *tracker) controls(op ws.OpCode) *uint32 { return &t.control[op-ws.OpClose] }

// next follows the stream through b as far as the end of the current frame, or
// through all of b when that comes first, and returns how many bytes that is.
// b must not be empty; then the result is at least 1. A frame that is refused
// ends behind its header.
func (t *tracker) next(b []byte) int {
	if t.state != tracking {
		return len(b)
	}
	n := 0
	if t.left == 0 {
		complete := false
		if n, complete = t.header(b); !complete || t.state == lost {
			return len(b)
		}
		if t.state == refused {
			return n
		}
	}
	n += t.payload(b[n:])
	if t.left == 0 {
		t.frameEnds()
	}
	return n
}

// held is how many trailing bytes of what was seen are an incomplete header, at
// most 13. Who holds them back may still insert a frame before them.
func (t *tracker) held() int { return int(t.have) }

// insertable tells whether the position before the held bytes is between two
// frames, so that a frame may be inserted there.
func (t *tracker) insertable() bool { return t.state == tracking && t.left == 0 }

// messages is the number of complete text and binary messages.
func (t *tracker) messages() int64 {
	return t.of(ws.OpText).Messages + t.of(ws.OpBinary).Messages
}

// closing returns code and reason of the Close that has passed. A Close without
// a code, or with half of one, has 1005 (RFC 6455 §7.1.5).
func (t *tracker) closing() (code uint16, reason string) {
	if t.last == nil || t.last.n < 2 {
		return uint16(ws.StatusNoStatusRcvd), ""
	}
	return binary.BigEndian.Uint16(t.last.body[:]), clip(string(t.last.body[2:t.last.n]))
}

// header collects the current header and returns how many bytes of b belong to
// it, and whether it is complete.
func (t *tracker) header(b []byte) (n int, complete bool) {
	total := int(t.have) + copy(t.head[t.have:], b)
	size := headerSize(t.head[:total])
	if total < size {
		n = total - int(t.have)
		t.have = uint8(total)
		return n, false
	}
	n = size - int(t.have)
	t.have, t.size = 0, uint8(size)
	t.frameBegins(t.head[:size])
	return n, true
}

// headerSize is the size of the header that begins with b, as far as b tells.
func headerSize(b []byte) int {
	size := 2
	if len(b) < size {
		return size
	}
	switch b[1] & 0x7f {
	case 126:
		size += 2
	case 127:
		size += 8
	}
	if b[1]&0x80 != 0 {
		size += 4
	}
	return size
}

// frameBegins takes over a complete header.
func (t *tracker) frameBegins(h []byte) {
	t.fin = h[0]&0x80 != 0
	t.op = ws.OpCode(h[0] & 0x0f)
	t.masked = h[1]&0x80 != 0
	switch short := h[1] & 0x7f; short {
	case 126:
		t.left = uint64(binary.BigEndian.Uint16(h[2:]))
	case 127:
		t.left = binary.BigEndian.Uint64(h[2:])
	default:
		t.left = uint64(short)
	}
	if t.masked {
		copy(t.mask[:], h[len(h)-4:])
	}
	if t.rules != nil {
		if t.broken = t.rules.judge(t, h); t.broken != nil {
			t.state, t.left = refused, 0
			return
		}
	}
	if t.implausible() {
		t.state, t.left = lost, 0
		return
	}
	switch {
	case t.op == ws.OpText || t.op == ws.OpBinary:
		t.message, t.sum = t.op, t.left
	case t.op == ws.OpContinuation:
		t.sum += t.left
	}
}

// implausible tells headers that no peer sends who speaks WebSocket: with them
// the positions between frames would be guesses.
func (t *tracker) implausible() bool {
	const topBit = 1 << 63 // "the most significant bit MUST be 0", RFC 6455 §5.2
	switch {
	case t.op.IsReserved(), t.left&topBit != 0:
		return true
	case t.op.IsControl():
		return !t.fin || t.left > ws.MaxControlFramePayloadSize // §5.5
	default: // §5.4: a message's fragments stand together, only control frames between them
		return (t.op == ws.OpContinuation) != (t.message != 0)
	}
}

// payload takes as much of b as belongs to the current frame.
func (t *tracker) payload(b []byte) int {
	n := len(b)
	if uint64(n) > t.left {
		n = int(t.left)
	}
	t.left -= uint64(n)
	switch {
	case !t.op.IsControl():
		t.of(t.message).Payload += int64(n)
	case t.op == ws.OpClose:
		t.keep(b[:n])
	}
	return n
}

// keep remembers payload of a Close, unmasked. It fits: longer ones are
// implausible.
func (t *tracker) keep(b []byte) {
	if t.last == nil && len(b) > 0 {
		t.last = &lastWords{}
	}
	for _, c := range b {
		if t.masked {
			c ^= t.mask[t.last.n&3]
		}
		t.last.body[t.last.n] = c
		t.last.n++
	}
}

// frameEnds counts what the frame completed.
func (t *tracker) frameEnds() {
	switch {
	case t.op.IsControl():
		*t.controls(t.op)++
	case t.fin:
		t.of(t.message).Messages++
		t.largest = max(t.largest, t.sum)
		t.message = 0
	}
	if t.op == ws.OpClose {
		t.state = closed
	}
}
