package audit

import (
	"bytes"
	"sync"
	"sync/atomic"
	"time"
)

// A queue holds lines until their owner takes them, in one buffer: adding one
// costs a copy, and nothing is allocated while the buffer is large enough. What
// has no room is counted; once that was so everything is, until the owner comes,
// so that the loss has its place between the lines.
type queue struct {
	limit int
	more  chan struct{} // there is something
	much  chan struct{} // enough for a write

	length atomic.Int64 // of buf

	mu   sync.Mutex
	buf  []byte // each line behind a sign and before a line break
	lost loss
}

// A loss is how many lines had no room, and when.
type loss struct {
	lines       int64
	first, last time.Time
}

// The signs before lines in a queue.
const (
	signSuccess = '+'
	signFailure = '-'
)

func newQueue(limit int) *queue {
	return &queue{limit: limit, more: make(chan struct{}, 1), much: make(chan struct{}, 1)}
}

// add copies a line, if there is room for it.
func (q *queue) add(line []byte, failure bool) bool {
	sign := byte(signSuccess)
	if failure {
		sign = signFailure
	}
	q.mu.Lock()
	if q.lost.lines > 0 || len(q.buf)+len(line)+2 > q.limit {
		q.lost.last = time.Now()
		if q.lost.lines == 0 {
			q.lost.first = q.lost.last
		}
		q.lost.lines++
		q.mu.Unlock()
		return false
	}
	before := len(q.buf)
	q.buf = append(q.buf, sign)
	q.buf = append(q.buf, line...)
	q.buf = append(q.buf, '\n')
	after := len(q.buf)
	q.mu.Unlock()
	q.length.Store(int64(after))
	if before == 0 {
		poke(q.more)
	}
	if before < chunk/4 && after >= chunk/4 {
		poke(q.much)
	}
	return true
}

// take gives what there is, and what was lost behind it. spare becomes the buffer.
func (q *queue) take(spare []byte) ([]byte, loss) {
	q.mu.Lock()
	defer q.mu.Unlock()
	batch, lost := q.buf, q.lost
	q.buf, q.lost = spare[:0], loss{}
	q.length.Store(0)
	return batch, lost
}

// crowded tells whether there is room only for what ends by and by.
func (q *queue) crowded() bool { return q.length.Load() > int64(q.limit/2) }

// next takes the first line of a batch off it.
func next(batch []byte) (line []byte, failure bool, rest []byte) {
	end := bytes.IndexByte(batch, '\n')
	return batch[1:end], batch[0] == signFailure, batch[end+1:]
}

// reusable is a buffer that may be used again, unless a burst has made it large.
func reusable(b []byte) []byte {
	if cap(b) > 4*chunk {
		return nil
	}
	return b[:0]
}
