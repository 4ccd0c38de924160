// Package leaktest fails a package's tests when they leave goroutines behind.
// Only tests import it.
package leaktest

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"
)

// patience is how long goroutines have to end after the last test; it is only
// ever used up by tests that fail.
const patience = 10 * time.Second

// Main runs the tests of a package, for its TestMain, and exits. It fails when
// goroutines are left that run code of this module, or whose stack has one of
// the other signs.
func Main(m interface{ Run() int }, signs ...string) {
	code := m.Run()
	if left := leftovers(append(signs, "singlegate/")); code == 0 && left != "" {
		fmt.Fprintf(os.Stderr, "goroutines left behind:\n%s\n", left)
		code = 1
	}
	os.Exit(code)
}

// leftovers returns the stacks of such goroutines once they had time to end.
func leftovers(signs []string) string {
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		buf := make([]byte, 4<<20)
		buf = buf[:runtime.Stack(buf, true)]
		others := strings.Split(string(buf), "\n\n")[1:] // the first is this one
		left := slices.DeleteFunc(others, func(stack string) bool {
			return !slices.ContainsFunc(signs, func(sign string) bool { return strings.Contains(stack, sign) })
		})
		if len(left) == 0 || time.Now().After(end) {
			return strings.Join(left, "\n\n")
		}
	}
}
