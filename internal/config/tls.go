package config

import (
	"crypto/tls"
	"slices"
	"strings"

	"singlegate/certs"
)

// tlsRules are what the file says of TLS.
type tlsRules struct {
	certs.Config
	acme     []*acmeRule
	shared   Shared
	consulAt pos // where shared.consul is
}

func (d *decoder) tls(v value) (c tlsRules, ok bool) {
	o, ok := d.object(v, "tls")
	if !ok {
		return c, false
	}
	var rules []certificateRule
	ok = read(o, "certificates", &rules, filled(d, d.certificateRule)) || !o.has("certificates")
	for _, r := range rules {
		if r.acme != nil {
			c.acme = append(c.acme, r.acme)
		} else {
			c.Certificates = append(c.Certificates, r.source)
		}
	}
	if read(o, "intermediates", &c.Intermediates, d.path) {
		c.IntermediatesAt = d.place(o.keyAt("intermediates"))
	}
	var unknown string
	read(o, "unknown_name", &unknown, oneOf(d, "default", "refuse"))
	c.RefuseUnknown = unknown == "refuse"
	stapling := true
	read(o, "ocsp_stapling", &stapling, d.boolean)
	c.NoStapling = !stapling
	c.MinVersion = tls.VersionTLS12
	read(o, "min_version", &c.MinVersion, d.tlsVersion)
	suites := read(o, "cipher_suites", &c.CipherSuites, filled(d, d.cipherSuite))
	curves := read(o, "curves", &c.Curves, filled(d, d.curve))
	read(o, "shared", &c.SharedKey, d.sharedKey(&c))
	o.done()
	d.checkPolicy(o, c.Config, suites, curves)
	return c, ok
}

// checkPolicy looks at what fits not together.
func (d *decoder) checkPolicy(o *object, c certs.Config, suites, curves bool) {
	if suites && c.MinVersion == tls.VersionTLS13 {
		d.fail(o.byKey["cipher_suites"].value, `those of TLS 1.3 are always on, and min_version "1.3" leaves no other; leave one of the two keys away`)
	}
	if curves && c.MinVersion == tls.VersionTLS12 && !slices.ContainsFunc(c.Curves, classic) {
		d.fail(o.byKey["curves"].value, `TLS 1.2 has no hybrid ones; add X25519 or P-256, or write min_version: "1.3"`)
	}
}

// certificate is one of a pair of PEM files, of a keystore, or those of a folder.
func (d *decoder) certificate(v value) (s certs.Source, ok bool) {
	o, ok := d.object(v, "a certificate")
	if !ok {
		return s, false
	}
	s.At = d.place(v.at)
	kinds := map[string]*string{"cert": &s.Cert, "keystore": &s.Keystore, "folder": &s.Folder}
	var given []string
	for _, kind := range []string{"cert", "keystore", "folder"} {
		if o.has(kind) {
			given = append(given, kind)
		}
		read(o, kind, kinds[kind], d.path)
	}
	read(o, "key", &s.Key, d.path)
	read(o, "password_file", &s.PasswordFile, d.path)
	read(o, "key_password_file", &s.KeyPasswordFile, d.path)
	var alias text
	read(o, "alias", &alias, d.text)
	s.Alias = alias.value
	o.done()
	switch {
	case len(given) == 0:
		d.errorf(o.at, "a certificate needs cert, keystore, folder or acme")
		return s, false
	case len(given) > 1:
		d.errorf(o.keyAt(given[1]), "%s and %s are two certificates; write each as one of the list", given[0], given[1])
		return s, false
	}
	return s, d.checkCertificate(o, given[0])
}

// checkCertificate looks at keys that mean nothing for a kind of certificate,
// and at one that is missing.
func (d *decoder) checkCertificate(o *object, kind string) bool {
	errs := len(d.errs)
	only := map[string]string{"key": "cert", "alias": "keystore", "key_password_file": "keystore"}
	for _, key := range []string{"key", "alias", "key_password_file"} {
		if o.has(key) && only[key] != kind {
			d.errorf(o.keyAt(key), "%s goes with %s, not with %s", key, only[key], kind)
		}
	}
	if kind == "keystore" && !o.has("password_file") {
		d.errorf(o.keyAt("keystore"), "a keystore needs password_file, a file with the store's password as its one line")
	}
	return len(d.errs) == errs
}

func (d *decoder) tlsVersion(v value) (uint16, bool) {
	t, ok := d.text(v)
	switch {
	case !ok:
	case t.value == "1.2":
		return tls.VersionTLS12, true
	case t.value == "1.3":
		return tls.VersionTLS13, true
	default:
		d.fail(v, `%s is not supported; write "1.2" or "1.3", as older ones are not secure`, t.shown)
	}
	return 0, false
}

// cipherSuite takes the name of IANA or of OpenSSL.
func (d *decoder) cipherSuite(v value) (uint16, bool) {
	t, ok := d.text(v)
	if !ok {
		return 0, false
	}
	var names []string
	for _, c := range certs.CipherSuites() {
		if strings.EqualFold(t.value, c.Name) || strings.EqualFold(t.value, c.OpenSSL) {
			return c.ID, true
		}
		names = append(names, c.Name)
	}
	for _, c := range tls.CipherSuites() {
		if c.Name == t.value && slices.Contains(c.SupportedVersions, tls.VersionTLS13) && !slices.Contains(c.SupportedVersions, tls.VersionTLS12) {
			d.fail(v, "%s is one of TLS 1.3, which are always on; leave it away", t.shown)
			return 0, false
		}
	}
	d.fail(v, "%s is none that is offered%s", t.shown, d.hint(t.value, "there are", namesOf(names)))
	return 0, false
}

func (d *decoder) curve(v value) (tls.CurveID, bool) {
	t, ok := d.text(v)
	if !ok {
		return 0, false
	}
	var names []string
	for _, c := range certs.Curves() {
		if slices.ContainsFunc(append(c.Aliases, c.Name), func(n string) bool { return strings.EqualFold(n, t.value) }) {
			return c.ID, true
		}
		names = append(names, c.Name)
	}
	d.fail(v, "%s is none that is offered%s", t.shown, d.hint(t.value, "there are", namesOf(names)))
	return 0, false
}

// sharedKey decodes what the gateways of a site have in common.
func (d *decoder) sharedKey(c *tlsRules) func(value) (string, bool) {
	return func(v value) (name string, ok bool) {
		o, ok := d.object(v, "shared")
		if !ok {
			return "", false
		}
		c.SharedKeyAt = d.place(v.at)
		ok = require(o, "key_file", &name, d.path)
		if read(o, "consul", &c.shared.Consul, plain(d.checked(checkPrefix))) {
			c.consulAt = o.byKey["consul"].value.at
		}
		o.done()
		return name, ok
	}
}
