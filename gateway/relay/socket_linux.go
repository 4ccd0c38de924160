package relay

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// errWouldBlock is what a socket without input answers. crypto/tls takes a
// temporary error for one after which a read may be tried again; unlike a
// timeout it can never come from the network.
var errWouldBlock error = wouldBlock{}

type wouldBlock struct{}

func (wouldBlock) Error() string   { return "the socket has no input" }
func (wouldBlock) Timeout() bool   { return false }
func (wouldBlock) Temporary() bool { return true }

const (
	// maxRecord is the payload of a full TLS record. A longer write becomes
	// several records, which leave in one system call.
	maxRecord = 16 << 10

	// highWater is how much may wait to be written to a peer before it is not
	// read any more. One turn's worth may come on top of it.
	highWater = 64 << 10
)

// A socket is one leg of a tunnel in a loop. It belongs to the loop alone, as
// does the descriptor, which nobody else knows. As a net.Conn it is what a
// *tls.Conn stands on: reads never block and answer errWouldBlock instead,
// writes never block either and queue what the system does not take. Deadlines
// mean nothing to it; crypto/tls sets some when it says goodbye.
type socket struct {
	tunnel *loopTunnel
	tls    *tls.Conn // nil: plain
	fd     int32
	slot   int32 // in the loop's table

	readable bool  // the system may have input
	hungUp   bool  // an end or an error is in the queue: a short read proves nothing
	corked   bool  // writes are collected in the loop's buffer
	goodbye  bool  // its write side is to be closed when the queue is empty
	shut     bool  // it was
	unsent   bool  // something could not be written
	failed   error // of a write; nothing is written any more
	queue    []byte
	moving   time.Duration // when the queue last moved, as an age of the tunnel
}

// end is whose socket it is.
func (s *socket) end() End {
	if s == &s.tunnel.client {
		return EndClient
	}
	return EndUpstream
}

// read reads from the peer, through TLS where there is one. Nothing is left
// anywhere above the socket when it answers errWouldBlock.
func (s *socket) read(p []byte) (n int, err error) {
	if s.tls == nil {
		return s.Read(p)
	}
	n, err = s.tls.Read(p)
	if n > 0 && err == errWouldBlock { // half of an alert behind the data
		err = nil
	}
	return n, err
}

// write writes all of p to the peer or its queue. A socket that has failed
// swallows it; failed says so.
func (s *socket) write(p []byte) {
	var err error
	switch {
	case len(p) == 0 || s.failed != nil || s.goodbye:
	case s.tls == nil:
		_, err = s.Write(p)
	case len(p) <= maxRecord:
		_, err = s.tls.Write(p)
	default:
		loop := s.tunnel.loop
		s.corked = true
		_, err = s.tls.Write(p)
		s.corked = false
		s.send(loop.out)
		loop.out = loop.out[:0]
	}
	if err != nil && s.failed == nil {
		s.fail(err)
	}
}

// fail gives up writing.
func (s *socket) fail(err error) { s.failed, s.queue, s.unsent = err, nil, true }

// Read implements net.Conn.
func (s *socket) Read(p []byte) (int, error) {
	if !s.readable {
		return 0, errWouldBlock
	}
	for {
		n, err := s.tunnel.loop.system.read(int(s.fd), p)
		switch {
		case n > 0:
			s.readable = n == len(p) || s.hungUp
			return n, nil
		case err == nil && len(p) > 0:
			return 0, io.EOF
		case err == unix.EAGAIN:
			s.readable = false
			return 0, errWouldBlock
		case err != unix.EINTR:
			return 0, os.NewSyscallError("read", err)
		}
	}
}

// Write implements net.Conn.
func (s *socket) Write(p []byte) (int, error) {
	if s.failed != nil {
		return 0, s.failed
	}
	if s.corked {
		loop := s.tunnel.loop
		loop.out = append(loop.out, p...)
		return len(p), nil
	}
	return len(p), s.send(p)
}

// send sends p behind what is queued already.
func (s *socket) send(p []byte) error {
	if s.failed == nil && len(s.queue) == 0 {
		n := s.put(p)
		p = p[n:]
		s.moving = s.tunnel.age()
	}
	if s.failed == nil && len(p) > 0 {
		s.queue = append(s.queue, p...)
		s.tunnel.dueAt = 0 // it may stall
	}
	return s.failed
}

// put gives the system as much of p as it takes.
func (s *socket) put(p []byte) (n int) {
	for n < len(p) {
		m, err := s.tunnel.loop.system.write(int(s.fd), p[n:])
		switch {
		case m > 0:
			n += m
		case err == unix.EAGAIN:
			return n
		case err != unix.EINTR:
			s.fail(os.NewSyscallError("write", err))
			return n
		}
	}
	return n
}

// flush sends what is queued, and ends the stream behind it when that is wanted.
// It reports whether anything moved.
func (s *socket) flush() (moved bool) {
	if len(s.queue) > 0 {
		n := s.put(s.queue)
		if moved = n > 0; moved {
			s.moving = s.tunnel.age()
		}
		switch {
		case s.failed != nil:
		case n == len(s.queue):
			s.queue = nil
		default:
			s.queue = s.queue[n:]
		}
	}
	if s.goodbye && !s.shut && len(s.queue) == 0 {
		s.shut = true
		unix.Shutdown(int(s.fd), unix.SHUT_WR)
	}
	return moved
}

// closeWrite tells the peer that nothing more comes, behind what is queued.
func (s *socket) closeWrite() {
	if s.goodbye {
		return
	}
	if s.tls != nil && s.failed == nil {
		s.tls.CloseWrite() // close_notify
	}
	s.goodbye = true
	s.flush()
}

// Close implements net.Conn; the tunnel closes sockets, not crypto/tls.
func (s *socket) Close() error { return nil }

// LocalAddr implements net.Conn.
func (s *socket) LocalAddr() net.Addr { return nil }

// RemoteAddr implements net.Conn.
func (s *socket) RemoteAddr() net.Addr { return nil }

// SetDeadline implements net.Conn.
func (s *socket) SetDeadline(time.Time) error { return nil }

// SetReadDeadline implements net.Conn.
func (s *socket) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline implements net.Conn.
func (s *socket) SetWriteDeadline(time.Time) error { return nil }

// A taking is a connection on its way into a loop: a second descriptor of its
// socket, and how to go over to that one.
type taking struct {
	tls     *tls.Conn
	swapper Swapper      // under tls; nil: the connection is the socket
	tcp     *net.TCPConn // holds the first descriptor
	fd      int
}

var errNotTakeable = errors.New("the connection's socket cannot be taken over")

// take makes a second descriptor of a connection's socket; nothing has happened
// to the connection yet. The first one is the Go runtime's, whose poller would
// be woken for every event as well.
func take(c net.Conn) (taking, error) {
	var k taking
	if over, ok := c.(*tls.Conn); ok {
		k.tls = over
		under, ok := over.NetConn().(Swapper)
		if !ok {
			return k, errNotTakeable
		}
		k.swapper = under
		c = under.NetConn()
	}
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		return k, errNotTakeable
	}
	k.tcp = tcp
	raw, err := tcp.SyscallConn()
	if err != nil {
		return k, err
	}
	failed := raw.Control(func(fd uintptr) { k.fd, err = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0) })
	return k, errors.Join(failed, err) // when either failed there is no second descriptor
}

// giveBack undoes take.
func (k taking) giveBack() { unix.Close(k.fd) }

// over moves the connection onto s for good.
func (k taking) over(s *socket) {
	s.tls, s.fd = k.tls, int32(k.fd)
	if k.swapper != nil {
		k.swapper.Swap(s)
	}
	k.tcp.Close()
}
