package systemd

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
)

// firstDescriptor is where passed sockets begin (SD_LISTEN_FDS_START).
const firstDescriptor = 3

// maxSockets bounds what LISTEN_FDS may claim.
const maxSockets = 4096

// Sockets are those that systemd opened and passed. They stay open until the
// process ends, also those that nobody listens on at present: systemd keeps the
// same sockets, so that none of their connections is refused meanwhile. Its
// methods may be called concurrently. A nil one has none.
type Sockets struct {
	mu     sync.Mutex
	passed []*passedSocket
}

type passedSocket struct {
	name    string // FileDescriptorName=
	address netip.AddrPort
	file    *os.File
	open    bool   // a listener has it
	used    string // the address that it asked for
}

// Inherited takes the sockets that the environment tells of: LISTEN_FDS,
// LISTEN_FDNAMES, and LISTEN_PID, which has to be this process. Those that are no
// TCP listeners are named in the error, which goes along with the others.
func Inherited(env func(string) string) (*Sockets, error) {
	if env("LISTEN_PID") != strconv.Itoa(os.Getpid()) {
		return nil, nil
	}
	n, err := strconv.Atoi(env("LISTEN_FDS"))
	if err != nil || n <= 0 {
		return nil, nil
	}
	if n > maxSockets {
		return nil, fmt.Errorf("LISTEN_FDS is %d, expected %d at most", n, maxSockets)
	}
	var files []*os.File
	names := strings.Split(env("LISTEN_FDNAMES"), ":")
	for fd := firstDescriptor; fd < firstDescriptor+n; fd++ {
		closeOnExec(fd)
		name := ""
		if i := fd - firstDescriptor; i < len(names) {
			name = names[i]
		}
		files = append(files, os.NewFile(uintptr(fd), name))
	}
	return socketsOf(files)
}

// socketsOf takes over files, which are named as the sockets are.
func socketsOf(files []*os.File) (*Sockets, error) {
	s := &Sockets{}
	var wrong []string
	for i, file := range files {
		address, err := addressOf(file)
		if err != nil {
			wrong = append(wrong, fmt.Sprintf("%d (%q)", firstDescriptor+i, file.Name()))
			file.Close()
			continue
		}
		s.passed = append(s.passed, &passedSocket{name: file.Name(), address: address, file: file})
	}
	if len(wrong) > 0 {
		return s, fmt.Errorf("the service manager passed sockets on which no TCP connection can be accepted: descriptors %s; the gateway takes ListenStream= with an address and a port", strings.Join(wrong, ", "))
	}
	return s, nil
}

// addressOf is the address that a passed socket listens on.
func addressOf(file *os.File) (netip.AddrPort, error) {
	l, err := net.FileListener(file)
	if err != nil {
		return netip.AddrPort{}, err
	}
	defer l.Close()
	tcp, ok := l.Addr().(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}, fmt.Errorf("%s is no TCP address", l.Addr())
	}
	return tcp.AddrPort(), nil
}

// Listen returns a listener on the socket that was passed under this name, or for
// this address, and otherwise opens one. A socket is given to one listener at a
// time; when that is closed, to the next that asks.
func (s *Sockets) Listen(name, address string) (net.Listener, error) {
	if s == nil {
		return net.Listen("tcp", address)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.find(name, address)
	if p == nil {
		return net.Listen("tcp", address)
	}
	l, err := net.FileListener(p.file)
	if err != nil {
		return nil, fmt.Errorf("the socket that was passed for %s cannot be used: %w", address, err)
	}
	p.open, p.used = true, address
	return &takenSocket{Listener: l, from: s, socket: p}, nil
}

// find is the free socket for a listener: by name, else by address.
func (s *Sockets) find(name, address string) *passedSocket {
	for _, p := range s.passed {
		if !p.open && p.name == name {
			return p
		}
	}
	for _, p := range s.passed {
		if !p.open && p.serves(address) {
			return p
		}
	}
	return nil
}

// serves tells whether a socket listens on what an address names. Every address
// and every IPv4 one are taken for the same: systemd opens one or the other by its
// own settings.
func (p *passedSocket) serves(address string) bool {
	host, text, err := net.SplitHostPort(address)
	port, errPort := strconv.ParseUint(text, 10, 16)
	if err != nil || errPort != nil || uint16(port) != p.address.Port() {
		return false
	}
	own := p.address.Addr().Unmap()
	ip, err := netip.ParseAddr(host)
	switch {
	case host == "" || err == nil && ip.IsUnspecified():
		return own.IsUnspecified()
	case err == nil:
		return own == ip.Unmap()
	case strings.EqualFold(host, "localhost"):
		return own.IsLoopback()
	}
	return false
}

// Passed tells whether there are any.
func (s *Sockets) Passed() bool { return s != nil && len(s.passed) > 0 }

// Used is the passed socket that a listener of this address has.
func (s *Sockets) Used(address string) (socket netip.AddrPort, ok bool) {
	if s == nil {
		return socket, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.passed {
		if p.open && p.used == address {
			return p.address, true
		}
	}
	return socket, false
}

// Unused are the sockets that no listener has: connections to them are accepted
// by nobody.
func (s *Sockets) Unused() []string {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []string
	for _, p := range s.passed {
		if !p.open {
			list = append(list, fmt.Sprintf("%s (named %q)", p.address, p.name))
		}
	}
	return list
}

// A takenSocket gives its socket back when it is closed.
type takenSocket struct {
	net.Listener
	from   *Sockets
	socket *passedSocket
	once   sync.Once
}

// Close implements net.Listener. The passed socket itself goes on to listen.
func (t *takenSocket) Close() error {
	err := t.Listener.Close()
	t.once.Do(func() {
		t.from.mu.Lock()
		defer t.from.mu.Unlock()
		t.socket.open = false
	})
	return err
}
