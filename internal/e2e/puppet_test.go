package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// serverPatience bounds every wait for what a real server and its client do; a
// client may wait for a while before it tries again.
const serverPatience = 60 * time.Second

// A puppet is a Node program with clients in it that the test leads step by step.
type puppet struct {
	*process
	commands io.Writer
}

// An event is what a puppet tells: of which client and what.
type event struct {
	Name, Event, From, Text string
	SID                     string // of a BOSH session
	Status, Held            int    // of an HTTP answer, and the ms that it took
	Path, Page              string // of an HTTP request; what a browser shows
}

// A step is a command to a puppet.
type step struct {
	Do       string `json:"do"`
	Name     string `json:"name"`
	URL      string `json:"url,omitempty"`
	JID      string `json:"jid,omitempty"`
	Password string `json:"password,omitempty"`
	Wait     int    `json:"wait,omitempty"`
	Again    bool   `json:"again,omitempty"`
	Version  int    `json:"version,omitempty"`
	To       string `json:"to,omitempty"`
	Text     string `json:"text,omitempty"`
}

// startPuppet starts a program that trusts the certificates of a file, and ends
// it with the test.
func startPuppet(t *testing.T, program, ca string) *puppet {
	t.Helper()
	cmd := exec.Command(nodeModules(t), program)
	cmd.Env = append(os.Environ(), "NODE_EXTRA_CA_CERTS="+ca)
	commands, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	p := &puppet{startProcess(t, cmd), commands}
	p.awaitEvent("the program", patience, func(e event) bool { return e.Event == "ready" })
	return p
}

func (p *puppet) tell(s step) {
	p.t.Helper()
	line, err := json.Marshal(s)
	if err != nil {
		p.t.Fatal(err)
	}
	if _, err := p.commands.Write(append(line, '\n')); err != nil {
		p.t.Fatalf("%s takes no command: %v\n%s", p.cmd, err, p.log)
	}
}

// awaitEvent waits for an event, also a past one, and returns it.
func (p *puppet) awaitEvent(what string, within time.Duration, match func(event) bool) event {
	p.t.Helper()
	timeout := time.After(within)
	for from := 0; ; {
		text, changed := p.out.now()
		for line := range strings.Lines(text[from:]) {
			if !strings.HasSuffix(line, "\n") {
				break
			}
			from += len(line)
			if e := decode[event](p.t, line); match(e) {
				return e
			}
		}
		select {
		case <-changed:
		case <-p.ended:
			p.t.Fatalf("waiting for %s: %s ended; it wrote:\n%s%s", what, p.cmd, text, p.log)
		case <-timeout:
			p.t.Fatalf("waiting for %s: %s wrote:\n%s%s", what, p.cmd, text, p.log)
		}
	}
}

// events are all that the puppet has told of a client.
func (p *puppet) events(name, kind string) []event {
	p.t.Helper()
	var list []event
	for line := range strings.Lines(p.out.String()) {
		if !strings.HasSuffix(line, "\n") {
			break
		}
		if e := decode[event](p.t, line); e.Name == name && e.Event == kind {
			list = append(list, e)
		}
	}
	return list
}

// awaitNamed waits for an event of a client.
func (p *puppet) awaitNamed(name, kind string) event {
	p.t.Helper()
	return p.awaitTimes(1, name, kind)
}

// awaitTimes waits until a client has had an event n times.
func (p *puppet) awaitTimes(n int, name, kind string) event {
	p.t.Helper()
	return p.awaitEvent(fmt.Sprintf("%s to be %s %d times", name, kind, n), serverPatience, func(e event) bool {
		if e.Name == name && e.Event == kind {
			n--
		}
		return n == 0
	})
}

// awaitHeard waits for a message that a client gets.
func (p *puppet) awaitHeard(name, from, text string) {
	p.t.Helper()
	p.awaitEvent(fmt.Sprintf("%s to hear %.50q from %s", name, text, from), serverPatience, func(e event) bool {
		return e.Name == name && e.Event == "message" && e.From == from && e.Text == text
	})
}
