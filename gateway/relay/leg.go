package relay

import (
	"net"
	"runtime/debug"
	"time"
)

// leg is one side of a running tunnel.
type leg struct {
	end  End // EndClient or EndUpstream
	conn net.Conn
	raw  net.Conn // the connection under conn when there is one, otherwise conn
	over bool     // its peer's stream has ended; guarded by Tunnel.mu
	shut bool     // its write side was closed, or is being closed; guarded by Tunnel.mu
}

func newLeg(end End, conn net.Conn) leg {
	l := leg{end: end, conn: conn, raw: conn}
	if over, ok := conn.(interface{ NetConn() net.Conn }); ok {
		if raw := over.NetConn(); raw != nil {
			l.raw = raw
		}
	}
	return l
}

// closeWrite tells the peer that nothing more comes. On TLS it may take 5 s,
// when the peer does not read, or until cut. crypto/tls sends close_notify and
// leaves the TCP stream open; some peers wait for its end.
func (l *leg) closeWrite() error {
	type writeCloser interface{ CloseWrite() error }
	w, ok := l.conn.(writeCloser)
	if !ok {
		return l.conn.Close()
	}
	err := w.CloseWrite()
	if l.raw == l.conn {
		return err
	}
	if w, ok := l.raw.(writeCloser); ok {
		return w.CloseWrite()
	}
	return err
}

// cut closes the connection without a goodbye, which unblocks whoever reads or
// writes. It does not block.
func (l *leg) cut() error { return survive(l.raw.Close) }

// close closes what was handed to the tunnel. After cut it does not block.
func (l *leg) close() error { return survive(l.conn.Close) }

// clearDeadlines undoes what the handshake left.
func (l *leg) clearDeadlines() error {
	return survive(func() error { return l.conn.SetDeadline(time.Time{}) })
}

// survive calls f and turns a panic into its error.
func survive(f func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &PanicError{Value: v, Stack: debug.Stack()}
		}
	}()
	return f()
}
