package certs

import (
	"bytes"
	"cmp"
	"crypto"
	"crypto/x509"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// A keystore is what a JKS or PKCS#12 file holds, its integrity checked with
// the store's password.
type keystore struct {
	keys   []string // aliases with a private key
	others []string // aliases without: trusted certificates
	only   string   // what else there is, where there are no aliases to tell
	entry  func(alias string) (crypto.Signer, []*x509.Certificate, error)
}

// passwords are those of a keystore and of its entry, with the files they are
// from: what errors may name.
type passwords struct {
	store, key         []byte
	storeFile, keyFile string
}

func readPasswords(source Source) (p passwords, err error) {
	if source.PasswordFile == "" {
		return p, fmt.Errorf("keystore %s: it needs password_file, a file with the store's password as its one line", source.Keystore)
	}
	p.storeFile, p.keyFile = source.PasswordFile, source.PasswordFile
	if p.store, err = readPassword(p.storeFile); err != nil {
		return p, err
	}
	p.key = p.store
	if source.KeyPasswordFile != "" {
		p.keyFile = source.KeyPasswordFile
		p.key, err = readPassword(p.keyFile)
	}
	return p, err
}

// readKeystore takes key and chain from the source's keystore.
func (e *entry) readKeystore() []error {
	if err := e.openKeystore(); err != nil {
		return []error{err}
	}
	return nil
}

func (e *entry) openKeystore() error {
	name := e.source.Keystore
	data, err := readKind(name, "keystore")
	if err != nil {
		return fmt.Errorf("keystore %s %w", name, err)
	}
	open, err := openerOf(data)
	if err != nil {
		return fmt.Errorf("keystore %s %w", name, err)
	}
	words, err := readPasswords(e.source)
	if err != nil {
		return err
	}
	store, err := open(data, words)
	if err != nil {
		return fmt.Errorf("keystore %s: %w", name, err)
	}
	if e.alias, err = store.choose(e.source.Alias); err != nil {
		return fmt.Errorf("keystore %s: %w", name, err)
	}
	key, chain, err := store.entry(e.alias)
	if err != nil {
		return fmt.Errorf("%s: %w", e.what(), err)
	}
	e.key, e.chain = key, chain
	return nil
}

// openerOf knows what a file is by how it begins; its error goes on after the
// file's name.
func openerOf(data []byte) (func([]byte, passwords) (*keystore, error), error) {
	switch {
	case len(data) == 0:
		return nil, fmt.Errorf("is empty: expected JKS or PKCS#12")
	case bytes.HasPrefix(data, []byte{0xfe, 0xed, 0xfe, 0xed}):
		return openJKS, nil
	case bytes.HasPrefix(data, []byte{0xce, 0xce, 0xce, 0xce}):
		return nil, fmt.Errorf("is of the old kind JCEKS, which is not read: convert it with keytool -importkeystore -srcstoretype JCEKS -srckeystore OLD -deststoretype PKCS12 -destkeystore NEW.p12")
	case data[0] == 0x30:
		return openPKCS12, nil
	case bytes.Contains(data[:min(len(data), 4096)], []byte("-----BEGIN ")):
		return nil, fmt.Errorf("is PEM: name it as cert, with its key")
	}
	return nil, fmt.Errorf("is neither JKS nor PKCS#12: expected what keytool or openssl pkcs12 -export writes")
}

// choose finds the entry with that alias, or the only one with a private key.
func (k *keystore) choose(alias string) (string, error) {
	has := func(list []string) int {
		return slices.IndexFunc(list, func(a string) bool { return strings.EqualFold(a, alias) })
	}
	switch {
	case len(k.keys) == 0:
		return "", fmt.Errorf("it holds no private key, only %s: is it a trust store? expected the store that the server's certificate was requested with", quotedList(k.others, cmp.Or(k.only, "nothing at all")))
	case alias == "" && len(k.keys) == 1:
		return k.keys[0], nil
	case alias == "":
		return "", fmt.Errorf("it holds %d private keys: say which with alias, one of %s", len(k.keys), quotedList(k.keys, ""))
	}
	if i := has(k.keys); i >= 0 {
		return k.keys[i], nil
	}
	if has(k.others) >= 0 {
		return "", fmt.Errorf("alias %s is a certificate without a private key; with one there are %s", quoted(alias), quotedList(k.keys, ""))
	}
	return "", fmt.Errorf("it has no alias %s; with a private key there are %s", quoted(alias), quotedList(k.keys, ""))
}

// quoted shows a name that others gave, bounded and in one line.
func quoted(s string) string {
	if r := []rune(s); len(r) > 60 {
		s = string(r[:60]) + "…"
	}
	return strconv.Quote(s)
}

// quotedList lists names, bounded.
func quotedList(names []string, none string) string {
	if len(names) == 0 {
		return none
	}
	names = slices.Sorted(slices.Values(names))
	var shown []string
	for _, n := range names[:min(len(names), 20)] {
		shown = append(shown, quoted(n))
	}
	if len(names) > 20 {
		shown = append(shown, "…")
	}
	return strings.Join(shown, ", ")
}

// signerOf is a parsed key as one that signs.
func signerOf(key any) (crypto.Signer, error) {
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("its key is none that signs: expected RSA, ECDSA or Ed25519")
	}
	return signer, nil
}
