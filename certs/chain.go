package certs

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// maxChain bounds a chain; real ones have two to four certificates.
const maxChain = 8

// maxFolder bounds the files of a folder.
const maxFolder = 1000

// intermediates are CA certificates from which chains are completed.
type intermediates struct {
	certs []*x509.Certificate
	print fingerprint
}

// readIntermediates reads the certificates of a folder; other files and
// certificates that are no CA's are passed over.
func readIntermediates(folder string) (intermediates, error) {
	var p intermediates
	if folder == "" {
		return p, nil
	}
	names, err := certificateFiles(folder)
	if err != nil {
		return p, fmt.Errorf("intermediates: %w", err)
	}
	hash := sha256.New()
	for _, name := range names {
		data, err := readFile(name)
		if err != nil {
			return intermediates{}, fmt.Errorf("intermediates: file %s %w", name, err)
		}
		certs, err := parseCertificates(data)
		if err != nil {
			return intermediates{}, fmt.Errorf("intermediates: file %s: %w", name, err)
		}
		for _, c := range certs {
			if c.IsCA {
				p.certs = append(p.certs, c)
				hash.Write(c.Raw)
			}
		}
	}
	hash.Sum(p.print[:0])
	return p, nil
}

// certificateFiles lists the files of a folder whose names say that they hold
// certificates, in their order.
func certificateFiles(folder string) ([]string, error) {
	files, err := os.ReadDir(folder)
	if err != nil {
		return nil, fmt.Errorf("folder %s cannot be read (%w): check the name; a relative one is taken from the config's folder", folder, unwrapPath(err))
	}
	var names []string
	for _, f := range files {
		name := f.Name()
		if strings.HasPrefix(name, ".") || isKeyFile(name) || !slices.Contains([]string{".pem", ".crt", ".cer", ".der"}, filepath.Ext(name)) {
			continue
		}
		path := filepath.Join(folder, name)
		if info, err := os.Stat(path); err == nil && info.IsDir() {
			continue
		}
		names = append(names, path)
	}
	if len(names) > maxFolder {
		return nil, fmt.Errorf("folder %s holds %d certificate files, and more than %d are not read", folder, len(names), maxFolder)
	}
	return names, nil
}

// isKeyFile knows the names of private keys beside certificates.
func isKeyFile(name string) bool {
	return strings.HasSuffix(name, ".key") || strings.HasSuffix(name, "-key.pem") || strings.HasSuffix(name, ".key.pem")
}

// parseCertificates takes PEM or one DER certificate.
func parseCertificates(data []byte) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate number %d cannot be parsed (%w)", len(certs)+1, err)
		}
		certs = append(certs, c)
	}
	if len(certs) > 0 {
		return certs, nil
	}
	c, err := x509.ParseCertificate(data)
	if err != nil {
		return nil, fmt.Errorf("it holds no certificate in PEM or DER")
	}
	return []*x509.Certificate{c}, nil
}

// complete gives chain with what is missing between its leaf and the root, and
// how many of it are the folder's. A chain to which the folder adds nothing
// stays as it is. Roots are not added: clients have them.
func (p intermediates) complete(chain []*x509.Certificate, now time.Time) ([]*x509.Certificate, int) {
	path, added := chain[:1:1], 0
	for len(path) < maxChain && !isSelfIssued(path[len(path)-1]) {
		issues := isIssuerOf(path[len(path)-1])
		if i := slices.IndexFunc(chain[1:], issues); i >= 0 {
			path = append(path, chain[1:][i])
			continue
		}
		i := slices.IndexFunc(p.certs, func(c *x509.Certificate) bool {
			return !isSelfIssued(c) && now.Before(c.NotAfter) && now.After(c.NotBefore) && issues(c)
		})
		if i < 0 {
			break
		}
		path, added = append(path, p.certs[i]), added+1
	}
	if added == 0 {
		return chain, 0
	}
	return path, added
}

// pathOf is the way from the leaf to its issuer, to that one's issuer, and so
// on, as far as chain holds them.
func pathOf(chain []*x509.Certificate) []*x509.Certificate {
	path := chain[:1:1]
	for len(path) < maxChain && !isSelfIssued(path[len(path)-1]) {
		i := slices.IndexFunc(chain[1:], isIssuerOf(path[len(path)-1]))
		if i < 0 {
			break
		}
		path = append(path, chain[1:][i])
	}
	return path
}

// end is the last certificate on the leaf's way to the root.
func (e *entry) end() *x509.Certificate {
	path := pathOf(e.chain)
	return path[len(path)-1]
}

// chainComplete tells whether the leaf's issuer is there: in the chain, or as a
// root in the folder of intermediates.
func (e *entry) chainComplete(pool intermediates) bool {
	path := pathOf(e.chain)
	end := path[len(path)-1]
	return len(path) > 1 || isSelfIssued(end) || slices.ContainsFunc(pool.certs, isIssuerOf(end))
}

func isSelfIssued(c *x509.Certificate) bool { return bytes.Equal(c.RawIssuer, c.RawSubject) }

// isIssuerOf tells of a certificate whether it issued c: by name, by key
// identifier where both have one, and by signature.
func isIssuerOf(c *x509.Certificate) func(*x509.Certificate) bool {
	return func(issuer *x509.Certificate) bool {
		if len(c.AuthorityKeyId) > 0 && len(issuer.SubjectKeyId) > 0 && !bytes.Equal(c.AuthorityKeyId, issuer.SubjectKeyId) {
			return false
		}
		return bytes.Equal(c.RawIssuer, issuer.RawSubject) && c.CheckSignatureFrom(issuer) == nil
	}
}
