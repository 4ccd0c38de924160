package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"singlegate/internal/standin"
)

// The whole way of check --live: without a gateway, with one, in both languages
// and in JSON.
func TestCheckLive(t *testing.T) {
	t.Setenv("LC_ALL", "C")
	n, err := standin.Start(standin.Options{ID: "node1", System: standin.Chat})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	path := filepath.Join(t.TempDir(), "gateway.yaml")
	text := fmt.Sprintf(`
listeners: [{name: plain, address: "%s"}]
admin: {address: "%s"}
services: {chat: {nodes: {node1: "%s"}}}
routes: [{path: "/ws/{node}", service: chat, rewrite: /}]
`, freeAddress(t), freeAddress(t), n.Addr())
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	check := func(code int, args ...string) string {
		t.Helper()
		var out, errs bytes.Buffer
		if got := Main(append([]string{"check", "--config", path}, args...), &out, &errs); got != code {
			t.Errorf("%v: exit code %d, want %d\n%s%s", args, got, code, out.String(), errs.String())
		}
		return out.String() + errs.String()
	}
	has := func(text string, parts ...string) {
		t.Helper()
		for _, p := range parts {
			if !strings.Contains(text, p) {
				t.Errorf("no %q in\n%s", p, text)
			}
		}
	}
	has(check(2, "--json"), "--live")
	has(check(1, "--live", "--ca", "none.pem"), "none.pem")
	has(check(1, "--live", "--connect", ":1"), "--connect")
	has(check(1, "--live"), "not running", "1 ok, 2 failed")

	file, store, err := load(path)
	if err != nil {
		t.Fatal(err)
	}
	site, err := openSite(file, store, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		site.close(ctx)
	})
	has(check(0, "--live"), "running and ready", "101, open", "4 ok, 0 failed")
	var report struct{ OK bool }
	if err := json.Unmarshal([]byte(check(0, "--live", "--json")), &report); err != nil || !report.OK {
		t.Errorf("the JSON is not that of a site that is well: %v", err)
	}
	t.Setenv("LC_ALL", "zh_CN.UTF-8")
	has(check(0, "--live"), "正常 4 项")
}

// A node whose address is the gateway's own is refused, wherever a config is read.
func TestCheckOfANodeThatIsTheGateway(t *testing.T) {
	t.Setenv("LC_ALL", "C")
	path := filepath.Join(t.TempDir(), "gateway.yaml")
	writeConfig(t, path, `
listeners: [{name: plain, address: ":10443"}]
services: {im: {nodes: {node1: "127.0.0.1:10443", node2: "127.0.0.1:11880"}}}
routes: [{path: "/ws/{node}", service: im}]
node_ports: [{service: im, kind: tcp, listen: {base: 11879}}]
`)
	for _, verb := range []string{"check", "run"} {
		code, out, errs := command(t, verb, "--config", path)
		if code != exitFailure || out != "" {
			t.Errorf("%s: exit code %d, output %q", verb, code, out)
		}
		says(t, errs, `gateway.yaml:3:25: node im/node1: its address 127.0.0.1:10443 is that of the gateway's own listener "plain"`, "gateway.yaml:2:13",
			`node im/node2: its address 127.0.0.1:11880 is that of the gateway's own listener "im/node1`)
	}
}

// Rules for frames that end tunnels of clients which do nothing wrong are
// warned of, also when the gateway is tried; the config is good all the same.
func TestCheckWarnsOfRules(t *testing.T) {
	t.Setenv("LC_ALL", "C")
	path := filepath.Join(t.TempDir(), "gateway.yaml")
	text := `
listeners: [{address: "127.0.0.1:0"}]
services: {chat: {nodes: {node1: "127.0.0.1:1"}}}
routes:
  - {path: "/ws/{node}", service: chat, frames: {max_message: 64KiB, max_frame: 1MiB, rate: 1}}
`
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"check", "--config", path}, {"check", "--config", path, "--live", "--json"}} {
		var out, errs bytes.Buffer
		Main(args, &out, &errs)
		for _, want := range []string{
			"warning: gateway.yaml:5:5: frames: max_frame is 1048576 bytes, and no message may have more than max_message, 65536",
			"warning: gateway.yaml:5:5: frames: rate is 1: 2 messages at once",
		} {
			if !strings.Contains(errs.String(), want) {
				t.Errorf("%v does not say %q:\n%s", args, want, errs.String())
			}
		}
	}
}
