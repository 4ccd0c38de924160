package audit

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"io"
	"os"
)

// OpenFile opens a file of the audit log to be read, whether it is compressed or
// not: its content tells.
func OpenFile(name string) (io.ReadCloser, error) {
	r, _, err := openCounting(name)
	return r, err
}

// openCounting is OpenFile, and tells how far in the file the reading is.
func openCounting(name string) (io.ReadCloser, *counter, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, nil, err
	}
	c := &counter{r: f}
	r := bufio.NewReaderSize(c, maxLine)
	if head, err := r.Peek(2); err != nil || !bytes.Equal(head, []byte{0x1f, 0x8b}) {
		return readCloser{r, f}, c, nil
	}
	z, err := gzip.NewReader(r)
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return readCloser{z, f}, c, nil
}

type readCloser struct {
	io.Reader
	io.Closer
}

// A counter counts what was read.
type counter struct {
	r io.Reader
	n int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

// A lineReader reads lines with their line breaks. One that is longer than any of
// ours can be comes in pieces.
type lineReader struct {
	r   *bufio.Reader
	buf []byte
}

func newLineReader(r io.Reader) *lineReader {
	return &lineReader{r: bufio.NewReaderSize(r, maxLine)}
}

// next gives the next line, until the one after it is asked for. At the end, the
// rest without a line break comes with io.EOF.
func (l *lineReader) next() ([]byte, error) {
	l.buf = l.buf[:0]
	for {
		part, err := l.r.ReadSlice('\n')
		if err == nil && len(l.buf) == 0 {
			return part, nil
		}
		l.buf = append(l.buf, part...)
		if err != bufio.ErrBufferFull || len(l.buf) > 4*maxLine {
			if err == bufio.ErrBufferFull {
				err = nil
			}
			return l.buf, err
		}
	}
}
