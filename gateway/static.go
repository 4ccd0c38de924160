package gateway

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"mime"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/valyala/fasthttp"
)

// staticFiles serves the files of one folder: a static route. Nothing outside
// the folder can be reached, by symbolic links neither; one that leads out, or
// is absolute, does not exist for clients. The folder is the one that was there
// when it was opened, also when another takes its name later. Its methods may be
// called concurrently.
type staticFiles struct {
	root     *os.Root
	fallback string // within root; "": none
	zips     zips
}

// openStatic opens the folder dir. With a fallback, a file within it, page loads
// of paths that do not exist are answered with that file.
func openStatic(dir, fallback string) (*staticFiles, error) {
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("static folder %s does not exist: create it or correct the name; a relative one is taken from the config's folder", dir)
	case err == nil && !info.IsDir():
		return nil, fmt.Errorf("static folder %s is not a folder: name the folder that holds the file", dir)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("static folder %s cannot be opened: %w", dir, err)
	}
	f := &staticFiles{root: root, zips: zips{most: zipKept}}
	if fallback == "" {
		return f, nil
	}
	f.fallback = path.Clean(filepath.ToSlash(fallback))
	file, err := f.openFile(f.fallback)
	if err != nil {
		root.Close()
		return nil, fmt.Errorf("fallback %s is not a file within static folder %s: name one relative to that folder", fallback, dir)
	}
	file.Close()
	return f, nil
}

// Close releases the folder. Answers that are being sent go on; requests that
// still come are answered with 503.
func (f *staticFiles) Close() error { return f.root.Close() }

// serve answers a request for path, the canonical remainder below the mount,
// which begins with "/" and is still percent-encoded. It returns the status of
// the response that it wrote. For 404, 405 and 416 it wrote none, but at most
// the Allow or Content-Range header that belongs to it: the error page is the
// caller's.
//
// A body is streamed: the file stays open until fasthttp has sent it or given
// up. It is as long as the file was at first; a file that shrinks meanwhile ends
// the connection, so that the client notices.
func (f *staticFiles) serve(ctx *fasthttp.RequestCtx, path string) (status int) {
	if !ctx.IsGet() && !ctx.IsHead() {
		ctx.Response.Header.Set(fasthttp.HeaderAllow, "GET, HEAD")
		return http.StatusMethodNotAllowed
	}
	name, folder, ok := staticName(path)
	if !ok {
		return http.StatusNotFound
	}
	req := staticRequest(ctx)
	file, err := f.open(name, folder)
	if staticUnavailable(err) {
		ctx.Response.SetStatusCode(http.StatusServiceUnavailable)
		ctx.Response.Header.Set(fasthttp.HeaderRetryAfter, "1")
		return http.StatusServiceUnavailable
	}
	if err != nil && f.fallback != "" && staticAcceptsHTML(req.Header) {
		file, err = f.openFile(f.fallback)
	} else if err == nil && file.index {
		if location, needed := staticSlash(string(ctx.RequestURI())); needed {
			file.Close()
			ctx.Response.SetStatusCode(http.StatusMovedPermanently)
			ctx.Response.Header.Set(fasthttp.HeaderLocation, location)
			return http.StatusMovedPermanently
		}
	}
	if err != nil {
		return http.StatusNotFound
	}
	return f.send(ctx, req, file)
}

// A staticFile is an open regular file.
type staticFile struct {
	*os.File
	info  fs.FileInfo
	name  string // within the root
	index bool   // it answers for its folder
}

// open finds what answers for name. Every error but those that
// staticUnavailable knows means that clients see nothing there.
func (f *staticFiles) open(name string, folder bool) (*staticFile, error) {
	info, err := f.root.Stat(name)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		if folder {
			return nil, fs.ErrNotExist
		}
		return f.openFile(name)
	}
	file, err := f.openFile(path.Join(name, "index.html"))
	if err != nil {
		return nil, err
	}
	file.index = true
	return file, nil
}

// openFile opens a regular file and nothing else: opening a pipe waits for its
// other end, and opening a device may do anything.
func (f *staticFiles) openFile(name string) (*staticFile, error) {
	info, err := f.root.Stat(name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fs.ErrNotExist
	}
	// Should it have become a pipe by now, this does not wait either.
	file, err := f.root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if info, err = file.Stat(); err == nil && !info.Mode().IsRegular() {
		err = fs.ErrNotExist
	}
	if err != nil {
		file.Close()
		return nil, err
	}
	return &staticFile{File: file, info: info, name: name}, nil
}

// staticUnavailable tells whether an error is about the gateway and not about
// the file: then 404 would be a lie that caches keep.
func staticUnavailable(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) || errors.Is(err, fs.ErrClosed)
}

// send fills the response with the file, or with the part or the confirmation
// that the request's conditions ask for (RFC 9110 sections 13 and 14), and takes
// over the file.
func (f *staticFiles) send(ctx *fasthttp.RequestCtx, req *http.Request, file *staticFile) int {
	name, modified := file.name, file.info.ModTime()
	e := f.encode(req, file, time.Now())
	file = e.file
	w := &staticWriter{header: make(http.Header)}
	w.header.Set("Content-Type", staticType(name))
	w.header.Set("X-Content-Type-Options", "nosniff")
	w.header.Set("Etag", e.tag)
	var vary []string
	if name == f.fallback {
		// It stands for paths that another deployment may fill, and names the
		// assets of this one.
		w.header.Set("Cache-Control", "no-cache")
		vary = append(vary, "Accept")
	}
	if compressible(name) {
		vary = append(vary, "Accept-Encoding")
	}
	if len(vary) > 0 {
		w.header.Set("Vary", strings.Join(vary, ", "))
	}
	if e.name != "" {
		w.header.Set("Content-Encoding", e.name)
	}
	http.ServeContent(w, req, name, modified, e.content)
	if e.name != "" && w.status == http.StatusOK {
		w.header.Set("Content-Length", strconv.FormatInt(e.size, 10))
		w.header.Set("Accept-Ranges", "none") // they would be of the file itself
	}
	if w.status == http.StatusRequestedRangeNotSatisfiable {
		if size := w.header.Get("Content-Range"); size != "" {
			ctx.Response.Header.Set(fasthttp.HeaderContentRange, size)
		}
		file.Close()
		return w.status
	}
	w.writeTo(&ctx.Response, file)
	return w.status
}

// A staticWriter is what http.ServeContent answers to. It keeps the body's
// reader instead of copying from it, so that fasthttp can stream the file when
// the handler has returned.
type staticWriter struct {
	header http.Header
	status int
	body   io.Reader
}

func (w *staticWriter) Header() http.Header         { return w.header }
func (w *staticWriter) WriteHeader(status int)      { w.status = status }
func (w *staticWriter) Write(p []byte) (int, error) { return len(p), nil } // the text of an error
func (w *staticWriter) ReadFrom(r io.Reader) (int64, error) {
	w.body = r
	return 0, nil
}

// writeTo makes the response of what was answered, and takes over the file.
func (w *staticWriter) writeTo(resp *fasthttp.Response, file *staticFile) {
	resp.SetStatusCode(w.status)
	length := -1
	for key, values := range w.header {
		switch value := values[0]; key {
		case "Content-Length":
			length, _ = strconv.Atoi(value)
		case "Content-Type":
			resp.Header.SetContentType(value)
		default:
			resp.Header.Set(key, value)
		}
	}
	if w.body != nil {
		resp.SetBodyStream(&staticBody{Reader: w.body, file: file}, length)
		return
	}
	file.Close()
	if length >= 0 { // HEAD
		resp.SkipBody = true
		resp.Header.SetContentLength(length)
	}
}

// staticBody is the body stream of a response; fasthttp closes it, also when the
// client has gone.
type staticBody struct {
	io.Reader
	file *staticFile
}

func (b *staticBody) Close() error { return b.file.Close() }

// WriteTo copies in pieces of 32 KiB, which pass by a smaller write buffer:
// fewer system calls and fuller TLS records.
func (b *staticBody) WriteTo(w io.Writer) (int64, error) {
	return io.Copy(struct{ io.Writer }{w}, b.Reader)
}

// staticName decodes a canonical path, once, into a name within the root, and
// tells whether it must be a folder. It refuses what could mean more than one
// thing, and hidden files: .git, .env, .htpasswd.
func staticName(raw string) (name string, folder, ok bool) {
	raw, ok = strings.CutPrefix(raw, "/")
	if !ok || raw == "" {
		return ".", true, ok
	}
	raw, folder = strings.CutSuffix(raw, "/")
	segments := strings.Split(raw, "/")
	for i, segment := range segments {
		segment, err := url.PathUnescape(segment)
		if err != nil || strings.ContainsAny(segment, `/\`) {
			return "", false, false
		}
		if strings.HasPrefix(segment, ".") && segment != ".well-known" { // RFC 8615
			return "", false, false
		}
		segments[i] = segment
	}
	// What file names here cannot be: empty, with a NUL, other than UTF-8,
	// elsewhere also reserved.
	name, err := filepath.Localize(strings.Join(segments, "/"))
	return filepath.ToSlash(name), folder, err == nil
}

// staticRequest makes the part of the request that net/http looks at. Header
// names come as the client spelt them.
func staticRequest(ctx *fasthttp.RequestCtx) *http.Request {
	req := &http.Request{Method: string(ctx.Method()), Header: make(http.Header)}
	for key, value := range ctx.Request.Header.All() {
		switch name := http.CanonicalHeaderKey(string(key)); name {
		case "Accept", "Accept-Encoding", "If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since", "Range", "If-Range":
			req.Header.Add(name, string(value))
		}
	}
	if !staticOneRange(req) {
		req.Header.Del("Range")
	}
	return req
}

// staticOneRange tells whether a Range counts: it does not with HEAD or in other
// units than bytes (RFC 9110 section 14.2), and several ranges bring the whole
// file.
func staticOneRange(req *http.Request) bool {
	values := req.Header["Range"]
	return req.Method == http.MethodGet && len(values) == 1 &&
		strings.HasPrefix(values[0], "bytes=") && !strings.Contains(values[0], ",")
}

// staticAcceptsHTML tells the loading of a page, by text/html, from that of
// images, scripts and the like, which ask for */*.
func staticAcceptsHTML(header http.Header) bool {
	for _, value := range header["Accept"] {
		for part := range strings.SplitSeq(value, ",") {
			kind, params, err := mime.ParseMediaType(part)
			if err != nil || kind != "text/html" {
				continue
			}
			if q, err := strconv.ParseFloat(params["q"], 64); err != nil || q > 0 {
				return true
			}
		}
	}
	return false
}

// staticSlash tells whether a request target lacks the slash at the end that
// makes relative links work in a folder's page, and gives the target with it.
// That begins with one slash always: two, or one and a backslash, would lead to
// another host.
func staticSlash(target string) (location string, needed bool) {
	raw, query := target, ""
	if i := strings.IndexByte(target, '?'); i >= 0 {
		raw, query = target[:i], target[i:]
	}
	if _, rest, ok := strings.Cut(raw, "://"); ok && !strings.HasPrefix(raw, "/") { // absolute-form
		_, raw, _ = strings.Cut(rest, "/")
		raw = "/" + raw
	}
	if strings.HasSuffix(raw, "/") {
		return "", false
	}
	raw = strings.TrimLeftFunc(raw, func(r rune) bool { return r == '/' || r == '\\' || r <= ' ' })
	if raw == "" {
		return "/" + query, true
	}
	return "/" + raw + "/" + query, true
}

// staticTag is the entity tag of a file: strong, so that it serves If-Range,
// once the file is old enough that a further change would change its time too.
func staticTag(info fs.FileInfo, now time.Time) string {
	tag := fmt.Sprintf(`"%x-%x"`, info.ModTime().UnixNano(), info.Size())
	if now.Sub(info.ModTime()) < 2*time.Second {
		return "W/" + tag
	}
	return tag
}

// staticType is the content type by the name's extension. It does not ask the
// system, whose tables differ. Text is UTF-8.
func staticType(name string) string {
	switch strings.ToLower(path.Ext(name)) {
	case ".html", ".htm":
		return "text/html; charset=utf-8"
	case ".js", ".mjs":
		return "text/javascript; charset=utf-8" // RFC 9239
	case ".css":
		return "text/css; charset=utf-8"
	case ".txt":
		return "text/plain; charset=utf-8"
	case ".xml":
		return "text/xml; charset=utf-8"
	case ".json", ".map":
		return "application/json"
	case ".webmanifest":
		return "application/manifest+json"
	case ".svg":
		return "image/svg+xml"
	case ".png":
		return "image/png"
	case ".jpg", ".jpeg":
		return "image/jpeg"
	case ".gif":
		return "image/gif"
	case ".webp":
		return "image/webp"
	case ".ico":
		return "image/x-icon"
	case ".woff":
		return "font/woff"
	case ".woff2":
		return "font/woff2"
	case ".wasm":
		return "application/wasm"
	case ".pdf":
		return "application/pdf"
	case ".mp3":
		return "audio/mpeg"
	case ".mp4":
		return "video/mp4"
	case ".apk":
		return "application/vnd.android.package-archive"
	}
	return "application/octet-stream"
}
