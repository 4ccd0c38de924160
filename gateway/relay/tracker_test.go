package relay

import (
	"bytes"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/gobwas/ws"
)

// feed runs a stream through a tracker in chunks of the given sizes, the rest in
// one, and returns the offsets at which a frame ended.
func feed(tr *tracker, stream []byte, sizes ...int) (ends []int) {
	at := 0
	for at < len(stream) {
		size := len(stream) - at
		if len(sizes) > 0 {
			size, sizes = min(size, max(1, sizes[0])), sizes[1:]
		}
		chunk := stream[at : at+size]
		for len(chunk) > 0 {
			n := tr.next(chunk)
			at, chunk = at+n, chunk[n:]
			if tr.state != lost && tr.left == 0 && tr.have == 0 {
				ends = append(ends, at)
			}
		}
	}
	return ends
}

func join(masked bool, frames ...frame) (stream []byte) {
	for _, f := range frames {
		stream = append(stream, f.wireBytes(masked)...)
	}
	return stream
}

func TestTrackerCounts(t *testing.T) {
	big := bytes.Repeat([]byte("x"), 70000)
	frames := []frame{
		{fin | text, []byte("hello")},
		{fin | rsv1 | binaryOp, big[:300]},
		{text, []byte("one ")}, {fin | ping, []byte("p")}, {cont, []byte("two ")}, {fin | cont, nil},
		{fin | pong, nil},
		{fin | binaryOp, big},
		{fin | text, nil},
		closing1(4001, "bye"),
	}
	for _, masked := range []bool{false, true} {
		stream := join(masked, frames...)
		var tr tracker
		ends := feed(&tr, stream)
		if len(ends) != len(frames) || ends[len(ends)-1] != len(stream) {
			t.Errorf("masked %v: boundaries %v of %d bytes", masked, ends, len(stream))
		}
		for _, op := range []ws.OpCode{ws.OpPing, ws.OpPong, ws.OpClose} {
			if n := *tr.controls(op); n != 1 {
				t.Errorf("masked %v: %d frames of opcode %x, want 1", masked, n, op)
			}
		}
		for op, w := range map[ws.OpCode]Tally{ws.OpText: {3, 13}, ws.OpBinary: {2, 70300}} {
			if got := *tr.of(op); got != w {
				t.Errorf("masked %v: opcode %x: %+v, want %+v", masked, op, got, w)
			}
		}
		if tr.messages() != 5 || tr.state != closed || tr.insertable() {
			t.Errorf("masked %v: %d messages, state %v, insertable %v", masked, tr.messages(), tr.state, tr.insertable())
		}
		if code, reason := tr.closing(); code != 4001 || reason != "bye" {
			t.Errorf("masked %v: close %d %q", masked, code, reason)
		}
	}
}

func TestTrackerClose(t *testing.T) {
	cases := map[string]struct {
		payload string
		code    uint16
		reason  string
	}{
		"empty":           {"", 1005, ""},
		"half a code":     {"\x03", 1005, ""},
		"code only":       {"\x03\xe8", 1000, ""},
		"reason":          {"\x03\xf4重启", 1012, "重启"},
		"not UTF-8":       {"\x03\xe8a\xff\xfeb", 1000, "a?b"},
		"longest":         {"\x03\xe8" + strings.Repeat("é", 61) + "z", 1000, strings.Repeat("é", 61) + "z"},
		"torn last rune":  {"\x03\xe8" + strings.Repeat("z", 122) + "\xe9", 1000, strings.Repeat("z", 122) + "?"},
		"private, binary": {"\x0f\xa0\x00", 4000, "\x00"},
	}
	for name, c := range cases {
		for _, masked := range []bool{false, true} {
			var tr tracker
			feed(&tr, frame{fin | closeOp, []byte(c.payload)}.wireBytes(masked), 1, 1, 1, 1, 1, 1, 1, 1, 3)
			if code, reason := tr.closing(); tr.state != closed || code != c.code || reason != c.reason {
				t.Errorf("%s, masked %v: state %v, %d %q; want %d %q", name, masked, tr.state, code, reason, c.code, c.reason)
			}
		}
	}
}

func TestTrackerLost(t *testing.T) {
	cases := map[string]struct {
		stream string
		lost   bool
	}{
		"HTTP":                     {"HTTP/1.1 200 OK\r\n", true},
		"length with top bit":      {"\x82\x7f\x80\x00\x00\x00\x00\x00\x00\x00", true},
		"largest length":           {"\x82\x7f\x7f\xff\xff\xff\xff\xff\xff\xff", false},
		"length not minimal":       {"\x82\x7e\x00\x01", false},
		"reserved data opcode":     {"\x83\x00", true},
		"reserved control opcode":  {"\x8b\x00", true},
		"fragmented control":       {"\x09\x00", true},
		"long control":             {"\x89\x7e\x00\x7e", true},
		"continues nothing":        {"\x80\x00", true},
		"message within a message": {"\x01\x00\x81\x00", true},
		"control within a message": {"\x01\x00\x89\x00\x80\x00", false},
		"all reserved bits":        {"\xf1\x00", false},
	}
	for name, c := range cases {
		var tr tracker
		feed(&tr, []byte(c.stream), 1, 1)
		if (tr.state == lost) != c.lost {
			t.Errorf("%s: state %v, want lost %v", name, tr.state, c.lost)
		}
		if tr.state == lost && (tr.insertable() || tr.held() != 0) {
			t.Errorf("%s: lost, but insertable %v, held %d", name, tr.insertable(), tr.held())
		}
	}
}

// TestTrackerHeld walks through the longest header byte by byte.
func TestTrackerHeld(t *testing.T) {
	stream := join(true, frame{fin | binaryOp, make([]byte, 1<<16)})
	var tr tracker
	for i := range 13 {
		feed(&tr, stream[i:i+1])
		if tr.held() != i+1 || !tr.insertable() {
			t.Fatalf("after %d bytes: held %d, insertable %v", i+1, tr.held(), tr.insertable())
		}
	}
	feed(&tr, stream[13:14])
	if tr.held() != 0 || tr.insertable() {
		t.Fatalf("after the header: held %d, insertable %v", tr.held(), tr.insertable())
	}
}

func TestTrackerAllocatesNothing(t *testing.T) {
	stream := mixed()
	stream = stream[:len(stream)-len(closing1(1000, "done").wireBytes(true))] // what a Close says is kept
	var total int64
	allocs := testing.AllocsPerRun(100, func() {
		var tr tracker
		for at := 0; at < len(stream); {
			at += tr.next(stream[at:])
		}
		total += tr.messages()
	})
	if allocs != 0 || total == 0 {
		t.Errorf("%v allocations, %d messages", allocs, total)
	}
}

func sameWords(a, b *lastWords) bool {
	if a == nil || b == nil {
		return a == b
	}
	return *a == *b
}

func mixed() []byte {
	return join(true,
		frame{fin | text, make([]byte, 128)}, frame{fin | ping, []byte("x")},
		frame{text, make([]byte, 4000)}, frame{fin | cont, make([]byte, 12000)},
		closing1(1000, "done"))
}

// FuzzTracker: whatever comes and however it is cut, the tracker ends, stays in
// its bounds and gives the same answers as for the stream in one piece, which
// are those of the tests' own parser where the stream is valid.
func FuzzTracker(f *testing.F) {
	f.Add(mixed(), uint64(1))
	f.Add([]byte("HTTP/1.1 400 Bad Request\r\n\r\n"), uint64(2))
	f.Add([]byte("\x82\x7f\xff\xff\xff\xff\xff\xff\xff\xff\x00"), uint64(3))
	f.Add([]byte("\x88\x7e\xff\xff"), uint64(4))
	f.Add([]byte("\x88\x81\x01\x02\x03\x04\x05\x81\x00"), uint64(5))
	f.Add([]byte("\x01\x01a\x89\x00\x00\x01b\x80\x01c\x82\x7e\x00"), uint64(6))
	f.Fuzz(func(t *testing.T, stream []byte, seed uint64) {
		var whole, cut tracker
		ends := feed(&whole, stream)
		random := rand.New(rand.NewPCG(seed, 0))
		sizes := make([]int, len(stream))
		for i := range sizes {
			sizes[i] = 1 + random.IntN(1+random.IntN(20))
		}
		cutEnds := feed(&cut, stream, sizes...)
		if whole.state != cut.state || whole.data != cut.data || whole.control != cut.control || whole.left != cut.left ||
			whole.have != cut.have || whole.sum != cut.sum || whole.largest != cut.largest || !sameWords(whole.last, cut.last) {
			t.Fatalf("cut to pieces: %+v, in one piece: %+v", cut, whole)
		}
		if whole.held() > maxHeader-1 {
			t.Fatalf("held %d", whole.held())
		}
		if whole.state == tracking {
			sameFrames(t, stream, ends)
			sameFrames(t, stream, cutEnds)
		}
	})
}

// sameFrames compares the ends of frames with those the tests' parser finds.
func sameFrames(t *testing.T, stream []byte, ends []int) {
	t.Helper()
	r := bytes.NewReader(stream)
	for _, end := range ends {
		if _, _, err := readFrame(r); err != nil {
			t.Fatalf("a frame that ends at %d: %v", end, err)
		}
		if at := len(stream) - r.Len(); at != end {
			t.Fatalf("a frame ends at %d, want %d", end, at)
		}
	}
	if _, _, err := readFrame(r); err == nil {
		t.Fatal("one frame was missed")
	} else if err == io.EOF && r.Len() > 0 {
		t.Fatal("bytes left")
	}
}

func BenchmarkTracker(b *testing.B) {
	sizes := map[string]int{"128B": 128, "16KiB": 16 << 10}
	for name, size := range sizes {
		for _, masked := range []bool{false, true} {
			label := name + "/unmasked"
			if masked {
				label = name + "/masked"
			}
			b.Run(label, func(b *testing.B) {
				chunk := frame{fin | binaryOp, make([]byte, size)}.wireBytes(masked)
				b.SetBytes(int64(len(chunk)))
				b.ReportAllocs()
				var tr tracker
				for b.Loop() {
					for at := 0; at < len(chunk); {
						at += tr.next(chunk[at:])
					}
				}
			})
		}
	}
}

func TestCloseFrames(t *testing.T) {
	codes := map[uint16]uint16{
		0: 1001, 999: 1001, 1000: 1000, 1004: 1001, 1005: 1001, 1006: 1001, 1012: 1012, 1014: 1014, 1015: 1001, 4999: 4999, 5000: 1001,
	}
	for code, want := range codes {
		if got := sendable(code); got != want {
			t.Errorf("sendable(%d) = %d, want %d", code, got, want)
		}
	}
	for _, reason := range []string{"", "restart", strings.Repeat("重", 100), strings.Repeat("\xff\x00", 200)} {
		clipped := clip(reason)
		for _, masked := range []bool{false, true} {
			b := closeFrame(1012, clipped)
			if masked {
				b = maskedCloseFrame(1012, clipped)
			}
			f, m, err := readFrame(bytes.NewReader(b))
			if err != nil || m != masked || f.first != fin|closeOp || string(f.payload) != "\x03\xf4"+clipped || len(clipped) > 123 {
				t.Errorf("close frame of %q, masked %v: %+v, %v, %v", reason, masked, f, m, err)
			}
		}
	}
}
