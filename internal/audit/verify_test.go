package audit

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// chainOf writes a log of so many lines and gives them, with those that it
// begins and ends with.
func chainOf(t *testing.T, n int, key string) (Config, [][]byte) {
	t.Helper()
	cfg := testConfig(t)
	if key != "" {
		cfg.KeyFile = filepath.Join(filepath.Dir(cfg.File), "chain.key")
		must(t, os.WriteFile(cfg.KeyFile, []byte(key), 0o600))
	}
	l, _ := openTest(t, cfg, realDisk())
	note(l, 0, n)
	closeTest(t, l)
	lines := bytes.SplitAfter(read(t, cfg.File), []byte("\n"))
	return cfg, lines[:len(lines)-1]
}

const testKey = "0123456789abcdef0123456789abcdef"

// verified checks a file of these lines and gives the findings in short:
// "changed 5" is a finding about line 5, "removed 4-5 before 4" about the
// numbers 4 and 5, missing before line 4.
func verified(t *testing.T, cfg Config, lines [][]byte) []string {
	t.Helper()
	must(t, os.WriteFile(cfg.File, bytes.Join(lines, nil), 0o600))
	key, err := readKey(cfg)
	must(t, err)
	r, err := Verify([]string{cfg.File}, Options{Key: key})
	if err != nil {
		return []string{err.Error()}
	}
	return inShort(r)
}

func inShort(r *Result) (list []string) {
	for _, f := range r.Findings {
		text := fmt.Sprintf("%s %d", f.Kind, f.Line)
		if f.Kind == Removed {
			text = fmt.Sprintf("removed %d-%d before %d", f.From, f.To, f.Line)
		}
		list = append(list, text)
	}
	return list
}

// resealed is a line that was changed, with its hash made anew by somebody who
// has no key.
func resealed(line, before []byte, from, to string) []byte {
	prev, _ := parse(bytes.TrimSuffix(before, []byte("\n")))
	s, _ := parse(bytes.TrimSuffix(line, []byte("\n")))
	object := append(bytes.Replace(s.body, []byte(from), []byte(to), 1), '}')
	_, rest, _ := bytes.Cut(object, []byte(","))
	z := sealer{hash: hashOf(chainPlain, nil), state: state{s.seq - 1, prev.hash}}
	return z.append(nil, append([]byte("{"), rest...))
}

func TestVerifyFinds(t *testing.T) {
	// Line 1 opens, 2 to 9 are n 0 to 7, 10 closes.
	replace := func(i int, from, to string) func([][]byte) [][]byte {
		return func(l [][]byte) [][]byte {
			changed := bytes.Replace(l[i-1], []byte(from), []byte(to), 1)
			if bytes.Equal(changed, l[i-1]) {
				panic("nothing was changed: " + string(l[i-1]))
			}
			l[i-1] = changed
			return l
		}
	}
	hashDigit := func(l []byte) []byte {
		i := bytes.Index(l, []byte(hashSign)) + len(hashSign)
		c := append([]byte(nil), l...)
		c[i] = "123456789abcdef0"[strings.IndexByte("0123456789abcdef", c[i])]
		return c
	}
	for _, c := range []struct {
		name   string
		change func([][]byte) [][]byte
		plain  string // what is found without a key
		keyed  string // and with one; "": the same
	}{
		{"nothing", func(l [][]byte) [][]byte { return l }, "", ""},
		{"a line is changed", replace(5, `"n":3`, `"n":4`), "rehashed 5", "changed 5"},
		{"its time", replace(5, `"time":"20`, `"time":"19`), "rehashed 5", "changed 5"},
		{"the last line but one", replace(9, `"n":7`, `"n":8`), "rehashed 9", "changed 9"},
		{"the first after the opening", replace(2, `"n":0`, `"n":1`), "rehashed 2", "changed 2"},
		{"the opening line", replace(1, `"version":"test"`, `"version":"text"`), "changed 1", ""},
		{"the opening line's chain", replace(1, `"chain":"`, `"chain":"x`), "changed 1", ""},
		{"the closing line", replace(10, `"success":true`, `"success":null`), "rehashed 10", "changed 10"},
		{"a hash", func(l [][]byte) [][]byte { l[4] = hashDigit(l[4]); return l }, "rehashed 5", "changed 5"},
		{"a hash and its line", func(l [][]byte) [][]byte {
			l[4] = hashDigit(bytes.Replace(l[4], []byte(`"n":3`), []byte(`"n":9`), 1))
			return l
		}, "rehashed 5, changed 6", "changed 5, changed 6"},
		{"a hash is taken away", func(l [][]byte) [][]byte {
			l[4] = append(l[4][:bytes.Index(l[4], []byte(hashSign))], "}\n"...)
			return l
		}, "changed 5", ""},
		{"a number", replace(5, `{"seq":5,`, `{"seq":55,`), "removed 5-54 before 5, moved", ""},
		{"a byte that breaks the line", replace(5, `{"seq"`, `{"zeq"`), "changed 5", ""},
		{"two changed lines", func(l [][]byte) [][]byte {
			return replace(8, `"n":6`, `"n":7`)(replace(5, `"n":3`, `"n":4`)(l))
		}, "rehashed 5, rehashed 8", "changed 5, changed 8"},
		{"two in a row", func(l [][]byte) [][]byte {
			return replace(6, `"n":4`, `"n":7`)(replace(5, `"n":3`, `"n":4`)(l))
		}, "rehashed 5, changed 6", "changed 5, changed 6"},
		{"a line is removed", func(l [][]byte) [][]byte { return slices.Delete(l, 4, 5) }, "removed 5-5 before 5", ""},
		{"three lines are removed", func(l [][]byte) [][]byte { return slices.Delete(l, 2, 5) }, "removed 3-5 before 3", ""},
		{"the opening line is removed", func(l [][]byte) [][]byte { return l[1:] }, "removed 0-1 before 1", ""},
		{"the beginning is removed", func(l [][]byte) [][]byte { return l[4:] }, "removed 0-4 before 1", ""},
		{"a line stands twice", func(l [][]byte) [][]byte { return slices.Insert(l, 5, l[4]) }, "inserted 6", ""},
		{"a line is inserted", func(l [][]byte) [][]byte {
			return slices.Insert(l, 5, bytes.Replace(l[5], []byte(`"n":4`), []byte(`"n":99`), 1))
		}, "inserted 6", ""},
		{"a line without a number is inserted", func(l [][]byte) [][]byte { return slices.Insert(l, 5, []byte("{\"n\":99}\n")) }, "foreign 6", ""},
		{"an empty line", func(l [][]byte) [][]byte { return slices.Insert(l, 5, []byte("\n")) }, "foreign 6", ""},
		{"a line is moved", func(l [][]byte) [][]byte { l[4], l[5] = l[5], l[4]; return l }, "removed 5-5 before 5, moved 5", ""},
		{"the end is in the middle of a line", func(l [][]byte) [][]byte { l[9] = l[9][:20]; return l }, "truncated 10", ""},
		{"another chain behind it", func(l [][]byte) [][]byte {
			_, others := chainOf(t, 2, "")
			return append(l, others...)
		}, "new_chain 11", "unkeyed 11, new_chain 11"},
	} {
		for _, key := range []string{"", testKey} {
			t.Run(c.name+map[string]string{"": "", testKey: ", with a key"}[key], func(t *testing.T) {
				cfg, lines := chainOf(t, 8, key)
				want := c.plain
				if key != "" && c.keyed != "" {
					want = c.keyed
				}
				got := strings.Join(verified(t, cfg, c.change(lines)), ", ")
				if c.name == "a number" {
					// What a wrong number looks like is a matter of view; that it is seen is not.
					if got == "" {
						t.Error("nothing was found")
					}
					return
				}
				if got != want {
					t.Errorf("found %q, want %q", got, want)
				}
			})
		}
	}
}

// Who can write the file and has no key can make hashes of a plain chain anew,
// and is seen all the same unless he does so up to the end; a key sees to it that
// he cannot, and a hash that was noted elsewhere shows even that.
func TestVerifyRewritten(t *testing.T) {
	rewrite := func(lines [][]byte, from int, upTo int) [][]byte {
		for i := from; i < upTo; i++ {
			lines[i] = resealed(lines[i], lines[i-1], `"n":3`, `"n":9`)
		}
		return lines
	}
	cfg, lines := chainOf(t, 8, "")
	last, _ := parse(bytes.TrimSuffix(lines[9], []byte("\n")))
	if got := verified(t, cfg, rewrite(slices.Clone(lines), 4, 6)); !slices.Equal(got, []string{"rehashed 7"}) {
		t.Errorf("two lines anew: %q", got)
	}
	if got := verified(t, cfg, rewrite(slices.Clone(lines), 4, 10)); len(got) != 0 {
		t.Errorf("all anew: %q; if this is found now, the docs may promise more", got)
	}
	r, err := Verify([]string{cfg.File}, Options{Contains: last.hash.String()})
	if err != nil || !slices.Equal(inShort(r), []string{"missing 0"}) {
		t.Errorf("with a hash that was noted: %+v, %v", r, err)
	}
	verified(t, cfg, lines)
	if r, err = Verify([]string{cfg.File}, Options{Contains: last.hash.String()}); err != nil || r.Suspicious != 0 {
		t.Errorf("the same of the true file: %+v, %v", r, err)
	}
	cfg, lines = chainOf(t, 8, testKey)
	if got := verified(t, cfg, rewrite(lines, 4, 10)); len(got) == 0 {
		t.Error("with a key: nothing was found")
	}
}

// filesOf writes a log of several files.
func filesOf(t *testing.T) (Config, []string) {
	t.Helper()
	cfg := testConfig(t)
	cfg.Compress, cfg.MaxSize = false, 1000
	l, _ := openTest(t, cfg, realDisk())
	for i := range 30 {
		note(l, i, i+1)
		written(t, l, int64(i+1))
	}
	closeTest(t, l)
	return cfg, Files(cfg.File)
}

func TestVerifyFiles(t *testing.T) {
	cfg, files := filesOf(t)
	check := func(files []string) *Result {
		t.Helper()
		r, err := Verify(files, Options{})
		must(t, err)
		return r
	}
	if r := check(files); len(r.Findings) != 0 || len(files) < 4 {
		t.Fatalf("%q: %+v", files, r)
	}
	if got := inShort(check(files[1:])); !slices.Equal(got, []string{"earlier 1"}) {
		t.Errorf("without the first file: %q", got)
	}
	if got := inShort(check(slices.Delete(slices.Clone(files), 1, 2))); len(got) != 1 || !strings.HasPrefix(got[0], "removed") {
		t.Errorf("without the second: %q", got)
	}
	// The end of a file that is not the last one.
	text := read(t, files[1])
	must(t, os.WriteFile(files[1], text[:bytes.LastIndexByte(text[:len(text)-1], '\n')+1], 0o600))
	if got := inShort(check(files)); len(got) != 1 || !strings.HasPrefix(got[0], "removed") {
		t.Errorf("without the last line of the second: %q", got)
	}
	must(t, os.WriteFile(files[1], text, 0o600))
	// A compressed file that is damaged.
	var z bytes.Buffer
	w := gzip.NewWriter(&z)
	w.Write(text)
	w.Close()
	must(t, os.Remove(files[1]))
	files[1] += ".gz"
	must(t, os.WriteFile(files[1], z.Bytes(), 0o600))
	if r := check(files); len(r.Findings) != 0 {
		t.Errorf("compressed: %+v", r)
	}
	must(t, os.WriteFile(files[1], z.Bytes()[:z.Len()-20], 0o600))
	if got := inShort(check(files)); len(got) == 0 || !strings.HasPrefix(got[0], "damaged") {
		t.Errorf("a damaged file: %q", got)
	}
	if _, err := Verify([]string{cfg.File, cfg.File}, Options{}); err == nil || !strings.Contains(err.Error(), "same line") {
		t.Errorf("one file twice: %v", err)
	}
}

func TestVerifyRefuses(t *testing.T) {
	keyed, _ := chainOf(t, 1, testKey)
	plain, _ := chainOf(t, 1, "")
	unchained := testConfig(t)
	unchained.Chain = false
	l, _ := openTest(t, unchained, realDisk())
	note(l, 0, 2)
	closeTest(t, l)
	other := filepath.Join(t.TempDir(), "other")
	must(t, os.WriteFile(other, []byte("hello\n"), 0o600))
	for _, c := range []struct {
		name, file string
		key        string
		want       error
	}{
		{"no key", keyed.File, "", ErrNoKey},
		{"another key", keyed.File, strings.ToUpper(testKey), ErrOtherKey},
		{"no chain", unchained.File, "", ErrUnchained},
		{"another file", other, "", ErrNotAudit},
		{"no file", other + "2", "", os.ErrNotExist},
	} {
		var key []byte
		if c.key != "" {
			key = []byte(c.key)
		}
		if r, err := Verify([]string{c.file}, Options{Key: key}); !errors.Is(err, c.want) || err == nil || !strings.Contains(err.Error(), c.file) {
			t.Errorf("%s: %+v, %v", c.name, r, err)
		}
	}
	// A log that should have a key and has none does not pass.
	r, err := Verify([]string{plain.File}, Options{Key: []byte(testKey)})
	if err != nil || !slices.Equal(inShort(r), []string{"unkeyed 1"}) {
		t.Errorf("got %+v, %v", r, err)
	}
}

// A change of how lines are hashed begins another file and keeps the chain.
func TestChangeOfKey(t *testing.T) {
	cfg, _ := chainOf(t, 3, "")
	cfg.Compress = false
	cfg.KeyFile = filepath.Join(filepath.Dir(cfg.File), "chain.key")
	must(t, os.WriteFile(cfg.KeyFile, []byte(testKey), 0o600))
	l, _ := openTest(t, cfg, realDisk())
	note(l, 3, 5)
	closeTest(t, l)
	files := Files(cfg.File)
	r, err := Verify(files, Options{Key: []byte(testKey)})
	if err != nil || len(files) != 2 || !slices.Equal(inShort(r), []string{"unkeyed 1"}) || r.To != 9 {
		t.Errorf("%q: %+v, %v", files, r, err)
	}
}

// A file may be checked while it is being written.
func TestVerifyLiveFile(t *testing.T) {
	cfg := testConfig(t)
	l, _ := openTest(t, cfg, realDisk())
	for end := time.Now().Add(300 * time.Millisecond); time.Now().Before(end); {
		note(l, 0, 50)
		if r, err := Verify([]string{cfg.File}, Options{}); err != nil || r.Suspicious != 0 {
			t.Fatalf("%+v, %v", r, err)
		}
	}
}

// Whatever is in a file, Verify comes to an end; and of a true log nothing but
// its own lines passes.
func FuzzVerify(f *testing.F) {
	cfg := Default()
	cfg.File = filepath.Join(f.TempDir(), "audit.log")
	j, err := newJournal(cfg, "test", realDisk())
	if err != nil {
		f.Fatal(err)
	}
	if err := j.open(becauseStart); err != nil {
		f.Fatal(err)
	}
	var text []byte
	for i := range 4 {
		text = j.append(text, fmt.Appendf(nil, `{"n":%d}`, i))
	}
	if _, err := j.write(text); err != nil {
		f.Fatal(err)
	}
	j.abandon()
	whole, err := os.ReadFile(cfg.File)
	if err != nil {
		f.Fatal(err)
	}
	for i := range 5 {
		f.Add(whole[:len(whole)*i/4])
	}
	f.Add([]byte("{\"seq\":18446744073709551615,\"a\":1}\n{\"seq\":1,\"event\":\"audit_opened\"}\n"))
	f.Add([]byte{0x1f, 0x8b, 8, 0})
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, data []byte) {
		name := filepath.Join(dir, "fuzz.log")
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
		r, err := Verify([]string{name}, Options{})
		if err != nil || r.Suspicious > 0 || r.Unproven > 0 || r.Lines == 0 {
			return
		}
		if int64(len(r.Findings)) > maxFindings {
			t.Errorf("%d findings", len(r.Findings))
		}
		tailOf(bytes.NewReader(data), int64(len(data)))
	})
}
