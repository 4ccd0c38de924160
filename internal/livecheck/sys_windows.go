package livecheck

import "syscall"

const (
	errRefused     = syscall.Errno(10061) // WSAECONNREFUSED
	errTimedOut    = syscall.Errno(10060) // WSAETIMEDOUT
	errNoHost      = syscall.Errno(10065) // WSAEHOSTUNREACH
	errNoNetwork   = syscall.Errno(10051) // WSAENETUNREACH
	errNoAddress   = syscall.Errno(10049) // WSAEADDRNOTAVAIL
	errNoFamily    = syscall.Errno(10047) // WSAEAFNOSUPPORT
	errConnReset   = syscall.Errno(10054) // WSAECONNRESET
	errPipeClosed  = syscall.Errno(10058) // WSAESHUTDOWN
	errConnAborted = syscall.Errno(10053) // WSAECONNABORTED
)
