package main

import (
	"bytes"
	"strings"
	"testing"
)

// The node's answer does not depend on how the bytes come in.
func TestNodeEcho(t *testing.T) {
	request := upgradeRequest("localhost", wsPath)
	var in, want bytes.Buffer
	in.Write(request)
	for _, size := range []int{8, 9, 125, 126, 127, 1000, 1<<16 - 1, 1 << 16} {
		m := newMessage(size, true)
		m.number(uint64(size) * 7)
		in.Write(m.out)
		want.Write(m.want)
	}
	in.Write(closeFrame())
	want.Write([]byte{frameClose, 2, 1000 >> 8, 1000 & 0xff})
	all := in.Bytes()
	for _, piece := range []int{1, 2, 3, 5, 13, 1000, 70_001, len(all)} {
		l, c := &nodeLoop{frames: true}, &nodeConn{}
		var got []byte
		for rest := all; len(rest) > 0; {
			n := min(piece, len(rest))
			l.out = l.out[:0]
			if !l.echo(c, rest[:n]) {
				t.Fatalf("in pieces of %d: refused", piece)
			}
			got, rest = append(got, l.out...), rest[n:]
		}
		head, frames, _ := bytes.Cut(got, []byte("\r\n\r\n"))
		if !strings.Contains(string(head), "101 Switching Protocols") || !strings.Contains(string(head), wantAccept) {
			t.Errorf("in pieces of %d: the head is %q", piece, head)
		}
		// A Close in pieces ends at the connection's end instead; its echo is the same.
		if !bytes.Equal(frames, want.Bytes()) || !c.closing && piece > 8 {
			t.Errorf("in pieces of %d: the echo is wrong", piece)
		}
	}
}

func TestNodeRefuses(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"GET /ws/node1/chat HTTP/1.1\r\nSec-WebSocket-Key: x\r\n\r\n", "HTTP/1.1 404"},
		{"GET /chat HTTP/1.1\r\nHost: localhost\r\n\r\n", "HTTP/1.1 400"},
	} {
		l, c := &nodeLoop{frames: true}, &nodeConn{}
		if !l.echo(c, []byte(tt.in)) || !strings.HasPrefix(string(l.out), tt.want) || !c.closing {
			t.Errorf("%q was answered with %q", tt.in, l.out)
		}
	}
	l, c := &nodeLoop{frames: true}, &nodeConn{upgraded: true}
	if l.echo(c, []byte{frameBinary, 3, 'a', 'b', 'c'}) {
		t.Error("a frame without a mask was taken")
	}
}

// An echo that differs from the message in any byte is noticed.
func TestMessageCheck(t *testing.T) {
	for _, frame := range []bool{true, false} {
		m := newMessage(200, frame)
		m.number(42)
		copy(m.in, m.want)
		if err := m.check(); err != nil {
			t.Error(err)
		}
		for i := range m.in {
			m.in[i] ^= 1
			if m.check() == nil {
				t.Errorf("byte %d was wrong, and not noticed", i)
			}
			m.in[i] ^= 1
		}
		m.number(43)
		if m.check() == nil {
			t.Error("an echo of another tunnel was not noticed")
		}
	}
}
