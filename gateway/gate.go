package gateway

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"
)

// gatedConn is the transport under a TLS handshake. The handshake holds a place
// in the gate while it computes and gives it back while it waits for the
// network, so that silent clients hold no place.
type gatedConn struct {
	net.Conn
	gate   *gate
	ctx    context.Context // of the handshake
	inside bool            // it holds a place; of the handshake's goroutine alone
	begun  bool            // something was sent: work was done for this client
	kept   bool            // it got no place in time: its failure is not the client's
	open   atomic.Bool     // the handshake is over
	last   atomic.Bool     // the connection is being closed
}

// through runs a handshake in the gate, until ctx ends. A panic in it (in a
// certificate source, say) is one failed handshake.
func (c *gatedConn) through(ctx context.Context, handshake func(context.Context) error) (err error) {
	c.ctx = ctx
	if err := c.enter(); err != nil {
		return err
	}
	defer func() {
		c.leave()
		c.open.Store(true)
		if v := recover(); v != nil {
			err = fmt.Errorf("%w: %v", errHandshakePanic, v)
		}
	}()
	return handshake(ctx)
}

var errHandshakePanic = errors.New("panic in a TLS handshake")

func (c *gatedConn) enter() error {
	err := c.gate.enter(c.ctx, c.begun)
	c.inside = err == nil
	c.kept = err != nil
	return err
}

func (c *gatedConn) leave() {
	if c.inside {
		c.inside = false
		c.gate.leave()
	}
}

func (c *gatedConn) Read(p []byte) (int, error) {
	if c.open.Load() {
		return c.Conn.Read(p)
	}
	c.leave()
	n, err := c.Conn.Read(p)
	if err == nil {
		err = c.enter()
	}
	return n, err
}

func (c *gatedConn) Write(p []byte) (int, error) {
	if c.open.Load() {
		return c.Conn.Write(p)
	}
	c.begun = true
	c.leave()
	n, err := c.Conn.Write(p)
	if err == nil {
		err = c.enter()
	}
	return n, err
}

// goodbyeTime is how long a client may take to accept the end of TLS.
const goodbyeTime = time.Second

// SetWriteDeadline bounds what crypto/tls allows itself (5 s) for its goodbye
// to a peer that takes nothing.
func (c *gatedConn) SetWriteDeadline(t time.Time) error {
	if latest := time.Now().Add(goodbyeTime); c.last.Load() && t.After(latest) {
		t = latest
	}
	return c.Conn.SetWriteDeadline(t)
}

// NetConn is the socket, or what stands in its place.
func (c *gatedConn) NetConn() net.Conn { return c.Conn }

// Swap implements relay.Swapper.
func (c *gatedConn) Swap(next net.Conn) { c.Conn = next }

// CloseWrite ends the sending side of the socket; crypto/tls does not.
func (c *gatedConn) CloseWrite() error {
	if t, ok := c.Conn.(*net.TCPConn); ok {
		return t.CloseWrite()
	}
	return nil
}
