package livecheck

import (
	"cmp"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"strconv"
	"time"
)

// A role is what a probe dials, which decides what to do about a failure.
type role int

const (
	toGateway role = iota
	toNode
)

// code picks the code that says the same of a gateway or of a node.
func (r role) code(gateway, node Code) Code {
	if r == toNode {
		return node
	}
	return gateway
}

// A prober has what the probes share. Every probe ends with its context.
type prober struct {
	Options
	local machine
}

// dial connects; a failure says why it did not work.
func (p *prober) dial(ctx context.Context, address string, r role) (net.Conn, *Finding) {
	conn, err := p.Dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		f := p.dialFailure(err, address, r)
		return nil, &f
	}
	if end, ok := ctx.Deadline(); ok {
		conn.SetDeadline(end)
	}
	return conn, nil
}

// dialFailure says in plain words why a connection failed.
func (p *prober) dialFailure(err error, address string, r role) Finding {
	host, port, _ := net.SplitHostPort(address)
	at := []string{"address", address, "host", host, "port", port}
	if dns := (*net.DNSError)(nil); errors.As(err, &dns) {
		if dns.IsNotFound {
			return failure(r.code(gatewayUnresolved, nodeUnresolved), at...)
		}
		return failure(r.code(gatewayNoDNS, nodeNoDNS), at...)
	}
	switch {
	case errors.Is(err, errRefused):
		return p.refused(err, address, r)
	case isTimeout(err):
		return failure(r.code(gatewayTimeout, nodeTimeout), at...)
	case errors.Is(err, errNoHost):
		return failure(r.code(gatewayUnreachable, nodeNoHost), at...)
	case isAny(err, errNoNetwork, errNoAddress, errNoFamily):
		return failure(r.code(gatewayUnreachable, nodeUnreachable), at...)
	}
	return failure(r.code(gatewayDialFailed, nodeDialFailed), append(at, "error", rootCause(err))...)
}

func isTimeout(err error) bool {
	var timeout interface{ Timeout() bool }
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, errTimedOut) || errors.As(err, &timeout) && timeout.Timeout()
}

func isAny(err error, targets ...error) bool {
	for _, t := range targets {
		if errors.Is(err, t) {
			return true
		}
	}
	return false
}

// isCut tells whether the peer ended the connection.
func isCut(err error) bool {
	return isAny(err, io.EOF, io.ErrUnexpectedEOF, errConnReset, errPipeClosed, errConnAborted)
}

// rootCause is the text of a network error without the addresses, which the
// finding names itself.
func rootCause(err error) string {
	if op := (*net.OpError)(nil); errors.As(err, &op) && op.Err != nil {
		err = op.Err
	}
	return err.Error()
}

// refused looks, when it was this machine that refused, for who does listen on
// the port.
func (p *prober) refused(err error, address string, r role) Finding {
	host, portText, _ := net.SplitHostPort(address)
	port, _ := strconv.ParseUint(portText, 10, 16)
	ip := dialedIP(err, host)
	pairs := []string{"address", address, "host", host, "port", portText, "dialed", cmp.Or(addrText(ip), host)}
	elsewhere := failure(r.code(gatewayRefused, nodeRefused), pairs...)
	if !ip.IsValid() || !p.local.owns(ip) {
		return elsewhere
	}
	listening, known := p.local.listening(uint16(port))
	pairs = append(pairs, "listening", addressList(listening))
	switch {
	case !known:
		return elsewhere
	case len(listening) == 0:
		return failure(r.code(gatewayNotListening, nodeNotListening), pairs...)
	case reaches(listening, ip):
		return elsewhere // somebody listens right there: a firewall of this machine, or it just began
	case allLoopback(listening):
		return failure(r.code(gatewayOtherAddress, nodeLoopbackOnly), pairs...)
	}
	return failure(r.code(gatewayOtherAddress, nodeOtherAddress), pairs...)
}

// dialedIP is the address that a name led to.
func dialedIP(err error, host string) netip.Addr {
	if op := (*net.OpError)(nil); errors.As(err, &op) {
		if tcp, ok := op.Addr.(*net.TCPAddr); ok {
			return tcp.AddrPort().Addr().Unmap()
		}
	}
	ip, _ := netip.ParseAddr(host)
	return ip.Unmap()
}

func addrText(ip netip.Addr) string {
	if !ip.IsValid() {
		return ""
	}
	return ip.String()
}

// reaches tells whether one of the addresses takes connections to ip. That of
// every IPv6 address is taken to be that of IPv4 as well, as is usual.
func reaches(listening []netip.Addr, ip netip.Addr) bool {
	for _, l := range listening {
		if l == ip.WithZone("") || l.IsUnspecified() && (l.Is6() || ip.Is4()) {
			return true
		}
	}
	return false
}

func allLoopback(list []netip.Addr) bool {
	for _, ip := range list {
		if !ip.IsLoopback() {
			return false
		}
	}
	return true
}

// tunnel looks whether a public TCP port stays open: a gateway that cannot
// reach the node has accepted the connection already and closes it at once.
// Nothing is sent.
func (p *prober) tunnel(conn net.Conn, address string) Finding {
	conn.SetReadDeadline(time.Now().Add(p.Settle))
	_, err := conn.Read(make([]byte, 1))
	if err != nil && !isTimeout(err) {
		return failure(closedAtOnce, "address", address)
	}
	return fine(isConnected, "address", conn.RemoteAddr().String())
}
