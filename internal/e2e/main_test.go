// Package e2e tests the built command from outside, as those who use it meet it:
// its command line, its demo in a browser, npm's WebSocket library through it,
// every example of the repository as that system's clients speak, and config
// reloads under live tunnels.
//
// It has tests only, and may import internal/standin for nodes to put behind the
// gateway and internal/consultest for Consul, but nothing of the gateway: what it
// tests is the binary, which it builds once. setup.sh gets the programs that it needs beside Go; a test that
// lacks one is skipped, or fails with CI=true.
package e2e

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// patience bounds every wait for something that is going to happen.
const patience = 30 * time.Second

// root is the module's folder, seen from the tests.
const root = "../.."

// built is the command, built when the first test asks for it.
var built func() (string, error)

// idle is the test that waits for more than a minute, nil in its own process.
var idle *besideRun

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "singlegate-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	built = sync.OnceValues(func() (string, error) { return build(filepath.Join(dir, "singlegate")) })
	idle = startBeside("TestProsodyIdle")
	code := m.Run()
	idle.wait()
	os.RemoveAll(dir)
	os.Exit(code)
}

// build builds the command, with the race detector if the tests have it.
func build(to string) (string, error) {
	if err := noteSources(); err != nil {
		return "", err
	}
	args := []string{"build", "-o", to}
	if raceDetector {
		args = append(args, "-race")
	}
	cmd := exec.Command("go", append(args, ".")...)
	cmd.Dir = root
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("building the command: %w\n%s", err, out.Bytes())
	}
	return to, nil
}

// noteSources looks at every file of the module, so that the go command does not
// take a result from its cache after one of them has changed.
func noteSources() error {
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "node_modules" || d.Name() == ".git"):
			return filepath.SkipDir
		case !d.IsDir():
			_, _ = os.Stat(path) // looking is all: the go command notes it
		}
		return nil
	})
}

// command is the path of the built command.
func command(t *testing.T) string {
	t.Helper()
	path, err := built()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// program finds a program that setup.sh gets, under any of its names.
func program(t *testing.T, names ...string) string {
	t.Helper()
	for _, name := range names {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	lacking(t, names[0]+" is not installed")
	return ""
}

// nodeModules makes sure of Node.js and of the modules in package.json.
func nodeModules(t *testing.T) (node string) {
	t.Helper()
	node = program(t, "node")
	for _, module := range []string{"ws", "playwright-core", "strophe.js", "mqtt"} {
		if _, err := os.Stat(filepath.Join("node_modules", module, "package.json")); err != nil {
			lacking(t, "the Node module "+module+" is not installed")
		}
	}
	return node
}

// lacking skips the test, or fails it where everything must be there.
func lacking(t *testing.T, what string) {
	t.Helper()
	what += ": `make setup` gets it"
	if os.Getenv("CI") == "true" {
		t.Fatal(what)
	}
	t.Skip(what)
}

// writeFile writes a file of a test's folder.
func writeFile(t *testing.T, dir, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// readFile reads a file whole.
func readFile(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// contains fails the test unless text has every one of parts.
func contains(t *testing.T, what, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("%s lacks %q:\n%s", what, part, text)
		}
	}
}

// Where a module came from is a matter of the machine that installs it.
func TestLockFileNamesNoRegistry(t *testing.T) {
	if strings.Contains(readFile(t, "package-lock.json"), `"resolved":`) {
		t.Error("package-lock.json has addresses: write it with npm's option --omit-lockfile-registry-resolved")
	}
}
