package gateway

import (
	"errors"
	"net"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// A watcher tells when clients that wait for an answer leave. Reading would
// show that too, but would take bytes that belong to the next request, and with
// TLS an end behind a goodbye cannot be peeked at; so the sockets are put into
// an epoll set of their own that reports only the end.
type watcher struct {
	file *os.File // the epoll set, itself waited for by the Go runtime
	fd   int
	done chan struct{}

	mu      sync.Mutex
	next    int32
	watched map[int32]watchedSocket // by descriptor
}

type watchedSocket struct {
	generation int32
	left       func()
}

func newWatcher() (*watcher, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("fcntl", err)
	}
	w := &watcher{file: os.NewFile(uintptr(fd), "epoll"), fd: fd, done: make(chan struct{}), watched: map[int32]watchedSocket{}}
	go w.run()
	return w, nil
}

// watch calls left, once, in the watcher's goroutine, when the peer has ended
// its sending or the connection is broken. stop must be called while the
// connection is still open; left may be running when it returns.
func (w *watcher) watch(conn net.Conn, left func()) (stop func()) {
	sc, ok := conn.(syscall.Conn)
	if !ok {
		return func() {}
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return func() {}
	}
	var key, generation int32
	raw.Control(func(fd uintptr) {
		key = int32(fd)
		generation = w.add(key, left)
	})
	return func() {
		raw.Control(func(uintptr) { w.remove(key, generation) })
	}
}

func (w *watcher) add(fd int32, left func()) int32 {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.next++
	w.watched[fd] = watchedSocket{w.next, left}
	event := unix.EpollEvent{Events: unix.EPOLLRDHUP | unix.EPOLLONESHOT, Fd: fd, Pad: w.next}
	err := unix.EpollCtl(w.fd, unix.EPOLL_CTL_ADD, int(fd), &event)
	if errors.Is(err, unix.EEXIST) {
		unix.EpollCtl(w.fd, unix.EPOLL_CTL_MOD, int(fd), &event)
	}
	return w.next
}

func (w *watcher) remove(fd, generation int32) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.watched[fd].generation == generation {
		delete(w.watched, fd)
		unix.EpollCtl(w.fd, unix.EPOLL_CTL_DEL, int(fd), nil)
	}
}

// run reports ends until the set is closed.
func (w *watcher) run() {
	defer close(w.done)
	raw, err := w.file.SyscallConn()
	if err != nil {
		return
	}
	var events [64]unix.EpollEvent
	for {
		n := 0
		err := raw.Read(func(fd uintptr) bool {
			n, _ = unix.EpollWait(int(fd), events[:], 0)
			return n > 0
		})
		if err != nil {
			return
		}
		for _, e := range events[:n] {
			if left := w.take(e.Fd, e.Pad); left != nil {
				left()
			}
		}
	}
}

func (w *watcher) take(fd, generation int32) func() {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.watched[fd]
	if s.generation != generation {
		return nil
	}
	return s.left
}

func (w *watcher) close() {
	w.file.Close()
	<-w.done
}
