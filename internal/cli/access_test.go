package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const guardedConfig = `
listeners: [{name: plain, address: "127.0.0.1:0"}]
admin: {address: %q, token_file: read.token, write_token_file: write.token}
services: {im: {nodes: {node1: "127.0.0.1:1"}}}
routes: [{path: "/ws/{node}", service: im}]
shutdown: {grace: 0s, drain: 0s, deadline: 5s}
`

// The commands show the token of a file, or of the config; a token that lets read
// drains nothing; another one after a reload.
func TestCommandsShowTheToken(t *testing.T) {
	dir := t.TempDir()
	read, write := filepath.Join(dir, "read.token"), filepath.Join(dir, "write.token")
	writeConfig(t, read, "first-token-that-lets-read\n")
	writeConfig(t, write, "first-token-that-lets-write\n")
	config := filepath.Join(dir, "gateway.yaml")
	s := openTestSite(t, config, fmt.Sprintf(guardedConfig, "127.0.0.1:0"))
	at := s.admin.Addr().String()
	for _, c := range []struct {
		name string
		code int
		says string // on either stream
		args []string
	}{
		{"health without", exitOK, `"status":"ok"`, []string{"health", "--admin", at}},
		{"nodes without", exitFailure, "needs a token", []string{"nodes", "--admin", at}},
		{"nodes", exitOK, "node1", []string{"nodes", "--admin", at, "--admin-token-file", read}},
		{"nodes by the config", exitOK, "node1", []string{"nodes", "--admin", at, "--config", config}},
		{"drain by that for reading", exitFailure, "write_token_file", []string{"drain", "node1", "--admin", at, "--admin-token-file", read}},
		{"drain by the config", exitOK, "im/node1", []string{"drain", "node1", "--admin", at, "--config", config}},
		{"undrain", exitOK, "im/node1", []string{"undrain", "node1", "--admin", at, "--admin-token-file", write}},
		{"a file that is not there", exitFailure, "none.token", []string{"nodes", "--admin", at, "--admin-token-file", "none.token"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			code, out, errs := command(t, c.args...)
			if code != c.code {
				t.Errorf("exit code %d", code)
			}
			says(t, out+errs, c.says)
		})
	}
	t.Run("environment", func(t *testing.T) {
		t.Setenv("SINGLEGATE_ADMIN_TOKEN_FILE", read)
		if code, out, errs := command(t, "nodes", "--admin", at); code != exitOK {
			t.Errorf("exit code %d: %s%s", code, out, errs)
		}
	})

	writeConfig(t, read, "second-token-that-lets-read\n")
	if code, _, _ := command(t, "nodes", "--admin", at, "--admin-token-file", read); code != exitFailure {
		t.Error("a token counts before the reload")
	}
	s.reload(load(config))
	if code, out, errs := command(t, "nodes", "--admin", at, "--admin-token-file", read); code != exitOK {
		t.Errorf("after the reload: %s%s", out, errs)
	}

	other := filepath.Join(dir, "other.token")
	writeConfig(t, other, "third-token-that-lets-read\n")
	writeConfig(t, config, strings.Replace(fmt.Sprintf(guardedConfig, "127.0.0.1:0"), "read.token", "other.token", 1))
	s.reload(load(config))
	for file, want := range map[string]int{read: exitFailure, other: exitOK} {
		if code, out, errs := command(t, "nodes", "--admin", at, "--admin-token-file", file); code != want {
			t.Errorf("after a reload with another file, by %s: %s%s", file, out, errs)
		}
	}
}

// A config whose token cannot be used is refused by check, and by a reload, which
// leaves the old token.
func TestBadTokenFiles(t *testing.T) {
	dir := t.TempDir()
	config := filepath.Join(dir, "gateway.yaml")
	writeConfig(t, config, fmt.Sprintf(guardedConfig, "0.0.0.0:0"))
	for _, c := range []struct{ read, write, says string }{
		{"", "a-token-that-lets-write", "read.token"},
		{"short", "a-token-that-lets-write", "16 at least"},
		{"one-token-for-everything", "one-token-for-everything", "the same token"},
	} {
		for name, token := range map[string]string{"read.token": c.read, "write.token": c.write} {
			os.Remove(filepath.Join(dir, name))
			if token != "" {
				writeConfig(t, filepath.Join(dir, name), token)
			}
		}
		code, out, errs := command(t, "check", "--config", config)
		if code != exitFailure {
			t.Errorf("%v: exit code %d", c, code)
		}
		says(t, out+errs, c.says)
	}
}
