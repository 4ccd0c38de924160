package gateway

import (
	"fmt"
	"maps"
	"slices"

	"singlegate/discovery"
	"singlegate/upstream"
)

// maxTagRoutes bounds the routes that tags ask for: a request looks at each.
const maxTagRoutes = 1000

// A tagged is all that the tags of a view ask for.
type tagged struct {
	routes  []*route
	leftOut map[string][]discovery.LeftOut // what cannot be served, by service
}

// tagRoutes makes routes of what the services' nodes ask for by their tags. Those
// of the file come first: where they take everything that a tag asks for, it
// is left out. Services that ask for the same share it; of those that want
// it done in different ways, the first by name has it. The table before lends
// its turns.
func tagRoutes(cfg *Config, file []*route, view *upstream.View, before *table) tagged {
	t := tagged{leftOut: map[string][]discovery.LeftOut{}}
	if cfg.TagRoutes == nil || view == nil {
		return t
	}
	b := tagBuilder{cfg: cfg, file: file, view: view, leftOut: t.leftOut, byMatch: map[tagMatch]*tagAsked{}}
	for _, service := range slices.Sorted(maps.Keys(view.Services)) {
		for _, asked := range view.Services[service].Routes {
			b.add(service, asked)
		}
	}
	turns := map[tagMatch]*upstream.Service{}
	for _, r := range before.routes {
		if r.pool != nil {
			turns[tagMatch{r.Host, r.path.text}] = r.pool
		}
	}
	for _, a := range b.inOrder {
		a.route.pool = upstream.Pool(a.route.Service, a.members, turns[tagMatch{a.route.Host, a.route.path.text}])
		t.routes = append(t.routes, a.route)
	}
	return t
}

type tagBuilder struct {
	cfg     *Config
	file    []*route
	view    *upstream.View
	leftOut map[string][]discovery.LeftOut
	byMatch map[tagMatch]*tagAsked
	inOrder []*tagAsked
}

type tagMatch struct{ host, path string }

type tagAsked struct {
	route   *route
	members []upstream.Member
}

// add takes one route that a service's nodes ask for.
func (b *tagBuilder) add(service string, asked discovery.TagRoute) {
	r, problem := b.compile(service, asked)
	if problem == "" {
		problem = b.join(r, service, asked)
	}
	if problem != "" {
		b.leftOut[service] = append(b.leftOut[service], discovery.LeftOut{Instance: "tag route " + asked.Host + asked.Path, Reason: problem})
	}
}

// compile makes a route ready to match; it has what the config says of all
// routes of tags.
func (b *tagBuilder) compile(service string, asked discovery.TagRoute) (r *route, problem string) {
	rc := *b.cfg.TagRoutes
	rc.Host, rc.Paths, rc.Service, rc.Port = asked.Host, []string{asked.Path}, service, asked.Port
	r, err := newRoute(rc, asked.Path)
	if err == nil && asked.Rewrite != "" {
		r.Rewrite, err = canonicalPath(asked.Rewrite)
	}
	if err != nil {
		return nil, err.Error()
	}
	r.name = r.Host + r.path.text // tags spell one path in several ways
	if at := b.hiddenBy(r); at != "" {
		return nil, fmt.Sprintf("the route at %s takes the same requests, and the config file comes first; remove that route, or the tag", at)
	}
	return r, ""
}

// join gives the nodes to the route that takes the same requests, if one does.
func (b *tagBuilder) join(r *route, service string, asked discovery.TagRoute) (problem string) {
	key := tagMatch{r.Host, r.path.text}
	a := b.byMatch[key]
	switch {
	case a == nil && len(b.inOrder) == maxTagRoutes:
		return fmt.Sprintf("tags ask for more than %d routes; write some into the config file", maxTagRoutes)
	case a == nil:
		a = &tagAsked{route: r}
		b.byMatch[key] = a
		b.inOrder = append(b.inOrder, a)
	case a.route.Rewrite != r.Rewrite || a.route.Port != r.Port:
		return fmt.Sprintf("a tag of service %q asks for the same requests with another strip (or another port); give all the same", a.route.Service)
	}
	svc := b.view.Services[service]
	for _, share := range asked.Nodes {
		n := svc.Node(share.Node)
		known := slices.ContainsFunc(a.members, func(m upstream.Member) bool { return m.Node == n })
		if n != nil && !known {
			a.members = append(a.members, upstream.Member{Node: n, Share: share.Weight})
		}
	}
	return ""
}

// hiddenBy is the place of a route of the file that takes all, or the last, of
// what r would; "": something is left for r.
func (b *tagBuilder) hiddenBy(r *route) (at string) {
	for _, l := range b.cfg.Listeners {
		if l.Service != "" || !r.takes(l.Name, false) {
			continue
		}
		for _, websocket := range []bool{false, true} {
			i := slices.IndexFunc(b.file, func(f *route) bool {
				return f.host == r.host && f.path.text == r.path.text && f.takes(l.Name, websocket)
			})
			if i < 0 {
				return ""
			}
			at = b.file[i].At
		}
	}
	return at
}

// newTable joins the routes of the file and those of tags.
func newTable(cfg *Config, file []*route, view *upstream.View, before *table) *table {
	tags := tagRoutes(cfg, file, view, before)
	t := &table{routes: file, view: view, leftOut: tags.leftOut}
	if len(tags.routes) > 0 {
		t.routes = slices.Concat(file, tags.routes)
		slices.SortStableFunc(t.routes, comparePrecedence)
	}
	return t
}

// partial tells whether tags may ask for routes that are not known yet.
func (t *table) partial() bool { return t.view != nil && t.view.Partial != "" }

// noTags says why nothing is known of the services that only tags name, not even
// from a cache; "": something is, or there may be none.
func (t *table) noTags() string {
	if t.view == nil {
		return ""
	}
	for _, svc := range t.view.Services {
		if svc.Tagged {
			return ""
		}
	}
	return t.view.Partial
}

// leftOutOf is what of a service cannot be served as it is registered.
func (t *table) leftOutOf(svc *upstream.Service) []discovery.LeftOut {
	return slices.Concat(svc.LeftOut, t.leftOut[svc.Name])
}

// noteTags says what tags have brought and taken, and which cannot be served.
func (s *Server) noteTags(before, now *table) {
	was, is := before.byTag(), now.byTag()
	for _, name := range slices.Sorted(maps.Keys(is)) {
		if was[name] == nil {
			s.log.Info().Str("route", name).Str("service", is[name].Service).Msg("route of a tag added")
		}
	}
	for _, name := range slices.Sorted(maps.Keys(was)) {
		if is[name] == nil {
			s.log.Info().Str("route", name).Str("service", was[name].Service).Msg("route of a tag removed")
		}
	}
	for service, list := range now.leftOut {
		for _, l := range list {
			if !slices.Contains(before.leftOut[service], l) {
				s.log.Warn().Str("service", service).Str("instance", l.Instance).Str("reason", l.Reason).Msg("a tag cannot be a route")
			}
		}
	}
}

// byTag are the routes of tags by name.
func (t *table) byTag() map[string]*route {
	routes := map[string]*route{}
	for _, r := range t.routes {
		if r.pool != nil {
			routes[r.name] = r
		}
	}
	return routes
}

// tagRoutesOf are those that lead to nodes of a service.
func (t *table) tagRoutesOf(service string) []discovery.TagRoute {
	var list []discovery.TagRoute
	for _, r := range t.routes {
		if r.pool == nil {
			continue
		}
		asked := discovery.TagRoute{Host: r.Host, Path: r.path.text, Rewrite: r.Rewrite, Port: r.Port}
		for _, n := range r.pool.Nodes() {
			if n.Service == service {
				asked.Nodes = append(asked.Nodes, discovery.Share{Node: n.ID, Weight: float64(n.Weight)})
			}
		}
		if len(asked.Nodes) > 0 {
			list = append(list, asked)
		}
	}
	return list
}

// sharedEntryPoint is the URL of a route of tags, if the node serves it.
func (r *route) sharedEntryPoint(e Entry, n *upstream.Node) (url string, ok bool) {
	if r.pool == nil || !r.takes(e.Name, false) || !slices.ContainsFunc(r.pool.Nodes(), func(p *upstream.Node) bool { return p.Key() == n.Key() }) {
		return "", false
	}
	return webSchemes(e.TLS, true, false)[0] + "://" + e.hostPort(r.Host) + r.path.text, true
}
