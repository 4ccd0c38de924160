package gateway

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"singlegate/gateway/auth"
)

// authorise asks those whom the route names whether the request may pass.
func (r *request) authorise() *problem {
	rule := r.authRule()
	if len(rule.Names) == 0 || r.decidedBefore() {
		return nil
	}
	ctx, stop := r.authContext(rule)
	defer stop()
	d := r.state.auth.Check(ctx, rule, r.authRequest())
	switch {
	case d.Result == auth.Passed:
		r.decided(&d)
		return nil
	case d.Result == auth.Unavailable && errors.Is(context.Cause(ctx), errClientLeft):
		return clientLeft().because(errClientLeft)
	case d.Result == auth.Unavailable && errors.Is(context.Cause(ctx), errGatewayEnds):
		return stopping()
	}
	return unauthorised(&d)
}

// authRule is that of the request's route.
func (r *request) authRule() auth.Rule {
	if r.match.route == nil {
		return auth.Rule{}
	}
	return r.match.route.Auth
}

// authContext ends when the client leaves, where the check may have to wait.
func (r *request) authContext(rule auth.Rule) (context.Context, func()) {
	running := r.conn.listener.running
	if !r.state.auth.Waits(rule) {
		return running, func() {}
	}
	ctx, cancel := context.WithCancelCause(running)
	unwatch := r.server.watcher.watch(r.conn.socket, func() { cancel(errClientLeft) })
	return ctx, func() {
		unwatch()
		cancel(errExchangeOver)
	}
}

// An expected decision is one that was made when a client asked whether it may
// send its body; it counts for the request itself.
type expected struct {
	state    *state
	decision *auth.Decision
}

type expectedKey struct{}

func (r *request) decided(d *auth.Decision) {
	r.decision = d
	r.ctx.SetUserValue(expectedKey{}, expected{r.state, d}) // until the next request
}

func (r *request) decidedBefore() bool {
	e, ok := r.ctx.UserValue(expectedKey{}).(expected)
	if ok && e.state == r.state {
		r.decision = e.decision
		return true
	}
	return false
}

// authRequest is what package auth may know of the request.
func (r *request) authRequest() *auth.Request {
	return &auth.Request{
		Method: r.method, URI: r.path + r.query, Query: r.query, Rest: r.match.rest,
		Values: r.alikeHeaders, Header: r.subrequestHeader,
	}
}

// alikeHeaders are the values of all headers of that name, in whatever case and
// with underscores for hyphens.
func (r *request) alikeHeaders(name string) []string {
	plain := func(s string) string { return strings.ReplaceAll(s, "_", "-") }
	var values []string
	for k, v := range r.ctx.Request.Header.All() {
		if len(k) == len(name) && strings.EqualFold(plain(string(k)), plain(name)) {
			values = append(values, string(v))
		}
	}
	return values
}

// subrequestHeader is what an endpoint is told: what the node would be.
func (r *request) subrequestHeader() auth.Header {
	var h auth.Header
	for _, f := range append(r.passedFields(), r.forwardedFields()...) {
		h = append(h, auth.Field{Name: f.name, Value: f.value})
	}
	return h
}

// alike tells whether a header is one of those names, with underscores for
// hyphens or not.
func alike(names []string, lower string) bool {
	return len(names) > 0 && slices.Contains(names, strings.ReplaceAll(lower, "_", "-"))
}

// authFields are what who authorised the request has to say to the node.
func (r *request) authFields() (fields []field) {
	if r.decision == nil {
		return nil
	}
	for _, f := range r.decision.Fields {
		fields = append(fields, field{f.Name, f.Value})
	}
	return fields
}

// protocolsForNode are the subprotocols that a node is offered: those of the
// client, without a token among them.
func (r *request) protocolsForNode() []string {
	offers, _ := r.withoutToken()
	return offers
}

// withoutToken takes the token out of the client's subprotocols. The name in
// front of it is given where it was there.
func (r *request) withoutToken() (offers []string, name string) {
	lines := r.headers("Sec-WebSocket-Protocol")
	if name = r.state.auth.Protocol(r.authRule()); name == "" {
		return lines, ""
	}
	list, found := auth.WithoutToken(lines, name)
	switch {
	case !found:
		return lines, ""
	case len(list) == 0:
		return nil, name
	}
	return []string{strings.Join(list, ", ")}, name
}

// ownProtocol is the subprotocol of an answer in which the node chose none: that
// in front of the token, as browsers give up unless one is chosen of those they
// offered.
func (r *request) ownProtocol(chosen string) []field {
	_, name := r.withoutToken()
	if chosen != "" || name == "" {
		return nil
	}
	return []field{{"Sec-WebSocket-Protocol", name}}
}

// mostExpiry bounds how far ahead the relay looks: more makes no difference to
// anybody, and time.Duration overflows at 292 years.
const mostExpiry = 10 * 365 * 24 * time.Hour

// expiry is how long a tunnel of this request may live by its token; 0: for ever.
func (r *request) expiry() time.Duration {
	if r.decision == nil || r.decision.Expires.IsZero() {
		return 0
	}
	return min(max(time.Until(r.decision.Expires), 1), mostExpiry)
}

// unauthorised is the answer to a request that may not pass, or of which nobody
// can tell.
func unauthorised(d *auth.Decision) *problem {
	cause := fmt.Errorf("auth %s: %w", d.By, d.Cause)
	switch d.Result {
	case auth.Missing:
		return tokenMissing().because(cause)
	case auth.Expired:
		return tokenExpired().because(cause)
	case auth.Invalid:
		return tokenInvalid().because(cause)
	case auth.Refused:
		return authRefused(d.Answer).because(cause)
	}
	return authUnavailable().because(cause)
}

// challenge is RFC 6750 section 3: what kind of credential is asked for, and
// what is wrong with the one that was given.
func challenge(params string) []field {
	return []field{{"WWW-Authenticate", strings.TrimSpace("Bearer " + params)}}
}

func tokenMissing() *problem {
	return &problem{status: 401, code: "token_missing", fields: challenge(""),
		en: "A token is needed here.", zh: "此处需要令牌(token)。"}
}

func tokenInvalid() *problem {
	return &problem{status: 401, code: "token_invalid", fields: challenge(`error="invalid_token"`),
		en: "The token is not valid.", zh: "令牌(token)无效。"}
}

func tokenExpired() *problem {
	return &problem{status: 401, code: "token_expired", fields: challenge(`error="invalid_token", error_description="The token expired"`),
		en: "The token has expired: get a new one.", zh: "令牌(token)已过期，请重新获取。"}
}

func authUnavailable() *problem {
	return &problem{status: 503, code: "auth_unavailable", retry: spread(2),
		en: "Nobody can tell at present whether this is allowed; try again in a while.", zh: "目前无法确认权限，请稍后再试。"}
}

// authRefused passes an endpoint's refusal on.
func authRefused(a *auth.Answer) *problem {
	p := &problem{status: a.Status, code: "auth_refused", body: a.Body,
		en: "This is not allowed without a valid login.", zh: "未登录或登录已失效，不允许访问。"}
	for _, f := range a.Fields {
		p.fields = append(p.fields, field{f.Name, f.Value})
	}
	return p
}

// redactorOf takes out of the log what the config says, and where it says that
// credentials are.
func redactorOf(cfg *Config) *redactor {
	r := Redact{Query: slices.Clone(cfg.Redact.Query), Paths: slices.Clone(cfg.Redact.Paths)}
	for i := range cfg.Auth {
		for _, s := range cfg.Auth[i].Sources() {
			switch s.Kind {
			case auth.FromQuery:
				r.Query = append(r.Query, s.Name)
			case auth.FromPath:
				r.Paths = append(r.Paths, secretPaths(cfg, cfg.Auth[i].Name, s.Segment)...)
			}
		}
	}
	return newRedactor(r)
}

// secretPaths are patterns for a segment below the prefixes of the routes that
// an authority guards. Of nodes' own ports see loggedPath.
func secretPaths(cfg *Config, name string, segment int) (patterns []string) {
	below := strings.Repeat("/*", segment-1) + "/{credential}"
	for _, r := range cfg.Routes {
		for _, path := range r.Paths {
			if slices.Contains(r.Auth.Names, name) {
				prefix := strings.ReplaceAll(strings.TrimSuffix(path, "/"), nodeVariable, "*")
				patterns = append(patterns, prefix+below)
			}
		}
	}
	return patterns
}

// loggedPath is the request's path, on a node's own port without the segments
// that are credentials there.
func (r *request) loggedPath() string {
	if r.listener.implied == nil {
		return r.path
	}
	segments := strings.Split(r.path, "/")
	for _, n := range r.state.auth.Segments(r.listener.implied.route.Auth) {
		if n < len(segments) {
			segments[n] = redacted
		}
	}
	return strings.Join(segments, "/")
}

// authRules are those of the routes and node ports.
func authRules(cfg *Config) (rules []auth.Rule) {
	for _, r := range cfg.Routes {
		rules = append(rules, r.Auth)
	}
	for _, np := range cfg.NodePorts {
		rules = append(rules, np.Auth)
	}
	return rules
}
