package e2e

import (
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"singlegate/internal/standin"
)

// A wechatLine is what wechat.mjs prints.
type wechatLine struct{ Node, State, Detail, Message string }

func testWeChat(t *testing.T, e *example) {
	node := nodeModules(t)
	startNode(t, standin.Options{ID: "node1", Address: "127.0.0.1:11001"})
	startNode(t, standin.Options{ID: "node3", Address: "127.0.0.1:11003"})
	e.start(t)
	_, port, _ := strings.Cut(e.listeners["tls"], ":")
	client := startProcess(t, exec.Command(node, "wechat.mjs",
		filepath.Join(e.dir, "client", "utils", "socket.js"), "wss://localhost:"+port, e.ca))
	client.await(client.out, "node2 to be called down", func(text string) bool { return strings.Contains(text, `"waiting"`) })
	startNode(t, standin.Options{ID: "node2", Address: "127.0.0.1:11002"})
	if code := client.exit(); code != 0 {
		t.Fatalf("wechat.mjs: exit code %d\n%s%s", code, client.out, client.log)
	}
	wechatNode1(t, linesOf(t, client, "node1"))
	wechatNode9(t, linesOf(t, client, "node9"))
	wechatNode2(t, linesOf(t, client, "node2"))
	e.checkIt(t)
}

func linesOf(t *testing.T, client *process, node string) (lines []wechatLine) {
	t.Helper()
	for text := range strings.Lines(client.out.String()) {
		if line := decode[wechatLine](t, text); line.Node == node {
			lines = append(lines, line)
		}
	}
	return lines
}

func states(lines []wechatLine) (states []string) {
	for _, line := range lines {
		if line.State != "" {
			states = append(states, line.State)
		}
	}
	return states
}

// node1 is there: it greets, echoes, and is left.
func wechatNode1(t *testing.T, lines []wechatLine) {
	t.Helper()
	if got, want := states(lines), []string{"connecting", "open", "stopped"}; !slices.Equal(got, want) {
		t.Errorf("node1: %q, want %q", got, want)
	}
	for _, line := range lines {
		if line.Message != "" {
			nodeSays(t, line.Message, "node1")
		}
	}
}

// node9 does not exist: the client is told so and does not come back.
func wechatNode9(t *testing.T, lines []wechatLine) {
	t.Helper()
	if got, want := states(lines), []string{"connecting", "open", "stopped"}; !slices.Equal(got, want) {
		t.Errorf("node9: %q, want %q", got, want)
	}
	contains(t, "the end at node9", lines[len(lines)-1].Detail, "1008 ", "node9")
}

// node2 is down at first: the client is told so, and comes back by itself.
func wechatNode2(t *testing.T, lines []wechatLine) {
	t.Helper()
	seen := states(lines)
	if n := len(seen); n < 6 || !slices.Equal(seen[:3], []string{"connecting", "open", "waiting"}) ||
		!slices.Equal(seen[n-3:], []string{"connecting", "open", "stopped"}) {
		t.Fatalf("node2: %q, want it to wait and to come back", seen)
	}
	contains(t, "the first end at node2", lines[2].Detail, "1013 ", "node2")
	contains(t, "the last message", lines[len(lines)-2].Message, `"node":"node2"`, `"echo":"hello"`)
}
