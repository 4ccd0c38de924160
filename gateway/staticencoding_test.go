package gateway

import (
	"bytes"
	"compress/gzip"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// aged makes the files of a site old enough to be taken for finished ones.
func (s *staticSite) aged(t *testing.T, age time.Duration, names ...string) {
	t.Helper()
	for _, name := range names {
		at := time.Now().Add(-age)
		if err := os.Chtimes(filepath.Join(s.dir, name), at, at); err != nil {
			t.Fatal(err)
		}
	}
}

func unzipped(t *testing.T, b string) string {
	t.Helper()
	r, err := gzip.NewReader(strings.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	plain, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(plain)
}

// Clients get the file that lies compressed beside another when they take it,
// and it is as new.
func TestStaticBeside(t *testing.T) {
	s := newStaticSite(t, "index.html", map[string]string{
		"index.html": "home", "index.html.br": "home in br",
		"a.js": "plain", "a.js.br": "in br", "a.js.gz": "in gzip",
		"only.css": "plain", "only.css.gz": "in gzip",
		"old.js": "new plain", "old.js.br": "old br", "old.js.gz": "old gzip",
		"pic.png": "plain", "pic.png.gz": "in gzip", "folder/x": "", "b.js": "plain", "b.js.gz/x": "",
	})
	s.aged(t, time.Hour, "a.js", "only.css", "old.js", "pic.png", "b.js", "a.js.br", "index.html", "folder")
	s.aged(t, time.Minute, "a.js.gz", "only.css.gz", "pic.png.gz", "index.html.br")
	s.aged(t, 2*time.Hour, "old.js.br", "old.js.gz")
	const vary = "Accept-Encoding"
	for _, c := range []struct{ target, accept, body, encoding, vary string }{
		{"/a.js", "", "plain", "", vary}, {"/a.js", "gzip, deflate, br, zstd", "in br", "br", vary}, {"/a.js", "gzip", "in gzip", "gzip", vary},
		{"/a.js", "br;q=0.5, gzip", "in gzip", "gzip", vary}, {"/a.js", "BR", "in br", "br", vary}, {"/a.js", "*", "in br", "br", vary},
		{"/a.js", "*;q=0", "plain", "", vary}, {"/a.js", "br;q=0, *", "in gzip", "gzip", vary}, {"/a.js", "gzip;q=0,br;q=0.0", "plain", "", vary},
		{"/a.js", "identity, gzip;q=0.5", "plain", "", vary}, {"/a.js", "deflate", "plain", "", vary}, {"/a.js", "gzip;q=x", "plain", "", vary},
		{"/only.css", "br, gzip", "in gzip", "gzip", vary}, {"/only.css", "br", "plain", "", vary},
		{"/old.js", "br, gzip", "new plain", "", vary}, {"/b.js", "gzip", "plain", "", vary},
		{"/pic.png", "gzip", "plain", "", ""}, {"/", "br", "home in br", "br", "Accept, Accept-Encoding"},
	} {
		a := s.get(t, c.target, "accept-encoding", c.accept)
		a.expect(t, 200, c.body)
		a.expectHeader(t, "Content-Encoding", c.encoding)
		a.expectHeader(t, "Vary", c.vary)
		head := s.do(t, http.MethodHead, c.target, "Accept-Encoding", c.accept)
		head.expect(t, 200, "")
		for _, name := range []string{"Content-Encoding", "Content-Length", "Content-Type", "Etag", "Vary"} {
			head.expectHeader(t, name, a.Header.Get(name))
		}
		s.get(t, c.target, "Accept-Encoding", c.accept, "If-None-Match", a.Header.Get("Etag")).expect(t, 304, "")
	}
	s.get(t, "/a.js", "Accept-Encoding", "gzip").expectHeader(t, "Content-Type", "text/javascript; charset=utf-8")

	plain := s.get(t, "/a.js")
	br, gz := s.get(t, "/a.js", "Accept-Encoding", "br"), s.get(t, "/a.js", "Accept-Encoding", "gzip")
	tags := []string{plain.Header.Get("Etag"), br.Header.Get("Etag"), gz.Header.Get("Etag")}
	if slices.Sort(tags); len(slices.Compact(tags)) != 3 {
		t.Errorf("entity tags: %q", tags)
	}
	s.get(t, "/a.js", "Accept-Encoding", "br", "If-None-Match", gz.Header.Get("Etag")).expect(t, 200, "in br")

	part := s.get(t, "/a.js", "Accept-Encoding", "br", "Range", "bytes=1-2")
	part.expect(t, 206, "la") // of the file itself
	part.expectHeader(t, "Content-Encoding", "")
	br.expectHeader(t, "Accept-Ranges", "none")
	plain.expectHeader(t, "Accept-Ranges", "bytes")
	s.get(t, "/a.js", "Accept-Encoding", "br", "Range", "bytes=1-2", "If-Range", br.Header.Get("Etag")).expect(t, 200, "plain")
}

// Files without another beside them are compressed here, once, if that gains
// anything; a change is seen at once.
func TestStaticZipped(t *testing.T) {
	large := strings.Repeat("function f() { return 1 }\n", 1000)
	random := string(randomBytes(4096))
	s := newStaticSite(t, "", map[string]string{
		"a.js": large, "small.js": "x", "noise.js": random, "a.png": large, "fresh.js": large, "huge.js": strings.Repeat("x", zipMost+1),
	})
	s.aged(t, time.Hour, "a.js", "small.js", "noise.js", "a.png", "huge.js")
	s.aged(t, 0, "fresh.js")
	for range 2 {
		a := s.get(t, "/a.js", "Accept-Encoding", "gzip, br")
		a.expectHeader(t, "Content-Encoding", "gzip")
		if len(a.body) > len(large)/10 || unzipped(t, a.body) != large {
			t.Errorf("%d bytes", len(a.body))
		}
		if tag := a.Header.Get("Etag"); !strings.HasPrefix(tag, `W/"`) || !strings.HasSuffix(tag, `-gzip"`) {
			t.Errorf("Etag %s", tag)
		}
		s.get(t, "/a.js", "Accept-Encoding", "gzip", "If-None-Match", a.Header.Get("Etag")).expect(t, 304, "")
		s.get(t, "/noise.js", "Accept-Encoding", "gzip").expect(t, 200, random)
	}
	s.get(t, "/a.js", "Accept-Encoding", "br").expect(t, 200, large)
	s.get(t, "/a.js").expect(t, 200, large)
	s.get(t, "/small.js", "Accept-Encoding", "gzip").expect(t, 200, "x")
	s.get(t, "/a.png", "Accept-Encoding", "gzip").expect(t, 200, large)
	s.get(t, "/fresh.js", "Accept-Encoding", "gzip").expect(t, 200, large)
	s.get(t, "/huge.js", "Accept-Encoding", "gzip").expectHeader(t, "Content-Encoding", "")

	s.write(t, "a.js", strings.ToUpper(large))
	s.aged(t, time.Minute, "a.js")
	if got := s.get(t, "/a.js", "Accept-Encoding", "gzip"); unzipped(t, got.body) != strings.ToUpper(large) {
		t.Error("the old file came")
	}

	var group sync.WaitGroup
	s.write(t, "b.js", large)
	s.aged(t, time.Hour, "b.js")
	for range 8 {
		group.Go(func() {
			got := s.get(t, "/b.js", "Accept-Encoding", "gzip")
			if body := got.body; got.Header.Get("Content-Encoding") == "" && body != large || got.Header.Get("Content-Encoding") == "gzip" && unzipped(t, body) != large {
				t.Error("a wrong body")
			}
		})
	}
	group.Wait()
}

// Memory is bounded: files in use are not forgotten for others, those that nobody
// asks for are.
func TestZipsBound(t *testing.T) {
	dir := t.TempDir()
	content := randomBytes(8 << 10)
	for i := range content {
		content[i] &= 0x3f // gains a quarter
	}
	open := func(name string) *staticFile {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		info, err := f.Stat()
		if err != nil {
			t.Fatal(err)
		}
		return &staticFile{File: f, info: info, name: name}
	}
	z := zips{most: 64 << 10}
	now := time.Now()
	kept := 0
	for i := range 12 {
		file := open(string(rune('a' + i)))
		if z.of(file, "1", now) != nil {
			kept++
		}
		if rest, err := io.ReadAll(file); err != nil || !bytes.Equal(rest, content) {
			t.Fatalf("the file is not at its beginning: %d bytes, %v", len(rest), err)
		}
		if z.size > z.most {
			t.Fatalf("%d bytes are kept", z.size)
		}
	}
	if kept < 5 || kept == 12 {
		t.Errorf("%d files were compressed", kept)
	}
	if z.of(open("a"), "1", now.Add(zipIdle)) == nil {
		t.Error("a file in use was forgotten")
	}
	if z.of(open("z"), "1", now.Add(zipIdle)) == nil {
		t.Error("no room was made")
	}
	if z.files["a"] == nil || z.size > z.most {
		t.Errorf("%d bytes are kept, in %d files", z.size, len(z.files))
	}
	before := z.size
	if z.of(open("z"), "2", now.Add(zipIdle)) == nil || z.size != before {
		t.Errorf("another version takes %d bytes more", z.size-before)
	}
}
