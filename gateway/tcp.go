package gateway

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"time"

	"github.com/pires/go-proxyproto"

	"singlegate/gateway/relay"
	"singlegate/upstream"
)

// anyProtocol is cfg for connections whose protocol is none of our business:
// without ALPN, where a client that offers another protocol would be refused.
func anyProtocol(cfg *tls.Config) *tls.Config {
	if cfg == nil {
		return nil
	}
	free := cfg.Clone()
	free.NextProtos = nil
	if choose := cfg.GetConfigForClient; choose != nil {
		free.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			chosen, err := choose(hello)
			if chosen != nil && !forChallenge(chosen) {
				chosen = chosen.Clone()
				chosen.NextProtos = nil
			}
			return chosen, err
		}
	}
	return free
}

// serveTCP takes a connection whose listener is a plain TCP port: it becomes a
// tunnel as it is. It reports false for connections that are to speak HTTP.
func (l *listener) serveTCP(c net.Conn) bool {
	set := l.settings.Load()
	if set.implied == nil || !set.implied.tcp {
		return false
	}
	s := l.server
	if !s.tasks.enter() {
		c.Close()
		return true
	}
	go func() {
		defer s.tasks.leave()
		r := s.newTCPRequest(c, set)
		defer r.recoverTCP(c)
		defer context.AfterFunc(s.running, r.conn.kill)() // fasthttp, which would, does not know of it
		if r.conn.introduce() != nil {
			c.Close()
			return
		}
		r.client = r.conn.peer.Addr()
		if p := r.openTCP(c); p != nil {
			r.logRefusal(p)
			c.Close()
		}
	}()
	return true
}

// newTCPRequest is a request of which nothing is known but the port it came by.
func (s *Server) newTCPRequest(c net.Conn, set *listenerSettings) *request {
	r := &request{server: s, state: s.state.Load(), start: time.Now(), listener: set, id: newRequestID()}
	if secure, ok := c.(*secureConn); ok {
		r.conn = secure.clientConn
	} else {
		r.conn = c.(*clientConn)
	}
	r.client = r.conn.peer.Addr()
	return r
}

func (r *request) recoverTCP(c net.Conn) {
	if v := recover(); v != nil {
		r.logPanic(v)
		c.Close()
	}
}

// openTCP connects the client with the node of its port. Nothing of what the
// client sends is waited for or looked at.
func (r *request) openTCP(c net.Conn) *problem {
	if r.conn.crowded {
		r.server.descriptors.warn(r.server.log)
		return overloaded()
	}
	r.match = r.state.table.implied(r.listener.implied, "")
	if p := r.admit(); p != nil {
		return p
	}
	if p := r.noPlace(); p != nil {
		return p // without the work of a handshake
	}
	if secure, ok := c.(*secureConn); ok {
		if err := secure.Handshake(); err != nil {
			return handshakeFailure().because(err)
		}
	}
	if p := r.match.problem(); p != nil {
		return p
	}
	lease, node, p := r.dialTCP()
	if p != nil {
		return p
	}
	if err := r.announceClient(node); err != nil {
		node.Close()
		lease.Done()
		return upstreamFailed().because(err)
	}
	r.newTunnel(relay.Bytes, lease, node).start(relay.Leg{Conn: r.conn.detach()}, relay.Leg{Conn: node})
	return nil
}

// dialTCP connects to the node, or to the next one while connections fail.
func (r *request) dialTCP() (*upstream.Lease, net.Conn, *problem) {
	pick := r.tunnelPicker()
	ctx := upstream.WithConnectTimeout(r.server.running, r.match.route.Timeouts.Connect)
	for {
		lease, addr, p := pick.next()
		if p != nil {
			return nil, nil, p
		}
		if r.server.loops.knows(addr) {
			lease.Done()
			pick.loop()
			continue
		}
		conn, err := r.server.upstream.Dial(upstream.ToNode(ctx, lease.Node), addr)
		if err == nil && r.state.own.holds(conn) {
			// A name that leads here: the connection that it makes finds it known.
			r.server.loops.remember(addr)
			r.server.loops.warn(r.server.log, conn.RemoteAddr().String(), r.id)
			conn.Close()
			lease.Done()
			pick.loop()
			continue
		}
		if err == nil {
			lease.Worked()
			return lease, conn, nil
		}
		if context.Cause(ctx) != nil {
			lease.Done()
			return nil, nil, stopping()
		}
		if nodeFailed(err) {
			lease.Failed()
		}
		lease.Done()
		pick.failed(err)
	}
}

// announceClient tells the node about the client, where the config asks for a
// PROXY header.
func (r *request) announceClient(node net.Conn) error {
	var version byte
	switch r.listener.implied.proxy {
	case "v1":
		version = 1
	case "v2":
		version = 2
	default:
		return nil
	}
	client, to := r.conn.addresses()
	header := proxyproto.HeaderProxyFromAddrs(version, client, to)
	node.SetWriteDeadline(time.Now().Add(r.match.route.Timeouts.Connect))
	defer node.SetWriteDeadline(time.Time{})
	_, err := header.WriteTo(io.Writer(node))
	return err
}
