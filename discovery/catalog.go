package discovery

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"github.com/hashicorp/consul/api"
)

// maxTagged bounds the services that are followed because of their tags. Each
// takes a connection to the agent, which by default lets one address have 200.
const maxTagged = 150

// FollowTags makes the source follow services by their tags as well: those with
// a tag that begins with the prefix, which is not empty, and which services does
// not name. Each becomes a service of its own name, with @consul behind it if
// that is one of the names taken. Only instances with such a tag are its nodes.
// Tags of all services are read as ParseURLPrefix does. It is called before Run.
//
// What is believed of the list of services follows the rules of belief, with
// services in place of instances. A service without such tags is gone.
func (c *Consul) FollowTags(prefix string, taken []string) {
	c.prefix, c.taken = prefix, map[string]bool{}
	for _, name := range taken {
		c.taken[name] = true
	}
	for i := range c.services {
		c.services[i].prefix = prefix
	}
}

// tagged lists the services with tags of the prefix. Each is an entry with its
// name as the service id.
func (c *consulClient) tagged(prefix string) listing {
	return func(opts *api.QueryOptions) (entries []*api.ServiceEntry, meta *api.QueryMeta, err error) {
		services, meta, err := c.api.Catalog().Services(opts)
		for _, name := range slices.Sorted(maps.Keys(services)) {
			if hasPrefix(services[name], prefix) {
				entries = append(entries, &api.ServiceEntry{Node: &api.Node{}, Service: &api.AgentService{ID: name, Service: name}})
			}
		}
		return entries, meta, err
	}
}

// A catalog is what is known of the services that only their tags name.
type catalog struct {
	view     view
	answered bool                     // or failed to: a first word was heard
	followed map[string]ConsulService // by Consul's names
	logged   map[string]bool          // those beyond the bound
}

// found takes the list of tagged services, starts and ends watches so that they
// are those of it, and tells whether anything changed.
func (k *consulKnowledge) found(v view, w *watches) bool {
	c := &k.catalog
	k.logFault(taggedServices, c.view.fault, v.fault)
	before := c.view.fault
	c.view, c.answered = v, true
	names, beyond := k.taggedNames(v)
	changed := before != v.fault
	for name, s := range c.followed {
		if !slices.Contains(names, name) {
			w.stop(name)
			delete(c.followed, name)
			delete(k.services, s.Name)
			if !w.has(name) {
				delete(k.views, name)
			}
			changed = true
		}
	}
	for _, name := range names {
		if _, ok := c.followed[name]; !ok {
			c.followed[name] = ConsulService{Name: k.nameOf(name), Service: name, NodeID: idOfTagged, prefix: k.source.prefix, tagged: true}
			w.start(name)
		}
		changed = k.refresh(c.followed[name]) || changed
	}
	k.logBeyond(beyond)
	return k.noteUnknown() || changed
}

// taggedServices names the list of them in the log.
const taggedServices = "the list of services with tags"

// taggedNames are the services to follow because of their tags, and those beyond
// the bound. Those of services in the config are followed anyway.
func (k *consulKnowledge) taggedNames(v view) (names, beyond []string) {
	for _, e := range slices.Concat(v.listed, v.kept) {
		name := e.Service.Service
		configured := slices.ContainsFunc(k.source.services, func(s ConsulService) bool { return s.Service == name })
		if !configured {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	n := min(len(names), maxTagged)
	return names[:n], names[n:]
}

// nameOf is what we call a service of Consul that only its tags name.
func (k *consulKnowledge) nameOf(service string) string {
	for k.source.taken[service] {
		service += "@consul"
	}
	return service
}

func (k *consulKnowledge) logBeyond(names []string) {
	beyond := map[string]bool{}
	for _, name := range names {
		beyond[name] = true
		if !k.catalog.logged[name] {
			k.source.log.warn(fmt.Sprintf("a service with tags is not followed: there are more than %d; write it and its routes into the config", maxTagged), "consul_service", name)
		}
	}
	k.catalog.logged = beyond
}

// partial says why tagged services may be missing. One that Consul refuses to
// tell about is not waited for: Unknown says what is wrong with it.
func (k *consulKnowledge) partial() string {
	c := &k.catalog
	switch {
	case k.source.prefix == "":
		return ""
	case !c.view.known:
		return cmp.Or(c.view.fault, notListed(k.source.prefix))
	}
	for _, name := range slices.Sorted(maps.Keys(c.followed)) {
		if _, heard := k.views[name]; !heard {
			return fmt.Sprintf("Consul has not answered for %s yet, which has tags", quoted(name))
		}
	}
	return ""
}

// notListed is why no tagged service is known before Consul has spoken.
func notListed(prefix string) string {
	return "Consul has not said yet which services have tags that begin with " + quoted(prefix)
}

// A finder is a source that may find services which only their tags name.
// While it has published nothing, notFound says so; "": it finds none.
type finder interface{ notFound() string }

func (c *Consul) notFound() string {
	if c.prefix == "" {
		return ""
	}
	return notListed(c.prefix)
}

// notFoundBy is what a source says of services that it may find.
func notFoundBy(s Source) string {
	if f, ok := s.(finder); ok {
		return f.notFound()
	}
	return ""
}
