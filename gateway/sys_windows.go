package gateway

import "syscall"

const (
	errAddrInUse = syscall.Errno(10048) // WSAEADDRINUSE
	errAccess    = syscall.Errno(10013) // WSAEACCES
	errConnReset = syscall.Errno(10054) // WSAECONNRESET
)

// descriptorLimit: sockets are not numbered files here.
func descriptorLimit() int { return 0 }
