package gateway

import (
	"bufio"
	"bytes"
	"compress/flate"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"unicode/utf8"

	"github.com/gobwas/ws"
)

// A frame is a WebSocket frame as a case has it, right or wrong.
type frame struct {
	op       ws.OpCode
	payload  string
	more     bool   // FIN is not set
	rsv      byte   // RSV1 is 4, RSV2 is 2, RSV3 is 1
	wide     int    // bytes of the length after the first two; 0: the shortest form
	declared uint64 // the length it claims; 0: its own
	key      string // the client's mask; empty: some mask
	misfit   bool   // the client does not mask it, or the node does
}

func (f frame) unfinished() frame            { f.more = true; return f }
func (f frame) bits(rsv byte) frame          { f.rsv = rsv; return f }
func (f frame) widened(bytes int) frame      { f.wide = bytes; return f }
func (f frame) claiming(length uint64) frame { f.declared = length; return f }
func (f frame) masked(key string) frame      { f.key = key; return f }
func (f frame) wronglyMasked() frame         { f.misfit = true; return f }

// wire is the frame as bytes.
func (f frame) wire(byClient bool) []byte {
	first := byte(f.op) | f.rsv<<4
	if !f.more {
		first |= 0x80
	}
	key := f.key
	if key == "" {
		key = "\x37\xfa\x21\x3d"
	}
	var masked byte
	if byClient != f.misfit {
		masked = 0x80
	} else {
		key = ""
	}
	length := max(f.declared, uint64(len(f.payload)))
	b := []byte{first}
	switch {
	case f.wide == 8 || f.wide == 0 && length > 0xffff:
		b = binary.BigEndian.AppendUint64(append(b, masked|127), length)
	case f.wide == 2 || f.wide == 0 && length > 125:
		b = binary.BigEndian.AppendUint16(append(b, masked|126), uint16(length))
	default:
		b = append(b, masked|byte(length))
	}
	b = append(append(b, key...), f.payload...)
	if masked != 0 {
		ws.Cipher(b[len(b)-len(f.payload):], [4]byte([]byte(key)), 0)
	}
	return b
}

// A step is what a side does next.
type step struct {
	kind     stepKind
	frames   []frame // says
	from, to int     // says: only these of their bytes; to 0: to the end
	chunk    int     // says: bytes per write; 0: one write
	count    int     // hears and reaches
}

type stepKind int

const (
	says    stepKind = iota
	hears            // until so many frames have come
	reaches          // until so many bytes of frames have come to the other side
	hangsUp          // ends the stream
	resets           // the connection
)

// wire is what a step says, as bytes.
func (s step) wire(byClient bool) []byte {
	var b []byte
	for _, f := range s.frames {
		b = append(b, f.wire(byClient)...)
	}
	if s.to > 0 {
		b = b[:s.to]
	}
	return b[s.from:]
}

// A tape is what a side of a case has seen. It is safe for concurrent use.
type tape struct {
	mu     sync.Mutex
	news   *sync.Cond
	lines  []string
	brief  []string // of the frames
	bytes  int      // of frames, also of an unfinished one
	closed bool     // a Close came
	over   bool
}

func newTape() *tape {
	t := &tape{}
	t.news = sync.NewCond(&t.mu)
	return t
}

func (t *tape) change(f func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	f()
	t.news.Broadcast()
}

func (t *tape) note(line string) { t.change(func() { t.lines = append(t.lines, line) }) }

// wait returns true when ok, and false when the side sees no more before that.
func (t *tape) wait(ok func() bool) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for !ok() && !t.over {
		t.news.Wait()
	}
	return ok()
}

func (t *tape) text() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.Join(t.lines, "\n")
}

// A player is one side of a case, after the handshake. With a script it does
// what that says, and answers a Close in the end. Without one it is an endpoint
// as RFC 6455 wants it: it echoes messages, answers pings and the Close, and
// fails the connection for everything that is not allowed. Either way it notes
// every frame until the stream ends, also what comes after a Close.
//
// The node ends its stream after the Close, the client when the node's has
// ended (§7.1.1).
type player struct {
	*tape
	other  *tape
	client bool
	script []step // nil: strict
	begun  int    // steps of it that came with the head
	rules  rules
	conn   net.Conn
	in     *bufio.Reader

	done    bool // a Close was sent
	opcode  ws.OpCode
	message []byte // so far, as it came
	unread  []byte // the end of it that is not all of a character
	packed  bool   // it is compressed
	window  []byte // the last 32 KiB that were inflated
	packer  *packer
}

// rules are what the handshake has changed.
type rules struct {
	deflate bool
	bits    byte // reserved bits that an extension uses
}

// play lasts until both streams have ended, or the connection's deadline.
func (p *player) play() {
	var group sync.WaitGroup
	if p.script != nil {
		group.Go(p.perform)
	}
	p.listen()
	group.Wait()
	p.hangUp()
}

func (p *player) perform() {
	for _, s := range p.script[p.begun:] {
		switch s.kind {
		case says:
			p.say(s)
		case hears:
			p.wait(func() bool { return len(p.brief) >= s.count })
		case reaches:
			p.other.wait(func() bool { return p.other.bytes >= s.count })
		case hangsUp:
			p.hangUp()
		case resets:
			p.reset()
		}
	}
	p.answerClose()
	p.wait(func() bool { return p.closed && !p.client })
	p.hangUp()
}

// answerClose answers the Close that the other side ends a case with, unless the
// script has an ending of its own.
func (p *player) answerClose() {
	for _, s := range p.script {
		if s.kind == hangsUp || s.kind == resets || slices.ContainsFunc(s.frames, func(f frame) bool { return f.op == ws.OpClose }) {
			return
		}
	}
	if p.wait(func() bool { return p.closed }) {
		p.send(closing(1000, "answered"))
	}
}

func (p *player) say(s step) {
	b := s.wire(p.client)
	chunk := s.chunk
	if chunk == 0 {
		chunk = len(b)
	}
	for len(b) > 0 {
		n := min(chunk, len(b))
		if _, err := p.conn.Write(b[:n]); err != nil {
			p.note("could not write: " + endOf(err))
			return
		}
		b = b[n:]
	}
}

// hangUp ends the stream; it may be called again.
func (p *player) hangUp() {
	if c, ok := p.conn.(*tls.Conn); ok {
		c.CloseWrite()
	}
	p.tcp().CloseWrite()
}

func (p *player) reset() {
	p.tcp().SetLinger(0)
	p.tcp().Close()
}

func (p *player) tcp() *net.TCPConn {
	if c, ok := p.conn.(*tls.Conn); ok {
		return c.NetConn().(*net.TCPConn)
	}
	return p.conn.(*net.TCPConn)
}

// Read reads of the frames, and counts.
func (p *player) Read(b []byte) (int, error) {
	n, err := p.in.Read(b)
	p.change(func() { p.bytes += n })
	return n, err
}

func (p *player) listen() {
	defer p.change(func() { p.over = true })
	for {
		err := p.hear()
		if err != nil {
			p.note(endOf(err))
			return
		}
	}
}

const noEnd = "no end in time"

func endOf(err error) string {
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "end"
	case errors.Is(err, syscall.ECONNRESET):
		return "reset"
	case errors.Is(err, net.ErrClosed):
		return "left"
	case errors.Is(err, os.ErrDeadlineExceeded):
		return noEnd
	default:
		return err.Error()
	}
}

// maxHeard is the largest frame and message that is kept, and that a strict
// side takes.
const maxHeard = 4 << 20

// hear takes one frame.
func (p *player) hear() error {
	var head bytes.Buffer
	h, err := ws.ReadHeader(io.TeeReader(p, &head))
	if err != nil {
		return p.heardNoHeader(head.Bytes(), err)
	}
	strict := p.script == nil
	if strict && !p.done {
		p.failOn(p.objection(h, head.Bytes()))
	}
	payload, digest, err := p.payload(h)
	line := fmt.Sprintf("%x %s", head.Bytes(), kindOf(h))
	if h.Length > 0 && h.OpCode != ws.OpClose {
		line += " " + digest
	}
	if err != nil {
		p.note(fmt.Sprintf("cut %s after %d bytes", line, len(payload)))
		return err
	}
	p.heard(h, line, payload)
	if strict && !p.done {
		p.failOn(p.take(h, payload))
	}
	return nil
}

// heardNoHeader notes what cannot be the beginning of a frame, or is not all of
// one, and what follows it.
func (p *player) heardNoHeader(head []byte, err error) error {
	if len(head) == 0 {
		return err
	}
	if !errors.Is(err, ws.ErrHeaderLengthMSB) {
		p.note(fmt.Sprintf("cut %x", head))
		return err
	}
	if p.script == nil && !p.done {
		p.failOn(ws.StatusProtocolError)
	}
	sum := sha256.New()
	n, err := io.Copy(sum, p)
	p.note(fmt.Sprintf("no frame %x, then %d bytes %x", head, n, sum.Sum(nil)[:4]))
	if err == nil {
		err = io.EOF
	}
	return err
}

// payload reads a payload as it was before it was masked, as far as it comes;
// one that is too big is not expected to.
func (p *player) payload(h ws.Header) (b []byte, digest string, err error) {
	if h.Length <= maxHeard {
		b = make([]byte, h.Length)
		var n int
		n, err = io.ReadFull(p, b)
		b = b[:n]
	} else if b, err = io.ReadAll(io.LimitReader(p, maxHeard)); err == nil {
		err = io.EOF
	}
	if h.Masked {
		ws.Cipher(b, h.Mask, 0)
	}
	sum := sha256.Sum256(b)
	return b, fmt.Sprintf("%x", sum[:4]), err
}

// kindOf is a frame in short: "text:5".
func kindOf(h ws.Header) string {
	names := map[ws.OpCode]string{
		ws.OpContinuation: "more", ws.OpText: "text", ws.OpBinary: "binary", ws.OpClose: "close", ws.OpPing: "ping", ws.OpPong: "pong",
	}
	name, ok := names[h.OpCode]
	if !ok {
		name = fmt.Sprintf("opcode%d", h.OpCode)
	}
	return fmt.Sprintf("%s:%d", name, h.Length)
}

// heard notes a frame.
func (p *player) heard(h ws.Header, line string, payload []byte) {
	brief := kindOf(h)
	if h.OpCode == ws.OpClose {
		brief = "close"
		if len(payload) >= 2 {
			brief = fmt.Sprintf("close:%d", binary.BigEndian.Uint16(payload))
		}
		line += fmt.Sprintf(" %q", payload)
	}
	p.change(func() {
		p.lines = append(p.lines, line)
		p.brief = append(p.brief, brief)
		p.closed = p.closed || h.OpCode == ws.OpClose
	})
}

// objection is the code to fail with because of a header, or 0.
func (p *player) objection(h ws.Header, head []byte) ws.StatusCode {
	allowed := p.rules.bits
	if p.rules.deflate && (h.OpCode == ws.OpText || h.OpCode == ws.OpBinary) {
		allowed |= 4
	}
	short := head[1] & 0x7f
	control := h.OpCode.IsControl()
	switch {
	case h.Rsv&^allowed != 0, h.OpCode.IsReserved(), h.Masked == p.client,
		short == 126 && h.Length < 126, short == 127 && h.Length <= 0xffff,
		control && (!h.Fin || h.Length > 125),
		!control && (h.OpCode == ws.OpContinuation) != (p.opcode != 0):
		return ws.StatusProtocolError
	case h.Length+int64(len(p.message)) > maxHeard:
		return ws.StatusMessageTooBig
	default:
		return 0
	}
}

// failOn fails the connection with a code; 0: there is no reason to.
func (p *player) failOn(code ws.StatusCode) {
	if code != 0 {
		p.sendClose(closing(int(code), ""))
	}
}

func (p *player) send(f frame) { p.conn.Write(f.wire(p.client)) } // what fails shows in the reading

func (p *player) sendClose(f frame) {
	p.done = true
	p.send(f)
	if !p.client {
		p.hangUp()
	}
}

// take answers a frame whose header is right, or returns the code to fail with.
func (p *player) take(h ws.Header, payload []byte) ws.StatusCode {
	switch h.OpCode {
	case ws.OpPing:
		p.send(frame{op: ws.OpPong, payload: string(payload)})
	case ws.OpPong:
	case ws.OpClose:
		return p.takeClose(payload)
	default:
		return p.takeData(h, payload)
	}
	return 0
}

func (p *player) takeClose(body []byte) ws.StatusCode {
	if len(body) == 1 || len(body) > 1 && !closable(binary.BigEndian.Uint16(body)) {
		return ws.StatusProtocolError
	}
	if len(body) > 2 && !utf8.Valid(body[2:]) {
		return ws.StatusInvalidFramePayloadData
	}
	p.sendClose(closes(string(body)))
	return 0
}

// closable tells codes that may be in a Close (RFC 6455 §7.4 and the IANA
// registry).
func closable(code uint16) bool {
	return 1000 <= code && code <= 1003 || 1007 <= code && code <= 1014 || 3000 <= code && code <= 4999
}

func (p *player) takeData(h ws.Header, payload []byte) ws.StatusCode {
	if h.OpCode != ws.OpContinuation {
		p.opcode, p.packed = h.OpCode, p.rules.deflate && h.Rsv&4 != 0
	}
	p.message = append(p.message, payload...)
	if p.opcode == ws.OpText && !p.packed {
		p.unread = unreadable(append(p.unread, payload...))
		if len(p.unread) > 0 && (h.Fin || utf8.FullRune(p.unread)) {
			return ws.StatusInvalidFramePayloadData
		}
	}
	if !h.Fin {
		return 0
	}
	message, answer := p.message, frame{op: p.opcode}
	p.message, p.opcode = nil, 0
	if !p.packed {
		answer.payload = string(message)
		p.send(answer)
		return 0
	}
	plain, err := p.inflate(message)
	if err != nil || answer.op == ws.OpText && !utf8.Valid(plain) {
		return ws.StatusInvalidFramePayloadData
	}
	if p.packer == nil {
		p.packer = newPacker()
	}
	answer.payload, answer.rsv = p.packer.pack(string(plain)), 4
	p.send(answer)
	return 0
}

// unreadable is what is left of b from the first byte on that is not UTF-8, or
// not all of a character.
func unreadable(b []byte) []byte {
	if utf8.Valid(b) {
		return nil
	}
	for {
		r, n := utf8.DecodeRune(b)
		if r == utf8.RuneError && n <= 1 {
			return b
		}
		b = b[n:]
	}
}

// inflate unpacks a message (RFC 7692 §7.2.2).
func (p *player) inflate(b []byte) ([]byte, error) {
	const tail = "\x00\x00\xff\xff" + "\x01\x00\x00\xff\xff" // and an empty last block, for an end
	r := flate.NewReaderDict(io.MultiReader(bytes.NewReader(b), strings.NewReader(tail)), p.window)
	plain, err := io.ReadAll(io.LimitReader(r, maxHeard))
	p.window = append(p.window, plain...)
	p.window = p.window[max(0, len(p.window)-32<<10):]
	return plain, err
}

// A packer deflates the messages of one direction, each with those before it as
// its context (RFC 7692 §7.2.1).
type packer struct {
	out bytes.Buffer
	w   *flate.Writer
}

func newPacker() *packer {
	p := &packer{}
	p.w, _ = flate.NewWriter(&p.out, flate.DefaultCompression) // no error: the level is valid
	return p
}

func (p *packer) pack(message string) string {
	p.out.Reset()
	io.WriteString(p.w, message)
	p.w.Flush()
	return strings.TrimSuffix(p.out.String(), "\x00\x00\xff\xff")
}
