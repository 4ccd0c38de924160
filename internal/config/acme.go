package config

import (
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"singlegate/certs"
)

// ACME says which certificates to get from an ACME server. Files are for whoever
// starts the gateway to open.
type ACME struct {
	At         string
	Names      []string // in lower case; each gets a certificate of its own
	Directory  string   // URL
	Email      string   // of the account; "": none
	CA         string   // PEM file of whom the server is verified by; "": the system's
	KeyID      string   // of the external account; "": none is bound
	MACKeyFile string   // its key in base64url
	Hook       string   // program that sets TXT records; "": there is none
	Storage    string   // folder for accounts and certificates; "": they are in Consul

	// Names of the listeners that challenges arrive at; "": there is none. With a
	// hook both are empty.
	HTTP, TLS string
}

// Shared is what the gateways of a site have in common beside Certs.SharedKey.
type Shared struct {
	Consul string // the prefix of keys in Consul under which certificates by ACME are; "": they are not there
}

// An acmeRule is an ACME with the places of what it says.
type acmeRule struct {
	ACME
	at    pos
	names []text
}

// A certificateRule is one element of tls.certificates: one of the two.
type certificateRule struct {
	source certs.Source
	acme   *acmeRule
}

func (d *decoder) certificateRule(v value) (r certificateRule, ok bool) {
	o, isObject := d.peek(v)
	if !isObject || !o.has("acme") {
		r.source, ok = d.certificate(v)
		return r, ok
	}
	for _, f := range o.fields {
		if f.key != "acme" {
			d.errorf(f.at, "%s does not go with acme; what belongs to it stands within its braces", brief(f.key))
		}
	}
	r.acme = &acmeRule{at: v.at}
	return r, read(o, "acme", r.acme, d.acme(v.at))
}

// acme decodes what to get from an ACME server.
func (d *decoder) acme(at pos) func(value) (acmeRule, bool) {
	return func(v value) (acmeRule, bool) {
		r := acmeRule{at: at}
		r.At = d.place(at)
		o, ok := d.object(v, "acme")
		if !ok {
			return r, false
		}
		errs := len(d.errs)
		require(o, "names", &r.names, filled(d, d.checked(checkACMEName)))
		require(o, "directory", &r.Directory, plain(d.checked(checkDirectory)))
		read(o, "email", &r.Email, plain(d.checked(checkEmail)))
		read(o, "ca", &r.CA, d.path)
		read(o, "eab", &r, d.externalAccount(&r))
		read(o, "hook", &r.Hook, d.path)
		read(o, "storage", &r.Storage, d.path)
		o.done()
		for _, n := range r.names {
			r.Names = append(r.Names, strings.ToLower(n.value))
			if strings.HasPrefix(n.value, "*.") && r.Hook == "" {
				d.errorf(n.at, "%s: a wildcard is verified by DNS alone; name a program that sets TXT records: hook: /path/to/program", n.shown)
			}
		}
		return r, len(d.errs) == errs
	}
}

// externalAccount decodes the account at the server's operator.
func (d *decoder) externalAccount(r *acmeRule) func(value) (acmeRule, bool) {
	return func(v value) (acmeRule, bool) {
		o, ok := d.object(v, "eab")
		if !ok {
			return *r, false
		}
		require(o, "key_id", &r.KeyID, plain(d.text))
		require(o, "mac_key_file", &r.MACKeyFile, d.path)
		o.done()
		return *r, true
	}
}

func checkACMEName(s string) string {
	rest := strings.TrimPrefix(s, "*.")
	if net.ParseIP(s) != nil {
		return "an address gets no certificate by ACME here; write the name that clients use"
	}
	if !strings.Contains(rest, ".") && rest != "localhost" {
		return "a name has a dot; write the whole name, such as im.example.gov"
	}
	return checkHostName(strings.ToLower(rest))
}

func checkEmail(s string) string {
	if name, host, ok := strings.Cut(s, "@"); !ok || name == "" || host == "" || strings.ContainsAny(s, " ,<>") {
		return "expected one address, such as ops@example.gov"
	}
	return ""
}

// checkDirectory takes a URL with https, or http to a server of the site's own.
func checkDirectory(s string) string {
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Host == "" || u.Hostname() == "":
		return "expected the URL of the server's directory, such as https://ca.example.gov/acme/acme/directory"
	case u.User != nil:
		return "it holds a user; ACME has accounts of its own"
	case u.Scheme == "https" || u.Scheme == "http" && isInternal(u.Hostname()):
		return ""
	case u.Scheme == "http":
		return "http is for loopback, private addresses and names under .internal, .local and .home.arpa; write https"
	}
	return "expected https://"
}

// isInternal tells hosts that are not on the public network by their names.
func isInternal(host string) bool {
	if a, err := netip.ParseAddr(host); err == nil {
		return a.IsLoopback() || a.IsPrivate()
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	return host == "localhost" || slices.ContainsFunc([]string{".localhost", ".local", ".internal", ".home.arpa"}, func(end string) bool {
		return strings.HasSuffix(host, end)
	})
}

// acmeOf finishes what the file says of ACME, with what else it says.
func (d *decoder) acmeOf(rules []*acmeRule, shared Shared, ls listeners) []ACME {
	var list []ACME
	first := map[string]text{}
	http, tls := ls.forHTTP(), ls.forTLS()
	for _, r := range rules {
		for _, n := range r.names {
			name := strings.ToLower(n.value)
			if other, ok := first[name]; ok {
				d.errorf(n.at, "%s stands twice; the first is at %s", n.shown, d.place(other.at))
			} else {
				first[name] = n
			}
		}
		switch {
		case r.Storage == "" && shared.Consul == "":
			d.errorf(r.at, "acme needs storage, a folder for accounts and certificates; or, for several gateways, tls: {shared: {key_file: …, consul: singlegate/certs}}")
		case r.Storage != "" && shared.Consul != "":
			d.errorf(r.at, "storage has no use, as tls.shared.consul keeps certificates in Consul; leave one of them away")
		}
		if r.Hook == "" {
			if r.HTTP, r.TLS = http, tls; http == "" && tls == "" && !ls.broken {
				d.errorf(r.at, "there is no listener on which the server could verify names: open one at port 80 without tls, or at port 443 with tls, or name a program that sets TXT records (hook)")
			}
		}
		list = append(list, r.ACME)
	}
	return list
}

// forHTTP is the plain listener that http-01 challenges most likely arrive at: the
// one that is at port 80 for clients, else the first that serves routes.
func (ls listeners) forHTTP() string {
	return ls.likely(80, func(l listener) bool { return !l.TLS && l.Service == "" })
}

// forTLS is the one for tls-alpn-01, whatever it serves.
func (ls listeners) forTLS() string {
	return ls.likely(443, func(l listener) bool { return l.TLS })
}

func (ls listeners) likely(port uint16, fits func(listener) bool) string {
	best, rank := "", 0
	for _, l := range ls.list {
		if !fits(l) {
			continue
		}
		own := 1
		switch {
		case l.Public.Port == port:
			own = 3
		case l.Public.Port == 0 && l.socket.port == port:
			own = 2
		}
		if own > rank {
			best, rank = l.Name, own
		}
	}
	return best
}

// checkSharedConsul reports storage in a Consul of which nobody says where it is.
func (d *decoder) checkSharedConsul(w where, t tlsRules) {
	if address, ok := d.env("CONSUL_HTTP_ADDR"); t.shared.Consul == "" || w.consul != nil || ok && address != "" {
		return
	}
	d.errorf(t.consulAt, "certificates are to be in Consul; say where Consul is: discovery: {consul: {address: 127.0.0.1:8500}}")
}

func checkPrefix(s string) string {
	switch {
	case strings.Trim(s, "/") == "":
		return "expected the beginning of keys in Consul, such as singlegate/certs"
	case strings.ContainsAny(s, "?#%") || strings.Contains(s, "//") || strings.Contains(s, ".."):
		return "expected words between slashes, such as singlegate/certs"
	}
	return ""
}
