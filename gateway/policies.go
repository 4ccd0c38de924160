package gateway

import (
	"net/netip"
	"slices"

	"singlegate/gateway/auth"
)

// Policies are what a route, or a node port of kind http, asks of its requests
// and answers beyond where they go. The zero value asks nothing. On a node port
// of kind tcp, Allow and Deny alone mean anything.
type Policies struct {
	Allow []netip.Prefix // clients that may use it; none: every one
	Deny  []netip.Prefix // clients that may not, also where Allow lets them in
	Auth  auth.Rule      // by names of Config.Auth

	CORS             *CORS       // which pages of other origins may read its answers; nil: for the node to say
	RequestHeaders   HeaderEdits // of what is sent to the node, handshakes included
	ResponseHeaders  HeaderEdits // of every answer, whoever makes it
	RewriteRedirects bool        // addresses in a node's answers get back what Rewrite removed; see redirectMap
	MaxBody          int64       // bytes of a request's body; more: 413; 0: no limit

	RouteLimits
}

// admit asks the policies of the request's route before anything is done for it.
func (r *request) admit() *problem {
	switch p := &r.match.route.Policies; {
	case r.server.audit.refuses() != "":
		return auditUnavailable()
	case !p.lets(r.client):
		return addressRefused()
	case p.MaxBody > 0 && int64(r.ctx.Request.Header.ContentLength()) > p.MaxBody:
		return bodyTooLarge(p.MaxBody)
	}
	if p := r.withinLimits(); p != nil {
		return p
	}
	if p := r.authorise(); p != nil {
		return p
	}
	return r.withinUserLimits()
}

// lets tells whether a client of that address may use the route.
func (p *Policies) lets(client netip.Addr) bool {
	holds := func(prefix netip.Prefix) bool { return prefix.Contains(client) }
	return (len(p.Allow) == 0 || slices.ContainsFunc(p.Allow, holds)) && !slices.ContainsFunc(p.Deny, holds)
}

// policed is what becomes of the headers of a node's answer by the policies of
// the route.
func (r *request) policed(fields []field) []field {
	if r.match.route.RewriteRedirects {
		fields = r.redirectMap().apply(fields)
	}
	fields = r.match.route.ResponseHeaders.apply(fields)
	return r.answerCORS().apply(fields, r)
}

// policeOwn does the same with an answer that the gateway has made itself.
func (r *request) policeOwn() {
	if r.match.route == nil {
		return
	}
	r.match.route.ResponseHeaders.applyOwn(&r.ctx.Response.Header)
	r.answerCORS().applyOwn(r)
}

// DeniesAll tells whether Deny names every address, so that nothing has to be said
// of what is done with requests.
func (p *Policies) DeniesAll() bool {
	whole := func(is4 bool) bool {
		return slices.ContainsFunc(p.Deny, func(r netip.Prefix) bool { return r.Bits() == 0 && r.Addr().Is4() == is4 })
	}
	return whole(true) && whole(false)
}
