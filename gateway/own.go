package gateway

import (
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"

	"github.com/rs/zerolog"
)

// ownSockets are the sockets that the gateway listens on, to tell which nodes
// are the gateway itself. They are immutable once made.
type ownSockets struct {
	byPort  map[uint16][]ownSocket
	machine map[netip.Addr]bool // this machine's addresses, beside loopback
}

type ownSocket struct {
	addr netip.Addr // invalid: every address
	name string     // the listener's
}

// ownMachine are this machine's addresses.
func ownMachine() map[netip.Addr]bool {
	addresses := map[netip.Addr]bool{}
	list, err := net.InterfaceAddrs()
	if err != nil {
		return addresses // loopback is known without
	}
	for _, a := range list {
		if n, ok := a.(*net.IPNet); ok {
			if ip, ok := netip.AddrFromSlice(n.IP); ok {
				addresses[ip.Unmap()] = true
			}
		}
	}
	return addresses
}

// addText adds the address of a listener as the config has it, unless the port
// is for the system to choose or the host is a name.
func (o *ownSockets) addText(address, name string) {
	host, text, err := net.SplitHostPort(address)
	port, errPort := strconv.ParseUint(text, 10, 16)
	if err != nil || errPort != nil || port == 0 {
		return
	}
	switch ip, err := netip.ParseAddr(host); {
	case err == nil:
		o.add(netip.AddrPortFrom(ip, uint16(port)), name)
	case host == "":
		o.add(netip.AddrPortFrom(netip.Addr{}, uint16(port)), name)
	case host == "localhost":
		o.add(netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(port)), name)
	}
}

func (o *ownSockets) add(a netip.AddrPort, name string) {
	if o.byPort == nil {
		o.byPort = map[uint16][]ownSocket{}
	}
	ip := a.Addr().Unmap().WithZone("")
	if ip == netip.IPv6Unspecified() {
		ip = netip.Addr{} // Go's listeners take IPv4 there as well
	}
	o.byPort[a.Port()] = append(o.byPort[a.Port()], ownSocket{ip, name})
}

// at gives the listener to which a connection to host:port would lead. Names but
// localhost are not looked up: of them nothing is known. It allocates nothing
// for a port that is not listened on.
func (o *ownSockets) at(address string) (listener string, ours bool) {
	if o == nil {
		return "", false
	}
	i := strings.LastIndexByte(address, ':')
	port, err := strconv.ParseUint(address[i+1:], 10, 16)
	if i < 0 || err != nil || o.byPort[uint16(port)] == nil {
		return "", false
	}
	host := strings.Trim(address[:i], "[]")
	if strings.EqualFold(host, "localhost") {
		host = "127.0.0.1"
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return "", false
	}
	return o.atIP(ip, uint16(port))
}

func (o *ownSockets) atIP(ip netip.Addr, port uint16) (listener string, ours bool) {
	ip = ip.Unmap().WithZone("")
	switch ip { // the system takes these for the machine itself
	case netip.IPv4Unspecified():
		ip = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	case netip.IPv6Unspecified():
		ip = netip.IPv6Loopback()
	}
	if !ip.IsLoopback() && !o.machine[ip] {
		return "", false
	}
	for _, s := range o.byPort[port] {
		if !s.addr.IsValid() || s.addr == ip || s.addr == netip.IPv4Unspecified() && ip.Is4() {
			return s.name, true
		}
	}
	return "", false
}

// holds tells whether a connection leads to one of the sockets.
func (o *ownSockets) holds(c net.Conn) bool {
	tcp, ok := c.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return false
	}
	_, ours := o.atIP(tcp.AddrPort().Addr(), uint16(tcp.Port))
	return ours
}

// ownSockets are the sockets of the listeners with these keys; control is held.
func (s *Server) ownSockets(keep map[string]bool) *ownSockets {
	own := &ownSockets{machine: ownMachine()}
	for key, l := range s.listeners {
		if tcp, ok := l.Addr().(*net.TCPAddr); ok && keep[key] {
			own.add(tcp.AddrPort(), l.settings.Load().Name)
		}
	}
	return own
}

// loops are what is known of connections that came back.
type loops struct {
	warning seldom

	mu    sync.Mutex
	names map[string]bool // addresses with names that have led to the gateway
}

// maxLoopNames bounds the names; they are forgotten with every change.
const maxLoopNames = 1024

func (l *loops) remember(address string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.names == nil {
		l.names = map[string]bool{}
	}
	if len(l.names) < maxLoopNames {
		l.names[address] = true
	}
}

func (l *loops) knows(address string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.names[address]
}

func (l *loops) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.names = nil
}

// warn says, once in ten seconds, that a connection came back.
func (l *loops) warn(log zerolog.Logger, at, requestID string) {
	if !l.warning.due() {
		return
	}
	log.Error().Str("at", at).Str("request_id", requestID).
		Msg("a request came back to this gateway: the address of a node, or of something behind it, leads here; the request's line with a node names it")
}
