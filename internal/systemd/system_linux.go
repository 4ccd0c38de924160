package systemd

import (
	"time"

	"golang.org/x/sys/unix"
)

// monotonic is the clock that systemd compares RELOADING=1 with.
func monotonic() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		return 0
	}
	return time.Duration(t.Nano())
}

// closeOnExec keeps a descriptor from programs that the process starts.
func closeOnExec(fd int) { unix.CloseOnExec(fd) }
