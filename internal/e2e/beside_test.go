package e2e

import (
	"flag"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"
)

// besideVariable is set in the process of a test that runs beside all others.
const besideVariable = "SINGLEGATE_E2E_BESIDE"

// A besideRun is a test that mostly waits, run from the beginning in a process of
// its own: most tests here run one after the other, and should not have to wait
// for it as well.
type besideRun struct {
	cmd   *exec.Cmd
	out   strings.Builder
	err   error
	ended chan struct{}
}

// startBeside starts a test of this package in a process of its own, if it is
// among those that are to run. Otherwise, and in that process, it is nil.
func startBeside(name string) *besideRun {
	flag.Parse()
	pattern, _, _ := strings.Cut(flag.Lookup("test.run").Value.String(), "/")
	wanted, err := regexp.MatchString(pattern, name)
	if err != nil || !wanted || flag.Lookup("test.list").Value.String() != "" || os.Getenv(besideVariable) != "" {
		return nil
	}
	b := &besideRun{ended: make(chan struct{})}
	b.cmd = exec.Command(os.Args[0], "-test.v", "-test.timeout=5m", "-test.run=^"+name+"$")
	b.cmd.Env = append(withoutDelay(nil), besideVariable+"=1")
	b.cmd.Stdout, b.cmd.Stderr = &b.out, &b.out
	b.cmd.WaitDelay = time.Second
	go func() {
		defer close(b.ended)
		b.err = b.cmd.Run()
	}()
	return b
}

// wait waits for the end of the other process, which its own timeout bounds. It
// cleans up behind itself.
func (b *besideRun) wait() {
	if b != nil {
		<-b.ended
	}
}

// join makes the outcome of the other process that of the test, and tells whether
// there is one.
func (b *besideRun) join(t *testing.T) bool {
	t.Helper()
	if b == nil {
		return false
	}
	b.wait()
	switch {
	case b.err != nil:
		t.Fatalf("%v\n%s", b.err, b.out.String())
	case strings.Contains(b.out.String(), "--- SKIP"):
		t.Skip(b.out.String())
	case !strings.Contains(b.out.String(), "--- PASS"):
		t.Fatalf("it did not run:\n%s", b.out.String())
	}
	return true
}
