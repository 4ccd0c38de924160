package config

import "singlegate/gateway"

// isHostMeta tells whether what a route does says already under which paths.
func isHostMeta(o *object) bool {
	f := o.byKey[actPage]
	if f == nil {
		return false
	}
	s, ok := scalar(f.value.node)
	return ok && s == gateway.PageHostMeta
}

func (d *decoder) hostMetaPaths(r *route) {
	for _, key := range []string{"path", "paths"} {
		if f := r.o.take(key); f != nil {
			d.errorf(f.at, "%s: clients ask for host-meta under %s alone; leave %s away", key, enumerate(namesOf(gateway.HostMetaPaths())), key)
		}
	}
	for _, path := range gateway.HostMetaPaths() {
		r.paths = append(r.paths, text{value: path, shown: quote(path), at: r.o.at})
	}
	r.Paths = valuesOf(r.paths)
}
