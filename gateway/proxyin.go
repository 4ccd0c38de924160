package gateway

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"
)

// ProxyIn is which connections to a listener begin with a PROXY header, which
// names the client. Only trusted proxies are believed.
type ProxyIn string

// Without ProxyIn no header is looked for. With ProxyInRequired every connection
// must be a trusted proxy's and begin with one; others are closed. With
// ProxyInTrusted those of trusted proxies must, and all others are clients that
// come without a proxy. There is no mode that guesses: what looks like a header
// may be a client's first bytes.
const (
	ProxyInRequired ProxyIn = "required"
	ProxyInTrusted  ProxyIn = "from_trusted"
)

// expects tells whether a connection from that peer begins with a header, or is
// to be closed at once.
func (p ProxyIn) expects(trusted bool) (header, refused bool) {
	switch {
	case p == "" || p == ProxyInTrusted && !trusted:
		return false, false
	case !trusted:
		return false, true
	}
	return true, false
}

// A proxied is what a PROXY header says. Without a client it says nothing: the
// proxy speaks for itself (LOCAL, UNKNOWN), or of a client without an address.
type proxied struct{ client, to netip.AddrPort }

const (
	proxyV1Least = 15  // PROXY UNKNOWN, CR, LF; a header of version 2 is longer
	proxyV1Most  = 107 // as its specification says
	proxyV2Head  = 16
	proxyV2Most  = 2048 // of what follows that; addresses take 36 (those of UNIX sockets 216), the rest is extensions
)

const proxyV2Sign = "\r\n\r\n\x00\r\nQUIT\n"

// Why a PROXY header is not taken. The connection is closed.
var (
	errProxyUntrusted = errors.New("the peer is none of trusted_proxies, and proxy_protocol_in is required")
	errProxyMissing   = errors.New("the connection does not begin with a PROXY header")
	errProxyMalformed = errors.New("the PROXY header is malformed")
	errProxyTooLong   = errors.New("the PROXY header is too long")
)

// readProxyHeader reads a PROXY header of either version and not one byte more:
// what follows belongs to TLS, or to the node.
func readProxyHeader(r io.Reader) (proxied, error) {
	var first [proxyV2Head]byte
	if n, err := io.ReadFull(r, first[:proxyV1Least]); err != nil {
		if !bytes.HasPrefix([]byte(proxyV2Sign), first[:min(n, len(proxyV2Sign))]) && !bytes.HasPrefix(first[:n], []byte("PROXY")[:min(n, 5)]) {
			err = errProxyMissing
		}
		return proxied{}, err
	}
	switch {
	case string(first[:len(proxyV2Sign)]) == proxyV2Sign:
		return readProxyV2(r, first)
	case string(first[:6]) == "PROXY ":
		return readProxyV1(r, first[:proxyV1Least])
	}
	return proxied{}, errProxyMissing
}

// readProxyV1 reads the rest of a line byte by byte, as nothing says how long it
// is.
func readProxyV1(r io.Reader, first []byte) (proxied, error) {
	line := append(make([]byte, 0, proxyV1Most), first...)
	for !bytes.HasSuffix(line, []byte("\r\n")) {
		if len(line) == proxyV1Most {
			return proxied{}, errProxyTooLong
		}
		line = line[:len(line)+1]
		if _, err := io.ReadFull(r, line[len(line)-1:]); err != nil {
			return proxied{}, err
		}
	}
	return parseProxyV1(string(line[:len(line)-2]))
}

func parseProxyV1(line string) (p proxied, err error) {
	if strings.ContainsAny(line, "\r\n") {
		return p, errProxyMalformed
	}
	if line == "PROXY UNKNOWN" || strings.HasPrefix(line, "PROXY UNKNOWN ") {
		return p, nil
	}
	parts := strings.Split(line, " ")
	if len(parts) != 6 || parts[1] != "TCP4" && parts[1] != "TCP6" {
		return p, errProxyMalformed
	}
	v4 := parts[1] == "TCP4"
	client, ok := proxyEnd(parts[2], parts[4], v4)
	to, fine := proxyEnd(parts[3], parts[5], v4)
	if !ok || !fine {
		return p, errProxyMalformed
	}
	return proxied{client, to}, nil
}

// proxyEnd is an address with its port as they stand in a header of version 1.
func proxyEnd(address, port string, v4 bool) (netip.AddrPort, bool) {
	a, err := netip.ParseAddr(address)
	n, bad := strconv.ParseUint(port, 10, 16)
	if err != nil || bad != nil || a.Is4() != v4 || a.Zone() != "" || len(port) > 1 && port[0] == '0' {
		return netip.AddrPort{}, false
	}
	return netip.AddrPortFrom(a.Unmap(), uint16(n)), true
}

// readProxyV2 reads the rest of a header whose length is in its first bytes.
func readProxyV2(r io.Reader, first [proxyV2Head]byte) (p proxied, err error) {
	if _, err := io.ReadFull(r, first[proxyV1Least:]); err != nil {
		return p, err
	}
	command, family := first[12], first[13]
	length := int(binary.BigEndian.Uint16(first[14:]))
	switch {
	case command != 0x20 && command != 0x21:
		return p, errProxyMalformed
	case length > proxyV2Most:
		return p, errProxyTooLong
	}
	rest := make([]byte, length)
	if _, err := io.ReadFull(r, rest); err != nil {
		return p, err
	}
	if command == 0x20 { // LOCAL: whatever else it says is to be ignored
		return p, nil
	}
	return parseProxyV2(family, rest)
}

// parseProxyV2 takes the addresses. What stands behind them (extensions) is for
// nobody here.
func parseProxyV2(family byte, rest []byte) (p proxied, err error) {
	size := 0
	switch family {
	case 0x11: // TCP over IPv4
		size = 4
	case 0x21: // TCP over IPv6
		size = 16
	case 0x00, 0x31: // none, or a UNIX socket: there is no address
		return p, nil
	default: // datagrams, and what there is not
		return p, errProxyMalformed
	}
	if len(rest) < 2*size+4 {
		return p, errProxyMalformed
	}
	client, _ := netip.AddrFromSlice(rest[:size])
	to, _ := netip.AddrFromSlice(rest[size : 2*size])
	ports := rest[2*size:]
	p.client = netip.AddrPortFrom(client.Unmap(), binary.BigEndian.Uint16(ports))
	p.to = netip.AddrPortFrom(to.Unmap(), binary.BigEndian.Uint16(ports[2:]))
	return p, nil
}

// proxyCause sorts why a header was not taken, for metrics.
func proxyCause(err error) string {
	switch {
	case errors.Is(err, errProxyUntrusted):
		return "untrusted"
	case errors.Is(err, errProxyMissing):
		return "missing"
	case errors.Is(err, errProxyMalformed):
		return "malformed"
	case errors.Is(err, errProxyTooLong):
		return "too_long"
	case errors.Is(err, os.ErrDeadlineExceeded):
		return "timeout"
	}
	return "client_left"
}

// introduce reads the PROXY header, where the connection begins with one, and
// then lets the client in, or not. The header has the time of a request's head. It
// runs in the connection's own goroutine, so
// that a proxy which says nothing holds up nobody. An error means that the
// connection is to be closed without a word.
func (c *clientConn) introduce() error {
	if !c.unknown {
		return nil
	}
	c.unknown = false
	c.socket.SetReadDeadline(time.Now().Add(c.listener.settings.Load().limits.HeadTimeout))
	p, err := readProxyHeader(c.socket)
	c.socket.SetReadDeadline(c.deadline)
	if err != nil {
		c.listener.proxyRefused(c.peer.Addr(), err)
		return fmt.Errorf("%w: %w", errNotLetIn, err)
	}
	if p.client.IsValid() {
		c.peer, c.local = p.client, p.to
	}
	if !c.listener.letIn(c) {
		return errNotLetIn
	}
	return nil
}

// errNotLetIn ends a connection before anything is done for its client.
var errNotLetIn = errors.New("the connection is not let in")

// proxyRefused counts and tells of a connection whose PROXY header was not taken.
func (l *listener) proxyRefused(peer netip.Addr, err error) {
	set := l.settings.Load()
	cause := proxyCause(err)
	l.server.metrics.proxyHeaders.inc(handshakeLabels{set.origin(set.Name), cause})
	if cause != "client_left" { // balancers look so whether we are there
		l.server.guard.note("proxy_protocol_in", peer, err.Error())
	}
}

// addresses are the two ends of the connection as the node is told of them.
func (c *clientConn) addresses() (client, to net.Addr) {
	if c.local.IsValid() {
		return net.TCPAddrFromAddrPort(c.peer), net.TCPAddrFromAddrPort(c.local)
	}
	return c.socket.RemoteAddr(), c.socket.LocalAddr()
}
