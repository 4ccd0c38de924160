package relay

import (
	"bytes"
	"io"
	"testing"
	"time"
)

// pinged is a setup for Pings that come only when a test says so.
func pinged(w wire) setup {
	s := webSocket(w)
	s.Rules = &Rules{Ping: time.Hour, PingTimeout: time.Hour}
	s.Meter = new(Meter)
	return s
}

// wantPing reads a Ping of the gateway's and returns its payload.
func (r *rig) wantPing() []byte {
	r.t.Helper()
	got, masked, err := readFrame(r.client)
	if err != nil || got.first != fin|ping || masked || len(got.payload) != 8 {
		r.t.Fatalf("got %x %q, masked %v, %v; want a Ping of ours", got.first, got.payload, masked, err)
	}
	return got.payload
}

// TestPing: a client that is quiet is pinged, again and again, and its answers are
// nobody else's affair.
func TestPing(t *testing.T) {
	forWires(t, func(t *testing.T, w wire) {
		s := pinged(w)
		s.Rules = &Rules{Ping: 10 * time.Millisecond, PingTimeout: patience}
		r := open(t, s)
		seen := map[string]bool{}
		for range 5 {
			nonce := r.wantPing()
			seen[string(nonce)] = true
			r.send(r.client, frame{fin | pong, nonce}.wireBytes(true))
		}
		if len(seen) != 5 {
			t.Errorf("%d different Pings of 5", len(seen))
		}
		last := closing1(1000, "done")
		r.send(r.client, last.wireBytes(true))
		r.wantFrame(r.upstream, last, true) // and nothing before it
		r.send(r.upstream, last.wireBytes(false))
		r.upstream.Close()
		for {
			f, _, err := readFrame(r.client)
			if err != nil || f.first != fin|ping {
				if err != nil || !bytes.Equal(f.payload, last.payload) {
					t.Fatalf("got %x %q, %v", f.first, f.payload, err)
				}
				break
			}
		}
		r.client.Close()
		report := r.wantEnd(end{by: EndClient, code: 1000, reason: "done"})
		up, down := int64(len(last.wireBytes(true))), int64(len(last.wireBytes(false)))
		if report.FromClient != (Traffic{Bytes: up}) || report.FromUpstream != (Traffic{Bytes: down}) {
			t.Errorf("report %+v: it counts what the gateway does", report)
		}
		if got := s.Meter.FromClient.Bytes.Load(); got != up {
			t.Errorf("%d bytes metered, want %d", got, up)
		}
	})
}

// TestPongInPieces: the answer is cut out wherever reads cut it, with frames
// before and behind it in the same read, also within a message.
func TestPongInPieces(t *testing.T) {
	before, behind := frame{fin | text, []byte("before")}, frame{fin | binaryOp, noise(30)}
	begin, end := frame{text, []byte("begin")}, frame{fin | cont, []byte("end")}
	for name, around := range map[string][2]frame{"between messages": {before, behind}, "within a message": {begin, end}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := openStepping(t, pinged(wire{}))
			first, second := around[0].wireBytes(true), around[1].wireBytes(true)
			for cut := range 2 + nonceLen + 4 + len(second) {
				pingNow(r.Tunnel)
				answer := frame{fin | pong, r.wantPing()}.wireBytes(true)
				all := append(append(bytes.Clone(first), answer...), second...)
				r.step(r.client, all[:len(first)+cut], len(all))
				r.step(r.client, all[len(first)+cut:], len(all))
				r.wantFrame(r.upstream, around[0], true)
				r.wantFrame(r.upstream, around[1], true)
			}
			pingNow(r.Tunnel)
			r.step(r.client, append(bytes.Clone(first), frame{fin | pong, r.wantPing()}.wireBytes(true)...), 1)
			r.step(r.client, second, 1)
			r.wantFrame(r.upstream, around[0], true)
			r.wantFrame(r.upstream, around[1], true)
			r.client.Close()
			r.upstream.Close()
			if report := r.report(); report.FromClient.Pongs != 0 {
				t.Errorf("report %+v", report)
			}
		})
	}
}

// TestOtherPongs: what does not answer the last Ping of ours passes: wrong
// payloads, and late answers.
func TestOtherPongs(t *testing.T) {
	forWires(t, func(t *testing.T, w wire) {
		r := open(t, pinged(w))
		pingNow(r.Tunnel)
		first := r.wantPing()
		wrong := bytes.Clone(first)
		wrong[0] ^= 0x80
		r.send(r.client, join(true, frame{fin | pong, wrong}, frame{fin | pong, nil}))
		r.wantFrame(r.upstream, frame{fin | pong, wrong}, true)
		r.wantFrame(r.upstream, frame{fin | pong, nil}, true)

		pingNow(r.Tunnel)
		second := r.wantPing()
		mark := frame{fin | text, []byte("mark")}
		r.send(r.client, join(true, frame{fin | pong, first}, frame{fin | pong, second}, mark))
		r.wantFrame(r.upstream, frame{fin | pong, first}, true)
		r.wantFrame(r.upstream, mark, true)
		r.send(r.client, join(true, frame{fin | pong, second}, mark)) // once is enough
		r.wantFrame(r.upstream, frame{fin | pong, second}, true)
		r.wantFrame(r.upstream, mark, true)
		r.Kill()
		if report := r.report(); report.FromClient.Pongs != 4 || report.FromClient.Messages != 2 {
			t.Errorf("report %+v", report)
		}
	})
}

// TestPingsOfTheUpstream pass, and so do their answers, also beside one of ours.
func TestPingsOfTheUpstream(t *testing.T) {
	forWires(t, func(t *testing.T, w wire) {
		r := open(t, pinged(w))
		for _, payload := range [][]byte{nil, []byte("8 bytes!"), noise(125)} {
			theirs := frame{fin | ping, payload}
			r.send(r.upstream, theirs.wireBytes(false))
			r.wantFrame(r.client, theirs, false)
			pingNow(r.Tunnel)
			ours := r.wantPing()
			r.send(r.client, join(true, frame{fin | pong, ours}, frame{fin | pong, payload}))
			r.wantFrame(r.upstream, frame{fin | pong, payload}, true)
		}
		r.Kill()
		if report := r.report(); report.FromUpstream.Pings != 3 || report.FromClient.Pongs != 3 {
			t.Errorf("report %+v", report)
		}
	})
}

// TestPingInFrame: a frame under way to the client is not interrupted, and a Ping
// that could not be sent need not be answered.
func TestPingInFrame(t *testing.T) {
	forWires(t, func(t *testing.T, w wire) {
		r := open(t, pinged(w))
		f := frame{fin | binaryOp, noise(1000)}
		whole := f.wireBytes(false)
		for _, at := range []int{1, 3, 4, 5, 500, 1003} {
			r.send(r.upstream, whole[:at])
			passed := at
			if at < 4 { // a header that is not complete is held back, and does not stand in the way
				passed = 0
				r.send(r.client, frame{fin | ping, nil}.wireBytes(true))
				r.wantFrame(r.upstream, frame{fin | ping, nil}, true)
			}
			r.wantBytes(r.client, whole[:passed])
			pingNow(r.Tunnel)
			if at < 4 {
				r.send(r.client, frame{fin | pong, r.wantPing()}.wireBytes(true))
			}
			r.send(r.upstream, whole[at:])
			r.wantBytes(r.client, whole[passed:])
		}
		inTunnel(r.Tunnel, func(e *ending, o *Options, s signs) {
			s.now += 2 * o.Rules.PingTimeout
			if act, _ := e.due(o, s); act == endSilent {
				t.Error("the client is taken for dead, for a Ping that it did not get")
			}
		})
	})
}

// TestSilentClient: one that answers nothing ends its tunnel, and both sides are
// told.
func TestSilentClient(t *testing.T) {
	forWires(t, func(t *testing.T, w wire) {
		s := webSocket(w)
		s.Rules = &Rules{Ping: 10 * time.Millisecond, PingTimeout: 10 * time.Millisecond}
		r := open(t, s)
		r.wantPing()
		r.wantFrame(r.client, closing1(1001, reasonSilent), false)
		r.wantEOF(r.client)
		r.wantFrame(r.upstream, closing1(1001, reasonSilent), true)
		r.wantEOF(r.upstream)
		r.client.Close()
		r.upstream.Close()
		if report := r.wantEnd(end{by: EndClient, code: 1001, reason: reasonSilent, cause: ErrSilent.Error()}); report.Cause != ErrSilent {
			t.Errorf("cause %v", report.Cause)
		}
	})
}

// TestAnyByteIsLife: a client that sends anything at all is alive, half a header
// included, and is silent only after the last of it.
func TestAnyByteIsLife(t *testing.T) {
	pure(t)
	o := Options{Kind: WebSocket, Rules: &Rules{Ping: 60 * time.Second, PingTimeout: 20 * time.Second}}
	second := time.Second
	cases := map[string]struct {
		pinged, moved, heard, now time.Duration
		act                       action
		next                      time.Duration
	}{
		"young":                     {0, 0, 0, 59 * second, nothing, 60 * second},
		"quiet from the beginning":  {0, 0, 0, 60 * second, sendPing, 0},
		"the client speaks":         {0, 0, 30 * second, 60 * second, nothing, 90 * second},
		"the node speaks":           {0, 30 * second, 0, 60 * second, nothing, 90 * second},
		"quiet since":               {0, 30 * second, 10 * second, 90 * second, sendPing, 0},
		"pinged":                    {60 * second, 0, 0, 79 * second, nothing, 80 * second},
		"pinged, silent":            {60 * second, 0, 0, 80 * second, endSilent, 0},
		"pinged, a byte came":       {60 * second, 0, 61 * second, 80 * second, nothing, 121 * second},
		"pinged, a byte came late":  {60 * second, 0, 79999 * time.Millisecond, 80 * second, nothing, 139999 * time.Millisecond},
		"the node's bytes are none": {60 * second, 79 * second, 0, 80 * second, endSilent, 0},
		"pinged for the next time":  {121 * second, 0, 61 * second, 141 * second, endSilent, 0},
	}
	for name, c := range cases {
		e := ending{waits: &waits{}, pinged: c.pinged}
		act, next := e.due(&o, signs{now: c.now, moved: c.moved, heard: c.heard})
		if act != c.act || act == nothing && next != c.next {
			t.Errorf("%s: action %d, next %v; want %d, %v", name, act, next, c.act, c.next)
		}
	}
}

// TestHalfAHeaderIsLife: what is held back was heard.
func TestHalfAHeaderIsLife(t *testing.T) {
	r := openStepping(t, pinged(wire{}))
	pingNow(r.Tunnel)
	answer := frame{fin | pong, r.wantPing()}.wireBytes(true)
	for _, b := range [][]byte{{fin | text}, {0x80}} { // nothing goes on
		var before, after signs
		for before.now <= before.heard { // a loop's clock stands still while it works
			inTunnel(r.Tunnel, func(_ *ending, _ *Options, s signs) { before = s })
		}
		r.step(r.client, b, 1)
		for end := time.Now().Add(patience); after.heard <= before.heard; {
			if time.Now().After(end) {
				t.Fatalf("heard at %v, and never since", before.heard)
			}
			inTunnel(r.Tunnel, func(_ *ending, _ *Options, s signs) { after = s })
		}
	}
	r.send(r.client, append(testMask[:], answer...))
	r.wantFrame(r.upstream, frame{fin | text, nil}, true)
}

// TestNoPingBehindAClose: nothing follows a Close, in either direction, and who
// has sent one need not answer Pings (RFC 6455 §5.5.2).
func TestNoPingBehindAClose(t *testing.T) {
	forWires(t, func(t *testing.T, w wire) {
		r := open(t, pinged(w))
		r.send(r.upstream, closing1(1000, "bye").wireBytes(false))
		r.wantFrame(r.client, closing1(1000, "bye"), false)
		pingNow(r.Tunnel)
		r.send(r.client, closing1(1000, "").wireBytes(true))
		r.wantFrame(r.upstream, closing1(1000, ""), true)
		r.upstream.Close()
		r.wantEOF(r.client)

		r = open(t, pinged(w))
		r.send(r.client, closing1(1000, "bye").wireBytes(true))
		r.wantFrame(r.upstream, closing1(1000, "bye"), true)
		inTunnel(r.Tunnel, func(e *ending, o *Options, s signs) {
			s.now += 10 * o.Rules.Ping
			if act, _ := e.due(o, s); act != nothing {
				t.Errorf("action %d for a client that has sent its Close, want none", act)
			}
		})
	})
}

// TestPingsAreNotTraffic: a tunnel on which only the gateway's Pings move is idle.
func TestPingsAreNotTraffic(t *testing.T) {
	forWires(t, func(t *testing.T, w wire) {
		s := webSocket(w)
		s.Rules = &Rules{Ping: 5 * time.Millisecond, PingTimeout: patience}
		s.Idle = 100 * time.Millisecond
		r := open(t, s)
		for {
			f, _, err := readFrame(r.client)
			if err != nil {
				t.Fatalf("after Pings: %v; want a Close", err)
			}
			if f.first != fin|ping {
				break
			}
			r.send(r.client, frame{fin | pong, f.payload}.wireBytes(true))
		}
		r.client.Close()
		if _, err := io.Copy(io.Discard, r.upstream); err != nil {
			t.Error(err)
		}
		r.upstream.Close()
		r.wantEnd(end{by: EndIdle, code: 1001, reason: reasonIdle})
	})
}
