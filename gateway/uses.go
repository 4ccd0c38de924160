package gateway

import (
	"strings"

	"singlegate/discovery"
)

// Uses tells what a node's port is there for, as far as the routes that lead to
// it say: HTTP requests, WebSockets, or both. A route that names the node is for
// WebSockets, and one that does not for HTTP, unless its accept says otherwise.
// Both are true of a port that no route leads to: it may be for either.
func Uses(routes []Route, service string, n *discovery.Node, port string) (http, websocket bool) {
	number, ok := n.Port(port)
	for i := range routes {
		r := &routes[i]
		if r.Service != service {
			continue
		}
		if other, has := n.Port(r.Port); !ok || !has || other != number {
			continue
		}
		for _, path := range r.Paths {
			if r.ForWebSockets(path) {
				websocket = true
			} else {
				http = true
			}
		}
	}
	if !http && !websocket {
		return true, true
	}
	return http, websocket
}

// ForWebSockets tells what clients ask of the route under one of its paths: a
// match that names the node is one for WebSockets, unless accept says otherwise.
func (r *Route) ForWebSockets(path string) bool {
	named := strings.Contains(r.Host, nodeVariable) || strings.Contains(path, nodeVariable)
	return r.Service != "" && (r.Accept == AcceptWebSocket || r.Accept != AcceptHTTP && named)
}
