package gateway

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// clientConn is the one wrapper of an accepted connection. fasthttp reads and
// writes through it; it adds what fasthttp cannot say or do: who the peer is,
// whether the client ended its sending, deadlines that move with every byte,
// and an ending that does not destroy an answer under way.
//
// fasthttp's own read deadline (set before each request head, absolute) is in
// force until transferring is called; from then on every read has its own.
type clientConn struct {
	net.Conn // the TLS connection, or the TCP connection itself
	socket   net.Conn
	listener *listener
	peer     netip.AddrPort // or the client that a PROXY header names
	local    netip.AddrPort // where that client connected to; invalid: to the socket
	unknown  bool           // a PROXY header comes first
	deadline time.Time      // fasthttp's for reading
	secure   bool           // TLS
	crowded  bool           // accepted from the descriptor reserve: to be refused

	subject string // of the client's certificate, once it was verified; "": there is none

	stall    atomic.Int64 // nanoseconds for each read of a body; 0: fasthttp's deadline holds
	cut      atomic.Bool  // reads fail at once, for good
	ended    atomic.Bool  // a read has failed: the client has ended its sending, or is given up
	spent    atomic.Bool  // reads are at their end, also where crypto/tls holds more
	replay   atomic.Bool  // reads yield nothing: only what is buffered above is wanted
	linger   atomic.Bool  // on Close: let the client read the answer first
	detached atomic.Bool
	closed   atomic.Bool
	seat     atomic.Pointer[seat] // among the connections of its address

	mu      sync.Mutex
	pending io.Closer // what was opened for this connection and not taken over yet
}

// errReplayed ends a replay: the socket was not touched.
var errReplayed = errors.New("gateway: nothing more is buffered")

// Read implements net.Conn.
func (c *clientConn) Read(p []byte) (int, error) {
	if c.replay.Load() {
		return 0, errReplayed
	}
	if c.spent.Load() {
		c.ended.Store(true)
		return 0, io.EOF
	}
	if err := c.introduce(); err != nil {
		c.ended.Store(true)
		c.cutReads()
		return 0, io.EOF // so that nothing is answered
	}
	if d := c.stall.Load(); d > 0 {
		c.Conn.SetReadDeadline(time.Now().Add(time.Duration(d)))
	}
	if c.cut.Load() { // after the deadline above, which must not undo the cut
		c.Conn.SetReadDeadline(longAgo)
	}
	n, err := c.Conn.Read(p)
	if err == io.EOF && n > 0 {
		return n, nil // crypto/tls may say both at once; the end comes again
	}
	if err != nil {
		c.ended.Store(true)
	}
	return n, err
}

// Write implements net.Conn. A client that takes no byte for the stall time
// fails it.
func (c *clientConn) Write(p []byte) (int, error) {
	d := time.Duration(c.stall.Load())
	if d == 0 {
		d = DefaultTimeouts().Stall
	}
	c.Conn.SetWriteDeadline(time.Now().Add(d))
	return c.Conn.Write(p)
}

// SetReadDeadline is called by fasthttp before each request head, and ends the
// time of transferring.
func (c *clientConn) SetReadDeadline(t time.Time) error {
	c.stall.Store(0)
	c.deadline = t
	return c.Conn.SetReadDeadline(t)
}

var longAgo = time.Unix(1, 0)

// transferring gives each following read and write its own deadline.
func (c *clientConn) transferring(stall time.Duration) {
	c.stall.Store(int64(stall))
}

// cutReads ends a read in progress and every later one.
func (c *clientConn) cutReads() {
	c.cut.Store(true)
	c.Conn.SetReadDeadline(longAgo)
}

// hold makes the connection the owner of x until release: closing the
// connection closes x.
func (c *clientConn) hold(x io.Closer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pending = x
}

func (c *clientConn) release() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pending = nil
}

// drop closes what the connection owns.
func (c *clientConn) drop() {
	c.mu.Lock()
	pending := c.pending
	c.pending = nil
	c.mu.Unlock()
	if pending != nil {
		pending.Close()
	}
}

// buffered reads what is buffered above the connection (by fasthttp) without
// touching the socket. r reads through that buffer.
func (c *clientConn) buffered(r io.Reader) ([]byte, error) {
	c.replay.Store(true)
	defer c.replay.Store(false)
	b, err := io.ReadAll(r)
	if errors.Is(err, errReplayed) {
		err = nil
	}
	return b, err
}

// detach hands the connection out for good: the caller owns what is returned,
// and closing the clientConn, as fasthttp does after a hijack handler, does
// nothing any more.
func (c *clientConn) detach() net.Conn {
	c.detached.Store(true)
	c.release()
	c.listener.forget(c)
	c.Conn.SetDeadline(time.Time{})
	return c.Conn
}

const (
	lingerTime  = 2 * time.Second
	lingerBytes = 16 << 20 // more than the sockets of both sides hold
)

// Close implements net.Conn. A connection with unread input would be reset by
// the system, which destroys the answer on its way to the client; so where
// input may be left, Close first ends the sending and discards input for a
// bounded time.
func (c *clientConn) Close() error {
	if c.detached.Load() || c.closed.Swap(true) {
		return nil
	}
	c.drop()
	if t, ok := c.Conn.(*tls.Conn); ok {
		t.NetConn().(*gatedConn).last.Store(true)
	}
	if c.linger.Load() {
		c.lingerOn()
	}
	defer c.listener.forget(c)
	defer func() { c.seat.Swap(nil).leave() }()
	return c.Conn.Close()
}

func (c *clientConn) lingerOn() {
	deadline := time.Now().Add(lingerTime)
	c.Conn.SetDeadline(deadline)
	if t, ok := c.Conn.(*tls.Conn); ok {
		t.CloseWrite()
	}
	if t, ok := c.socket.(*net.TCPConn); ok {
		t.CloseWrite()
	}
	io.CopyN(io.Discard, c.socket, lingerBytes)
}

// reset ends the connection so that the client sees an error, not an end.
func (c *clientConn) reset() {
	if t, ok := c.socket.(*net.TCPConn); ok {
		t.SetLinger(0)
	}
	c.socket.Close()
}

// kill ends the connection at once, from any goroutine.
func (c *clientConn) kill() {
	c.cutReads()
	c.socket.Close()
}

// secureConn is a clientConn with TLS. fasthttp calls Handshake before it reads,
// and takes the connection for TLS because of these two methods.
type secureConn struct {
	*clientConn
	tls *tls.Conn
}

// Handshake makes the TLS handshake within the limit, as one of as many at a
// time as there are processors.
func (c *secureConn) Handshake() error {
	if err := c.introduce(); err != nil {
		c.cutReads()
		return err
	}
	err := c.listener.handshake(c)
	if err != nil {
		// fasthttp goes on to read after a failed handshake, which would begin
		// another one, outside the gate and its limits.
		c.spent.Store(errors.Is(err, errChallengeDone))
		c.cutReads()
		c.listener.handshakeFailed(c, err)
	}
	return err
}

// ConnectionState implements what fasthttp expects of TLS connections.
func (c *secureConn) ConnectionState() tls.ConnectionState { return c.tls.ConnectionState() }
