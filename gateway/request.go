package gateway

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/valyala/fasthttp"

	"singlegate/gateway/auth"
)

// A request is one HTTP request or WebSocket handshake on its way through the
// gateway. It lives as long as its answer; ctx only until the handler returns.
type request struct {
	server *Server
	state  *state // the table and settings it sees, from beginning to end
	ctx    *fasthttp.RequestCtx
	conn   *clientConn
	id     string
	start  time.Time

	listener  *listenerSettings
	client    netip.Addr // the peer, or whom a trusted proxy names
	trusted   bool       // the peer is a trusted proxy
	method    string
	rawHost   string // as the client sent it
	host      string // canonical
	path      string // canonical
	query     string // with its "?", byte for byte
	websocket bool
	match     match
	exchange  *exchange      // of a proxied HTTP request
	answer    string         // to a challenge of an ACME server
	answered  bool           // it is one
	decision  *auth.Decision // by which it was authorised; nil: nobody had to
}

func (s *Server) newRequest(ctx *fasthttp.RequestCtx) *request {
	r := &request{
		server: s,
		state:  s.state.Load(),
		ctx:    ctx,
		conn:   connOf(ctx),
		start:  time.Now(),
		method: string(ctx.Method()),
	}
	r.listener = r.conn.listener.settings.Load()
	r.identify()
	return r
}

func connOf(ctx *fasthttp.RequestCtx) *clientConn {
	if c, ok := ctx.Conn().(*secureConn); ok {
		return c.clientConn
	}
	return ctx.Conn().(*clientConn)
}

// identify finds out who asks. A trusted proxy's word counts for the client's
// address and the request id, nobody else's.
func (r *request) identify() {
	peer := r.conn.peer.Addr()
	r.client = peer
	r.trusted = r.state.trusts(peer)
	if r.trusted {
		if c, ok := r.forwardedClient(); ok {
			r.client = c
		}
		if ids := r.headers("X-Request-Id"); len(ids) == 1 && isRequestID(ids[0]) {
			r.id = ids[0]
			return
		}
	}
	r.id = newRequestID()
}

// forwardedClient walks X-Forwarded-For from its end over the trusted proxies
// to the first address that is none of them.
func (r *request) forwardedClient() (netip.Addr, bool) {
	var hops []string
	for _, v := range r.headers("X-Forwarded-For") {
		hops = append(hops, strings.Split(v, ",")...)
	}
	var client netip.Addr
	for i := len(hops) - 1; i >= 0; i-- {
		a, err := netip.ParseAddr(strings.TrimSpace(hops[i]))
		if err != nil {
			break
		}
		client = a.Unmap()
		if !r.state.trusts(client) {
			break
		}
	}
	return client, client.IsValid()
}

func newRequestID() string {
	var b [8]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// isRequestID bounds what is taken over into logs and headers.
func isRequestID(s string) bool {
	if s == "" || len(s) > 64 {
		return false
	}
	for i := range len(s) {
		if !isUnreserved(s[i]) {
			return false
		}
	}
	return true
}

// headers are the values of all headers of that name, whatever its case.
func (r *request) headers(name string) []string {
	var values []string
	for k, v := range r.ctx.Request.Header.All() {
		if len(k) == len(name) && strings.EqualFold(string(k), name) {
			values = append(values, string(v))
		}
	}
	return values
}

var (
	errFolded     = errors.New("a header line is folded")
	errBareLF     = errors.New("a header line ends with LF instead of CRLF")
	errHeaderName = errors.New("a header name holds a space")
	errEncoding   = errors.New("Transfer-Encoding is not \"chunked\"")
	errTwoWays    = errors.New("Content-Length and Transfer-Encoding are both given")
)

// parse checks what fasthttp lets pass and takes the request target apart.
func (r *request) parse() *problem {
	if v := string(r.ctx.Request.Header.Protocol()); v != "HTTP/1.1" && v != "HTTP/1.0" {
		return versionRefused()
	}
	if err := r.checkHead(); err != nil {
		return badRequest(err)
	}
	if strings.EqualFold(r.method, "CONNECT") || strings.EqualFold(r.method, "TRACE") {
		return methodRefused(r.method)
	}
	if e := r.headers("Expect"); len(e) > 0 && (len(e) > 1 || !strings.EqualFold(e[0], "100-continue")) {
		return expectationFailed()
	}
	if err := r.parseTarget(); err != nil {
		return badRequest(err)
	}
	return r.parseUpgrade()
}

func (r *request) checkHead() error {
	h := &r.ctx.Request.Header
	raw := h.RawHeaders() // first of all: AllInOrder unfolds it in place
	if bytes.Contains(raw, []byte("\n ")) || bytes.Contains(raw, []byte("\n\t")) {
		return errFolded
	}
	if bytes.Count(raw, []byte("\n")) != bytes.Count(raw, []byte("\r\n")) {
		return errBareLF // fasthttp reads such lines, but does not list them in AllInOrder
	}
	length, encoding := false, false
	for k, v := range h.AllInOrder() {
		switch name := string(k); {
		case strings.Contains(name, " "):
			return errHeaderName
		case strings.EqualFold(name, "Content-Length"):
			length = true
		case strings.EqualFold(name, "Transfer-Encoding"):
			encoding = true
			if !strings.EqualFold(string(v), "chunked") {
				return errEncoding
			}
		}
	}
	if length && encoding {
		return errTwoWays
	}
	return nil
}

func (r *request) parseTarget() error {
	r.rawHost = string(r.ctx.Request.Header.Host())
	targetHost, path, query, err := splitTarget(string(r.ctx.Request.Header.RequestURI()))
	if err != nil {
		return err
	}
	if r.rawHost == "" { // HTTP/1.0
		r.rawHost = targetHost
	}
	if targetHost != "" && !strings.EqualFold(targetHost, r.rawHost) {
		return errHostMismatch
	}
	if r.rawHost != "" { // HTTP/1.0 may have none
		if r.host, err = canonicalHost(r.rawHost); err != nil {
			return err
		}
	}
	r.query = query
	r.path, err = canonicalPath(path)
	return err
}

// parseUpgrade tells WebSocket handshakes from other requests. Offers of other
// protocols alone are ignored, as RFC 9110 section 7.8 allows.
func (r *request) parseUpgrade() *problem {
	tokens := tokensOf(r.headers("Upgrade"))
	for _, t := range tokens {
		r.websocket = r.websocket || t == "websocket"
	}
	if r.websocket && len(tokens) > 1 {
		return badHandshake("Upgrade must be just \"websocket\"")
	}
	return nil
}

func tokensOf(values []string) []string {
	var tokens []string
	for _, v := range values {
		for t := range strings.SplitSeq(v, ",") {
			if t = strings.ToLower(strings.TrimSpace(t)); t != "" {
				tokens = append(tokens, t)
			}
		}
	}
	return tokens
}

// hasBody tells whether a body follows the request's head. fasthttp's
// ContentLength is below zero for a request without one, but -1 for a chunked one.
func (r *request) hasBody() bool {
	n := r.ctx.Request.Header.ContentLength()
	return n > 0 || n == -1
}

// checkHandshake holds a handshake against RFC 6455 section 4.2.1.
func (r *request) checkHandshake() *problem {
	h := &r.ctx.Request.Header
	keys, versions := r.headers("Sec-WebSocket-Key"), r.headers("Sec-WebSocket-Version")
	switch {
	case r.method != "GET":
		return badHandshake("the method must be GET")
	case !h.IsHTTP11():
		return badHandshake("it needs HTTP/1.1")
	case !slices.Contains(tokensOf(r.headers("Connection")), "upgrade"):
		return badHandshake("Connection must name Upgrade")
	case r.hasBody() || len(r.headers("Content-Length")) > 0 || len(r.headers("Transfer-Encoding")) > 0:
		return badHandshake("it must have no body")
	case len(versions) != 1 || strings.TrimSpace(versions[0]) != "13":
		return wrongVersion()
	case len(keys) != 1 || !isHandshakeKey(keys[0]):
		return badHandshake("it needs one Sec-WebSocket-Key of 16 bytes in base64")
	}
	return nil
}

func isHandshakeKey(key string) bool {
	b, err := base64.StdEncoding.DecodeString(key)
	return err == nil && len(b) == 16
}
