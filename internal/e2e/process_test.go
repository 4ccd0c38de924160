package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// A transcript is what a process writes, while it writes.
type transcript struct {
	mu      sync.Mutex
	text    []byte
	changed chan struct{} // closed, and made anew, when there is more
}

func newTranscript() *transcript { return &transcript{changed: make(chan struct{})} }

// Write implements io.Writer.
func (o *transcript) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.text = append(o.text, p...)
	close(o.changed)
	o.changed = make(chan struct{})
	return len(p), nil
}

func (o *transcript) String() string {
	text, _ := o.now()
	return text
}

func (o *transcript) now() (text string, changed <-chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return string(o.text), o.changed
}

// A process is a program that runs beside the test.
type process struct {
	t     *testing.T
	cmd   *exec.Cmd
	out   *transcript // standard output
	log   *transcript // standard error
	ended chan struct{}
}

// startProcess starts a program that ends with the test: by SIGTERM, if the test
// has not seen to its end.
func startProcess(t *testing.T, cmd *exec.Cmd) *process {
	t.Helper()
	p := &process{t: t, cmd: cmd, out: newTranscript(), log: newTranscript(), ended: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = p.out, p.log
	cmd.Env = withoutDelay(cmd.Env)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = cmd.Wait() // its exit code is what counts
		close(p.ended)
	}()
	t.Cleanup(p.stop)
	return p
}

// stop ends the process in order, and looks through its last words.
func (p *process) stop() {
	p.signal(syscall.SIGTERM)
	select {
	case <-p.ended:
	case <-time.After(patience):
		p.t.Errorf("%s did not end on SIGTERM", p.cmd)
		_ = p.cmd.Process.Kill()
		<-p.ended
	}
	log := p.log.String()
	for _, bad := range []string{"DATA RACE", "panic", "goroutine "} {
		if strings.Contains(log, bad) {
			p.t.Errorf("%s wrote:\n%s", p.cmd, log)
			return
		}
	}
	if p.t.Failed() {
		p.t.Logf("the end of what %s wrote:\n%s", filepath.Base(p.cmd.Path), log[max(0, len(log)-4000):])
	}
}

func (p *process) signal(s syscall.Signal) {
	_ = p.cmd.Process.Signal(s) // one that has ended has no need of it
}

// exit waits for the end of the process and returns its exit code, -1 when a
// signal killed it.
func (p *process) exit() int {
	p.t.Helper()
	select {
	case <-p.ended:
	case <-time.After(patience):
		p.t.Fatalf("%s goes on; it wrote:\n%s%s", p.cmd, p.out, p.log)
	}
	return p.cmd.ProcessState.ExitCode()
}

// await waits until what the process writes to o satisfies found, and returns it.
func (p *process) await(o *transcript, what string, found func(text string) bool) string {
	p.t.Helper()
	timeout := time.After(patience)
	for {
		text, changed := o.now()
		if found(text) {
			return text
		}
		select {
		case <-changed:
		case <-p.ended:
			if found(o.String()) {
				return o.String()
			}
			p.t.Fatalf("waiting for %s: %s ended with %d; it wrote:\n%s%s", what, p.cmd, p.cmd.ProcessState.ExitCode(), p.out, p.log)
		case <-timeout:
			p.t.Fatalf("waiting for %s: %s wrote:\n%s%s", what, p.cmd, p.out, p.log)
		}
	}
}

// awaitLog waits until the process has written text to its log n times.
func (p *process) awaitLog(n int, text string) {
	p.t.Helper()
	p.await(p.log, "log line "+text, func(log string) bool { return strings.Count(log, text) >= n })
}

// A site is a gateway that runs with a config file.
type site struct {
	*process
	listeners map[string]string // name → host:port
	admin     string            // host:port
}

// startSite runs gateway.yaml of a folder and waits until it is ready.
func startSite(t *testing.T, dir string) *site {
	t.Helper()
	cmd := exec.Command(command(t), "run", "--config", "gateway.yaml")
	cmd.Dir = dir
	s := &site{process: startProcess(t, cmd), listeners: map[string]string{}}
	s.awaitLog(1, `"message":"ready: `)
	for _, line := range s.lines() {
		switch line.Message {
		case "listening":
			s.listeners[line.Listener] = line.Address
		case "admin":
			s.admin = line.Address
		}
	}
	return s
}

// A logLine is what tests read of a line of the gateway's log.
type logLine struct {
	Level, Message, Listener, Address string
	Kind, Path, Node, Host            string
	Status                            int
	Tunnels                           int
	EndedBy                           string `json:"ended_by"`
	CloseCode                         int    `json:"close_code"`
}

// lines are the whole lines of the log so far.
func (s *site) lines() []logLine {
	s.t.Helper()
	var lines []logLine
	for line := range strings.Lines(s.log.String()) {
		var l logLine
		if strings.HasSuffix(line, "\n") && strings.HasPrefix(line, "{") {
			if err := json.Unmarshal([]byte(line), &l); err != nil {
				s.t.Fatalf("the log has a line that is not JSON: %v: %s", err, line)
			}
			lines = append(lines, l)
		}
	}
	return lines
}

// withoutDelay lets a process that has the race detector end without its second
// of waiting. No environment means that of the test.
func withoutDelay(env []string) []string {
	if env == nil {
		env = os.Environ()
	}
	return append(env, "GORACE=atexit_sleep_ms=10")
}

// A result is what a program that has ended left.
type result struct {
	code     int
	out, err string
}

// runCommand runs the command to its end.
func runCommand(t *testing.T, dir string, args ...string) result {
	t.Helper()
	cmd := exec.Command(command(t), args...)
	cmd.Dir = dir
	return runToEnd(t, cmd)
}

// runToEnd runs a program to its end.
func runToEnd(t *testing.T, cmd *exec.Cmd) result {
	t.Helper()
	r, err := tryToEnd(t.Context(), cmd)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// tryToEnd is runToEnd for any goroutine. An exit code is no error.
func tryToEnd(ctx context.Context, cmd *exec.Cmd) (result, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	bounded := exec.CommandContext(ctx, cmd.Path, cmd.Args[1:]...)
	bounded.Dir, bounded.Env, bounded.WaitDelay = cmd.Dir, withoutDelay(cmd.Env), time.Second
	var out, log strings.Builder
	bounded.Stdout, bounded.Stderr = &out, &log
	err := bounded.Run()
	var exit *exec.ExitError
	if ctx.Err() != nil || err != nil && !errors.As(err, &exit) {
		return result{}, fmt.Errorf("%s: %w\n%s%s", cmd, err, out.String(), log.String())
	}
	return result{bounded.ProcessState.ExitCode(), out.String(), log.String()}, nil
}
