package config

import (
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"singlegate/gateway"
)

// What a route can do; each is a key, of which a route has one.
const (
	actService  = "service"
	actStatic   = "static"
	actPage     = "page"
	actRedirect = "redirect"
)

// A route is one of the file with what checks need of it.
type route struct {
	gateway.Route
	o         *object
	host      text
	paths     []text
	listeners []text
	service   text
	port      text
	actions   []string // keys of actions that it has
	unsure    bool     // its host, paths, accept or listeners could not be read
}

// routeContext is what routes refer to.
type routeContext struct {
	listeners listeners
	services  services
	auths     auths
	timeouts  gateway.Timeouts // for what a route does not set
	boshRead  time.Duration    // timeouts.read of a route of kind bosh that does not set it
}

// routesOf decodes the routes and checks them against what they refer to and
// each other.
func (d *decoder) routesOf(o *object, ctx routeContext) []*route {
	var rs []*route
	read(o, "routes", &rs, listOf(d, func(v value) (*route, bool) { return d.route(v, ctx) }))
	d.checkMatches(rs)
	return rs
}

func (d *decoder) route(v value, ctx routeContext) (*route, bool) {
	o, ok := d.object(v, "a route")
	if !ok {
		return &route{unsure: true}, true // its neighbours are checked all the same
	}
	r := &route{o: o}
	r.At = d.place(v.at)
	d.routeMatch(r)
	d.routeAction(r)
	r.Timeouts = ctx.timeoutsOf(r.Kind)
	read(o, "timeouts", &r.Timeouts, d.timeouts(r.Timeouts))
	d.tunnelRules(o, &r.Frames, &r.Ping, r.Timeouts)
	d.requestPolicies(o, &r.Policies)
	d.authRule(o, &r.Auth, ctx.auths)
	o.done()

	d.checkAction(r)
	d.checkPinned(r)
	d.checkListeners(r, ctx.listeners)
	d.checkService(o, r.service, r.port, ctx.services)
	return r, true
}

// routeMatch reads which requests the route takes.
func (d *decoder) routeMatch(r *route) {
	errs := len(d.errs)
	d.routePaths(r)
	if read(r.o, "host", &r.host, d.routeHost) {
		r.Host = r.host.value
	}
	r.Accept = gateway.AcceptAny
	read(r.o, "accept", &r.Accept, oneOf(d, gateway.AcceptWebSocket, gateway.AcceptHTTP, gateway.AcceptAny))
	d.routeKind(r)
	read(r.o, "listeners", &r.listeners, filled(d, d.text))
	r.Listeners = valuesOf(r.listeners)
	r.unsure = len(d.errs) > errs
}

// routePaths reads path or paths. A route for a host takes all its paths when
// it names none.
func (d *decoder) routePaths(r *route) {
	o := r.o
	if isHostMeta(o) {
		d.hostMetaPaths(r)
		return
	}
	var one text
	if read(o, "path", &one, d.checked(checkPath)) {
		r.paths = []text{one}
	}
	read(o, "paths", &r.paths, filled(d, d.checked(checkPath)))
	switch {
	case o.has("path") && o.has("paths"):
		d.errorf(o.keyAt("paths"), "a route has path or paths, not both")
	case !o.has("path") && !o.has("paths") && o.has("host"):
		r.paths = []text{{value: "/", shown: quote("/"), at: o.at}}
	case !o.has("path") && !o.has("paths"):
		d.errorf(o.at, "a route needs path, paths or host; path: / takes everything")
	}
	r.Paths = valuesOf(r.paths)
}

func (d *decoder) routeHost(v value) (text, bool) {
	t, ok := d.checked(func(s string) string { return checkRouteHost(strings.ToLower(s)) })(v)
	t.value = strings.ToLower(t.value)
	return t, ok
}

// routeAction reads what is done with the requests.
func (d *decoder) routeAction(r *route) {
	o := r.o
	if read(o, actService, &r.service, d.text) {
		r.Service = r.service.value
	}
	if read(o, "port", &r.port, d.text) {
		r.Port = r.port.value
	}
	read(o, "rewrite", &r.Rewrite, plain(d.checked(checkRewrite)))
	read(o, "rewrite_redirects", &r.RewriteRedirects, d.boolean)
	if o.has(actService) {
		r.Balance, r.Refuse = gateway.RoundRobin, gateway.RefuseStatus
	}
	read(o, "balance", &r.Balance, oneOf(d, gateway.RoundRobin, gateway.LeastConnections))
	read(o, "origins", &r.Origins, d.origins)
	read(o, "refuse", &r.Refuse, oneOf(d, gateway.RefuseStatus, gateway.RefuseClose))
	read(o, actStatic, &r.Static, d.path)
	read(o, "fallback", &r.Fallback, plain(d.checked(checkFallback)))
	read(o, actPage, &r.Page, oneOf(d, "check", gateway.PageHostMeta))
	read(o, actRedirect, &r.Redirect, plain(d.checked(checkRedirect)))
}

func checkFallback(s string) string {
	if !filepath.IsLocal(filepath.FromSlash(s)) {
		return "it is a file within the static folder; write its path from there"
	}
	return ""
}

func checkRedirect(s string) string {
	if s == "https" {
		return ""
	}
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "":
		return "expected https (same host and path), or a URL that begins with https:// or http://"
	case u.User != nil:
		return "a URL that clients get holds no user and password"
	}
	return ""
}

// origins takes "*" alone, or values of the Origin header (RFC 6454 section 7),
// whatever their scheme.
func (d *decoder) origins(v value) ([]string, bool) {
	list, ok := filled(d, d.checked(checkOrigin))(v)
	for _, t := range list {
		if t.value == "*" && len(list) > 1 {
			d.errorf(t.at, `origins: "*" lets any origin in and stands alone`)
			return nil, false
		}
	}
	return valuesOf(list), ok
}

func checkOrigin(s string) string {
	if s == "*" || s == "null" {
		return ""
	}
	scheme, host, ok := strings.Cut(s, "://")
	switch {
	case !ok || scheme == "":
		return "an origin begins with its scheme: https://web.example.gov"
	case strings.ContainsAny(host, "/?#"):
		return "an origin ends behind its host and port; leave the path and the final slash away"
	case strings.ContainsAny(s, "* ,"):
		return `an origin has no *, comma or space; "*" alone lets any in`
	}
	return ""
}

// ownerOf says to which action a key belongs.
func ownerOf(key string) string {
	switch key {
	case "kind", "port", "rewrite", "balance", "origins", "refuse", "frames", "ping", "tunnels_per_user", "request_headers", "rewrite_redirects", "max_body":
		return actService
	case "fallback":
		return actStatic
	}
	return ""
}

// checkAction reports a route that does nothing or two things, and keys that
// mean nothing to what it does.
func (d *decoder) checkAction(r *route) {
	for _, f := range r.o.fields {
		if slices.Contains([]string{actService, actStatic, actPage, actRedirect}, f.key) {
			r.actions = append(r.actions, f.key)
		}
	}
	does, what := "", "that refuses all"
	switch {
	case len(r.actions) > 1:
		d.errorf(r.o.keyAt(r.actions[1]), "the route has %s and %s; it can do one of them", r.actions[0], r.actions[1])
		return
	case len(r.actions) == 1:
		does, what = r.actions[0], "with "+r.actions[0]
	case !r.DeniesAll():
		d.errorf(r.o.at, "a route needs one of service, static, page and redirect; or deny: all, which refuses its requests")
		return
	}
	for _, f := range r.o.fields {
		if owner := ownerOf(f.key); owner != "" && owner != does {
			d.errorf(f.at, "%s means nothing to a route %s; it goes with %s", f.key, what, owner)
		}
	}
	if does == "" {
		return
	}
	d.checkKind(r)
}

// checkKind reports what means nothing to the kind of request that the route takes.
func (d *decoder) checkKind(r *route) {
	switch {
	case r.actions[0] != actService && r.Accept == gateway.AcceptWebSocket && r.o.has("accept"):
		d.errorf(r.o.keyAt("accept"), "accept: WebSocket handshakes need a service; %s answers HTTP requests", r.actions[0])
	case r.actions[0] == actService && r.Accept == gateway.AcceptHTTP:
		for _, k := range aboutWebSockets() {
			if r.o.has(k.key) {
				d.errorf(r.o.keyAt(k.key), "%s is about %s, and this route takes none (%s)", k.key, k.about, r.takesOnly())
			}
		}
	case r.actions[0] == actService && r.Accept == gateway.AcceptWebSocket:
		for _, key := range aboutHTTP() {
			if r.o.has(key) {
				d.errorf(r.o.keyAt(key), "%s is about HTTP requests, and this route takes none (%s)", key, r.takesOnly())
			}
		}
	}
	if r.o.has("rewrite_redirects") && !r.o.has("rewrite") && r.actions[0] == actService {
		d.errorf(r.o.keyAt("rewrite_redirects"), "rewrite_redirects gives addresses back what rewrite removed, and this route has no rewrite")
	}
}

// checkPinned reports {node} where it cannot name a node, or two may.
func (d *decoder) checkPinned(r *route) {
	hostPinned := strings.Contains(r.Host, nodeVariable)
	pinned := 0
	for _, p := range r.paths {
		if !strings.Contains(p.value, nodeVariable) {
			continue
		}
		pinned++
		if hostPinned {
			d.errorf(p.at, "%s: {node} stands in the host already, and only one can name the node", p.shown)
		} else if !r.o.has(actService) {
			d.errorf(p.at, "%s: {node} needs a service whose node it names", p.shown)
		}
	}
	if hostPinned && !r.o.has(actService) {
		d.errorf(r.host.at, "host: {node} needs a service whose node it names")
	}
	all := hostPinned || pinned > 0 && pinned == len(r.paths)
	if all && r.o.has("balance") {
		d.errorf(r.o.keyAt("balance"), "balance means nothing to a route whose {node} names the node")
	}
}

// checkListeners reports listeners that are not there, and a redirect that would
// lead back to itself.
func (d *decoder) checkListeners(r *route, ls listeners) {
	byName := map[string]listener{}
	for _, l := range ls.list {
		byName[l.Name] = l
	}
	for _, t := range r.listeners {
		l, ok := byName[t.value]
		switch {
		case !ok && !ls.broken:
			d.errorf(t.at, "there is no listener %s%s", t.shown, d.hint(t.value, "the listeners are", ls.names()))
		case l.Service != "":
			d.errorf(t.at, "listener %s is a TCP port of service %s and serves no routes", t.shown, l.service.shown)
		}
	}
	if r.Redirect != "https" || r.unsure {
		return
	}
	for _, l := range ls.list {
		if l.TLS && l.Service == "" && (len(r.Listeners) == 0 || slices.Contains(r.Listeners, l.Name)) {
			d.errorf(r.o.keyAt(actRedirect), "redirect: on the TLS listener %s https leads back to this route; name the plain ones under listeners", l.name.shown)
			return
		}
	}
}

// checkService reports a service that is not there, and a port that its nodes
// do not have; o is what names them.
func (d *decoder) checkService(o *object, service, port text, ss services) {
	if service.value == "" || ss.broken {
		return
	}
	s := ss.byName[service.value]
	switch {
	case s == nil:
		d.errorf(service.at, "there is no service %s%s", service.shown, d.hint(service.value, "the services are", ss.names()))
	case s.broken:
	case s.shared && !o.has("port"):
		d.errorf(service.at, "the nodes of service %s have several ports; add port: and one of %s",
			service.shown, enumerate(namesOf(s.ref.Ports)))
	case port.value == "":
	case slices.Equal(s.ref.Ports, []string{""}):
		d.errorf(port.at, "the nodes of service %s have one port without a name; leave port away", service.shown)
	case !slices.Contains(s.ref.Ports, port.value):
		d.errorf(port.at, "no node of service %s has a port %s%s",
			service.shown, port.shown, d.hint(port.value, "they have", namesOf(s.ref.Ports)))
	}
}

func valuesOf(list []text) []string {
	var values []string
	for _, t := range list {
		values = append(values, t.value)
	}
	return values
}

func configsOf(rs []*route) []gateway.Route {
	var configs []gateway.Route
	for _, r := range rs {
		configs = append(configs, r.Route)
	}
	return configs
}
