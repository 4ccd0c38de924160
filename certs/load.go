package certs

import (
	"bytes"
	"cmp"
	"crypto"
	"crypto/sha256"
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

// A fingerprint is that of the content of files.
type fingerprint [sha256.Size]byte

// id names a source of one certificate: by its files, not by its place.
func (s Source) id() string {
	return strings.Join([]string{s.Cert, s.Key, s.Keystore, strings.ToLower(s.Alias)}, "\x00")
}

// file is the one that holds the certificate.
func (s Source) file() string { return cmp.Or(s.Keystore, s.Cert) }

// files are those that the certificate of a source is made from.
func (s Source) files() []string {
	var names []string
	for _, name := range []string{s.Cert, s.Key, s.Keystore, s.PasswordFile, s.KeyPasswordFile} {
		if name != "" {
			names = append(names, name)
		}
	}
	return names
}

// fingerprint is that of the source's files as they are now, and of what
// completes its chain.
func (s Source) fingerprint(pool intermediates) fingerprint {
	hash := sha256.New()
	hash.Write(pool.print[:])
	for _, name := range s.files() {
		data, err := readKind(name, "file")
		fmt.Fprintf(hash, "%q %d %v\n", name, len(data), err)
		hash.Write(data)
	}
	return fingerprint(hash.Sum(nil))
}

// loadEntry reads and checks one certificate. Its error joins every problem
// found, each beginning with where the source is written.
func loadEntry(source Source, pool intermediates, now time.Time) (*entry, error) {
	e := &entry{source: source, counts: new(counts), print: source.fingerprint(pool)}
	var problems []error
	if source.Keystore != "" {
		problems = e.readKeystore()
	} else {
		problems = e.readPair()
	}
	for i, err := range problems {
		problems[i] = fmt.Errorf("%s: %w", source.At, err)
	}
	if e.chain != nil {
		problems = append(problems, e.check(now)...)
	}
	if len(problems) > 0 {
		return nil, errors.Join(problems...)
	}
	e.chain, e.completed = pool.complete(e.chain, now)
	e.show(nil)
	return e, nil
}

// readPair takes chain and key from PEM files, as far as they can be read.
func (e *entry) readPair() (problems []error) {
	fail := func(err error) { problems = append(problems, err) }
	source := e.source
	certFile, err := readPEM("certificate", source.Cert)
	if err == nil {
		e.chain, err = certFile.chain()
	}
	if err != nil {
		fail(err)
	}
	keyFile := certFile
	if source.Key != "" && source.Key != source.Cert {
		if keyFile, err = readPEM("key", source.Key); err != nil {
			fail(err)
		}
	}
	if keyFile != nil {
		if e.key, err = keyFile.privateKey(source); err != nil {
			fail(err)
		}
	}
	return problems
}

// what names the certificate's place in errors.
func (e *entry) what() string {
	switch {
	case e.source.Keystore == "":
		return "certificate file " + e.source.Cert
	case e.alias == "":
		return "keystore " + e.source.Keystore
	}
	return fmt.Sprintf("keystore %s, alias %s", e.source.Keystore, quoted(e.alias))
}

// check reports why the chain and its key, which may be nil, cannot serve.
func (e *entry) check(now time.Time) (problems []error) {
	fail := func(format string, args ...any) {
		problems = append(problems, fmt.Errorf("%s: %s: %s", e.source.At, e.what(), fmt.Sprintf(format, args...)))
	}
	if e.key != nil {
		switch place := e.placeOf(e.key); {
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
func (e *entry) placeOf(key crypto.Signer) int {
	return slices.IndexFunc(e.chain, func(c *x509.Certificate) bool { return samePublicKey(key.Public(), c.PublicKey) })
}

func (e *entry) keyFile() string { return cmp.Or(e.source.Key, e.source.file()) }

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

// readFile reads a PEM file; its errors go on after the file's name.
func readFile(name string) ([]byte, error) { return readKind(name, "PEM file") }

// readKind reads a regular file of bounded size; its errors go on after the
// file's name, and call it a kind of file. Others are not opened: a pipe would
// block.
func readKind(name, kind string) ([]byte, error) {
	info, err := os.Stat(name)
	if err == nil && !info.Mode().IsRegular() {
		return nil, errors.New("is not a regular file: name a " + kind)
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
		return nil, fmt.Errorf("is larger than %d bytes: no %s of a certificate is", maxFileSize, kind)
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
		return "is a Java keystore, not PEM: name it as keystore"
	case data[0] == 0x30:
		return "is binary (DER or PKCS#12), not PEM: name a PKCS#12 file as keystore, and convert DER with openssl x509 -inform der"
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
// the key, or the password.
func (f *pemFile) privateKey(source Source) (crypto.Signer, error) {
	for _, block := range f.blocks {
		if !strings.HasSuffix(block.Type, "PRIVATE KEY") {
			continue
		}
		if isEncrypted(block) {
			return f.encryptedKey(block, source)
		}
		key, ok := parseKey(block.Bytes)
		if !ok {
			return nil, fmt.Errorf("the %s block in %s cannot be parsed: expected an RSA, ECDSA or Ed25519 key in PKCS#8, PKCS#1 or SEC 1 form", block.Type, f.name)
		}
		return key, nil
	}
	switch {
	case source.Key == "":
		return nil, fmt.Errorf("certificate file %s holds no private key: name the file that does as key", f.name)
	case f.blocks[0].Type == "CERTIFICATE":
		return nil, fmt.Errorf("key file %s holds a certificate and no private key: are cert and key swapped?", f.name)
	}
	return nil, fmt.Errorf("key file %s holds no private key, only %s: expected a PRIVATE KEY block", f.name, f.blocks[0].Type)
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
