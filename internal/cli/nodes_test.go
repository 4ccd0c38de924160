package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"singlegate/gateway/admin"
	"singlegate/internal/standin"
)

var update = flag.Bool("update", false, "write the golden files anew")

// fixedNodes is an answer of the gateway in which everything occurs.
func fixedNodes(t *testing.T) admin.Nodes {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", "nodes.json"))
	if err != nil {
		t.Fatal(err)
	}
	var n admin.Nodes
	if err := json.Unmarshal(data, &n); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestNodesView(t *testing.T) {
	for _, c := range []struct {
		golden string
		say    words
	}{{"nodes.en.golden", english()}, {"nodes.zh.golden", chinese()}} {
		t.Run(c.golden, func(t *testing.T) {
			got := nodesView(fixedNodes(t), c.say)
			path := filepath.Join("testdata", c.golden)
			if *update {
				if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("the table is\n%s\nwant\n%s", got, want)
			}
			if strings.ContainsRune(got, '\x1b') {
				t.Error("an escape sequence in a registered text reached the terminal")
			}
		})
	}
	if got := nodesView(admin.Nodes{}, english()); got != "The gateway has no services.\n" {
		t.Errorf("without services it is %q", got)
	}
}

// A runningSite is a gateway in this process, from a config file, in front of
// stand-in nodes.
type runningSite struct {
	*site
	admin, listener string // host:port
}

// startSite runs a gateway with nodes node1 and node2 of service im, and one
// of service 聊天 until the test ends.
func startSite(t *testing.T) *runningSite {
	t.Helper()
	var addrs []any
	for _, id := range []string{"node1", "node2", "节点"} {
		n, err := standin.Start(standin.Options{ID: id, System: standin.Chat})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { n.Close() })
		addrs = append(addrs, n.Addr())
	}
	s := openTestSite(t, filepath.Join(t.TempDir(), "singlegate.yaml"), `
public: {host: im.example.gov}
admin: {address: "127.0.0.1:0"}
listeners: [{name: plain, address: "127.0.0.1:0", public: {port: 80}}]
services:
  im: {nodes: {node1: "`+addrs[0].(string)+`", node2: "`+addrs[1].(string)+`"}}
  聊天: {nodes: {节点: "`+addrs[2].(string)+`"}}
routes:
  - {path: "/ws/{node}", service: im, rewrite: /}
shutdown: {grace: 0s, drain: 0s, deadline: 5s}
`)
	return &runningSite{s, s.admin.Addr().String(), s.server.Entries()[0].Address.String()}
}

// openTestSite runs a gateway with a config until the test ends.
func openTestSite(t *testing.T, path, text string) *site {
	t.Helper()
	writeConfig(t, path, text)
	file, store, err := load(path)
	if err != nil {
		t.Fatal(err)
	}
	s, err := openSite(file, store, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.close(context.Background()) })
	return s
}

func writeConfig(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// command runs a command line in this process.
func command(t *testing.T, args ...string) (code int, out, errs string) {
	t.Helper()
	var o, e bytes.Buffer
	code = Main(args, &o, &e)
	return code, o.String(), e.String()
}

// says tells what of parts a text lacks.
func says(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(text, p) {
			t.Errorf("%q is not in:\n%s", p, text)
		}
	}
}

func inLanguage(t *testing.T, value string) {
	t.Setenv("LC_ALL", value)
	t.Setenv("LC_MESSAGES", "")
	t.Setenv("LANG", "")
}

func TestNodesOfGateway(t *testing.T) {
	inLanguage(t, "C")
	s := startSite(t)
	conf := filepath.Join(t.TempDir(), "singlegate.yaml")
	writeConfig(t, conf, `
admin: {address: "`+s.admin+`"}
listeners: [{address: "127.0.0.1:0"}]
services: {im: {nodes: {node1: "127.0.0.1:1"}}}
routes: [{path: /, service: im}]
`)
	for _, c := range []struct {
		name     string
		args     []string
		has, not []string
	}{
		{"all", []string{"--admin", s.admin}, []string{"SERVICE", "node1", "node2", "节点", "ws://im.example.gov/ws/node1\n", "passing", "singlegate.yaml:6:"}, nil},
		{"by config", []string{"--config", conf}, []string{"node1"}, nil},
		{"one service", []string{"--admin", s.admin, "--service", "聊天"}, []string{"节点"}, []string{"node1"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			code, out, errs := command(t, append([]string{"nodes"}, c.args...)...)
			if code != exitOK || errs != "" {
				t.Fatalf("exit code %d: %s", code, errs)
			}
			says(t, out, c.has...)
			for _, p := range c.not {
				if strings.Contains(out, p) {
					t.Errorf("%q is in:\n%s", p, out)
				}
			}
		})
	}

	t.Run("json", func(t *testing.T) {
		code, out, errs := command(t, "nodes", "--json", "--admin", s.admin, "--service", "im")
		var n admin.Nodes
		if err := json.Unmarshal([]byte(out), &n); err != nil || code != exitOK {
			t.Fatalf("exit code %d, %v: %s%s", code, err, out, errs)
		}
		if len(n.Services) != 1 || len(n.Services[0].Nodes) != 2 || n.Services[0].Nodes[1].ID != "node2" {
			t.Errorf("the services are %+v", n.Services)
		}
	})

	t.Run("in Chinese", func(t *testing.T) {
		inLanguage(t, "zh_CN.UTF-8")
		_, out, _ := command(t, "nodes", "--admin", s.admin)
		says(t, out, "服务", "节点", "健康", "正常", "ws://im.example.gov/ws/node1\n")
	})

	t.Run("unknown service", func(t *testing.T) {
		code, out, errs := command(t, "nodes", "--admin", s.admin, "--service", "imm")
		if code != exitFailure || out != "" {
			t.Errorf("exit code %d, output %q", code, out)
		}
		says(t, errs, `there is no service "imm"`, "did you mean im?")
	})
}

// blocks is an output that ends the watching when it has enough blocks.
type blocks struct {
	buffer bytes.Buffer
	enough int
	end    context.CancelFunc
}

func (b *blocks) Write(p []byte) (int, error) {
	if b.enough--; b.enough == 0 {
		b.end()
	}
	return b.buffer.Write(p)
}

func (b *blocks) String() string { return b.buffer.String() }

func TestWatch(t *testing.T) {
	s := startSite(t)
	client := clientOf(t, s.admin)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	out := &blocks{enough: 3, end: cancel}
	c := nodesCommand{Watch: true, Service: "im"}
	if err := c.watch(ctx, out, client, time.Millisecond); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(out.String(), "SERVICE"); n != 3 {
		t.Errorf("%d tables, want 3:\n%.2000s", n, out)
	}
	says(t, out.String(), "0 tunnels; Ctrl-C ends\nSERVICE")
	if strings.ContainsRune(out.String(), '\x1b') {
		t.Errorf("an output that is no terminal got escape sequences: %q", out)
	}
}

// Watching goes on while the gateway is away.
func TestWatchWithoutGateway(t *testing.T) {
	client := clientOf(t, freeAddress(t))
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	out := &blocks{enough: 2, end: cancel}
	if err := (&nodesCommand{Watch: true}).watch(ctx, out, client, time.Millisecond); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(out.String(), "no answer from the admin address"); n != 2 {
		t.Errorf("%d messages, want 2:\n%.2000s", n, out)
	}
}

func clientOf(t *testing.T, address string) *adminClient {
	t.Helper()
	c, err := adminFlags{Admin: address}.client(english())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// freeAddress is an address where nothing listens.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func TestAdminErrors(t *testing.T) {
	inLanguage(t, "C")
	other := httptest.NewServer(http.NotFoundHandler())
	defer other.Close()
	page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "<html>") }))
	defer page.Close()
	dead := freeAddress(t)
	bare := filepath.Join(t.TempDir(), "bare.yaml")
	writeConfig(t, bare, `
listeners: [{address: "127.0.0.1:0"}]
services: {im: {nodes: {node1: "127.0.0.1:1"}}}
routes: [{path: /, service: im}]
`)
	for _, c := range []struct {
		name string
		args []string
		has  []string
	}{
		{"nobody there", []string{"nodes", "--admin", dead}, []string{"no answer from the admin address " + dead, "connection refused", "--admin", "--config", "Is the gateway running"}},
		{"nobody there, drain", []string{"drain", "node1", "--admin", dead}, []string{"no answer from the admin address " + dead}},
		{"nobody there, undrain", []string{"undrain", "node1", "--admin", dead}, []string{"no answer from the admin address " + dead}},
		{"another server", []string{"nodes", "--admin", other.Listener.Addr().String()}, []string{"404 Not Found", "admin address of a singlegate"}},
		{"another server's page", []string{"nodes", "--admin", page.Listener.Addr().String()}, []string{"admin address of a singlegate"}},
		{"no port", []string{"nodes", "--admin", "localhost"}, []string{`"localhost" is not HOST:PORT`}},
		{"a URL", []string{"nodes", "--admin", "http://localhost:9180"}, []string{"is not HOST:PORT"}},
		{"a config without one", []string{"nodes", "--config", bare}, []string{"has no admin address"}},
		{"no config", []string{"nodes", "--config", "none.yaml"}, []string{"none.yaml"}},
		{"a pace below zero", []string{"drain", "node1", "--per-second=-3", "--admin", dead}, []string{"--per-second is -3"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			code, out, errs := command(t, c.args...)
			if code != exitFailure || out != "" {
				t.Errorf("exit code %d, output %q", code, out)
			}
			says(t, errs, c.has...)
		})
	}
}

func TestAdminAddress(t *testing.T) {
	for given, want := range map[string]string{
		"127.0.0.1:9180": "127.0.0.1:9180",
		":9180":          "localhost:9180",
		"0.0.0.0:9180":   "localhost:9180",
		"[::]:9180":      "localhost:9180",
		"[::1]:9180":     "[::1]:9180",
		"gateway:9180":   "gateway:9180",
		"":               "127.0.0.1:9180",
	} {
		got, _, err := adminFlags{Admin: given}.target(english())
		if err != nil || got != want {
			t.Errorf("%q: %q, %v; want %q", given, got, err, want)
		}
	}
}
