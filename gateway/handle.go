package gateway

import (
	"errors"
	"io"
	"net"
	"runtime/debug"

	"github.com/valyala/fasthttp"
)

// handle is the way of one request: resolve (parse, match) → admit → dispatch. A
// panic in it costs this request.
func (s *Server) handle(ctx *fasthttp.RequestCtx) {
	defer s.lastResort(ctx)
	r := s.newRequest(ctx)
	defer r.keepToTLS()
	defer r.recoverPanic()
	if p := r.serve(); p != nil {
		r.refuse(p)
	}
}

// serve answers, or says why it cannot. Preflights are answered for whatever
// becomes of the request itself: else its page would not see the refusal.
func (r *request) serve() *problem {
	p := r.resolve()
	if r.isPreflight() {
		return r.answerPreflight()
	}
	if p == nil && !r.answered {
		p = r.admit()
	}
	if p == nil {
		p = r.dispatch()
	}
	return p
}

// handleExpect decides about "Expect: 100-continue" before the body is asked
// for: a request that will be refused anyway is refused now.
func (s *Server) handleExpect(ctx *fasthttp.RequestCtx) (status int) {
	status = fasthttp.StatusInternalServerError // after a panic
	defer s.lastResort(ctx)
	r := s.newRequest(ctx)
	defer r.keepToTLS()
	p := r.resolve()
	if p == nil && !r.answered {
		p = r.admit()
	}
	if p == nil && r.websocket {
		p = r.checkHandshake()
	}
	if p == nil {
		return fasthttp.StatusContinue
	}
	r.refuse(p)
	return p.status
}

// lastResort, deferred, keeps a panic from fasthttp, which would let it end the
// process.
func (s *Server) lastResort(ctx *fasthttp.RequestCtx) {
	if v := recover(); v != nil {
		s.logPanic("", v)
		ctx.Response.Reset()
		ctx.Response.SetStatusCode(fasthttp.StatusInternalServerError)
		protect(&ctx.Response.Header, nothingPolicy)
		ctx.Response.SetConnectionClose()
	}
}

// handleHeadError answers what fasthttp could not read as a request.
func (s *Server) handleHeadError(ctx *fasthttp.RequestCtx, err error) {
	defer s.lastResort(ctx)
	r := s.newRequest(ctx)
	defer r.keepToTLS()
	r.conn.linger.Store(true)
	var small *fasthttp.ErrSmallBuffer
	var timeout net.Error
	switch {
	case errors.As(err, &small):
		r.refuse(headTooLarge(r.listener.limits.HeadSize))
	case errors.As(err, &timeout) && timeout.Timeout():
		r.refuse(headTimeout())
	default:
		r.refuse(badRequest(errNotHTTP).because(headCause(err)))
	}
}

var errNotHTTP = errors.New("it is not HTTP/1.1 as RFC 9112 defines it")

// headCause is what may be logged of fasthttp's complaint about a head: its
// messages quote what the client sent, tokens included.
func headCause(err error) error {
	for _, known := range []error{
		fasthttp.ErrMissingRequestMethod, fasthttp.ErrUnsupportedRequestMethod, fasthttp.ErrEmptyRequestURI,
		fasthttp.ErrDuplicateContentLength, fasthttp.ErrNonNumericChars, fasthttp.ErrUnsupportedTransferEncoding,
		io.ErrUnexpectedEOF, errConnReset,
	} {
		if errors.Is(err, known) {
			return known
		}
	}
	return errNotHTTP
}

// resolve finds the route of the request, and the node of a pinned one.
func (r *request) resolve() *problem {
	if r.conn.crowded {
		r.server.descriptors.warn(r.server.log)
		return overloaded()
	}
	if p := r.parse(); p != nil {
		return p
	}
	if r.listener.implied != nil && r.listener.implied.tcp {
		return portChanged() // a reload, since the connection was accepted
	}
	if r.isChallenge() {
		return nil
	}
	if r.cameBack() {
		return r.loop()
	}
	if r.server.stopping.Err() != nil && r.websocket {
		return stopping()
	}
	m, ok := r.findMatch()
	if !ok && r.state.table.partial() {
		return noTagRoutes()
	}
	if !ok {
		return noRoute()
	}
	r.match = m
	return m.problem()
}

// findMatch asks the table, unless the listener is a node's own port.
func (r *request) findMatch() (match, bool) {
	if implied := r.listener.implied; implied != nil {
		return r.state.table.implied(implied, r.path), true
	}
	return r.state.table.match(r.listener.Name, r.host, r.path, r.websocket)
}

// problem says why a match cannot be served at present.
func (m *match) problem() *problem {
	switch {
	case m.route.Service == "":
		return nil
	case m.service == nil:
		return noSnapshot(m.route.Service)
	case m.route.Kind == KindBOSH:
		return nil // it depends on the session, which may go on where none may begin
	}
	return m.nodeProblem()
}

// nodeProblem says why the node of a pinned match gets nothing new.
func (m *match) nodeProblem() *problem {
	switch {
	case !m.pinned:
		return nil
	case m.node == nil && m.service.Partial:
		return noSnapshot(m.route.Service)
	case m.node == nil:
		return nodeUnknown(m.name)
	case m.node.Closed():
		return nodeClosed(m.name)
	}
	return nil
}

// dispatch does what the route says.
func (r *request) dispatch() *problem {
	if r.answered {
		return r.serveChallenge()
	}
	switch route := r.match.route; {
	case route.Redirect != "":
		return r.serveRedirect()
	case route.static != nil:
		return r.serveStatic()
	case route.Page == PageHostMeta:
		return r.serveHostMeta()
	case route.Page != "":
		return r.servePage()
	case r.websocket:
		return r.serveWebSocket()
	case route.Kind == KindBOSH:
		return r.serveBOSH()
	}
	return r.serveHTTP()
}

// refuse answers with a problem and logs the request.
func (r *request) refuse(p *problem) {
	if r.websocket && r.refuseByClose(p) {
		return
	}
	p.write(r.ctx, r.id)
	if r.match.route != nil && r.match.route.Kind == KindBOSH {
		p = r.refuseBOSH(p)
	}
	r.policeOwn()
	if p.endConn || r.websocket || r.hasBody() {
		// What follows on this connection must never be taken for a request.
		r.ctx.Response.SetConnectionClose()
		r.conn.linger.Store(true)
	}
	r.logRefusal(p)
}

// serveStatic answers from a folder.
func (r *request) serveStatic() *problem {
	if r.match.rest == "" {
		return r.redirect(r.path + "/" + r.query)
	}
	switch status := r.match.route.static.serve(r.ctx, r.match.rest); status {
	case fasthttp.StatusNotFound:
		return notFound()
	case fasthttp.StatusMethodNotAllowed:
		return methodRefused(r.method)
	case fasthttp.StatusRequestedRangeNotSatisfiable:
		return rangeRefused()
	case fasthttp.StatusMovedPermanently, fasthttp.StatusServiceUnavailable:
		protect(&r.ctx.Response.Header, nothingPolicy)
	}
	r.finishOwn()
	return nil
}

// finishOwn ends an answer that the gateway made without a node.
func (r *request) finishOwn() {
	r.policeOwn()
	if r.hasBody() || r.websocket {
		r.ctx.Response.SetConnectionClose()
		r.conn.linger.Store(true)
	}
	r.logAnswer(r.ctx.Response.StatusCode())
}

func (r *request) recoverPanic() {
	v := recover()
	if v == nil {
		return
	}
	r.logPanic(v)
	if r.exchange != nil {
		r.exchange.end()
	}
	r.conn.drop()
	r.refuse(internalError())
}

func (r *request) logPanic(v any) { r.server.logPanic(r.id, v) }

func (s *Server) logPanic(requestID string, v any) {
	s.panics.Add(1)
	s.log.Error().Str("request_id", requestID).Interface("panic", v).Bytes("stack", debug.Stack()).
		Msg("a panic ended a request")
}
