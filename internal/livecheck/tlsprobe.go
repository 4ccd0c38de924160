package livecheck

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"
)

// expirySoon is how long before its end a certificate is warned about.
const expirySoon = 21 * 24 * time.Hour

// Roots reads the certificates that clients are to trust from a PEM file. Where
// it holds self-signed ones only those count: an intermediate beside them is
// something that a phone does not have.
func Roots(file string) (*x509.CertPool, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("cannot read the CA file: %w", err)
	}
	var roots, others []*x509.Certificate
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("CA file %s holds a certificate that cannot be read: %w", file, err)
		}
		if isSelfSigned(cert) {
			roots = append(roots, cert)
		} else {
			others = append(others, cert)
		}
	}
	if len(roots) == 0 {
		roots = others
	}
	if len(roots) == 0 {
		return nil, fmt.Errorf("CA file %s holds no certificate: it has to be PEM, with -----BEGIN CERTIFICATE-----", file)
	}
	pool := x509.NewCertPool()
	for _, cert := range roots {
		pool.AddCert(cert)
	}
	return pool, nil
}

func isSelfSigned(c *x509.Certificate) bool {
	return bytes.Equal(c.RawIssuer, c.RawSubject) && c.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature) == nil
}

// handshake makes a TLS handshake without trusting anything; the connection is
// nil when it failed.
func handshake(ctx context.Context, conn net.Conn, host string) (*tls.Conn, error) {
	secure := tls.Client(conn, &tls.Config{
		ServerName:         host,
		InsecureSkipVerify: true, // what is wrong with the certificates is found out by judgeChain
		NextProtos:         []string{"http/1.1"},
	})
	if err := secure.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	return secure, nil
}

// certificates makes a handshake and judges what the server sent. Without a
// handshake there is no connection.
func (p *prober) certificates(ctx context.Context, conn net.Conn, host, address string) (*tls.Conn, []Finding) {
	secure, err := handshake(ctx, conn, host)
	if err != nil {
		return nil, []Finding{handshakeFailure(err, host, address)}
	}
	state := secure.ConnectionState()
	findings := judgeChain(state.PeerCertificates, host, p.Roots, p.Now())
	if len(findings) == 0 {
		findings = []Finding{fine(isTrusted, "version", tls.VersionName(state.Version), "date", day(state.PeerCertificates[0].NotAfter))}
	}
	return secure, findings
}

func day(t time.Time) string { return t.UTC().Format(time.DateOnly) }

// handshakeFailure says why there was no TLS.
func handshakeFailure(err error, host, address string) Finding {
	at := []string{"host", host, "address", address}
	var plain tls.RecordHeaderError
	switch {
	case errors.As(err, &plain):
		return failure(notTLS, at...)
	case isTimeout(err):
		return failure(tlsSilent, at...)
	case isCut(err):
		return failure(tlsCut, at...)
	}
	return failure(tlsRefused, append(at, "error", rootCause(err))...)
}

// judgeChain looks at the certificates that a server sent as a phone does: it
// has its roots, what was sent, and nothing else. It gives every fault that it
// finds; an end of validity that is near is one as well.
func judgeChain(sent []*x509.Certificate, host string, roots *x509.CertPool, now time.Time) []Finding {
	leaf := sent[0]
	findings := judgeName(leaf, host)
	dated := judgeDates(sent, now)
	findings = append(findings, dated...)
	at := now
	if len(dated) > 0 {
		at = leaf.NotBefore.Add(leaf.NotAfter.Sub(leaf.NotBefore) / 2) // the rest of the chain is judged all the same
	}
	if f, ok := judgeTrust(sent, roots, at); !ok {
		findings = append(findings, f)
	}
	return findings
}

func judgeName(leaf *x509.Certificate, host string) []Finding {
	if leaf.VerifyHostname(host) == nil {
		return nil
	}
	names := append([]string(nil), leaf.DNSNames...)
	for _, ip := range leaf.IPAddresses {
		names = append(names, ip.String())
	}
	if len(names) == 0 {
		return []Finding{failure(noNames, "host", host, "subject", leaf.Subject.String())}
	}
	return []Finding{failure(wrongName, "host", host, "names", strings.Join(names, ", "))}
}

func judgeDates(sent []*x509.Certificate, now time.Time) []Finding {
	var findings []Finding
	for _, c := range sent {
		subject := []string{"subject", c.Subject.String()}
		switch left := c.NotAfter.Sub(now); {
		case left <= 0:
			findings = append(findings, failure(expired, append(subject, "date", day(c.NotAfter))...))
		case now.Before(c.NotBefore):
			findings = append(findings, failure(notYetValid, append(subject, "date", day(c.NotBefore))...))
		case left < expirySoon:
			findings = append(findings, warning(expiresSoon, append(subject, "date", day(c.NotAfter), "days", fmt.Sprint(int(left/(24*time.Hour))))...))
		}
	}
	return findings
}

// judgeTrust builds the chain. Where that fails it follows the issuers as far
// as they were sent, to say which one is missing.
func judgeTrust(sent []*x509.Certificate, roots *x509.CertPool, at time.Time) (Finding, bool) {
	others := x509.NewCertPool()
	for _, c := range sent[1:] {
		others.AddCert(c)
	}
	_, err := sent[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: others, CurrentTime: at})
	if err == nil {
		return Finding{}, true
	}
	if unknown := (x509.UnknownAuthorityError{}); !errors.As(err, &unknown) {
		return failure(chainInvalid, "error", err.Error()), false
	}
	last := lastSent(sent)
	switch {
	case isSelfSigned(sent[0]):
		return failure(selfSigned, "subject", sent[0].Subject.String()), false
	case isSelfSigned(last):
		return failure(rootUnknown, "issuer", last.Subject.String()), false
	case len(last.IssuingCertificateURL) > 0:
		return failure(issuerMissingURL, "subject", last.Subject.String(), "issuer", last.Issuer.String(), "url", last.IssuingCertificateURL[0]), false
	}
	return failure(issuerMissing, "subject", last.Subject.String(), "issuer", last.Issuer.String()), false
}

// lastSent follows the issuers, from the leaf, to the certificate whose own was
// not sent.
func lastSent(sent []*x509.Certificate) *x509.Certificate {
	last := sent[0]
	for range sent {
		issuer := issuerOf(last, sent)
		if issuer == nil {
			break
		}
		last = issuer
	}
	return last
}

func issuerOf(c *x509.Certificate, sent []*x509.Certificate) *x509.Certificate {
	for _, other := range sent {
		if other != c && bytes.Equal(other.RawSubject, c.RawIssuer) && c.CheckSignatureFrom(other) == nil {
			return other
		}
	}
	return nil
}
