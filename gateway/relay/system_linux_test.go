package relay

import "golang.org/x/sys/unix"

// useSystem has the loops of an engine that has none yet use other system calls.
func useSystem(e *Engine, c calls) { e.loops.using = system(c) }

// inLoop runs f in the loop of a tunnel, which must not have ended.
func inLoop(tunnel Tunnel, f func(*ending, *Options, signs)) {
	t := tunnel.(*loopTunnel)
	inLoopOf(t, func() { f(&t.ending, &t.options, signs{now: t.age(), moved: t.moved, heard: t.heard}) })
}

// inLoopOf runs f in the loop of t and waits for it.
func inLoopOf(t *loopTunnel, f func()) {
	done := make(chan struct{})
	t.loop.post(func() { defer close(done); f() })
	<-done
}

// counted are the system's calls, with the bytes they move counted; nil: not.
func counted(read, written *gauge) calls {
	count := func(call func(int, []byte) (int, error), g *gauge) func(int, []byte) (int, error) {
		return func(fd int, p []byte) (int, error) {
			n, err := call(fd, p)
			if g != nil {
				g.add(n)
			}
			return n, err
		}
	}
	return calls{count(readNow, read), count(writeNow, written)}
}

func pingInLoop(tunnel Tunnel) {
	t := tunnel.(*loopTunnel)
	inLoopOf(t, func() { t.act(sendPing) })
}

// noticing are the system's calls, of which full hears when one takes no more.
func noticing(full func()) calls {
	return calls{read: readNow, write: func(fd int, p []byte) (int, error) {
		n, err := writeNow(fd, p)
		if err == unix.EAGAIN {
			full()
		}
		return n, err
	}}
}
