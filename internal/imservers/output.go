package imservers

import "sync"

// An output is what a server writes, while it writes.
type output struct {
	mu      sync.Mutex
	text    []byte
	changed chan struct{} // closed, and made anew, when there is more
}

func newOutput() *output { return &output{changed: make(chan struct{})} }

// Write implements io.Writer.
func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.text = append(o.text, p...)
	close(o.changed)
	o.changed = make(chan struct{})
	return len(p), nil
}

func (o *output) length() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.text)
}

// after is what was written after an offset, and a channel that is closed when
// there is more.
func (o *output) after(from int) (text string, changed <-chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return string(o.text[from:]), o.changed
}
