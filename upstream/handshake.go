package upstream

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"strings"
	"time"
)

// An Upgrade is a WebSocket handshake to be made with a node.
type Upgrade struct {
	Addr    string        // host:port of the node
	Head    []byte        // the whole request head, ready to be sent
	Key     string        // its Sec-WebSocket-Key
	Connect time.Duration // bounds the dial
	Answer  time.Duration // bounds the handshake after it
}

// An Upgraded is the node's answer to a handshake. With status 101 the
// connection has become a WebSocket: Conn and Early are the caller's. With any
// other status Answer's body is to be read; closing it closes the connection.
type Upgraded struct {
	Answer *http.Response
	Conn   net.Conn
	Early  []byte // bytes that came after the answer's head, a copy
}

// Errors of a handshake, beside a *DialError and what the network says.
var (
	ErrNotWebSocket = errors.New("the node answered 101 but is not speaking WebSocket")
	ErrHeadTooLarge = fmt.Errorf("the node's answer has a head of more than %d bytes", maxAnswerHead)
)

// Dial opens a connection to a node, within the context's connect timeout. An
// error is a *DialError.
func (s *Set) Dial(ctx context.Context, addr string) (net.Conn, error) {
	return s.dialWithin(ctx, "tcp", addr)
}

// Upgrade opens a connection to the node, sends the handshake in one write and
// reads the whole head of the answer. A 101 is returned only when its Upgrade,
// Connection and Sec-WebSocket-Accept are right (RFC 6455 section 4.1). When
// ctx ends first, the connection is closed and ctx's cause returned.
func (s *Set) Upgrade(ctx context.Context, u Upgrade) (*Upgraded, error) {
	conn, err := s.dialWithin(WithConnectTimeout(ctx, u.Connect), "tcp", u.Addr)
	if err != nil {
		return nil, orCause(ctx, err)
	}
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	up, err := s.exchange(conn, u)
	if !stop() {
		err = context.Cause(ctx)
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	conn.SetDeadline(time.Time{})
	return up, nil
}

// orCause is why ctx ended, if it has, or else err.
func orCause(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// exchange sends the handshake and reads its answer. Interim answers are
// skipped, a bounded number of them.
func (s *Set) exchange(conn net.Conn, u Upgrade) (*Upgraded, error) {
	conn.SetDeadline(time.Now().Add(u.Answer))
	if _, err := conn.Write(u.Head); err != nil {
		return nil, err
	}
	limited := &io.LimitedReader{R: conn, N: maxAnswerHead}
	br := s.reader(limited)
	answer, err := readAnswer(br)
	if err != nil {
		if limited.N <= 0 {
			err = ErrHeadTooLarge
		}
		return nil, err
	}
	if answer.StatusCode != http.StatusSwitchingProtocols {
		limited.N = math.MaxInt64
		answer.Body = closeBoth{answer.Body, conn}
		return &Upgraded{Answer: answer}, nil
	}
	if err := checkSwitch(answer.Header, u.Key); err != nil {
		return nil, err
	}
	early, _ := br.Peek(br.Buffered())
	up := &Upgraded{Answer: answer, Conn: conn, Early: bytes.Clone(early)}
	answer.Body = http.NoBody // a 101 has none, and br is another handshake's from here on
	br.Reset(nil)
	s.readers.Put(br)
	return up, nil
}

func (s *Set) reader(r io.Reader) *bufio.Reader {
	if br, ok := s.readers.Get().(*bufio.Reader); ok {
		br.Reset(r)
		return br
	}
	return bufio.NewReader(r)
}

const maxInterim = 5

func readAnswer(br *bufio.Reader) (*http.Response, error) {
	for range maxInterim {
		answer, err := http.ReadResponse(br, nil)
		if err != nil {
			return nil, err
		}
		interim := answer.StatusCode < 200 && answer.StatusCode != http.StatusSwitchingProtocols
		if !interim {
			return answer, nil
		}
	}
	return nil, fmt.Errorf("the node sent more than %d interim answers", maxInterim)
}

func checkSwitch(h http.Header, key string) error {
	switch {
	case len(h["Upgrade"]) != 1 || !strings.EqualFold(h.Get("Upgrade"), "websocket"):
		return fmt.Errorf("%w: Upgrade is %q", ErrNotWebSocket, h["Upgrade"])
	case !hasToken(h["Connection"], "upgrade"):
		return fmt.Errorf("%w: Connection is %q", ErrNotWebSocket, h["Connection"])
	case len(h["Sec-Websocket-Accept"]) != 1 || h.Get("Sec-Websocket-Accept") != AcceptFor(key):
		return fmt.Errorf("%w: Sec-WebSocket-Accept does not match the key", ErrNotWebSocket)
	}
	return nil
}

func hasToken(values []string, token string) bool {
	for _, v := range values {
		for part := range strings.SplitSeq(v, ",") {
			if strings.EqualFold(strings.TrimSpace(part), token) {
				return true
			}
		}
	}
	return false
}

// AcceptFor is the Sec-WebSocket-Accept that answers a key (RFC 6455 section 4.2.2).
func AcceptFor(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}

type closeBoth struct {
	io.ReadCloser
	conn net.Conn
}

// Close closes the connection first: closing the body alone would wait for
// what is left of it.
func (c closeBoth) Close() error {
	err := c.conn.Close()
	c.ReadCloser.Close()
	return err
}
