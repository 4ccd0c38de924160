package imservers

import (
	"os/exec"
	"syscall"
)

// endWithTests lets the server end with the test process, also when that is
// killed before it could clean up.
func endWithTests(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
