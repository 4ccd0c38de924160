package livecheck

import (
	"maps"
	"slices"
)

// addTagRoutes puts the routes that tags ask for, as the gateway tells, behind
// those of the file. One that several services share is that of the first.
func (c *checker) addTagRoutes() {
	if c.cfg.TagRoutes == nil {
		return
	}
	cfg := *c.cfg
	cfg.Routes = slices.Clone(cfg.Routes)
	shared := map[string]bool{}
	for _, service := range slices.Sorted(maps.Keys(c.running.routes)) {
		for _, asked := range c.running.routes[service] {
			match := asked.Host + asked.Path
			if shared[match] {
				continue
			}
			shared[match] = true
			r := *cfg.TagRoutes
			r.At, r.Host, r.Paths = tagsOf(service), asked.Host, []string{asked.Path}
			r.Service, r.Port, r.Rewrite = service, asked.Port, asked.Rewrite
			cfg.Routes = append(cfg.Routes, r)
		}
	}
	c.cfg = &cfg
}

// tagsOf is where a route stands that no file has.
func tagsOf(service string) string { return "consul: " + service }
