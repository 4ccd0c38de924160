package relay

import (
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	batch     = 256          // events taken from the system at a time
	turnBytes = 64<<10 - 512 // what one direction of a tunnel may move before it is another's turn
	turnReads = 256          // and in how many reads: a TLS record may hold one byte

	// crowdedPause is how long a loop does nothing while the processors are wanted
	// for other things. It is a timer that wakes it then: while anything can run,
	// the scheduler looks at its timers, but at the network only every 10 ms.
	crowdedPause = time.Millisecond
)

// loops are those of an Engine: as many as Go uses processors, from the first
// tunnel on.
type loops struct {
	mu    sync.Mutex
	list  []*loop
	next  int
	using system
	ended chan struct{} // ends the ticking
	done  sync.WaitGroup
}

// pick returns a loop for a tunnel; nil when the system has none to give.
func (l *loops) pick(e *Engine) *loop {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.list == nil && l.start(e) != nil {
		return nil
	}
	l.next++
	return l.list[l.next%len(l.list)]
}

func (l *loops) start(e *Engine) error {
	list := make([]*loop, runtime.GOMAXPROCS(0))
	for i := range list {
		one, err := newLoop(l.using, e.Crowded)
		if err != nil {
			for _, made := range list[:i] {
				made.release()
			}
			return err
		}
		list[i] = one
	}
	l.list, l.ended = list, make(chan struct{})
	for _, one := range list {
		l.done.Go(one.run)
	}
	l.done.Go(func() { l.tick(e.waits.tick) })
	return nil
}

// tick has every loop look what is due.
func (l *loops) tick(every time.Duration) {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			for _, one := range l.list {
				if one.tunnels.Load() > 0 {
					one.post(one.tick)
				}
			}
		case <-l.ended:
			return
		}
	}
}

func (l *loops) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.list == nil {
		return
	}
	close(l.ended)
	for _, one := range l.list {
		one.post(func() { one.stop = true })
	}
	l.done.Wait()
	l.list = nil
}

// A loop moves the bytes of its tunnels, one tunnel at a time, in one goroutine.
// It has an epoll set of its own, in which every socket is registered once, for
// edges: after an event a socket is read until it has no more, or its tunnel is
// put on the list of those that go on when the others have had their turn. Others
// reach a loop by its mailbox only.
//
// The goroutine waits for the set in the Go runtime's poller: one that blocked
// in epoll_wait would keep its processor until the scheduler takes that back.
type loop struct {
	file   *os.File // the epoll set
	raw    syscall.RawConn
	epoll  int
	bell   int // an eventfd in the set: there is mail
	system system

	crowded func() bool // see Engine.Crowded

	events  [batch]unix.EpollEvent
	slots   []slot
	free    []int32
	live    []*loopTunnel
	tunnels atomic.Int64 // len(live)
	ready   []*loopTunnel
	spare   []*loopTunnel // ready, of the turn before
	in, out []byte
	began   time.Time
	now     time.Duration // since began, as of the last wake-up
	stop    bool

	mu       sync.Mutex
	mail     []func()
	released bool
	waiting  atomic.Bool // the bell has to be rung
}

// A slot is an entry of the table that epoll's data points into. Its generation
// tells the events of a socket from those of one that had the slot before.
type slot struct {
	socket     *socket
	generation int32
}

const bellSlot = -1

func newLoop(using system, crowded func() bool) (*loop, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	l := &loop{epoll: epoll, system: using, crowded: crowded, began: time.Now(), in: make([]byte, maxHeader+turnBytes)}
	if l.system.read == nil {
		l.system = system{readNow, writeNow}
	}
	if crowded == nil {
		l.crowded = func() bool { return false }
	}
	if l.bell, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		unix.Close(epoll)
		return nil, os.NewSyscallError("eventfd", err)
	}
	unix.SetNonblock(epoll, true) // for NewFile, which then has the runtime wait for it
	l.file = os.NewFile(uintptr(epoll), "epoll")
	ring := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET, Fd: bellSlot}
	if err := unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, l.bell, &ring); err != nil {
		l.release()
		return nil, os.NewSyscallError("epoll_ctl", err)
	}
	if l.raw, err = l.file.SyscallConn(); err != nil {
		l.release()
		return nil, err
	}
	return l, nil
}

func (l *loop) release() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.released = true
	l.file.Close()
	unix.Close(l.bell)
}

// run is the loop's goroutine.
func (l *loop) run() {
	defer l.release()
	for !l.stop {
		l.raw.Read(func(uintptr) bool {
			for l.turn() {
				runtime.Gosched()
			}
			return l.stop || l.crowded()
		})
		if !l.stop {
			time.Sleep(crowdedPause)
		}
	}
}

// turn takes what events and mail there are, and gives every tunnel that is ready
// its turn. It reports whether there is more to do at once.
func (l *loop) turn() (more bool) {
	n := epollNow(l.epoll, l.events[:])
	l.waiting.Store(true) // not before: a ring that the set has given away wakes nobody, and would be the last one
	l.now = time.Since(l.began)
	for i := range n {
		l.dispatch(&l.events[i])
	}
	l.openMail()
	list := l.ready
	l.ready = l.spare[:0]
	for i, t := range list {
		list[i] = nil
		t.queued = false
		t.turn()
	}
	l.spare = list
	if n == batch || len(l.ready) > 0 {
		return !l.stop
	}
	return false
}

func (l *loop) dispatch(e *unix.EpollEvent) {
	if e.Fd == bellSlot {
		return
	}
	if s := &l.slots[e.Fd]; s.socket != nil && s.generation == e.Pad {
		s.socket.tunnel.event(s.socket, e.Events)
	}
}

// openMail does what others have asked for.
func (l *loop) openMail() {
	l.mu.Lock()
	mail := l.mail
	l.mail = nil
	l.mu.Unlock()
	for _, do := range mail {
		do()
	}
}

// post has the loop do something, soon, in its goroutine.
func (l *loop) post(do func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.released { // the bell's descriptor may be another's by now
		return
	}
	l.mail = append(l.mail, do)
	if l.waiting.CompareAndSwap(true, false) {
		unix.Write(l.bell, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	}
}

// add registers a socket.
func (l *loop) add(s *socket) error {
	if len(l.free) == 0 {
		l.slots = append(l.slots, slot{})
		l.free = append(l.free, int32(len(l.slots)-1))
	}
	free := l.free[len(l.free)-1]
	at := &l.slots[free]
	e := unix.EpollEvent{
		Events: unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLET,
		Fd:     free, Pad: at.generation,
	}
	if err := unix.EpollCtl(l.epoll, unix.EPOLL_CTL_ADD, int(s.fd), &e); err != nil {
		return os.NewSyscallError("epoll_ctl", err)
	}
	l.free = l.free[:len(l.free)-1]
	at.socket, s.slot = s, free
	return nil
}

// remove closes a socket. Events of it that are already here, or come for a
// slot's next socket, cannot be confused: the generation tells.
func (l *loop) remove(s *socket) {
	if s.slot >= 0 {
		l.slots[s.slot].socket = nil
		l.slots[s.slot].generation++
		l.free = append(l.free, s.slot)
	}
	unix.Close(int(s.fd)) // the only descriptor: it leaves the epoll set by that
}

// enlist makes a tunnel the loop's, and delist ends that.
func (l *loop) enlist(t *loopTunnel) {
	t.index = len(l.live)
	l.live = append(l.live, t)
	l.tunnels.Store(int64(len(l.live)))
}

func (l *loop) delist(t *loopTunnel) {
	last := len(l.live) - 1
	l.live[t.index] = l.live[last]
	l.live[t.index].index = t.index
	l.live[last] = nil
	l.live = l.live[:last]
	l.tunnels.Store(int64(last))
}

// goOn puts a tunnel on the list of those that are not through.
func (l *loop) goOn(t *loopTunnel) {
	if !t.queued {
		t.queued = true
		l.ready = append(l.ready, t)
	}
}

// tick looks at every tunnel for which something may be due. From the end,
// because tunnels that end leave the list.
func (l *loop) tick() {
	for i := len(l.live) - 1; i >= 0; i-- {
		if t := l.live[i]; t.dueAt <= l.now {
			t.check()
		}
	}
}
