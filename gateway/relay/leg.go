package relay

import (
	"net"
	"runtime/debug"
	"time"
)

// leg is one side of a running tunnel.
type leg struct {
	end   End // EndClient or EndUpstream
	conn  net.Conn
	under net.Conn // the connection under conn, as under a *tls.Conn; nil: none
	over  bool     // its peer's stream has ended; guarded by Tunnel.mu
	shut  bool     // its write side was closed, or is being closed; guarded by Tunnel.mu
}

func newLeg(end End, conn net.Conn) leg {
	l := leg{end: end, conn: conn}
	if over, ok := conn.(interface{ NetConn() net.Conn }); ok {
		l.under = over.NetConn()
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
	if under, ok := l.under.(writeCloser); ok {
		return under.CloseWrite()
	}
	return err
}

// cut closes the connection without a goodbye, which unblocks whoever reads or
// writes. It does not block.
func (l *leg) cut() error {
	if l.under != nil {
		return survive(l.under.Close)
	}
	return survive(func() error { return l.conn.Close() })
}

// close closes what was handed to the tunnel. After cut it does not block.
func (l *leg) close() error { return survive(func() error { return l.conn.Close() }) }

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
