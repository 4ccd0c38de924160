package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
)

// The echo nodes are a process of their own: one epoll loop per socket, no
// allocation per message, so that they take as little of the machine as can be
// and the same behind every gateway.

// NodePlan is what the node process is told: the addresses to listen on.
type NodePlan struct {
	WebSocket []string // answers upgrades of wsPath, then echoes frames
	TCP       []string // echoes bytes
	Polls     string   // holds polls; "": there is none
}

// runNode serves until standard input ends.
func runNode(stdin io.Reader, stdout io.Writer) error {
	var plan NodePlan
	if err := json.NewDecoder(stdin).Decode(&plan); err != nil {
		return err
	}
	failed := make(chan error, len(plan.WebSocket)+len(plan.TCP)+2)
	serve := func(address string, frames bool) error {
		l, err := newNodeLoop(address, frames)
		if err == nil {
			go func() { failed <- l.run() }()
		}
		return err
	}
	for _, a := range plan.WebSocket {
		if err := serve(a, true); err != nil {
			return err
		}
	}
	for _, a := range plan.TCP {
		if err := serve(a, false); err != nil {
			return err
		}
	}
	if plan.Polls != "" {
		if err := servePolls(plan.Polls, failed); err != nil {
			return err
		}
	}
	fmt.Fprintln(stdout, `{}`)
	go func() {
		io.Copy(io.Discard, stdin)
		failed <- nil
	}()
	return <-failed
}

// A nodeLoop accepts on one address and echoes; everything in it belongs to
// its one goroutine.
type nodeLoop struct {
	epoll, listener int
	frames          bool
	conns           map[int32]*nodeConn
	in, out         []byte
}

// A nodeConn is one connection. While output waits for the socket nothing is read.
type nodeConn struct {
	fd       int
	upgraded bool
	closing  bool
	head     []byte // the request's, or a frame's, until it is whole
	left     int    // of the payload of the frame at hand
	key      [4]byte
	waiting  []byte
}

const nodeBuffer = 256 << 10

func newNodeLoop(address string, frames bool) (*nodeLoop, error) {
	sa, err := socketAddress(address)
	if err != nil {
		return nil, err
	}
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1)
	syscall.SetsockoptInt(fd, syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1) // accepted sockets inherit it
	if err := errors.Join(syscall.Bind(fd, sa), syscall.Listen(fd, 4096)); err != nil {
		return nil, fmt.Errorf("the node at %s: %w", address, err)
	}
	ep, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return nil, err
	}
	l := &nodeLoop{
		epoll: ep, listener: fd, frames: frames, conns: make(map[int32]*nodeConn),
		in: make([]byte, nodeBuffer), out: make([]byte, 0, nodeBuffer+1024),
	}
	return l, l.watch(syscall.EPOLL_CTL_ADD, fd, syscall.EPOLLIN)
}

func (l *nodeLoop) watch(op, fd int, events uint32) error {
	return syscall.EpollCtl(l.epoll, op, fd, &syscall.EpollEvent{Events: events, Fd: int32(fd)})
}

// run ends only when the node is out of descriptors or the like.
func (l *nodeLoop) run() error {
	events := make([]syscall.EpollEvent, 256)
	for {
		n, err := syscall.EpollWait(l.epoll, events, -1)
		if err != nil && err != syscall.EINTR {
			return err
		}
		for _, e := range events[:max(n, 0)] {
			if int(e.Fd) == l.listener {
				if err := l.accept(); err != nil {
					return fmt.Errorf("a node cannot accept: %w", err)
				}
				continue
			}
			if c := l.conns[e.Fd]; c != nil && !l.turn(c, e.Events) {
				syscall.Close(c.fd)
				delete(l.conns, e.Fd)
			}
		}
	}
}

func (l *nodeLoop) accept() error {
	for {
		fd, _, err := syscall.Accept4(l.listener, syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC)
		switch err {
		case nil:
		case syscall.EAGAIN:
			return nil
		case syscall.EINTR, syscall.ECONNABORTED:
			continue
		default:
			return err
		}
		l.conns[int32(fd)] = &nodeConn{fd: fd, upgraded: !l.frames}
		if err := l.watch(syscall.EPOLL_CTL_ADD, fd, syscall.EPOLLIN); err != nil {
			return err
		}
	}
}

// turn does what a connection is ready for; false: it is over.
func (l *nodeLoop) turn(c *nodeConn, events uint32) bool {
	if len(c.waiting) > 0 {
		n, err := syscall.Write(c.fd, c.waiting)
		if err != nil {
			return err == syscall.EAGAIN || err == syscall.EINTR
		}
		if c.waiting = c.waiting[n:]; len(c.waiting) > 0 {
			return true
		}
		c.waiting = nil
		return !c.closing && l.watch(syscall.EPOLL_CTL_MOD, c.fd, syscall.EPOLLIN) == nil
	}
	n, err := syscall.Read(c.fd, l.in)
	switch {
	case err == syscall.EAGAIN || err == syscall.EINTR:
		return true
	case n <= 0 || err != nil:
		return false
	}
	l.out = l.out[:0]
	if !l.echo(c, l.in[:n]) {
		return false
	}
	return l.write(c, l.out) && (!c.closing || len(c.waiting) > 0)
}

// write sends what the socket takes and keeps the rest.
func (l *nodeLoop) write(c *nodeConn, b []byte) bool {
	if len(b) == 0 {
		return true
	}
	n, err := syscall.Write(c.fd, b)
	if err != nil && err != syscall.EAGAIN && err != syscall.EINTR {
		return false
	}
	if n = max(n, 0); n == len(b) {
		return true
	}
	c.waiting = bytes.Clone(b[n:])
	return l.watch(syscall.EPOLL_CTL_MOD, c.fd, syscall.EPOLLOUT) == nil
}

// echo appends the answer to in to l.out.
func (l *nodeLoop) echo(c *nodeConn, in []byte) bool {
	if !l.frames {
		l.out = append(l.out, in...)
		return true
	}
	if !c.upgraded {
		c.head = append(c.head, in...)
		end := bytes.Index(c.head, []byte("\r\n\r\n"))
		if end < 0 {
			return len(c.head) < 16<<10
		}
		head, rest := c.head[:end], c.head[end+4:]
		c.head, c.upgraded = nil, true
		answer, ok := answerUpgrade(string(head))
		l.out = append(l.out, answer...)
		if !ok {
			c.closing = true
			return true
		}
		in = rest
	}
	for len(in) > 0 && !c.closing {
		if c.left == 0 {
			if in = l.frameHeader(c, in); in == nil {
				return false
			}
			continue
		}
		n := min(c.left, len(in))
		l.unmask(c, in[:n])
		in = in[n:]
	}
	return true
}

// frameHeader takes a frame's header, or a piece of it, from in, and appends
// the echo's header once it is whole. It returns what is left, nil for a frame
// that is not masked.
func (l *nodeLoop) frameHeader(c *nodeConn, in []byte) []byte {
	for len(c.head) < headerSize(c.head) {
		if len(in) == 0 {
			return in
		}
		c.head = append(c.head, in[0])
		in = in[1:]
		if len(c.head) == 2 && c.head[1]&0x80 == 0 {
			return nil
		}
	}
	h := c.head
	switch h[1] & 0x7f {
	case 126:
		c.left = int(binary.BigEndian.Uint16(h[2:]))
	case 127:
		c.left = int(binary.BigEndian.Uint64(h[2:]))
	default:
		c.left = int(h[1] & 0x7f)
	}
	copy(c.key[:], h[len(h)-4:])
	l.out = appendHeader(l.out, h[0], c.left, false)
	// A Close is answered whole: it is small and came in one piece, or ends here.
	if h[0] == frameClose && c.left <= len(in) {
		l.unmask(c, in[:c.left])
		c.closing = true
		in = in[:0]
	}
	c.head = c.head[:0]
	return in
}

// headerSize is how long the header is that begins with b.
func headerSize(b []byte) int {
	if len(b) < 2 {
		return 2
	}
	switch b[1] & 0x7f {
	case 126:
		return 8
	case 127:
		return 14
	}
	return 6
}

// unmask appends payload, unmasked, and turns the key for the next piece.
func (l *nodeLoop) unmask(c *nodeConn, payload []byte) {
	at := len(l.out)
	l.out = append(l.out, payload...)
	b := l.out[at:]
	half := uint64(binary.LittleEndian.Uint32(c.key[:]))
	word := half | half<<32
	for len(b) >= 8 {
		binary.LittleEndian.PutUint64(b, binary.LittleEndian.Uint64(b)^word)
		b = b[8:]
	}
	for i := range b {
		b[i] ^= c.key[i%4]
	}
	c.left -= len(payload)
	if turn := len(payload) % 4; turn != 0 {
		k := c.key
		for i := range 4 {
			c.key[i] = k[(i+turn)%4]
		}
	}
}

// answerUpgrade answers a request's head: 101 for an upgrade of wsPath, an
// error otherwise, so that a gateway which leaves the prefix is found out.
func answerUpgrade(head string) (string, bool) {
	line, rest, _ := strings.Cut(head, "\r\n")
	if !strings.HasPrefix(line, "GET "+wsPath+" HTTP/1.1") {
		return "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", false
	}
	for h := range strings.SplitSeq(rest, "\r\n") {
		name, value, _ := strings.Cut(h, ":")
		if strings.EqualFold(name, "Sec-WebSocket-Key") {
			return "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
				"Sec-WebSocket-Accept: " + acceptOf(strings.TrimSpace(value)) + "\r\n\r\n", true
		}
	}
	return "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", false
}

// socketAddress is an IPv4 address and port.
func socketAddress(address string) (*syscall.SockaddrInet4, error) {
	a, err := parseAddress(address)
	if err != nil {
		return nil, err
	}
	return &syscall.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}, nil
}

// nodeMain is the node process.
func nodeMain() error { return runNode(os.Stdin, os.Stdout) }
