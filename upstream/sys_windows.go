package upstream

import "syscall"

const (
	errNoAddress = syscall.Errno(10049) // WSAEADDRNOTAVAIL
	errInUse     = syscall.Errno(10048) // WSAEADDRINUSE
)

// lateBind: the port is chosen before connecting here.
func lateBind(_, _ string, _ syscall.RawConn) error { return nil }
