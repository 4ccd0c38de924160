package gateway

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"singlegate/discovery"
	"singlegate/upstream"
)

const (
	soakPatience = 30 * time.Second       // for anything at all
	soakStall    = 300 * time.Millisecond // of the route /stall
	soakNap      = 100 * time.Millisecond // of those who read slowly, and go on
	soakChunk    = 16 << 10
	soakLargest  = 300_000
	slowBuffer   = 32 << 10 // of those who do not read: it is full soon, and written to in pieces
)

// A soak is a gateway with nodes that do all that nodes do. Nodes "live…" are
// left alone, "churn…" come, go, move and are drained, "slow…" take their time.
type soak struct {
	t      *testing.T
	e      *edge
	seed   uint64
	noise  []byte // what every payload is cut from
	hello  []byte // of a TLS client
	app    *http.Client
	folder string
	addrs  map[string]string
	ids    atomic.Uint64 // of scripts and appointments
	loaded atomic.Bool   // the load is on
	read   int           // lines of the log
	slower time.Duration // the factor by which pauses are longer

	mu      sync.Mutex
	seen    map[string]int
	waiting map[string]chan struct{} // by name: see appointment
	faults  int
}

func startSoak(t *testing.T, seed uint64) *soak {
	s := &soak{t: t, seed: seed, slower: slowness(), seen: map[string]int{}, waiting: map[string]chan struct{}{}, addrs: map[string]string{}}
	s.noise = make([]byte, 1<<20)
	rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)}).Read(s.noise)
	s.hello, s.folder = clientHello(t), t.TempDir()
	for _, id := range []string{"live1", "live2", "churn1", "churn2", "churn3", "elsewhere", "slow1"} {
		s.addrs[id] = s.node(s.serveWS)
	}
	s.addrs["tcp1"] = s.node(echoUntilEnd)
	web := httptest.NewServer(http.HandlerFunc(s.serveHTTP))
	t.Cleanup(web.Close)
	s.addrs["web1"] = web.Listener.Addr().String()

	patient := DefaultTimeouts() // a machine that is full is not what this is about
	patient.Connect, patient.Handshake = soakPatience, soakPatience
	impatient := patient
	impatient.Stall = soakStall
	routes := []Route{
		{At: "ws", Paths: []string{"/ws/{node}"}, Service: "im", Rewrite: "/", Timeouts: patient},
		{At: "stall", Paths: []string{"/stall/{node}"}, Service: "im", Rewrite: "/", Timeouts: impatient},
		{At: "app", Paths: []string{"/app"}, Service: "app", Timeouts: patient},
		{At: "close", Paths: []string{"/close/{node}"}, Service: "im", Refuse: RefuseClose},
	}
	s.e = startEdge(t, routes, map[string]map[string]string{"im": nil, "app": nil, "tcp": nil}, func(cfg *Config) {
		cfg.Listeners = append(cfg.Listeners, Listener{At: "tcp", Name: "tcp", Address: "127.0.0.1:0", Service: "tcp", Timeouts: patient})
		cfg.Limits.HandshakeTimeout, cfg.Limits.HeadTimeout = soakPatience, soakPatience
		for i := range cfg.Services {
			cfg.Services[i].Tunnels = TunnelPolicy{AddressChange: PolicyDrain, Failing: PolicyKeep, Maintenance: PolicyDrain,
				Deregistered: PolicyDrain, After: 300 * time.Millisecond, PerSecond: 100}
		}
	})
	s.e.plain = s.e.address("plain") // of the two without TLS
	s.e.Publish(s.snapshot(nil))
	s.app = s.e.client()
	s.app.Timeout = soakPatience
	s.app.Transport.(*http.Transport).MaxIdleConnsPerHost = 4
	t.Cleanup(web.CloseClientConnections)
	return s
}

// slowness is what the race detector costs, roughly. Without longer pauses the
// machine would be full, and all would be about that.
func slowness() time.Duration {
	if info, ok := debug.ReadBuildInfo(); ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		return 8
	}
	return 1
}

// snapshot is all nodes, but for what change does to those of service im.
func (s *soak) snapshot(change func(fleet)) discovery.Snapshot {
	all := map[string]fleet{"im": {}, "app": {}, "tcp": {}}
	for _, id := range []string{"live1", "live2", "churn1", "churn2", "churn3", "slow1"} {
		all["im"].add(id, s.addrs[id])
	}
	all["app"].add("web1", s.addrs["web1"])
	all["tcp"].add("tcp1", s.addrs["tcp1"])
	if change != nil {
		change(all["im"])
	}
	static := discovery.Static{Services: map[string][]discovery.Node{}}
	for name, f := range all {
		for _, id := range slices.Sorted(maps.Keys(f)) {
			static.Services[name] = append(static.Services[name], f[id])
		}
	}
	return static.Snapshot()
}

// begin starts the load; it ends with ctx, after so long, in order.
func (s *soak) begin(ctx context.Context, group *sync.WaitGroup, total time.Duration) {
	s.loaded.Store(true)
	context.AfterFunc(ctx, func() { s.loaded.Store(false) })
	live, many := 20, 4
	if *soakTime > 0 {
		live, many = 100, 16
	}
	each := func(n int, name string, do func(context.Context, *rand.Rand)) {
		for range n {
			r := s.rand()
			group.Go(func() {
				for ctx.Err() == nil {
					do(ctx, r)
					s.count(name)
				}
			})
		}
	}
	each(live, "live tunnels", s.live)
	each(many, "churn", s.churn)
	each(2, "TCP tunnels", s.tcp)
	each(2, "slow for a while", s.slow)
	if total > time.Second { // a stall outlasts a shorter load
		each(max(many/4, 2), "clients that read no more", s.deafClient)
		each(max(many/4, 2), "nodes that read no more", s.deafNode)
	}
	each(2, "HTTP requests", s.request)
	each(2, "HTTP broken off", s.brokenRequest)
	each(2, "refused", s.refused)
	each(max(many/2, 2), "TLS broken off", s.brokenTLS)
	each(1, "reloads", s.reload)
	each(1, "changes of nodes", s.change)
	each(1, "drains", s.drain)
}

// idle waits until the gateway has nothing to do, and has nothing left of it.
func (s *soak) idle() {
	s.t.Helper()
	if err := s.e.Apply(s.e.cfg, nil); err != nil {
		s.t.Error(err)
	}
	s.e.Publish(s.snapshot(nil))
	s.app.CloseIdleConnections()
	eventually(s.t, "no tunnel lives", func() bool { return s.e.Tunnels() == 0 })
	s.e.upstream.Close()
	s.e.empty()
	for _, service := range []string{"im", "app", "tcp"} {
		eventually(s.t, "no lease is held of "+service, func() bool {
			for _, n := range s.e.activeLeases(service) {
				if n != 0 {
					return false
				}
			}
			return true
		})
	}
	eventually(s.t, "no drain is under way", func() bool {
		s.e.drains.mu.Lock()
		defer s.e.drains.mu.Unlock()
		return len(s.e.drains.active) == 0
	})
	s.readLog()
	if n := s.e.panics.Load(); n > 0 {
		s.t.Errorf("%d panics", n)
	}
	settled()
}

// expectLoops: it is the event loops that are under load.
func (s *soak) expectLoops() {
	for _, stack := range stacks() {
		if strings.Contains(stack, "relay.(*direction)") {
			s.fault("a tunnel runs on goroutines:\n%s", stack)
		}
	}
}

var (
	endedBy  = regexp.MustCompile(`"ended_by":"(\w+)"`)
	unshaken = regexp.MustCompile(`"cause":"(\w+)".*"TLS handshake failed"`)
)

// readLog counts what ended tunnels, and lets go of what it has read, but for
// some lines to show.
func (s *soak) readLog() {
	s.e.logs.mu.Lock()
	lines := s.e.logs.lines[s.read:]
	s.e.logs.lines = slices.Clone(s.e.logs.lines[max(0, len(s.e.logs.lines)-30):])
	s.read = len(s.e.logs.lines)
	s.e.logs.mu.Unlock()
	for _, line := range lines {
		if by := endedBy.FindStringSubmatch(line); by != nil {
			s.count("ended by " + by[1])
		}
		if why := unshaken.FindStringSubmatch(line); why != nil {
			s.count("TLS handshake failed: " + why[1])
		}
		if strings.Contains(line, `"level":"error"`) {
			s.fault("the gateway logged %s", line)
		}
	}
}

func (s *soak) count(what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen[what]++
}

func (s *soak) tally() (list []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, what := range slices.Sorted(maps.Keys(s.seen)) {
		list = append(list, fmt.Sprintf("\n  %s: %d", what, s.seen[what]))
	}
	return list
}

func (s *soak) expectSeen(list ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, what := range list {
		if s.seen[what] == 0 {
			s.t.Errorf("the load had none of: %s", what)
		}
	}
}

// fault fails the test; the first few say why.
func (s *soak) fault(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.faults++; s.faults <= 20 {
		s.t.Errorf(format, args...)
	} else {
		s.t.Fail()
	}
}

func (s *soak) rand() *rand.Rand { return rand.New(rand.NewPCG(s.seed, s.ids.Add(1))) }

func upTo(r *rand.Rand, most time.Duration) time.Duration {
	return time.Duration(r.Int64N(int64(most)))
}

// rest is a pause of up to most.
func rest(ctx context.Context, r *rand.Rand, most time.Duration) bool {
	return pause(ctx, upTo(r, most)+1)
}

// A script is what one end of a tunnel says: the same seed, the same frames. So
// the other end knows every byte to come, and nothing has to be kept.
type script struct {
	r       *rand.Rand
	noise   []byte
	largest int
	left    int // fragments of the message that is under way
	begun   bool
	buf     []byte
}

func (s *soak) script(seed uint64, largest int) *script {
	return &script{r: rand.New(rand.NewPCG(s.seed, ^seed)), noise: s.noise, largest: largest, buf: make([]byte, soakChunk)}
}

// next is the next frame, without a mask, and its payload.
func (p *script) next() (h ws.Header, payload []byte) {
	if p.r.IntN(6) == 0 {
		h, n := ws.Header{Fin: true, OpCode: ws.OpPing}, p.r.IntN(126)
		h.Length = int64(n)
		return h, p.cut(n)
	}
	h.OpCode = ws.OpContinuation
	if !p.begun {
		p.begun, p.left, h.OpCode = true, 1, ws.OpBinary
		if p.r.IntN(3) == 0 {
			p.left += p.r.IntN(4)
		}
	}
	p.left--
	h.Fin = p.left == 0
	p.begun = !h.Fin
	n := 1
	switch p.r.IntN(20) {
	default:
		n += p.r.IntN(200)
	case 0, 1, 2, 3, 4, 5:
		n += p.r.IntN(8000)
	case 6, 7:
		n += p.r.IntN(p.largest)
	}
	n = min(n, p.largest)
	h.Length = int64(n)
	return h, p.cut(n)
}

func (p *script) cut(n int) []byte {
	at := p.r.IntN(len(p.noise) - n + 1)
	return p.noise[at : at+n]
}

// writeTo writes the next frame, masked as a client's when r is not nil.
func (p *script) writeTo(w *bufio.Writer, mask bool) error {
	h, payload := p.next()
	return writeFrame(w, h, payload, mask, p.buf)
}

func writeFrame(w *bufio.Writer, h ws.Header, payload []byte, mask bool, buf []byte) error {
	if mask {
		h.Masked, h.Mask = true, ws.NewMask()
	}
	if err := ws.WriteHeader(w, h); err != nil {
		return err
	}
	for at := 0; at < len(payload); {
		n := copy(buf, payload[at:])
		if mask {
			ws.Cipher(buf[:n], h.Mask, at)
		}
		if _, err := w.Write(buf[:n]); err != nil {
			return err
		}
		at += n
	}
	return w.Flush()
}

// errAltered is a frame that is not the one that was sent.
var errAltered = errors.New("altered")

// A closeError is a Close where another frame was to come.
type closeError ws.StatusCode

func (c closeError) Error() string { return fmt.Sprintf("a Close %d came", int(c)) }

// readFrom reads the next frame and compares it, as it comes back from a node.
func (p *script) readFrom(br *bufio.Reader) error {
	got, err := ws.ReadHeader(br)
	if err != nil {
		return err
	}
	if got.OpCode == ws.OpClose {
		body := make([]byte, min(got.Length, 125))
		if _, err := io.ReadFull(br, body); err != nil {
			return err
		}
		code, _ := ws.ParseCloseFrameData(body)
		return closeError(code)
	}
	want, payload := p.next()
	if want.OpCode == ws.OpPing {
		want.OpCode = ws.OpPong
	}
	if got != want {
		return fmt.Errorf("%w: got the frame %+v, want %+v", errAltered, got, want)
	}
	for at := 0; at < len(payload); {
		b := p.buf[:min(len(p.buf), len(payload)-at)]
		if _, err := io.ReadFull(br, b); err != nil {
			return err
		}
		if !bytes.Equal(b, payload[at:at+len(b)]) {
			return fmt.Errorf("%w: payload of %+v, between bytes %d and %d", errAltered, want, at, at+len(b))
		}
		at += len(b)
	}
	return nil
}

// A soakConn is a client's end.
type soakConn struct {
	net.Conn
	tcp *net.TCPConn
	br  *bufio.Reader
	bw  *bufio.Writer
}

// dial connects to the gateway. In a storm of TLS handshakes, too, it must work.
func (s *soak) dial(addr string, secure bool) *soakConn {
	conn, err := net.DialTimeout("tcp", addr, soakPatience)
	if err != nil {
		s.fault("dialling: %v", err)
		return nil
	}
	c := &soakConn{Conn: conn, tcp: conn.(*net.TCPConn)}
	if secure {
		c.Conn = tls.Client(conn, &tls.Config{RootCAs: s.e.roots, ServerName: "localhost"})
	}
	c.SetDeadline(time.Now().Add(2 * soakPatience)) // the gateway gives up first
	c.br, c.bw = bufio.NewReaderSize(c.Conn, soakChunk), bufio.NewWriterSize(c.Conn, soakChunk)
	return c
}

func (s *soak) dialAny(r *rand.Rand) *soakConn {
	if r.IntN(2) == 0 {
		return s.dial(s.e.plain, false)
	}
	return s.dial(s.e.secure, true)
}

// open makes a handshake; nil with a status when it is refused, and with 0 when
// there was no answer, which is a fault.
func (s *soak) open(r *rand.Rand, path string) (*soakConn, int) {
	c := s.dialAny(r)
	if c == nil {
		return nil, 0
	}
	began := time.Now()
	_, sent := io.WriteString(c, handshake(path))
	resp, err := http.ReadResponse(c.br, nil)
	if err != nil {
		s.fault("the handshake for %s, after %v: %v; sending: %v", path, time.Since(began), err, sent)
		c.Close()
		return nil, 0
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		c.Close()
		return nil, resp.StatusCode
	}
	return c, resp.StatusCode
}

// reset ends the connection with a RST.
func (c *soakConn) reset() {
	c.tcp.SetLinger(0)
	c.tcp.Close()
}

func (c *soakConn) closeWrite() {
	if over, ok := c.Conn.(*tls.Conn); ok {
		over.CloseWrite()
	}
	c.tcp.CloseWrite()
}

func (c *soakConn) send(op ws.OpCode, payload string) error {
	_, err := c.Write(clientFrame(op, payload))
	return err
}

func (c *soakConn) bye() error { return c.send(ws.OpClose, string(ws.NewCloseFrameBody(1000, ""))) }

// hearEnd is awaitEnd for a client that answers a Close.
func (s *soak) hearEnd(c *soakConn, after string) {
	c.SetDeadline(time.Now().Add(soakPatience))
	for {
		h, err := ws.ReadHeader(c.br)
		if err != nil {
			break
		}
		if h.OpCode == ws.OpClose {
			c.bye()
		}
		c.br.Discard(int(h.Length))
	}
	s.awaitEnd(c, after)
}

// awaitEnd reads until the connection ends, which it must.
func (s *soak) awaitEnd(c *soakConn, after string) {
	c.SetDeadline(time.Now().Add(soakPatience))
	if _, err := io.Copy(io.Discard, c.br); errors.Is(err, os.ErrDeadlineExceeded) {
		s.fault("a tunnel did not end after: %s", after)
	}
}

// talk says messages of up to largest bytes until ctx ends and then goodbye, and
// compares what the node echoes, to the last byte. most bounds the pauses.
func (s *soak) talk(ctx context.Context, c *soakConn, r *rand.Rand, largest int, most, nap time.Duration) error {
	ctx, enough := context.WithCancel(ctx)
	defer enough()
	seed := s.ids.Add(1)
	sent, wrote := 0, make(chan error, 1)
	go func() {
		p, pauses := s.script(seed, largest), rand.New(rand.NewPCG(seed, s.seed))
		for {
			c.SetWriteDeadline(time.Now().Add(soakPatience))
			if err := p.writeTo(c.bw, true); err != nil {
				wrote <- fmt.Errorf("writing: %w", err)
				return
			}
			sent++
			if !p.begun && !rest(ctx, pauses, most*s.slower) {
				wrote <- c.bye()
				return
			}
		}
	}()
	got, err := 0, error(nil)
	for p := s.script(seed, largest); err == nil; {
		c.SetReadDeadline(time.Now().Add(soakPatience))
		if err = p.readFrom(c.br); err == nil {
			got++
		}
		if nap > 0 && r.IntN(5) == 0 {
			rest(ctx, r, nap)
		}
	}
	enough()
	var code closeError
	if !errors.As(err, &code) {
		c.Close() // so that the writer ends
		return errors.Join(fmt.Errorf("reading after %d frames: %w", got, err), <-wrote)
	}
	switch wrong := <-wrote; {
	case wrong != nil || code != closeError(ws.StatusNormalClosure):
		return errors.Join(fmt.Errorf("after %d frames %w", got, err), wrong)
	case got != sent:
		return fmt.Errorf("%w: the node's Close came after %d frames of %d", errAltered, got, sent)
	}
	s.awaitEnd(c, "a Close each way")
	return nil
}

// live is a tunnel that nobody ends, so nothing of it may be lost.
func (s *soak) live(ctx context.Context, r *rand.Rand) {
	c, status := s.open(r, "/ws/"+[]string{"live1", "live2"}[r.IntN(2)]+"/echo")
	if c == nil {
		s.fault("a live tunnel was refused: %d", status)
		rest(ctx, r, time.Second)
		return
	}
	defer c.Close()
	// Most live as long as the load.
	if r.IntN(5) == 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, upTo(r, 20*time.Second))
		defer cancel()
	}
	if err := s.talk(ctx, c, r, soakLargest, 300*time.Millisecond, 0); err != nil {
		s.fault("a live tunnel: %v", err)
	}
}

// slow is a tunnel both of whose ends stop reading now and then, for less than
// a stall. On a machine that is held up it may be one all the same.
func (s *soak) slow(ctx context.Context, r *rand.Rand) {
	c, status := s.open(r, "/stall/slow1/nap")
	if c == nil {
		s.fault("a slow tunnel was refused: %d", status)
		return
	}
	defer c.Close()
	c.tcp.SetReadBuffer(slowBuffer)
	ctx, cancel := context.WithTimeout(ctx, upTo(r, 5*time.Second))
	defer cancel()
	err := s.talk(ctx, c, r, soakLargest, time.Microsecond, soakNap)
	switch {
	case errors.Is(err, errAltered), errors.Is(err, os.ErrDeadlineExceeded):
		s.fault("a slow tunnel: %v", err)
	case err != nil:
		s.count("slow for a while, and stalled")
	}
}

// churn is a tunnel that says little and ends in one of many ways.
func (s *soak) churn(ctx context.Context, r *rand.Rand) {
	defer rest(ctx, r, 100*time.Millisecond)
	node := "churn" + strconv.Itoa(1+r.IntN(3))
	c, status := s.open(r, "/ws/"+node+"/echo")
	switch {
	case c == nil && (status == 503 || status == 404):
		s.count("churn refused: " + strconv.Itoa(status))
		return
	case c == nil:
		s.fault("a handshake with %s was answered %d", node, status)
		return
	}
	defer c.Close()
	seed := s.ids.Add(1)
	say, hear := s.script(seed, 20_000), s.script(seed, 20_000)
	for n := r.IntN(6); n > 0 || say.begun; n-- { // whole messages: the node's orders come between them
		if err := errors.Join(say.writeTo(c.bw, true), hear.readFrom(c.br)); err != nil {
			s.untimely(err)
			return
		}
	}
	how := endings()
	names := slices.Sorted(maps.Keys(how))
	name := names[r.IntN(len(names))]
	s.count("ending: " + name)
	how[name](s, ctx, c, r, node)
}

// untimely takes note of a tunnel that ended while it was used: drains and kills
// may do that, but nothing may hang, and nothing may be altered before.
func (s *soak) untimely(err error) {
	if errors.Is(err, errAltered) || errors.Is(err, os.ErrDeadlineExceeded) {
		s.fault("a tunnel of a node that comes and goes: %v", err)
		return
	}
	s.count("churn ended early")
}

type soakEnding func(s *soak, ctx context.Context, c *soakConn, r *rand.Rand, node string)

// endings are the ways of a tunnel to end.
func endings() map[string]soakEnding {
	byNode := func(word string) soakEnding {
		return func(s *soak, _ context.Context, c *soakConn, r *rand.Rand, _ string) {
			c.send(ws.OpText, word)
			if word != "close" && *soakTime > 0 && r.IntN(8) == 0 {
				s.awaitEnd(c, "the node did: "+word+"; nor did the client answer") // which takes seconds
				return
			}
			s.hearEnd(c, "the node did: "+word)
		}
	}
	return map[string]soakEnding{
		"the client says goodbye": func(s *soak, _ context.Context, c *soakConn, _ *rand.Rand, _ string) {
			c.bye()
			s.awaitEnd(c, "the client's Close")
		},
		"the client says goodbye and is gone": func(_ *soak, _ context.Context, c *soakConn, _ *rand.Rand, _ string) { c.bye() },
		"the client is gone":                  func(*soak, context.Context, *soakConn, *rand.Rand, string) {},
		"the client resets":                   func(_ *soak, _ context.Context, c *soakConn, _ *rand.Rand, _ string) { c.reset() },
		"the client ends its half": func(s *soak, _ context.Context, c *soakConn, _ *rand.Rand, _ string) {
			c.closeWrite()
			s.awaitEnd(c, "the client's half-close")
		},
		"the client is gone in mid-frame": func(_ *soak, _ context.Context, c *soakConn, r *rand.Rand, _ string) {
			frame := clientFrame(ws.OpBinary, strings.Repeat("x", 1000))
			c.Write(frame[:1+r.IntN(len(frame)-1)])
			if r.IntN(2) == 0 {
				c.reset()
			}
		},
		"the node says goodbye":            byNode("close"),
		"the node is gone":                 byNode("end"),
		"the node resets":                  byNode("reset"),
		"the node ends its half":           byNode("half"),
		"the node is gone in mid-frame":    byNode("break"),
		"a tunnel of the node is killed":   killed,
		"the tunnel stays until a drain":   stays,
		"the client leaves before the 101": leavesEarly,
	}
}

// killed kills one of the node's tunnels; perhaps it is this one.
func killed(s *soak, _ context.Context, _ *soakConn, r *rand.Rand, node string) {
	if list := s.e.tunnels.of(upstream.Key{Service: "im", ID: node}, nil); len(list) > 0 {
		list[r.IntN(len(list))].live.Kill()
	}
}

// stays goes on until the gateway ends it, or for some seconds.
func stays(s *soak, ctx context.Context, c *soakConn, r *rand.Rand, _ string) {
	ctx, cancel := context.WithTimeout(ctx, upTo(r, 4*time.Second))
	defer cancel()
	if err := s.talk(ctx, c, r, 20_000, 50*time.Millisecond, 0); err != nil {
		s.untimely(err)
	}
}

// leavesEarly is another connection, whose client does not wait for the answer.
func leavesEarly(s *soak, ctx context.Context, _ *soakConn, r *rand.Rand, node string) {
	c := s.dialAny(r)
	if c == nil {
		return
	}
	defer c.Close()
	io.WriteString(c, handshake("/ws/"+node+"/"+[]string{"echo", "late"}[r.IntN(2)])+string(clientFrame(ws.OpText, "early")))
	rest(ctx, r, 20*time.Millisecond)
	if r.IntN(2) == 0 {
		c.reset()
	}
}

// An appointment is kept by a node's and a client's end of one tunnel: one waits
// until the other has met it.
func (s *soak) appointment() (name string, met chan struct{}) {
	name, met = strconv.FormatUint(s.ids.Add(1), 10), make(chan struct{})
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting[name] = met
	return name, met
}

func (s *soak) keep(name string) chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	met := s.waiting[name]
	delete(s.waiting, name)
	return met
}

// deafClient reads no more while the node floods it: that ends the tunnel, which
// the node sees.
func (s *soak) deafClient(ctx context.Context, r *rand.Rand) {
	name, met := s.appointment()
	c, status := s.open(r, "/stall/slow1/flood/"+name)
	if c == nil {
		s.keep(name)
		s.fault("a flood was refused: %d", status)
		return
	}
	defer c.Close()
	c.tcp.SetReadBuffer(slowBuffer)
	for range r.IntN(100) {
		if _, err := c.br.Discard(1000); err != nil {
			s.fault("a flood ended early: %v", err)
			return
		}
	}
	select {
	case <-met:
	case <-time.After(soakPatience):
		s.fault("a client that does not read did not end its tunnel")
	}
}

// deafNode floods a node that reads no more: that ends the tunnel.
func (s *soak) deafNode(ctx context.Context, r *rand.Rand) {
	name, met := s.appointment()
	defer close(met)
	c, status := s.open(r, "/stall/slow1/deaf/"+name)
	if c == nil {
		s.keep(name)
		s.fault("a tunnel to a deaf node was refused: %d", status)
		return
	}
	defer c.Close()
	err := error(nil)
	for p := s.script(s.ids.Add(1), soakLargest); err == nil; {
		err = p.writeTo(c.bw, true)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		s.fault("a node that does not read did not end its tunnel: %v", err)
	}
	s.awaitEnd(c, "the node read no more")
}

// tcp is a tunnel of bytes: everything comes back, with the end of each half.
func (s *soak) tcp(ctx context.Context, r *rand.Rand) {
	defer rest(ctx, r, 200*time.Millisecond)
	c := s.dial(s.e.address("tcp"), false)
	if c == nil {
		return
	}
	defer c.Close()
	want := s.noise[:1+r.IntN(soakLargest)]
	go func() {
		c.Write(want)
		c.closeWrite()
	}()
	if r.IntN(4) == 0 {
		rest(ctx, r, 5*time.Millisecond)
		c.reset()
		return
	}
	if got, err := io.ReadAll(c.br); err != nil || !bytes.Equal(got, want) {
		s.fault("of %d bytes by TCP %d came back, or others: %v", len(want), len(got), err)
	}
}

// request asks for some bytes, or sends some and gets them back.
func (s *soak) request(ctx context.Context, r *rand.Rand) {
	defer rest(ctx, r, 50*time.Millisecond)
	at, n := r.IntN(1000), 1+r.IntN(soakLargest)
	base := []string{"http://" + s.e.plain, "https://localhost" + s.e.secure[strings.LastIndex(s.e.secure, ":"):]}[r.IntN(2)]
	var resp *http.Response
	var err error
	if r.IntN(2) == 0 {
		resp, err = s.app.Get(fmt.Sprintf("%s/app/noise?at=%d&n=%d", base, at, n))
	} else {
		resp, err = s.app.Post(base+"/app/echo", "application/octet-stream", bytes.NewReader(s.noise[at:at+n]))
	}
	if err != nil {
		s.fault("a request: %v", err)
		return
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != 200 || !bytes.Equal(got, s.noise[at:at+n]) {
		s.fault("a request was answered %d with %d bytes, or others than %d: %v", resp.StatusCode, len(got), n, err)
	}
}

// brokenRequest leaves in the middle: of the head, of its body, of the answer.
func (s *soak) brokenRequest(ctx context.Context, r *rand.Rand) {
	defer rest(ctx, r, 100*time.Millisecond)
	c := s.dialAny(r)
	if c == nil {
		return
	}
	defer c.Close()
	switch r.IntN(4) {
	case 0:
		io.WriteString(c, "GET /app/noise HTTP/1.1\r\nHo")
	case 1:
		io.WriteString(c, "POST /app/echo HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\n")
		c.Write(s.noise[:r.IntN(100_000)])
	case 2:
		io.WriteString(c, "GET /app/noise?at=0&n=1000000 HTTP/1.1\r\nHost: h\r\n\r\n")
		c.br.Discard(1 + r.IntN(100_000))
	case 3:
		io.WriteString(c, "GET /app/wait HTTP/1.1\r\nHost: h\r\n\r\n")
		rest(ctx, r, 50*time.Millisecond)
	}
	if r.IntN(2) == 0 {
		c.reset()
	}
}

// refused is a handshake that the gateway or the node refuses.
func (s *soak) refused(ctx context.Context, r *rand.Rand) {
	defer rest(ctx, r, 50*time.Millisecond)
	cases := []struct {
		request string
		status  int
	}{
		{handshake("/ws/nobody/echo"), 404},
		{handshake("/nowhere"), 404},
		{handshake("/close/nobody"), 101},
		{handshake("/ws/live1/refuse"), 403},
		{handshake("/ws/live1/garbage"), 502},
		{handshake("/ws/live1/hangup"), 502},
		{strings.Replace(handshake("/ws/live1/echo"), "Version: 13", "Version: 8", 1), 426},
		{strings.Replace(handshake("/ws/live1/echo"), testKey, "short", 1), 400},
	}
	want := cases[r.IntN(len(cases))]
	c := s.dialAny(r)
	if c == nil {
		return
	}
	defer c.Close()
	io.WriteString(c, want.request)
	resp, err := http.ReadResponse(c.br, nil)
	if err != nil || resp.StatusCode != want.status {
		s.fault("want %d, got %v, %v for %.40q", want.status, resp, err, want.request)
		return
	}
	if r.IntN(2) == 0 {
		io.Copy(io.Discard, c.br)
	}
}

// brokenTLS is a client of the TLS port that never gets to the end of its handshake.
func (s *soak) brokenTLS(ctx context.Context, r *rand.Rand) {
	defer rest(ctx, r, 100*time.Millisecond)
	c := s.dial(s.e.secure, false)
	if c == nil {
		return
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	switch r.IntN(5) {
	case 0: // gone in the middle of its first message
		c.Write(s.hello[:r.IntN(len(s.hello))])
		rest(ctx, r, 10*time.Millisecond)
	case 1: // gone when the answer comes
		c.Write(s.hello)
		c.br.Discard(1 + r.IntN(500))
	case 2: // no TLS at all
		c.Write(append([]byte{0}, s.noise[:r.IntN(3000)]...))
		io.Copy(io.Discard, c.br)
	case 3: // HTTP
		io.WriteString(c, "GET / HTTP/1.1\r\nHost: h\r\n\r\n")
		io.Copy(io.Discard, c.br)
	case 4: // silent for a while
		c.Write(s.hello[:r.IntN(len(s.hello))])
		rest(ctx, r, 2*time.Second)
	}
	if r.IntN(2) == 0 {
		c.reset()
	}
}

// reload puts another config in force, with other listeners and routes.
func (s *soak) reload(ctx context.Context, r *rand.Rand) {
	cfg := s.e.cfg
	for i := range r.IntN(3) {
		name := fmt.Sprintf("extra%d", i)
		cfg.Listeners = append(slices.Clip(cfg.Listeners), Listener{At: name, Name: name, Address: "127.0.0.1:0", TLS: i == 0})
		cfg.Routes = append(slices.Clip(cfg.Routes), Route{At: name, Paths: []string{"/" + name}, Static: s.folder})
	}
	if err := s.e.Apply(cfg, nil); err != nil {
		s.fault("a reload: %v", err)
	}
	bad := cfg
	bad.Listeners = append(slices.Clip(bad.Listeners), Listener{At: "new", Name: "new", Address: "127.0.0.1:0"},
		Listener{At: "taken", Name: "taken", Address: s.addrs["live1"]})
	if s.e.Apply(bad, nil) == nil {
		s.fault("a config that is wrong was taken")
	}
	pause(ctx, time.Second)
}

// change publishes nodes that are gone, elsewhere, or not well.
func (s *soak) change(ctx context.Context, r *rand.Rand) {
	s.e.Publish(s.snapshot(func(f fleet) {
		for _, id := range []string{"churn1", "churn2", "churn3"} {
			switch r.IntN(8) {
			case 0:
				delete(f, id)
			case 1:
				f.add(id, s.addrs["elsewhere"])
			case 2:
				f.set(id, discovery.Maintenance)
			case 3:
				f.set(id, discovery.Failing)
			}
		}
	}))
	pause(ctx, time.Second)
}

// drain is an operator who drains a node and lets it work again.
func (s *soak) drain(ctx context.Context, r *rand.Rand) {
	node := "churn" + strconv.Itoa(1+r.IntN(3))
	if err := s.e.Drain("im", node, 1+r.IntN(50)); err != nil && !errors.Is(err, ErrNoNode) {
		s.fault("a drain: %v", err)
	}
	rest(ctx, r, time.Second)
	if err := s.e.Undrain("im", node); err != nil && !errors.Is(err, ErrNoNode) {
		s.fault("the end of a drain: %v", err)
	}
	rest(ctx, r, time.Second)
}

// node runs a node until the test ends; its address is returned.
func (s *soak) node(serve func(net.Conn)) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		s.t.Fatal(err)
	}
	var group sync.WaitGroup
	group.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			group.Go(func() {
				defer c.Close()
				serve(c)
			})
		}
	})
	s.t.Cleanup(func() {
		l.Close()
		group.Wait()
	})
	return l.Addr().String()
}

func echoUntilEnd(c net.Conn) {
	if _, err := io.Copy(c, c); err == nil {
		c.(*net.TCPConn).CloseWrite()
	}
}

// serveWS is a node; the path says what it does.
func (s *soak) serveWS(c net.Conn) {
	br := bufio.NewReaderSize(c, soakChunk)
	head := readHead(br)
	mode, name, _ := strings.Cut(strings.TrimPrefix(strings.Split(head+"  ", " ")[1], "/"), "/")
	switch mode {
	case "refuse":
		io.WriteString(c, "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
		return
	case "garbage":
		io.WriteString(c, "what?\r\n\r\n")
		return
	case "hangup":
		return
	case "late":
		io.Copy(io.Discard, br) // until the gateway gives up
		return
	}
	if _, err := io.WriteString(c, switching(head)); err != nil {
		return
	}
	switch mode {
	case "flood":
		defer close(s.keep(name))
		w := bufio.NewWriterSize(c, soakChunk)
		for p := s.script(1, soakLargest); p.writeTo(w, false) == nil; {
		}
	case "deaf":
		c.(*net.TCPConn).SetReadBuffer(slowBuffer)
		<-s.keep(name) // the client's wait is bounded
	case "nap":
		c.(*net.TCPConn).SetReadBuffer(slowBuffer)
		s.echo(c, br, s.rand())
	default:
		s.echo(c, br, nil)
	}
}

// echo sends every frame back, a Ping as a Pong, piece by piece as it comes. A
// text says how the node is to end. naps draws when it does not read; nil: never.
func (s *soak) echo(c net.Conn, br *bufio.Reader, naps *rand.Rand) {
	w, buf := bufio.NewWriterSize(c, soakChunk), make([]byte, soakChunk)
	for {
		h, err := ws.ReadHeader(br)
		if err != nil {
			return
		}
		if h.OpCode == ws.OpText {
			word := make([]byte, h.Length)
			io.ReadFull(br, word)
			ws.Cipher(word, h.Mask, 0)
			obey(c, br, string(word))
			return
		}
		if err := echoFrame(w, br, h, buf); err != nil || h.OpCode == ws.OpClose {
			return
		}
		if naps != nil && s.loaded.Load() && naps.IntN(5) == 0 {
			time.Sleep(upTo(naps, soakNap))
		}
	}
}

func echoFrame(w *bufio.Writer, br *bufio.Reader, h ws.Header, buf []byte) error {
	answer := ws.Header{Fin: h.Fin, Rsv: h.Rsv, OpCode: h.OpCode, Length: h.Length}
	if h.OpCode == ws.OpPing {
		answer.OpCode = ws.OpPong
	}
	if err := ws.WriteHeader(w, answer); err != nil {
		return err
	}
	for at := int64(0); at < h.Length; {
		b := buf[:min(int64(len(buf)), h.Length-at)]
		if _, err := io.ReadFull(br, b); err != nil {
			return err
		}
		ws.Cipher(b, h.Mask, int(at))
		if _, err := w.Write(b); err != nil {
			return err
		}
		at += int64(len(b))
	}
	return w.Flush()
}

// obey ends a node's connection as a client has asked for.
func obey(c net.Conn, br *bufio.Reader, word string) {
	tcp := c.(*net.TCPConn)
	switch word {
	case "close":
		c.Write(serverFrame(ws.OpClose, string(ws.NewCloseFrameBody(1000, ""))))
		ws.ReadHeader(br) // the client's
	case "reset":
		tcp.SetLinger(0)
	case "half":
		tcp.CloseWrite()
		io.Copy(io.Discard, br)
	case "break":
		c.Write(serverFrame(ws.OpBinary, "never whole")[:5])
	}
}

func (s *soak) serveHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/app/echo":
		b, err := io.ReadAll(r.Body)
		if err == nil {
			w.Write(b)
		}
	case "/app/wait":
		<-r.Context().Done()
	default:
		at, _ := strconv.Atoi(r.FormValue("at"))
		n, _ := strconv.Atoi(r.FormValue("n"))
		w.Write(s.noise[at : at+n])
	}
}
