package certs

import (
	"bytes"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"
)

// maxFileSize bounds a certificate or key file; a chain has a few KiB.
const maxFileSize = 1 << 20

// loadPair reads and checks one certificate. Its error joins every problem
// found, each beginning with where the pair is written.
func loadPair(p Pair, now time.Time) (entry, error) {
	e := entry{pair: p}
	var problems []error
	fail := func(err error) { problems = append(problems, fmt.Errorf("%s: %w", p.At, err)) }

	certFile, err := readPEM("certificate", p.Cert)
	if err == nil {
		e.chain, err = certFile.chain()
	}
	if err != nil {
		fail(err)
	}
	keyFile := certFile
	if p.Key != "" && p.Key != p.Cert {
		if keyFile, err = readPEM("key", p.Key); err != nil {
			fail(err)
		}
	}
	var key crypto.Signer
	if keyFile != nil {
		if key, err = keyFile.privateKey(p); err != nil {
			fail(err)
		}
	}
	if e.chain != nil {
		problems = append(problems, e.check(key, now)...)
	}
	if len(problems) > 0 {
		return entry{}, errors.Join(problems...)
	}
	e.cert = &tls.Certificate{PrivateKey: key, Leaf: e.leaf()}
	for _, c := range e.chain {
		e.cert.Certificate = append(e.cert.Certificate, c.Raw)
	}
	return e, nil
}

// check reports why the chain and its key, which may be nil, cannot serve.
func (e entry) check(key crypto.Signer, now time.Time) (problems []error) {
	fail := func(format string, args ...any) {
		problems = append(problems, fmt.Errorf("%s: certificate file %s: %s", e.pair.At, e.pair.Cert, fmt.Sprintf(format, args...)))
	}
	if key != nil {
		switch place := e.placeOf(key); {
		case place > 0: // then the first one is not the leaf, and nothing else about it matters
			fail("the key belongs to certificate number %d of the file: put that one first, then its intermediates", place+1)
			return problems
		case place < 0:
			fail("its certificate (%s) does not belong to the key in %s: use the key that the certificate was requested with", describe(e.leaf()), e.keyFile())
		}
	}
	leaf := e.leaf()
	if now.After(leaf.NotAfter) {
		fail("the certificate expired on %s: renew it, or set this machine's clock (it says %s)", day(leaf.NotAfter), day(now))
	}
	if now.Before(leaf.NotBefore) {
		fail("the certificate is not valid before %s: set this machine's clock (it says %s), or wait", day(leaf.NotBefore), day(now))
	}
	if len(leaf.DNSNames)+len(leaf.IPAddresses) == 0 {
		fail("the certificate has no DNS name and no IP address among its subject alternative names, and clients ignore the common name: have it issued again with the names that clients use")
	}
	return problems
}

// placeOf is the index of the certificate that the key belongs to, or -1.
func (e entry) placeOf(key crypto.Signer) int {
	return slices.IndexFunc(e.chain, func(c *x509.Certificate) bool { return samePublicKey(key.Public(), c.PublicKey) })
}

func (e entry) keyFile() string {
	if e.pair.Key == "" {
		return e.pair.Cert
	}
	return e.pair.Key
}

func samePublicKey(a, b crypto.PublicKey) bool {
	key, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && key.Equal(b)
}

// describe names a certificate by its first name or else its subject.
func describe(c *x509.Certificate) string {
	if names := namesOf(c); len(names) > 0 {
		return names[0]
	}
	return c.Subject.String()
}

func isSelfIssued(c *x509.Certificate) bool { return bytes.Equal(c.RawIssuer, c.RawSubject) }

func isIssuerOf(c *x509.Certificate) func(*x509.Certificate) bool {
	return func(issuer *x509.Certificate) bool {
		return bytes.Equal(c.RawIssuer, issuer.RawSubject) && c.CheckSignatureFrom(issuer) == nil
	}
}

// A pemFile is a file's blocks.
type pemFile struct {
	what, name string // "certificate" or "key", and the file
	blocks     []*pem.Block
}

// readPEM reads the file that is meant to hold what.
func readPEM(what, name string) (*pemFile, error) {
	if name == "" {
		return nil, fmt.Errorf("no %s file: name one", what)
	}
	data, err := readFile(name)
	if err != nil {
		return nil, fmt.Errorf("%s file %s %w", what, name, err)
	}
	f := &pemFile{what: what, name: name}
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		f.blocks = append(f.blocks, block)
	}
	if len(f.blocks) == 0 {
		return nil, fmt.Errorf("%s file %s %s", what, name, notPEM(data))
	}
	return f, nil
}

// readFile reads a regular file of bounded size; its errors go on after the
// file's name. Other kinds of file are not opened: a pipe would block.
func readFile(name string) ([]byte, error) {
	info, err := os.Stat(name)
	if err == nil && !info.Mode().IsRegular() {
		return nil, errors.New("is not a regular file: name a PEM file")
	}
	var file *os.File
	if err == nil {
		file, err = os.Open(name)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, errors.New("does not exist: check the name; a relative one is taken from the config's folder")
	case errors.Is(err, fs.ErrPermission):
		return nil, errors.New("may not be read by this user: give the gateway's user permission to read it")
	case err != nil:
		return nil, fmt.Errorf("cannot be opened: %w", unwrapPath(err))
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, maxFileSize+1))
	if err != nil {
		return nil, fmt.Errorf("cannot be read: %w", unwrapPath(err))
	}
	if len(data) > maxFileSize {
		return nil, fmt.Errorf("is larger than %d bytes: no PEM file of a certificate is", maxFileSize)
	}
	return data, nil
}

// unwrapPath drops the file's name, which the message has already.
func unwrapPath(err error) error {
	if p, ok := errors.AsType[*fs.PathError](err); ok {
		return p.Err
	}
	return err
}

// notPEM says what a file without a PEM block seems to be, and how to convert it.
func notPEM(data []byte) string {
	switch {
	case len(data) == 0:
		return "is empty: expected PEM, which begins with -----BEGIN"
	case bytes.HasPrefix(data, []byte{0xfe, 0xed, 0xfe, 0xed}):
		return "is a Java keystore, not PEM: convert it with keytool -importkeystore -deststoretype PKCS12, then openssl pkcs12 -nodes"
	case data[0] == 0x30:
		return "is binary (DER or PKCS#12), not PEM: convert it with openssl x509 -inform der, or openssl pkcs12 -nodes"
	}
	return "holds no PEM: expected a block that begins with -----BEGIN"
}

// chain parses the certificates of the file.
func (f *pemFile) chain() ([]*x509.Certificate, error) {
	var chain []*x509.Certificate
	for _, block := range f.blocks {
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate file %s: certificate number %d cannot be parsed (%w): expected an X.509 certificate with an RSA, ECDSA (P-256, P-384, P-521) or Ed25519 key", f.name, len(chain)+1, err)
		}
		chain = append(chain, c)
	}
	if len(chain) == 0 {
		return nil, fmt.Errorf("certificate file %s holds no certificate, only %s: expected a CERTIFICATE block; are cert and key swapped?", f.name, f.blocks[0].Type)
	}
	return chain, nil
}

// privateKey parses the first key of the file. No error of it holds a part of
// the key.
func (f *pemFile) privateKey(p Pair) (crypto.Signer, error) {
	for _, block := range f.blocks {
		if !strings.HasSuffix(block.Type, "PRIVATE KEY") {
			continue
		}
		if isEncrypted(block) {
			return nil, fmt.Errorf("the private key in %s is encrypted, which is not supported yet: decrypt it with openssl pkey -in %s -out plain.key, protect that file with mode 0600 and name it here", f.name, f.name)
		}
		key, ok := parseKey(block.Bytes)
		if !ok {
			return nil, fmt.Errorf("the %s block in %s cannot be parsed: expected an unencrypted RSA, ECDSA or Ed25519 key in PKCS#8, PKCS#1 or SEC 1 form", block.Type, f.name)
		}
		return key, nil
	}
	switch {
	case p.Key == "":
		return nil, fmt.Errorf("certificate file %s holds no private key: name the file that does as key", f.name)
	case f.blocks[0].Type == "CERTIFICATE":
		return nil, fmt.Errorf("key file %s holds a certificate and no private key: are cert and key swapped?", f.name)
	}
	return nil, fmt.Errorf("key file %s holds no private key, only %s: expected a PRIVATE KEY block", f.name, f.blocks[0].Type)
}

// isEncrypted knows both forms: PKCS#8 (RFC 5958) and the header of RFC 1421.
func isEncrypted(block *pem.Block) bool {
	return block.Type == "ENCRYPTED PRIVATE KEY" || strings.Contains(block.Headers["Proc-Type"], "ENCRYPTED")
}

func parseKey(der []byte) (crypto.Signer, bool) {
	if key, err := x509.ParsePKCS8PrivateKey(der); err == nil {
		signer, ok := key.(crypto.Signer)
		return signer, ok
	}
	if key, err := x509.ParsePKCS1PrivateKey(der); err == nil {
		return key, true
	}
	if key, err := x509.ParseECPrivateKey(der); err == nil {
		return key, true
	}
	return nil, false
}
