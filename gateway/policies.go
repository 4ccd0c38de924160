package gateway

import (
	"net/netip"
	"slices"

	"singlegate/gateway/auth"
)

// Policies are what a route, or a node port of kind http, asks of its requests
// beyond where they go. The zero value asks nothing.
type Policies struct {
	Allow []netip.Prefix // clients that may use it; none: every one
	Deny  []netip.Prefix // clients that may not, also where Allow lets them in
	Auth  auth.Rule      // by names of Config.Auth

	RouteLimits
}

// admit asks the policies of the request's route before anything is done for it.
func (r *request) admit() *problem {
	if !r.match.route.lets(r.client) {
		return addressRefused()
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
