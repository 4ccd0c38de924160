package config

import (
	"slices"
	"time"

	"singlegate/upstream"
)

// check takes how the nodes of a service are checked: {kind: tcp},
// {kind: http, path: /healthz}, {kind: websocket, path: /}.
func (d *decoder) check(v value) (*upstream.Check, bool) {
	o, ok := d.object(v, "check")
	if !ok {
		return nil, false
	}
	c := &upstream.Check{Every: 10 * time.Second, Timeout: 3 * time.Second}
	require(o, "kind", &c.Kind, oneOf(d, upstream.CheckTCP, upstream.CheckHTTP, upstream.CheckWebSocket))
	read(o, "port", &c.Port, plain(d.text))
	if c.Kind != upstream.CheckTCP {
		c.Path = "/"
	}
	read(o, "path", &c.Path, plain(d.checked(checkRewrite)))
	read(o, "host", &c.Host, plain(d.text))
	read(o, "every", &c.Every, d.wait)
	read(o, "timeout", &c.Timeout, d.wait)
	o.done()
	for _, key := range []string{"path", "host"} {
		if c.Kind == upstream.CheckTCP && o.has(key) {
			d.errorf(o.keyAt(key), "%s means nothing to a check of kind tcp", key)
			return nil, false
		}
	}
	return c, true
}

// checkCheckPort reports a check of a port that the nodes do not have.
func (d *decoder) checkCheckPort(s *service) {
	c := s.ref.Check
	switch {
	case c == nil || s.broken:
	case c.Port == "" && s.shared:
		d.errorf(s.at, "check: the nodes of service %s have several ports; add port: and one of %s", quote(s.ref.Name), enumerate(namesOf(s.ref.Ports)))
	case c.Port != "" && !slices.Contains(s.ref.Ports, c.Port):
		d.errorf(s.at, "check: no node of service %s has a port %s%s", quote(s.ref.Name), quote(c.Port), d.hint(c.Port, "they have", namesOf(s.ref.Ports)))
	}
}
