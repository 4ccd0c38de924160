package livecheck

import (
	"net/url"
	"strings"

	"singlegate/gateway"
)

const nodeVariable = "{node}"

// pinned tells whether a path of a route names the node.
func pinned(r *gateway.Route, path string) bool {
	return strings.Contains(r.Host, nodeVariable) || strings.Contains(path, nodeVariable)
}

func segments(path string) []string {
	return strings.FieldsFunc(path, func(r rune) bool { return r == '/' })
}

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
	rest := ""
	if n := len(segments(pattern)); n == 0 {
		rest = path
	} else if strings.HasSuffix(path, "/") {
		rest = "/"
	}
	return r.Rewritten(path, rest)
}
