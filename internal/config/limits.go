package config

import (
	"strconv"
	"strings"
	"time"

	"singlegate/gateway"
	"singlegate/gateway/limit"
)

func (d *decoder) limits(v value) (gateway.Limits, bool) {
	l := gateway.DefaultLimits()
	o, ok := d.object(v, "limits")
	if !ok {
		return l, false
	}
	read(o, "head_size", &l.HeadSize, d.size(1<<10, 1<<20))
	read(o, "head_timeout", &l.HeadTimeout, d.wait)
	read(o, "handshake_timeout", &l.HandshakeTimeout, d.wait)
	read(o, "keep_alive", &l.KeepAlive, d.wait)
	read(o, "descriptors", &l.Descriptors, d.integer(0, 1<<30))
	read(o, "tunnels", &l.Tunnels, d.integer(1, 1<<30))
	read(o, "handshakes", &l.Handshakes, d.integer(1, 1<<30))
	d.addressLimits(o, &l.PerAddress)
	o.done()
	return l, true
}

// addressLimits reads what clients of one address may take.
func (d *decoder) addressLimits(o *object, a *gateway.AddressLimits) {
	read(o, "connections_per_ip", &a.Connections, d.integer(1, 1<<30))
	read(o, "handshakes_per_ip", &a.Handshakes, d.handshakeRate)
	read(o, "tunnels_per_ip", &a.Tunnels, d.integer(1, 1<<30))
	read(o, "ipv6_prefix", &a.IPv6Prefix, d.integer(16, 128))
	read(o, "exempt", &a.Exempt, filled(d, d.prefix))
	read(o, "bans", &a.Bans, d.bans)
}

// handshakeRate takes {rate: 20/s, burst: 100}, or the rate alone.
func (d *decoder) handshakeRate(v value) (limit.Rate, bool) {
	if _, ok := scalar(v.node); ok {
		p, ok := d.perTime(v)
		return p.rate(0), ok
	}
	o, ok := d.object(v, "handshakes_per_ip")
	if !ok {
		return limit.Rate{}, false
	}
	r, ok := d.rateAndBurst(o, "rate")
	o.done()
	return r, ok
}

// rateAndBurst reads a rate under that key, and how many may come at once:
// without a word, as many as the rate's number.
func (d *decoder) rateAndBurst(o *object, key string) (limit.Rate, bool) {
	var p perTime
	var burst int
	ok := require(o, key, &p, d.perTime)
	good := read(o, "burst", &burst, d.integer(1, 1<<30)) || !o.has("burst")
	return p.rate(burst), ok && good
}

// bans takes {after: 20, within: 1m, for: 10m}.
func (d *decoder) bans(v value) (limit.Ban, bool) {
	b := limit.Ban{Within: time.Minute, For: 10 * time.Minute}
	o, ok := d.object(v, "bans")
	if !ok {
		return b, false
	}
	ok = require(o, "after", &b.After, d.integer(2, 1_000_000))
	read(o, "within", &b.Within, d.wait)
	read(o, "for", &b.For, d.seconds)
	o.done()
	return b, ok
}

// A perTime is so many in a time: 100/s.
type perTime struct {
	n    int
	time time.Duration
}

func (p perTime) rate(burst int) limit.Rate {
	if p.n == 0 {
		return limit.Rate{}
	}
	if burst == 0 {
		burst = p.n
	}
	return limit.Every(p.n, p.time, burst)
}

func (d *decoder) perTime(v value) (perTime, bool) {
	var p perTime
	_, ok := d.checked(func(s string) (problem string) {
		p, problem = parsePerTime(s)
		return problem
	})(v)
	return p, ok
}

// parsePerTime takes 100/s, 600/m, 10/h.
func parsePerTime(s string) (p perTime, problem string) {
	digits, unit, ok := strings.Cut(s, "/")
	switch unit {
	case "s":
		p.time = time.Second
	case "m":
		p.time = time.Minute
	case "h":
		p.time = time.Hour
	default:
		ok = false
	}
	n, err := strconv.ParseUint(digits, 10, 63)
	switch {
	case !ok || err != nil || len(digits) > 1 && digits[0] == '0':
		return perTime{}, "it is not a rate; write it like 100/s, 600/m or 10/h"
	case n == 0 || n > 1_000_000:
		return perTime{}, "the number must be between 1 and 1000000"
	}
	p.n = int(n)
	return p, ""
}

// routeLimits reads what clients may ask of a route or node port.
func (d *decoder) routeLimits(o *object, l *gateway.RouteLimits) {
	read(o, "rate", l, d.requestRate(*l))
	read(o, "tunnels_per_user", &l.TunnelsPerUser, d.integer(1, 1<<30))
}

// requestRate takes {per: ip, requests: 100/s, burst: 200}; what has no rate is kept.
func (d *decoder) requestRate(l gateway.RouteLimits) func(value) (gateway.RouteLimits, bool) {
	return func(v value) (gateway.RouteLimits, bool) {
		o, ok := d.object(v, "rate")
		if !ok {
			return l, false
		}
		good := require(o, "per", &l.Per, oneOf(d, gateway.PerAddress, gateway.PerRoute, gateway.PerToken))
		l.Rate, ok = d.rateAndBurst(o, "requests")
		o.done()
		return l, ok && good
	}
}

// proxyIn reads whether connections begin with a PROXY header.
func (d *decoder) proxyIn(o *object, p *gateway.ProxyIn) {
	read(o, "proxy_protocol_in", p, oneOf(d, gateway.ProxyInRequired, gateway.ProxyInTrusted))
}

// checkProxyIn reports PROXY headers that nobody is believed in.
func (d *decoder) checkProxyIn(o *object, p gateway.ProxyIn, g *gateway.Config, root *object) {
	if o != nil && p != "" && len(g.TrustedProxies) == 0 && !root.has("trusted_proxies") {
		d.errorf(o.keyAt("proxy_protocol_in"), "proxy_protocol_in: nobody is trusted to name clients; write the balancer's address under trusted_proxies")
	}
}
