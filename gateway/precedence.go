package gateway

import (
	"slices"
	"strings"
)

// A Precedence tells which route of a config takes a request. It is the choice
// that a running gateway makes with that config, without its nodes and folders.
// It is immutable and safe for concurrent use.
type Precedence struct{ order []ranked }

type ranked struct {
	*route
	index int // in the config
}

// PrecedenceOf takes the routes of a config. Paths that Check refuses are left out.
func PrecedenceOf(routes []Route) *Precedence {
	p := &Precedence{}
	for i, rc := range routes {
		for _, path := range rc.Paths {
			if r, err := newRoute(rc, path); err == nil {
				p.order = append(p.order, ranked{r, i})
			}
		}
	}
	slices.SortStableFunc(p.order, func(a, b ranked) int { return comparePrecedence(a.route, b.route) })
	return p
}

// Winner gives the index, among the routes that Precedence was made of, of the
// one that takes a request: by the name of the listener, the host without a port,
// the path without a query, and whether it is a WebSocket handshake. -1: none does.
func (p *Precedence) Winner(listener, host, path string, websocket bool) int {
	path, err := canonicalPath(path)
	if err != nil {
		return -1
	}
	host = strings.ToLower(host)
	for _, r := range p.order {
		if _, ok := r.host.match(host); !ok || !r.takes(listener, websocket) {
			continue
		}
		if _, _, ok := r.path.match(path); ok {
			return r.index
		}
	}
	return -1
}
