package gateway

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"net/url"
	"slices"
	"strings"
)

// ClientCertificates is how a listener with TLS asks clients for certificates,
// and what nodes hear of them.
type ClientCertificates struct {
	// Ask makes a server's configuration ask, and verify what it gets. It is called
	// for each handshake with a configuration of its own.
	Ask func(*tls.Config)

	// Headers are set on requests to nodes, by name. What clients send under these
	// names is removed, on every listener.
	Headers map[string]CertificateField
}

// CertificateField is what a header tells of a client's certificate. Of a client
// without one it is not sent.
type CertificateField string

// The fields. A subject is a distinguished name as RFC 4514 has it; a fingerprint
// is SHA-256 in hex digits; the certificate itself is PEM, percent-encoded so that
// it is one line.
const (
	FieldSubject     CertificateField = "subject"
	FieldSerial      CertificateField = "serial"
	FieldFingerprint CertificateField = "fingerprint"
	FieldPEM         CertificateField = "certificate"
)

func (f CertificateField) of(c *x509.Certificate) string {
	switch f {
	case FieldSubject:
		return printable(c.Subject.String())
	case FieldSerial:
		return c.SerialNumber.Text(16)
	case FieldFingerprint:
		sum := sha256.Sum256(c.Raw)
		return hex.EncodeToString(sum[:])
	}
	return url.QueryEscape(string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})))
}

// A refusedCertificate is why a client that has shown one is not let in.
type refusedCertificate struct {
	subject string // of what it has shown; nobody has vouched for that
	error
}

func (e refusedCertificate) Unwrap() error { return e.error }

// ask makes cfg ask, and marks the refusals: who runs the gateway is told of them.
func (c *ClientCertificates) ask(cfg *tls.Config) {
	c.Ask(cfg)
	verify := cfg.VerifyConnection
	if verify == nil {
		return
	}
	cfg.VerifyConnection = func(state tls.ConnectionState) error {
		err := verify(state)
		if err == nil || len(state.PeerCertificates) == 0 {
			return err
		}
		subject := printable(state.PeerCertificates[0].Subject.String())
		return refusedCertificate{subject[:min(len(subject), 200)], err}
	}
}

// certificate is the client's, verified; nil: it has shown none.
func (c *clientConn) certificate() *x509.Certificate {
	t, ok := c.Conn.(*tls.Conn)
	if !ok || c.listener.settings.Load().Clients == nil {
		return nil
	}
	if chain := t.ConnectionState().PeerCertificates; len(chain) > 0 {
		return chain[0]
	}
	return nil
}

// certificateHeaders are the names, in lower case, under which nodes hear of
// clients' certificates, whatever the listener.
func certificateHeaders(cfg *Config) []string {
	var names []string
	add := func(c *ClientCertificates) {
		if c == nil {
			return
		}
		for name := range c.Headers {
			if lower := strings.ToLower(name); !slices.Contains(names, lower) {
				names = append(names, lower)
			}
		}
	}
	for _, l := range cfg.Listeners {
		add(l.Clients)
	}
	for _, np := range cfg.NodePorts {
		add(np.Clients)
	}
	return names
}

// ofCertificate tells whether a client's header, whose name is given in lower
// case, could be taken by a node for what the gateway says of certificates.
func (st *state) ofCertificate(lower string) bool {
	return len(st.certificateHeaders) > 0 && slices.Contains(st.certificateHeaders, strings.ReplaceAll(lower, "_", "-"))
}

// certificateFields tell the node about the client's certificate.
func (r *request) certificateFields() []field {
	clients := r.listener.Clients
	if clients == nil || len(clients.Headers) == 0 {
		return nil
	}
	cert := r.conn.certificate()
	if cert == nil {
		return nil
	}
	var fields []field
	for name, f := range clients.Headers {
		fields = append(fields, field{name, f.of(cert)})
	}
	slices.SortFunc(fields, func(a, b field) int { return strings.Compare(a.name, b.name) })
	return fields
}
