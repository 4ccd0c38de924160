package relay

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/gobwas/ws"
)

// dice decide what a trial does; faces are a fuzzer's bytes, or random.
type dice struct{ faces []byte }

// roll returns a number below n, 0 when nothing is left.
func (d *dice) roll(n int) int {
	switch {
	case len(d.faces) == 0 || n < 2:
		return 0
	case n <= 256 || len(d.faces) == 1:
		face := int(d.faces[0])
		d.faces = d.faces[1:]
		return face % n
	}
	face := int(binary.BigEndian.Uint16(d.faces))
	d.faces = d.faces[2:]
	return face % n
}

func (d *dice) over() bool { return len(d.faces) == 0 }

// A laneTrial is a lane whose peer sends valid frames, cut anywhere, while the
// gateway inserts what it likes.
type laneTrial struct {
	dice
	lane, back lane // back carries the answers to the Pings of lane, and the other way round

	sent    []sentFrame // all frames of the peer's
	begun   bool        // a message, whose next fragment may come
	ended   bool        // the peer has sent a Close
	pending []byte      // of sent, not yet read
	expects bool        // the peer has got a Ping that it may answer
	ping    []byte      // the payload of that
	in      []byte      // what the lane reads into
	out     []byte      // what went on
	pings   int         // of ours
	age     time.Duration
}

// sentFrame is a frame of the peer's, and whether it answers our Ping.
type sentFrame struct {
	wire []byte
	ours bool
}

func newLaneTrial(faces []byte) *laneTrial {
	tr := &laneTrial{dice: dice{faces}, in: make([]byte, 1<<17)}
	o := Options{Kind: WebSocket, Meter: new(Meter)}
	if tr.roll(2) == 1 {
		o.Rules = &Rules{MaxFrame: 1 << 17, MaxMessage: 1 << 40, MessageRate: 1 << 20, Strict: true}
		o.Reserved = rsv1
	}
	toClient := tr.roll(2) == 1
	tr.lane.init(&o, toClient)
	tr.back.init(&o, !toClient)
	return tr
}

// frame makes a frame that the peer may send now.
func (tr *laneTrial) frame() sentFrame {
	masked := !tr.lane.toClient
	control := func(op byte, payload []byte) sentFrame {
		return sentFrame{wire: frame{fin | op, payload}.wireBytes(masked)}
	}
	size := []int{0, 1, 8, 125, 126, 1000, 65535, 65536}[tr.roll(8)]
	switch what := tr.roll(12); {
	case what == 0:
		return control(ping, noise(min(size, 125)))
	case what == 1 && tr.expects:
		tr.expects = false
		f := control(pong, tr.ping)
		f.ours = true
		return f
	case what <= 2: // of 8 bytes, most like ours, now and then
		return control(pong, noise(min(size, 125)))
	case what == 3 && tr.roll(4) == 0:
		tr.ended = true
		return control(closeOp, []byte{3, 232})
	case tr.begun:
		tr.begun = what < 8
		return sentFrame{wire: frame{last(!tr.begun) | cont, noise(size)}.wireBytes(masked)}
	default:
		tr.begun = what < 8
		return sentFrame{wire: frame{last(!tr.begun) | rsv1 | []byte{text, binaryOp}[what&1], noise(size)}.wireBytes(masked)}
	}
}

func last(is bool) byte {
	if is {
		return fin
	}
	return 0
}

// run plays until the dice are over.
func (tr *laneTrial) run() error {
	for !tr.over() && !tr.lane.finished {
		tr.age += time.Millisecond
		if len(tr.pending) < 64 && !tr.ended {
			f := tr.frame()
			tr.sent = append(tr.sent, f)
			tr.pending = append(tr.pending, f.wire...)
		}
		largest := []int{1, 2, 15, 200, 1 << 16}[tr.roll(5)]
		tr.reads(1 + tr.roll(largest))
		if err := tr.bounds(); err != nil {
			return err
		}
		switch tr.roll(16) {
		case 0:
			tr.inserts()
		case 1:
			if tr.lane.closing == nil && tr.roll(4) == 0 {
				tr.lane.closing = &closing{code: 1012, upstream: 1012, reason: "now"}
			}
		}
		tr.decide()
	}
	return nil
}

// reads has the lane read n bytes of what its peer has sent.
func (tr *laneTrial) reads(n int) {
	n = min(n, len(tr.pending), len(tr.in)-maxHeader)
	if n == 0 {
		return
	}
	held := tr.lane.hold(tr.in)
	copy(tr.in[held:], tr.pending[:n])
	tr.pending = tr.pending[n:]
	tr.goesOn(tr.lane.pass(tr.in[:held+n], tr.age))
}

func (tr *laneTrial) goesOn(b []byte) {
	tr.out = append(tr.out, b...)
	tr.lane.went(len(b))
}

func (tr *laneTrial) bounds() error {
	l := &tr.lane
	if l.heldLen > maxHeader-1 {
		return fmt.Errorf("%d bytes are held", l.heldLen)
	}
	if l.track.state == lost || l.track.state == refused {
		return fmt.Errorf("state %v after valid frames", l.track.state)
	}
	if len(tr.pending) == 0 && !tr.torn() && l.heldLen > 0 {
		return fmt.Errorf("%d bytes are held behind a whole frame", l.heldLen)
	}
	return nil
}

func (tr *laneTrial) torn() bool { return len(tr.pending) > 0 }

// inserts is a Ping of ours, and the chance of its answer.
func (tr *laneTrial) inserts() {
	if !tr.lane.insertable() || tr.lane.closing != nil {
		return
	}
	b := tr.lane.ping(&tr.back)
	tr.out = append(tr.out, b...)
	tr.pings++
	// The peer of this lane is pinged by the other one.
	p := tr.back.ping(&tr.lane)
	tr.ping, tr.expects = bytes.Clone(p[2:]), true
	for i, f := range tr.sent { // one that is still to be read is late now
		if f.ours && tr.unread(i) {
			tr.sent[i].ours = false
		}
	}
}

// unread tells whether the last byte of a frame was not read yet.
func (tr *laneTrial) unread(i int) bool {
	behind := 0
	for _, f := range tr.sent[i+1:] {
		behind += len(f.wire)
	}
	return len(tr.pending) > behind
}

func (tr *laneTrial) decide() {
	if l := &tr.lane; !l.finished && l.done() {
		b, insert := l.last()
		tr.out = append(tr.out, b...)
		if !insert {
			l.went(len(b))
		}
		l.finished, l.inserted = true, insert
	}
}

// check compares what went on with what was sent.
func (tr *laneTrial) check() error {
	r := bytes.NewReader(tr.out)
	var passed, messages int64
	next, pings := 0, 0
	for {
		for next < len(tr.sent) && tr.sent[next].ours {
			next++
		}
		rest := tr.out[len(tr.out)-r.Len():]
		f, _, err := readFrame(r)
		frame := rest[:len(rest)-r.Len()]
		switch {
		case err == nil && next < len(tr.sent) && bytes.Equal(frame, tr.sent[next].wire):
			passed += int64(len(frame))
			next++
			if op := f.first & 0xf; op < 8 && f.first&fin != 0 {
				messages++
			}
		case err == nil && f.first == fin|ping && len(f.payload) == nonceLen:
			pings++
		case err == nil && tr.lane.inserted && r.Len() == 0:
			if f.first != fin|closeOp || string(f.payload) != "\x03\xf4now" {
				return fmt.Errorf("the last frame is %x %q", f.first, f.payload)
			}
			return tr.counts(passed, messages, pings)
		case err == nil:
			return fmt.Errorf("frame %d went on as %x %.40x, want %.40x", next, f.first, frame, tr.sent[min(next, len(tr.sent)-1)].wire)
		case err == io.EOF && len(rest) == 0:
			return tr.counts(passed, messages, pings)
		case next == len(tr.sent) || !bytes.HasPrefix(tr.sent[next].wire, rest):
			return fmt.Errorf("a torn frame %.40x is not the beginning of frame %d of %d", rest, next, len(tr.sent))
		default:
			return tr.counts(passed+int64(len(rest)), messages, pings)
		}
	}
}

func (tr *laneTrial) counts(passed, messages int64, pings int) error {
	traffic := tr.lane.traffic()
	if traffic.Bytes != passed || traffic.Messages != messages || pings != tr.pings {
		return fmt.Errorf("%d bytes, %d messages and %d Pings of ours went on; counted %+v and %d", passed, messages, pings, traffic, tr.pings)
	}
	if m := tr.lane.meter; m.Bytes.Load() != passed || m.Messages.Load() != messages {
		return fmt.Errorf("%d bytes and %d messages metered of %d and %d", m.Bytes.Load(), m.Messages.Load(), passed, messages)
	}
	return nil
}

// complete tells whether everything that was read and is whole went on.
func (tr *laneTrial) complete() error {
	if tr.lane.finished {
		return nil
	}
	tr.reads(len(tr.pending))
	for len(tr.pending) > 0 {
		tr.reads(len(tr.pending))
	}
	tr.lane.over = true
	tr.decide()
	want, pinged := 0, tr.pings*(2+nonceLen)
	for _, f := range tr.sent {
		if !f.ours {
			want += len(f.wire)
		}
	}
	if tr.lane.closing == nil && len(tr.out) != want+pinged {
		return fmt.Errorf("%d bytes went on at the end, want %d", len(tr.out), want+pinged)
	}
	return nil
}

func (tr *laneTrial) all() error {
	if err := tr.run(); err != nil {
		return err
	}
	if err := tr.complete(); err != nil {
		return err
	}
	return tr.check()
}

// TestLane: however a valid stream is cut, and whatever the gateway inserts, what
// goes on are the peer's bytes without the answers to our Pings, and frames of
// ours stand only between frames.
func TestLane(t *testing.T) {
	pure(t)
	seed := rand.Uint64()
	random := rand.NewChaCha8([32]byte(binary.BigEndian.AppendUint64(make([]byte, 24), seed)))
	var pings, swallowed, closes int
	for i := range 200 {
		faces := make([]byte, 20+2*i)
		random.Read(faces)
		tr := newLaneTrial(faces)
		if err := tr.all(); err != nil {
			t.Fatalf("seed %d, trial %d: %v", seed, i, err)
		}
		pings += tr.pings
		for _, f := range tr.sent {
			if f.ours {
				swallowed++
			}
		}
		if tr.lane.inserted {
			closes++
		}
	}
	if pings == 0 || swallowed == 0 || closes == 0 {
		t.Errorf("%d Pings, %d answers, %d Closes: nothing was tried", pings, swallowed, closes)
	}
}

// FuzzLane is the same with dice of the fuzzer's.
func FuzzLane(f *testing.F) {
	random := rand.NewChaCha8([32]byte{1})
	for i := range 16 {
		faces := make([]byte, 50*i)
		random.Read(faces)
		f.Add(faces)
	}
	f.Fuzz(func(t *testing.T, faces []byte) {
		if len(faces) > 1<<14 {
			return
		}
		if err := newLaneTrial(faces).all(); err != nil {
			t.Fatal(err)
		}
	})
}

// TestLaneRefusesAnywhere: of a refused frame nothing goes on and of what stands
// before it everything, however the stream is cut.
func TestLaneRefusesAnywhere(t *testing.T) {
	pure(t)
	refuse := func(t *testing.T, side End, o offence) {
		good := stream(side == EndClient, o.good...)
		whole := o.stream(side)
		header := len(good) + headerSize(whole[len(good):])
		from := max(0, len(good)-20)
		for a := from; a <= header; a++ {
			for b := a; b <= header; b++ {
				var l lane
				l.init(&Options{Kind: WebSocket, Rules: &o.rules, Reserved: o.reserved}, side == EndUpstream)
				out := laneOutput(&l, whole[:a], whole[a:b], whole[b:])
				if !bytes.Equal(out, good) || l.track.state != refused || l.heldLen != 0 || !l.insertable() {
					t.Fatalf("cut at %d and %d: %d bytes went on of %d, state %v, %d held", a, b, len(out), len(good), l.track.state, l.heldLen)
				}
				if v := l.track.broken; v.code != o.code {
					t.Fatalf("cut at %d and %d: refused with %+v, want %d", a, b, v, o.code)
				}
			}
		}
	}
	forSides(t, sizes(), refuse)
	forSides(t, violations(), refuse)
}

func laneOutput(l *lane, pieces ...[]byte) (out []byte) {
	for _, p := range pieces {
		b := make([]byte, maxHeader+len(p))
		held := l.hold(b)
		out = append(out, l.pass(append(b[:held], p...), 0)...)
	}
	return out
}

// TestAnswers: the answer to our Ping is cut out of the client's stream wherever
// that is cut, and nothing else is.
func TestAnswers(t *testing.T) {
	pure(t)
	cases := map[string]struct {
		before, after []wired
		payload       func(nonce []byte) []byte
		first         byte
		passes        bool
	}{
		"alone":              {},
		"among frames":       {before: frames(frame{fin | text, []byte("a")}, frame{fin | ping, nil}), after: frames(frame{fin | pong, []byte("12345678")}, frame{fin | text, []byte("b")})},
		"within a message":   {before: frames(frame{text, []byte("a")}), after: frames(frame{fin | cont, []byte("b")})},
		"before a Close":     {after: frames(closing1(1000, "bye"))},
		"behind a Close":     {before: frames(closing1(1000, "bye")), passes: true},
		"one bit wrong":      {payload: func(b []byte) []byte { b[7] ^= 1; return b }, passes: true},
		"too short":          {payload: func(b []byte) []byte { return b[:7] }, passes: true},
		"too long":           {payload: func(b []byte) []byte { return append(b, 0) }, passes: true},
		"empty":              {payload: func([]byte) []byte { return nil }, passes: true},
		"a Ping":             {first: fin | ping, passes: true},
		"a message":          {first: fin | binaryOp, passes: true},
		"twice":              {payload: func(b []byte) []byte { return b }, after: frames()},
		"wrong, then others": {payload: func([]byte) []byte { return []byte("87654321") }, passes: true, after: frames(frame{fin | text, noise(300)}, frame{fin | pong, []byte("12345678")})},
	}
	for name, c := range cases {
		var client, node lane
		client.init(&Options{Kind: WebSocket}, false)
		node.init(&Options{Kind: WebSocket}, true)
		nonce := bytes.Clone(node.ping(&client)[2:])
		answer := frame{fin | pong, bytes.Clone(nonce)}
		if c.first != 0 {
			answer.first = c.first
		}
		if c.payload != nil {
			answer.payload = c.payload(answer.payload)
		}
		before, middle, after := stream(true, c.before...), answer.wireBytes(true), stream(true, c.after...)
		if name == "twice" { // only one of them answers
			after = bytes.Clone(middle)
		}
		whole := bytes.Join([][]byte{before, middle, after}, nil)
		want := append(bytes.Clone(before), after...)
		if c.passes {
			want = whole
		}
		for a := range len(whole) + 1 {
			for b := a; b <= len(whole); b++ {
				l := &lane{}
				l.init(&Options{Kind: WebSocket}, false)
				l.nonce.Store((*[nonceLen]byte)(nonce))
				out := laneOutput(l, whole[:a], whole[a:b], whole[b:])
				if !bytes.Equal(out, want) || l.heldLen != 0 {
					t.Fatalf("%s, cut at %d and %d: %x went on, want %x; %d held", name, a, b, out, want, l.heldLen)
				}
				if answered := l.nonce.Load() == nil; answered == c.passes {
					t.Fatalf("%s, cut at %d and %d: answered %v", name, a, b, answered)
				}
				counted := int64(bytes.Count(want, []byte{fin | pong, 0x80 | 8}))
				if name != "too short" && name != "too long" && name != "empty" && name != "behind a Close" && l.traffic().Pongs != counted {
					t.Fatalf("%s, cut at %d and %d: %d Pongs counted of %d", name, a, b, l.traffic().Pongs, counted)
				}
			}
		}
	}
}

// TestAnswerHeldAtEnd: what was held because it might have been an answer goes on
// when the stream ends there.
func TestAnswerHeldAtEnd(t *testing.T) {
	var l lane
	l.init(&Options{Kind: WebSocket}, false)
	l.nonce.Store(&[nonceLen]byte{1, 2, 3})
	part := frame{fin | pong, []byte{1, 2, 3, 0, 0, 0, 0, 0}}.wireBytes(true)[:13]
	if out := laneOutput(&l, part); len(out) != 0 || l.heldLen != 13 {
		t.Fatalf("%x went on, %d held", out, l.heldLen)
	}
	l.over = true
	if b, insert := l.last(); !bytes.Equal(b, part) || insert {
		t.Errorf("%x at the end, %v; want what was held", b, insert)
	}
}

// TestLatePong: the answer to a Ping before the last one is the peer's own affair,
// and the last one is still answered.
func TestLatePong(t *testing.T) {
	var client, node lane
	client.init(&Options{Kind: WebSocket}, false)
	node.init(&Options{Kind: WebSocket}, true)
	first := bytes.Clone(node.ping(&client)[2:])
	second := bytes.Clone(node.ping(&client)[2:])
	late, answer := frame{fin | pong, first}.wireBytes(true), frame{fin | pong, second}.wireBytes(true)
	if out := laneOutput(&client, late, answer, late); !bytes.Equal(out, append(bytes.Clone(late), late...)) {
		t.Errorf("%x went on, want the late ones alone", out)
	}
	if client.nonce.Load() != nil || client.traffic().Pongs != 2 {
		t.Errorf("answered %v, %d Pongs", client.nonce.Load() == nil, client.traffic().Pongs)
	}
}

// TestNonceInAPong: a Ping sent while a Pong is half through does not hold the
// rest of it.
func TestNonceInAPong(t *testing.T) {
	var l lane
	l.init(&Options{Kind: WebSocket}, false)
	b := frame{fin | pong, []byte("12345678")}.wireBytes(true)
	if out := laneOutput(&l, b[:9]); !bytes.Equal(out, b[:9]) {
		t.Fatalf("%x went on", out)
	}
	l.nonce.Store((*[nonceLen]byte)([]byte("12345678")))
	if out := laneOutput(&l, b[9:]); !bytes.Equal(out, b[9:]) || l.heldLen != 0 {
		t.Errorf("%x went on, %d held; want the rest", out, l.heldLen)
	}
}

// TestLaneAllocatesNothing: on the way of a message, with and without rules.
func TestLaneAllocatesNothing(t *testing.T) {
	pure(t)
	for name, rules := range map[string]*Rules{"no rules": nil, "rules": {MaxFrame: 1 << 20, MaxMessage: 1 << 20, MessageRate: 1 << 30, Strict: true}} {
		var l lane
		l.init(&Options{Kind: WebSocket, Rules: rules, Meter: new(Meter)}, false)
		l.nonce.Store(&[nonceLen]byte{1})
		b := join(true, frame{fin | text, noise(128)}, frame{fin | pong, noise(8)}, frame{text, noise(128)}, frame{fin | cont, nil})
		in := make([]byte, maxHeader+len(b))
		pass := func(part []byte) {
			held := l.hold(in)
			n := copy(in[held:], part)
			l.went(len(l.pass(in[:held+n], time.Second)))
		}
		if n := testing.AllocsPerRun(100, func() { pass(b[:5]); pass(b[5:150]); pass(b[150:]) }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
		if l.track.messages() != 202 {
			t.Errorf("%s: %d messages", name, l.track.messages())
		}
	}
}

func BenchmarkLanePass(b *testing.B) {
	rules := map[string]*Rules{"free": nil, "rules": {MaxFrame: 1 << 20, MaxMessage: 1 << 20, MessageRate: 1 << 30, Strict: true}}
	for name, r := range rules {
		for _, size := range []int{128, 16 << 10} {
			b.Run(fmt.Sprintf("%s/%dB", name, size), func(b *testing.B) {
				var l lane
				l.init(&Options{Kind: WebSocket, Rules: r, Meter: new(Meter)}, false)
				in := frame{fin | binaryOp, noise(size)}.wireBytes(true)
				b.SetBytes(int64(len(in)))
				b.ReportAllocs()
				for b.Loop() {
					l.went(len(l.pass(in[:l.hold(in)+len(in)], time.Second)))
				}
				if *l.track.controls(ws.OpPong) != 0 || l.track.state != tracking {
					b.Fatal("not what was meant")
				}
			})
		}
	}
}
