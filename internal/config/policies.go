package config

import (
	"net/netip"

	"singlegate/gateway"
)

// requestPolicies reads what a route or a node port asks of its requests.
func (d *decoder) requestPolicies(o *object, p *gateway.Policies) {
	read(o, "allow", &p.Allow, d.addresses)
	read(o, "deny", &p.Deny, d.addresses)
	read(o, "cors", &p.CORS, d.cors)
	read(o, "request_headers", &p.RequestHeaders, d.requestHeaders)
	read(o, "response_headers", &p.ResponseHeaders, d.responseHeaders)
	read(o, "max_body", &p.MaxBody, d.bodySize)
	d.routeLimits(o, &p.RouteLimits)
}

// bodySize is how large a request's body may be; as with nginx, 0 is no limit.
func (d *decoder) bodySize(v value) (int64, bool) {
	n, ok := d.size(0, 1<<50)(v)
	return int64(n), ok
}

// aboutHTTP are the keys of a route that mean nothing to WebSockets.
func aboutHTTP() []string { return []string{"cors", "max_body", "rewrite_redirects"} }

// addresses takes a list of addresses and ranges, or all.
func (d *decoder) addresses(v value) ([]netip.Prefix, bool) {
	if s, ok := scalar(v.node); ok && s == "all" {
		return []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}, true
	}
	return filled(d, d.prefix)(v)
}
