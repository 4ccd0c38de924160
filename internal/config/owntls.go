package config

import (
	"crypto/tls"
	"slices"

	"singlegate/certs"
	"singlegate/gateway"
)

// ownTLS is what a listener, or a node port, has of TLS for itself.
type ownTLS struct {
	policy  *object             // nil: that of all listeners
	clients *certs.ClientConfig // how its clients' certificates are verified; nil: they are not asked for
}

// ownTLS reads it, for the listener or port that o is.
func (d *decoder) ownTLS(o *object, secure bool, policy **gateway.TLSPolicy, clients **gateway.ClientCertificates) (own ownTLS) {
	read(o, "tls_policy", policy, d.tlsPolicy(&own))
	read(o, "client_certificates", clients, d.clientCertificates(&own))
	if *policy != nil && !secure {
		d.errorf(o.keyAt("tls_policy"), "tls_policy means nothing without tls: true")
	}
	if *clients != nil && !secure {
		d.errorf(o.keyAt("client_certificates"), "client_certificates needs tls: true, as a client can show one in TLS only")
	}
	return own
}

func (d *decoder) tlsPolicy(own *ownTLS) func(value) (*gateway.TLSPolicy, bool) {
	return func(v value) (*gateway.TLSPolicy, bool) {
		o, ok := d.object(v, "tls_policy")
		if !ok {
			return nil, false
		}
		own.policy = o
		p := &gateway.TLSPolicy{}
		read(o, "min_version", &p.MinVersion, d.tlsVersion)
		read(o, "cipher_suites", &p.CipherSuites, filled(d, d.cipherSuite))
		read(o, "curves", &p.Curves, filled(d, d.curve))
		o.done()
		return p, true
	}
}

// checkOwnPolicies looks at what fits not together in the policies of listeners
// and node ports, with what the file says for all of them.
func (d *decoder) checkOwnPolicies(all certs.Config, ls listeners, ports []*nodePort) {
	for _, l := range ls.list {
		d.checkOwnPolicy(all, l.own, l.Policy)
	}
	for _, np := range ports {
		d.checkOwnPolicy(all, np.own, np.Policy)
	}
}

func (d *decoder) checkOwnPolicy(all certs.Config, own ownTLS, p *gateway.TLSPolicy) {
	if p == nil {
		return
	}
	version, curves := max(all.MinVersion, tls.VersionTLS12), all.Curves
	if p.MinVersion != 0 {
		version = p.MinVersion
	}
	if p.Curves != nil {
		curves = p.Curves
	}
	switch {
	case version == tls.VersionTLS13 && own.policy.has("cipher_suites"):
		d.errorf(own.policy.keyAt("cipher_suites"), `cipher_suites: those of TLS 1.3 are always on, and this port takes nothing older; leave them away or write min_version: "1.2"`)
	case version == tls.VersionTLS12 && curves != nil && !slices.ContainsFunc(curves, classic):
		d.errorf(own.policy.at, `tls_policy: TLS 1.2 has no hybrid curves, and no others are offered; add X25519 or P-256 to curves, or write min_version: "1.3"`)
	}
}

// classic tells curves that every version of TLS has from hybrid ones.
func classic(id tls.CurveID) bool {
	return !slices.ContainsFunc(certs.Curves(), func(c certs.Curve) bool { return c.ID == id && c.Hybrid })
}

// checkTCPClients reports headers for nodes that get none.
func (d *decoder) checkTCPClients(o *object, c *gateway.ClientCertificates) {
	if c != nil && len(c.Headers) > 0 {
		d.errorf(o.keyAt("client_certificates"), "client_certificates: headers means nothing to a TCP port, whose nodes get bytes alone")
	}
}

// clientsOf say how clients' certificates are verified, by the place of the
// listener or node port in the file.
func clientsOf(ls listeners, ports []*nodePort) map[string]certs.ClientConfig {
	var clients map[string]certs.ClientConfig
	add := func(at string, own ownTLS) {
		if own.clients == nil {
			return
		}
		if clients == nil {
			clients = map[string]certs.ClientConfig{}
		}
		clients[at] = *own.clients
	}
	for _, l := range ls.list {
		add(l.At, l.own)
	}
	for _, np := range ports {
		add(np.At, np.own)
	}
	return clients
}
