package standin

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"time"
	"unicode/utf8"

	"github.com/gobwas/ws"
)

const (
	maxMessage   = 1 << 20          // bytes of a message, over all its fragments; more: 1009
	writeTimeout = 10 * time.Second // for one frame
	closeTimeout = 3 * time.Second  // how long a client may take to answer our Close
)

// errEnded says that the WebSocket is over: Close frames were exchanged, or the
// client is gone.
var errEnded = errors.New("standin: the WebSocket has ended")

// socket is the server's end of one WebSocket. One goroutine uses it.
type socket struct {
	conn     net.Conn
	reader   *bufio.Reader // holds what came with the handshake
	protocol string        // the negotiated subprotocol
	silence  time.Duration // a client silent for so long is closed; 0: never
}

// message is one whole message, its fragments joined.
type message struct {
	op      ws.OpCode // ws.OpText or ws.OpBinary
	payload []byte
}

// serve answers message after message until the WebSocket ends, then closes the
// connection. answer ends it by returning an error.
func (s *socket) serve(answer func(message) error) {
	defer s.conn.Close()
	for {
		m, err := s.next()
		if err != nil || answer(m) != nil {
			return
		}
	}
}

// next reads up to the end of a message, answering pings on the way. It ends
// the WebSocket itself, and returns errEnded, on a Close, a breach of the
// protocol (1002, 1007), a message that is too big (1009) and silence (1000).
func (s *socket) next() (message, error) {
	var m message
	for {
		header, err := s.header(m.op != 0)
		if err != nil {
			return message{}, err
		}
		if header.OpCode.IsData() && header.Length > int64(maxMessage-len(m.payload)) {
			return message{}, s.tooBig(header)
		}
		payload, err := s.payload(header)
		if err != nil {
			return message{}, err
		}
		if header.OpCode.IsControl() {
			if err := s.control(header.OpCode, payload); err != nil {
				return message{}, err
			}
			continue
		}
		if header.OpCode != ws.OpContinuation {
			m.op = header.OpCode
		}
		m.payload = append(m.payload, payload...)
		if header.Fin {
			return m, s.checkText(m)
		}
	}
}

// header reads and checks one frame header.
func (s *socket) header(fragmented bool) (ws.Header, error) {
	if s.silence > 0 {
		_ = s.conn.SetReadDeadline(time.Now().Add(s.silence))
	}
	header, err := ws.ReadHeader(s.reader)
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return header, s.end(ws.StatusNormalClosure, "silent for too long")
	case errors.Is(err, ws.ErrHeaderLengthMSB), errors.Is(err, ws.ErrHeaderLengthUnexpected):
		return header, s.breach(err)
	case err != nil:
		return header, errEnded
	}
	state := ws.StateServerSide
	if fragmented {
		state = state.Set(ws.StateFragmented)
	}
	if err := ws.CheckHeader(header, state); err != nil {
		return header, s.breach(err)
	}
	return header, nil
}

// payload reads and unmasks what a header announced; next has bounded it.
func (s *socket) payload(header ws.Header) ([]byte, error) {
	payload := make([]byte, header.Length)
	if _, err := io.ReadFull(s.reader, payload); err != nil {
		return nil, errEnded
	}
	ws.Cipher(payload, header.Mask, 0)
	return payload, nil
}

// control answers a control frame.
func (s *socket) control(op ws.OpCode, payload []byte) error {
	switch op {
	case ws.OpPing:
		return s.send(ws.OpPong, payload)
	case ws.OpClose:
		return s.answerClose(payload)
	}
	return nil
}

// answerClose answers the client's Close with its own code (RFC 6455, section
// 5.5.1).
func (s *socket) answerClose(payload []byte) error {
	if len(payload) == 1 {
		return s.breach(errors.New("a Close frame with one byte"))
	}
	if len(payload) > 2 && !utf8.Valid(payload[2:]) {
		return s.breach(ws.ErrProtocolInvalidUTF8)
	}
	_ = s.send(ws.OpClose, payload[:min(len(payload), 2)])
	return errEnded
}

// checkText ends the WebSocket with 1007 when a text message is not UTF-8.
func (s *socket) checkText(m message) error {
	if m.op == ws.OpText && !utf8.Valid(m.payload) {
		return s.end(ws.StatusInvalidFramePayloadData, "text is not UTF-8")
	}
	return nil
}

// text and binary send one message.
func (s *socket) text(payload []byte) error   { return s.send(ws.OpText, payload) }
func (s *socket) binary(payload []byte) error { return s.send(ws.OpBinary, payload) }

// send writes one unfragmented frame.
func (s *socket) send(op ws.OpCode, payload []byte) error {
	var head bytes.Buffer
	if err := ws.WriteHeader(&head, ws.Header{Fin: true, OpCode: op, Length: int64(len(payload))}); err != nil {
		return err
	}
	return s.write(net.Buffers{head.Bytes(), payload})
}

// write writes all of the buffers under a deadline.
func (s *socket) write(buffers net.Buffers) error {
	_ = s.conn.SetWriteDeadline(time.Now().Add(writeTimeout))
	_, err := buffers.WriteTo(s.conn)
	return err
}

// end sends a Close and waits for the client's: closing with unread input would
// reset the connection and the client might never see the code. It returns
// errEnded.
func (s *socket) end(code ws.StatusCode, reason string) error {
	return s.endAfter(0, code, reason)
}

// tooBig ends the WebSocket with 1009, still within the frame of header.
func (s *socket) tooBig(header ws.Header) error {
	return s.endAfter(header.Length, ws.StatusMessageTooBig, "a message may have 1 MiB")
}

// endAfter is end while pending bytes of a frame are still to come.
func (s *socket) endAfter(pending int64, code ws.StatusCode, reason string) error {
	if s.sendClose(code, reason) != nil {
		return errEnded
	}
	for {
		if _, err := io.CopyN(io.Discard, s.reader, pending); err != nil {
			return errEnded
		}
		header, err := ws.ReadHeader(s.reader)
		if err != nil || header.OpCode == ws.OpClose {
			return errEnded
		}
		pending = header.Length
	}
}

// breach ends the WebSocket with 1002. What the client sends after a breach
// cannot be read as frames any more, so it is only drained.
func (s *socket) breach(cause error) error {
	if s.sendClose(ws.StatusProtocolError, cause.Error()) == nil {
		if half, ok := s.conn.(interface{ CloseWrite() error }); ok {
			_ = half.CloseWrite()
		}
		_, _ = io.Copy(io.Discard, s.reader)
	}
	return errEnded
}

// sendClose sends a Close and gives the client a bounded time to answer.
func (s *socket) sendClose(code ws.StatusCode, reason string) error {
	body := binary.BigEndian.AppendUint16(nil, uint16(code))
	err := s.send(ws.OpClose, append(body, reason...))
	_ = s.conn.SetReadDeadline(time.Now().Add(closeTimeout))
	return err
}
