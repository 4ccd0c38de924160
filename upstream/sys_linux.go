package upstream

import (
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	errNoAddress = syscall.EADDRNOTAVAIL
	errInUse     = syscall.EADDRINUSE
)

// lateBind lets a socket that is bound to a source address have its port only
// when it connects. A port chosen before would be one that no other connection
// from this address has, to whatever node; chosen then, it need only be one that
// no connection to the same node's port has. A system that does not know the
// option goes on without.
func lateBind(_, _ string, c syscall.RawConn) error {
	return c.Control(func(fd uintptr) {
		unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
	})
}
