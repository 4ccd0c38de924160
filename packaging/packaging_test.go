//go:build linux

// Package packaging holds what `make dist` puts into packages, and this test of
// it.
package packaging

import (
	"archive/tar"
	"bufio"
	"compress/gzip"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"
)

const (
	version = "9.8.7~test"
	epoch   = "1700000000"
)

// run runs a program in a folder and returns what it says.
func run(t *testing.T, dir string, env []string, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, out)
	}
	return string(out)
}

func needs(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		if _, err := exec.LookPath(name); err != nil {
			t.Skipf("%s is not installed", name)
		}
	}
}

// copySources copies what git has of the sources, or would have, to a folder that
// is no repository.
func copySources(t *testing.T, to string) {
	t.Helper()
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	for name := range strings.SplitSeq(run(t, root, nil, "git", "ls-files", "-co", "--exclude-standard", "-z"), "\x00") {
		info, err := os.Stat(filepath.Join(root, name))
		if name == "" || errors.Is(err, os.ErrNotExist) || err == nil && info.IsDir() {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(filepath.Join(root, name))
		if err == nil {
			err = os.MkdirAll(filepath.Dir(filepath.Join(to, name)), 0o755)
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(to, name), data, info.Mode())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// dist runs dist.sh for this machine's architecture in a copy of the sources.
func dist(t *testing.T, sources string) (dir string) {
	t.Helper()
	copySources(t, sources)
	env := []string{"VERSION=" + version, "SOURCE_DATE_EPOCH=" + epoch, "ARCHS=" + runtime.GOARCH}
	run(t, sources, env, "sh", "packaging/dist.sh")
	return filepath.Join(sources, "dist")
}

func read(t *testing.T, parts ...string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(parts...))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// Two builds in different folders are the same, byte by byte; the packages hold
// what they should, and what they install runs.
func TestDist(t *testing.T) {
	if runtime.GOOS != "linux" || !slices.Contains([]string{"amd64", "arm64", "loong64", "riscv64"}, runtime.GOARCH) {
		t.Skip("packages are for Linux")
	}
	needs(t, "git", "tar", "gzip", "sha256sum")
	one := dist(t, filepath.Join(t.TempDir(), "one"))
	two := dist(t, filepath.Join(t.TempDir(), "another", "folder", "with a blank"))
	sums := read(t, one, "SHA256SUMS")
	if other := read(t, two, "SHA256SUMS"); sums != other {
		t.Errorf("two builds differ:\n%s\n%s", sums, other)
	}
	if n := strings.Count(sums, "\n"); n != 4 {
		t.Errorf("%d files, want tar.gz, deb, rpm and the bill of materials:\n%s", n, sums)
	}
	t.Run("archive", func(t *testing.T) { checkArchive(t, one) })
	t.Run("deb", func(t *testing.T) { checkDeb(t, one) })
	t.Run("rpm", func(t *testing.T) { checkRPM(t, one) })
	t.Run("bill", func(t *testing.T) { checkBill(t, one) })
}

// file is the only one in a folder with this ending.
func file(t *testing.T, dir, ending string) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, "singlegate*"+ending))
	if err != nil || len(found) != 1 {
		t.Fatalf("%s: %v, %v", ending, found, err)
	}
	return found[0]
}

func checkArchive(t *testing.T, dir string) {
	f, err := os.Open(file(t, dir, ".tar.gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	if !z.ModTime.IsZero() || z.Name != "" {
		t.Errorf("the archive tells a time or a name: %v %q", z.ModTime, z.Name)
	}
	root := "singlegate_" + version + "_linux_" + runtime.GOARCH + "/"
	missing := map[string]bool{"singlegate": true, "LICENSE": true, "README.md": true, "README.zh-CN.md": true, "singlegate.service": true, "examples/pomelo/gateway.yaml": true}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(h.Name, root) || h.Uid != 0 || h.Gid != 0 || h.ModTime.Unix() != 1_700_000_000 {
			t.Errorf("%+v", h)
		}
		delete(missing, strings.TrimPrefix(h.Name, root))
	}
	if len(missing) > 0 {
		t.Errorf("missing: %v", missing)
	}
}

// inEveryPackage are files that each package has.
func inEveryPackage() []string {
	return []string{
		"/usr/bin/singlegate", "/etc/singlegate/singlegate.yaml",
		"/usr/lib/systemd/system/singlegate.service", "/usr/lib/systemd/system/singlegate.socket", "/usr/lib/sysusers.d/singlegate.conf",
		"/usr/share/doc/singlegate/LICENSE", "/usr/share/doc/singlegate/README.md", "/usr/share/doc/singlegate/README.zh-CN.md",
		"/usr/share/doc/singlegate/docs/security.md", "/usr/share/doc/singlegate/docs/install.zh-CN.md",
		"/usr/share/doc/singlegate/examples/wildfirechat/gateway.yaml",
	}
}

func checkDeb(t *testing.T, dir string) {
	needs(t, "dpkg-deb", "dpkg", "ar")
	deb := file(t, dir, ".deb")
	members := strings.Fields(run(t, dir, nil, "ar", "t", deb))
	if want := []string{"debian-binary", "control.tar.gz", "data.tar.gz"}; !slices.Equal(members, want) {
		t.Errorf("the package is made of %v, want %v: older dpkg knows no other compression", members, want)
	}
	control := run(t, dir, nil, "dpkg-deb", "-f", deb)
	for _, line := range []string{"Package: singlegate", "Version: " + version, "Architecture: " + runtime.GOARCH} {
		if !strings.Contains(control, line+"\n") {
			t.Errorf("no %q in\n%s", line, control)
		}
	}
	if strings.Contains(control, "\nDepends:") {
		t.Errorf("it depends on something:\n%s", control)
	}
	contents := run(t, dir, nil, "dpkg-deb", "-c", deb)
	for _, name := range inEveryPackage() {
		if !strings.Contains(contents, " ."+name+"\n") {
			t.Errorf("%s is missing in\n%s", name, contents)
		}
	}
	if strings.Contains(contents, "node_modules") || strings.Contains(contents, ".pem\n") || strings.Count(contents, "root/root") != strings.Count(contents, "\n") {
		t.Errorf("it holds what it should not:\n%s", contents)
	}
	info := filepath.Join(t.TempDir(), "info")
	run(t, dir, nil, "dpkg-deb", "-e", deb, info)
	if got := read(t, info, "conffiles"); got != "/etc/singlegate/singlegate.yaml\n" {
		t.Errorf("conffiles are %q", got)
	}
	for _, script := range []string{"postinst", "prerm", "postrm"} {
		run(t, info, nil, "sh", "-n", script)
		if text := read(t, info, script); strings.Contains(text, "systemctl start") || strings.Contains(text, "systemctl enable --now singlegate.service") {
			t.Errorf("%s starts the gateway:\n%s", script, text)
		}
	}
	checkInstalled(t, deb)
}

// checkInstalled installs the package under a root of its own, as root by dpkg
// itself, and runs what is there.
func checkInstalled(t *testing.T, deb string) {
	root := t.TempDir()
	if os.Getuid() == 0 {
		for _, name := range []string{"info", "updates", "triggers"} {
			if err := os.MkdirAll(filepath.Join(root, "var/lib/dpkg", name), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(filepath.Join(root, "var/lib/dpkg/status"), nil, 0o644); err != nil {
			t.Fatal(err)
		}
		run(t, root, nil, "dpkg", "--force-not-root", "--force-script-chrootless", "--root="+root, "--unpack", deb)
	} else {
		run(t, root, nil, "dpkg-deb", "-x", deb, root)
	}
	binary := filepath.Join(root, "usr/bin/singlegate")
	if got := run(t, root, nil, binary, "version"); !strings.HasPrefix(got, "singlegate "+version+" go1.") {
		t.Errorf("version says %q", got)
	}
	config := filepath.Join(root, "etc/singlegate/singlegate.yaml")
	if _, err := os.Stat(config); err != nil {
		config += ".dpkg-new" // unpacked, not configured
	}
	run(t, root, nil, binary, "check", "--config", config)
}

func checkRPM(t *testing.T, dir string) {
	needs(t, "rpm")
	rpm := file(t, dir, ".rpm")
	arch := map[string]string{"amd64": "x86_64", "arm64": "aarch64", "loong64": "loongarch64"}[runtime.GOARCH]
	if arch == "" {
		arch = runtime.GOARCH
	}
	query := func(args ...string) string {
		return run(t, dir, nil, "rpm", append([]string{"--dbpath", t.TempDir(), "-qp", "--nosignature"}, append(args, rpm)...)...)
	}
	if got, want := query("--qf", "%{NAME} %{VERSION} %{ARCH} %{PAYLOADCOMPRESSOR} %{BUILDTIME}"), "singlegate "+version+" "+arch+" gzip "+epoch; got != want {
		t.Errorf("it is %q, want %q", got, want)
	}
	contents := query("-l")
	for _, name := range inEveryPackage() {
		if !strings.Contains(contents, name+"\n") {
			t.Errorf("%s is missing in\n%s", name, contents)
		}
	}
	if got := query("-c"); got != "/etc/singlegate/singlegate.yaml\n" {
		t.Errorf("config files are %q", got)
	}
	for line := range strings.Lines(query("--requires")) {
		if !strings.HasPrefix(line, "rpmlib(") && !strings.HasPrefix(line, "config(") && line != "/bin/sh\n" {
			t.Errorf("it requires %s", line)
		}
	}
}

func checkBill(t *testing.T, dir string) {
	var bill struct {
		Format   string `json:"bomFormat"`
		Metadata struct {
			Timestamp string
			Component struct{ Name, Version string }
		}
		Components []struct{ Name string }
	}
	if err := json.Unmarshal([]byte(read(t, file(t, dir, ".cdx.json"))), &bill); err != nil {
		t.Fatal(err)
	}
	if bill.Format != "CycloneDX" || bill.Metadata.Component.Name != "singlegate" || bill.Metadata.Component.Version != version || bill.Metadata.Timestamp != "" {
		t.Errorf("%+v", bill)
	}
	for _, name := range []string{"std", "github.com/valyala/fasthttp", "github.com/goccy/go-yaml"} {
		if !slices.ContainsFunc(bill.Components, func(c struct{ Name string }) bool { return c.Name == name }) {
			t.Errorf("%s is not among the components", name)
		}
	}
}

// The units are such that systemd has nothing to say about them.
func TestUnits(t *testing.T) {
	needs(t, "systemd-analyze")
	dir := t.TempDir()
	for _, name := range []string{"singlegate.service", "singlegate.socket"} {
		text := strings.ReplaceAll(read(t, name), "/usr/bin/singlegate", "/bin/true")
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"singlegate.service", "singlegate.socket"} {
		out := run(t, dir, []string{"SYSTEMD_LOG_LEVEL=warning"}, "systemd-analyze", "verify", "--man=no", filepath.Join(dir, name))
		for line := range strings.Lines(out) {
			if strings.Contains(line, "singlegate") {
				t.Errorf("systemd-analyze verify: %s", line)
			}
		}
	}
}

// groupOf are the system calls of one of systemd's groups.
func groupOf(t *testing.T, name string) []string {
	t.Helper()
	var calls []string
	for line := range strings.Lines(run(t, ".", nil, "systemd-analyze", "--no-pager", "syscall-filter", name)) {
		switch line = strings.TrimSpace(line); {
		case line == name || line == "" || strings.HasPrefix(line, "#"):
		case strings.HasPrefix(line, "@"):
			calls = append(calls, groupOf(t, line)...)
		default:
			calls = append(calls, line)
		}
	}
	return calls
}

// A gateway that starts, serves over TLS and plain HTTP, reloads and ends makes no
// system call that its unit forbids, and starts no other program.
func TestSystemCalls(t *testing.T) {
	needs(t, "strace", "systemd-analyze", "openssl")
	dir := t.TempDir()
	binary := filepath.Join(dir, "singlegate")
	run(t, "..", []string{"CGO_ENABLED=0"}, "go", "build", "-o", binary, ".")
	run(t, dir, nil, "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
		"-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", "key.pem", "-out", "cert.pem")
	config := `
listeners: [{name: plain, address: "127.0.0.1:0"}, {name: tls, address: "127.0.0.1:0", tls: true}]
tls: {certificates: [{cert: cert.pem, key: key.pem}]}
admin: {address: "127.0.0.1:0"}
services: {im: {nodes: {node1: %q}}}
routes: [{path: /_check/, page: check}, {path: /site/, static: .}, {path: "/ws/{node}", service: im, rewrite: /}]
logs: {format: json}
shutdown: {grace: 0s, drain: 0s, deadline: 20s}
`
	if err := os.WriteFile(filepath.Join(dir, "gateway.yaml"), []byte(fmt.Sprintf(config, echoNode(t))), 0o600); err != nil {
		t.Fatal(err)
	}
	called := systemCallsOf(t, dir, binary)
	allowed := groupOf(t, "@system-service")
	for _, group := range []string{"@privileged", "@resources"} {
		forbidden := groupOf(t, group)
		allowed = slices.DeleteFunc(allowed, func(call string) bool { return slices.Contains(forbidden, call) })
	}
	for call, n := range called {
		if !slices.Contains(allowed, call) {
			t.Errorf("%s was called %d times, and the unit forbids it", call, n)
		}
	}
	if called["execve"] != 1 || called["fork"]+called["vfork"] > 0 || called["accept4"] == 0 || called["epoll_pwait"] == 0 {
		t.Errorf("the calls are %v", called)
	}
	t.Logf("%d different system calls: %v", len(called), slices.Sorted(maps.Keys(called)))
}

// systemCallsOf counts what a gateway calls from its start to its end.
func systemCallsOf(t *testing.T, dir, binary string) map[string]int {
	t.Helper()
	// With -D the gateway is our child, and strace its tracer beside it.
	trace := filepath.Join(dir, "trace")
	cmd := exec.CommandContext(t.Context(), "strace", "-D", "-f", "-qq", "-o", trace, binary, "run", "--config", "gateway.yaml")
	cmd.Dir = dir
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var addresses []string
	lines := bufio.NewScanner(stderr)
	reloaded := false
	for lines.Scan() {
		line := lines.Text()
		if _, rest, ok := strings.Cut(line, `"address":"`); ok && strings.Contains(line, `"message":"listening"`) {
			address, _, _ := strings.Cut(rest, `"`)
			addresses = append(addresses, address)
		}
		switch {
		case strings.Contains(line, `"message":"ready: `):
			use(t, addresses)
			cmd.Process.Signal(syscall.SIGHUP)
		case strings.Contains(line, `"message":"reloaded: `):
			reloaded = true
			cmd.Process.Signal(syscall.SIGTERM)
		}
	}
	if err := cmd.Wait(); err != nil || !reloaded || len(addresses) != 2 {
		t.Fatalf("%v; it listened on %v, reloaded: %v", err, addresses, reloaded)
	}
	return callsIn(t, trace)
}

func use(t *testing.T, addresses []string) {
	t.Helper()
	client := http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	for i, address := range addresses {
		for _, path := range []string{"/_check/", "/site/cert.pem", "/nowhere"} {
			resp, err := client.Get([]string{"http://", "https://"}[i%2] + address + path)
			if err != nil {
				t.Error(err)
				continue
			}
			io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		}
		useTunnel(t, []string{"ws://", "wss://"}[i%2]+address+"/ws/node1")
	}
}

// echoNode is a node that sends back what it gets.
func echoNode(t *testing.T) (address string) {
	t.Helper()
	node := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, _, _, err := ws.UpgradeHTTP(r, w)
		if err != nil {
			return
		}
		defer conn.Close()
		for {
			text, err := wsutil.ReadClientText(conn)
			if err != nil || wsutil.WriteServerText(conn, text) != nil {
				return
			}
		}
	}))
	t.Cleanup(node.Close)
	return node.Listener.Addr().String()
}

func useTunnel(t *testing.T, url string) {
	t.Helper()
	dialer := ws.Dialer{Timeout: 20 * time.Second, TLSConfig: &tls.Config{InsecureSkipVerify: true}}
	conn, _, _, err := dialer.Dial(t.Context(), url)
	if err != nil {
		t.Error(err)
		return
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	if err := wsutil.WriteClientText(conn, []byte("hello")); err != nil {
		t.Error(err)
	}
	if text, err := wsutil.ReadServerText(conn); err != nil || string(text) != "hello" {
		t.Errorf("the tunnel says %q, %v", text, err)
	}
}

// callsIn reads the trace when its writer has ended it.
func callsIn(t *testing.T, trace string) map[string]int {
	t.Helper()
	called := map[string]int{}
	begins := regexp.MustCompile(`(?m)^\d+ +([a-z_0-9]+)\(`)
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		text := read(t, trace)
		if strings.Contains(text, "exit_group(") || time.Now().After(end) {
			for _, m := range begins.FindAllStringSubmatch(text, -1) {
				called[m[1]]++
			}
			return called
		}
	}
}
