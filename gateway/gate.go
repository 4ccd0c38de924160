package gateway

import (
	"errors"
	"fmt"
	"net"
	"runtime"
	"sync/atomic"
	"time"
)

// A gate lets as many TLS handshakes compute at a time as there are processors,
// so that a storm of them does not starve live tunnels.
type gate chan struct{}

func newGate() gate { return make(gate, runtime.GOMAXPROCS(0)) }

func (g gate) enter() { g <- struct{}{} }
func (g gate) leave() { <-g }

// gatedConn is the transport under a TLS handshake. The handshake holds a place
// in the gate while it computes and gives it back while it waits for the
// network, so that silent clients hold no place.
type gatedConn struct {
	net.Conn
	gate gate
	open atomic.Bool // the handshake is over
	last atomic.Bool // the connection is being closed
}

// through runs a handshake in the gate. A panic in it (in a certificate source,
// say) is one failed handshake.
func (c *gatedConn) through(handshake func() error) (err error) {
	c.gate.enter()
	defer func() {
		c.gate.leave()
		c.open.Store(true)
		if v := recover(); v != nil {
			err = fmt.Errorf("%w: %v", errHandshakePanic, v)
		}
	}()
	return handshake()
}

var errHandshakePanic = errors.New("panic in a TLS handshake")

func (c *gatedConn) Read(p []byte) (int, error) {
	if c.open.Load() {
		return c.Conn.Read(p)
	}
	c.gate.leave()
	defer c.gate.enter()
	return c.Conn.Read(p)
}

func (c *gatedConn) Write(p []byte) (int, error) {
	if c.open.Load() {
		return c.Conn.Write(p)
	}
	c.gate.leave()
	defer c.gate.enter()
	return c.Conn.Write(p)
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
