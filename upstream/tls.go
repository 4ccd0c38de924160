package upstream

import (
	"context"
	"crypto/tls"
	"net"
	"slices"
)

// TLS is how the nodes of a service are spoken to that want TLS.
type TLS struct {
	// Config says what is verified and shown. Without a ServerName the node's
	// certificate must be for the host of its address. It is not changed.
	Config *tls.Config

	// Ports are the names of the nodes' ports that speak TLS; none: all do.
	Ports []string
}

// SetTLS says which services' nodes speak TLS. The set keeps m, which must not be
// changed any more. Connections that are open stay; pooled ones are dropped, as
// m may be about other certificates.
func (s *Set) SetTLS(m map[string]TLS) {
	old := s.tls.Swap(&m)
	if len(m) > 0 || old != nil && len(*old) > 0 {
		s.transport.CloseIdleConnections()
	}
}

// secure makes the TLS handshake where the address is that of a port of the node
// which speaks TLS. A connection that fails it is closed.
func (s *Set) secure(ctx context.Context, node *Node, address string, conn net.Conn) (net.Conn, error) {
	all := s.tls.Load()
	if node == nil || all == nil {
		return conn, nil
	}
	t, ok := (*all)[node.Service]
	if !ok || !t.covers(node, address) {
		return conn, nil
	}
	cfg := t.Config
	if cfg.ServerName == "" {
		cfg = cfg.Clone()
		cfg.ServerName = node.Address
	}
	over := tls.Client(&swappable{conn}, cfg)
	if err := over.HandshakeContext(ctx); err != nil {
		conn.Close()
		return nil, err
	}
	return over, nil
}

func (t TLS) covers(node *Node, address string) bool {
	if len(t.Ports) == 0 {
		return true
	}
	return slices.ContainsFunc(t.Ports, func(port string) bool {
		own, ok := node.Addr(port)
		return ok && own == address
	})
}

// swappable stands between a *tls.Conn and the socket, so that the gateway's
// relay can put another one in its place when it takes the tunnel over.
type swappable struct{ net.Conn }

// NetConn is what calls go to.
func (c *swappable) NetConn() net.Conn { return c.Conn }

// Swap makes every later call go to next. Nobody may be calling meanwhile.
func (c *swappable) Swap(next net.Conn) { c.Conn = next }

// CloseWrite ends the sending side of the socket; crypto/tls does not.
func (c *swappable) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}
