package upstream

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"time"
)

// ErrNoPort says that this machine has no local address and port left to connect
// to the node from. The node is not to blame.
var ErrNoPort = errors.New("no local port is left for another connection to this node: " +
	"give its service more source_addresses, or widen net.ipv4.ip_local_port_range " +
	"(without many connections: this machine has no address of the node's family)")

// SetSources says from which addresses of this machine the nodes of a service
// are connected to, by service; of one that is not in it the system chooses. The
// addresses of a node's family are used in turn, node by node, and one that has
// no port left for the node is passed over: each has as many ports for a node's
// port as the system gives to outgoing connections. The set keeps m, which must
// not be changed any more. Connections that are open stay.
func (s *Set) SetSources(m map[string][]netip.Addr) {
	old := s.sources.Swap(&m)
	if old != nil && !maps.EqualFunc(*old, m, slices.Equal) {
		s.transport.CloseIdleConnections()
	}
}

type nodeContext struct{}

// ToNode makes every dial under the context one to the node, made from the
// source addresses of its service, and every HTTP request one over connections
// to that node alone.
func ToNode(ctx context.Context, n *Node) context.Context {
	return context.WithValue(ctx, nodeContext{}, n)
}

type sourceContext struct{}

// Net is the Dialer that opens connections itself. It tries all addresses of a
// name, of both address families, or of the one of the source address that the
// Set has chosen.
type Net struct{}

// DialContext implements Dialer.
func (Net) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	var dialer net.Dialer
	if from, ok := ctx.Value(sourceContext{}).(netip.Addr); ok {
		dialer.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0))
		dialer.Control = lateBind
	}
	return dialer.DialContext(ctx, network, address)
}

// dial opens a connection to the address, which is that of ctx's node.
func (s *Set) dial(ctx context.Context, network, address string) (conn net.Conn, err error) {
	node, _ := ctx.Value(nodeContext{}).(*Node)
	var sources []netip.Addr
	if all := s.sources.Load(); node != nil && all != nil {
		sources = (*all)[node.Service]
	}
	if len(sources) == 0 {
		conn, err = s.dialer.DialContext(ctx, network, address)
	} else {
		conn, err = s.dialFrom(ctx, inTurn(sources, node), network, address)
	}
	if portsSpent(err) {
		err = fmt.Errorf("%w: %w", ErrNoPort, err)
	}
	if err != nil {
		return nil, err
	}
	return s.secure(ctx, node, address, conn)
}

// portsSpent tells whether a dial failed for want of a local port; where the port
// is chosen before connecting, none that is free reads as one in use.
func portsSpent(err error) bool { return errors.Is(err, errNoAddress) || errors.Is(err, errInUse) }

// inTurn is the sources, beginning with the one whose turn it is for the node.
func inTurn(sources []netip.Addr, n *Node) []netip.Addr {
	first := int((n.state.turn.Add(1) - 1) % uint32(len(sources)))
	return slices.Concat(sources[first:], sources[:first])
}

// dialFrom tries the sources until one is neither out of ports nor of a family
// that the node has no address of, or could not be reached by.
func (s *Set) dialFrom(ctx context.Context, sources []netip.Addr, network, address string) (net.Conn, error) {
	sources = fitting(sources, address)
	if len(sources) == 0 {
		return nil, fmt.Errorf("none of the service's source_addresses is of the address family of %s", address)
	}
	var failed error
	for len(sources) > 0 && ctx.Err() == nil {
		from := sources[0]
		sources = sources[1:]
		conn, err := s.attempt(ctx, from, hasOther(sources, from), network, address)
		if err == nil {
			return conn, nil
		}
		var unfit *net.AddrError // the name has no address of this family: says the least
		if failed == nil || !errors.As(err, &unfit) {
			failed = err
		}
		if !portsSpent(err) {
			sources = slices.DeleteFunc(sources, func(a netip.Addr) bool { return a.Is4() == from.Is4() })
		}
	}
	if failed == nil {
		failed = context.Cause(ctx)
	}
	return nil, failed
}

// attempt dials from one source, within half of the time when the other family
// is to be tried too.
func (s *Set) attempt(ctx context.Context, from netip.Addr, half bool, network, address string) (net.Conn, error) {
	if end, ok := ctx.Deadline(); ok && half {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Until(end)/2)
		defer cancel()
	}
	return s.dialer.DialContext(context.WithValue(ctx, sourceContext{}, from), network, address)
}

func hasOther(sources []netip.Addr, family netip.Addr) bool {
	return slices.ContainsFunc(sources, func(a netip.Addr) bool { return a.Is4() != family.Is4() })
}

// fitting is the sources from which the address can be reached: of a name, whose
// addresses are not known here, all. It may be changed.
func fitting(sources []netip.Addr, address string) []netip.Addr {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return sources
	}
	v4 := to.Addr().Unmap().Is4()
	return slices.DeleteFunc(sources, func(a netip.Addr) bool { return a.Is4() != v4 })
}
