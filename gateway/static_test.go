package gateway

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/valyala/fasthttp"
)

// A staticSite is a folder behind a real server.
type staticSite struct {
	dir, url string
	server   *fasthttp.Server
	client   http.Transport // follows no redirect, asks for no compression by itself
}

// newStaticSite serves a new folder with these files. Below /site/ it is
// mounted as well. When the test ends no file of the folder may be open.
func newStaticSite(t *testing.T, fallback string, files map[string]string) *staticSite {
	t.Helper()
	s := &staticSite{dir: t.TempDir(), client: http.Transport{DisableCompression: true}}
	for name, content := range files {
		s.write(t, name, content)
	}
	f, err := openStatic(s.dir, fallback)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.url = "http://" + listener.Addr().String()
	s.server = &fasthttp.Server{
		NoDefaultContentType:          true,
		DisableHeaderNamesNormalizing: true,
		Logger:                        staticNoLog{},
		Handler: func(ctx *fasthttp.RequestCtx) {
			path, _, _ := strings.Cut(string(ctx.RequestURI()), "?")
			if rest, ok := strings.CutPrefix(path, "/site"); ok && (rest == "" || rest[0] == '/') {
				path = "/" + strings.TrimPrefix(rest, "/")
			}
			switch status := f.serve(ctx, path); status {
			case 404, 405, 416:
				if ctx.Response.StatusCode() != 200 || len(ctx.Response.Body()) > 0 {
					t.Errorf("%s: something was written for status %d", path, status)
				}
				ctx.SetStatusCode(status)
				ctx.SetBodyString("the error page")
			default:
				if got := ctx.Response.StatusCode(); got != status {
					t.Errorf("%s: status %d was written, %d returned", path, got, status)
				}
			}
		},
	}
	served := make(chan error)
	go func() { served <- s.server.Serve(listener) }()
	t.Cleanup(func() {
		s.client.CloseIdleConnections()
		s.server.Shutdown()
		if err := <-served; err != nil {
			t.Error(err)
		}
		f.Close()
		s.checkClosed(t)
	})
	return s
}

type staticNoLog struct{}

func (staticNoLog) Printf(string, ...any) {}

// checkClosed finds files of the folder that were left open.
func (s *staticSite) checkClosed(t *testing.T) {
	t.Helper()
	if runtime.GOOS != "linux" {
		return
	}
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range open {
		if name, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && strings.HasPrefix(name, s.dir) {
			t.Errorf("%s was left open", name)
		}
	}
}

// staticDay is when the test files were changed last.
func staticDay() time.Time { return time.Date(2026, 3, 4, 5, 6, 7, 8, time.UTC) }

func (s *staticSite) write(t *testing.T, name, content string) {
	t.Helper()
	name = filepath.Join(s.dir, filepath.FromSlash(name))
	err := errors.Join(
		os.MkdirAll(filepath.Dir(name), 0o755),
		os.WriteFile(name, []byte(content), 0o644),
		os.Chtimes(name, staticDay(), staticDay()))
	if err != nil {
		t.Fatal(err)
	}
}

// A staticAnswer is a response that was read to its end.
type staticAnswer struct {
	*http.Response
	body string
}

// get asks for target, which begins with "/" and is sent as it is; header holds
// names and values in turn.
func (s *staticSite) get(t *testing.T, target string, header ...string) staticAnswer {
	t.Helper()
	return s.do(t, http.MethodGet, target, header...)
}

func (s *staticSite) do(t *testing.T, method, target string, header ...string) staticAnswer {
	t.Helper()
	req, err := http.NewRequest(method, s.url+target, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header[header[i]] = append(req.Header[header[i]], header[i+1]) // the name as it is spelt
	}
	resp, err := s.client.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return staticAnswer{resp, string(body)}
}

func (a staticAnswer) expect(t *testing.T, status int, body string) {
	t.Helper()
	if a.StatusCode != status || a.body != body {
		t.Errorf("%s %s: status %d, body %.60q, expected %d, %.60q", a.Request.Method, a.Request.URL, a.StatusCode, a.body, status, body)
	}
}

func (a staticAnswer) expectHeader(t *testing.T, name, want string) {
	t.Helper()
	if got := a.Header.Get(name); got != want {
		t.Errorf("%s %s: %s is %q, expected %q", a.Request.Method, a.Request.URL, name, got, want)
	}
}

const staticErrorPage = "the error page"

func TestStaticFilesAndFolders(t *testing.T) {
	s := newStaticSite(t, "", map[string]string{
		"index.html":              "home",
		"app.js":                  "js",
		"sub/index.html":          "sub home",
		"sub/a b+c.txt":           "spaces",
		"bare/a.txt":              "a",
		"政务/公告.txt":               "notice",
		".well-known/acme/abc":    "token",
		"a/.well-known/host-meta": "meta",
		"empty.txt":               "",
		"dir.html/index.html":     "a folder named like a file",
	})
	for target, want := range map[string]string{
		"/":                "home",
		"/?x=1":            "home",
		"/index.html":      "home",
		"/site/":           "home",
		"/site/app.js?v=2": "js",
		"/%61pp.js":        "js",
		"/sub/":            "sub home",
		"/sub/a%20b+c.txt": "spaces",
		"/%E6%94%BF%E5%8A%A1/%e5%85%ac%E5%91%8A.txt": "notice",
		"/.well-known/acme/abc":                      "token",
		"/a/.well-known/host-meta":                   "meta",
		"/empty.txt":                                 "",
		"/dir.html/":                                 "a folder named like a file",
	} {
		a := s.get(t, target)
		a.expect(t, 200, want)
		a.expectHeader(t, "Content-Length", strconv.Itoa(len(want)))
		a.expectHeader(t, "X-Content-Type-Options", "nosniff")
		a.expectHeader(t, "Last-Modified", "Wed, 04 Mar 2026 05:06:07 GMT")
		a.expectHeader(t, "Accept-Ranges", "bytes")
		a.expectHeader(t, "Cache-Control", "")
	}
	for target, location := range map[string]string{
		"/sub":           "/sub/",
		"/sub?a=1&b=/x":  "/sub/?a=1&b=/x",
		"/site":          "/site/",
		"/site/sub?":     "/site/sub/?",
		"/%73ub":         "/%73ub/",
		"/%E6%94%BF":     "",
		"/dir.html":      "/dir.html/",
		"/site/dir.html": "/site/dir.html/",
	} {
		a := s.get(t, target)
		if location == "" {
			a.expect(t, 404, staticErrorPage)
		} else {
			a.expect(t, 301, "")
		}
		a.expectHeader(t, "Location", location)
	}
	for _, target := range []string{"/missing", "/missing/", "/bare", "/bare/", "/app.js/", "/app.js/x", "/sub//", "/APP.JS/"} {
		s.get(t, target, "Accept", "text/html").expect(t, 404, staticErrorPage)
	}
}

func TestStaticRedirectStaysHere(t *testing.T) {
	for target, want := range map[string]string{
		"//evil.test/sub":               "/evil.test/sub/",
		"///evil.test":                  "/evil.test/",
		`/\evil.test/sub`:               "/evil.test/sub/",
		"/\t/evil.test":                 "/evil.test/",
		"http://im.test//evil.test?x=/": "/evil.test/?x=/",
		"http://im.test/sub":            "/sub/",
		"/a?next=http://x/":             "/a/?next=http://x/",
		"/a://b":                        "/a://b/",
		"/a/":                           "",
		"http://im.test":                "",
	} {
		got, needed := staticSlash(target)
		if got != want || needed != (want != "") {
			t.Errorf("%q: %q, %v, expected %q", target, got, needed, want)
		}
	}
}

func TestStaticEscapes(t *testing.T) {
	outside := t.TempDir()
	if err := os.WriteFile(filepath.Join(outside, "secret.txt"), []byte("secret"), 0o644); err != nil {
		t.Fatal(err)
	}
	s := newStaticSite(t, "", map[string]string{
		"sub/a.txt":   "a",
		".env":        "secret",
		".git/config": "secret",
		"sub/.hidden": "secret",
	})
	if err := os.WriteFile(filepath.Join(filepath.Dir(s.dir), "secret.txt"), []byte("secret"), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, target := range map[string]string{
		"inside.txt": filepath.Join("sub", "a.txt"),
		"link.txt":   filepath.Join("..", "secret.txt"),
		"absolute":   filepath.Join(outside, "secret.txt"),
		"folder":     outside,
		"loop":       "loop",
	} {
		if err := os.Symlink(target, filepath.Join(s.dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	s.get(t, "/inside.txt").expect(t, 200, "a")
	for _, target := range []string{
		"/../secret.txt", "/sub/../../secret.txt", "/..%2fsecret.txt", "/sub/..%2F..%2Fsecret.txt", "/%2e%2e/secret.txt", "/%2e%2e%2fsecret.txt",
		"/..%5csecret.txt", "/sub%5ca.txt", "/sub%2fa.txt", "/sub/a.txt%00", "/sub/a.txt%00.html", "/%00", "/%252e%252e/secret.txt",
		"/.env", "/%2eenv", "/.git/config", "/.git/", "/sub/.hidden", "/sub/./a.txt", "/.", "/..", "/sub/..",
		"/link.txt", "/absolute", "/folder/secret.txt", "/folder/", "/loop",
		"/" + strings.Repeat("x", 300), "/%ff", "/" + strings.ReplaceAll(outside, "/", "%2f") + "%2fsecret.txt",
	} {
		s.get(t, target).expect(t, 404, staticErrorPage)
	}
}

func TestStaticNameRefusals(t *testing.T) {
	for _, raw := range []string{"", "a", "//", "/a//b", "/%", "/%zz", "/a%2", "/..", "/.a", "/a/%2E", "/a%5Cb", "/a%2Fb", "/a%00"} {
		if name, _, ok := staticName(raw); ok {
			t.Errorf("%q was accepted as %q", raw, name)
		}
	}
}

// Every name that is accepted is one that stays within a root and hides nothing.
func FuzzStaticName(f *testing.F) {
	for _, raw := range []string{"/", "/a/b.txt", "/a/", "/%2e%2e/x", "/a%2fb", "/.well-known/x", "/%00", "/a\\b", "/%E6%94%BF", "//", "/%"} {
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		name, _, ok := staticName(raw)
		if !ok {
			return
		}
		if !fs.ValidPath(name) || !filepath.IsLocal(name) || strings.ContainsAny(name, "\\\x00") {
			t.Errorf("%q was accepted as %q", raw, name)
		}
		for segment := range strings.SplitSeq(name, "/") {
			if strings.HasPrefix(segment, ".") && segment != ".well-known" && name != "." {
				t.Errorf("%q was accepted as %q", raw, name)
			}
		}
	})
}

// Whatever the request target, the redirect stays on this host.
func FuzzStaticSlash(f *testing.F) {
	for _, target := range []string{"/a", "//evil.test", `/\evil.test`, "http://im.test//evil.test", "/\t/evil.test", "/a?b=//c", `/\`} {
		f.Add(target)
	}
	f.Fuzz(func(t *testing.T, target string) {
		location, needed := staticSlash(target)
		if !needed {
			return
		}
		if location[0] != '/' || len(location) > 1 && (strings.ContainsRune(`/\`, rune(location[1])) || location[1] <= ' ') {
			t.Errorf("%q: %q", target, location)
		}
		if _, again := staticSlash(location); again {
			t.Errorf("%q: %q is redirected again", target, location)
		}
	})
}

func TestStaticTypes(t *testing.T) {
	names := map[string]string{
		"a.html": "text/html; charset=utf-8", "a.js": "text/javascript; charset=utf-8", "a.mjs": "text/javascript; charset=utf-8",
		"a.css": "text/css; charset=utf-8", "a.json": "application/json", "a.svg": "image/svg+xml", "a.png": "image/png", "a.JPG": "image/jpeg",
		"a.gif": "image/gif", "a.webp": "image/webp", "a.ico": "image/x-icon", "a.woff": "font/woff", "a.woff2": "font/woff2",
		"a.wasm": "application/wasm", "a.txt": "text/plain; charset=utf-8", "a.js.map": "application/json", "a.xml": "text/xml; charset=utf-8",
		"a.unknown": "application/octet-stream", "plain": "application/octet-stream",
	}
	files := make(map[string]string)
	for name := range names {
		files[name] = "<html>looks like a page</html>"
	}
	s := newStaticSite(t, "", files)
	for name, want := range names {
		s.get(t, "/"+name).expectHeader(t, "Content-Type", want)
	}
}

func TestStaticConditions(t *testing.T) {
	s := newStaticSite(t, "", map[string]string{"a.txt": "0123456789"})
	tag := s.get(t, "/a.txt").Header.Get("Etag")
	const day, dayBefore = "Wed, 04 Mar 2026 05:06:07 GMT", "Tue, 03 Mar 2026 05:06:07 GMT"
	for _, c := range []struct {
		name   string
		header []string
		status int
		body   string
	}{
		{"tag", []string{"If-None-Match", tag}, 304, ""},
		{"weak tag", []string{"If-None-Match", `"x", W/` + tag}, 304, ""},
		{"any tag", []string{"If-None-Match", "*"}, 304, ""},
		{"other tag", []string{"If-None-Match", `"x"`}, 200, "0123456789"},
		{"lower case", []string{"if-none-match", tag}, 304, ""},
		{"since", []string{"If-Modified-Since", day}, 304, ""},
		{"since before", []string{"If-Modified-Since", dayBefore}, 200, "0123456789"},
		{"tag beats since", []string{"If-None-Match", `"x"`, "If-Modified-Since", day}, 200, "0123456789"},
		{"match", []string{"If-Match", tag}, 200, "0123456789"},
		{"no match", []string{"If-Match", `"x"`}, 412, ""},
		{"range", []string{"Range", "bytes=2-4"}, 206, "234"},
		{"range, lower case", []string{"range", "bytes=2-4"}, 206, "234"},
		{"open range", []string{"Range", "bytes=7-"}, 206, "789"},
		{"suffix", []string{"Range", "bytes=-2"}, 206, "89"},
		{"beyond the end", []string{"Range", "bytes=8-99"}, 206, "89"},
		{"several ranges", []string{"Range", "bytes=0-1,4-5"}, 200, "0123456789"},
		{"two headers", []string{"Range", "bytes=0-1", "range", "bytes=4-5"}, 200, "0123456789"},
		{"outside", []string{"Range", "bytes=10-"}, 416, staticErrorPage},
		{"malformed range", []string{"Range", "bytes=4-2"}, 416, staticErrorPage},
		{"other unit", []string{"Range", "lines=1-2"}, 200, "0123456789"},
		{"if-range tag", []string{"Range", "bytes=2-4", "If-Range", tag}, 206, "234"},
		{"if-range other tag", []string{"Range", "bytes=2-4", "If-Range", `"x"`}, 200, "0123456789"},
		{"if-range day", []string{"Range", "bytes=2-4", "If-Range", day}, 206, "234"},
		{"if-range other day", []string{"Range", "bytes=2-4", "If-Range", dayBefore}, 200, "0123456789"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := s.get(t, "/a.txt", c.header...)
			a.expect(t, c.status, c.body)
			head := s.do(t, http.MethodHead, "/a.txt", c.header...)
			if c.status == 206 || c.status == 416 { // HEAD knows no ranges
				head.expect(t, 200, "")
				head.expectHeader(t, "Content-Length", "10")
				head.expectHeader(t, "Content-Range", "")
			} else {
				head.expect(t, c.status, "")
				if c.status == 200 {
					head.expectHeader(t, "Content-Length", "10")
				}
				for _, name := range []string{"Etag", "Last-Modified", "Content-Type"} {
					head.expectHeader(t, name, a.Header.Get(name))
				}
			}
			switch c.status {
			case 200, 206:
				a.expectHeader(t, "Etag", tag)
				a.expectHeader(t, "Content-Length", strconv.Itoa(len(c.body)))
			case 304:
				a.expectHeader(t, "Etag", tag)
				a.expectHeader(t, "Content-Type", "")
			case 416:
				a.expectHeader(t, "Etag", "")
			}
		})
	}
	s.get(t, "/a.txt", "Range", "bytes=2-4").expectHeader(t, "Content-Range", "bytes 2-4/10")
	s.get(t, "/a.txt", "Range", "bytes=10-").expectHeader(t, "Content-Range", "bytes */10")
}

func TestStaticTag(t *testing.T) {
	s := newStaticSite(t, "", map[string]string{"a.txt": "one"})
	info, err := os.Stat(filepath.Join(s.dir, "a.txt"))
	if err != nil {
		t.Fatal(err)
	}
	old, fresh := staticTag(info, info.ModTime().Add(3*time.Second)), staticTag(info, info.ModTime().Add(time.Second))
	if strings.HasPrefix(old, "W/") || fresh != "W/"+old {
		t.Errorf("tags are %s and, just after the change, %s", old, fresh)
	}
	s.write(t, "a.txt", "three")
	s.get(t, "/a.txt", "If-None-Match", old).expect(t, 200, "three")
}

func TestStaticMethods(t *testing.T) {
	s := newStaticSite(t, "index.html", map[string]string{"index.html": "home"})
	for _, method := range []string{"POST", "PUT", "DELETE", "OPTIONS", "PATCH", "get", "PROPFIND"} {
		a := s.do(t, method, "/", "Accept", "text/html")
		a.expect(t, 405, staticErrorPage)
		a.expectHeader(t, "Allow", "GET, HEAD")
	}
	a := s.do(t, http.MethodHead, "/")
	a.expect(t, 200, "")
	a.expectHeader(t, "Content-Length", "4")
	s.get(t, "/").expect(t, 200, "home") // the connection is still in step
}

func TestStaticFallback(t *testing.T) {
	s := newStaticSite(t, "./app/index.html", map[string]string{"app/index.html": "app", "a.js": "js", "bare/a.txt": "a", ".env": "secret"})
	const browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
	for _, target := range []string{"/", "/login", "/user/7/", "/missing.js", "/bare", "/bare/", "/a.js/x", "/app/index.html"} {
		a := s.get(t, target, "Accept", browser)
		a.expect(t, 200, "app")
		a.expectHeader(t, "Cache-Control", "no-cache")
		a.expectHeader(t, "Vary", "Accept, Accept-Encoding")
		a.expectHeader(t, "Content-Type", "text/html; charset=utf-8")
		s.do(t, http.MethodHead, target, "accept", browser).expect(t, 200, "")
		s.get(t, target, "Accept", browser, "If-None-Match", a.Header.Get("Etag")).expect(t, 304, "")
	}
	for _, accept := range []string{"", "*/*", "image/*", "application/json", "text/htmlx", "text/html;q=0", "text/html; q=0.000, */*"} {
		s.get(t, "/missing.js", "Accept", accept).expect(t, 404, staticErrorPage)
	}
	for _, accept := range []string{"text/html", "*/*, Text/HTML;level=1;q=0.1"} {
		s.get(t, "/login", "Accept", accept).expect(t, 200, "app")
	}
	s.get(t, "/login", "Accept", "*/*", "accept", "text/html").expect(t, 200, "app")
	s.get(t, "/.env", "Accept", browser).expect(t, 404, staticErrorPage)
	s.get(t, "/a.js", "Accept", browser).expect(t, 200, "js")
	s.get(t, "/app?x=1", "Accept", browser).expectHeader(t, "Location", "/app/?x=1")
	if err := os.Remove(filepath.Join(s.dir, "app", "index.html")); err != nil {
		t.Fatal(err)
	}
	s.get(t, "/login", "Accept", browser).expect(t, 404, staticErrorPage)
}

// Opening a pipe would wait for a writer, and the test for ever.
func TestStaticPipe(t *testing.T) {
	s := newStaticSite(t, "", nil)
	mkfifo, err := exec.LookPath("mkfifo")
	if err != nil {
		t.Skip("no mkfifo here")
	}
	for _, name := range []string{"pipe.txt", "index.html"} {
		if err := exec.Command(mkfifo, filepath.Join(s.dir, name)).Run(); err != nil {
			t.Fatal(err)
		}
		s.get(t, "/"+strings.TrimPrefix(name, "index.html")).expect(t, 404, staticErrorPage)
	}
	if f, err := openStatic(s.dir, "pipe.txt"); err == nil {
		f.Close()
		t.Error("a pipe was accepted as fallback")
	}
}

func TestStaticLargeFile(t *testing.T) {
	content := make([]byte, 5<<20+123)
	rand.NewChaCha8([32]byte{1}).Read(content)
	s := newStaticSite(t, "", map[string]string{"large.bin": string(content)})
	if a := s.get(t, "/large.bin"); a.StatusCode != 200 || !bytes.Equal([]byte(a.body), content) {
		t.Errorf("status %d, %d bytes that differ from the file", a.StatusCode, len(a.body))
	}
	const from = 1<<20 + 7
	a := s.get(t, "/large.bin", "Range", "bytes="+strconv.Itoa(from)+"-")
	if a.StatusCode != 206 || !bytes.Equal([]byte(a.body), content[from:]) {
		t.Errorf("status %d, %d bytes that differ from the range", a.StatusCode, len(a.body))
	}
	s.get(t, "/large.bin", "Range", "bytes=0-1").expect(t, 206, string(content[:2]))
}

// begin asks for a file that is larger than the buffers between, and reads only
// the head of the answer.
func (s *staticSite) begin(t *testing.T, target string) *http.Response {
	t.Helper()
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	resp, err := (&http.Client{Transport: transport}).Get(s.url + target)
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

// The cleanup finds the file if it was left open.
func TestStaticClientLeaves(t *testing.T) {
	s := newStaticSite(t, "", map[string]string{"large.bin": strings.Repeat("x", 32<<20)})
	s.begin(t, "/large.bin").Body.Close()
}

func TestStaticFileChangesMeanwhile(t *testing.T) {
	const size = 32 << 20
	for name, c := range map[string]struct {
		newSize int64
		fails   bool
	}{"shrinks": {1 << 20, true}, "grows": {size + 1<<20, false}} {
		t.Run(name, func(t *testing.T) {
			s := newStaticSite(t, "", map[string]string{"large.bin": strings.Repeat("x", size)})
			resp := s.begin(t, "/large.bin")
			defer resp.Body.Close()
			if err := os.Truncate(filepath.Join(s.dir, "large.bin"), c.newSize); err != nil {
				t.Fatal(err)
			}
			n, err := io.Copy(io.Discard, resp.Body)
			if c.fails && err == nil || !c.fails && (err != nil || n != size) {
				t.Errorf("%d bytes and error %v", n, err)
			}
		})
	}
}

func TestStaticClosed(t *testing.T) {
	f, err := openStatic(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	var ctx fasthttp.RequestCtx
	if status := f.serve(&ctx, "/a.txt"); status != 503 || ctx.Response.StatusCode() != 503 {
		t.Errorf("status %d", status)
	}
}

func TestStaticOpenErrors(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "web"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ dir, fallback, want string }{
		{"missing", "", "static folder missing does not exist: create it or correct the name; a relative one is taken from the config's folder"},
		{"file", "", "static folder file is not a folder: name the folder that holds the file"},
		{"web", "index.html", "fallback index.html is not a file within static folder web: name one relative to that folder"},
		{"web", "../file", "fallback ../file is not a file within static folder web: name one relative to that folder"},
		{"web", ".", "fallback . is not a file within static folder web: name one relative to that folder"},
	} {
		f, err := openStatic(filepath.Join(dir, c.dir), c.fallback)
		if err == nil {
			f.Close()
			t.Errorf("%s, %s: accepted", c.dir, c.fallback)
			continue
		}
		if got := strings.ReplaceAll(err.Error(), dir+string(filepath.Separator), ""); got != c.want {
			t.Errorf("the error is\n%s\nexpected\n%s", got, c.want)
		}
	}
}
