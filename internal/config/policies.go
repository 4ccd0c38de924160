package config

import (
	"net/netip"
	"slices"

	"singlegate/gateway"
)

// requestPolicies reads what a route or a node port asks of its requests.
func (d *decoder) requestPolicies(o *object, p *gateway.Policies) {
	read(o, "allow", &p.Allow, d.addresses)
	read(o, "deny", &p.Deny, d.addresses)
	d.routeLimits(o, &p.RouteLimits)
}

// addresses takes a list of addresses and ranges, or all.
func (d *decoder) addresses(v value) ([]netip.Prefix, bool) {
	if s, ok := scalar(v.node); ok && s == "all" {
		return []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}, true
	}
	return filled(d, d.prefix)(v)
}

// deniesAll tells whether no client is let in, so that nothing has to be said of
// what is done with its requests.
func deniesAll(p *gateway.Policies) bool {
	return slices.ContainsFunc(p.Deny, func(r netip.Prefix) bool { return r.Bits() == 0 && r.Addr().Is4() }) &&
		slices.ContainsFunc(p.Deny, func(r netip.Prefix) bool { return r.Bits() == 0 && r.Addr().Is6() })
}
