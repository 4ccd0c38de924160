package relay

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// The system calls of the loops. None of them blocks, so the scheduler need not
// be told: syscall.Read and its like give the processor away when they take
// longer than 20 µs, and keep the runtime's monitor awake to see to that, which
// together cost a tenth of the CPU of a small message.

// system is the calls on which everything depends, for tests that count them or
// have them fail.
type system struct {
	read, write func(fd int, p []byte) (int, error)
}

func readNow(fd int, p []byte) (int, error) {
	n, _, errno := unix.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)))
	return result(n, errno)
}

func writeNow(fd int, p []byte) (int, error) {
	n, _, errno := unix.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)))
	return result(n, errno)
}

// epollNow takes what events there are.
func epollNow(fd int, events []unix.EpollEvent) int {
	n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(events))), uintptr(len(events)), 0, 0, 0)
	if errno != 0 {
		return 0 // EINTR: the poller wakes us again
	}
	return int(n)
}

// result keeps the frequent EAGAIN from being allocated.
func result(n uintptr, errno unix.Errno) (int, error) {
	switch errno {
	case 0:
		return int(n), nil
	case unix.EAGAIN:
		return -1, unix.EAGAIN
	}
	return -1, errno
}
