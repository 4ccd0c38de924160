package e2e

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// bigBody is the size of a large file, more than 31 bits count. With the race
// detector the same takes minutes, and memory says nothing of the gateway: a
// smaller one passes there.
const (
	bigBody     = 2<<30 + 12345
	bigBodyRace = 512<<20 + 12345

	// bigBodyMemory bounds what the gateway may have needed at most. Bodies that
	// were held, even in part, would pass it at once.
	bigBodyMemory = 100 << 20
)

const bigBodySite = `
listeners:
  - {name: plain, address: "127.0.0.1:0"}
  - {name: tls, address: "localhost:0", tls: true}
tls: {certificates: [{cert: cert.pem, key: key.pem}]}
services: {im: {nodes: {im1: %q}}}
routes:
  - {path: /fs, service: im}
`

// Files of 2 GB pass both ways, whole, and leave no trace in the gateway's memory.
func TestBigBodies(t *testing.T) {
	size := int64(bigBody)
	if raceDetector {
		size = bigBodyRace
	}
	dir := t.TempDir()
	node := startFileNode(t)
	writeFile(t, dir, "gateway.yaml", fmt.Sprintf(bigBodySite, node))
	writeCertificate(t, dir)
	s := startSite(t, dir)
	doors := map[string]door{
		"plain": {address: s.listeners["plain"], host: "files.example.gov:8080"},
		"tls":   {address: s.listeners["tls"], host: "files.example.gov", name: "localhost", roots: rootsOf(t, filepath.Join(dir, "cert.pem"))},
	}
	want := digestOf(newPattern(size))
	for name, d := range doors {
		t.Run(name, func(t *testing.T) {
			for _, framing := range []string{"Content-Length: " + strconv.FormatInt(size, 10), "Transfer-Encoding: chunked"} {
				start := time.Now()
				answer, err := upload(d, framing, size)
				if err != nil {
					t.Fatalf("%s: %v", framing, err)
				}
				if answer != d.host+" "+want {
					t.Errorf("%s: the node got %s, want %s of %s", framing, answer, want, d.host)
				}
				t.Logf("up, %s: %.1f s", framing, time.Since(start).Seconds())
			}
			for _, target := range []string{"/fs/length/", "/fs/chunked/"} {
				start := time.Now()
				got, err := download(d, target+strconv.FormatInt(size, 10))
				if err != nil || got != want {
					t.Fatalf("%s: got %s, %v, want %s", target, got, err, want)
				}
				t.Logf("down, %s: %.1f s", target, time.Since(start).Seconds())
			}
		})
	}
	peak := peakMemory(t, s.cmd.Process.Pid)
	t.Logf("the gateway needed at most %d MiB", peak>>20)
	if peak > bigBodyMemory && !raceDetector {
		t.Errorf("the gateway needed %d MiB, more than %d", peak>>20, bigBodyMemory>>20)
	}
}

// upload sends a body and returns the answer to it.
func upload(d door, framing string, size int64) (string, error) {
	conn, err := d.dial()
	if err != nil {
		return "", err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(5 * time.Minute))
	w := bufio.NewWriterSize(conn, 256<<10)
	fmt.Fprintf(w, "PUT /fs/file HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n%s\r\n\r\n", d.host, framing)
	if err := sendBody(w, newPattern(size), strings.Contains(framing, "chunked")); err != nil {
		return "", err
	}
	return answerOn(conn)
}

// sendBody writes a body, in chunks of 64 KiB if it has no length.
func sendBody(w *bufio.Writer, body io.Reader, chunked bool) error {
	buf := make([]byte, 64<<10)
	for {
		n, err := io.ReadFull(body, buf)
		if chunked && n > 0 {
			fmt.Fprintf(w, "%x\r\n", n)
		}
		w.Write(buf[:n])
		if chunked && n > 0 {
			w.WriteString("\r\n")
		}
		if err != nil {
			if chunked {
				w.WriteString("0\r\n\r\n")
			}
			return w.Flush()
		}
	}
}

func answerOn(conn net.Conn) (string, error) {
	answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return "", err
	}
	text, err := io.ReadAll(answer.Body)
	return string(text), err
}

// download gets a body and returns its digest.
func download(d door, target string) (string, error) {
	conn, err := d.dial()
	if err != nil {
		return "", err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(5 * time.Minute))
	fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", target, d.host)
	answer, err := http.ReadResponse(bufio.NewReaderSize(conn, 256<<10), nil)
	if err != nil {
		return "", err
	}
	return digestOf(answer.Body), nil
}

// startFileNode runs a node that takes files, and gives them at /fs/length/SIZE
// and /fs/chunked/SIZE; it answers an upload with its Host and digest.
func startFileNode(t *testing.T) (address string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPut {
			io.WriteString(w, r.Host+" "+digestOf(r.Body))
			return
		}
		kind, number, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/fs/"), "/")
		size, _ := strconv.ParseInt(number, 10, 64)
		if kind == "length" {
			w.Header().Set("Content-Length", number)
		}
		io.CopyBuffer(struct{ io.Writer }{w}, newPattern(size), make([]byte, 256<<10))
	})}
	go server.Serve(l)
	t.Cleanup(func() { server.Close() })
	return l.Addr().String()
}

// A pattern is a body in which every 4 KiB say where they are.
type pattern struct {
	at, size int64
	block    []byte
}

func newPattern(size int64) *pattern { return &pattern{size: size} }

// Read implements io.Reader.
func (p *pattern) Read(b []byte) (int, error) {
	if p.at == p.size {
		return 0, io.EOF
	}
	const step = 64 << 10
	if p.block == nil {
		p.block = make([]byte, step)
	}
	offset := p.at % step
	if offset == 0 {
		for i := int64(0); i < step; i += 4096 {
			binary.LittleEndian.PutUint64(p.block[i:], uint64(p.at+i))
		}
	}
	n := copy(b[:min(int64(len(b)), p.size-p.at)], p.block[offset:])
	p.at += int64(n)
	return n, nil
}

// digestOf is the length of a body and what it holds.
func digestOf(body io.Reader) string {
	sum := sha256.New()
	n, err := io.CopyBuffer(struct{ hash.Hash }{sum}, body, make([]byte, 256<<10))
	text := fmt.Sprintf("%d bytes %s", n, hex.EncodeToString(sum.Sum(nil)[:8]))
	if err != nil {
		text += " " + err.Error()
	}
	return text
}

var peakLine = regexp.MustCompile(`(?m)^VmHWM:\s+(\d+) kB$`)

// peakMemory is the most memory that a process has had, in bytes.
func peakMemory(t *testing.T, pid int) int {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Skipf("no peak of the memory to be had: %v", err)
	}
	m := peakLine.FindSubmatch(status)
	if m == nil {
		t.Fatalf("no VmHWM in %s", status)
	}
	kb, _ := strconv.Atoi(string(m[1]))
	return kb << 10
}
