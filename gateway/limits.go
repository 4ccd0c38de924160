package gateway

import (
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"singlegate/gateway/limit"
	"singlegate/upstream"
)

// AddressLimits bound what clients of one address may take. The zero value bounds
// nothing: behind the address of a ministry, or of a mobile network, there are
// thousands of clients. An address is that of the peer, or of the client that a
// trusted proxy names. Trusted proxies themselves are not counted.
type AddressLimits struct {
	Connections int            // at a time; more: closed at once, before TLS; 0: no limit
	Handshakes  limit.Rate     // TLS handshakes; more: closed at once
	Tunnels     int            // at a time; more: 429; 0: no limit
	IPv6Prefix  int            // how many bits of an IPv6 address count as one; 0: limit.DefaultIPv6Prefix
	Exempt      []netip.Prefix // addresses that are not counted and never banned
	Bans        limit.Ban      // for failed TLS handshakes and for answers of 401
}

func (a *AddressLimits) counts() bool {
	return a.Connections > 0 || a.Handshakes.Burst > 0 || a.Tunnels > 0 || a.Bans.After > 0
}

func (a *AddressLimits) key(client netip.Addr) limit.Key {
	bits := a.IPv6Prefix
	if bits == 0 {
		bits = limit.DefaultIPv6Prefix
	}
	return limit.Address(client, bits)
}

// RouteLimits bound what clients may ask of a route or node port. The zero value
// bounds nothing.
type RouteLimits struct {
	Rate           limit.Rate // requests, handshakes and TCP connections; more: 429
	Per            RatePer    // whose requests count together; "": those of one address
	TunnelsPerUser int        // at a time, of users that are known by a token; more: 429; 0: no limit
}

// RatePer is whose requests count together.
type RatePer string

// The requests of one address, all of the route, or those of one user by a token
// that was checked (of one address, where there is none).
const (
	PerAddress RatePer = "ip"
	PerRoute   RatePer = "route"
	PerToken   RatePer = "token"
)

// limitWarnings tells what limits by address do to clients that share one, and
// which limits by user know no user.
func (cfg *Config) limitWarnings() (warnings []string) {
	named := cfg.Limits.PerAddress.named()
	look := func(at string, p *Policies) {
		known := len(p.Auth.Names) > 0
		if p.Rate.Burst > 0 && p.Per != PerRoute && (p.Per != PerToken || !known) {
			named = append(named, at+": rate")
		}
		if !known && (p.TunnelsPerUser > 0 || p.Rate.Burst > 0 && p.Per == PerToken) {
			warnings = append(warnings, at+": tunnels_per_user and rate per token need to know who asks: add auth with a jwt")
		}
	}
	for i := range cfg.Routes {
		look(cfg.Routes[i].At, &cfg.Routes[i].Policies)
	}
	for i := range cfg.NodePorts {
		look(cfg.NodePorts[i].At, &cfg.NodePorts[i].Policies)
	}
	if len(named) == 0 || len(cfg.TrustedProxies) > 0 {
		return warnings
	}
	return append(warnings, fmt.Sprintf("%s: clients are counted by address, and thousands may share one: a ministry behind its NAT, a mobile network, everybody behind a proxy or balancer in front of this gateway; "+
		"name proxies in trusted_proxies (with proxy_protocol_in where they pass TCP on), such networks in limits.exempt, and set limits for the largest of the others", strings.Join(named, ", ")))
}

// named are the limits that are set, as the file calls them.
func (a *AddressLimits) named() (names []string) {
	for _, l := range []struct {
		set  bool
		name string
	}{
		{a.Connections > 0, byConnections}, {a.Handshakes.Burst > 0, byHandshakes}, {a.Tunnels > 0, byTunnels}, {a.Bans.After > 0, byBan},
	} {
		if l.set {
			names = append(names, "limits."+l.name)
		}
	}
	return names
}

// A guard counts clients by address and by user, and says who has enough. What
// it remembers survives reloads and is bounded, see package limit.
type guard struct {
	server      *Server
	connections *limit.Gauge
	tunnels     *limit.Gauge // by address, and by user in the scope of a route
	handshakes  *limit.Buckets
	requests    *limit.Buckets // in the scopes of routes
	bans        *limit.Bans
	notes       notes
}

func newGuard(s *Server) *guard {
	g := &guard{
		server:      s,
		connections: limit.NewGauge(0),
		tunnels:     limit.NewGauge(0),
		handshakes:  limit.NewBuckets(0, time.Now),
		requests:    limit.NewBuckets(0, time.Now),
		bans:        limit.NewBans(0, time.Now),
	}
	g.notes.lines = map[noteKey]int{}
	return g
}

// follow lifts the bans when the config has them no more.
func (g *guard) follow(cfg *Config) {
	if cfg.Limits.PerAddress.Bans.After == 0 {
		g.bans.Lift()
	}
}

// spares tells whether an address is not counted.
func (g *guard) spares(a *AddressLimits, client netip.Addr) bool {
	return holds(a.Exempt, client) || g.server.state.Load().trusts(client)
}

func holds(list []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(list, func(p netip.Prefix) bool { return p.Contains(a) })
}

// lets tells whether a client of that address may connect.
func (l *Listener) lets(client netip.Addr) bool {
	return (len(l.Allow) == 0 || holds(l.Allow, client)) && !holds(l.Deny, client)
}

// What a connection or a request is refused by, as metrics and logs say it.
const (
	byDeny        = "deny"
	byBan         = "bans"
	byHandshakes  = "handshakes_per_ip"
	byConnections = "connections_per_ip"
	byTunnels     = "tunnels_per_ip"
	byUser        = "tunnels_per_user"
	byRate        = "rate"
)

// letIn says whether the client of a connection may begin, and counts it. One
// that may not costs nothing that lasts.
func (l *listener) letIn(c *clientConn) bool {
	set := l.settings.Load()
	peer := c.peer.Addr()
	by := l.server.guard.refuses(set, c, peer)
	if by != "" {
		l.server.guard.refused(by, set, peer)
	}
	return by == ""
}

// refuses names the limit that keeps a connection out, or counts the connection.
func (g *guard) refuses(set *listenerSettings, c *clientConn, peer netip.Addr) string {
	a := &set.limits.PerAddress
	switch {
	case !set.lets(peer):
		return byDeny
	case !a.counts() || g.spares(a, peer):
		return ""
	}
	key := a.key(peer)
	switch {
	case g.bans.Banned(key) > 0:
		return byBan
	case c.secure && g.handshakes.Take(key, a.Handshakes) > 0:
		return byHandshakes
	case a.Connections == 0:
		return ""
	case !g.connections.Enter(key, a.Connections):
		return byConnections
	}
	c.seat.Store(&seat{g.connections, key})
	if c.closed.Load() { // in the meantime, by the end of the server
		c.seat.Swap(nil).leave()
	}
	return ""
}

// A seat is a connection's among those of its address; nil: it is not counted.
type seat struct {
	gauge *limit.Gauge
	key   limit.Key
}

func (s *seat) leave() {
	if s != nil {
		s.gauge.Leave(s.key)
	}
}

// refused counts and tells of somebody who has enough.
func (g *guard) refused(by string, set *listenerSettings, client netip.Addr) {
	g.server.metrics.limited.inc(limitLabels{by, set.origin(set.Name)})
	g.note(by, set.limits.PerAddress.key(client).Addr(), "refused")
}

// strike counts a failure of a client that may get it banned.
func (g *guard) strike(set *listenerSettings, client netip.Addr) {
	a := &set.limits.PerAddress
	if a.Bans.After == 0 || !client.IsValid() || g.spares(a, client) {
		return
	}
	key := a.key(client)
	if !g.bans.Fail(key, a.Bans) {
		return
	}
	g.server.metrics.banned.Inc()
	g.note(byBan, key.Addr(), fmt.Sprintf("banned for %v after %d failures within %v", a.Bans.For, a.Bans.After, a.Bans.Within))
	g.wakeIn(a.Bans.For)
}

// strikesFor tells of a failed TLS handshake whether it was the client's doing.
// One that goes away in the middle is a balancer that looks whether we are there.
func strikesFor(cause string) bool {
	switch cause {
	case "timeout", "not_tls", "protocol", "client_refused":
		return true
	}
	return false
}

// withinLimits asks whether the client may have this request. One that asked
// before whether it may send its body is not counted twice.
func (r *request) withinLimits() *problem {
	g, a := r.server.guard, &r.listener.limits.PerAddress
	switch {
	case !r.listener.lets(r.conn.peer.Addr()): // since a reload
		g.refused(byDeny, r.listener, r.client)
		return addressRefused()
	case a.Bans.After > 0:
		if left := g.bans.Banned(a.key(r.client)); left > 0 && !g.spares(a, r.client) {
			g.refused(byBan, r.listener, r.client)
			return addressBanned(left)
		}
	}
	route := r.match.route
	switch {
	case route.Rate.Burst == 0 || route.Per == PerToken:
		return nil
	case route.Per == PerRoute:
		return r.takeOne(limit.Key{})
	}
	return r.takeOneByAddress()
}

// withinUserLimits is the part of withinLimits that needs to know who asks.
func (r *request) withinUserLimits() *problem {
	route := r.match.route
	switch user := r.user(); {
	case route.Rate.Burst == 0 || route.Per != PerToken:
		return nil
	case user != "":
		return r.takeOne(limit.Text(user))
	}
	return r.takeOneByAddress()
}

// user is who asks, by a token that was checked, and by whom it was: what one
// authority calls its user may be another's. "": nobody knows.
func (r *request) user() string {
	if r.decision == nil || r.decision.Subject == "" {
		return ""
	}
	return r.decision.By + " " + r.decision.Subject
}

func (r *request) takeOneByAddress() *problem {
	a := &r.listener.limits.PerAddress
	if r.server.guard.spares(a, r.client) {
		return nil
	}
	return r.takeOne(a.key(r.client))
}

type takenKey struct{}

// takeOne takes one request from the bucket of the key in the scope of the route.
func (r *request) takeOne(key limit.Key) *problem {
	if r.ctx != nil && r.ctx.UserValue(takenKey{}) != nil {
		return nil
	}
	wait := r.server.guard.requests.Take(key.In(limit.ScopeOf(r.match.route.name)), r.match.route.Rate)
	if wait > 0 {
		r.server.guard.refused(byRate, r.listener, r.client)
		return rateLimited(wait)
	}
	if r.ctx != nil {
		r.ctx.SetUserValue(takenKey{}, true) // until the next request
	}
	return nil
}

// A holder is for whom a tunnel counts. The zero value is nobody.
type holder struct {
	request         *request
	address, user   limit.Key
	perAddress, per int // 0: it does not count
}

func (r *request) holder() holder {
	h, a := holder{request: r}, &r.listener.limits.PerAddress
	if a.Tunnels > 0 && !r.server.guard.spares(a, r.client) {
		h.address, h.perAddress = a.key(r.client), a.Tunnels
	}
	if most := r.match.route.TunnelsPerUser; most > 0 && r.user() != "" {
		h.user, h.per = limit.Text(r.user()).In(limit.ScopeOf(r.match.route.name)), most
	}
	return h
}

// full is the problem that the holder has as many tunnels as it may. It may be
// out of date at once.
func (h *holder) full() *problem {
	if h.perAddress == 0 && h.per == 0 {
		return nil
	}
	g := h.request.server.guard
	switch {
	case h.perAddress > 0 && g.tunnels.Full(h.address, h.perAddress):
		return h.refusal(byTunnels)
	case h.per > 0 && g.tunnels.Full(h.user, h.per):
		return h.refusal(byUser)
	}
	return nil
}

// enter counts a tunnel. leave takes it back, and gives back the place at the node.
func (h *holder) enter(give func()) (leave func(), p *problem) {
	if h.perAddress == 0 && h.per == 0 {
		return give, nil
	}
	tunnels, address, user := h.request.server.guard.tunnels, h.address, h.user
	byAddress, perUser := h.perAddress > 0, h.per > 0
	if byAddress && !tunnels.Enter(address, h.perAddress) {
		return nil, h.refusal(byTunnels)
	}
	if perUser && !tunnels.Enter(user, h.per) {
		if byAddress {
			tunnels.Leave(address)
		}
		return nil, h.refusal(byUser)
	}
	return func() { // it lives as long as the tunnel and holds no request
		give()
		if byAddress {
			tunnels.Leave(address)
		}
		if perUser {
			tunnels.Leave(user)
		}
	}, nil
}

func (h *holder) refusal(by string) *problem {
	r := h.request
	r.server.guard.refused(by, r.listener, r.client)
	return tooManyTunnels().because(fmt.Errorf("%s is reached", by))
}

// takeLease takes the node's place for the holder, with give to give it back.
func (h *holder) takeLease(node *upstream.Node, give func()) (*upstream.Lease, *problem) {
	leave, p := h.enter(give)
	if p != nil {
		give()
		return nil, p
	}
	lease := node.Lease()
	lease.OnDone(leave)
	return lease, nil
}

func rateLimited(wait time.Duration) *problem {
	return &problem{status: 429, code: "rate_limited", retry: spreadFrom(wait),
		en: "Too many requests: try again in a while.", zh: "请求过于频繁，请稍后再试。"}
}

func tooManyTunnels() *problem {
	return &problem{status: 429, code: "too_many_tunnels", retry: spread(5),
		en: "There are as many connections from you as there may be; close one, or try again in a while.", zh: "您的连接数已达上限，请关闭其他连接或稍后再试。"}
}

func addressBanned(left time.Duration) *problem {
	return &problem{status: 403, code: "address_banned", retry: spreadFrom(left), endConn: true,
		en: "Your address is locked out for a while after repeated failures.", zh: "您的地址因多次失败已被暂时禁止访问。"}
}

// spreadFrom is a number of seconds from the wait on, up to half as many more, so
// that clients who were refused together do not come back together.
func spreadFrom(wait time.Duration) int {
	least := int(min(math.Ceil(wait.Seconds()), 24*3600))
	return least + rand.N(least/2+2)
}

type limitLabels struct {
	limit    string
	listener origin
}

func (l limitLabels) values() []string { return []string{l.limit, l.listener.String()} }

// A guardCollector tells of what the guard remembers.
type guardCollector struct {
	guard        *guard
	banned, keys *prometheus.Desc
}

func newGuardCollector(g *guard) *guardCollector {
	return &guardCollector{
		guard:  g,
		banned: prometheus.NewDesc("singlegate_banned_addresses", "Addresses that are banned (limits.bans).", nil, nil),
		keys:   prometheus.NewDesc("singlegate_limit_keys", "Addresses, users and routes that a limit counts at present. Beyond 65536 of a kind new ones share one limit.", []string{"limit"}, nil),
	}
}

// Describe implements prometheus.Collector.
func (c *guardCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- c.banned
	ch <- c.keys
}

// Collect implements prometheus.Collector.
func (c *guardCollector) Collect(ch chan<- prometheus.Metric) {
	out, g := sink{ch}, c.guard
	out.gauge(c.banned, float64(g.bans.Count()))
	for _, k := range []struct {
		limit string
		keys  int
	}{
		{"connections", g.connections.Keys()}, {"handshakes", g.handshakes.Keys()}, {"tunnels", g.tunnels.Keys()},
		{"requests", g.requests.Keys()}, {"failures", g.bans.Keys()},
	} {
		out.gauge(c.keys, float64(k.keys), k.limit)
	}
}
