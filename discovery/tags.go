package discovery

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/hashicorp/consul/api"
)

// idOfTagged is the node id rule of services that only their tags name: the
// service id, and where that is just the service's name, as agents give it to
// services that are registered without one, the name of Consul's node.
const idOfTagged = "tagged"

// hasPrefix tells whether some tag asks for a route.
func hasPrefix(tags []string, prefix string) bool {
	return slices.ContainsFunc(tags, func(tag string) bool { return strings.HasPrefix(strings.TrimSpace(tag), prefix) })
}

// A tagBuilder makes routes of the tags of a service's nodes.
type tagBuilder struct {
	prefix  string // "": tags ask for nothing
	port    string // the name of the registered port, to which tags lead
	portOK  bool
	routes  map[tagMatch]*TagRoute
	refused map[string]bool // tags that were reported
	leftOut []LeftOut
}

type tagMatch struct{ host, path, rewrite string }

func newTagBuilder(s ConsulService) *tagBuilder {
	b := &tagBuilder{prefix: s.prefix, portOK: len(s.Ports) == 0, routes: map[tagMatch]*TagRoute{}, refused: map[string]bool{}}
	for _, name := range slices.Sorted(maps.Keys(s.Ports)) {
		if s.Ports[name] == (PortFrom{}) {
			b.port, b.portOK = name, true
			break
		}
	}
	return b
}

// add takes the tags of an instance that is a node. One tag that cannot be a
// route leaves the others as they are; the same tag of many instances is
// reported once, with the first.
func (b *tagBuilder) add(e *api.ServiceEntry, node string) {
	if b.prefix == "" {
		return
	}
	for _, tag := range e.Service.Tags {
		u, ok, err := ParseURLPrefix(b.prefix, tag)
		if ok && err == nil && !b.portOK {
			err = fmt.Errorf("it leads to the registered port, and the service's ports do not name that; add one with the value port")
		}
		switch {
		case !ok:
		case err == nil:
			b.route(u, node)
		case !b.refused[tag]:
			b.refused[tag] = true
			b.leftOut = append(b.leftOut, LeftOut{Instance: instanceName(e) + ", tag " + quoted(tag), Reason: err.Error()})
		}
	}
}

// route notes that a node serves what a tag asks for. A node that asks twice
// counts once, with the first weight.
func (b *tagBuilder) route(u URLPrefix, node string) {
	key := tagMatch{u.Host, u.Path, u.rewrite()}
	r := b.routes[key]
	if r == nil {
		r = &TagRoute{Host: key.host, Path: key.path, Rewrite: key.rewrite, Port: b.port}
		b.routes[key] = r
	}
	if n := len(r.Nodes); n == 0 || r.Nodes[n-1].Node != node {
		r.Nodes = append(r.Nodes, Share{node, u.Weight})
	}
}

// sorted gives the routes in an order that only depends on what is registered.
func (b *tagBuilder) sorted() []TagRoute {
	var routes []TagRoute
	for _, r := range b.routes {
		slices.SortFunc(r.Nodes, func(x, y Share) int { return cmp.Compare(x.Node, y.Node) })
		routes = append(routes, *r)
	}
	slices.SortFunc(routes, func(x, y TagRoute) int {
		return cmp.Or(cmp.Compare(x.Host, y.Host), cmp.Compare(x.Path, y.Path), cmp.Compare(x.Rewrite, y.Rewrite))
	})
	return routes
}

// without leaves nodes out of routes, and routes that have none left.
func without(routes []TagRoute, nodes map[string]bool) []TagRoute {
	if len(nodes) == 0 {
		return routes
	}
	var kept []TagRoute
	for _, r := range routes {
		r.Nodes = slices.DeleteFunc(slices.Clone(r.Nodes), func(s Share) bool { return nodes[s.Node] })
		if len(r.Nodes) > 0 {
			kept = append(kept, r)
		}
	}
	return kept
}
