package relay

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"
)

// A cork holds back what is written from a certain write on, until it is pulled.
type cork struct {
	net.Conn
	mu   sync.Mutex
	pass int // so many writes pass; -1: all
	held []byte
	got  []byte // everything that was read
}

func (c *cork) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.got = append(c.got, b[:n]...)
	return n, err
}

// wantCloseNotify looks at the last record that was read, of TLS 1.2, which shows
// what it is; crypto/tls takes an end without one for an end.
func (c *cork) wantCloseNotify(t *testing.T) {
	t.Helper()
	kind := byte(0)
	for b := c.got; len(b) >= 5; b = b[min(len(b), 5+int(binary.BigEndian.Uint16(b[3:]))):] {
		kind = b[0]
	}
	if kind != alertRecord {
		t.Errorf("the last record is of type %d, want an alert", kind)
	}
}

func (c *cork) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pass != 0 {
		c.pass--
		return c.Conn.Write(b)
	}
	c.held = append(c.held, b...)
	return len(b), nil
}

// put corks everything from here on.
func (c *cork) put() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pass = 0
}

// pull writes everything that was held back at once, and lets the rest pass.
func (c *cork) pull(t *testing.T) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.Conn.SetWriteDeadline(time.Time{}) // which close_notify has left
	if _, err := c.Conn.Write(c.held); err != nil {
		t.Fatal(err)
	}
	c.held, c.pass = nil, -1
}

// A corked client has TLS over a cork; its handshake is over, on both sides.
type corked struct {
	*tls.Conn
	cork *cork
	near net.Conn // the gateway's end
}

// corkedClient makes one. Beside the handshake's last message the client sends
// what with does, in one segment.
func corkedClient(t *testing.T, config *tls.Config, with func(*tls.Conn)) corked {
	t.Helper()
	return corkedOver(t, config, with, 0)
}

// corkedOver is corkedClient with sockets of a size.
func corkedOver(t *testing.T, config *tls.Config, with func(*tls.Conn), sockets int) corked {
	t.Helper()
	peer, ours := pair(t, false, sockets, false)
	c := corked{cork: &cork{Conn: peer, pass: -1}}
	if with != nil {
		c.cork.pass = 1 // the ClientHello
	}
	config = config.Clone()
	config.InsecureSkipVerify = true
	c.Conn = tls.Client(c.cork, config)
	server := tls.Server(&swapper{ours}, &tls.Config{Certificates: []tls.Certificate{certificate()}})
	shaken := make(chan error, 1)
	go func() { shaken <- server.Handshake() }()
	if err := c.Conn.Handshake(); err != nil {
		t.Fatal(err)
	}
	if with != nil {
		with(c.Conn)
		c.cork.pull(t)
	}
	if err := <-shaken; err != nil {
		t.Fatal(err)
	}
	c.near = server
	return c
}

// open starts a tunnel for the client.
func (c corked) open(t *testing.T, s setup) *rig {
	t.Helper()
	s.client = func(other net.Conn) net.Conn { other.Close(); return c.near }
	r := open(t, s)
	r.client = c.Conn
	return r
}

// TestTLSRecords: records of one byte and of 16 KiB.
func TestTLSRecords(t *testing.T) {
	for name, w := range wires {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := open(t, webSocket(w))
			small, large := frame{fin | text, noise(300)}, frame{fin | binaryOp, noise(700 << 10)} // large records come after 128 KiB
			for _, side := range []End{EndClient, EndUpstream} {
				from, to := r.sides(side)
				masked := side == EndClient
				for _, b := range small.wireBytes(masked) {
					r.send(from, []byte{b})
				}
				r.wantFrame(to, small, masked)
				go from.Write(large.wireBytes(masked))
				r.wantFrame(to, large, masked)
			}
		})
	}
}

// TestTLSEndWithData: data, close_notify and the end of the stream in one segment.
func TestTLSEndWithData(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for _, kind := range []Kind{Bytes, WebSocket} {
			c := corkedClient(t, &tls.Config{MaxVersion: version}, nil)
			r := c.open(t, setup{Options: Options{Kind: kind}})
			b := join(true, frame{fin | text, []byte("first")}, frame{fin | text, noise(20000)}, closing1(1000, "bye"))
			c.cork.put()
			r.send(r.client, b[:3])
			r.send(r.client, b[3:])
			if err := c.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			c.cork.pull(t)
			r.wantBytes(r.upstream, b)
			r.wantEOF(r.upstream)
			answer := closing1(1000, "").wireBytes(false)
			r.send(r.upstream, answer) // half of the tunnel is still open
			r.wantBytes(r.client, answer)
			r.upstream.Close()
			r.wantEOF(r.client)
			r.wantEOF(c.cork.Conn) // the stream itself has ended too
			if version == tls.VersionTLS12 {
				c.cork.wantCloseNotify(t)
			}
			c.cork.Conn.Close()
			want := end{by: EndClient}
			if kind == WebSocket {
				want = end{by: EndClient, code: 1000, reason: "bye"}
			}
			r.wantEnd(want)
		}
	}
}

// TestCloseNotifyBothWays: both peers say goodbye in TLS, and only then end their
// streams.
func TestCloseNotifyBothWays(t *testing.T) {
	r := open(t, setup{wire: wire{clientTLS: true, upstreamTLS: true}})
	r.send(r.client, []byte("question"))
	for _, c := range []net.Conn{r.client, r.upstream} {
		if err := c.(*tls.Conn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
	}
	r.wantBytes(r.upstream, []byte("question"))
	r.wantEOF(r.upstream)
	r.wantEOF(r.client)
	r.wantEOF(tcp(r.client))
	r.wantEOF(tcp(r.upstream))
	tcp(r.client).Close()
	tcp(r.upstream).Close()
	if report := r.report(); report.Cause != nil || report.EndedBy != EndClient && report.EndedBy != EndUpstream || report.FromClient.Bytes != 8 {
		t.Errorf("report %+v", report)
	}
}

// TestDataWithTheHandshake: what came in one segment with the last message of the
// handshake is in the *tls.Conn already, and nothing comes to wake a loop.
func TestDataWithTheHandshake(t *testing.T) {
	f := frame{fin | text, noise(300)}
	b := f.wireBytes(true)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for _, read := range []int{0, 1, 5} { // bytes that somebody has read from TLS already
			config := &tls.Config{MaxVersion: version}
			with := func(c *tls.Conn) { c.Write(b) }
			if version == tls.VersionTLS12 { // the server has the last word there
				with = nil
			}
			c := corkedClient(t, config, with)
			if with == nil {
				if _, err := c.Write(b); err != nil {
					t.Fatal(err)
				}
			}
			s := webSocket(wire{})
			s.clientEarly = make([]byte, read)
			if _, err := io.ReadFull(c.near, s.clientEarly); err != nil {
				t.Fatal(err)
			}
			r := c.open(t, s)
			r.wantFrame(r.upstream, f, true)
			r.send(r.upstream, f.wireBytes(false))
			r.wantFrame(r.client, f, false)
		}
	}
}

// TestEarlyBytesOverTLS come before what TLS has decrypted already, from both
// sides at once.
func TestEarlyBytesOverTLS(t *testing.T) {
	f, g := frame{fin | text, noise(200)}, frame{fin | binaryOp, noise(100000)}
	s := webSocket(wire{clientTLS: true, upstreamTLS: true})
	up, down := join(true, f, g), join(false, f, g)
	s.clientEarly, s.upstreamEarly = bytes.Clone(up[:100]), bytes.Clone(down[:203])
	r := open(t, s)
	go r.client.Write(up[100:])
	go r.upstream.Write(down[203:])
	for _, want := range []frame{f, g} {
		r.wantFrame(r.upstream, want, true)
		r.wantFrame(r.client, want, false)
	}
}

// TestTLS12 is the old version, with messages both ways and an end in order.
func TestTLS12(t *testing.T) {
	c := corkedClient(t, &tls.Config{MaxVersion: tls.VersionTLS12}, nil)
	r := c.open(t, webSocket(wire{}))
	for _, f := range []frame{{fin | text, []byte("hello")}, {fin | binaryOp, noise(100000)}} {
		go r.client.Write(f.wireBytes(true))
		r.wantFrame(r.upstream, f, true)
		go r.upstream.Write(f.wireBytes(false))
		r.wantFrame(r.client, f, false)
	}
	r.Close(1012, "restart")
	r.wantFrame(r.client, closing1(1012, "restart"), false)
	r.send(r.client, closing1(1012, "").wireBytes(true))
	r.wantFrame(r.upstream, closing1(1012, ""), true)
	r.wantEOF(r.client)
	c.cork.wantCloseNotify(t)
	c.Conn.Close()
	r.upstream.Close()
	r.wantEnd(end{by: EndGateway, code: 1012, reason: "restart"})
}

// TestRenegotiation: a TLS 1.2 client that wants to renegotiate is refused.
func TestRenegotiation(t *testing.T) {
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("openssl, whose s_client renegotiates, is not installed")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	client := exec.CommandContext(ctx, openssl, "s_client", "-tls1_2", "-connect", l.Addr().String())
	commands, err := client.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := client.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { cancel(); client.Wait() }()
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	near := tls.Server(&swapper{accepted}, &tls.Config{Certificates: []tls.Certificate{certificate()}})
	if err := near.HandshakeContext(ctx); err != nil {
		t.Fatal(err)
	}
	r := open(t, setup{client: func(c net.Conn) net.Conn { c.Close(); return near }})
	io.WriteString(commands, "hello\n")
	r.wantBytes(r.upstream, []byte("hello\n"))
	io.WriteString(commands, "R\n")
	r.wantEOF(r.upstream)
	r.upstream.Close()
	if report := r.report(); report.EndedBy != EndClient || report.Cause == nil || !strings.Contains(report.Cause.Error(), "tls") {
		t.Errorf("report %+v", report)
	}
}

// A handWriter writes TLS 1.3 records of a client by hand, because crypto/tls
// sends no KeyUpdate of its own accord. It knows TLS_AES_128_GCM_SHA256.
type handWriter struct {
	t      *testing.T
	secret []byte
	aead   cipher.AEAD
	iv     []byte
	seq    uint64
}

const (
	alertRecord       = 21
	handshakeRecord   = 22
	applicationRecord = 23
)

// keyUpdate asks the peer to update its keys as well.
var keyUpdate = []byte{24, 0, 0, 1, 1}

func newHandWriter(t *testing.T, log string) *handWriter {
	t.Helper()
	for line := range strings.Lines(log) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "CLIENT_TRAFFIC_SECRET_0" {
			secret, err := hex.DecodeString(f[2])
			if err != nil {
				t.Fatal(err)
			}
			h := &handWriter{t: t}
			h.use(secret)
			return h
		}
	}
	t.Fatalf("no secret in %q", log)
	return nil
}

func (h *handWriter) use(secret []byte) {
	block, err := aes.NewCipher(h.derive(secret, "key", 16))
	if err != nil {
		h.t.Fatal(err)
	}
	if h.aead, err = cipher.NewGCM(block); err != nil {
		h.t.Fatal(err)
	}
	h.secret, h.iv, h.seq = secret, h.derive(secret, "iv", 12), 0
}

// derive is HKDF-Expand-Label of RFC 8446 §7.1, without a context.
func (h *handWriter) derive(secret []byte, label string, n int) []byte {
	info := binary.BigEndian.AppendUint16(nil, uint16(n))
	info = append(append(info, byte(6+len(label))), "tls13 "+label+"\x00"...)
	b, err := hkdf.Expand(sha256.New, secret, string(info), n)
	if err != nil {
		h.t.Fatal(err)
	}
	return b
}

// record is the next record of the client.
func (h *handWriter) record(kind byte, payload []byte) []byte {
	nonce := bytes.Clone(h.iv)
	for i, c := range binary.BigEndian.AppendUint64(nil, h.seq) {
		nonce[4+i] ^= c
	}
	h.seq++
	head := binary.BigEndian.AppendUint16([]byte{23, 3, 3}, uint16(len(payload)+1+h.aead.Overhead()))
	return h.aead.Seal(head, nonce, append(bytes.Clone(payload), kind), head)
}

// update is a KeyUpdate, after which other keys are used.
func (h *handWriter) update() []byte {
	b := h.record(handshakeRecord, keyUpdate)
	h.use(h.derive(h.secret, "traffic upd", 32))
	return b
}

// byHand makes a client whose reads are those of crypto/tls, and whose writes are
// made by hand.
func byHand(t *testing.T, sockets int) (corked, *handWriter) {
	t.Helper()
	var log bytes.Buffer
	c := corkedOver(t, &tls.Config{KeyLogWriter: &log, CurvePreferences: []tls.CurveID{tls.X25519}}, nil, sockets)
	if suite := c.ConnectionState().CipherSuite; suite != tls.TLS_AES_128_GCM_SHA256 {
		t.Skipf("written for AES-128-GCM, and this machine prefers %s", tls.CipherSuiteName(suite))
	}
	return c, newHandWriter(t, log.String())
}

// TestKeyUpdate: the peer asks for new keys while it does not read and messages
// for it are piling up. Both directions go on with the keys they should.
func TestKeyUpdate(t *testing.T) {
	c, hand := byHand(t, 64<<10)
	s := webSocket(wire{})
	full := make(chan struct{})
	isFull := sync.OnceFunc(func() { close(full) })
	if onGoroutines {
		isFull() // which is not seen there
	}
	s.engine = func(e *Engine) { useSystem(e, noticing(isFull)) }
	r := c.open(t, s)
	f, mark := frame{fin | binaryOp, noise(7001)}, frame{fin | text, []byte("mark")}
	const flood, updates = 150, 10 // crypto/tls wants data between 16 of them
	flooded := make(chan error, 1)
	go func() {
		_, err := r.upstream.Write(bytes.Repeat(f.wireBytes(false), flood))
		flooded <- err
	}()
	r.wantFrame(r.client, f, false)
	<-full
	marks := make(chan struct{})
	go func() {
		defer close(marks)
		for range updates {
			if got, _, err := readFrame(r.upstream); err != nil || !bytes.Equal(got.payload, mark.payload) {
				t.Errorf("got %x %q, %v; want what the client said between two KeyUpdates", got.first, got.payload, err)
				return
			}
		}
	}()
	for range updates {
		r.send(c.cork, hand.update())
		r.send(c.cork, hand.record(applicationRecord, mark.wireBytes(true)))
	}
	if !onGoroutines { // where an answer to a KeyUpdate waits for the write that is under way
		<-marks
	}
	for range flood - 1 {
		r.wantFrame(r.client, f, false)
	}
	<-marks
	if err := <-flooded; err != nil {
		t.Fatal(err)
	}
	r.send(r.upstream, mark.wireBytes(false))
	r.wantFrame(r.client, mark, false)
}

// TestTornRecords: records that come byte by byte, KeyUpdates among them.
func TestTornRecords(t *testing.T) {
	c, hand := byHand(t, 0)
	r := c.open(t, webSocket(wire{}))
	f := frame{fin | text, noise(40)}
	var b []byte
	for range 3 {
		b = append(b, hand.update()...)
		b = append(b, hand.record(applicationRecord, nil)...) // an empty record is allowed
		b = append(b, hand.record(applicationRecord, f.wireBytes(true))...)
	}
	for i := range b {
		r.send(c.cork, b[i:i+1])
	}
	for range 3 {
		r.wantFrame(r.upstream, f, true)
	}
	r.send(r.upstream, f.wireBytes(false))
	r.wantFrame(r.client, f, false)
}

// TestForgedRecord: a record that TLS does not accept ends the tunnel.
func TestForgedRecord(t *testing.T) {
	c, hand := byHand(t, 0)
	r := c.open(t, webSocket(wire{}))
	b := hand.record(applicationRecord, frame{fin | text, []byte("x")}.wireBytes(true))
	b[len(b)-1] ^= 1
	r.send(c.cork, b)
	r.wantEOF(r.upstream)
	r.upstream.Close()
	if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("the client got %v, want an alert", err)
	}
	c.cork.Conn.Close()
	r.wantEnd(end{by: EndClient, cause: "bad record MAC"})
}

// TestNothingButKeyUpdates: a peer that asks for new keys for ever, and never says
// anything, is not heard for ever.
func TestNothingButKeyUpdates(t *testing.T) {
	c, hand := byHand(t, 0)
	r := c.open(t, webSocket(wire{}))
	for range 100 {
		if _, err := c.cork.Write(hand.update()); err != nil {
			break
		}
	}
	r.wantEOF(r.upstream)
	r.upstream.Close()
	c.cork.Conn.Close()
	if report := r.report(); report.EndedBy != EndClient || report.Cause == nil {
		t.Errorf("report %+v", report)
	}
}
