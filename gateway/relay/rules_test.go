package relay

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// odd is a frame that frame cannot express: its header says what it likes.
type odd struct {
	first    byte
	wide     int    // bytes of the length after the first two: 0, 2 or 8
	length   uint64 // as the header has it
	payload  []byte // as it is on the wire
	mismatch bool   // masked where it must not be, or the other way round
}

func (o odd) wireBytes(masked bool) []byte {
	b := []byte{o.first}
	switch o.wide {
	case 2:
		b = binary.BigEndian.AppendUint16(append(b, 126), uint16(o.length))
	case 8:
		b = binary.BigEndian.AppendUint64(append(b, 127), o.length)
	default:
		b = append(b, byte(o.length))
	}
	if masked != o.mismatch {
		b[1] |= 0x80
		b = append(b, testMask[:]...)
	}
	return append(b, o.payload...)
}

// wired is a frame or an odd one.
type wired interface{ wireBytes(masked bool) []byte }

func stream(masked bool, frames ...wired) (b []byte) {
	for _, f := range frames {
		b = append(b, f.wireBytes(masked)...)
	}
	return b
}

func frames(f ...wired) []wired { return f }

// An offence is frames that keep to the rules, and one that does not.
type offence struct {
	rules    Rules
	reserved byte
	good     []wired
	bad      wired
	side     End // who can commit it; "": both
	code     uint16
	reason   string
	complete int64 // messages in good
}

func (o *offence) by(side End) bool { return o.side == "" || o.side == side }

const huge = 1<<63 - 1

// sizes are offences against limits of size and rate.
func sizes() map[string]offence {
	frameOver := "a frame must not be larger than 1000 bytes"
	messageOver := "a message must not be larger than 2000 bytes"
	some := frames(frame{fin | text, []byte("fine")}, frame{fin | ping, nil})
	return map[string]offence{
		"frame over": {rules: Rules{MaxFrame: 1000}, good: append(some, frame{fin | text, noise(1000)}), bad: frame{fin | text, noise(1001)},
			code: 1009, reason: frameOver, complete: 2},
		"first frame over": {rules: Rules{MaxFrame: 1000}, bad: frame{fin | binaryOp, noise(70000)}, code: 1009, reason: frameOver},
		"frame as large as can be": {rules: Rules{MaxFrame: 1000}, good: some, bad: odd{first: fin | text, wide: 8, length: huge},
			code: 1009, reason: frameOver, complete: 1},
		"message over in one frame": {rules: Rules{MaxMessage: 2000}, good: append(some, frame{fin | binaryOp, noise(2000)}), bad: frame{fin | text, noise(2001)},
			code: 1009, reason: messageOver, complete: 2},
		"message over in fragments": {rules: Rules{MaxMessage: 2000},
			good: frames(frame{text, noise(1000)}, frame{cont, nil}, frame{cont, noise(1000)}), bad: frame{fin | cont, []byte("x")},
			code: 1009, reason: messageOver},
		"message over, controls between": {rules: Rules{MaxMessage: 2000},
			good: frames(frame{binaryOp, noise(1500)}, frame{fin | ping, noise(125)}, frame{fin | pong, noise(125)}, frame{cont, noise(500)}, frame{fin | ping, nil}),
			bad:  frame{cont, []byte("x")}, code: 1009, reason: messageOver},
		"continuation over as a frame": {rules: Rules{MaxFrame: 1000, MaxMessage: 1 << 20}, good: frames(frame{text, noise(1000)}), bad: frame{fin | cont, noise(1001)},
			code: 1009, reason: frameOver},
		"second message over": {rules: Rules{MaxMessage: 2000}, good: frames(frame{text, noise(1500)}, frame{fin | cont, noise(500)}, frame{fin | text, noise(2000)}),
			bad: frame{text, noise(2001)}, code: 1009, reason: messageOver, complete: 2},
		"too many messages": {rules: Rules{MessageRate: 3}, side: EndClient,
			good: frames(frame{fin | text, []byte("1")}, frame{fin | ping, nil}, frame{binaryOp, []byte("2")}, frame{cont, nil}, frame{fin | cont, nil}, frame{fin | text, []byte("3")}),
			bad:  frame{text, []byte("4")}, code: 1008, reason: "more than 3 messages a second", complete: 3},
	}
}

// violations are what Strict refuses.
func violations() map[string]offence {
	begun := frames(frame{fin | text, []byte("fine")}, frame{binaryOp, []byte("begun")})
	cases := map[string]offence{
		"client without a mask":       {bad: odd{first: fin | text, length: 2, payload: []byte("hi"), mismatch: true}, side: EndClient, reason: "a client's frame must be masked"},
		"control without a mask":      {bad: odd{first: fin | ping, mismatch: true}, side: EndClient, reason: "a client's frame must be masked"},
		"node with a mask":            {bad: odd{first: fin | text, length: 2, payload: []byte("hi"), mismatch: true}, side: EndUpstream, reason: "a server's frame must not be masked"},
		"Close with a mask":           {bad: odd{first: fin | closeOp, mismatch: true}, side: EndUpstream, reason: "a server's frame must not be masked"},
		"RSV1":                        {bad: frame{fin | 0x40 | text, nil}, reason: "reserved bits without an extension"},
		"RSV2":                        {bad: frame{fin | 0x20 | text, nil}, reason: "reserved bits without an extension"},
		"RSV3":                        {bad: frame{fin | 0x10 | ping, nil}, reason: "reserved bits without an extension"},
		"RSV2 where RSV1 may be":      {reserved: 0x40, good: frames(frame{fin | 0x40 | text, nil}), complete: 1, bad: frame{fin | 0x60 | text, nil}, reason: "reserved bits without an extension"},
		"opcode 3":                    {bad: odd{first: fin | 3}, reason: "reserved opcode"},
		"opcode 7":                    {bad: odd{first: fin | 7, length: 1, payload: []byte("x")}, reason: "reserved opcode"},
		"opcode 11":                   {bad: odd{first: fin | 0xb}, reason: "reserved opcode"},
		"opcode 15":                   {bad: odd{first: fin | 0xf}, reason: "reserved opcode"},
		"16 bits for 125":             {bad: odd{first: fin | text, wide: 2, length: 125, payload: noise(125)}, reason: "length not in its shortest form"},
		"16 bits for 0":               {bad: odd{first: fin | text, wide: 2}, reason: "length not in its shortest form"},
		"64 bits for 65535":           {bad: odd{first: fin | binaryOp, wide: 8, length: 65535, payload: noise(65535)}, reason: "length not in its shortest form"},
		"64 bits for 5":               {bad: odd{first: fin | text, wide: 8, length: 5, payload: []byte("12345")}, reason: "length not in its shortest form"},
		"top bit of the length":       {bad: odd{first: fin | text, wide: 8, length: 1 << 63}, reason: "or too large"},
		"fragmented Ping":             {bad: odd{first: ping}, reason: "fragmented control frame"},
		"fragmented Close":            {bad: odd{first: closeOp, length: 2, payload: []byte{3, 232}}, reason: "fragmented control frame"},
		"Pong of 126":                 {bad: frame{fin | pong, noise(126)}, reason: "control frame of more than 125 bytes"},
		"Ping of 64 KiB":              {bad: frame{fin | ping, noise(1 << 16)}, reason: "control frame of more than 125 bytes"},
		"Close with half a code":      {bad: frame{fin | closeOp, []byte{3}}, reason: "Close with half a code"},
		"continuation of nothing":     {bad: frame{cont, nil}, reason: "continuation without a message"},
		"last continuation":           {bad: frame{fin | cont, []byte("x")}, reason: "continuation without a message"},
		"continuation behind the end": {good: append(begun, frame{fin | cont, nil}), complete: 2, bad: frame{fin | cont, nil}, reason: "continuation without a message"},
		"message within a message":    {good: begun, complete: 1, bad: frame{fin | text, []byte("x")}, reason: "new message inside of another"},
		"begun within a message":      {good: append(begun, frame{fin | ping, nil}, frame{cont, nil}), complete: 1, bad: frame{text, nil}, reason: "new message inside of another"},
	}
	for name, o := range cases {
		o.rules.Strict, o.code = true, 1002
		if o.good == nil {
			o.good, o.complete = frames(frame{fin | binaryOp, noise(300)}, frame{fin | ping, []byte("?")}), 1
		}
		cases[name] = o
	}
	return cases
}

// forSides runs f for every offence and whoever can commit it.
func forSides(t *testing.T, cases map[string]offence, f func(t *testing.T, side End, o offence)) {
	for name, o := range cases {
		for _, side := range []End{EndClient, EndUpstream} {
			if o.by(side) {
				t.Run(name+"/"+string(side), func(t *testing.T) { f(t, side, o) })
			}
		}
	}
}

// TestRulesBroken: what keeps to the rules goes on, and of the frame that does
// not nothing, nor anything behind it; its sender is told why, and the other
// side that it is over.
func TestRulesBroken(t *testing.T) {
	over := func(w wire) func(*testing.T, End, offence) {
		return func(t *testing.T, side End, o offence) {
			t.Parallel()
			r := open(t, o.setup(w))
			offender, _ := r.sides(side)
			r.send(offender, o.stream(side))
			r.wantRefused(side, &o)
		}
	}
	forSides(t, sizes(), over(wire{}))
	forSides(t, violations(), over(wire{}))
	t.Run("TLS", func(t *testing.T) { forSides(t, sizes(), over(wire{clientTLS: true, upstreamTLS: true})) })
}

// TestRulesBrokenInPieces is the same with streams that come in pieces, headers
// too.
func TestRulesBrokenInPieces(t *testing.T) {
	some := violations()
	for _, name := range []string{"message over in fragments", "frame over", "too many messages"} {
		some[name] = sizes()[name]
	}
	for _, name := range []string{"Ping of 64 KiB", "64 bits for 65535"} {
		delete(some, name) // long, and nothing new
	}
	forSides(t, some, func(t *testing.T, side End, o offence) {
		t.Parallel()
		r := openStepping(t, o.setup(wire{}))
		offender, _ := r.sides(side)
		good := stream(side == EndClient, o.good...)
		r.step(offender, good, 1+len(good)/100)
		r.step(offender, o.stream(side)[len(good):], 1)
		r.wantRefused(side, &o)
	})
}

func (o *offence) setup(w wire) setup {
	s := webSocket(w)
	s.Rules, s.Reserved = &o.rules, o.reserved
	return s
}

// stream is what the offender sends; what stands behind the bad frame is never
// seen.
func (o *offence) stream(side End) []byte {
	masked := side == EndClient
	b := append(stream(masked, o.good...), o.bad.wireBytes(masked)...)
	if len(b) > 4096 { // the payload is not waited for
		b = b[:len(b)-100]
	}
	return append(b, frame{fin | text, []byte("never seen")}.wireBytes(masked)...)
}

// sides are the test's ends of the legs of an offender and of the other one.
func (r *rig) sides(side End) (offender, other net.Conn) {
	if side == EndClient {
		return r.client, r.upstream
	}
	return r.upstream, r.client
}

func (r *rig) wantRefused(side End, o *offence) {
	r.t.Helper()
	offender, other := r.sides(side)
	good := stream(side == EndClient, o.good...)
	r.wantBytes(other, good)
	r.wantGoingAway(other, side == EndClient)
	r.wantEOF(other)

	got, masked, err := readFrame(offender)
	if err != nil || got.first != fin|closeOp || masked != (side == EndUpstream) || len(got.payload) < 2 ||
		binary.BigEndian.Uint16(got.payload) != o.code || !strings.Contains(string(got.payload[2:]), o.reason) {
		r.t.Fatalf("the offender got %x %q, masked %v, %v; want a Close %d %q", got.first, got.payload, masked, err, o.code, o.reason)
	}
	r.wantEOF(offender)
	offender.Close()
	other.Close()

	want := end{by: side, code: o.code, reason: string(got.payload[2:]), cause: fmt.Sprintf("the %s broke a rule (%d): ", side, o.code)}
	report := r.report()
	if side == EndUpstream { // the Close to the client is the tunnel's
		want.code, want.reason = 1001, report.CloseReason
	}
	if report.EndedBy != want.by || report.CloseCode != want.code || report.CloseReason != want.reason ||
		report.Cause == nil || !strings.HasPrefix(report.Cause.Error(), want.cause) || !strings.Contains(report.Cause.Error(), o.reason) {
		r.t.Errorf("report %+v, want %+v", report, want)
	}
	passed, none := report.FromClient, report.FromUpstream
	if side == EndUpstream {
		passed, none = none, passed
	}
	if none != (Traffic{}) || passed.Bytes != int64(len(good)) || passed.Messages != o.complete {
		r.t.Errorf("report %+v, want %d bytes and %d messages from the %s", report, len(good), o.complete, side)
	}
}

func (r *rig) wantBytes(c net.Conn, want []byte) {
	r.t.Helper()
	got := make([]byte, len(want))
	if n, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, want) {
		r.t.Fatalf("got %d bytes, %v; want %d: %.40x, want %.40x", n, err, len(want), got[:n], want)
	}
}

// wantGoingAway reads a Close 1001 with some reason.
func (r *rig) wantGoingAway(c net.Conn, masked bool) {
	r.t.Helper()
	got, m, err := readFrame(c)
	if err != nil || got.first != fin|closeOp || m != masked || !bytes.HasPrefix(got.payload, []byte{3, 233}) || !utf8.Valid(got.payload[2:]) {
		r.t.Fatalf("got %x %q masked %v, %v; want a Close 1001, masked %v", got.first, got.payload, m, err, masked)
	}
}

// TestRulesKept: what is within the rules, up to their very edge, goes on
// untouched.
func TestRulesKept(t *testing.T) {
	type kept struct {
		rules    Rules
		reserved byte
		frames   []wired
		side     End
	}
	strict := Rules{Strict: true}
	edge := frames(frame{fin | text, noise(1000)}, frame{text, noise(1000)}, frame{fin | ping, noise(125)}, frame{cont, noise(999)},
		frame{fin | pong, noise(125)}, frame{cont, nil}, frame{fin | cont, []byte("x")}, frame{fin | binaryOp, noise(1000)})
	var many []wired
	for range 50 {
		many = append(many, frame{fin | text, []byte("x")})
	}
	fragments := frames(frame{text, nil})
	for range 50 {
		fragments = append(fragments, frame{cont, []byte("x")}, frame{fin | ping, nil})
	}
	cases := map[string]kept{
		"sizes exactly at the limits":       {rules: Rules{MaxFrame: 1000, MaxMessage: 2000}, frames: edge},
		"everything on":                     {rules: Rules{MaxFrame: 1000, MaxMessage: 2000, Strict: true, MessageRate: 3}, frames: edge},
		"controls are not data":             {rules: Rules{MaxFrame: 1, MaxMessage: 1}, frames: frames(frame{fin | ping, noise(125)}, closing1(1000, "long enough"))},
		"as many messages as may come":      {rules: Rules{MessageRate: 50}, frames: many},
		"continuations are not messages":    {rules: Rules{MessageRate: 1}, frames: fragments},
		"nodes have no rate":                {rules: Rules{MessageRate: 1}, frames: many, side: EndUpstream},
		"RSV1 of permessage-deflate":        {rules: strict, reserved: 0x40, frames: frames(frame{fin | 0x40 | text, noise(200)}, frame{0x40 | binaryOp, nil}, frame{fin | cont, nil})},
		"all bits of unknown extensions":    {rules: strict, reserved: 0x70, frames: frames(frame{fin | 0x70 | text, noise(200)}, frame{fin | 0x10 | ping, nil})},
		"lengths at the edges of forms":     {rules: strict, frames: frames(frame{fin | text, noise(125)}, frame{fin | text, noise(126)}, frame{fin | text, noise(65535)}, frame{fin | text, noise(65536)})},
		"empty frames":                      {rules: strict, frames: frames(frame{fin | text, nil}, frame{text, nil}, frame{cont, nil}, frame{fin | cont, nil}, frame{fin | ping, nil}, frame{fin | pong, nil})},
		"controls within a message":         {rules: strict, frames: frames(frame{text, []byte("a")}, frame{fin | ping, noise(125)}, frame{fin | pong, nil}, frame{fin | cont, nil})},
		"unsolicited Pong":                  {rules: strict, frames: frames(frame{fin | pong, noise(8)}, frame{fin | pong, noise(125)})},
		"Close without a code":              {rules: strict, frames: frames(frame{fin | closeOp, nil})},
		"Close with code and reason":        {rules: strict, frames: frames(closing1(1000, strings.Repeat("x", 123)))},
		"Close within a message":            {rules: strict, frames: frames(frame{text, nil}, closing1(4000, ""))},
		"what comes behind a Close":         {rules: strict, frames: frames(closing1(1000, ""), odd{first: 0xff, mismatch: true})},
		"no limit is a limit of no message": {rules: Rules{MaxFrame: 0, MaxMessage: 0, MessageRate: 0}, frames: append(many, frame{fin | binaryOp, noise(1 << 17)})},
	}
	for name, c := range cases {
		for _, side := range []End{EndClient, EndUpstream} {
			if c.side != "" && c.side != side {
				continue
			}
			t.Run(name+"/"+string(side), func(t *testing.T) {
				t.Parallel()
				s := webSocket(wires["edge"])
				s.Rules, s.Reserved = &c.rules, c.reserved
				passes(t, s, side, stream(side == EndClient, c.frames...))
			})
		}
	}
}

// passes checks that what one side sends comes out at the other, every byte.
func passes(t *testing.T, s setup, side End, b []byte) {
	t.Helper()
	r := open(t, s)
	from, to := r.sides(side)
	sent := make(chan error, 1)
	go func() { _, err := from.Write(b); sent <- err }()
	r.wantBytes(to, b)
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
}

// TestRulesOff: without Strict and without a limit, what Strict refuses goes on
// untouched, and what follows it.
func TestRulesOff(t *testing.T) {
	forSides(t, violations(), func(t *testing.T, side End, o offence) {
		t.Parallel()
		all := []*Rules{nil, {}, {Ping: time.Hour, PingTimeout: time.Hour}}
		for _, rules := range all {
			s := webSocket(wire{})
			s.Rules = rules
			passes(t, s, side, o.stream(side))
		}
	})
}

// TestRulesNotForBytes: opaque TCP has no frames.
func TestRulesNotForBytes(t *testing.T) {
	s := setup{Options: Options{Rules: &Rules{MaxFrame: 1, MaxMessage: 1, MessageRate: 1, Strict: true, Ping: 1, PingTimeout: 1}}}
	passes(t, s, EndClient, noise(5000))
}

// TestRulesBetweenMessages: an offence of one side does not tear the frame that
// is under way from the other one.
func TestRulesBetweenMessages(t *testing.T) {
	forSides(t, map[string]offence{"size": sizes()["first frame over"]}, func(t *testing.T, side End, o offence) {
		r := open(t, o.setup(wires["edge"]))
		offender, other := r.sides(side)
		whole := frame{fin | binaryOp, noise(1000)}.wireBytes(side == EndUpstream)
		r.send(other, whole[:500])
		r.wantBytes(offender, whole[:500])
		r.send(offender, o.stream(side))
		r.wantGoingAway(other, side == EndClient) // nothing was under way to it
		r.send(other, whole[500:])
		r.wantBytes(offender, whole[500:])
		got, _, err := readFrame(offender)
		if err != nil || !bytes.HasPrefix(got.payload, []byte{3, 241}) {
			t.Fatalf("the offender got %x %q, %v; want a Close 1009", got.first, got.payload, err)
		}
		r.wantEOF(offender)
		r.wantEOF(other)
	})
}

// TestMessageRate: as many messages as a second allows come at once, and after
// that they come back with time.
func TestMessageRate(t *testing.T) {
	type burst struct {
		at       time.Duration
		messages int
	}
	second := time.Second
	cases := map[string]struct {
		rate   int
		bursts []burst
		passed int // of all; fewer than there are: the rest was refused
	}{
		"burst":                     {3, []burst{{0, 3}}, 3},
		"burst and one":             {3, []burst{{0, 4}}, 3},
		"burst late":                {3, []burst{{time.Hour, 4}}, 3},
		"refilled":                  {3, []burst{{0, 3}, {second, 3}, {2 * second, 3}}, 9},
		"refilled and one":          {3, []burst{{0, 3}, {second, 4}}, 6},
		"never more than a burst":   {3, []burst{{0, 1}, {time.Hour, 4}}, 4},
		"a third of a second is 1":  {3, []burst{{0, 3}, {334 * time.Millisecond, 1}, {668 * time.Millisecond, 1}}, 5},
		"a bit less is none":        {3, []burst{{0, 3}, {332 * time.Millisecond, 1}}, 3},
		"steady":                    {1, []burst{{0, 1}, {second, 1}, {2 * second, 1}, {3 * second, 1}, {4*second - 1000, 1}}, 4},
		"many":                      {1000, []burst{{0, 1000}, {second / 2, 500}, {second/2 + time.Millisecond, 1}}, 1501},
		"rest of a second is saved": {2, []burst{{0, 2}, {250 * time.Millisecond, 0}, {500 * time.Millisecond, 1}}, 3},
	}
	for name, c := range cases {
		var l lane
		l.init(&Options{Kind: WebSocket, Rules: &Rules{MessageRate: c.rate}}, false)
		all := 0
		for _, b := range c.bursts {
			all += b.messages
			for range b.messages {
				l.pass(join(true, frame{text, []byte("a")}, frame{fin | ping, nil}, frame{fin | cont, []byte("b")}), b.at)
			}
		}
		refusedAny := l.track.state == refused
		if got := int(l.track.messages()); got != c.passed || refusedAny != (c.passed < all) || refusedAny && l.track.broken.code != 1008 {
			t.Errorf("%s: %d messages passed, refused %v; want %d of %d", name, got, refusedAny, c.passed, all)
		}
	}
}

// TestLimitsWantFrames: where there is a limit, bytes that are no frames do not
// get past it; without one they go on.
func TestLimitsWantFrames(t *testing.T) {
	for name, rules := range map[string]*Rules{
		"frame": {MaxFrame: 100}, "message": {MaxMessage: 100}, "rate": {MessageRate: 10},
	} {
		t.Run(name, func(t *testing.T) {
			s := webSocket(wire{})
			s.Rules = rules
			r := open(t, s)
			r.send(r.client, []byte("GET / HTTP/1.1\r\n\r\n"))
			r.wantFrame(r.client, closing1(1002, "not a WebSocket frame"), false)
			r.wantFrame(r.upstream, closing1(1001, "not a WebSocket frame"), true)
		})
	}
}
