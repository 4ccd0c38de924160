package gateway

import (
	"bytes"
	"compress/gzip"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Files of a static route go out compressed to clients that take it: as the .br
// or .gz file beside them, or else compressed here, which is done once and kept.
const (
	zipLeast = 1 << 10  // smaller files are not worth it
	zipMost  = 4 << 20  // larger ones are for whoever deploys them to compress
	zipKept  = 16 << 20 // bytes of compressed files that a folder keeps in memory
	zipIdle  = 10 * time.Minute
)

// An encoded is what a file is sent as. Its tag differs from that of the file.
type encoded struct {
	name    string // of the Content-Encoding; "": the file as it is
	tag     string
	content io.ReadSeeker
	size    int64
	file    *staticFile // the open one
}

// encode chooses what to send for a file: what the client likes best of what
// there is. It takes over the file. A part of a file is a part of the file itself.
func (f *staticFiles) encode(req *http.Request, file *staticFile, now time.Time) encoded {
	plain := encoded{tag: staticTag(file.info, now), content: file, size: file.info.Size(), file: file}
	accepted := acceptedEncodings(req.Header["Accept-Encoding"])
	if req.Header.Get("Range") != "" || len(accepted) == 0 || !compressible(file.name) {
		return plain
	}
	for _, name := range accepted {
		if e, ok := f.beside(file, name, now); ok {
			file.Close()
			return e
		}
	}
	if slices.Contains(accepted, "gzip") && !strings.HasPrefix(plain.tag, "W/") { // else it may change unseen
		if zipped := f.zips.of(file, plain.tag, now); zipped != nil {
			return encoded{"gzip", "W/" + suffixed(plain.tag, "gzip"), bytes.NewReader(zipped), int64(len(zipped)), file}
		}
	}
	return plain
}

// beside is the compressed file next to a file, unless it is older: then it is
// that of another version.
func (f *staticFiles) beside(file *staticFile, encoding string, now time.Time) (encoded, bool) {
	extension := map[string]string{"br": ".br", "gzip": ".gz"}[encoding]
	other, err := f.openFile(file.name + extension)
	if err != nil {
		return encoded{}, false
	}
	if other.info.ModTime().Before(file.info.ModTime()) {
		other.Close()
		return encoded{}, false
	}
	return encoded{encoding, suffixed(staticTag(other.info, now), encoding), other, other.info.Size(), other}, true
}

// suffixed is an entity tag with a word at its end.
func suffixed(tag, word string) string { return strings.TrimSuffix(tag, `"`) + "-" + word + `"` }

// acceptedEncodings are br and gzip in the order in which the client wants them
// (RFC 9110 section 12.5.3), br first of equals.
func acceptedEncodings(values []string) []string {
	weights := map[string]float64{}
	for _, value := range values {
		for part := range strings.SplitSeq(value, ",") {
			name, params, _ := strings.Cut(part, ";")
			weights[strings.ToLower(strings.TrimSpace(name))] = weightOf(params)
		}
	}
	var accepted []string
	for _, name := range []string{"br", "gzip"} {
		weight, named := weights[name]
		if !named {
			weight = weights["*"]
			weights[name] = weight
		}
		if weight > 0 && weight >= weights["identity"] {
			accepted = append(accepted, name)
		}
	}
	slices.SortStableFunc(accepted, func(a, b string) int {
		switch {
		case weights[a] > weights[b]:
			return -1
		case weights[a] < weights[b]:
			return 1
		}
		return 0
	})
	return accepted
}

// weightOf reads "q=0.5"; without one it is 1, and 0 when it is no weight.
func weightOf(params string) float64 {
	key, value, ok := strings.Cut(params, "=")
	if !ok {
		return 1
	}
	q, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
	if !strings.EqualFold(strings.TrimSpace(key), "q") || err != nil || !(q >= 0 && q <= 1) {
		return 0
	}
	return q
}

// compressible tells by its name whether a file gets smaller.
func compressible(name string) bool {
	kind := staticType(name)
	switch kind {
	case "application/json", "application/manifest+json", "image/svg+xml", "application/wasm":
		return true
	}
	return strings.HasPrefix(kind, "text/")
}

// zips keeps what was compressed of a folder's files. One file is compressed at a
// time; while memory is full of files that are in use, others go out as they are.
// Its methods may be called concurrently.
type zips struct {
	most int64      // bytes that may be kept
	work sync.Mutex // held while a file is compressed

	mu    sync.Mutex
	files map[string]*zip
	size  int64
}

type zip struct {
	tag  string // of the file that it was made of
	data []byte // nil: it does not get smaller
	used time.Time
}

// of is the file, compressed; nil when it is to go out as it is.
func (z *zips) of(file *staticFile, tag string, now time.Time) []byte {
	size := file.info.Size()
	if size < zipLeast || size > zipMost {
		return nil
	}
	if data, known := z.known(file.name, tag, now); known {
		return data
	}
	if !z.work.TryLock() {
		return nil
	}
	defer z.work.Unlock()
	if data, known := z.known(file.name, tag, now); known || !z.room(file.name, size, now) {
		return data
	}
	data, err := zipped(file, size)
	if _, back := file.Seek(0, io.SeekStart); err != nil || back != nil {
		return nil
	}
	z.keep(file.name, &zip{tag, data, now})
	return data
}

func (z *zips) known(name, tag string, now time.Time) ([]byte, bool) {
	z.mu.Lock()
	defer z.mu.Unlock()
	known := z.files[name]
	if known == nil || known.tag != tag {
		return nil, false
	}
	known.used = now
	return known.data, true
}

// room forgets files that nobody has asked for in a while until there is room for
// one of that size, if that is enough.
func (z *zips) room(name string, size int64, now time.Time) bool {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.forget(name) // another version
	for other, kept := range z.files {
		if z.fits(size) {
			return true
		}
		if now.Sub(kept.used) >= zipIdle {
			z.forget(other)
		}
	}
	return z.fits(size)
}

// zipNote is what the note of a file costs that does not get smaller, roughly.
const zipNote = 256

func (z *zips) fits(size int64) bool { return z.size+size+zipNote <= z.most }

func (z *zips) forget(name string) {
	if old := z.files[name]; old != nil {
		z.size -= int64(len(old.data)) + zipNote
		delete(z.files, name)
	}
}

func (z *zips) keep(name string, made *zip) {
	z.mu.Lock()
	defer z.mu.Unlock()
	if z.files == nil {
		z.files = map[string]*zip{}
	}
	z.files[name] = made
	z.size += int64(len(made.data)) + zipNote
}

// zipped compresses a file of that size; nil when that gains nothing.
func zipped(file io.Reader, size int64) ([]byte, error) {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if n, err := io.Copy(w, io.LimitReader(file, size)); err != nil || n != size {
		return nil, io.ErrUnexpectedEOF
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	if int64(b.Len()) >= size {
		return nil, nil
	}
	return bytes.Clone(b.Bytes()), nil
}
