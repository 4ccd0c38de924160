package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// The load generator is a process of its own per gateway. It takes orders as
// lines of JSON and answers each with one.

// An Order tells the load generator what to do. Just the fields that the
// operation names are looked at.
type Order struct {
	ID       int
	Op       string        // open, each, closed, paced, connects, flood, close, stop; sessions, hold, polls, polled, drop
	Pool     string        // a name for tunnels that stay open
	Target   Target        // open, connects
	N        int           // open, sessions: how many
	Parallel int           // open, connects, each: at a time
	Size     int           // bytes of a message
	Hold     time.Duration // hold, polls: how long the node holds a poll
	Rate     int           // paced: messages a second, over the whole pool
	For      time.Duration
}

// An Answer tells what an order has come to.
type Answer struct {
	ID      int
	Error   string // the first one
	Errors  int    // how many
	Count   int    // messages echoed, or tunnels opened
	Took    time.Duration
	Latency Buckets // paced: from the moment a message was due to its echo; open: a connect
	Late    Buckets // paced: from the moment a message was due until it was sent
	Curve   uint32
	Cipher  uint32
}

// A loader is the load generator's state.
type loader struct {
	mu       sync.Mutex
	pools    map[string][]*client
	sessions map[string][]*session    // by pool
	stops    map[string]chan struct{} // by pool, of a paced order that runs
	polled   atomic.Int64             // answers to polls of orders "polls"
	next     atomic.Uint64
	spare    map[shape][]*message // that no order uses
}

// A shape is what tells messages apart.
type shape struct {
	size  int
	frame bool
}

// message gives a message to a goroutine until it hands it to keep: fresh
// memory costs more than what is measured.
func (l *loader) message(size int, kind string) *message {
	l.mu.Lock()
	defer l.mu.Unlock()
	k := shape{size, kind != tcp}
	if free := l.spare[k]; len(free) > 0 {
		l.spare[k] = free[:len(free)-1]
		return free[len(free)-1]
	}
	return newMessage(size, k.frame)
}

func (l *loader) keep(m *message, kind string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	k := shape{len(m.outID), kind != tcp}
	l.spare[k] = append(l.spare[k], m)
}

// runLoad serves orders until standard input ends. Orders run at the same time;
// those for one pool must not.
func runLoad(stdin io.Reader, stdout io.Writer) error {
	// Four processors, so that the pacer's thread holds up nobody.
	runtime.GOMAXPROCS(4)
	l := &loader{pools: make(map[string][]*client), sessions: make(map[string][]*session), stops: make(map[string]chan struct{}), spare: make(map[shape][]*message)}
	l.next.Store(uint64(os.Getpid()) << 32) // no two processes number a tunnel alike
	orders := json.NewDecoder(stdin)
	var out sync.Mutex
	answers := json.NewEncoder(stdout)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	for {
		var o Order
		if err := orders.Decode(&o); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		running.Go(func() {
			a := l.do(ctx, o)
			a.ID = o.ID
			out.Lock()
			defer out.Unlock()
			answers.Encode(a)
		})
	}
}

func (l *loader) do(ctx context.Context, o Order) Answer {
	start := time.Now()
	var a Answer
	switch o.Op {
	case "open":
		a = l.open(ctx, o)
	case "each":
		a = l.each(o)
	case "closed":
		a = l.closed(o)
	case "paced":
		a = l.paced(o)
	case "connects":
		a = l.connects(ctx, o)
	case "flood":
		a = l.flood(ctx, o)
	case "close":
		a = l.close(o)
	case "sessions":
		a = l.openSessions(ctx, o)
	case "hold":
		a = l.hold(o)
	case "polls":
		a = l.polls(o)
	case "polled":
		a.Count = int(l.polled.Load())
	case "drop":
		a = l.drop(o)
	case "stop":
		l.mu.Lock()
		if c := l.stops[o.Pool]; c != nil {
			close(c)
			delete(l.stops, o.Pool)
		}
		l.mu.Unlock()
	default:
		a.Error, a.Errors = "there is no operation "+o.Op, 1
	}
	if a.Took == 0 {
		a.Took = time.Since(start)
	}
	return a
}

// A tally collects what the goroutines of one order have come to.
type tally struct {
	sync.WaitGroup
	mu    sync.Mutex
	first error
	count atomic.Int64
	fails atomic.Int64
}

// fail notes an error.
func (t *tally) fail(err error) {
	t.fails.Add(1)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.first == nil {
		t.first = err
	}
}

func (t *tally) answer() Answer {
	a := Answer{Count: int(t.count.Load()), Errors: int(t.fails.Load())}
	if t.first != nil {
		a.Error = t.first.Error()
	}
	return a
}

// open opens N tunnels, Parallel at a time, with one echo each, and keeps them.
func (l *loader) open(ctx context.Context, o Order) Answer {
	d := newDialer(o.Target, &l.next)
	var t tally
	var latency histogram
	var left atomic.Int64
	left.Store(int64(o.N))
	start := time.Now()
	for range min(o.Parallel, o.N) {
		t.Go(func() {
			m := l.message(o.Size, o.Target.Kind)
			defer l.keep(m, o.Target.Kind)
			for left.Add(-1) >= 0 && t.fails.Load() == 0 {
				begun := time.Now()
				c, err := d.open(ctx, m)
				if err != nil {
					t.fail(err)
					return
				}
				latency.add(time.Since(begun))
				t.count.Add(1)
				l.mu.Lock()
				l.pools[o.Pool] = append(l.pools[o.Pool], c)
				l.mu.Unlock()
			}
		})
	}
	t.Wait()
	a := t.answer()
	a.Took = time.Since(start)
	a.Latency = latency.buckets()
	a.Curve, a.Cipher = d.curve.Load(), d.cipher.Load()
	return a
}

func (l *loader) pool(name string) []*client {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.pools[name]
}

// each sends one message on every tunnel of the pool.
func (l *loader) each(o Order) Answer {
	pool := l.pool(o.Pool)
	var t tally
	var next atomic.Int64
	for range min(o.Parallel, len(pool)) {
		t.Go(func() {
			m := l.message(o.Size, pool[0].kind)
			defer l.keep(m, pool[0].kind)
			for i := next.Add(1) - 1; i < int64(len(pool)); i = next.Add(1) - 1 {
				if err := pool[i].echo(m); err != nil {
					t.fail(err)
					return
				}
				t.count.Add(1)
			}
		})
	}
	t.Wait()
	return t.answer()
}

// bigMessage is the size from which a message is written and read at the same
// time: the sockets on its way may not hold it whole.
const bigMessage = 64 << 10

// closed has every tunnel of the pool send its next message as soon as the echo
// of the last one is there.
func (l *loader) closed(o Order) Answer {
	pool := l.pool(o.Pool)
	var t tally
	var stop atomic.Bool
	start := time.Now()
	for _, c := range pool {
		t.Go(func() {
			m := l.message(o.Size, c.kind)
			defer l.keep(m, c.kind)
			echo := c.echo
			if o.Size >= bigMessage {
				w := newWriter(c)
				defer w.stop()
				echo = w.echo
			}
			for !stop.Load() {
				if err := echo(m); err != nil {
					t.fail(err)
					return
				}
				t.count.Add(1)
			}
		})
	}
	time.Sleep(o.For)
	stop.Store(true)
	t.Wait()
	a := t.answer()
	a.Took = time.Since(start)
	return a
}

// A writer writes a client's messages while another goroutine reads.
type writer struct {
	c       *client
	message chan *message
	done    chan error
}

func newWriter(c *client) *writer {
	w := &writer{c: c, message: make(chan *message), done: make(chan error, 1)}
	go func() {
		defer close(w.done)
		for m := range w.message {
			_, err := w.c.Write(m.out)
			w.done <- err
		}
	}()
	return w
}

func (w *writer) echo(m *message) error {
	m.number(w.c.id)
	w.c.SetDeadline(time.Now().Add(echoWithin))
	w.message <- m
	if err := w.c.receive(m); err != nil {
		return err
	}
	return <-w.done
}

// stop waits for the goroutine; a write that is stuck ends at its deadline.
func (w *writer) stop() {
	close(w.message)
	for range w.done {
	}
}

// connects opens a tunnel, echoes once and closes, over and over.
func (l *loader) connects(ctx context.Context, o Order) Answer {
	d := newDialer(o.Target, &l.next)
	var t tally
	var stop atomic.Bool
	start := time.Now()
	for range o.Parallel {
		t.Go(func() {
			m := l.message(o.Size, o.Target.Kind)
			defer l.keep(m, o.Target.Kind)
			for !stop.Load() && t.fails.Load() == 0 {
				c, err := d.open(ctx, m)
				if err == nil {
					err = c.end()
				}
				if err != nil {
					t.fail(err)
					return
				}
				t.count.Add(1)
			}
		})
	}
	time.Sleep(o.For)
	stop.Store(true)
	t.Wait()
	a := t.answer()
	a.Took = time.Since(start)
	a.Curve, a.Cipher = d.curve.Load(), d.cipher.Load()
	return a
}

// close ends every tunnel of the pool.
func (l *loader) close(o Order) Answer {
	l.mu.Lock()
	pool := l.pools[o.Pool]
	delete(l.pools, o.Pool)
	l.mu.Unlock()
	var t tally
	var next atomic.Int64
	for range min(max(o.Parallel, 16), len(pool)) {
		t.Go(func() {
			for i := next.Add(1) - 1; i < int64(len(pool)); i = next.Add(1) - 1 {
				if err := pool[i].end(); err != nil {
					t.fail(fmt.Errorf("closing a tunnel: %w", err))
					continue
				}
				t.count.Add(1)
			}
		})
	}
	t.Wait()
	return t.answer()
}

// loadMain is the load process.
func loadMain() error { return runLoad(os.Stdin, os.Stdout) }
