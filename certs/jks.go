package certs

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"errors"
	"fmt"
	"unicode/utf8"

	jks "github.com/pavlo-v-chernykh/keystore-go/v4"
)

// What a JKS file is made of.
const (
	jksKey     = 1
	jksTrusted = 2

	jksDigest  = 20 // SHA-1 at the end of the file, and of each key
	jksSalt    = 20
	maxEntries = 1000
)

// openJKS reads a JKS file.
func openJKS(data []byte, words passwords) (*keystore, error) {
	if err := checkJKS(data); err != nil {
		return nil, err
	}
	storeWord, err := jksPassword(words.store, words.storeFile)
	if err != nil {
		return nil, err
	}
	keyWord, err := jksPassword(words.key, words.keyFile)
	if err != nil {
		return nil, err
	}
	files := jks.New(jks.WithCaseExactAliases(), jks.WithOrderedAliases())
	if err := files.Load(bytes.NewReader(data), storeWord); err != nil {
		return nil, fmt.Errorf("the password in %s is not the store's, or the file is damaged: try keytool -list -keystore", words.storeFile)
	}
	k := &keystore{}
	for _, alias := range files.Aliases() {
		if files.IsPrivateKeyEntry(alias) {
			k.keys = append(k.keys, alias)
		} else {
			k.others = append(k.others, alias)
		}
	}
	k.entry = func(alias string) (crypto.Signer, []*x509.Certificate, error) {
		e, err := files.GetPrivateKeyEntry(alias, keyWord)
		if err != nil {
			return nil, nil, fmt.Errorf("the password in %s is not that of the key: name a file with the key's own password as key_password_file", words.keyFile)
		}
		return jksEntry(e)
	}
	return k, nil
}

func jksEntry(e jks.PrivateKeyEntry) (crypto.Signer, []*x509.Certificate, error) {
	key, err := x509.ParsePKCS8PrivateKey(e.PrivateKey)
	if err != nil {
		return nil, nil, errors.New("its private key is of a kind that is not known: expected RSA, ECDSA (P-256, P-384, P-521) or Ed25519")
	}
	signer, err := signerOf(key)
	if err != nil {
		return nil, nil, err
	}
	var chain []*x509.Certificate
	for i, c := range e.CertificateChain {
		cert, err := x509.ParseCertificate(c.Content)
		if err != nil {
			return nil, nil, fmt.Errorf("certificate number %d cannot be parsed (%w)", i+1, err)
		}
		chain = append(chain, cert)
	}
	if len(chain) == 0 {
		return nil, nil, errors.New("the key has no certificate: import the one that was issued for it with keytool -importcert")
	}
	return signer, chain, nil
}

// jksPassword is a password as the library takes it: one byte a character. Java
// takes two, so that more than Latin-1 cannot be said.
func jksPassword(password []byte, file string) ([]byte, error) {
	if !utf8.Valid(password) {
		return nil, fmt.Errorf("password file %s is not UTF-8", file)
	}
	var latin []byte
	for _, r := range string(password) {
		if r > 0xff {
			return nil, fmt.Errorf("the password in %s has characters outside of Latin-1, with which a JKS store cannot be opened: change it with keytool -storepasswd, or convert the store to PKCS12", file)
		}
		latin = append(latin, byte(r))
	}
	return latin, nil
}

// checkJKS walks through the file without a password: the library that reads it
// trusts every length in it.
func checkJKS(data []byte) error {
	w := &walk{rest: data}
	w.skip(4) // the magic number
	version := w.number()
	if !w.broken && version != 1 && version != 2 {
		return fmt.Errorf("it is JKS of version %d: expected 1 or 2", version)
	}
	entries := w.number()
	if entries > maxEntries {
		return fmt.Errorf("it says that it has %d entries, and more than %d are not read", entries, maxEntries)
	}
	for range entries {
		w.entry(version)
	}
	if w.broken || len(w.rest) != jksDigest {
		return errors.New("the file is damaged: it does not end where its entries do")
	}
	return nil
}

// A walk goes through a JKS file; broken once it left the path.
type walk struct {
	rest   []byte
	broken bool
}

func (w *walk) skip(n uint32) []byte {
	if w.broken || uint64(n) > uint64(len(w.rest)) {
		w.broken = true
		return nil
	}
	part := w.rest[:n]
	w.rest = w.rest[n:]
	return part
}

func (w *walk) number() uint32 {
	if b := w.skip(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (w *walk) text() {
	if b := w.skip(2); b != nil {
		w.skip(uint32(binary.BigEndian.Uint16(b)))
	}
}

func (w *walk) entry(version uint32) {
	tag := w.number()
	w.text() // the alias
	w.skip(8)
	switch {
	case w.broken:
	case tag == jksKey:
		w.broken = !isJKSKey(w.skip(w.number()))
		// As many have to follow as are said: the library sets aside room for them.
		for n := w.number(); n > 0 && !w.broken; n-- {
			w.certificate(version)
		}
	case tag == jksTrusted:
		w.certificate(version)
	default:
		w.broken = true
	}
}

func (w *walk) certificate(version uint32) {
	if version == 2 {
		w.text()
	}
	w.skip(w.number())
}

// isJKSKey tells whether a key that is encrypted in Java's own way is long
// enough to hold salt and digest.
func isJKSKey(der []byte) bool {
	var info struct {
		Algorithm pkix.AlgorithmIdentifier
		Data      []byte
	}
	_, err := asn1.Unmarshal(der, &info)
	return err == nil && len(info.Data) > jksSalt+jksDigest
}
