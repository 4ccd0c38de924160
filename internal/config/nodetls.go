package config

import (
	"slices"

	"github.com/goccy/go-yaml/ast"

	"singlegate/certs"
	"singlegate/upstream"
)

// nodeTLS decodes how the nodes of a service are spoken to: true, or a mapping.
// Its files are opened by whoever starts the gateway.
func (d *decoder) nodeTLS(s *service) func(value) (*upstream.TLS, bool) {
	return func(v value) (*upstream.TLS, bool) {
		s.client = &certs.Client{At: d.place(v.at)}
		if _, plain := v.node.(*ast.BoolNode); plain {
			on, ok := d.boolean(v)
			if !on {
				s.client = nil
				return nil, ok
			}
			return &upstream.TLS{}, ok
		}
		o, ok := d.object(v, "tls")
		if !ok {
			return nil, false
		}
		t := &upstream.TLS{}
		verify := true
		read(o, "ca", &s.client.CA, d.path)
		read(o, "server_name", &s.client.ServerName, d.publicHost)
		read(o, "cert", &s.client.Cert, d.path)
		read(o, "key", &s.client.Key, d.path)
		read(o, "verify", &verify, d.boolean)
		read(o, "ports", &s.tlsPorts, filled(d, d.text))
		o.done()
		s.client.Unverified = !verify
		t.Ports = valuesOf(s.tlsPorts)
		switch {
		case !verify && (o.has("ca") || o.has("server_name")):
			d.errorf(o.keyAt("verify"), "verify: false takes any certificate, so ca and server_name mean nothing beside it")
		case o.has("key") && !o.has("cert"):
			d.errorf(o.keyAt("key"), "key goes with cert, the certificate that the nodes are shown")
		}
		return t, true
	}
}

// checkTLSPorts reports ports with TLS that the nodes do not have.
func (d *decoder) checkTLSPorts(s *service) {
	if s.broken {
		return
	}
	for _, port := range s.tlsPorts {
		if !slices.Contains(s.ref.Ports, port.value) {
			d.errorf(port.at, "tls: no node of service %s has a port %s%s", quote(s.ref.Name), port.shown, d.hint(port.value, "they have", namesOf(s.ref.Ports)))
		}
	}
}

// checkProxyTLS reports a PROXY header for a node that speaks TLS: it would have
// to stand before TLS, where the gateway's connections begin with TLS.
func (d *decoder) checkProxyTLS(o *object, port string, s *service) {
	if s == nil || s.ref.TLS == nil || !o.has("proxy_protocol") {
		return
	}
	if len(s.ref.TLS.Ports) == 0 || slices.Contains(s.ref.TLS.Ports, port) {
		d.errorf(o.keyAt("proxy_protocol"), "proxy_protocol: the nodes of service %s speak TLS at this port, and no header can stand before that; leave one of the two away", quote(s.ref.Name))
	}
}
