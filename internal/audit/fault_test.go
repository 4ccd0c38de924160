package audit

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"
)

// What a disk can do to the log: each fault, with what a write takes all the same.
func TestFaults(t *testing.T) {
	for _, c := range []struct {
		name  string
		err   error
		part  int
		stuck bool
	}{
		{"full", syscall.ENOSPC, 0, false},
		{"full in mid-line", syscall.ENOSPC, 40, false},
		{"full in mid-line, and what was written stays", syscall.ENOSPC, 40, true},
		{"full after some lines, and what was written stays", syscall.ENOSPC, 500, true},
		{"read-only", syscall.EROFS, 0, false},
		{"broken", syscall.EIO, 7, true},
	} {
		for _, refuse := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, refuse %v", c.name, refuse), func(t *testing.T) {
				cfg := testConfig(t)
				cfg.Refuse = refuse
				var d fakeDisk
				l, s := openTest(t, cfg, d.disk())
				note(l, 0, 10)
				written(t, l, 10)
				d.set(c.err, c.part, c.stuck)
				note(l, 10, 20)
				eventually(t, "a fault", func() bool { return l.Stats().Failing })
				eventually(t, "more tries", func() bool { return l.Stats().Errors > 3 })
				if why := l.Refuses(); (why != "") != refuse {
					t.Errorf("it refuses: %q", why)
				}
				if refuse {
					l.Missed()
					l.Missed()
				}
				note(l, 20, 30)
				d.set(nil, 0, false)
				eventually(t, "recovery", func() bool { return !l.Stats().Failing })
				if why := l.Refuses(); why != "" {
					t.Errorf("it still refuses: %q", why)
				}
				note(l, 30, 40)
				closeTest(t, l)
				if said := s.count("nothing can be noted"); said != 1 || s.count("can be noted again") != 1 {
					t.Errorf("it was said %d times", said)
				}
				r := whole(t, cfg)
				if !slices.Equal(slices.DeleteFunc(inShort(r), func(f string) bool { return strings.HasPrefix(f, "torn") }), nil) {
					t.Errorf("verify: %+v", r)
				}
				lost := checkAll(t, cfg, 40)
				if len(lost) != 1 || lost[0]["lost"] != 0.0 || !strings.Contains(fmt.Sprint(lost[0]["cause"]), c.err.Error()) {
					t.Errorf("the fault is noted as %v", lost)
				}
				if want := map[bool]any{false: nil, true: 2.0}[refuse]; lost[0]["refused"] != want {
					t.Errorf("refused: %v", lost[0]["refused"])
				}
			})
		}
	}
}

// checkAll sees that the lines 0 to n-1 are all there, once and in order, and
// returns those that tell of faults. Bytes that are no lines are passed over.
func checkAll(t *testing.T, cfg Config, n int) (lost []map[string]any) {
	t.Helper()
	want := 0
	for _, l := range lenient(t, cfg.File) {
		if l["event"] == eventLost {
			lost = append(lost, l)
		}
		if i, ok := l["n"]; ok {
			if i != float64(want) {
				t.Fatalf("line %v comes where %d should", i, want)
			}
			want++
		}
	}
	if want != n {
		t.Errorf("%d lines, want %d", want, n)
	}
	return lost
}

// What has no room while the disk is full is counted, and the log says so where
// the lines are missing.
func TestLoss(t *testing.T) {
	cfg := testConfig(t)
	var d fakeDisk
	l, s := openTest(t, cfg, d.disk())
	l.lines.limit = 3000
	d.set(syscall.ENOSPC, 0, false)
	note(l, 0, 1)
	eventually(t, "a fault", func() bool { return l.Stats().Failing })
	note(l, 1, 100)
	dropped := l.Stats().Dropped
	if dropped < 20 || dropped > 98 {
		t.Errorf("%d were dropped", dropped)
	}
	d.set(nil, 0, false)
	eventually(t, "recovery", func() bool { return !l.Stats().Failing })
	eventually(t, "an empty queue", func() bool { return l.lines.length.Load() == 0 })
	note(l, 100, 103)
	closeTest(t, l)
	r := whole(t, cfg)
	if len(r.Findings) != 0 {
		t.Errorf("got %+v", r)
	}
	kept := 100 - int(dropped)
	want := []string{"opened", "0", "lost"} // the fault, and nothing lost yet
	for i := range kept - 1 {
		want = append(want, fmt.Sprint(i+1))
	}
	want = append(want, "lost")
	got := events(all(t, cfg.File))
	if !slices.Equal(got[:len(want)], want) || !slices.Equal(got[len(got)-4:], []string{"100", "101", "102", "closed"}) {
		t.Errorf("got %q", got)
	}
	total := 0.0
	for _, line := range all(t, cfg.File) {
		if n, ok := line["lost"].(float64); ok {
			total += n
			if line["success"] != false || n > 0 && (line["first"] == nil || line["last"] == nil) {
				t.Errorf("got %v", line)
			}
		}
	}
	if total != float64(dropped) || s.count(fmt.Sprintf(`"lost":%d`, dropped)) == 0 {
		t.Errorf("%v are noted as lost, %d are", total, dropped)
	}
}

// A disk that does not answer holds nobody up: Note returns, Refuses says so, and
// Close gives up at its deadline.
func TestStuckDisk(t *testing.T) {
	cfg := testConfig(t)
	cfg.Refuse = true
	d := fakeDisk{}
	s := &said{}
	l, err := open(cfg, "test", zerolog.New(s), d.disk())
	must(t, err)
	l.stuck = time.Millisecond
	d.mu.Lock()
	d.gate = make(chan struct{})
	d.mu.Unlock()
	note(l, 0, 1)
	eventually(t, "refusal", func() bool { return strings.Contains(l.Refuses(), "does not answer") })
	l.lines.limit = 10_000
	note(l, 1, 1000) // more than there is room for
	if l.Stats().Dropped == 0 {
		t.Error("nothing was dropped")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	if err := l.Close(ctx); err == nil || !strings.Contains(err.Error(), "lost") {
		t.Errorf("Close: %v", err)
	}
	close(d.gate)
	d.mu.Lock()
	d.gate = nil
	d.mu.Unlock()
	<-l.done
}

// With refuse, what is to be noted is not taken on any more long before there is
// no room for it: live tunnels have to be noted when they end.
func TestCrowdedRefuses(t *testing.T) {
	cfg := testConfig(t)
	cfg.Refuse = true
	d := fakeDisk{gate: nil}
	l, _ := openTest(t, cfg, d.disk())
	gate := make(chan struct{})
	d.mu.Lock()
	d.gate = gate
	d.mu.Unlock()
	for i := 0; l.Refuses() == ""; i++ {
		note(l, i, i+1)
		if l.Stats().Dropped > 0 {
			t.Fatal("lines are dropped before anything is refused")
		}
	}
	room := int64(l.lines.limit) - l.lines.length.Load()
	if room < queueLimit/2-2*maxLine {
		t.Errorf("there is room for %d bytes only", room)
	}
	d.mu.Lock()
	d.gate = nil
	d.mu.Unlock()
	close(gate)
	eventually(t, "no refusal", func() bool { return l.Refuses() == "" })
}

// The folder is taken away and comes back.
func TestFolderGone(t *testing.T) {
	cfg := testConfig(t)
	dir := filepath.Join(filepath.Dir(cfg.File), "logs")
	must(t, os.Mkdir(dir, 0o750))
	cfg.File, cfg.Refuse, cfg.Compress = filepath.Join(dir, "audit.log"), true, false
	l, _ := openTest(t, cfg, realDisk())
	note(l, 0, 3)
	written(t, l, 3)
	must(t, os.Rename(dir, dir+".old"))
	eventually(t, "refusal", func() bool { return l.Refuses() != "" })
	note(l, 3, 5)
	must(t, os.Mkdir(dir, 0o750))
	eventually(t, "recovery", func() bool { return l.Refuses() == "" })
	closeTest(t, l)
	r, err := Verify([]string{cfg.File, filepath.Join(dir+".old", "audit.log")}, Options{})
	if err != nil || r.Suspicious != 0 || len(r.Findings) != 0 {
		t.Errorf("got %+v, %v", r, err)
	}
}

// A rotation that fails leaves the file as it is.
func TestRotationFails(t *testing.T) {
	cfg := testConfig(t)
	cfg.MaxSize = 1000
	d := realDisk()
	d.rename = func(string, string) error { return os.ErrPermission }
	l, s := openTest(t, cfg, d)
	for i := range 20 {
		note(l, i, i+1)
		written(t, l, int64(i+1))
	}
	closeTest(t, l)
	if s.count("could not be rotated") != 1 || len(Files(cfg.File)) != 1 {
		t.Errorf("it was said %d times", s.count("could not be rotated"))
	}
	checkAll(t, cfg, 20)
	whole(t, cfg)
}

// Close says so when the disk has not taken everything.
func TestCloseWithFault(t *testing.T) {
	cfg := testConfig(t)
	var d fakeDisk
	l, err := open(cfg, "test", zerolog.Nop(), d.disk())
	must(t, err)
	d.set(syscall.ENOSPC, 0, false)
	note(l, 0, 1)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := l.Close(ctx); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("got %v", err)
	}
}
