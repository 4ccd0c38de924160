// Package imservers runs real IM servers for tests: Prosody, ejabberd and
// mosquitto, as the system's packages install them, on loopback, each with a
// configuration and data of its own, ended with the test that started it. No
// service of the system is touched. It is for tests only, and imports nothing of
// this module.
package imservers

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// patience bounds every wait for a server.
const patience = 60 * time.Second

// A Server is one running server. Its methods fail the test that started it and
// belong to that test's goroutine; Log may be called from any.
type Server struct {
	// HTTP is the host:port of BOSH and WebSocket, the same after a restart.
	HTTP string

	// TCP is the host:port of plain MQTT, "" for others.
	TCP string

	t       testing.TB
	command func() *exec.Cmd // the process to start
	ready   string           // what it writes when it serves
	taken   string           // what it writes when its port is taken
	log     *output
	cmd     *exec.Cmd
	exited  chan struct{}
	ended   string // how the last process that is gone ended
}

// launch starts what configure has prepared for the addresses of s, and waits
// until it serves. It tries three times, with other ports where the caller gave
// none: another process may take a port before the server does.
func (s *Server) launch(given bool, choose, configure func()) {
	s.t.Helper()
	s.log = newOutput()
	s.t.Cleanup(s.Kill)
	for range 3 {
		choose()
		configure()
		if s.start() {
			return
		}
		if text, _ := s.log.after(0); given && strings.Contains(text, s.taken) {
			break
		}
		s.t.Logf("%s did not start (%s): once more", filepath.Base(s.command().Path), s.ended)
	}
	s.t.Fatalf("%s at %s %s does not start (%s); the end of its log:\n%s", filepath.Base(s.command().Path), s.HTTP, s.TCP, s.ended, s.Log())
}

// Start runs a killed server again, at its old addresses, and waits until it
// serves.
func (s *Server) Start() {
	s.t.Helper()
	if !s.start() {
		s.t.Fatalf("%s does not start again (%s); the end of its log:\n%s", filepath.Base(s.command().Path), s.ended, s.Log())
	}
}

func (s *Server) start() bool {
	s.t.Helper()
	from := s.log.length()
	cmd := s.command()
	cmd.Stdout, cmd.Stderr = s.log, s.log
	cmd.WaitDelay = 5 * time.Second // a child of the server may hold its output open
	endWithTests(cmd)
	if err := cmd.Start(); err != nil {
		s.t.Fatalf("starting %s: %v", cmd.Path, err)
	}
	s.cmd, s.exited = cmd, make(chan struct{})
	go func(cmd *exec.Cmd, exited chan struct{}) {
		defer close(exited)
		_ = cmd.Wait() // it is killed, so there is always an error
	}(s.cmd, s.exited)
	if s.serves(from) {
		return true
	}
	s.Kill()
	return false
}

// serves waits until the server says so in what it writes after an offset.
func (s *Server) serves(from int) bool {
	timeout := time.After(patience)
	for {
		text, changed := s.log.after(from)
		switch {
		case strings.Contains(text, s.taken):
			return false
		case strings.Contains(text, s.ready):
			return true
		}
		select {
		case <-changed:
		case <-s.exited:
			return false
		case <-timeout:
			return false
		}
	}
}

// Kill ends the server as a power cut does, and returns when it is gone. Its
// accounts stay.
func (s *Server) Kill() {
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Kill()
	<-s.exited
	s.ended = s.cmd.ProcessState.String()
	s.cmd = nil
}

// Log is the end of what the server wrote, over all its runs.
func (s *Server) Log() string {
	text, _ := s.log.after(0)
	return text[max(0, len(text)-8000):]
}

// program finds a program of a package, also where only root's PATH looks. A
// test that cannot have it is skipped, or fails with CI=true.
func program(t testing.TB, name string) string {
	t.Helper()
	for _, candidate := range []string{name, filepath.Join("/usr/sbin", name), filepath.Join("/usr/bin", name)} {
		if path, err := exec.LookPath(candidate); err == nil {
			return path
		}
	}
	what := name + " is not installed: `make setup` gets it"
	if os.Getenv("CI") == "true" {
		t.Fatal(what)
	}
	t.Skip(what)
	return ""
}

// writeFile writes a file of a server, and its folder.
func writeFile(t testing.TB, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
