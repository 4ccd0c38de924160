package certs

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"time"
)

// info is what can be said of an entry alone.
func (e *entry) info(s *set) Info {
	return Info{
		Names:         namesOf(e.leaf()),
		Issuer:        issuerOf(e.leaf()),
		SelfSigned:    isSelfIssued(e.leaf()),
		Chain:         len(e.chain),
		Completed:     e.completed,
		ChainComplete: e.chainComplete(s.pool),
		Key:           keyType(e.leaf()),
		NotAfter:      e.leaf().NotAfter,
		Source:        e.source.file(),
		Alias:         e.alias,
		Served:        e.counts.served.Load(),
		OCSP:          e.ocspInfo(),
	}
}

// issuerOf names who signed a certificate as people call it.
func issuerOf(c *x509.Certificate) string {
	if c.Issuer.CommonName != "" {
		return c.Issuer.CommonName
	}
	return c.Issuer.String()
}

func keyType(c *x509.Certificate) string {
	switch key := c.PublicKey.(type) {
	case *rsa.PublicKey:
		return fmt.Sprintf("RSA %d", key.N.BitLen())
	case *ecdsa.PublicKey:
		return "ECDSA " + key.Curve.Params().Name
	case ed25519.PublicKey:
		return "Ed25519"
	}
	return c.PublicKeyAlgorithm.String()
}

// A warning has a key that stays the same while its text counts days.
type warning struct{ key, text string }

// expirySteps are the days before its end at which a certificate is warned
// about.
func expirySteps() []int { return []int{0, 1, 7, 14, 30} }

const oneDay = 24 * time.Hour

func (s *set) warnings(now time.Time) []warning {
	var all []warning
	for _, e := range s.entries {
		all = append(all, e.warnings(s.pool, now)...)
		if !s.fits(e.leaf()) {
			all = append(all, warning{e.source.id() + " suites", fmt.Sprintf("%s: no suite of cipher_suites is for the %s key in %s: clients that speak TLS 1.2 at most cannot connect; add those with %s in their names",
				e.source.At, keyType(e.leaf()), e.source.file(), suiteKind(e.leaf()))})
		}
	}
	return all
}

// fits tells whether clients of TLS 1.2, where they are served, can verify a
// certificate.
func (s *set) fits(leaf *x509.Certificate) bool {
	return s.policy.MinVersion > tls.VersionTLS12 || slices.ContainsFunc(CipherSuites(), func(c CipherSuite) bool {
		return slices.Contains(s.policy.CipherSuites, c.ID) && strings.Contains(c.Name, "_"+suiteKind(leaf)+"_")
	})
}

// suiteKind is the word for a kind of key in the names of suites.
func suiteKind(leaf *x509.Certificate) string {
	if leaf.PublicKeyAlgorithm == x509.RSA {
		return "RSA"
	}
	return "ECDSA" // Ed25519 too
}

func (e *entry) warnings(pool intermediates, now time.Time) []warning {
	var all []warning
	id := fmt.Sprintf("%s %x ", e.source.id(), sha256.Sum256(e.leaf().Raw))
	warn := func(key, format string, args ...any) {
		all = append(all, warning{id + key, e.source.At + ": " + fmt.Sprintf(format, args...)})
	}
	if !e.chainComplete(pool) {
		warn("chain", "%s does not hold the issuer of its certificate, %q: clients that do not know it (mobile devices, mini-programs) will refuse the connection; "+
			"append the intermediate certificate to the file, or put it into the folder that tls.intermediates names; where that is the root which all clients trust, putting it there ends this warning",
			e.source.file(), e.end().Issuer.String())
	}
	for i, c := range e.chain {
		what := "the certificate"
		if i > 0 {
			what = fmt.Sprintf("the intermediate %q", c.Subject.String())
		}
		left := c.NotAfter.Sub(now)
		for _, step := range expirySteps() {
			if left >= time.Duration(step)*oneDay && (step > 0 || left > 0) {
				continue
			}
			key := fmt.Sprintf("%d expires %d", i, step)
			if step == 0 {
				warn(key, "%s in %s expired on %s: clients refuse it; renew it", what, e.source.file(), day(c.NotAfter))
			} else {
				warn(key, "%s in %s expires on %s, in %d days: renew it", what, e.source.file(), day(c.NotAfter), int(left/oneDay))
			}
			break
		}
	}
	return all
}

func day(t time.Time) string { return t.UTC().Format(time.DateOnly) }
