package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// exampleTests has a test for every folder of examples/: it starts stand-ins for
// the system's nodes and speaks to the gateway as the system's clients do.
var exampleTests = map[string]func(*testing.T, *example){
	"acme":               testACMEExample,
	"behind-l4":          testBehindL4,
	"consul-cluster":     testConsulCluster,
	"django-chat":        testDjangoChat,
	"internal-ca":        testInternalCA,
	"jks":                testJKS,
	"mqtt":               testMQTT,
	"mutual-tls":         testMutualTLS,
	"pomelo":             testPomelo,
	"wechat-miniprogram": testWeChat,
	"wildfirechat":       testWildfireChat,
	"xmpp-bosh":          testXMPP,
}

// Every example runs as it is: with its file, its ports, and the certificate
// that its README makes. The nodes stand where the file looks for them.
func TestExamples(t *testing.T) {
	folders, err := os.ReadDir(filepath.Join(root, "examples"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range folders {
		if !f.IsDir() {
			continue
		}
		t.Run(f.Name(), func(t *testing.T) {
			t.Parallel() // they share no port, and the checks of their READMEs wait a lot
			test := exampleTests[f.Name()]
			if test == nil {
				t.Fatal("this example has no test: write one that speaks as its clients do")
			}
			test(t, newExample(t, f.Name()))
		})
	}
}

// Examples run side by side, here and on the machine of who tries them.
func TestExamplesShareNoPort(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(root, "examples", "*", "*.*"))
	if err != nil {
		t.Fatal(err)
	}
	local := regexp.MustCompile(`127\.0\.0\.1:([0-9]+)`)
	owners := map[string]string{}
	for _, f := range files {
		if ext := filepath.Ext(f); ext != ".yaml" && ext != ".cfg" {
			continue
		}
		example := filepath.Base(filepath.Dir(f))
		for _, m := range local.FindAllStringSubmatch(readFile(t, f), -1) {
			if owner, taken := owners[m[1]]; taken && owner != example {
				t.Errorf("port %s is that of %s and of %s", m[1], owner, example)
			}
			owners[m[1]] = example
		}
	}
	if len(owners) < 2*len(exampleTests) {
		t.Errorf("found %d ports in %d files", len(owners), len(files))
	}
}

// An example is a copy of one of the examples' folders.
type example struct {
	*site
	dir    string
	readme string
	ca     string // the certificate, which clients trust
}

// newExample copies an example and makes its certificate as the README says.
func newExample(t *testing.T, name string) *example {
	t.Helper()
	e := &example{dir: filepath.Join(t.TempDir(), name)}
	if err := os.CopyFS(e.dir, os.DirFS(filepath.Join(root, "examples", name))); err != nil {
		t.Fatal(err)
	}
	e.readme = readFile(t, filepath.Join(e.dir, "README.md"))
	e.ca = filepath.Join(e.dir, "cert.pem")
	program(t, "openssl")
	for _, line := range shellLines(section(t, e.readme, "Run it")) {
		if strings.HasPrefix(line.command, "openssl ") {
			if r := runToEnd(t, e.shell(t, line.command)); r.code != 0 {
				t.Fatalf("%s: exit code %d\n%s", line.command, r.code, r.err)
			}
		}
	}
	return e
}

// start checks the example's file and runs it.
func (e *example) start(t *testing.T) {
	t.Helper()
	if r := runCommand(t, e.dir, "check", "--config", "gateway.yaml"); r.code != 0 {
		t.Fatalf("check: exit code %d\n%s", r.code, r.err)
	}
	e.site = startSite(t, e.dir)
	admin := door{address: e.admin, host: e.admin}
	if answer, body := admin.request(t, "GET", "/readyz", ""); answer.StatusCode != 200 {
		t.Fatalf("/readyz: %s %s", answer.Status, body)
	}
}

// door is a listener of the example as clients see it that use a host name.
func (e *example) door(t *testing.T, listener, host string) door {
	t.Helper()
	address := e.listeners[listener]
	_, port, found := strings.Cut(address, ":")
	if !found {
		t.Fatalf("there is no listener %q", listener)
	}
	d := door{address: address, host: host + ":" + port}
	if listener == "tls" {
		d.roots = rootsOf(t, e.ca)
	}
	return d
}

// shell is a script that runs in the example's folder.
func (e *example) shell(t *testing.T, script string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(program(t, "sh"), "-c", script)
	cmd.Dir = e.dir
	return cmd
}

// A shellLine is a command of a README and what is written behind it.
type shellLine struct{ command, comment string }

var (
	shellBlock   = regexp.MustCompile("(?s)```sh\n(.*?)```")
	shellComment = regexp.MustCompile(`(?:^|\s)\s*# +(.*)$`)
)

// section is the part of a README under a heading.
func section(t *testing.T, text, heading string) string {
	t.Helper()
	_, rest, found := strings.Cut(text, "\n## "+heading+"\n")
	if !found {
		t.Fatalf("there is no heading %q", heading)
	}
	part, _, _ := strings.Cut(rest, "\n## ")
	return part
}

// shellLines are the commands in the shell blocks of a text, those over several
// lines joined. A line with a comment alone belongs to the command before it.
func shellLines(text string) []shellLine {
	var lines []shellLine
	for _, block := range shellBlock.FindAllStringSubmatch(text, -1) {
		joined := strings.ReplaceAll(block[1], "\\\n", " ")
		for line := range strings.Lines(joined) {
			line = strings.TrimSuffix(line, "\n")
			comment := ""
			if at := shellComment.FindStringSubmatchIndex(line); at != nil {
				line, comment = line[:at[0]], line[at[2]:]
			}
			switch line = strings.TrimSpace(line); {
			case line != "":
				lines = append(lines, shellLine{line, comment})
			case comment != "" && len(lines) > 0:
				lines[len(lines)-1].comment += comment
			}
		}
	}
	return lines
}

// quickCurl shows the head of every answer, and does not wait for long where a
// WebSocket is open: options that come last win.
const quickCurl = `curl() { command curl "$@" -sS -i --max-time 2; }` + "\n"

// checkIt runs the lines under "Check it" in the README, all at once, and
// compares the status of each answer with the one in the line's comment, or with
// 200 when it tells none.
func (e *example) checkIt(t *testing.T) {
	t.Helper()
	prelude, lines := quickCurl, []shellLine{}
	for _, line := range shellLines(section(t, e.readme, "Check it")) {
		if strings.HasPrefix(line.command, "ws() {") {
			prelude += line.command + "\n"
		} else {
			lines = append(lines, line)
		}
	}
	if len(lines) < 3 {
		t.Errorf("the README has %d lines to check, which is hard to believe", len(lines))
	}
	t.Run("the README's checks", func(t *testing.T) {
		program(t, "curl")
		var group sync.WaitGroup
		for _, line := range lines {
			cmd := e.shell(t, prelude+line.command)
			group.Go(func() { line.compare(t, cmd) })
		}
		group.Wait()
	})
}

// compare runs the line and compares its answer with what the README promises.
func (l shellLine) compare(t *testing.T, cmd *exec.Cmd) {
	r, err := tryToEnd(t.Context(), cmd)
	if err != nil {
		t.Error(err)
		return
	}
	want := "HTTP/1.1 200 "
	if status, err := strconv.Atoi(l.comment[:min(3, len(l.comment))]); err == nil {
		want = fmt.Sprintf("HTTP/1.1 %d ", status)
	}
	switch {
	case strings.Contains(l.command, "| od -c"):
		contains(t, l.command, r.out, "003 360") // 1008
	case !strings.HasPrefix(r.out, want):
		t.Errorf("%s\nanswered %.300q, want %q; %s", l.command, r.out, want, r.err)
	}
}

// What is written in two languages must be the same commands.
func TestBothLanguagesOfTheREADMEsHaveTheSameCommands(t *testing.T) {
	english, err := filepath.Glob(filepath.Join(root, "examples", "*", "README.md"))
	if err != nil || len(english) == 0 {
		t.Fatal("there are no READMEs", err)
	}
	for _, file := range append(english, filepath.Join(root, "single_address.md")) {
		chinese := strings.TrimSuffix(file, ".md") + ".zh-CN.md"
		var commands [2][]string
		for i, f := range []string{file, chinese} {
			for _, line := range shellLines(readFile(t, f)) {
				commands[i] = append(commands[i], line.command)
			}
		}
		for i := range max(len(commands[0]), len(commands[1])) {
			if i >= len(commands[0]) || i >= len(commands[1]) || commands[0][i] != commands[1][i] {
				t.Errorf("%s: command %d is another one in %s", file, i+1, filepath.Base(chinese))
				break
			}
		}
	}
}

var yamlBlock = regexp.MustCompile("(?s)```yaml\n(.*?)```")

// The configs in the guide pass a check.
func TestConfigsOfTheGuidePassACheck(t *testing.T) {
	for _, name := range []string{"single_address.md", "single_address.zh-CN.md"} {
		t.Run(name, func(t *testing.T) {
			whole := 0
			for _, block := range yamlBlock.FindAllStringSubmatch(readFile(t, filepath.Join(root, name)), -1) {
				if !strings.Contains(block[1], "listeners:") {
					continue // a fragment
				}
				whole++
				dir := t.TempDir()
				writeCertificate(t, dir)
				for from, to := range map[string]string{"cert.pem": "im.pem", "key.pem": "im.key"} {
					if err := os.Rename(filepath.Join(dir, from), filepath.Join(dir, to)); err != nil {
						t.Fatal(err)
					}
				}
				writeFile(t, dir, "gateway.yaml", block[1])
				if r := runCommand(t, dir, "check", "--config", "gateway.yaml"); r.code != 0 {
					t.Errorf("check: exit code %d\n%s\nof\n%s", r.code, r.err, block[1])
				}
			}
			if whole == 0 {
				t.Error("there is no whole config")
			}
		})
	}
}
