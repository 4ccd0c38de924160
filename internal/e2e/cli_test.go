package e2e

import (
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"singlegate/internal/standin"
)

const goodConfig = `
listeners: [{name: plain, address: "127.0.0.1:0"}]
admin: {address: "127.0.0.1:0"}
services: {im: {nodes: {node1: "127.0.0.1:1"}}}
routes: [{path: "/ws/{node}", service: im, rewrite: /}]
`

const badConfig = `
listeners:
  - {name: plain, address: "127.0.0.1:99999"}
  - {name: plian, adress: "127.0.0.1:0"}
services: {im: {nodes: {node1: "127.0.0.1:1"}}}
routes:
  - {path: /a, service: imm}
  - {path: /b, service: im, timeouts: {idle: soon}}
  - {path: /c, service: im, balance: fastest}
`

// The command line: what goes to which stream, and the exit code.
func TestCommandLine(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, dir, "good.yaml", goodConfig)
	writeFile(t, dir, "bad.yaml", badConfig)
	writeFile(t, dir, "empty.yaml", "")

	type texts = []string
	commands := texts{"run", "check", "demo", "health", "version"}
	for _, c := range []struct {
		name     string
		args     texts
		code     int
		out, err texts // what the streams must have; none: nothing at all
	}{
		{"help", texts{"--help"}, 0, commands, nil},
		{"no arguments", nil, 0, commands, nil},
		{"help of a command", texts{"check", "--help"}, 0, texts{"--config"}, nil},
		{"version", texts{"version"}, 0, texts{"singlegate ", "go1."}, nil},
		{"unknown command", texts{"rnu"}, 2, nil, texts{"rnu", `did you mean "run"`, "--help"}},
		{"unknown flag", texts{"check", "--confg", "x"}, 2, nil, texts{`did you mean "--config"`}},
		{"too many arguments", texts{"version", "please"}, 2, nil, texts{"please"}},
		{"run without a config", texts{"run"}, 2, nil, texts{"--config"}},
		{"check without a config", texts{"check"}, 2, nil, texts{"--config"}},
		{"check of a file that is missing", texts{"check", "--config", "none.yaml"}, 1, nil, texts{"none.yaml"}},
		{"run of a file that is missing", texts{"run", "--config", "none.yaml"}, 1, nil, texts{"none.yaml"}},
		{"check of a folder", texts{"check", "--config", "."}, 1, nil, texts{"directory"}},
		{"check of an empty file", texts{"check", "--config", "empty.yaml"}, 1, nil, texts{"empty.yaml"}},
		{"check of a good file", texts{"check", "--config", "good.yaml"}, 0, texts{"good.yaml: ok: "}, nil},
		{"check of a bad file", texts{"check", "--config", "bad.yaml"}, 1, nil, badPlaces},
		{"run of a bad file", texts{"run", "--config", "bad.yaml"}, 1, nil, badPlaces},
		{"health of a bad file", texts{"health", "--config", "bad.yaml"}, 1, nil, badPlaces},
		{"demo with an argument", texts{"demo", "now"}, 2, nil, texts{"now"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := runCommand(t, dir, c.args...)
			if r.code != c.code {
				t.Errorf("exit code %d, want %d\n%s%s", r.code, c.code, r.out, r.err)
			}
			says(t, "standard output", r.out, c.out)
			says(t, "standard error", r.err, c.err)
		})
	}
}

// badPlaces are the places of every error in badConfig.
var badPlaces = []string{"bad.yaml:3:28: ", "bad.yaml:4:5: ", "bad.yaml:4:19: ", "bad.yaml:7:25: ", "bad.yaml:8:46: ", "bad.yaml:9:38: "}

// says compares a stream with what it must have.
func says(t *testing.T, stream, text string, wanted []string) {
	t.Helper()
	if len(wanted) == 0 && text != "" {
		t.Errorf("%s has %q, want nothing", stream, text)
	}
	contains(t, stream, text, wanted...)
}

func TestCheckPrintsOneLine(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, dir, "gateway.yaml", goodConfig)
	r := runCommand(t, dir, "check", "--config", "gateway.yaml")
	if !regexp.MustCompile(`^gateway\.yaml: ok: [^\n]+\n$`).MatchString(r.out) {
		t.Errorf("got %q", r.out)
	}
}

// An operator repairs everything in one round: the file's own errors and the
// certificates and folders that it names.
func TestCheckReportsConfigAndFilesTogether(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, dir, "gateway.yaml", `
listeners: [{address: "127.0.0.1:0", tls: true}]
tls: {certificates: [{cert: gone.pem, key: gone.key}]}
services: {im: {nodes: {node1: "127.0.0.1:1"}}}
routes:
  - {path: /ws, service: imm}
  - {path: /site, static: ./gone}
`)
	r := runCommand(t, dir, "check", "--config", "gateway.yaml")
	if r.code != 1 {
		t.Errorf("exit code %d, want 1", r.code)
	}
	contains(t, "standard error", r.err,
		`gateway.yaml:6:26: there is no service "imm"`,
		"gateway.yaml:3:22: certificate file gone.pem does not exist",
		"gateway.yaml:3:22: key file gone.key does not exist",
		"gateway.yaml:7:5: static folder gone does not exist")
}

// The config of a site may hold a secret where no secret belongs.
func TestErrorsHideWhatCameFromTheEnvironment(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, dir, "gateway.yaml", strings.ReplaceAll(goodConfig, "service: im,", "service: ${SECRET},"))
	t.Setenv("SECRET", "hunter2")
	r := runCommand(t, dir, "check", "--config", "gateway.yaml")
	if r.code != 1 {
		t.Errorf("exit code %d, want 1", r.code)
	}
	contains(t, "standard error", r.err, "gateway.yaml:5:")
	if strings.Contains(r.err+r.out, "hunter2") {
		t.Errorf("the value shows: %s", r.err)
	}
}

func TestHealth(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, dir, "gateway.yaml", strings.ReplaceAll(goodConfig, "127.0.0.1:1\"", startNode(t, standin.Options{ID: "node1"}).Addr()+`"`))
	s := startSite(t, dir)
	for _, args := range [][]string{{"health", "--admin", s.admin}, {"health", "--ready", "--admin", s.admin}} {
		r := runCommand(t, dir, args...)
		if r.code != 0 || !strings.Contains(r.out, `"status"`) || r.err != "" {
			t.Errorf("%v: exit code %d, %q, %q", args, r.code, r.out, r.err)
		}
	}
}

func TestHealthOfAConfigFile(t *testing.T) {
	dir := t.TempDir()
	admin := freeAddress(t)
	writeFile(t, dir, "gateway.yaml", strings.ReplaceAll(goodConfig, `admin: {address: "127.0.0.1:0"}`, fmt.Sprintf("admin: {address: %q}", admin)))
	startSite(t, dir)
	if r := runCommand(t, "", "health", "--config", filepath.Join(dir, "gateway.yaml")); r.code != 0 {
		t.Errorf("exit code %d: %s", r.code, r.err)
	}
}

func TestHealthWhenNobodyAnswers(t *testing.T) {
	admin := freeAddress(t)
	r := runCommand(t, t.TempDir(), "health", "--admin", admin)
	if r.code != 1 || r.out != "" {
		t.Errorf("exit code %d, standard output %q, want 1 and nothing", r.code, r.out)
	}
	contains(t, "standard error", r.err, admin, "refused")
	if !regexp.MustCompile(`(?i)is (it|the gateway) running|start (it|the gateway)|--admin|--config`).MatchString(r.err) {
		t.Errorf("the message does not say what to do: %s", r.err)
	}
}
