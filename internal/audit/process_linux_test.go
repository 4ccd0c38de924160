package audit

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"
)

// again runs one test of this package in a process of its own.
func again(t *testing.T, test string, env ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run", "^"+test+"$", "-test.v")
	cmd.Env = append(os.Environ(), env...)
	return cmd
}

// Killed at any moment, the log goes on from where it was; what was cut is noted.
func TestKilled(t *testing.T) {
	if file := os.Getenv("SINGLEGATE_AUDIT_KILLED"); file != "" {
		cfg := Default()
		cfg.File, cfg.MaxSize, cfg.Compress = file, 200_000, false
		l, err := Open(cfg, "test", zerolog.Nop())
		if err != nil {
			t.Fatal(err)
		}
		fmt.Println("it writes")
		for i := 0; ; i++ {
			note(l, i, i+1)
			if i%100 == 0 {
				time.Sleep(time.Millisecond)
			}
		}
	}
	cfg := testConfig(t)
	cfg.Compress = false
	for round := range 8 {
		before := sizeOf(cfg)
		cmd := again(t, "TestKilled", "SINGLEGATE_AUDIT_KILLED="+cfg.File)
		must(t, cmd.Start())
		eventually(t, "lines", func() bool { return sizeOf(cfg) > before+int64(20_000+1000*round) })
		must(t, cmd.Process.Kill())
		cmd.Wait()
	}
	l, _ := openTest(t, cfg, realDisk())
	closeTest(t, l)
	r := whole(t, cfg)
	for _, f := range r.Findings {
		if f.Kind != Torn {
			t.Errorf("got %+v", f)
		}
	}
	if r.Lines < 500 || !r.Closed {
		t.Errorf("got %+v", r)
	}
}

// sizeOf is how much was written.
func sizeOf(cfg Config) (n int64) {
	for _, f := range Files(cfg.File) {
		if info, err := os.Stat(f); err == nil {
			n += info.Size()
		}
	}
	return n
}

// A real file system that is full, in a mount namespace of its own.
func TestFullFileSystem(t *testing.T) {
	if dir := os.Getenv("SINGLEGATE_AUDIT_FULL"); dir != "" {
		fillFileSystem(t, dir)
		return
	}
	cmd := again(t, "TestFullFileSystem", "SINGLEGATE_AUDIT_FULL="+t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Skipf("no namespaces here: %v", err)
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if strings.Contains(string(out), "SKIP") {
		t.Skipf("%s", out)
	}
}

func fillFileSystem(t *testing.T, dir string) {
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=256k"); err != nil {
		t.Skipf("no tmpfs here: %v", err)
	}
	cfg := Default()
	cfg.File, cfg.Refuse, cfg.Compress = filepath.Join(dir, "audit.log"), true, false
	l, err := Open(cfg, "test", zerolog.Nop())
	must(t, err)
	ballast := filepath.Join(dir, "ballast")
	must(t, os.WriteFile(ballast, make([]byte, 128<<10), 0o600))
	n := 0
	for ; l.Refuses() == ""; n++ {
		note(l, n, n+1)
		time.Sleep(10 * time.Microsecond)
	}
	if why := l.Refuses(); !strings.Contains(why, "no space left") {
		t.Errorf("refused because %q", why)
	}
	note(l, n, n+5) // tunnels that end
	must(t, os.Remove(ballast))
	eventually(t, "recovery", func() bool { return l.Refuses() == "" })
	note(l, n+5, n+10)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	must(t, l.Close(ctx))
	checkAll(t, cfg, n+10)
	if r := whole(t, cfg); len(r.Findings) != 0 {
		t.Errorf("got %+v", r)
	}
	// A file system that has become read-only.
	if err := syscall.Mount("", dir, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, "size=256k"); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(cfg, "test", zerolog.Nop()); !errors.Is(err, syscall.EROFS) {
		t.Errorf("on a read-only file system: %v", err)
	}
}
