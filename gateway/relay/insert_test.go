package relay

import (
	"bytes"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"testing"
	"time"
)

// TestInsertion is the promise of this package: however a valid stream is cut,
// and whenever the gateway closes, the client gets whole frames up to that
// moment, then one whole Close, then nothing.
func TestInsertion(t *testing.T) {
	small := []frame{{text, []byte("ab")}, {fin | ping, nil}, {fin | cont, noise(130)}, {fin | binaryOp, nil}}
	for _, frames := range [][]frame{small, append(small[:3:3], closing1(1000, "bye"))} {
		stream := join(false, frames...)
		for at := range len(stream) + 1 {
			for _, size := range []int{1, 7, len(stream)} {
				insertion(t, frames, len(stream), at, func() int { return size })
			}
		}
		for torn := range stream {
			insertion(t, frames, torn, torn+1, func() int { return 3 })
		}
	}
}

// TestInsertionAtRandom is the same with streams, cuts and moments of all sizes.
func TestInsertionAtRandom(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	for range 150 {
		var frames []frame
		for range random.IntN(8) {
			size := []int{0, 1, 125, 126, 4096, 1 << 16}[random.IntN(6)]
			frames = append(frames, frame{fin | []byte{text, binaryOp, ping}[random.IntN(3)], noise(random.IntN(size + 1))})
			if f := &frames[len(frames)-1]; f.first == fin|ping {
				f.payload = f.payload[:min(125, len(f.payload))]
			}
		}
		if random.IntN(4) == 0 {
			frames = append(frames, closing1(1001, "peer"))
		}
		length := len(join(false, frames...))
		if random.IntN(4) == 0 {
			length = random.IntN(length + 1)
		}
		largest := []int{3, 100, 5000, 1 << 17}[random.IntN(4)]
		insertion(t, frames, length, random.IntN(length+2), func() int { return 1 + random.IntN(largest) })
	}
}

// insertion delivers the first length bytes of the frames in chunks, lets the
// gateway close after at of them (beyond length: never) and checks what the
// client got.
func insertion(t *testing.T, frames []frame, length, at int, size func() int) {
	t.Helper()
	stream := join(false, frames...)[:length]
	ours := closeFrame(1012, "now")
	if at > length {
		ours = closeFrame(1014, reasonLost)
	}
	want := expected(frames, stream, min(at, length), ours)

	for _, late := range []bool{false, true} {
		client := newRecorder(ours)
		report := deliver(t, client, &scripted{stream: stream, size: size, at: at, late: late})
		if !bytes.Equal(client.got, want) {
			t.Fatalf("closed after %d of %d bytes, late %v: the client got %d bytes, want %d:\n%.80x\n%.80x",
				at, length, late, len(client.got), len(want), client.got, want)
		}
		if sent := bytes.HasSuffix(want, ours); report.EndedBy == EndPanic || sent != (report.CloseCode >= 1012) {
			t.Fatalf("report %+v", report)
		}
	}
}

// deliver runs a tunnel between the two to its end.
func deliver(t *testing.T, client *recorder, upstream *scripted) (report Report) {
	t.Helper()
	e := New()
	e.waits = quick
	e.waits.answer = patience
	ended := func(r Report) { report = r }
	tunnel := newGoTunnel(e, Leg{Conn: client}, Leg{Conn: upstream}, Options{Kind: WebSocket, Ended: ended})
	upstream.now = func() { tunnel.Close(1012, "now") }
	e.enter()
	tunnel.start()
	if err := e.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	return report
}

// expected is what the client is to get when the gateway closes after at bytes
// of the stream were read.
func expected(frames []frame, stream []byte, at int, ours []byte) []byte {
	begin := 0
	for _, f := range frames {
		b := f.wireBytes(false)
		header, end := begin+len(b)-len(f.payload), begin+len(b)
		switch {
		case at < header: // not passed on yet
			return append(bytes.Clone(stream[:begin]), ours...)
		case end > len(stream): // torn
			return stream
		case f.first == fin|closeOp:
			return stream[:end]
		case at < end:
			return append(bytes.Clone(stream[:end]), ours...)
		}
		begin = end
	}
	return append(bytes.Clone(stream[:begin]), ours...)
}

// scripted is an upstream connection that delivers a stream in chunks and calls
// now after at bytes of it.
type scripted struct {
	stub
	stream []byte
	size   func() int
	at     int
	late   bool // in a read that brings data all the same
	now    func()
	read   int
}

func (s *scripted) Read(b []byte) (int, error) {
	late := false
	if s.read == s.at && s.now != nil {
		s.now()
		s.now = nil
		late = s.late && s.read < len(s.stream)
	}
	if s.expired() && !late {
		return 0, os.ErrDeadlineExceeded
	}
	if s.read == len(s.stream) {
		return 0, io.EOF
	}
	n := min(len(b), s.size(), len(s.stream)-s.read)
	if s.read < s.at {
		n = min(n, s.at-s.read)
	}
	s.read += copy(b[:n], s.stream[s.read:])
	return n, nil
}

func (s *scripted) Write(b []byte) (int, error) { return len(b), nil }

// recorder is a client's connection that keeps what is written. Its peer ends
// when it has seen the last write, or an end.
type recorder struct {
	stub
	last []byte
	got  []byte
	gone chan struct{}
	once sync.Once
}

func newRecorder(last []byte) *recorder { return &recorder{last: last, gone: make(chan struct{})} }

func (r *recorder) end() { r.once.Do(func() { close(r.gone) }) }

func (r *recorder) Write(b []byte) (int, error) {
	r.got = append(r.got, b...)
	if bytes.Equal(b, r.last) {
		r.end()
	}
	return len(b), nil
}

func (r *recorder) Read([]byte) (int, error) {
	for {
		select {
		case <-r.gone:
			return 0, io.EOF
		case <-r.changed():
			if r.expired() {
				return 0, os.ErrDeadlineExceeded
			}
		}
	}
}

func (r *recorder) CloseWrite() error { r.end(); return nil }
func (r *recorder) Close() error      { r.end(); return nil }

// stub is a connection of which only the read deadline works.
type stub struct {
	net.Conn
	mu       sync.Mutex
	deadline time.Time
	news     chan struct{}
}

func (s *stub) expired() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.deadline.IsZero() && !s.deadline.After(time.Now())
}

// changed returns a channel that has something after the deadline was set.
func (s *stub) changed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.news == nil {
		s.news = make(chan struct{}, 1)
		s.news <- struct{}{}
	}
	return s.news
}

func (s *stub) SetReadDeadline(t time.Time) error {
	news := s.changed()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.deadline = t
	if len(news) == 0 {
		s.news <- struct{}{}
	}
	return nil
}

func (s *stub) SetDeadline(t time.Time) error    { return s.SetReadDeadline(t) }
func (s *stub) SetWriteDeadline(time.Time) error { return nil }
func (s *stub) CloseWrite() error                { return nil }
func (s *stub) Close() error                     { return nil }
