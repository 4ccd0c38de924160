package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"
)

const patience = 20 * time.Second

// A fakeDisk is the real one, but for faults and delays that a test puts in.
type fakeDisk struct {
	mu    sync.Mutex
	err   error // of writes, openings and fsync
	part  int   // bytes that a write takes all the same
	stuck bool  // truncation fails too
	gate  chan struct{}
}

func (d *fakeDisk) set(err error, part int, stuck bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.err, d.part, d.stuck = err, part, stuck
}

func (d *fakeDisk) fault() (part int, stuck bool, err error) {
	d.mu.Lock()
	gate := d.gate
	d.mu.Unlock()
	if gate != nil {
		<-gate
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.part, d.stuck, d.err
}

func (d *fakeDisk) disk() disk {
	real := realDisk()
	return disk{
		open: func(name string) (handle, error) {
			if _, _, err := d.fault(); err != nil && !errors.Is(err, syscall.ENOSPC) {
				return nil, err
			}
			h, err := real.open(name)
			if err != nil {
				return nil, err
			}
			return &fakeHandle{h, d}, nil
		},
		stat:   real.stat,
		rename: real.rename,
	}
}

type fakeHandle struct {
	handle
	disk *fakeDisk
}

func (h *fakeHandle) Write(p []byte) (int, error) {
	if part, _, err := h.disk.fault(); err != nil {
		n, _ := h.handle.Write(p[:min(part, len(p))])
		return n, err
	}
	return h.handle.Write(p)
}

func (h *fakeHandle) Truncate(size int64) error {
	if _, stuck, err := h.disk.fault(); stuck {
		return err
	}
	return h.handle.Truncate(size)
}

func (h *fakeHandle) Sync() error {
	if _, _, err := h.disk.fault(); err != nil {
		return err
	}
	return h.handle.Sync()
}

// A said collects what the log says.
type said struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (s *said) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

func (s *said) count(what string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Count(s.text.String(), what)
}

// testConfig is an audit log in a folder of the test's own.
func testConfig(t *testing.T) Config {
	cfg := Default()
	cfg.File = filepath.Join(t.TempDir(), "audit.log")
	return cfg
}

// openTest opens a log that ends with the test at the latest.
func openTest(t *testing.T, cfg Config, d disk) (*Log, *said) {
	t.Helper()
	s := &said{}
	l, err := open(cfg, "test", zerolog.New(s), d)
	if err != nil {
		t.Fatal(err)
	}
	l.retry = time.Millisecond
	t.Cleanup(func() { closeTest(t, l) })
	return l, s
}

func closeTest(t *testing.T, l *Log) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := l.Close(ctx); err != nil {
		t.Error(err)
	}
}

func note(l *Log, from, to int) {
	for i := from; i < to; i++ {
		l.Note(fmt.Appendf(nil, `{"time":%q,"event":"request","n":%d}`, time.Now().Format(TimeLayout), i), i%2 == 0)
	}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// written waits until the file has so many lines that were noted.
func written(t *testing.T, l *Log, n int64) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d lines", n), func() bool { return l.Stats().Written >= n })
}

func read(t *testing.T, name string) []byte {
	t.Helper()
	r, err := OpenFile(name)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// all are the lines of all files of a log, taken apart.
func all(t *testing.T, name string) (lines []map[string]any) {
	t.Helper()
	for _, f := range Files(name) {
		for line := range bytes.Lines(read(t, f)) {
			m := map[string]any{}
			if err := json.Unmarshal(line, &m); err != nil {
				t.Fatalf("%s: %q: %v", f, line, err)
			}
			lines = append(lines, m)
		}
	}
	return lines
}

// events are the values of event and n of the lines, in short.
func events(lines []map[string]any) (list []string) {
	for _, l := range lines {
		text := strings.TrimPrefix(fmt.Sprint(l["event"]), "audit_")
		if n, ok := l["n"]; ok {
			text = fmt.Sprint(n)
		}
		list = append(list, text)
	}
	return list
}

// whole fails the test unless Verify finds nothing, and returns the result.
func whole(t *testing.T, cfg Config) *Result {
	t.Helper()
	key, err := readKey(cfg)
	if err != nil {
		t.Fatal(err)
	}
	r, err := Verify(Files(cfg.File), Options{Key: key})
	if err != nil {
		t.Fatal(err)
	}
	if r.Suspicious != 0 || r.Unproven != 0 {
		t.Errorf("verify: %+v", r)
	}
	return r
}

func TestLog(t *testing.T) {
	cfg := testConfig(t)
	l, _ := openTest(t, cfg, realDisk())
	note(l, 0, 5)
	closeTest(t, l)
	l, _ = openTest(t, cfg, realDisk())
	note(l, 5, 7)
	closeTest(t, l)
	lines := all(t, cfg.File)
	want := []string{"opened", "0", "1", "2", "3", "4", "closed", "opened", "5", "6", "closed"}
	if got := events(lines); !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
	for i, line := range lines {
		if line["seq"] != float64(i+1) {
			t.Errorf("line %d has the number %v", i+1, line["seq"])
		}
		if _, err := time.Parse(time.RFC3339Nano, fmt.Sprint(line["time"])); err != nil {
			t.Error(err)
		}
	}
	if r := whole(t, cfg); r.Lines != 11 || r.From != 1 || r.To != 11 || !r.Closed || r.Hash != lines[10]["hash"] {
		t.Errorf("got %+v", r)
	}
	info, err := os.Stat(cfg.File)
	if err != nil || hasModes && info.Mode().Perm()&0o027 != 0 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if s := l.Stats(); s.Written != 3 || s.Dropped != 0 || s.Errors != 0 || s.Failing {
		t.Errorf("got %+v", s)
	}
}

// What is no line of JSON, or too long for one, is counted and not written.
func TestNoteTakesLinesOnly(t *testing.T) {
	cfg := testConfig(t)
	l, _ := openTest(t, cfg, realDisk())
	l.Note(nil, false)
	l.Note([]byte("{\"a\":\n1}"), false)
	l.Note(fmt.Appendf(nil, `{"a":%q}`, strings.Repeat("a", maxLine)), false)
	note(l, 0, 1)
	closeTest(t, l)
	if got := events(all(t, cfg.File)); !slices.Equal(got, []string{"opened", "0", "closed"}) {
		t.Errorf("got %q", got)
	}
	if s := l.Stats(); s.Dropped != 3 {
		t.Errorf("got %+v", s)
	}
}

func TestRotation(t *testing.T) {
	cfg := testConfig(t)
	cfg.MaxSize = 1500
	l, _ := openTest(t, cfg, realDisk())
	for i := range 40 {
		note(l, i, i+1)
		written(t, l, int64(i+1))
	}
	closeTest(t, l)
	files := Files(cfg.File)
	if len(files) < 3 {
		t.Fatalf("only %q", files)
	}
	var numbers []string
	for _, e := range events(all(t, cfg.File)) {
		if e != "opened" && e != "closed" {
			numbers = append(numbers, e)
		}
	}
	if len(numbers) != 40 || numbers[39] != "39" {
		t.Errorf("got %q", numbers)
	}
	whole(t, cfg)
	// The next one compresses what this one had no time for, and goes on.
	l, _ = openTest(t, cfg, realDisk())
	eventually(t, "compressed files", func() bool {
		old := rotated(cfg.File)
		return len(old) > 0 && !slices.ContainsFunc(old, func(n string) bool { return !strings.HasSuffix(n, ".gz") })
	})
	closeTest(t, l)
	r := whole(t, cfg)
	slices.Reverse(files)
	if again, err := Verify(slices.Concat(Files(cfg.File)[1:], Files(cfg.File)[:1]), Options{}); err != nil || !slices.Equal(again.Files, r.Files) || again.Suspicious != 0 {
		t.Errorf("in another order: %+v, %v", again, err)
	}
	leftovers, _ := filepath.Glob(cfg.File + "*" + unfinished)
	if len(leftovers) > 0 {
		t.Errorf("left: %q", leftovers)
	}
}

// A file is ended at midnight, also when nothing comes any more.
func TestRotationByDay(t *testing.T) {
	cfg := testConfig(t)
	cfg.Compress = false
	l, _ := openTest(t, cfg, realDisk())
	note(l, 0, 1)
	written(t, l, 1)
	closeTest(t, l)
	// Yesterday's file, as it were.
	text := string(read(t, cfg.File))
	day := time.Now().Format(time.DateOnly)
	j, err := newJournal(cfg, "test", realDisk())
	if err != nil {
		t.Fatal(err)
	}
	j.now = func() time.Time { return time.Now().Add(24 * time.Hour) }
	if err := j.open(becauseStart); err != nil {
		t.Fatal(err)
	}
	if j.day != day || !j.due() {
		t.Errorf("the file is of %q, and due: %v", j.day, j.due())
	}
	if err := j.rotate(); err != nil {
		t.Fatal(err)
	}
	if j.due() {
		t.Error("an empty file is due")
	}
	j.abandon()
	if old := rotated(cfg.File); len(old) != 1 || !strings.HasPrefix(string(read(t, old[0])), text) {
		t.Errorf("got %q", old)
	}
	whole(t, cfg)
}

// Files that are older than keep go, and no others.
func TestPruning(t *testing.T) {
	cfg := testConfig(t)
	cfg.Keep = 48 * time.Hour
	dir := filepath.Dir(cfg.File)
	put := func(name string, age time.Duration) {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		when := time.Now().Add(-age)
		if err := os.Chtimes(path, when, when); err != nil {
			t.Fatal(err)
		}
	}
	put("audit-20260101T000000-7.log.gz", 49*time.Hour)
	put("audit-20260102T000000-9.log.gz", 47*time.Hour)
	put("audit-mine.log.gz", 999*time.Hour)
	put("audit.log.1", 999*time.Hour)
	l, s := openTest(t, cfg, realDisk())
	eventually(t, "a removed file", func() bool { return s.count("older than audit.keep") == 1 })
	closeTest(t, l)
	var left []string
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		left = append(left, e.Name())
	}
	if want := []string{"audit-20260102T000000-9.log.gz", "audit-mine.log.gz", "audit.log", "audit.log.1"}; !slices.Equal(left, want) {
		t.Errorf("left: %q", left)
	}
}

// Somebody else rotates, with and without telling, or takes away what was written.
func TestOthersRotate(t *testing.T) {
	for _, c := range []struct {
		name    string
		tell    bool
		change  func(*testing.T, string)
		whole   bool
		becomes string
	}{
		{"with a signal", true, func(t *testing.T, n string) { must(t, os.Rename(n, n+".1")) }, true, becauseReopened},
		{"without", false, func(t *testing.T, n string) { must(t, os.Rename(n, n+".1")) }, true, becauseReplaced},
		{"another file in its place", false, func(t *testing.T, n string) {
			must(t, os.Rename(n, n+".1"))
			must(t, os.WriteFile(n, nil, 0o600))
		}, true, becauseReplaced},
		{"emptied", false, func(t *testing.T, n string) { must(t, os.Truncate(n, 0)) }, false, becauseReplaced},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := testConfig(t)
			l, _ := openTest(t, cfg, realDisk())
			note(l, 0, 3)
			written(t, l, 3)
			c.change(t, cfg.File)
			if c.tell {
				l.Reopen()
			}
			eventually(t, "a new file", func() bool {
				b, _ := os.ReadFile(cfg.File)
				return bytes.Contains(b, []byte(c.becomes))
			})
			note(l, 3, 5)
			closeTest(t, l)
			files, _ := filepath.Glob(cfg.File + "*")
			r, err := Verify(files, Options{})
			if err != nil {
				t.Fatal(err)
			}
			if c.whole && (r.Suspicious != 0 || r.Lines != 8) || !c.whole && len(r.Findings) == 0 {
				t.Errorf("got %+v", r)
			}
		})
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// A file that was moved away while the gateway was down is gone on from.
func TestChainGoesOnFromMovedFile(t *testing.T) {
	cfg := testConfig(t)
	l, _ := openTest(t, cfg, realDisk())
	note(l, 0, 3)
	closeTest(t, l)
	must(t, os.Rename(cfg.File, cfg.File+".1"))
	l, _ = openTest(t, cfg, realDisk())
	note(l, 3, 4)
	closeTest(t, l)
	r, err := Verify([]string{cfg.File, cfg.File + ".1"}, Options{})
	if err != nil || r.Suspicious != 0 || len(r.Findings) != 0 || r.To != 8 {
		t.Errorf("got %+v, %v", r, err)
	}
}

// A line that was cut by a power loss is kept, noted, and proven by the next one.
func TestTornLine(t *testing.T) {
	cfg := testConfig(t)
	l, _ := openTest(t, cfg, realDisk())
	note(l, 0, 3)
	closeTest(t, l)
	text := read(t, cfg.File)
	lines := bytes.SplitAfter(text, []byte("\n"))
	for cut := 1; cut < len(lines[4]); cut++ { // of the closing line
		kept := text[:len(text)-cut]
		must(t, os.WriteFile(cfg.File, kept, 0o600))
		j, err := newJournal(cfg, "test", realDisk())
		must(t, err)
		must(t, j.open(becauseStart))
		j.abandon()
		after := read(t, cfg.File)
		if !bytes.HasPrefix(after, kept) {
			t.Fatalf("cut by %d: what there was has changed", cut)
		}
		r := whole(t, cfg)
		torn := len(r.Findings) == 1 && r.Findings[0].Kind == Torn && r.Findings[0].Line == 5
		if onlyBreak := cut == 1; torn == onlyBreak {
			t.Fatalf("cut by %d: %+v", cut, r)
		}
		// Somebody who changes the torn bytes afterwards is seen.
		if torn && cut < 40 {
			must(t, os.WriteFile(cfg.File, bytes.Replace(after, []byte("audit_closed"), []byte("audit_clozed"), 1), 0o600))
			if r, err := Verify([]string{cfg.File}, Options{}); err != nil || r.Suspicious == 0 {
				t.Fatalf("cut by %d: a change of the torn line does not show: %+v, %v", cut, r, err)
			}
		}
	}
}

func TestOpenTeaches(t *testing.T) {
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "other.log"), []byte("Nov 21 something\n"), 0o600))
	must(t, os.WriteFile(filepath.Join(dir, "short.key"), []byte("secret\n"), 0o600))
	for name, c := range map[string]struct {
		change func(*Config)
		want   string
	}{
		"no folder":    {func(c *Config) { c.File = filepath.Join(dir, "none", "audit.log") }, "make it"},
		"a folder":     {func(c *Config) { c.File = dir }, "is not a file"},
		"another file": {func(c *Config) { c.File = filepath.Join(dir, "other.log") }, "is not an audit log"},
		"no key":       {func(c *Config) { c.KeyFile = filepath.Join(dir, "none.key") }, "no such file"},
		"short key":    {func(c *Config) { c.KeyFile = filepath.Join(dir, "short.key") }, "openssl rand"},
		"no CA": {func(c *Config) {
			c.Syslog = &Syslog{Address: "127.0.0.1:1", TLS: &SyslogTLS{CA: filepath.Join(dir, "short.key")}}
		}, "no certificate in PEM"},
	} {
		cfg := Default()
		cfg.At, cfg.File = "a.yaml:3:8", filepath.Join(dir, "audit.log")
		c.change(&cfg)
		l, err := Open(cfg, "test", zerolog.Nop())
		if err == nil {
			closeTest(t, l)
			t.Errorf("%s: it opens", name)
		} else if text := err.Error(); !strings.HasPrefix(text, "a.yaml:3:8: audit: ") || !strings.Contains(text, c.want) {
			t.Errorf("%s: %v", name, err)
		} else if strings.Contains(text, "secret") {
			t.Errorf("%s: it shows the key: %v", name, err)
		}
	}
}

// Of two gateways with one file the second does not start.
func TestOneWriter(t *testing.T) {
	if !hasModes {
		t.Skip("this system has no such locks")
	}
	cfg := testConfig(t)
	openTest(t, cfg, realDisk())
	if _, err := Open(cfg, "test", zerolog.Nop()); !errors.Is(err, errLocked) {
		t.Errorf("got %v", err)
	}
}

func TestWarnings(t *testing.T) {
	cfg := testConfig(t)
	if w := Warnings(cfg); len(w) != 0 {
		t.Errorf("got %q", w)
	}
	cfg.Keep, cfg.Chain, cfg.KeyFile = 30*24*time.Hour, false, filepath.Join(filepath.Dir(cfg.File), "key")
	must(t, os.WriteFile(cfg.KeyFile, nil, 0o644))
	must(t, os.Chmod(cfg.KeyFile, 0o644))
	w := Warnings(cfg)
	if want := 3; hasModes && len(w) != want || !strings.Contains(w[0], "keep is 30 days") || !strings.Contains(w[0], "180d") {
		t.Errorf("got %q", w)
	}
	cfg.Keep = 0
	if w := Warnings(cfg); strings.Contains(strings.Join(w, "\n"), "keep") {
		t.Errorf("for ever is warned of: %q", w)
	}
}

// lenient is all, without lines that are none.
func lenient(t *testing.T, name string) (lines []map[string]any) {
	t.Helper()
	for _, f := range Files(name) {
		for line := range bytes.Lines(read(t, f)) {
			m := map[string]any{}
			if json.Unmarshal(line, &m) == nil {
				lines = append(lines, m)
			}
		}
	}
	return lines
}
