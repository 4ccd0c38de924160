package livecheck

import (
	"net/url"
	"slices"
	"strings"

	"singlegate/gateway"
)

const nodeVariable = "{node}"

// pinned tells whether a path of a route names the node.
func pinned(r *gateway.Route, path string) bool {
	return strings.Contains(r.Host, nodeVariable) || strings.Contains(path, nodeVariable)
}

// takes tells whether the route is for that kind of request on that listener.
func takes(r *gateway.Route, listener string, websocket bool) bool {
	if websocket && (r.Static != "" || r.Page != "" || r.Accept == gateway.AcceptHTTP) || !websocket && r.Accept == gateway.AcceptWebSocket {
		return false
	}
	return len(r.Listeners) == 0 || slices.Contains(r.Listeners, listener)
}

// A request is what is asked for, as far as the choice of a route goes.
type request struct {
	listener  string
	host      string // in lower case, without a port
	path      string
	websocket bool
}

// winner is the route that takes the request, as the gateway chooses: exact
// host before {node} host before none, then the longer path, literal before
// {node}, the narrower kind, the order of the file.
func winner(routes []gateway.Route, q request) *gateway.Route {
	var best *gateway.Route
	var bestPath string
	for i := range routes {
		r := &routes[i]
		if !takes(r, q.listener, q.websocket) || !matchesHost(r.Host, q.host) {
			continue
		}
		for _, path := range r.Paths {
			if matchesPath(path, q.path) && (best == nil || precedes(r, path, best, bestPath)) {
				best, bestPath = r, path
			}
		}
	}
	return best
}

func matchesHost(pattern, host string) bool {
	if pattern == "" {
		return true
	}
	suffix, node := strings.CutPrefix(strings.ToLower(pattern), nodeVariable)
	if !node {
		return suffix == host
	}
	label, ok := strings.CutSuffix(host, suffix)
	return ok && label != "" && !strings.Contains(label, ".")
}

func matchesPath(pattern, path string) bool {
	want, got := segments(pattern), segments(path)
	if len(got) < len(want) {
		return false
	}
	for i, s := range want {
		if s != nodeVariable && s != got[i] {
			return false
		}
	}
	return true
}

func segments(path string) []string {
	return strings.FieldsFunc(path, func(r rune) bool { return r == '/' })
}

// precedes tells whether a comes before b; of equals the earlier one stays.
func precedes(a *gateway.Route, aPath string, b *gateway.Route, bPath string) bool {
	if d := hostRank(a.Host) - hostRank(b.Host); d != 0 {
		return d < 0
	}
	as, bs := segments(aPath), segments(bPath)
	if len(as) != len(bs) {
		return len(as) > len(bs)
	}
	for i := range as {
		if an, bn := as[i] == nodeVariable, bs[i] == nodeVariable; an != bn {
			return bn
		}
	}
	return narrow(a.Accept) && !narrow(b.Accept)
}

func hostRank(host string) int {
	switch {
	case host == "":
		return 2
	case strings.Contains(host, nodeVariable):
		return 1
	}
	return 0
}

func narrow(a gateway.Accept) bool { return a != gateway.AcceptAny && a != "" }

// pathFor is the path that a client asks for to get to a node; the name is ""
// for routes that are not pinned.
func pathFor(pattern, name string) string {
	path := strings.ReplaceAll(pattern, nodeVariable, url.PathEscape(name))
	if strings.Contains(pattern, nodeVariable) && path != "/" {
		path = strings.TrimSuffix(path, "/")
	}
	return path
}

// hostFor is a route's host name for a node.
func hostFor(pattern, name string) string {
	return strings.ToLower(strings.ReplaceAll(pattern, nodeVariable, name))
}

// sentPath is what a node is asked for when a client asks for path.
func sentPath(r *gateway.Route, pattern, path string) string {
	if r.Rewrite == "" {
		return path
	}
	rest := ""
	if n := len(segments(pattern)); n == 0 {
		rest = path
	} else if strings.HasSuffix(path, "/") {
		rest = "/"
	}
	if rest == "" {
		return r.Rewrite
	}
	return strings.TrimSuffix(r.Rewrite, "/") + rest
}
