package relay

import (
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestMail: what is posted to a loop is done, whenever it is posted, also when
// nothing else happens in the loop afterwards.
func TestMail(t *testing.T) {
	pure(t)
	l, err := newLoop(system{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	const burst = 20
	over := make(chan struct{})
	go func() { defer close(over); l.run() }()
	late := time.NewTimer(patience)
	defer late.Stop()
	done := make(chan struct{}, burst)
	await := func(round int) {
		select {
		case <-done:
		case <-late.C:
			t.Fatalf("round %d: mail was not opened", round)
		}
	}
	post := func() { l.post(func() { done <- struct{}{} }) }
	for round := range 8000 {
		for i := range burst {
			post()
			pause := time.Duration((round*burst+i)%97) * 50
			for from := time.Now(); time.Since(from) < pause; { // a bit later each time
			}
		}
		for range burst {
			await(round)
		}
	}
	l.post(func() { l.stop = true })
	<-over
}

// TestAfterClose: a tunnel that has ended may still be closed and killed when its
// engine is closed too; the bell's descriptor may be another's by then.
func TestAfterClose(t *testing.T) {
	pure(t)
	e := New()
	_, near := pair(t, false, 0, false)
	_, far := pair(t, false, 0, true)
	tunnel := e.Start(Leg{Conn: near}, Leg{Conn: far}, Options{})
	tunnel.Kill()
	if err := e.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	bell := tunnel.(*loopTunnel).loop.bell
	e.Close()
	var others []int
	for range 64 {
		fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		others = append(others, fd)
		if fd == bell {
			break
		}
	}
	for range 3 {
		tunnel.Kill()
		tunnel.Close(1000, "")
	}
	for _, fd := range others {
		if _, err := unix.Read(fd, make([]byte, 8)); err != unix.EAGAIN {
			t.Errorf("descriptor %d was written to: %v", fd, err)
		}
	}
}

// TestEventsOfTheDead: an event of a socket that was closed does not reach the one
// that has its slot now. One may come when the closed descriptor was not the last,
// as it is not between the fork and the exec of another process.
func TestEventsOfTheDead(t *testing.T) {
	pure(t)
	l, err := newLoop(system{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer l.release()
	dead, itsPeer := socketTunnel(t, l)
	again, err := unix.Dup(int(dead.client.fd))
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(again)
	slot := dead.client.slot
	l.remove(&dead.client)
	alive, peer := socketTunnel(t, l)
	defer l.remove(&alive.client)
	if alive.client.slot != slot {
		t.Fatalf("slot %d, want that of the dead, %d", alive.client.slot, slot)
	}
	dispatch := func() (n int) {
		n = epollNow(l.epoll, l.events[:])
		for i := range n {
			l.dispatch(&l.events[i])
		}
		return n
	}
	dispatch() // that sockets can be written to
	alive.client.readable = false
	unix.Write(itsPeer, []byte("x"))
	if n := dispatch(); n != 1 || alive.client.readable {
		t.Errorf("%d events, and the socket is said to be readable: %v", n, alive.client.readable)
	}
	unix.Write(peer, []byte("x"))
	if n := dispatch(); n != 1 || !alive.client.readable {
		t.Errorf("%d events, and the socket is said to be readable: %v", n, alive.client.readable)
	}
}

// socketTunnel is half a tunnel, of which a loop knows the client's socket.
func socketTunnel(t *testing.T, l *loop) (tunnel *loopTunnel, peer int) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fds[1]) })
	tunnel = &loopTunnel{loop: l}
	tunnel.client.tunnel, tunnel.client.fd = tunnel, int32(fds[0])
	if err := l.add(&tunnel.client); err != nil {
		t.Fatal(err)
	}
	return tunnel, fds[1]
}

// TestCrowded: loops that look for themselves move bytes, take mail and tick like
// others, and go back to waiting when the crowd is gone.
func TestCrowded(t *testing.T) {
	if onGoroutines {
		t.Skip("of the loops")
	}
	var crowded atomic.Bool
	crowded.Store(true)
	s := webSocket(wires["edge"])
	s.engine = func(e *Engine) { e.Crowded = crowded.Load }
	r := open(t, s)
	f := frame{fin | binaryOp, noise(40000)}
	for _, now := range []bool{true, false, true} {
		crowded.Store(now)
		for range 10 {
			go r.client.Write(f.wireBytes(true))
			r.wantFrame(r.upstream, f, true)
			go r.upstream.Write(f.wireBytes(false))
			r.wantFrame(r.client, f, false)
		}
	}
	r.Close(1012, "node in maintenance")
	r.wantFrame(r.client, closing1(1012, "node in maintenance"), false)
	r.send(r.client, closing1(1012, "").wireBytes(true))
	r.wantFrame(r.upstream, closing1(1012, ""), true)
	r.upstream.Close()
	r.client.Close()
	r.report()
}
