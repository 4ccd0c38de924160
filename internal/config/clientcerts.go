package config

import (
	"net/textproto"
	"strings"

	"singlegate/certs"
	"singlegate/gateway"
)

// clientCertificates decodes how a listener or a node port asks its clients for certificates.
// Their files are opened by whoever starts the gateway.
func (d *decoder) clientCertificates(own *ownTLS) func(value) (*gateway.ClientCertificates, bool) {
	return func(v value) (*gateway.ClientCertificates, bool) {
		o, ok := d.object(v, "client_certificates")
		if !ok {
			return nil, false
		}
		own.clients = &certs.ClientConfig{At: d.place(v.at)}
		var mode string
		require(o, "mode", &mode, oneOf(d, "require", "verify_if_given"))
		own.clients.Optional = mode == "verify_if_given"
		require(o, "ca", &own.clients.CA, d.path)
		read(o, "crl", &own.clients.CRL, d.path)
		c := &gateway.ClientCertificates{}
		read(o, "headers", &c.Headers, d.certificateHeaders)
		o.done()
		return c, true
	}
}

// certificateHeaders takes what nodes hear of a certificate, by header name.
func (d *decoder) certificateHeaders(v value) (map[string]gateway.CertificateField, bool) {
	o, ok := d.object(v, "headers")
	if !ok {
		return nil, false
	}
	headers := map[string]gateway.CertificateField{}
	field := oneOf(d, gateway.FieldSubject, gateway.FieldSerial, gateway.FieldFingerprint, gateway.FieldPEM)
	for _, f := range o.fields {
		var what gateway.CertificateField
		ok = read(o, f.key, &what, field) && ok
		switch name := textproto.CanonicalMIMEHeaderKey(f.key); {
		case !isHeaderName(f.key):
			d.errorf(f.at, "%s is no name of a header", quote(f.key))
		case gateway.OwnHeader(f.key):
			d.errorf(f.at, "header %s is the gateway's own; choose another name, such as X-Client-Subject", quote(f.key))
		default:
			headers[name] = what
		}
	}
	return headers, ok
}

// isHeaderName tells whether a header may have that name. Underscores are refused:
// many servers take them for hyphens.
func isHeaderName(s string) bool {
	return s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-") == ""
}
