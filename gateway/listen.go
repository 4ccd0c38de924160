package gateway

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
	"github.com/valyala/fasthttp"
)

// A listener accepts connections on one address and has fasthttp serve them.
// Its settings may be swapped while it runs; the socket stays.
type listener struct {
	server   *Server
	socket   net.Listener
	http     *fasthttp.Server
	settings atomic.Pointer[listenerSettings]
	log      zerolog.Logger
	done     chan struct{} // closed when serving has ended

	mu    sync.Mutex
	conns map[*clientConn]struct{} // accepted, not closed, not detached
	open  sync.WaitGroup           // one for each of conns

	running context.Context // of its exchanges
	cut     context.CancelCauseFunc
}

type listenerSettings struct {
	Listener
	implied *impliedRoute // what it serves; nil: the routes of the table
	limits  Limits
	public  Public // resolved: the listener's over the config's
	tls     *tls.Config
}

// openListener binds the address. Serving begins with serve.
func openListener(s *Server, w wanted, pub Public, limits Limits) (*listener, error) {
	socket, err := s.listen(w.Name, w.Address)
	if err != nil {
		return nil, fmt.Errorf("%s: listener %s: %w", w.At, w.Name, bindHint(err))
	}
	l := &listener{
		server: s,
		socket: socket,
		log:    s.log.With().Str("listener", w.Name).Logger(),
		done:   make(chan struct{}),
		conns:  make(map[*clientConn]struct{}),
	}
	l.running, l.cut = context.WithCancelCause(s.running)
	l.configure(w, pub, limits)
	l.http = l.newHTTP(limits)
	return l, nil
}

func bindHint(err error) error {
	switch {
	case errors.Is(err, errAddrInUse):
		return fmt.Errorf("%w: another process listens there; `ss -ltnp` shows which", err)
	case errors.Is(err, errAccess):
		return fmt.Errorf("%w: ports below 1024 need root, CAP_NET_BIND_SERVICE, or a socket that systemd passes", err)
	}
	return err
}

func (l *listener) configure(w wanted, pub Public, limits Limits) {
	l.settings.Store(&listenerSettings{
		Listener: w.Listener,
		implied:  w.implied,
		limits:   limits,
		public:   resolvePublic(w, pub, l.socket.Addr()),
		tls:      l.server.tlsConfig(w),
	})
}

// resolvePublic is how clients name this listener.
func resolvePublic(w wanted, pub Public, bound net.Addr) Public {
	own := w.Public
	if w.TLS && w.implied == nil && own.Port == 0 {
		own.Port = pub.Port // the config's port is that of the TLS entry
	}
	if own.Host == "" {
		own.Host = pub.Host
	}
	if tcp, ok := bound.(*net.TCPAddr); ok && own.Port == 0 {
		own.Port = uint16(tcp.Port)
	}
	return own
}

// reconfigure swaps the settings while the listener runs. What fasthttp was set
// up with stays until a restart.
func (l *listener) reconfigure(w wanted, pub Public, limits Limits) {
	old := l.settings.Load().limits
	if old.HeadSize != limits.HeadSize || old.HeadTimeout != limits.HeadTimeout || old.KeepAlive != limits.KeepAlive {
		l.log.Warn().Msg("limits.head_size, head_timeout and keep_alive of an open listener change with a restart")
		limits.HeadSize, limits.HeadTimeout, limits.KeepAlive = old.HeadSize, old.HeadTimeout, old.KeepAlive
	}
	l.configure(w, pub, limits)
}

// newHTTP sets fasthttp up.
func (l *listener) newHTTP(limits Limits) *fasthttp.Server {
	return &fasthttp.Server{
		Handler:                       l.server.handle,
		ErrorHandler:                  l.server.handleHeadError,
		ExpectHandler:                 l.server.handleExpect,
		HeaderReceived:                headReceived,
		Logger:                        debugLog{l.log},
		ReadBufferSize:                limits.HeadSize,
		ReadTimeout:                   limits.HeadTimeout,
		IdleTimeout:                   limits.KeepAlive,
		MaxRequestBodySize:            1 << 62, // bodies are streamed, and counted where they are limited
		StreamRequestBody:             true,
		ReduceMemoryUsage:             true, // silent connections hold no buffer, and are closed without a word
		CloseOnShutdown:               true,
		NoDefaultServerHeader:         true,
		NoDefaultContentType:          true,
		DisableHeaderNamesNormalizing: true,
		DisablePreParseMultipartForm:  true,
		SecureErrorLogMessage:         true, // errors must not quote requests: tokens
	}
}

// headReceived is called with each request head, before fasthttp acts upon it.
// fasthttp knows some headers only in one spelling; it gets them so. The first
// bytes of a body, which it reads before the handler runs, have the time of a
// transfer, not that of a head.
func headReceived(h *fasthttp.RequestHeader) fasthttp.RequestConfig {
	var expects []string // names as they are spelt
	continues := false
	// Not by AllInOrder: it unfolds the raw head in place, which checkHead would
	// not see any more.
	for line := range bytes.SplitSeq(h.RawHeaders(), []byte("\n")) {
		name, value, _ := bytes.Cut(line, []byte(":"))
		switch {
		case bytes.EqualFold(name, []byte("Expect")):
			expects = append(expects, string(name))
			continues = bytes.EqualFold(bytes.TrimSpace(value), []byte("100-continue"))
		case bytes.EqualFold(name, []byte("Connection")) && slices.Contains(tokensOf([]string{string(value)}), "close"):
			h.SetConnectionClose()
		}
	}
	switch {
	case !h.IsHTTP11(): // RFC 9110 section 10.1.1: to be ignored
		for _, name := range expects {
			h.Del(name)
		}
	case len(expects) == 1 && continues:
		h.Del(expects[0])
		h.Set("Expect", "100-continue")
	}
	return fasthttp.RequestConfig{ReadTimeout: DefaultTimeouts().Stall}
}

// serve accepts until the listener is closed.
func (l *listener) serve() {
	defer close(l.done)
	if err := l.http.Serve(l); err != nil {
		l.log.Error().Err(err).Msg("listener ended")
	}
}

// Addr implements net.Listener.
func (l *listener) Addr() net.Addr { return l.socket.Addr() }

// Close implements net.Listener: no more connections are accepted; those that
// there are go on. It may be called again: shut and fasthttp both do.
func (l *listener) Close() error {
	if err := l.socket.Close(); !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

// Accept implements net.Listener for fasthttp. It returns an error only when
// the listener was closed: running out of descriptors, or a client that is
// gone already, passes.
func (l *listener) Accept() (net.Conn, error) {
	for delay := time.Duration(0); ; {
		socket, err := l.socket.Accept()
		if err == nil {
			if c := l.wrap(socket); c != nil && !l.serveTCP(c) {
				return c, nil
			}
			continue
		}
		if errors.Is(err, net.ErrClosed) {
			return nil, io.EOF
		}
		delay = min(max(2*delay, 5*time.Millisecond), time.Second)
		l.log.Error().Err(err).Dur("retry", delay).Msg("accepting a connection failed")
		time.Sleep(delay)
	}
}

// wrap makes a clientConn of an accepted socket; nil when there is no room for
// even a refusal.
func (l *listener) wrap(socket net.Conn) net.Conn {
	crowd := l.server.descriptors.judge(socket)
	if crowd == exhausted {
		l.server.descriptors.warn(l.log)
		socket.Close()
		return nil
	}
	set := l.settings.Load()
	c := &clientConn{
		Conn: socket, socket: socket, listener: l, peer: addrPort(socket.RemoteAddr()),
		secure: set.TLS, crowded: crowd == crowded,
	}
	if !l.welcome(c, set) {
		socket.Close()
		return nil
	}
	var conn net.Conn = c
	if c.secure {
		t := tls.Server(&gatedConn{Conn: socket, gate: l.server.gate}, set.tls)
		c.Conn = t
		conn = &secureConn{clientConn: c, tls: t}
	}
	l.mu.Lock()
	l.conns[c] = struct{}{}
	l.open.Add(1)
	l.mu.Unlock()
	return conn
}

// welcome says whether a connection may begin, unless only its PROXY header tells.
func (l *listener) welcome(c *clientConn, set *listenerSettings) bool {
	header, refused := set.ProxyIn.expects(set.ProxyIn != "" && l.server.state.Load().trusts(c.peer.Addr()))
	if refused {
		l.proxyRefused(c.peer.Addr(), errProxyUntrusted)
		return false
	}
	c.unknown = header
	return header || l.letIn(c)
}

// tlsConfig is the server's, with what the listener has of its own; ports for
// plain TCP take clients of any protocol.
func (s *Server) tlsConfig(w wanted) *tls.Config {
	cfg := s.tls
	if w.implied != nil && w.implied.tcp {
		cfg = s.tcpTLS
	}
	return w.ownTLS(cfg)
}

func (l *listener) forget(c *clientConn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, there := l.conns[c]; there {
		delete(l.conns, c)
		l.open.Done()
	}
}

// handshake makes the TLS handshake within its limit.
func (l *listener) handshake(c *secureConn) error {
	ctx, cancel := context.WithTimeout(context.Background(), l.settings.Load().limits.HandshakeTimeout)
	defer cancel()
	gated := c.tls.NetConn().(*gatedConn)
	c.socket.SetDeadline(time.Time{}) // ctx is the one deadline
	err := gated.through(ctx, c.tls.HandshakeContext)
	if err != nil {
		return err
	}
	if c.tls.ConnectionState().NegotiatedProtocol == challengeProtocol {
		return errChallengeDone
	}
	if cert := c.certificate(); cert != nil {
		c.subject = FieldSubject.of(cert)
	}
	return nil
}

// handshakeFailed says why a handshake failed. Clients that go away, probe or
// say nothing are no news.
func (l *listener) handshakeFailed(c *secureConn, err error) {
	var notTLS tls.RecordHeaderError
	if errors.As(err, &notTLS) && notTLS.Conn != nil && looksLikeHTTP(notTLS.RecordHeader[:]) {
		c.linger.Store(true) // the rest of the request is unread
		c.socket.SetWriteDeadline(time.Now().Add(time.Second))
		io.WriteString(c.socket, plainOnTLS)
	}
	if errors.Is(err, errChallengeDone) {
		l.log.Info().Str("client", c.peer.Addr().String()).Str("name", c.tls.ConnectionState().ServerName).Msg("an ACME server verified a name")
		return
	}
	cause := handshakeCause(err)
	l.countHandshakeFailure(cause)
	if strikesFor(cause) && !c.tls.NetConn().(*gatedConn).kept {
		l.server.guard.strike(l.settings.Load(), c.peer.Addr())
	}
	l.auditHandshake(c, cause, err)
	if errors.Is(err, errHandshakesFull) {
		l.server.gate.warn(l.server.log)
		return
	}
	level := zerolog.DebugLevel
	var refused refusedCertificate
	switch {
	case errors.Is(err, errHandshakePanic):
		l.server.panics.Add(1)
		level = zerolog.ErrorLevel
	case errors.As(err, &refused):
		l.log.Warn().Str("client", c.peer.Addr().String()).Str("subject", refused.subject).Err(err).Msg("a client's certificate was refused")
		return
	}
	if cause == noCertificate && l.server.noCertificate.due() {
		level = zerolog.WarnLevel // once in ten seconds
	}
	l.log.WithLevel(level).Str("client", c.peer.Addr().String()).Str("cause", cause).Err(err).Msg("TLS handshake failed")
}

func looksLikeHTTP(head []byte) bool {
	for _, m := range []string{"GET /", "HEAD ", "POST ", "PUT /", "OPTIO", "DELET", "PATCH"} {
		if strings.HasPrefix(string(head), m) {
			return true
		}
	}
	return false
}

// noCertificate is the cause of a handshake whose certificate is still being got.
const noCertificate = "no_certificate"

// handshakeCause sorts handshake failures into a few causes.
func handshakeCause(err error) string {
	var notTLS tls.RecordHeaderError
	var alert tls.AlertError
	var lacking interface{ NoCertificate() bool }
	var refused refusedCertificate
	switch {
	case errors.As(err, &refused):
		return "client_certificate"
	case errors.As(err, &lacking) && lacking.NoCertificate():
		return noCertificate
	case errors.Is(err, errHandshakePanic):
		return "panic"
	case errors.Is(err, errHandshakesFull):
		return "overloaded"
	case errors.Is(err, context.DeadlineExceeded):
		return "timeout"
	case errors.Is(err, io.EOF), errors.Is(err, errConnReset):
		return "client_left"
	case errors.As(err, &notTLS):
		return "not_tls"
	case errors.As(err, &alert), strings.Contains(err.Error(), "remote error"):
		return "client_refused"
	}
	return "protocol"
}

// shut ends serving: connections get until ctx's end to finish their requests,
// then they and what they asked of nodes are cut. It returns when the last
// connection is closed or has become a tunnel.
func (l *listener) shut(ctx context.Context) {
	l.Close() // fasthttp knows nothing to shut down if serve has only just begun
	err := l.http.ShutdownWithContext(ctx)
	<-l.done // from here on no connection is added
	if err != nil {
		l.cut(errGatewayEnds)
		l.killAll()
	}
	l.open.Wait()
	l.cut(errGatewayEnds)
}

func (l *listener) killAll() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.conns {
		c.kill()
	}
}

func addrPort(a net.Addr) netip.AddrPort {
	if t, ok := a.(*net.TCPAddr); ok {
		ap := t.AddrPort()
		return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	}
	return netip.AddrPort{}
}

// debugLog is fasthttp's logger. What it says of single connections is left
// out: it quotes what clients sent, and the access log says it better.
type debugLog struct{ log zerolog.Logger }

func (d debugLog) Printf(format string, args ...any) {
	if strings.HasPrefix(format, "error when serving connection") {
		return
	}
	d.log.Debug().Msgf(format, args...)
}
