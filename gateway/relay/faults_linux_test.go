package relay

import (
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// useFaults has an engine's loops see faults. A loop counts on news from the
// system after a call that found nothing, or less than was asked for; where a
// fault makes that up, useFaults makes up the news as well.
func useFaults(e *Engine, f fault) {
	var all, reads, writes atomic.Int64
	fails := func(count *atomic.Int64, how func(int64) error) error {
		i := all.Add(1)
		switch {
		case f.signal && i%2 == 0:
			return unix.EINTR
		case how != nil:
			return how(count.Add(1))
		}
		return nil
	}
	// Every second call of its kind that is not disturbed otherwise.
	var turns [2]atomic.Int64
	notNow := func(kind int) bool { return f.again && turns[kind].Add(1)%2 == 0 }
	useSystem(e, calls{
		read: func(fd int, p []byte) (int, error) {
			if err := fails(&reads, f.read); err != nil {
				return -1, err
			}
			if notNow(0) {
				e.news(fd)
				return -1, unix.EAGAIN
			}
			if f.short != nil {
				if n := f.short(len(p)); n < len(p) {
					p = p[:n]
					e.news(fd)
				}
			}
			return readNow(fd, p)
		},
		write: func(fd int, p []byte) (int, error) {
			if err := fails(&writes, f.write); err != nil {
				return -1, err
			}
			if notNow(1) {
				e.news(fd)
				return -1, unix.EAGAIN
			}
			if f.short != nil {
				p = p[:f.short(len(p))]
			}
			return writeNow(fd, p)
		},
	})
}

// news has the system tell again what there is to do for a descriptor.
func (e *Engine) news(fd int) {
	go func() {
		e.loops.mu.Lock()
		defer e.loops.mu.Unlock()
		for _, l := range e.loops.list { // whose it is only they know
			l.post(func() { l.tellAgain(fd) })
		}
	}()
}

func (l *loop) tellAgain(fd int) {
	for i, s := range l.slots {
		if s.socket != nil && int(s.socket.fd) == fd {
			unix.EpollCtl(l.epoll, unix.EPOLL_CTL_MOD, fd, &unix.EpollEvent{
				Events: unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLET,
				Fd:     int32(i), Pad: s.generation,
			})
		}
	}
}
