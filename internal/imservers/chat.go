package imservers

import (
	_ "embed" // chat.py
	"os/exec"
	"path/filepath"
	"testing"
)

//go:embed chat.py
var chatProgram string

// ChatOptions are how a chat server in Python runs.
type ChatOptions struct {
	ID      string // its node's, named in every answer
	Address string // 127.0.0.1 and a port; "": a free one
	Session string // the session key that it knows
	Secret  string // of its tokens, HS256
}

// StartChat runs a chat server made with Python's websockets, as sites with Django
// have it: chat.py tells what it does. When the test ends, so does the server.
func StartChat(t testing.TB, o ChatOptions) *Server {
	t.Helper()
	python, script := pythonWithWebsockets(t), filepath.Join(t.TempDir(), "chat.py")
	writeFile(t, script, chatProgram)
	s := &Server{t: t, ready: "chat.py: serving", taken: "address already in use"}
	s.command = func() *exec.Cmd {
		_, port := split(t, s.HTTP)
		return exec.Command(python, script, o.ID, port, o.Session, o.Secret)
	}
	s.launch(o.Address != "", func() { s.HTTP = chosen(t, o.Address) }, func() {})
	return s
}

// pythonWithWebsockets finds a Python that has the module. Debian's is in
// /usr/bin, and need not be the first in PATH.
func pythonWithWebsockets(t testing.TB) string {
	t.Helper()
	for _, name := range []string{"python3", "/usr/bin/python3"} {
		if path, err := exec.LookPath(name); err == nil && exec.Command(path, "-c", "import websockets").Run() == nil {
			return path
		}
	}
	lacking(t, "Python's websockets")
	return ""
}
