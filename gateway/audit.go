package gateway

import (
	"bytes"
	"net/netip"
	"time"

	"github.com/rs/zerolog"

	"singlegate/gateway/relay"
)

// An AuditLog keeps what the gateway notes of every request and tunnel, and of
// what its operators do. Its methods are called concurrently and must not wait.
type AuditLog interface {
	// Note takes a line, one JSON object without a line break, and keeps nothing
	// of it. failure says that it is about something that did not succeed.
	Note(line []byte, failure bool)

	// Refuses tells why nothing new is to be served, as nothing could be noted of
	// it; "": it may be.
	Refuses() string

	// Missed counts a request or connection that was refused because of Refuses.
	// It is not noted.
	Missed()
}

// What a line of the audit log is about.
const (
	auditRequest      = "request"       // an HTTP request, or a WebSocket handshake that did not become a tunnel
	auditConnection   = "connection"    // a TCP connection that did not become a tunnel
	auditTunnelOpened = "tunnel_opened" // and auditTunnelEnded: a WebSocket or a TCP connection
	auditTunnelEnded  = "tunnel_ended"
	auditTLSRefused   = "tls_refused"
	auditAdmin        = "admin" // somebody operates the gateway
)

// auditTime is RFC 3339 with milliseconds and zone.
const auditTime = "2006-01-02T15:04:05.000Z07:00"

// mostAudited is how many bytes of what a client sent are noted, of each thing:
// a line of the audit log is to fit into a message of syslog.
const mostAudited = 4096

// An auditor makes the lines of the audit log. The zero value makes none.
type auditor struct {
	log             AuditLog
	success, failed zerolog.Logger
}

func newAuditor(log AuditLog) auditor {
	if log == nil {
		return auditor{}
	}
	return auditor{log, zerolog.New(auditSink{log, false}), zerolog.New(auditSink{log, true})}
}

// An auditSink takes what zerolog has made of a line.
type auditSink struct {
	log     AuditLog
	failure bool
}

// Write implements io.Writer.
func (s auditSink) Write(p []byte) (int, error) {
	s.log.Note(bytes.TrimSuffix(p, []byte("\n")), s.failure)
	return len(p), nil
}

// line begins a line; nil, to which everything may be added, where there is no
// audit log.
func (a *auditor) line(event string, success bool) *zerolog.Event {
	if a.log == nil {
		return nil
	}
	e := a.success.Log()
	if !success {
		e = a.failed.Log()
	}
	var buf [len(auditTime) + 8]byte
	return e.Bytes("time", time.Now().AppendFormat(buf[:0], auditTime)).
		Str("event", event).
		Bool("success", success)
}

// refuses tells whether nothing new may be served, because it could not be noted.
func (a *auditor) refuses() string {
	if a.log == nil {
		return ""
	}
	return a.log.Refuses()
}

// subjects are who asks by their own proof: the subject of the token by which the
// request was authorised, and that of the client's certificate; "": there is none.
func (r *request) subjects() (token, certificate string) {
	if r.decision != nil {
		token = r.decision.Subject
	}
	return token, r.conn.subject
}

// audit begins the line of a request or a tunnel, of which it says what the
// access log may say: both take it from the record.
func (rec *record) audit(event string, success bool) *zerolog.Event {
	e := rec.server.audit.line(event, success)
	if e == nil {
		return nil
	}
	e.Str("request_id", rec.id)
	addClient(e, rec.client, rec.peer)
	for _, f := range [...]field{
		{"user", rec.user}, {"certificate", rec.certificate},
		{"listener", rec.list}, {"method", rec.method}, {"host", rec.host}, {"path", rec.target},
		{"route", rec.route}, {"service", rec.service},
	} {
		if f.value != "" {
			e.Str(f.name, truncated(f.value, mostAudited))
		}
	}
	return e
}

// addClient says who a client is by its address: with its port where it is the
// peer, and the peer as well where that is a trusted proxy.
func addClient(e *zerolog.Event, client netip.Addr, peer netip.AddrPort) {
	var buf [64]byte
	if client == peer.Addr() {
		e.Bytes("client", peer.AppendTo(buf[:0]))
		return
	}
	e.Bytes("client", client.AppendTo(buf[:0]))
	e.Bytes("peer", peer.AppendTo(buf[:0]))
}

// finishAudit ends the line with how long it all took.
func (rec *record) finishAudit(e *zerolog.Event) {
	e.Dur("duration_ms", time.Since(rec.start)).Send()
}

// succeeded tells whether a client got what it asked for.
func succeeded(status int) bool { return status > 0 && status < 400 }

func (rec *record) auditAnswer(status int) {
	rec.finishAudit(rec.audit(auditRequest, succeeded(status)).Int("status", status))
}

func (rec *record) auditRefusal(p *problem, node string) {
	switch p.code {
	case codeAuditUnavailable:
		rec.server.audit.log.Missed()
		return
	case codeTLSHandshake: // has its line
		return
	}
	event := auditRequest
	if rec.method == "" {
		event = auditConnection
	}
	e := rec.audit(event, false).Int("status", p.status).Str("error", p.code)
	addNode(e, node)
	addCause(e, p.cause)
	rec.finishAudit(e)
}

func (rec *record) auditExchange(x *exchange) {
	e := rec.audit(auditRequest, succeeded(x.status) && x.cause == nil).Int("status", x.status)
	if x.lease != nil {
		addNode(e, x.lease.Node.ID)
	}
	if x.body != nil {
		e.Int64("bytes_in", x.body.received.Load())
	}
	e.Int64("bytes_out", x.sent)
	addCause(e, x.cause)
	rec.finishAudit(e)
}

// auditOpened is the line of a tunnel that begins. It comes before any byte of
// the tunnel: whatever happens to the gateway then, it was noted.
func (rec *record) auditOpened(kind relay.Kind, node string) {
	e := rec.audit(auditTunnelOpened, true).Str("kind", kindName(kind))
	addNode(e, node)
	rec.finishAudit(e)
}

func (rec *record) auditEnded(kind relay.Kind, node string, report relay.Report) {
	e := rec.audit(auditTunnelEnded, report.Cause == nil && report.EndedBy != relay.EndPanic).Str("kind", kindName(kind))
	addNode(e, node)
	e.Str("ended_by", string(report.EndedBy))
	if report.CloseCode != 0 {
		e.Uint16("close_code", report.CloseCode)
	}
	if v := violationOf(rec.service, report); v.rule != "" {
		e.Str("rule", v.rule)
	}
	e.Int64("bytes_in", report.FromClient.Bytes).Int64("bytes_out", report.FromUpstream.Bytes)
	addCause(e, report.Cause)
	rec.finishAudit(e)
}

// auditLost is the line of a handshake that a node accepted and whose client was gone.
func (rec *record) auditLost(node string) {
	e := rec.audit(auditRequest, false).Int("status", clientLeft().status).Str("error", clientLeft().code)
	addNode(e, node)
	rec.finishAudit(e)
}

func kindName(kind relay.Kind) string {
	if kind == relay.WebSocket {
		return "websocket"
	}
	return "tcp"
}

func addNode(e *zerolog.Event, node string) {
	if node != "" {
		e.Str("node", node)
	}
}

func addCause(e *zerolog.Event, cause error) {
	if cause != nil && e != nil {
		e.Str("cause", truncated(cause.Error(), mostAudited))
	}
}

// auditHandshake notes a TLS handshake that was refused, or that a client gave
// up because of what it was shown. One that a client just left is none, nor is
// one for which there was no room: that is a flood, which the metrics count.
func (l *listener) auditHandshake(c *secureConn, cause string, err error) {
	if cause == "client_left" || cause == "overloaded" {
		return
	}
	e := l.server.audit.line(auditTLSRefused, false)
	if e == nil {
		return
	}
	addClient(e, c.peer.Addr(), c.peer)
	e.Str("listener", l.settings.Load().Name).Str("error", cause)
	addCause(e, err)
	e.Send()
}

// An AdminAction is what somebody does to the gateway.
type AdminAction struct {
	Action    string         // "drain", "undrain", "reload"
	Client    netip.AddrPort // by which connection; the zero value: it was a signal
	Service   string
	Node      string
	PerSecond int   // of a drain
	Err       error // why nothing came of it; nil: something did
}

// NoteAdmin notes an action in the audit log.
func (s *Server) NoteAdmin(a AdminAction) {
	e := s.audit.line(auditAdmin, a.Err == nil)
	if e == nil {
		return
	}
	e.Str("action", a.Action)
	if a.Client.IsValid() {
		addClient(e, a.Client.Addr(), a.Client)
	}
	if a.Service != "" {
		e.Str("service", a.Service)
	}
	addNode(e, a.Node)
	if a.PerSecond > 0 {
		e.Int("per_second", a.PerSecond)
	}
	addCause(e, a.Err)
	e.Send()
}
