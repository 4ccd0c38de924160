package relay

import "sync"

// A direction waits with a small buffer, which holds any chat message, and
// moves to a large one while reads fill it: an idle tunnel then holds 8 KiB of
// buffers, and a transfer still moves 32 KiB (two TLS records) per system call.
const (
	smallBuffer = 4 << 10
	largeBuffer = 32 << 10
)

// buffers recycles them; the zero value is ready.
type buffers struct{ small, large sync.Pool }

// get returns a buffer of one of the two sizes, with arbitrary content.
func (b *buffers) get(size int) []byte {
	if size == smallBuffer {
		if a, ok := b.small.Get().(*[smallBuffer]byte); ok {
			return a[:]
		}
		return make([]byte, smallBuffer)
	}
	if a, ok := b.large.Get().(*[largeBuffer]byte); ok {
		return a[:]
	}
	return make([]byte, largeBuffer)
}

// put takes a buffer of get back; nil is fine.
func (b *buffers) put(buf []byte) {
	switch len(buf) {
	case smallBuffer:
		b.small.Put((*[smallBuffer]byte)(buf))
	case largeBuffer:
		b.large.Put((*[largeBuffer]byte)(buf))
	}
}
