package gateway

import (
	"context"
	"errors"
	"net"
	"runtime"
	"syscall"

	"github.com/rs/zerolog"

	"singlegate/upstream"
)

// Descriptors watches how near the process is to its limit of open files, and
// keeps a reserve out of which new connections are refused in a proper way. The
// system gives out the lowest free number, so the number of a new descriptor
// says how many are in use at least: nothing has to be counted.
//
// It is the upstream.Dialer of a gateway. Its methods are safe for concurrent use.
type Descriptors struct {
	limit   int // 0: unknown, nothing is refused
	asked   int // by the config
	reserve int
	warning seldom
}

// NewDescriptors bounds the process to limit descriptors; 0, or more than the
// system allows, means what the system allows. That is the hard limit: the Go
// runtime raises the soft one to it before main.
func NewDescriptors(limit int) *Descriptors {
	asked := limit
	if system := descriptorLimit(); limit == 0 || system != 0 && limit > system {
		limit = system
	}
	return &Descriptors{limit: limit, asked: asked, reserve: max(limit/50, min(64, limit/4))}
}

// Tunnels is about how many tunnels fit, at two descriptors each; 0: unknown.
func (d *Descriptors) Tunnels() int { return max(d.limit-d.reserve-64, 0) / 2 }

// DialContext implements upstream.Dialer: it tries every address of a name, of
// both address families, and fails with ErrDescriptors rather than take a
// descriptor that a refusal may need.
func (d *Descriptors) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := upstream.Net{}.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	if !d.spare(conn) {
		conn.Close()
		return nil, ErrDescriptors
	}
	return conn, nil
}

type crowd int

const (
	roomy     crowd = iota
	crowded         // in the reserve: refuse politely
	exhausted       // the reserve itself is nearly used up: refuse at once
)

func (d *Descriptors) judge(c net.Conn) crowd {
	n := descriptorOf(c)
	switch {
	case d.limit == 0 || n < d.limit-d.reserve:
		return roomy
	case n < d.limit-d.reserve/4:
		return crowded
	}
	return exhausted
}

// ErrDescriptors says that a connection to a node would use up the reserve.
var ErrDescriptors = errors.New("the process has no file descriptors left for connections to nodes")

// spare is judge for connections to nodes, which may use half of the reserve:
// their client was let in before.
func (d *Descriptors) spare(c net.Conn) bool {
	return d.limit == 0 || descriptorOf(c) < d.limit-d.reserve/2
}

// warn says, once in ten seconds, that connections are refused.
func (d *Descriptors) warn(log zerolog.Logger) {
	if !d.warning.due() {
		return
	}
	log.Error().Int("limit", d.limit).Int("reserve", d.reserve).
		Msg("file descriptors are nearly used up: new connections are refused; raise the limit (LimitNOFILE, ulimit -n)")
}

// descriptorOf is the number of a socket's descriptor; 0 where it has none.
func descriptorOf(c net.Conn) int {
	sc, ok := c.(syscall.Conn)
	if !ok || runtime.GOOS == "windows" {
		return 0
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return 0
	}
	n := 0
	raw.Control(func(fd uintptr) { n = int(fd) })
	return n
}
