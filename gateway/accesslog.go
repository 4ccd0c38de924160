package gateway

import (
	"net/netip"
	"time"

	"github.com/rs/zerolog"
	"github.com/valyala/fasthttp"

	"singlegate/gateway/relay"
)

// A record is what every line says of its request. A tunnel keeps it, and not
// the request, for as long as it lives.
type record struct {
	server  *Server
	origin  origin // its route, for metrics
	start   time.Time
	client  netip.Addr
	peer    netip.AddrPort // the other end of the connection: the client, or a trusted proxy
	id      string
	list    string // the listener's name
	method  string
	host    string
	target  string // redacted
	route   string
	service string

	user, certificate string // who asks, see subjects; for the audit log only
}

func (r *request) record() record {
	rec := record{
		server: r.server, start: r.start, client: r.client, peer: r.conn.peer, id: r.id,
		list: r.listener.Name, method: r.method, host: r.host,
	}
	rec.user, rec.certificate = r.subjects()
	if r.path != "" {
		rec.target = r.state.redact.target(r.loggedPath(), r.query)
	}
	if r.match.route != nil {
		rec.route, rec.service = r.match.route.name, r.match.route.Service
		rec.origin = r.listener.origin(rec.route)
	}
	return rec
}

// line begins a line of the access log.
func (rec *record) line(kind string) *zerolog.Event {
	e := rec.server.access.Info().
		Str("kind", kind).
		Str("request_id", rec.id).
		Str("client", rec.client.String()).
		Str("listener", rec.list)
	for _, f := range []field{{"method", rec.method}, {"host", rec.host}, {"path", rec.target}, {"route", rec.route}, {"service", rec.service}} {
		if f.value != "" {
			e.Str(f.name, f.value)
		}
	}
	return e
}

func (rec *record) finish(e *zerolog.Event) {
	e.Dur("duration_ms", time.Since(rec.start)).Send()
}

// logAnswer is the line of an answer that the gateway made as asked: a file, a
// page, a redirect.
func (r *request) logAnswer(status int) {
	rec := r.record()
	rec.count(status)
	rec.auditAnswer(status)
	rec.finish(rec.line("request").Int("status", status))
}

// logRefusal is the line of a request that the gateway refused or could not serve.
func (r *request) logRefusal(p *problem) {
	if p.status == fasthttp.StatusUnauthorized {
		r.server.guard.strike(r.listener, r.client)
	}
	rec := r.record()
	rec.countRefusal(p)
	node := ""
	if r.match.node != nil {
		node = r.match.node.ID
	}
	rec.auditRefusal(p, node)
	e := rec.line("request").Int("status", p.status).Str("error", p.code)
	if node != "" {
		e.Str("node", node)
	}
	if p.cause != nil {
		e.Str("cause", p.cause.Error())
	}
	rec.finish(e)
}

// logExchange is the line of a request that a node answered.
func (r *request) logExchange(x *exchange) {
	rec := r.record()
	if x.lease != nil {
		rec.service = x.lease.Node.Service // several may serve a route of tags
	}
	rec.count(x.status)
	rec.auditExchange(x)
	e := rec.line("request").Int("status", x.status).Int64("bytes_out", x.sent)
	if x.lease != nil {
		e.Str("node", x.lease.Node.ID)
	}
	if x.body != nil {
		e.Int64("bytes_in", x.body.received.Load())
	}
	if x.cause != nil {
		e.Str("cause", x.cause.Error())
	}
	rec.finish(e)
}

// logTunnel is the line of a tunnel that has ended.
func (rec *record) logTunnel(kind relay.Kind, node string, report relay.Report) {
	rec.countTunnel(node, report)
	rec.auditEnded(kind, node, report)
	e := rec.line("tunnel").Str("node", node).
		Str("ended_by", string(report.EndedBy)).
		Int64("bytes_in", report.FromClient.Bytes).Int64("messages_in", report.FromClient.Messages).
		Int64("bytes_out", report.FromUpstream.Bytes).Int64("messages_out", report.FromUpstream.Messages)
	addFrames(e, report)
	if v := violationOf(rec.service, report); v.rule != "" {
		e.Str("rule", v.rule)
	}
	if report.CloseCode != 0 {
		e.Uint16("close_code", report.CloseCode)
	}
	if report.CloseReason != "" {
		e.Str("close_reason", report.CloseReason)
	}
	if report.Cause != nil {
		e.Str("cause", report.Cause.Error())
	}
	rec.finish(e)
}

// addFrames adds what there is to say of a WebSocket's frames.
func addFrames(e *zerolog.Event, report relay.Report) {
	for _, f := range []struct {
		name  string
		count int64
	}{
		{"largest_in", report.FromClient.Largest}, {"largest_out", report.FromUpstream.Largest},
		{"pings_in", report.FromClient.Pings}, {"pings_out", report.FromUpstream.Pings},
		{"pongs_in", report.FromClient.Pongs}, {"pongs_out", report.FromUpstream.Pongs},
	} {
		if f.count > 0 {
			e.Int64(f.name, f.count)
		}
	}
}

// logLostTakeover is the line of a handshake that a node accepted and whose
// client was gone.
func (rec *record) logLostTakeover(node string) {
	rec.count(clientLeft().status)
	rec.countTunnel(node, relay.Report{EndedBy: relay.EndClient})
	rec.auditLost(node)
	rec.finish(rec.line("tunnel").Str("node", node).Str("ended_by", "client").Str("cause", "the client left during the handshake"))
}
