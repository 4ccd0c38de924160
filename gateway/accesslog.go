package gateway

import (
	"time"

	"github.com/rs/zerolog"

	"singlegate/gateway/relay"
)

// begins a line: what is known of every request.
func (r *request) line(kind string) *zerolog.Event {
	e := r.server.access.Info().
		Str("kind", kind).
		Str("request_id", r.id).
		Str("client", r.client.String()).
		Str("listener", r.listener.Name)
	if r.method != "" {
		e.Str("method", r.method)
	}
	if r.host != "" {
		e.Str("host", r.host)
	}
	if r.path != "" {
		e.Str("path", r.state.redact.target(r.path, r.query))
	}
	if r.match.route != nil {
		e.Str("route", r.match.route.name)
		if r.match.route.Service != "" {
			e.Str("service", r.match.route.Service)
		}
	}
	return e
}

func (r *request) finish(e *zerolog.Event) {
	e.Dur("duration_ms", time.Since(r.start)).Send()
}

// logAnswer is the line of an answer that the gateway made as asked: a file, a
// page, a redirect.
func (r *request) logAnswer(status int) {
	r.finish(r.line("request").Int("status", status))
}

// logRefusal is the line of a request that the gateway refused or could not serve.
func (r *request) logRefusal(p *problem) {
	e := r.line("request").Int("status", p.status).Str("error", p.code)
	if r.match.name != "" {
		e.Str("node", r.match.name)
	}
	if p.cause != nil {
		e.Str("cause", p.cause.Error())
	}
	r.finish(e)
}

// logExchange is the line of a request that a node answered.
func (r *request) logExchange(x *exchange) {
	e := r.line("request").Int("status", x.status).Int64("bytes_out", x.sent)
	if x.lease != nil {
		e.Str("node", x.lease.Node.ID)
	}
	if x.body != nil {
		e.Int64("bytes_in", x.body.received.Load())
	}
	if x.cause != nil {
		e.Str("cause", x.cause.Error())
	}
	r.finish(e)
}

// logTunnel is the line of a tunnel that has ended.
func (r *request) logTunnel(node string, report relay.Report) {
	e := r.line("tunnel").Str("node", node).
		Str("ended_by", string(report.EndedBy)).
		Int64("bytes_in", report.FromClient.Bytes).Int64("messages_in", report.FromClient.Messages).
		Int64("bytes_out", report.FromUpstream.Bytes).Int64("messages_out", report.FromUpstream.Messages)
	if report.CloseCode != 0 {
		e.Uint16("close_code", report.CloseCode)
	}
	if report.CloseReason != "" {
		e.Str("close_reason", report.CloseReason)
	}
	if report.Cause != nil {
		e.Str("cause", report.Cause.Error())
	}
	r.finish(e)
}

// logLostTakeover is the line of a handshake that a node accepted and whose
// client was gone.
func (r *request) logLostTakeover(node string) {
	r.finish(r.line("tunnel").Str("node", node).Str("ended_by", "client").Str("cause", "the client left during the handshake"))
}
