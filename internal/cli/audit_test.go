package cli

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"singlegate/internal/audit"
)

const auditSite = `
admin: {address: "127.0.0.1:0"}
listeners: [{address: "127.0.0.1:0"}]
services: {im: {nodes: {node1: "127.0.0.1:1"}}}
routes: [{path: /check, page: check}, {path: "/ws/{node}", service: im}]
audit: {file: audit.log, on_failure: refuse}
`

// fileHolds waits until a file holds a text.
func fileHolds(t *testing.T, name, what string) string {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		b, _ := os.ReadFile(name)
		if bytes.Contains(b, []byte(what)) {
			return string(b)
		}
		if time.Now().After(end) {
			t.Fatalf("%s does not hold %q:\n%s", name, what, b)
		}
	}
}

func ask(t *testing.T, method, url, body string) (status int, answer string) {
	t.Helper()
	req, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

// A whole gateway notes requests, drains and reloads, goes on in another file
// after a reload when its own was moved away, ends the log in order, and verify
// is content with all of it.
func TestAuditOfASite(t *testing.T) {
	t.Setenv("LC_ALL", "C")
	dir := t.TempDir()
	path, log := filepath.Join(dir, "singlegate.yaml"), filepath.Join(dir, "audit.log")
	s := openTestSite(t, path, auditSite)
	entry := "http://" + s.server.Entries()[0].Address.String()
	admin := "http://" + s.admin.Addr().String()
	ask(t, "GET", entry+"/check/?token=s3cr3t", "")
	fileHolds(t, log, `"path":"/check/?token=[redacted]"`)
	ask(t, "POST", admin+"/api/drain", `{"node": "node1"}`)
	ask(t, "POST", admin+"/api/undrain", `{"node": "nobody"}`)
	fileHolds(t, log, `"action":"undrain"`)
	if err := os.Rename(log, log+".1"); err != nil {
		t.Fatal(err)
	}
	s.reload(load(path))
	text := fileHolds(t, log, `"action":"reload"`)
	writeConfig(t, path, "nonsense")
	s.reload(load(path))
	fileHolds(t, log, `"success":false,"action":"reload"`)
	if status, body := ask(t, "GET", admin+"/readyz", ""); status != 200 {
		t.Errorf("ready: %d %s", status, body)
	}
	_, metrics := ask(t, "GET", admin+"/metrics", "")
	says(t, metrics, `singlegate_audit_dropped_total{to="file"} 0`, `singlegate_audit_failing{to="file"} 0`)
	s.close(t.Context())
	before := fileHolds(t, log+".1", `"action":"drain","client":"127.0.0.1:`)
	if !strings.Contains(text, `"event":"audit_opened"`) || !strings.Contains(before, `"success":false,"action":"undrain"`) {
		t.Errorf("got\n%s%s", before, text)
	}
	fileHolds(t, log, `"event":"audit_closed"`)
	code, out, errs := command(t, "audit", "verify", log, log+".1")
	if code != exitOK || errs != "" || !strings.Contains(out, "nothing was changed\n") || strings.Contains(out, "note:") {
		t.Errorf("verify: %d\n%s%s", code, out, errs)
	}
}

// With on_failure: refuse and a disk that takes nothing, requests are refused and
// readiness says why.
func TestAuditFailureIsNotReady(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "singlegate.yaml")
	s := openTestSite(t, path, strings.Replace(auditSite, "audit.log", filepath.Join(dir, "audit.log"), 1))
	if err := os.Rename(dir, dir+"2"); err != nil {
		t.Fatal(err)
	}
	ready := func() (int, string) { return ask(t, "GET", "http://"+s.admin.Addr().String()+"/readyz", "") }
	wait := func(want int) (body string) {
		t.Helper()
		for end := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
			status, body := ready()
			if status == want {
				return body
			}
			if time.Now().After(end) {
				t.Fatalf("ready: %d %s", status, body)
			}
		}
	}
	if body := wait(503); !strings.Contains(body, "nothing new is served") {
		t.Errorf("ready: %s", body)
	}
	if status, body := ask(t, "GET", "http://"+s.server.Entries()[0].Address.String()+"/check/", ""); status != 503 || !strings.Contains(body, "audit_unavailable") {
		t.Errorf("a request: %d %s", status, body)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	wait(200)
}

func TestCheckWarnsOfAudit(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "singlegate.yaml")
	writeConfig(t, path, strings.Replace(auditSite, "audit.log", "audit.log, keep: 30d", 1))
	code, _, errs := command(t, "check", "--config", path)
	if code != exitOK || !strings.Contains(errs, "warning: singlegate.yaml:6:15: audit: keep is 30 days") {
		t.Errorf("%d\n%s", code, errs)
	}
	writeConfig(t, path, strings.Replace(auditSite, "audit.log", "none/audit.log", 1))
	code, _, errs = command(t, "check", "--config", path)
	if code != exitFailure || !strings.Contains(errs, "singlegate.yaml:6:15: audit: the folder ") || !strings.Contains(errs, "install -d") {
		t.Errorf("%d\n%s", code, errs)
	}
}

func TestAuditVerify(t *testing.T) {
	dir := t.TempDir()
	path, log, key := filepath.Join(dir, "singlegate.yaml"), filepath.Join(dir, "audit.log"), filepath.Join(dir, "chain.key")
	if err := os.WriteFile(key, bytes.Repeat([]byte("k"), 40), 0o600); err != nil {
		t.Fatal(err)
	}
	s := openTestSite(t, path, strings.Replace(auditSite, "audit.log", "audit.log, key_file: chain.key", 1))
	for i := range 3 {
		ask(t, "GET", fmt.Sprintf("http://%s/check/?n=%d", s.server.Entries()[0].Address, i), "")
	}
	s.close(t.Context())
	text := fileHolds(t, log, "audit_closed")
	changed := filepath.Join(dir, "changed.log")
	if err := os.WriteFile(changed, []byte(strings.Replace(text, "n=1", "n=7", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	hash := regexp.MustCompile(`"hash":"(\w+)"}\n$`).FindStringSubmatch(text)[1]
	for _, c := range []struct {
		name string
		lang string
		args []string
		code int
		says string
	}{
		{"the config's", "C", []string{"--config", path}, exitOK, "nothing was changed"},
		{"by name", "C", []string{log, "--key", key}, exitOK, "last hash: " + hash},
		{"a hash that was noted", "C", []string{log, "--key", key, "--contains", hash}, exitOK, "nothing was changed"},
		{"another one", "C", []string{log, "--key", key, "--contains", strings.Repeat("0", 64)}, exitFailure, "the log was rewritten"},
		{"changed", "C", []string{changed, "--key", key}, exitFailure, changed + ":3: line no. 3 was changed\n"},
		{"changed, in Chinese", "zh_CN.UTF-8", []string{changed, "--key", key}, exitFailure, changed + ":3：第 3 号记录被修改\n"},
		{"no key", "C", []string{log}, exitUnchecked, "--key FILE"},
		{"no key, in Chinese", "zh_CN.UTF-8", []string{log}, exitUnchecked, "请用 --key FILE"},
		{"another key", "C", []string{log, "--key", path}, exitUnchecked, "another key"},
		{"another file", "C", []string{path}, exitUnchecked, "no line of an audit log"},
		{"no file", "C", []string{log + "2"}, exitUnchecked, "no such file"},
		{"no key file", "C", []string{log, "--key", key + "2"}, exitUnchecked, "no such file"},
		{"nothing", "C", nil, exitUsage, "--config FILE"},
		{"no hash", "C", []string{log, "--contains", "12"}, exitUsage, "64 digits"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Setenv("LC_ALL", c.lang)
			code, out, errs := command(t, append([]string{"audit", "verify"}, c.args...)...)
			if code != c.code || !strings.Contains(out+errs, c.says) {
				t.Errorf("exit %d, want %d and %q:\n%s%s", code, c.code, c.says, out, errs)
			}
		})
	}
}

// Both languages have a sentence for every kind of finding, with the same places.
func TestAuditWordsAgree(t *testing.T) {
	places := regexp.MustCompile(`\{\w+\}|%[sd]`)
	en, zh := auditEnglish(), auditChinese()
	if len(en.kinds) != 13 || len(zh.kinds) != len(en.kinds) {
		t.Errorf("%d and %d kinds", len(en.kinds), len(zh.kinds))
	}
	for kind, text := range en.kinds {
		a, b := places.FindAllString(text, -1), places.FindAllString(zh.kinds[kind], -1)
		slices.Sort(a)
		slices.Sort(b)
		if zh.kinds[kind] == "" || !slices.Equal(a, b) {
			t.Errorf("%s: %q and %q", kind, text, zh.kinds[kind])
		}
	}
	for _, pair := range [][2]string{
		{en.lines, zh.lines}, {en.unproven, zh.unproven}, {en.last, zh.last}, {en.open, zh.open}, {en.good, zh.good}, {en.bad, zh.bad}, {en.more, zh.more},
		{en.noKey, zh.noKey}, {en.otherKey, zh.otherKey}, {en.unchained, zh.unchained}, {en.noAudit, zh.noAudit},
	} {
		if a, b := places.FindAllString(pair[0], -1), places.FindAllString(pair[1], -1); pair[0] == "" || pair[1] == "" || !slices.Equal(a, b) {
			t.Errorf("%q and %q", pair[0], pair[1])
		}
	}
	if _, ok := en.kinds[audit.Changed]; !ok {
		t.Error("no sentence for a changed line")
	}
}
