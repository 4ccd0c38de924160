package relay

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"singlegate/internal/leaktest"
)

// patience is how long a test waits for what must happen; it is only ever used
// up by a test that fails.
const patience = 10 * time.Second

// onGoroutines is how the tests of this run move bytes: TestMain runs all of them
// for both ways.
var onGoroutines bool

func TestMain(m *testing.M) {
	leaktest.Main(twice{m})
}

type twice struct{ *testing.M }

func (t twice) Run() int {
	inLoops := t.M.Run()
	onGoroutines = true
	return max(inLoops, t.M.Run())
}

func newEngine(t testing.TB) *Engine {
	e := New()
	e.noLoops = onGoroutines
	e.waits.tick = 5 * time.Millisecond
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := e.Wait(ctx); err != nil {
			t.Error(err)
		}
		e.Close()
	})
	return e
}

// wire says how the legs of a test's tunnel are made.
type wire struct{ clientTLS, upstreamTLS bool }

var wires = map[string]wire{
	"plain":   {},
	"edge":    {clientTLS: true},
	"all TLS": {clientTLS: true, upstreamTLS: true},
}

// quick are waits for tests in which a peer does not behave.
var quick = waits{answer: 50 * time.Millisecond, linger: 50 * time.Millisecond, half: 100 * time.Millisecond, last: 20 * time.Millisecond}

// rig is a tunnel with a test at both of its ends.
type rig struct {
	Tunnel
	t        testing.TB
	engine   *Engine
	client   net.Conn // the client's end of the client leg
	upstream net.Conn // the node's end of the upstream leg
	reports  chan Report
}

// setup is what a test may change before the tunnel starts.
type setup struct {
	Options
	wire
	waits         *waits
	client        func(net.Conn) net.Conn // wraps the gateway's end of the client leg
	upstream      func(net.Conn) net.Conn
	under         func(net.Conn) net.Conn // wraps the sockets of both legs, under TLS
	clientEarly   []byte
	upstreamEarly []byte
	panics        bool // is what the test wants
	sockets       int  // buffer sizes of all sockets; 0: the system's
	engine        func(*Engine)
}

func open(t testing.TB, s setup) *rig {
	t.Helper()
	r := &rig{t: t, engine: newEngine(t), reports: make(chan Report, 2)}
	if s.waits != nil {
		r.engine.waits = *s.waits
		r.engine.waits.tick = 5 * time.Millisecond
	}
	if s.engine != nil {
		s.engine(r.engine)
	}
	client, near := pairOver(t, s.clientTLS, s.sockets, false, s.under)
	upstream, far := pairOver(t, s.upstreamTLS, s.sockets, true, s.under)
	r.client, r.upstream = client, upstream
	if s.client != nil {
		near = s.client(near)
	}
	if s.upstream != nil {
		far = s.upstream(far)
	}
	s.Ended = func(report Report) {
		if report.EndedBy == EndPanic && !s.panics {
			t.Errorf("the tunnel panicked: %v\n%s", report.Cause, report.Cause.(*PanicError).Stack)
		}
		r.reports <- report
	}
	r.Tunnel = r.engine.Start(Leg{near, s.clientEarly}, Leg{far, s.upstreamEarly}, s.Options)
	t.Cleanup(func() {
		r.Kill()
		r.wait()
	})
	return r
}

// report waits for the tunnel's end.
func (r *rig) report() Report {
	r.t.Helper()
	r.wait()
	select {
	case report := <-r.reports:
		return report
	default:
		r.t.Fatal("the tunnel ended without a report")
		return Report{}
	}
}

func (r *rig) wait() {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := r.engine.Wait(ctx); err != nil {
		r.t.Fatal(err)
	}
}

// pair returns the two ends of a connection over loopback, the peer's first.
// The gateway is the TLS server of its clients and the TLS client of upstreams.
func pair(t testing.TB, secure bool, sockets int, upstream bool) (peer, ours net.Conn) {
	t.Helper()
	return pairOver(t, secure, sockets, upstream, nil)
}

// pairOver is pair with the gateway's socket wrapped, once a handshake is over.
func pairOver(t testing.TB, secure bool, sockets int, upstream bool, wrap func(net.Conn) net.Conn) (peer, ours net.Conn) {
	t.Helper()
	dialled, accepted, err := connect()
	if err != nil {
		t.Fatal(err)
	}
	peer, ours = dialled, accepted
	if upstream {
		peer, ours = accepted, dialled
	}
	t.Cleanup(func() { dialled.Close(); accepted.Close() })
	if sockets > 0 {
		for _, c := range []net.Conn{peer, ours} {
			c.(*net.TCPConn).SetReadBuffer(sockets)
			c.(*net.TCPConn).SetWriteBuffer(sockets)
		}
	}
	peer.SetDeadline(time.Now().Add(patience))
	if wrap == nil {
		wrap = func(c net.Conn) net.Conn { return c }
	}
	if !secure {
		return peer, wrap(ours)
	}
	under := &swapper{ours}
	if peer, ours, err = overTLS(peer, under, upstream); err != nil {
		t.Fatal(err)
	}
	under.Conn = wrap(under.Conn)
	return peer, ours
}

// connect returns the two ends of a connection over loopback.
func connect() (dialled, accepted net.Conn, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	defer l.Close()
	if dialled, err = net.Dial("tcp", l.Addr().String()); err != nil {
		return nil, nil, err
	}
	accepted, err = l.Accept()
	return dialled, accepted, err
}

func overTLS(peer, ours net.Conn, upstream bool) (net.Conn, net.Conn, error) {
	asClient := &tls.Config{InsecureSkipVerify: true}
	asServer := &tls.Config{Certificates: []tls.Certificate{certificate()}}
	a, b := tls.Client(peer, asClient), tls.Server(ours, asServer)
	if upstream {
		a, b = tls.Server(peer, asServer), tls.Client(ours, asClient)
	}
	shaken := make(chan error, 1)
	go func() { shaken <- a.Handshake() }()
	return a, b, errors.Join(b.Handshake(), <-shaken)
}

// swapper is the least that a loop wants under a *tls.Conn.
type swapper struct{ net.Conn }

func (s *swapper) NetConn() net.Conn  { return s.Conn }
func (s *swapper) Swap(next net.Conn) { s.Conn = next }
func (s *swapper) CloseWrite() error  { return s.Conn.(interface{ CloseWrite() error }).CloseWrite() }

var certificate = sync.OnceValue(func() tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		panic(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
})

// frame is one WebSocket frame as a test writes and sees it: the payload is
// never masked.
type frame struct {
	first   byte // FIN, RSV and opcode
	payload []byte
}

const (
	fin      = 0x80
	rsv1     = 0x40
	cont     = 0x0
	text     = 0x1
	binaryOp = 0x2
	closeOp  = 0x8
	ping     = 0x9
	pong     = 0xa
)

var testMask = [4]byte{0xa1, 0x02, 0xff, 0x37}

// wireBytes is f as a server, or with a mask as a client sends it.
func (f frame) wireBytes(masked bool) []byte {
	b := []byte{f.first, 0}
	switch n := len(f.payload); {
	case n < 126:
		b[1] = byte(n)
	case n < 1<<16:
		b[1] = 126
		b = binary.BigEndian.AppendUint16(b, uint16(n))
	default:
		b[1] = 127
		b = binary.BigEndian.AppendUint64(b, uint64(n))
	}
	if !masked {
		return append(b, f.payload...)
	}
	b[1] |= 0x80
	b = append(b, testMask[:]...)
	for i, c := range f.payload {
		b = append(b, c^testMask[i&3])
	}
	return b
}

func closing1(code uint16, reason string) frame {
	return frame{fin | closeOp, append(binary.BigEndian.AppendUint16(nil, code), reason...)}
}

// readFrame is a parser of its own, so that what the tests see does not depend
// on what they test.
func readFrame(r io.Reader) (f frame, masked bool, err error) {
	var head [14]byte
	if _, err = io.ReadFull(r, head[:2]); err != nil {
		return f, false, err
	}
	f.first, masked = head[0], head[1]&0x80 != 0
	n := uint64(head[1] & 0x7f)
	switch n {
	case 126:
		_, err = io.ReadFull(r, head[:2])
		n = uint64(binary.BigEndian.Uint16(head[:]))
	case 127:
		_, err = io.ReadFull(r, head[:8])
		n = binary.BigEndian.Uint64(head[:])
	}
	if err != nil {
		return f, masked, torn(err)
	}
	if n > 1<<20 {
		return f, masked, fmt.Errorf("frame of %d bytes", n)
	}
	var mask [4]byte
	if masked {
		if _, err = io.ReadFull(r, mask[:]); err != nil {
			return f, masked, torn(err)
		}
	}
	f.payload = make([]byte, n)
	_, err = io.ReadFull(r, f.payload)
	for i := range f.payload {
		f.payload[i] ^= mask[i&3]
	}
	return f, masked, torn(err)
}

func torn(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

func (r *rig) send(c net.Conn, b []byte) {
	r.t.Helper()
	if _, err := c.Write(b); err != nil {
		r.t.Fatalf("sending %d bytes: %v", len(b), err)
	}
}

// wantFrame reads a frame and compares it.
func (r *rig) wantFrame(c net.Conn, want frame, wantMasked bool) {
	r.t.Helper()
	got, masked, err := readFrame(c)
	if err != nil {
		r.t.Fatalf("reading a frame: %v; want %x %.200q", err, want.first, want.payload)
	}
	if got.first != want.first || string(got.payload) != string(want.payload) || masked != wantMasked {
		r.t.Fatalf("got frame %x %.200q masked %v, want %x %.200q masked %v",
			got.first, got.payload, masked, want.first, want.payload, wantMasked)
	}
}

// wantEOF reads an orderly end: no byte, no reset.
func (r *rig) wantEOF(c net.Conn) {
	r.t.Helper()
	var b [64]byte
	if n, err := c.Read(b[:]); n != 0 || err != io.EOF {
		r.t.Fatalf("got %q, %v; want EOF", b[:n], err)
	}
}

func (r *rig) closeWrite(c net.Conn) {
	r.t.Helper()
	l := newLeg(EndClient, c)
	if err := l.closeWrite(); err != nil {
		r.t.Fatalf("CloseWrite: %v", err)
	}
}

// reset ends a connection with a RST.
func reset(c net.Conn) {
	tcp(c).SetLinger(0)
	tcp(c).Close()
}

// tcp is the socket under a test's end of a connection.
func tcp(c net.Conn) *net.TCPConn {
	if over, ok := c.(*tls.Conn); ok {
		c = over.NetConn()
	}
	return c.(*net.TCPConn)
}

// end is what a test expects of a report beside the traffic.
type end struct {
	by     End
	code   uint16
	reason string
	cause  string // part of the cause's text; "": nil
}

func (r *rig) wantEnd(want end) Report {
	r.t.Helper()
	got := r.report()
	cause := ""
	if got.Cause != nil {
		cause = got.Cause.Error()
	}
	if got.EndedBy != want.by || got.CloseCode != want.code || got.CloseReason != want.reason ||
		(cause == "") != (want.cause == "") || !strings.Contains(cause, want.cause) {
		r.t.Fatalf("report: by %q, close %d %q, cause %q; want %+v", got.EndedBy, got.CloseCode, got.CloseReason, cause, want)
	}
	return got
}
