package upstream

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// silent tells whether the peer has sent nothing that was not read, nor ended
// the connection, as far as the system knows.
func silent(c net.Conn) bool {
	for { // TLS and what else is above the socket
		above, ok := c.(interface{ NetConn() net.Conn })
		if !ok {
			break
		}
		c = above.NetConn()
	}
	s, ok := c.(syscall.Conn)
	if !ok {
		return true
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return false
	}
	var peeked error
	err = raw.Control(func(fd uintptr) {
		var b [1]byte
		_, _, peeked = unix.Recvfrom(int(fd), b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
	})
	return err == nil && peeked == unix.EAGAIN
}
