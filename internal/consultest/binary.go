package consultest

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"sync"
	"testing"
	"time"
)

// BinaryVariable names the environment variable with the path of a Consul
// binary to use instead of the one that Binary builds.
const BinaryVariable = "SINGLEGATE_CONSUL"

// buildTime bounds a cold build, downloads included.
const buildTime = 12 * time.Minute

// Binary is the path of a Consul of the version in internal/realconsul/go.mod.
// It is built when it is first asked for, which takes minutes, and then kept in
// the user's cache folder. A test that cannot have it is skipped, or fails with
// CI=true.
func Binary(t testing.TB) string {
	t.Helper()
	path, err := binary()
	switch {
	case err == nil:
	case os.Getenv("CI") == "true":
		t.Fatalf("no Consul to test with: %v", err)
	default:
		t.Skipf("no Consul to test with, `make setup` builds it: %v", err)
	}
	return path
}

// binary finds or builds Consul, once in a process.
var binary = sync.OnceValues(func() (string, error) {
	if path := os.Getenv(BinaryVariable); path != "" {
		return exec.LookPath(path)
	}
	module, err := moduleFolder()
	if err != nil {
		return "", err
	}
	version, err := versionIn(filepath.Join(module, "go.mod"))
	if err != nil {
		return "", err
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	path := filepath.Join(cache, "singlegate", fmt.Sprintf("consul-%s-%s-%s", version, runtime.GOOS, runtime.GOARCH))
	if runtime.GOOS == "windows" {
		path += ".exe"
	}
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	return path, build(module, path)
})

// moduleFolder is internal/realconsul, looked for upwards from the test's folder.
func moduleFolder() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		candidate := filepath.Join(dir, "internal", "realconsul")
		if _, err := os.Stat(filepath.Join(candidate, "go.mod")); err == nil {
			return candidate, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", fmt.Errorf("no folder internal/realconsul above the test")
		}
		dir = parent
	}
}

func versionIn(modFile string) (string, error) {
	text, err := os.ReadFile(modFile)
	if err != nil {
		return "", err
	}
	m := regexp.MustCompile(`(?m)^\s*github\.com/hashicorp/consul (v\S+)`).FindSubmatch(text)
	if m == nil {
		return "", fmt.Errorf("%s requires no github.com/hashicorp/consul", modFile)
	}
	return string(m[1]), nil
}

// build leaves a whole binary at path or none: two packages may build at once.
func build(module, path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	dir, err := os.MkdirTemp(filepath.Dir(path), "building-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	ctx, cancel := context.WithTimeout(context.Background(), buildTime)
	defer cancel()
	built := filepath.Join(dir, "consul")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", built, "github.com/hashicorp/consul")
	cmd.Dir = module
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-buildvcs=false", "GONOSUMDB=github.com/hashicorp/consul/*")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("building Consul: %w\n%s", err, tail(out.Bytes(), 2000))
	}
	return os.Rename(built, path)
}

// tail is the end of an output.
func tail(b []byte, n int) []byte { return b[max(0, len(b)-n):] }
