package certs

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// A diary keeps what a Store tells.
type diary struct {
	mu    sync.Mutex
	lines []string
	more  chan struct{} // closed with the next line
}

func (d *diary) log(level, message string, pairs ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lines = append(d.lines, strings.TrimSpace(level+" "+message+" "+fmt.Sprintln(pairs...)))
	if d.more != nil {
		close(d.more)
		d.more = nil
	}
}

func (d *diary) all() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.lines)
}

// await waits for a line with all of parts, from line number from on, and
// returns the number behind it.
func (d *diary) await(t testing.TB, from int, parts ...string) int {
	t.Helper()
	end := time.After(30 * time.Second)
	for {
		d.mu.Lock()
		for i, line := range d.lines[min(from, len(d.lines)):] {
			if !slices.ContainsFunc(parts, func(p string) bool { return !strings.Contains(line, p) }) {
				d.mu.Unlock()
				return from + i + 1
			}
		}
		if d.more == nil {
			d.more = make(chan struct{})
		}
		more := d.more
		d.mu.Unlock()
		select {
		case <-more:
		case <-end:
			t.Fatalf("no line with %q among\n%s", parts, strings.Join(d.all(), "\n"))
		}
	}
}

func (d *diary) count(part string) (n int) {
	for _, line := range d.all() {
		if strings.Contains(line, part) {
			n++
		}
	}
	return n
}

// quick is a pace for tests.
func quick() pace {
	return pace{settle: 20 * time.Millisecond, poll: time.Hour, ask: 5 * time.Second, askAgain: 20 * time.Millisecond, askAtMost: time.Millisecond, askAtLeast: time.Hour}
}

// running is a Store that follows its files until the test ends.
func running(t testing.TB, cfg Config, p pace) (*Store, *diary) {
	t.Helper()
	s, err := Load(cfg)
	if err != nil {
		t.Fatal(err)
	}
	s.pace = p
	d := &diary{}
	ctx, cancel := context.WithCancel(context.Background())
	var group sync.WaitGroup
	group.Go(func() { s.Run(ctx, d.log) })
	t.Cleanup(func() { cancel(); group.Wait() })
	return s, d
}

// rename puts content in the place of a file at once, as tools should.
func rename(t testing.TB, path, content string) {
	t.Helper()
	write(t, filepath.Dir(path), "new.tmp", content)
	if err := os.Rename(filepath.Join(filepath.Dir(path), "new.tmp"), path); err != nil {
		t.Fatal(err)
	}
}

// fresh is a self-signed certificate with its key, in PEM.
func fresh(t testing.TB, names ...string) string {
	t.Helper()
	key := ecKey(t)
	return pemOf(sign(t, leaf(names...), key, nil)) + pemKey(t, key)
}

const (
	replacedLine = "info a certificate was replaced"
	refusedLine  = "error the replacement of a certificate is refused, the old one goes on"
)

// What takes the place of a file is served without a command, and a connection
// from before goes on; what is worse is refused, once, and the old one served.
func TestFilesAreFollowed(t *testing.T) {
	dir := t.TempDir()
	file := write(t, dir, "im.pem", fresh(t, "im.example.gov", "*.im.example.gov"))
	s, d := running(t, Config{Certificates: []Source{{At: "f:1:1", Cert: file}}}, quick())
	address := serve(t, s.TLSConfig(), "127.0.0.1:0")
	before := mustDial(t, address, &tls.Config{ServerName: "im.example.gov"})
	served := func() *x509.Certificate {
		return mustDial(t, address, &tls.Config{ServerName: "im.example.gov"}).leaf()
	}
	at, last := 0, before.leaf()
	step := func(name string, write func(), line string, parts ...string) {
		t.Helper()
		write()
		at = d.await(t, at, append([]string{line}, parts...)...)
		now := served()
		if isNew := !now.Equal(last); isNew != (line == replacedLine) {
			t.Errorf("%s: served anew: %v", name, isNew)
		}
		if refused := s.Infos()[0].Refused; (refused == "") != (line == replacedLine) {
			t.Errorf("%s: the refusal is %q", name, refused)
		}
		last = now
	}
	expired := func() string {
		key := ecKey(t)
		old := leaf("im.example.gov", "*.im.example.gov")
		old.NotAfter = time.Now().Add(-time.Hour)
		return pemOf(sign(t, old, key, nil)) + pemKey(t, key)
	}
	good := func() string { return fresh(t, "im.example.gov", "*.im.example.gov") }
	step("renamed", func() { rename(t, file, good()) }, replacedLine, "im.example.gov")
	step("half a file", func() { rename(t, file, "-----BEGIN CERT") }, refusedLine, "f:1:1: certificate file", "holds no PEM")
	step("written over", func() { write(t, dir, "im.pem", good()) }, replacedLine)
	step("of another key", func() {
		rename(t, file, pemOf(sign(t, leaf("im.example.gov", "*.im.example.gov"), ecKey(t), nil))+pemKey(t, ecKey(t)))
	}, refusedLine, "does not belong to the key")
	step("expired", func() { rename(t, file, expired()) }, refusedLine, "expired on")
	step("fewer names", func() { rename(t, file, fresh(t, "im.example.gov")) }, refusedLine, "does not cover *.im.example.gov")
	step("more names", func() { rename(t, file, fresh(t, "im.example.gov", "*.im.example.gov", "more.example.gov")) }, replacedLine)
	step("gone", func() { os.Remove(file) }, refusedLine, "does not exist")
	step("back", func() { write(t, dir, "im.pem", fresh(t, "*.im.example.gov", "im.example.gov", "more.example.gov")) }, replacedLine)
	if err := before.echo("still here"); err != nil {
		t.Errorf("the connection from before: %v", err)
	}
	if n := s.Infos()[0].Served; n < 10 {
		t.Errorf("served %d times: the count does not go on with a replacement", n)
	}
	// Said once: looking again at the same files says nothing new.
	rename(t, file, "nothing")
	d.await(t, at, refusedLine)
	lines := len(d.all())
	for range 3 {
		s.scan(time.Now(), d.log)
	}
	if n := len(d.all()); n != lines {
		t.Errorf("said again:\n%s", strings.Join(d.all()[lines:], "\n"))
	}
}

// A mounted volume of Kubernetes changes by one symbolic link, certbot's folder
// by one for each file.
func TestSymbolicLinksAreFollowed(t *testing.T) {
	dir := t.TempDir()
	for _, version := range []string{"v1", "v2"} {
		if err := os.Mkdir(filepath.Join(dir, version), 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, version), "tls.crt", fresh(t, "im.example.gov"))
	}
	link := func(to, name string) {
		t.Helper()
		if err := os.Symlink(to, filepath.Join(dir, name+".tmp")); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(dir, name+".tmp"), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	link("v1", "..data")
	link("..data/tls.crt", "tls.crt")
	_, d := running(t, Config{Certificates: []Source{{At: "f:1:1", Cert: filepath.Join(dir, "tls.crt")}}}, quick())
	link("v2", "..data")
	at := d.await(t, 0, replacedLine)
	link("v1/tls.crt", "tls.crt")
	d.await(t, at, replacedLine)
}

// Where no event tells of a change, the poll finds it.
func TestPollFindsChanges(t *testing.T) {
	dir := t.TempDir()
	for _, version := range []string{"v1", "v2"} {
		if err := os.MkdirAll(filepath.Join(dir, version), 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, version), "im.pem", fresh(t, "im.example.gov"))
	}
	if err := os.Symlink("v1", filepath.Join(dir, "current")); err != nil {
		t.Fatal(err)
	}
	p := quick()
	p.poll = 20 * time.Millisecond
	_, d := running(t, Config{Certificates: []Source{{At: "f:1:1", Cert: filepath.Join(dir, "current", "im.pem")}}}, p)
	// The watched folder is current/, and nothing in it changes.
	if err := os.Symlink("v2", filepath.Join(dir, "next")); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(dir, "next"), filepath.Join(dir, "current")); err != nil {
		t.Fatal(err)
	}
	d.await(t, 0, replacedLine)
}

// A password and a keystore that change together are followed, in any order.
func TestKeystoreAndPasswordAreFollowed(t *testing.T) {
	dir := t.TempDir()
	im, other := issued(t, ecKey(t), "im.example.gov"), issued(t, ecKey(t), "im.example.gov")
	makeJKS(t, dir, "im.jks", im, im, []byte("first1"), []byte("first1"))
	write(t, dir, "im.pass", "first1")
	source := within(dir, Source{Keystore: "im.jks", Alias: "im", PasswordFile: "im.pass"})
	s, d := running(t, Config{Certificates: []Source{source}}, quick())
	makeJKS(t, dir, "next.jks", other, other, []byte("second2"), []byte("second2"))
	if err := os.Rename(filepath.Join(dir, "next.jks"), source.Keystore); err != nil {
		t.Fatal(err)
	}
	d.await(t, 0, refusedLine, "is not the store's")
	rename(t, source.PasswordFile, "second2\n")
	d.await(t, 0, replacedLine)
	if !s.current.Load().entries[0].leaf().Equal(other.chain[0]) {
		t.Error("the old certificate is served")
	}
}

// A folder's pairs come and are replaced each by itself; what is wrong in it
// keeps nothing else back, and what is gone goes on until a reload.
func TestFolders(t *testing.T) {
	dir := t.TempDir()
	folder := filepath.Join(dir, "certs")
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	key := ecKey(t)
	write(t, folder, "a.pem", fresh(t, "a.example.gov"))
	write(t, folder, "b.crt", pemOf(sign(t, leaf("b.example.gov"), key, nil)))
	write(t, folder, "b.key", pemKey(t, key))
	write(t, folder, "c.pem", pemOf(sign(t, leaf("c.example.gov"), key, nil)))
	write(t, folder, "c-key.pem", pemKey(t, key))
	write(t, folder, ".hidden.pem", "no certificate")
	write(t, folder, "notes.txt", "no certificate")
	cfg := Config{Certificates: []Source{{At: "f:1:1", Folder: folder}}}
	s, d := running(t, cfg, quick())
	names := func() (all []string) {
		for _, i := range s.Infos() {
			all = append(all, strings.TrimSuffix(i.Names[0], ".example.gov"))
		}
		slices.Sort(all)
		return all
	}
	if got := names(); !slices.Equal(got, []string{"a", "b", "c"}) {
		t.Fatalf("there are %q", got)
	}
	rename(t, filepath.Join(folder, "broken.pem"), "nothing")
	at := d.await(t, 0, "error a new certificate is not usable", "broken.pem")
	if f := s.Faults(); len(f) != 1 || !strings.Contains(f[0], "broken.pem holds no PEM") {
		t.Errorf("faults are %q", f)
	}
	rename(t, filepath.Join(folder, "d.pem"), fresh(t, "d.example.gov"))
	at = d.await(t, at, "info a certificate was added", "d.example.gov")
	rename(t, filepath.Join(folder, "a.pem"), fresh(t, "a.example.gov"))
	at = d.await(t, at, replacedLine, "a.example.gov")
	os.Remove(filepath.Join(folder, "b.crt"))
	os.Remove(filepath.Join(folder, "broken.pem"))
	at = d.await(t, at, "warn a certificate is gone, and goes on being served", "b.crt")
	if got := names(); !slices.Equal(got, []string{"a", "b", "c", "d"}) || s.Infos()[0].Names[0] != "a.example.gov" {
		t.Errorf("there are %q, and the default is %q", got, s.Infos()[0].Names)
	}
	if f := s.Faults(); len(f) != 0 {
		t.Errorf("faults are %q", f)
	}
	if err := reload(s, cfg); err != nil {
		t.Fatal(err)
	}
	if got := names(); !slices.Equal(got, []string{"a", "c", "d"}) {
		t.Errorf("after a reload there are %q", got)
	}
	if err := os.Rename(folder, folder+".away"); err != nil {
		t.Fatal(err)
	}
	s.scan(time.Now(), d.log)
	d.await(t, at, "error the folder of certificates is not usable, what it held before goes on", "f:1:1: certificates: folder")
	if got := names(); !slices.Equal(got, []string{"a", "c", "d"}) {
		t.Errorf("without the folder there are %q", got)
	}
}

// Handshakes, replacements, reloads and questions may come all at once.
func TestAllAtOnce(t *testing.T) {
	dir := t.TempDir()
	cfg := Config{Certificates: []Source{{At: "f:1:1", Cert: write(t, dir, "im.pem", fresh(t, "im.example.gov"))}}}
	s, d := running(t, cfg, quick())
	address := serve(t, s.TLSConfig(), "127.0.0.1:0")
	good, bad := []string{fresh(t, "im.example.gov"), fresh(t, "im.example.gov")}, "nothing"
	var group sync.WaitGroup
	for _, do := range []func(i int){
		func(i int) { rename(t, filepath.Join(dir, "im.pem"), []string{good[0], bad, good[1]}[i%3]) },
		func(int) { reload(s, cfg) }, // refused while the file is bad
		func(int) { s.Infos(); s.Faults(); s.Warnings() },
		func(int) { s.scan(time.Now(), d.log) },
	} {
		group.Go(func() {
			for i := range 60 {
				do(i)
			}
		})
	}
	for range 40 {
		mustDial(t, address, &tls.Config{ServerName: "im.example.gov"})
	}
	group.Wait()
	if n := s.Infos()[0].Served; n != 40 {
		t.Errorf("served %d times, want 40", n)
	}
}

func TestEmptyFolder(t *testing.T) {
	dir := t.TempDir()
	for folder, want := range map[string]string{
		dir:           "f:1:1: certificates: folder " + dir + " holds none: expected im.pem or im.crt with im.key, im-key.pem or the key in the same file",
		dir + "/none": "f:1:1: certificates: folder " + dir + "/none cannot be read (no such file or directory): check the name; a relative one is taken from the config's folder",
	} {
		if _, err := Load(Config{Certificates: []Source{{At: "f:1:1", Folder: folder}}}); err == nil || err.Error() != want {
			t.Errorf("the error is\n%v\nwant\n%s", err, want)
		}
	}
}

// A name may move to another certificate, but not be lost, by a change on disk
// or a reload; with another file in the config it may.
func TestNamesAreNotLost(t *testing.T) {
	dir := t.TempDir()
	a := write(t, dir, "a.pem", fresh(t, "a.example.gov", "b.example.gov"))
	b := write(t, dir, "b.pem", fresh(t, "c.example.gov"))
	cfg := Config{Certificates: []Source{{At: "f:1:1", Cert: a}, {At: "f:2:2", Cert: b}}}
	s, err := Load(cfg)
	if err != nil {
		t.Fatal(err)
	}
	d := &diary{}
	write(t, dir, "a.pem", fresh(t, "a.example.gov"))
	err = reload(s, cfg)
	want := "f:1:1: certificate file " + a + ": the certificate does not cover b.example.gov, as the one in use does: have it issued again with these names, add a certificate that has them, or restart the gateway if they are to go"
	if err == nil || err.Error() != want {
		t.Errorf("the reload says\n%v\nwant\n%s", err, want)
	}
	s.scan(time.Now(), d.log)
	d.await(t, 0, refusedLine, "does not cover b.example.gov")

	write(t, dir, "b.pem", fresh(t, "*.example.gov", "c.example.gov"))
	s.scan(time.Now(), d.log)
	if n := d.count(replacedLine); n != 2 || s.Infos()[0].Refused != "" {
		t.Errorf("%d were replaced:\n%s", n, strings.Join(d.all(), "\n"))
	}
	other := write(t, dir, "other.pem", fresh(t, "a.example.gov"))
	if err := reload(s, Config{Certificates: []Source{{At: "f:1:1", Cert: other}}}); err != nil {
		t.Errorf("another file in the config: %v", err)
	}
}

// A name that one replacement lacks and another one brings is lost again when
// the other is refused.
func TestNamesOfARefusedReplacement(t *testing.T) {
	dir := t.TempDir()
	a := write(t, dir, "a.pem", fresh(t, "a.example.gov", "m.example.gov"))
	b := write(t, dir, "b.pem", fresh(t, "b.example.gov", "n.example.gov"))
	s, err := Load(Config{Certificates: []Source{{At: "f:1:1", Cert: a}, {At: "f:2:2", Cert: b}}})
	if err != nil {
		t.Fatal(err)
	}
	write(t, dir, "a.pem", fresh(t, "a.example.gov"))                  // without m
	write(t, dir, "b.pem", fresh(t, "b.example.gov", "m.example.gov")) // with m, without n
	d := &diary{}
	s.scan(time.Now(), d.log)
	if n := d.count(refusedLine); n != 2 || d.count(replacedLine) != 0 {
		t.Errorf("the log is\n%s", strings.Join(d.all(), "\n"))
	}
}

// The log warns of an end once for each step.
func TestReminders(t *testing.T) {
	dir := t.TempDir()
	key := ecKey(t)
	ending := leaf("im.example.gov")
	ending.NotAfter = time.Now().Add(10*oneDay + time.Hour)
	file := write(t, dir, "im.pem", pemOf(sign(t, ending, key, nil))+pemKey(t, key))
	s := load(t, Source{At: "f:1:1", Cert: file})
	end := s.Infos()[0].NotAfter
	said := map[string]bool{}
	var texts []string
	for days := 40; days >= -2; days-- {
		now := map[string]bool{}
		for _, w := range s.current.Load().warnings(end.Add(-time.Duration(days)*oneDay + time.Second)) {
			if now[w.key] = true; !said[w.key] {
				texts = append(texts, fmt.Sprint(days))
			}
		}
		said = now
	}
	if want := []string{"30", "14", "7", "1", "0"}; !slices.Equal(texts, want) {
		t.Errorf("reminded at %q days, want %q", texts, want)
	}
	d := &diary{}
	said = s.remind(nil, d.log)
	s.remind(said, d.log)
	if got := d.all(); len(got) != 1 || !strings.Contains(got[0], "warn f:1:1: the certificate in "+file+" expires on") {
		t.Errorf("the log is %q", got)
	}
}
