package gateway

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"singlegate/discovery"
	"singlegate/gateway/relay"
	"singlegate/upstream"
)

// A table is routes × view: immutable, swapped as a whole. A request sees one
// table from beginning to end.
type table struct {
	routes  []*route // by precedence: the first that matches is the one
	view    *upstream.View
	leftOut map[string][]discovery.LeftOut // tags that cannot be routes, by service
}

// A route is a Route of the config with one of its paths, or one that tags ask
// for, made ready to match.
type route struct {
	Route
	name   string // "im.example.gov/ws/{node}", for logs and messages
	host   hostPattern
	path   pathPattern
	rules  *relay.Rules // for its WebSockets; nil: none
	static *staticFiles
	pool   *upstream.Service // of a route of tags: the nodes that serve it
}

// compileRoutes prepares the routes of a config and opens the folders of static
// ones. The error joins everything that is wrong with them.
func compileRoutes(cfg *Config) ([]*route, error) {
	var routes []*route
	var errs []error
	for _, rc := range cfg.Routes {
		files, err := staticOf(rc)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", rc.At, err))
			continue
		}
		rules := rulesOf(rc.Frames, rc.Ping)
		for _, p := range rc.Paths {
			r, err := newRoute(rc, p)
			if err != nil {
				errs = append(errs, fmt.Errorf("%s: path %q: %w", rc.At, p, err))
				continue
			}
			r.rules, r.static = rules, files
			routes = append(routes, r)
		}
	}
	slices.SortStableFunc(routes, comparePrecedence)
	return routes, errors.Join(errs...)
}

// newRoute makes one path of a route ready to match.
func newRoute(rc Route, path string) (*route, error) {
	pattern, err := newPathPattern(path)
	if err != nil {
		return nil, err
	}
	if rc.Page == PageHostMeta && rc.CORS == nil {
		rc.CORS = hostMetaCORS()
	}
	return &route{Route: rc, name: rc.Host + path, host: newHostPattern(rc.Host), path: pattern}, nil
}

// staticOf opens the folder of a static route. It stays open as long as a table
// or a request refers to it: the runtime closes an os.Root that nothing refers to.
func staticOf(rc Route) (*staticFiles, error) {
	if rc.Static == "" {
		return nil, nil
	}
	return openStatic(rc.Static, rc.Fallback)
}

// comparePrecedence puts the route first that wins where both match: exact host
// before {node} host before none; then the longer path; literal before {node};
// then the narrower accept; then the order of the file, and tags.
func comparePrecedence(a, b *route) int {
	if d := a.host.rank() - b.host.rank(); d != 0 {
		return d
	}
	if d := len(b.path.segments) - len(a.path.segments); d != 0 {
		return d
	}
	for i := range a.path.segments {
		an, bn := a.path.segments[i] == nodeVariable, b.path.segments[i] == nodeVariable
		if an != bn {
			if bn {
				return -1
			}
			return 1
		}
	}
	return acceptRank(a.Accept) - acceptRank(b.Accept)
}

func acceptRank(a Accept) int {
	if a == AcceptAny || a == "" {
		return 1
	}
	return 0
}

// pinned tells whether the route's match names the node.
func (r *route) pinned() bool { return r.host.node || r.path.node }

// takes tells whether the route is for that kind of request on that listener.
// Files and pages are never for WebSockets.
func (r *route) takes(listener string, websocket bool) bool {
	if websocket && (r.Static != "" || r.Page != "") {
		return false
	}
	switch r.Accept {
	case AcceptHTTP:
		if websocket {
			return false
		}
	case AcceptWebSocket:
		if !websocket {
			return false
		}
	}
	return r.on(listener)
}

// on tells whether the route is one of that listener.
func (r *route) on(listener string) bool {
	return len(r.Listeners) == 0 || slices.Contains(r.Listeners, listener)
}

// A match is what a table says of one request.
type match struct {
	route   *route
	rest    string            // the path below the matched prefix: "" or "/…"
	path    string            // what is sent upstream
	service *upstream.Service // nil for routes without one, and while nothing is known of it
	pinned  bool              // the request names its node
	name    string            // what the request had for {node}
	node    *upstream.Node    // the node of a pinned request; nil: unknown
}

// match finds the route of a request: its listener, canonical host and path,
// and whether it is a WebSocket handshake.
func (t *table) match(listener, host, path string, websocket bool) (m match, ok bool) {
	for _, r := range t.routes {
		hostNode, ok := r.host.match(host)
		if !ok || !r.takes(listener, websocket) {
			continue
		}
		pathNode, rest, ok := r.path.match(path)
		if !ok {
			continue
		}
		m = match{route: r, rest: rest, path: r.Rewritten(path, rest)}
		if m.service = r.pool; m.service == nil {
			m.service = t.service(r.Service)
		}
		if r.pinned() {
			m.pin(r, hostNode, pathNode)
		}
		return m, true
	}
	return match{}, false
}

// implied is the match of whatever comes in by a port of its own: the route of
// that port, and its node when it has one.
func (t *table) implied(by *impliedRoute, path string) match {
	m := match{route: by.route, rest: path, path: path, service: t.service(by.route.Service)}
	if by.node != "" {
		m.pinned, m.name = true, by.node
		if m.service != nil {
			m.node = m.service.Node(by.node)
		}
	}
	return m
}

func (t *table) service(name string) *upstream.Service {
	if name == "" || t.view == nil {
		return nil
	}
	return t.view.Services[name]
}

func (m *match) pin(r *route, hostNode, pathNode string) {
	m.pinned = true
	if r.host.node {
		m.name = hostNode
		if m.service != nil {
			m.node = m.service.NodeByHost(hostNode)
		}
		return
	}
	m.name = pathNode
	if name, err := url.PathUnescape(pathNode); err == nil {
		m.name = name
	}
	if m.service != nil {
		m.node = m.service.Node(m.name)
	}
}

// Rewritten is the path that a node is asked for: unchanged without a rewrite,
// else the rewrite in place of the matched prefix, which rest, "" or beginning
// with a slash, follows in path. Both are canonical.
func (r *Route) Rewritten(path, rest string) string {
	if r.Rewrite == "" {
		return path
	}
	if rest == "" {
		return r.Rewrite
	}
	return strings.TrimSuffix(r.Rewrite, "/") + rest
}

const nodeVariable = "{node}"

// A pathPattern is a path prefix, one segment of which may be {node}.
type pathPattern struct {
	text     string // as it is written, in canonical form: "/ws/{node}"
	segments []string
	before   string // the literal up to {node}, or all of it; no slash at its end
	node     bool
	after    string // the literal behind {node}
}

// newPathPattern takes a path as the config has it: "/ws/{node}", "/app/".
func newPathPattern(path string) (pathPattern, error) {
	before, after, node := strings.Cut(path, nodeVariable)
	var p pathPattern
	var err error
	p.node = node
	if p.before, err = literalPrefix(before); err != nil {
		return p, err
	}
	if p.after, err = literalPrefix(after); err != nil {
		return p, err
	}
	p.text = p.before
	if node {
		p.text += "/" + nodeVariable + p.after
	}
	if p.text == "" {
		p.text = "/"
	}
	for s := range strings.SplitSeq(strings.Trim(path, "/"), "/") {
		if s != "" {
			p.segments = append(p.segments, s)
		}
	}
	return p, nil
}

// literalPrefix is the canonical form of a prefix; a slash at its end means nothing.
func literalPrefix(s string) (string, error) {
	if s == "" || s == "/" {
		return "", nil
	}
	c, err := canonicalPath(s)
	return strings.TrimSuffix(c, "/"), err
}

// of is the path with a node's name in it.
func (p *pathPattern) of(node string) string {
	return strings.ReplaceAll(p.text, nodeVariable, url.PathEscape(node))
}

// match tells what stands for {node} in a canonical path and what follows the
// prefix. It allocates nothing.
func (p *pathPattern) match(path string) (node, rest string, ok bool) {
	rest, ok = cutPrefix(path, p.before)
	if !ok || !p.node {
		return "", rest, ok
	}
	if len(rest) < 2 {
		return "", "", false
	}
	node, rest = rest[1:], ""
	if i := strings.IndexByte(node, '/'); i >= 0 {
		node, rest = node[:i], node[i:]
	}
	rest, ok = cutPrefix(rest, p.after)
	return node, rest, ok && node != ""
}

// cutPrefix cuts a prefix off at a segment boundary.
func cutPrefix(path, prefix string) (rest string, ok bool) {
	rest, ok = strings.CutPrefix(path, prefix)
	return rest, ok && (rest == "" || rest[0] == '/')
}

// A hostPattern is an exact host name, "{node}." before one, or nothing.
type hostPattern struct {
	name string // lower case; what follows "{node}" with its dot, when node is set
	node bool
}

func newHostPattern(host string) hostPattern {
	host = strings.ToLower(host)
	suffix, node := strings.CutPrefix(host, nodeVariable)
	return hostPattern{name: suffix, node: node}
}

func (h hostPattern) rank() int {
	switch {
	case h.name == "":
		return 2
	case h.node:
		return 1
	}
	return 0
}

func (h hostPattern) match(host string) (node string, ok bool) {
	if h.name == "" {
		return "", true
	}
	if !h.node {
		return "", host == h.name
	}
	node, ok = strings.CutSuffix(host, h.name)
	return node, ok && node != "" && !strings.Contains(node, ".")
}
