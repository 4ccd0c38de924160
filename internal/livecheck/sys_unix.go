//go:build unix

package livecheck

import "syscall"

const (
	errRefused     = syscall.ECONNREFUSED
	errTimedOut    = syscall.ETIMEDOUT
	errNoHost      = syscall.EHOSTUNREACH
	errNoNetwork   = syscall.ENETUNREACH
	errNoAddress   = syscall.EADDRNOTAVAIL
	errNoFamily    = syscall.EAFNOSUPPORT
	errConnReset   = syscall.ECONNRESET
	errPipeClosed  = syscall.EPIPE
	errConnAborted = syscall.ECONNABORTED
)
