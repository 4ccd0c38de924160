package relay

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func noise(n int) []byte {
	b := make([]byte, n)
	random := rand.NewChaCha8([32]byte{byte(n)})
	random.Read(b)
	return b
}

// forWires runs a test over plain TCP and over TLS.
func forWires(t *testing.T, f func(t *testing.T, w wire)) {
	for name, w := range wires {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f(t, w)
		})
	}
}

func webSocket(w wire) setup { return setup{wire: w, Options: Options{Kind: WebSocket}} }

// TestBytesBothWays sends as much as buffers cannot hold both ways at once, then
// ends one direction after the other.
func TestBytesBothWays(t *testing.T) {
	forWires(t, func(t *testing.T, w wire) {
		r := open(t, setup{wire: w})
		up, down := noise(1<<20+1), noise(1<<20+7)
		var sides sync.WaitGroup
		side := func(c net.Conn, sent, want []byte) {
			var both sync.WaitGroup
			both.Go(func() {
				r.send(c, sent)
				l := newLeg(EndClient, c)
				l.closeWrite()
			})
			got, err := io.ReadAll(c)
			both.Wait()
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("got %d bytes and %v, want %d", len(got), err, len(want))
			}
		}
		sides.Go(func() { side(r.client, up, down) })
		sides.Go(func() { side(r.upstream, down, up) })
		sides.Wait()
		report := r.report()
		if report.Cause != nil || report.FromClient != (Traffic{Bytes: int64(len(up))}) || report.FromUpstream != (Traffic{Bytes: int64(len(down))}) {
			t.Errorf("report %+v", report)
		}
	})
}

func TestFramesBothWays(t *testing.T) {
	frames := []frame{
		{fin | text, []byte("hello")},
		{fin | rsv1 | binaryOp, noise(3000)}, // compressed
		{text, []byte("a")}, {fin | ping, []byte("?")}, {fin | cont, []byte("b")},
		{fin | pong, nil},
		{fin | binaryOp, noise(70000)},
	}
	forWires(t, func(t *testing.T, w wire) {
		r := open(t, webSocket(w))
		for _, f := range frames {
			r.send(r.client, f.wireBytes(true))
			r.wantFrame(r.upstream, f, true)
			r.send(r.upstream, f.wireBytes(false))
			r.wantFrame(r.client, f, false)
		}
		r.send(r.client, closing1(1000, "done").wireBytes(true))
		r.wantFrame(r.upstream, closing1(1000, "done"), true)
		r.send(r.upstream, closing1(1000, "").wireBytes(false))
		r.closeWrite(r.upstream)
		r.wantFrame(r.client, closing1(1000, ""), false)
		r.wantEOF(r.client)
		r.client.Close()
		r.wantEOF(r.upstream)
		report := r.wantEnd(end{by: EndClient, code: 1000, reason: "done"})
		if report.FromClient.Messages != 4 || report.FromUpstream.Messages != 4 ||
			report.FromClient.Bytes != int64(len(join(true, append(frames, closing1(1000, "done"))...))) ||
			report.FromUpstream.Bytes != int64(len(join(false, append(frames, closing1(1000, ""))...))) {
			t.Errorf("report %+v", report)
		}
	})
}

func TestByteByByte(t *testing.T) {
	r := open(t, webSocket(wire{clientTLS: true}))
	frames := []frame{{fin | binaryOp, noise(300)}, {fin | ping, nil}, {text, []byte("x")}, {fin | cont, []byte("y")}}
	for _, f := range frames {
		for _, b := range f.wireBytes(true) {
			r.send(r.client, []byte{b})
		}
		r.wantFrame(r.upstream, f, true)
		for _, b := range f.wireBytes(false) {
			r.send(r.upstream, []byte{b})
		}
		r.wantFrame(r.client, f, false)
	}
}

// TestNotFrames: what is no WebSocket although it was said to be one is carried
// all the same.
func TestNotFrames(t *testing.T) {
	r := open(t, webSocket(wire{}))
	junk := append([]byte("HTTP/1.1 500 Oops\r\n\r\n"), noise(100000)...)
	go r.upstream.Write(junk)
	got := make([]byte, len(junk))
	if _, err := io.ReadFull(r.client, got); err != nil || !bytes.Equal(got, junk) {
		t.Fatalf("got %.40q…, %v", got, err)
	}
	r.Close(1012, "restart")
	r.wantEOF(r.client)
	r.client.Close()
	r.wantFrame(r.upstream, closing1(1001, "restart"), true)
	r.wantEOF(r.upstream)
	r.upstream.Close()
	r.wantEnd(end{by: EndGateway, cause: "no Close could be sent"})
}

func TestEarlyBytes(t *testing.T) {
	for _, cut := range []int{1, 5, 200, 64 << 10} { // in a header, at its end, in the payload, beyond any buffer
		f := frame{fin | binaryOp, noise(100 << 10)}
		up, down := f.wireBytes(true), f.wireBytes(false)
		s := webSocket(wire{upstreamTLS: true})
		s.clientEarly, s.upstreamEarly = bytes.Clone(up[:cut]), bytes.Clone(down[:cut])
		r := open(t, s)
		go r.client.Write(up[cut:])
		r.wantFrame(r.upstream, f, true)
		go r.upstream.Write(down[cut:])
		r.wantFrame(r.client, f, false)
		r.Close(1012, "x")
		r.wantFrame(r.client, closing1(1012, "x"), false)
		r.client.Close()
		r.upstream.Close()
		if report := r.report(); report.FromClient.Messages != 1 || report.FromUpstream.Messages != 1 {
			t.Errorf("cut at %d: report %+v", cut, report)
		}
	}
}

// TestEarlyAfterDeadline: deadlines that a handshake left do not end a tunnel.
func TestEarlyAfterDeadline(t *testing.T) {
	s := setup{client: func(c net.Conn) net.Conn { c.SetDeadline(past); return c }}
	s.upstream = s.client
	r := open(t, s)
	r.send(r.client, []byte("x"))
	if _, err := io.ReadFull(r.upstream, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
}

func TestHalfClose(t *testing.T) {
	forWires(t, func(t *testing.T, w wire) {
		for _, upFirst := range []bool{true, false} {
			r := open(t, setup{wire: w})
			first, second, by := r.client, r.upstream, EndClient
			if !upFirst {
				first, second, by = r.upstream, r.client, EndUpstream
			}
			r.send(first, []byte("question"))
			r.closeWrite(first)
			if got, err := io.ReadAll(second); string(got) != "question" || err != nil {
				t.Fatalf("got %q, %v", got, err)
			}
			answer := noise(200000)
			go func() {
				second.Write(answer)
				second.Close()
			}()
			if got, err := io.ReadAll(first); !bytes.Equal(got, answer) || err != nil {
				t.Fatalf("got %d bytes, %v", len(got), err)
			}
			r.wantEnd(end{by: by})
		}
	})
}

// TestNoHalfClose: a connection that cannot be half-closed is closed whole.
func TestNoHalfClose(t *testing.T) {
	r := open(t, setup{upstream: func(c net.Conn) net.Conn { return struct{ net.Conn }{c} }})
	r.send(r.client, []byte("x"))
	r.closeWrite(r.client)
	if got, err := io.ReadAll(r.upstream); string(got) != "x" || err != nil {
		t.Fatalf("got %q, %v", got, err)
	}
	r.wantEOF(r.client)
	if report := r.report(); report.FromClient.Bytes != 1 {
		t.Errorf("report %+v", report)
	}
}

// TestWebSocketHalfClose: after one side's Close and EOF the other one's answer
// still passes.
func TestWebSocketHalfClose(t *testing.T) {
	forWires(t, func(t *testing.T, w wire) {
		r := open(t, webSocket(w))
		r.send(r.upstream, closing1(1001, "bye").wireBytes(false))
		r.closeWrite(r.upstream)
		r.wantFrame(r.client, closing1(1001, "bye"), false)
		r.wantEOF(r.client)
		r.send(r.client, closing1(1001, "").wireBytes(true))
		r.wantFrame(r.upstream, closing1(1001, ""), true)
		r.closeWrite(r.client)
		r.wantEOF(r.upstream)
		r.wantEnd(end{by: EndUpstream, code: 1001, reason: "bye"})
	})
}

// TestHalfClosedForEver: nobody keeps half a WebSocket.
func TestHalfClosedForEver(t *testing.T) {
	s := webSocket(wire{})
	s.waits = &quick
	r := open(t, s)
	r.closeWrite(r.client)
	r.wantEOF(r.upstream) // and it does not care
	r.wantEnd(end{by: EndClient, cause: "without a Close"})

	r = open(t, s)
	r.send(r.client, closing1(1000, "").wireBytes(true))
	r.send(r.upstream, closing1(1000, "").wireBytes(false))
	r.wantFrame(r.client, closing1(1000, ""), false) // and nobody closes
	if report := r.report(); report.CloseCode != 1000 || report.Cause != nil {
		t.Errorf("report %+v", report)
	}
}

func TestUpstreamLost(t *testing.T) {
	lost := closing1(1014, "upstream connection lost")
	ends := map[string]func(r *rig){
		"EOF":       func(r *rig) { r.closeWrite(r.upstream) },
		"closed":    func(r *rig) { r.upstream.Close() },
		"reset":     func(r *rig) { reset(r.upstream) },
		"in header": func(r *rig) { r.send(r.upstream, []byte{0x82, 0x7e, 0x10}); r.closeWrite(r.upstream) },
	}
	for name, lose := range ends {
		t.Run(name, func(t *testing.T) {
			forWires(t, func(t *testing.T, w wire) {
				r := open(t, webSocket(w))
				r.send(r.upstream, frame{fin | text, []byte("last words")}.wireBytes(false))
				r.wantFrame(r.client, frame{fin | text, []byte("last words")}, false)
				lose(r)
				r.wantFrame(r.client, lost, false)
				r.client.Write(closing1(1014, "").wireBytes(true))
				r.wantEOF(r.client)
				r.client.Close()
				if name == "EOF" {
					r.wantFrame(r.upstream, closing1(1014, ""), true)
				}
				report := r.report()
				if report.EndedBy != EndUpstream || report.Cause == nil || report.CloseCode != 1014 || report.CloseReason != "upstream connection lost" {
					t.Errorf("report %+v", report)
				}
			})
		})
	}
}

// TestUpstreamLostInFrame: a torn frame is followed by nothing.
func TestUpstreamLostInFrame(t *testing.T) {
	forWires(t, func(t *testing.T, w wire) {
		for _, lose := range []func(net.Conn){reset, func(c net.Conn) { c.Close() }} {
			s := webSocket(w)
			s.waits = &quick
			r := open(t, s)
			part := frame{fin | binaryOp, noise(5000)}.wireBytes(false)[:2000]
			r.send(r.upstream, part)
			got := make([]byte, len(part))
			if _, err := io.ReadFull(r.client, got); err != nil || !bytes.Equal(got, part) {
				t.Fatal(err)
			}
			lose(r.upstream)
			r.wantEOF(r.client)
			if report := r.report(); report.EndedBy != EndUpstream || report.CloseCode != 0 || report.Cause == nil {
				t.Errorf("report %+v", report)
			}
		}
	})
}

func TestClientLost(t *testing.T) {
	for name, lose := range map[string]func(net.Conn){"closed": func(c net.Conn) { c.Close() }, "reset": reset} {
		t.Run(name, func(t *testing.T) {
			forWires(t, func(t *testing.T, w wire) {
				r := open(t, webSocket(w))
				f := frame{fin | text, []byte("hi")}
				r.send(r.client, f.wireBytes(true))
				r.wantFrame(r.upstream, f, true)
				lose(r.client)
				r.wantEOF(r.upstream)
				r.upstream.Close()
				report := r.report()
				if report.EndedBy != EndClient || report.Cause == nil || report.CloseCode != 0 || report.FromClient.Messages != 1 {
					t.Errorf("report %+v", report)
				}
			})
		})
	}
}

// TestDeadBytesPeer: a Bytes leg that failed does not keep the tunnel until the
// idle limit.
func TestDeadBytesPeer(t *testing.T) {
	r := open(t, setup{waits: &quick})
	reset(r.client)
	r.wantEOF(r.upstream) // and it does nothing
	r.wantEnd(end{by: EndClient, cause: "reading from the client"})
}

func TestCloseIdle(t *testing.T) {
	forWires(t, func(t *testing.T, w wire) {
		r := open(t, webSocket(w))
		r.Close(1012, "node restarts")
		r.Close(4000, "too late")
		r.wantFrame(r.client, closing1(1012, "node restarts"), false)
		r.send(r.upstream, frame{fin | text, []byte("too late")}.wireBytes(false))
		r.send(r.client, frame{fin | text, []byte("in flight")}.wireBytes(true))
		r.send(r.client, closing1(1012, "").wireBytes(true))
		r.wantFrame(r.upstream, frame{fin | text, []byte("in flight")}, true)
		r.wantFrame(r.upstream, closing1(1012, ""), true)
		r.wantEOF(r.upstream)
		r.send(r.upstream, closing1(1012, "").wireBytes(false))
		r.upstream.Close()
		r.wantEOF(r.client)
		r.client.Close()
		report := r.wantEnd(end{by: EndGateway, code: 1012, reason: "node restarts"})
		if report.FromUpstream != (Traffic{}) || report.FromClient.Messages != 1 {
			t.Errorf("report %+v", report)
		}
	})
}

// TestCloseInFrame: the Close waits for the end of the frame, wherever in it the
// stream stands, and nothing comes after it.
func TestCloseInFrame(t *testing.T) {
	f := frame{fin | binaryOp, noise(1000)}
	stream := join(false, f, frame{fin | text, []byte("never seen")})
	for _, at := range []int{4, 5, 1003} {
		forWires(t, func(t *testing.T, w wire) {
			r := open(t, webSocket(w))
			r.send(r.upstream, stream[:at])
			got := make([]byte, at)
			if _, err := io.ReadFull(r.client, got); err != nil {
				t.Fatal(err)
			}
			r.Close(1001, "drain")
			r.send(r.upstream, stream[at:])
			r.wantFrame(io2conn{io.MultiReader(bytes.NewReader(got), r.client), r.client}, f, false)
			r.wantFrame(r.client, closing1(1001, "drain"), false)
			r.client.Close()
			r.wantFrame(r.upstream, closing1(1001, "drain"), true) // the client sent none
			r.wantEOF(r.upstream)
			r.upstream.Close()
			r.wantEnd(end{by: EndGateway, code: 1001, reason: "drain"})
		})
	}
}

// io2conn reads from elsewhere.
type io2conn struct {
	r io.Reader
	net.Conn
}

func (c io2conn) Read(b []byte) (int, error) { return c.r.Read(b) }

// TestCloseInHeader: a header that is not complete was not passed on, so the
// Close need not wait.
func TestCloseInHeader(t *testing.T) {
	first, second := frame{fin | text, []byte("whole")}, frame{fin | binaryOp, noise(70000)}
	stream := join(false, first, second)
	for _, n := range []int{1, 2, 9} {
		r := open(t, webSocket(wire{}))
		r.send(r.upstream, stream[:7+n])
		r.wantFrame(r.client, first, false)
		r.Close(1012, "now")
		r.wantFrame(r.client, closing1(1012, "now"), false)
		r.client.Close()
		r.wantFrame(r.upstream, closing1(1001, "now"), true)
		r.upstream.Close()
		r.wantEnd(end{by: EndGateway, code: 1012, reason: "now"})
	}
}

// TestCloseInFlood: both peers send without a pause.
func TestCloseInFlood(t *testing.T) {
	forWires(t, func(t *testing.T, w wire) {
		r := open(t, webSocket(w))
		f := frame{fin | binaryOp, noise(7001)}
		var floods sync.WaitGroup
		floods.Go(func() {
			b := f.wireBytes(false)
			for {
				if _, err := r.upstream.Write(b); err != nil {
					return
				}
			}
		})
		answered := make(chan struct{})
		floods.Go(func() {
			b := f.wireBytes(true)
			for {
				select {
				case <-answered:
					r.client.Write(closing1(1012, "").wireBytes(true))
					l := newLeg(EndClient, r.client)
					l.closeWrite()
					return
				default:
					if _, err := r.client.Write(b); err != nil {
						t.Error(err)
						return
					}
				}
			}
		})
		floods.Go(func() { drainFrames(t, r.upstream, f, true, closing1(1012, ""), nil); r.upstream.Close() })
		r.wantFrame(r.client, f, false)
		r.Close(1012, "flooded")
		drainFrames(t, r.client, f, false, closing1(1012, "flooded"), func() { close(answered) })
		floods.Wait()
		if report := r.report(); report.EndedBy != EndGateway || report.CloseCode != 1012 || report.CloseReason != "flooded" {
			t.Errorf("report %+v", report)
		}
	})
}

// drainFrames reads frames like f up to the last one, and then EOF.
func drainFrames(t *testing.T, c net.Conn, f frame, masked bool, last frame, seen func()) {
	for {
		got, m, err := readFrame(c)
		if err != nil || m != masked {
			t.Errorf("reading frames: %v, masked %v", err, m)
			return
		}
		if got.first == last.first && bytes.Equal(got.payload, last.payload) {
			break
		}
		if got.first != f.first || !bytes.Equal(got.payload, f.payload) {
			t.Errorf("a torn frame: %x of %d bytes", got.first, len(got.payload))
			return
		}
	}
	if seen != nil {
		seen()
	}
	if n, err := c.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("after the Close: %d bytes, %v", n, err)
	}
}

// TestCloseUnanswered: a client that says nothing more still gets EOF, not a
// reset, and its upstream a Close.
func TestCloseUnanswered(t *testing.T) {
	forWires(t, func(t *testing.T, w wire) {
		s := webSocket(w)
		s.waits = &waits{answer: 50 * time.Millisecond, linger: 2 * patience, half: 2 * patience, last: patience}
		r := open(t, s)
		r.send(r.client, []byte{0x81}) // half a header does not stand in the way of the Close to the upstream
		r.Close(1001, "shutting down")
		r.wantFrame(r.client, closing1(1001, "shutting down"), false)
		r.wantEOF(r.client)
		r.wantFrame(r.upstream, closing1(1001, "shutting down"), true)
		r.wantEOF(r.upstream)
		r.wantEOF(tcp(r.client)) // the TCP stream has ended as well
		r.client.Close()
		r.upstream.Close()
		r.wantEnd(end{by: EndGateway, code: 1001, reason: "shutting down"})
	})
}

// TestCloseWaitsForAnswer: the client's stream ends after its own Close, not
// before.
func TestCloseWaitsForAnswer(t *testing.T) {
	var answered atomic.Bool
	early := make(chan bool, 1)
	finished := make(chan struct{})
	s := webSocket(wire{})
	s.client = func(c net.Conn) net.Conn {
		return hooked{TCPConn: c.(*net.TCPConn), closeWrite: func() { early <- !answered.Load() }}
	}
	s.upstream = func(c net.Conn) net.Conn { return hooked{TCPConn: c.(*net.TCPConn), eof: func() { close(finished) }} }
	r := open(t, s)
	r.Close(1012, "restart")
	r.wantFrame(r.client, closing1(1012, "restart"), false)
	r.closeWrite(r.upstream)
	<-finished // the direction to the client does nothing more
	answered.Store(true)
	r.send(r.client, closing1(1012, "").wireBytes(true))
	r.wantFrame(r.upstream, closing1(1012, ""), true)
	r.wantEOF(r.client)
	if <-early {
		t.Error("the client's stream ended before its answer")
	}
}

// hooked is a connection that tells what happens to it.
type hooked struct {
	*net.TCPConn
	closeWrite, eof func()
}

func (h hooked) CloseWrite() error {
	if h.closeWrite != nil {
		h.closeWrite()
	}
	return h.TCPConn.CloseWrite()
}

func (h hooked) Read(b []byte) (int, error) {
	n, err := h.TCPConn.Read(b)
	if err == io.EOF && h.eof != nil {
		h.eof()
	}
	return n, err
}

// TestLinger: peers that have said all there is to say and do not close are not
// waited for.
func TestLinger(t *testing.T) {
	s := webSocket(wire{})
	s.waits = &waits{answer: time.Hour, linger: 50 * time.Millisecond, half: time.Hour, last: time.Hour}
	r := open(t, s)
	r.Close(1012, "restart")
	r.wantFrame(r.client, closing1(1012, "restart"), false)
	r.send(r.client, closing1(1012, "").wireBytes(true))
	r.wantEnd(end{by: EndGateway, code: 1012, reason: "restart"})
}

// TestCloseStuckInFrame: when a frame does not end, the tunnel ends without our
// Close.
func TestCloseStuckInFrame(t *testing.T) {
	forWires(t, func(t *testing.T, w wire) {
		s := webSocket(w)
		s.waits = &quick
		r := open(t, s)
		part := frame{fin | binaryOp, noise(100)}.wireBytes(false)[:50]
		masked := frame{fin | binaryOp, noise(100)}.wireBytes(true)[:50]
		r.send(r.upstream, part)
		r.send(r.client, masked)
		if _, err := io.ReadFull(r.client, make([]byte, len(part))); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(r.upstream, make([]byte, len(masked))); err != nil {
			t.Fatal(err)
		}
		r.Close(1012, "never sent")
		r.wantEOF(r.client)
		r.wantEOF(r.upstream)
		r.wantEnd(end{by: EndGateway, cause: "no Close could be sent"})
	})
}

// TestCloseAfterPeersClose: what a peer has closed gets no second Close.
func TestCloseAfterPeersClose(t *testing.T) {
	r := open(t, webSocket(wire{}))
	r.send(r.upstream, closing1(1000, "first").wireBytes(false))
	r.wantFrame(r.client, closing1(1000, "first"), false)
	r.Close(1012, "second")
	r.send(r.client, closing1(1000, "").wireBytes(true))
	r.wantEOF(r.client)
	r.wantFrame(r.upstream, closing1(1000, ""), true)
	r.wantEOF(r.upstream)
	r.client.Close()
	r.upstream.Close()
	r.wantEnd(end{by: EndUpstream, code: 1000, reason: "first"})

	r = open(t, webSocket(wire{}))
	r.send(r.client, closing1(1000, "first").wireBytes(true))
	r.wantFrame(r.upstream, closing1(1000, "first"), true)
	r.Close(1012, "answers it")
	r.wantFrame(r.client, closing1(1012, "answers it"), false)
	r.wantEOF(r.client)
	r.wantEOF(r.upstream)
	r.client.Close()
	r.upstream.Close()
	r.wantEnd(end{by: EndClient, code: 1000, reason: "first"})
}

func TestCloseBytes(t *testing.T) {
	forWires(t, func(t *testing.T, w wire) {
		r := open(t, setup{wire: w})
		r.send(r.client, []byte("up"))
		r.send(r.upstream, []byte("down"))
		if _, err := io.ReadFull(r.upstream, make([]byte, 2)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(r.client, make([]byte, 4)); err != nil {
			t.Fatal(err)
		}
		r.Close(1012, "no meaning here")
		r.wantEOF(r.client)
		r.wantEOF(r.upstream)
		r.client.Close()
		r.upstream.Close()
		r.wantEnd(end{by: EndGateway})
	})
}

// TestCloseDeafPeers: peers that neither read nor close do not hold a tunnel.
func TestCloseDeafPeers(t *testing.T) {
	forWires(t, func(t *testing.T, w wire) {
		for _, kind := range []Kind{Bytes, WebSocket} {
			r := open(t, setup{wire: w, Options: Options{Kind: kind}, waits: &quick, sockets: 16 << 10})
			<-fill(r.upstream, false)
			<-fill(r.client, true)
			r.Close(1012, "restart")
			report := r.report()
			sent := kind == Bytes || report.CloseCode == 1012 // what room the sockets had is theirs to know
			if report.EndedBy != EndGateway || sent != (report.Cause == nil) {
				t.Errorf("kind %v: report %+v", kind, report)
			}
		}
	})
}

// fill writes frames until the connection ends. The channel is closed when some
// of them are on their way.
func fill(c net.Conn, masked bool) <-chan struct{} {
	flowing := make(chan struct{})
	b := frame{fin | binaryOp, noise(1000)}.wireBytes(masked)
	go func() {
		_, err := c.Write(b)
		close(flowing)
		for err == nil {
			_, err = c.Write(b)
		}
	}()
	return flowing
}

func TestKill(t *testing.T) {
	forWires(t, func(t *testing.T, w wire) {
		for _, busy := range []bool{false, true} {
			r := open(t, webSocket(w))
			if busy {
				<-fill(r.upstream, false)
				<-fill(r.client, true)
			}
			r.Kill()
			r.Kill()
			r.Close(1000, "")
			r.wantEnd(end{by: EndGateway, cause: "killed"})
		}
	})
}

func TestIdle(t *testing.T) {
	s := webSocket(wire{clientTLS: true})
	s.Idle = 50 * time.Millisecond
	r := open(t, s)
	r.wantFrame(r.client, closing1(1001, reasonIdle), false)
	r.send(r.client, closing1(1001, "").wireBytes(true))
	r.wantFrame(r.upstream, closing1(1001, ""), true)
	r.client.Close()
	r.upstream.Close()
	r.wantEnd(end{by: EndIdle, code: 1001, reason: reasonIdle})

	r = open(t, setup{Options: Options{Idle: 50 * time.Millisecond}})
	r.wantEOF(r.client)
	r.wantEOF(r.upstream)
	r.client.Close()
	r.upstream.Close()
	r.wantEnd(end{by: EndIdle})
}

// TestIdleCountsFromTheLastByte: what counts is when a byte moved, not when the
// tunnel began.
func TestIdleCountsFromTheLastByte(t *testing.T) {
	for moved, idle := range map[time.Duration]bool{0: true, 30 * time.Minute: true, 119 * time.Minute: false} {
		_, near := pair(t, false, 0, false)
		_, far := pair(t, false, 0, true)
		tunnel := newGoTunnel(New(), Leg{Conn: near}, Leg{Conn: far}, Options{Idle: time.Hour})
		tunnel.started = tunnel.started.Add(-2 * time.Hour)
		tunnel.moved.Store(int64(moved))
		tunnel.check()
		if got := tunnel.closing != nil; got != idle {
			t.Errorf("2 h old, last byte at %v: idle %v, want %v", moved, got, idle)
		}
		if tunnel.timer != nil {
			tunnel.timer.Stop()
		}
	}
}

func TestLifetime(t *testing.T) {
	s := webSocket(wire{})
	s.Lifetime = 50 * time.Millisecond
	r := open(t, s)
	f := frame{fin | binaryOp, noise(1000)}
	fill(r.upstream, false) // a tunnel that is anything but idle
	drainFrames(t, r.client, f, false, closing1(1001, reasonLifetime), func() { r.client.Write(closing1(1001, "").wireBytes(true)) })
	r.client.Close()
	r.upstream.Close()
	r.wantEnd(end{by: EndLifetime, code: 1001, reason: reasonLifetime})
}

// What a client was let in by ends: it is told so with 1008, and the node with
// the client's own Close.
func TestExpiry(t *testing.T) {
	s := webSocket(wire{})
	s.Lifetime, s.Expiry = time.Hour, 50*time.Millisecond
	r := open(t, s)
	f := frame{fin | binaryOp, noise(1000)}
	fill(r.upstream, false)
	drainFrames(t, r.client, f, false, closing1(1008, reasonExpired), func() { r.client.Write(closing1(1008, "").wireBytes(true)) })
	r.client.Close()
	r.upstream.Close()
	r.wantEnd(end{by: EndExpired, code: 1008, reason: reasonExpired})
}

func TestStalled(t *testing.T) {
	forWires(t, func(t *testing.T, w wire) {
		s := setup{wire: w, Options: Options{Kind: WebSocket, Stall: 50 * time.Millisecond}, waits: &quick, sockets: 16 << 10}
		r := open(t, s) // the client reads nothing
		var sent atomic.Int64
		flood := frame{fin | binaryOp, noise(1 << 10)}.wireBytes(false)
		done := make(chan struct{})
		go func() {
			defer close(done)
			for {
				n, err := r.upstream.Write(flood)
				sent.Add(int64(n))
				if err != nil {
					return
				}
			}
		}()
		r.wantEnd(end{by: EndStalled, cause: "the client took no byte"})
		<-done
		if n := sent.Load(); n > 4<<20 {
			t.Errorf("the upstream got rid of %d bytes that nobody read", n)
		}

		r = open(t, s) // the upstream reads nothing; the client is told
		fill(r.client, true)
		r.wantFrame(r.client, closing1(1014, reasonLost), false)
		r.wantEnd(end{by: EndStalled, code: 1014, reason: reasonLost, cause: "the upstream took no byte"})
	})
}

// TestSlowReader: a peer that takes little but takes it is no stalled one. Its
// connection takes one byte before each deadline.
func TestSlowReader(t *testing.T) {
	r := open(t, setup{client: func(c net.Conn) net.Conn { return trickle{c.(*net.TCPConn)} }})
	want := noise(5000)
	r.send(r.upstream, want)
	r.closeWrite(r.upstream)
	if got, err := io.ReadAll(r.client); !bytes.Equal(got, want) || err != nil {
		t.Fatalf("got %d bytes, %v", len(got), err)
	}
	r.client.Close()
	r.wantEnd(end{by: EndUpstream})
}

type trickle struct{ *net.TCPConn }

func (c trickle) Write(b []byte) (int, error) {
	n, err := c.TCPConn.Write(b[:1])
	if err == nil && len(b) > 1 {
		err = os.ErrDeadlineExceeded
	}
	return n, err
}

// TestForeignDeadline: read deadlines that somebody else sets end the tunnel
// instead of spinning.
func TestForeignDeadline(t *testing.T) {
	r := open(t, setup{waits: &quick, client: func(c net.Conn) net.Conn { return expired{c.(*net.TCPConn)} }})
	r.wantEOF(r.upstream)
	r.upstream.Close()
	r.wantEnd(end{by: EndClient, cause: "reading from the client"})
}

type expired struct{ *net.TCPConn }

func (expired) Read([]byte) (int, error) { return 0, os.ErrDeadlineExceeded }

// TestPanics: whichever method of a connection panics, the tunnel ends, with
// both connections closed, and nothing else does.
func TestPanics(t *testing.T) {
	for _, method := range []string{"Read", "Write", "CloseWrite", "Close", "SetDeadline", "SetReadDeadline", "SetWriteDeadline"} {
		for _, onClient := range []bool{true, false} {
			t.Run(method, func(t *testing.T) {
				wrap := func(c net.Conn) net.Conn { return &bomb{TCPConn: c.(*net.TCPConn), method: method} }
				s := webSocket(wire{})
				s.waits, s.panics = &quick, true
				if onClient {
					s.client = wrap
				} else {
					s.upstream = wrap
				}
				r := open(t, s)
				f := frame{fin | text, []byte("x")}
				r.client.Write(f.wireBytes(true))
				r.upstream.Write(f.wireBytes(false))
				readFrame(r.client)
				r.Close(1012, "")
				io.Copy(io.Discard, r.client)
				io.Copy(io.Discard, r.upstream)
				r.client.Close()
				r.upstream.Close()
				report := r.report()
				var p *PanicError
				if report.EndedBy != EndPanic || !errors.As(report.Cause, &p) || p.Value != "boom in "+method || len(p.Stack) == 0 {
					t.Errorf("report %+v", report)
				}
			})
		}
	}
}

// bomb is a connection one of whose methods panics; Close closes first.
type bomb struct {
	*net.TCPConn
	method string
}

func (b *bomb) on(method string) {
	if b.method == method {
		panic("boom in " + method)
	}
}

func (b *bomb) Read(p []byte) (int, error)    { b.on("Read"); return b.TCPConn.Read(p) }
func (b *bomb) Write(p []byte) (int, error)   { b.on("Write"); return b.TCPConn.Write(p) }
func (b *bomb) CloseWrite() error             { b.on("CloseWrite"); return b.TCPConn.CloseWrite() }
func (b *bomb) SetDeadline(t time.Time) error { b.on("SetDeadline"); return b.TCPConn.SetDeadline(t) }
func (b *bomb) SetReadDeadline(t time.Time) error {
	b.on("SetReadDeadline")
	return b.TCPConn.SetReadDeadline(t)
}
func (b *bomb) SetWriteDeadline(t time.Time) error {
	b.on("SetWriteDeadline")
	return b.TCPConn.SetWriteDeadline(t)
}
func (b *bomb) Close() error { err := b.TCPConn.Close(); b.on("Close"); return err }

func TestManyAndWait(t *testing.T) {
	const tunnels = 200
	e := newEngine(t)
	var ended [tunnels]atomic.Int32
	var peers sync.WaitGroup
	for i := range tunnels {
		client, near := pair(t, i%4 == 0, 0, false)
		upstream, far := pair(t, false, 0, true)
		tunnel := e.Start(Leg{Conn: near}, Leg{Conn: far}, Options{Kind: WebSocket, Idle: time.Hour, Ended: func(Report) { ended[i].Add(1) }})
		peers.Go(func() {
			defer client.Close()
			f := frame{fin | text, noise(500 + i)}
			for range 10 {
				client.Write(f.wireBytes(true))
				if got, _, err := readFrame(client); err != nil || !bytes.Equal(got.payload, f.payload) {
					t.Errorf("echo: %v", err)
					return
				}
			}
			tunnel.Close(1001, "over")
			if got, _, err := readFrame(client); err != nil || got.first != fin|closeOp {
				t.Errorf("close: %x, %v", got.first, err)
			}
		})
		peers.Go(func() {
			defer upstream.Close()
			for {
				f, _, err := readFrame(upstream)
				if err != nil || f.first == fin|closeOp {
					return
				}
				upstream.Write(f.wireBytes(false))
			}
		})
	}
	cancelled, cancel := context.WithCancel(context.Background())
	cancel()
	select {
	case <-e.empty:
	default:
		if err := e.Wait(cancelled); !errors.Is(err, context.Canceled) {
			t.Errorf("Wait with a context that is over: %v", err)
		}
	}
	peers.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := e.Wait(ctx); err != nil {
		t.Fatal(err)
	}
	for i := range ended {
		if n := ended[i].Load(); n != 1 {
			t.Errorf("tunnel %d: Ended called %d times", i, n)
		}
	}
}

func TestWaitWithoutTunnels(t *testing.T) {
	if err := New().Wait(context.Background()); err != nil {
		t.Fatal(err)
	}
}
