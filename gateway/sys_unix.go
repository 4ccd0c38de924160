//go:build unix

package gateway

import "syscall"

const (
	errAddrInUse = syscall.EADDRINUSE
	errAccess    = syscall.EACCES
	errConnReset = syscall.ECONNRESET
)

// descriptorLimit is how many files the process may have open. The Go runtime
// has raised the soft limit to the hard one.
func descriptorLimit() int {
	var r syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &r); err != nil || r.Cur > 1<<30 {
		return 0
	}
	return int(r.Cur)
}
