//go:build unix && !linux

package upstream

import "syscall"

const (
	errNoAddress = syscall.EADDRNOTAVAIL
	errInUse     = syscall.EADDRINUSE
)

// lateBind: the port is chosen before connecting here.
func lateBind(_, _ string, _ syscall.RawConn) error { return nil }
