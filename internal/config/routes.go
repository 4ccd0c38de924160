package config

import (
	"slices"
	"strings"

	"singlegate/gateway"
)

// A match is which requests a route takes on its listeners. Two routes with one
// match on one listener cannot both be used.
type match struct {
	host, path string // canonical
	accept     gateway.Accept
}

// A matcher is a route with one of its paths.
type matcher struct {
	at        pos
	listeners []string // none: all
}

// checkMatches reports routes that another one before them hides altogether.
func (d *decoder) checkMatches(rs []*route) {
	first := map[match][]matcher{}
	for _, r := range rs {
		if r.unsure {
			continue
		}
		for _, p := range r.paths {
			m := match{host: r.Host, path: canonical(p.value), accept: r.Accept}
			this := matcher{at: p.at, listeners: r.Listeners}
			i := slices.IndexFunc(first[m], func(other matcher) bool { return shareListener(this, other) })
			if i >= 0 {
				d.errorf(p.at, "%s: the route at %s takes the same requests (host, path and accept are the same, on the same listener)",
					p.shown, d.place(first[m][i].at))
				continue
			}
			first[m] = append(first[m], this)
		}
	}
}

// canonical is a path as routes compare: a slash at its end means nothing.
func canonical(path string) string { return strings.TrimSuffix(path, "/") }

func shareListener(a, b matcher) bool {
	if len(a.listeners) == 0 || len(b.listeners) == 0 {
		return true
	}
	return slices.ContainsFunc(a.listeners, func(name string) bool { return slices.Contains(b.listeners, name) })
}
