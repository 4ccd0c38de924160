package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"syscall"
	"time"
)

// The ways of a message: a frame in TLS, a frame, bytes.
const (
	wss = "wss"
	ws  = "ws"
	tcp = "tcp"
)

// A Target is a gateway's entry point as the load generator sees it.
type Target struct {
	Kind    string   // wss, ws or tcp
	Address string   // of the listener
	Paths   []string // one per node, taken in turn; none for tcp and polls
	Hybrid  bool     // the hello has a post-quantum key share, as a browser's; else X25519 alone
	Leaf    []byte   // the certificate the gateway has to show
}

// echoWithin bounds every wait for one echo, connectWithin for one connect.
const (
	echoWithin    = 30 * time.Second
	connectWithin = 90 * time.Second
)

// A client is one tunnel's client end. It is used by one goroutine at a time,
// except that one may read while another writes.
type client struct {
	net.Conn
	id   uint64
	kind string
}

// A dialer opens clients of a target. Its methods are safe for concurrent use.
type dialer struct {
	Target
	tls      *tls.Config
	requests [][]byte
	next     *atomic.Uint64 // numbers the clients of this process

	curve, cipher atomic.Uint32 // of the last handshake
}

func newDialer(t Target, next *atomic.Uint64) *dialer {
	d := &dialer{Target: t, next: next}
	curves := []tls.CurveID{tls.X25519}
	if t.Hybrid {
		curves = []tls.CurveID{tls.X25519MLKEM768, tls.X25519}
	}
	d.tls = &tls.Config{
		MinVersion:                  tls.VersionTLS13,
		CurvePreferences:            curves,
		DynamicRecordSizingDisabled: true,
		// One comparison instead of a chain: the client's cost is not what is measured.
		InsecureSkipVerify: true,
		VerifyConnection: func(s tls.ConnectionState) error {
			if !bytes.Equal(s.PeerCertificates[0].Raw, t.Leaf) {
				return errors.New("the gateway shows another certificate")
			}
			return nil
		},
	}
	for _, p := range t.Paths {
		d.requests = append(d.requests, upgradeRequest("localhost", p+wsPath))
	}
	return d
}

// sources is how many loopback addresses clients come from. One address has
// 28,000 ports towards one listener, some of which are still in TIME_WAIT.
const sources = 64

// bindLate has the system choose the port at connect, where a port counts as
// taken only towards this very destination.
func bindLate(_, _ string, c syscall.RawConn) error {
	const ipBindAddressNoPort = 24
	var err error
	control := c.Control(func(fd uintptr) {
		err = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_IP, ipBindAddressNoPort, 1)
	})
	return errors.Join(control, err)
}

// dial opens a tunnel as far as the gateway's answer to the upgrade.
func (d *dialer) dial(ctx context.Context) (*client, error) {
	id := d.next.Add(1)
	source := netip.AddrFrom4([4]byte{127, 0, 1, byte(1 + id%sources)})
	dial := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(source, 0)), Control: bindLate, KeepAlive: -1}
	conn, err := dial.DialContext(ctx, "tcp4", d.Address)
	if err != nil {
		return nil, err
	}
	c := &client{Conn: conn, id: id, kind: d.Kind}
	conn.SetDeadline(time.Now().Add(connectWithin))
	if err := d.greet(ctx, c); err != nil {
		conn.Close()
		return nil, err
	}
	return c, nil
}

// greet does the TLS handshake, and the upgrade where there are paths.
func (d *dialer) greet(ctx context.Context, c *client) error {
	if d.Kind == tcp {
		return nil
	}
	if d.Kind == wss {
		secure := tls.Client(c.Conn, d.tls)
		if err := secure.HandshakeContext(ctx); err != nil {
			return fmt.Errorf("TLS: %w", err)
		}
		state := secure.ConnectionState()
		d.curve.Store(uint32(state.CurveID))
		d.cipher.Store(uint32(state.CipherSuite))
		c.Conn = secure
	}
	if len(d.requests) == 0 {
		return nil
	}
	if _, err := c.Write(d.requests[c.id%uint64(len(d.requests))]); err != nil {
		return err
	}
	return readUpgrade(bufio.NewReaderSize(c, 1024))
}

// open is dial and one echo.
func (d *dialer) open(ctx context.Context, m *message) (*client, error) {
	c, err := d.dial(ctx)
	if err != nil {
		return nil, err
	}
	if err := c.echo(m); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// echo sends a message and waits for its echo.
func (c *client) echo(m *message) error {
	m.number(c.id)
	c.SetDeadline(time.Now().Add(echoWithin))
	if _, err := c.Write(m.out); err != nil {
		return err
	}
	return c.receive(m)
}

// receive reads one echo.
func (c *client) receive(m *message) error {
	if _, err := io.ReadFull(c, m.in); err != nil {
		return fmt.Errorf("waiting for an echo: %w", err)
	}
	return m.check()
}

// end closes the tunnel as a well-behaved client does: a Close, or the end of
// the bytes, and then what the other side has to say until its end.
func (c *client) end() error {
	defer c.Close()
	c.SetDeadline(time.Now().Add(echoWithin))
	if c.kind == tcp {
		if err := c.Conn.(*net.TCPConn).CloseWrite(); err != nil {
			return err
		}
	} else if _, err := c.Write(closeFrame()); err != nil {
		return err
	}
	var rest [64]byte
	n, err := io.ReadFull(c, rest[:])
	switch {
	case err == nil:
		return errors.New("the gateway sent something after the Close")
	case errors.Is(err, os.ErrDeadlineExceeded):
		return errors.New("the gateway did not end the connection after the Close")
	case c.kind != tcp && (n != 4 || rest[0] != frameClose):
		return fmt.Errorf("the Close was answered with % x: %w", rest[:n], err)
	}
	return nil
}
