//go:build unix

package audit

import (
	"os"
	"syscall"
)

const hasModes = true

// lock makes this process the only one that writes the file; it ends with the
// file's last descriptor.
func lock(f *os.File) error {
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		if err == syscall.EWOULDBLOCK {
			return errLocked
		}
		return nil // a file system without locks
	}
	return nil
}
