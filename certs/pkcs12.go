package certs

import (
	"bytes"
	"crypto"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"unicode/utf16"
	"unicode/utf8"

	"software.sslmate.com/src/go-pkcs12"
)

// The library that decrypts takes a file with one private key, and says nothing
// of aliases. So a file is taken apart here as far as that goes without a
// password (RFC 7292: keys lie apart from each other, each encrypted by itself,
// with their aliases beside them), and for each key the library is given a file
// with this key and all certificates, made anew with a MAC of its own.

// A pfx is the outermost structure of PKCS#12.
type pfx struct {
	Version  int
	AuthSafe contentInfo
	Mac      macData `asn1:"optional"`
}

type contentInfo struct {
	Type    asn1.ObjectIdentifier
	Content asn1.RawValue `asn1:"tag:0,explicit,optional"`
}

type macData struct {
	Mac    digestInfo
	Salt   []byte
	Rounds int `asn1:"optional,default:1"`
}

type digestInfo struct {
	Algorithm pkix.AlgorithmIdentifier
	Digest    []byte
}

// pbmac1 is RFC 9579's PBMAC1-params.
type pbmac1 struct{ KDF, MAC pkix.AlgorithmIdentifier }

// An encryptedData is RFC 5652's.
type encryptedData struct {
	Version int
	Info    struct {
		Type      asn1.ObjectIdentifier
		Algorithm pkix.AlgorithmIdentifier
		Data      []byte `asn1:"tag:0,optional"`
	}
}

// A bag is a key or a certificate with its names.
type bag struct {
	ID         asn1.ObjectIdentifier
	Value      asn1.RawValue  `asn1:"tag:0,explicit"`
	Attributes []bagAttribute `asn1:"set,optional"`
}

type bagAttribute struct {
	ID    asn1.ObjectIdentifier
	Value asn1.RawValue `asn1:"set"`
}

func oidData() asn1.ObjectIdentifier      { return oid(1, 2, 840, 113549, 1, 7, 1) }
func oidEncrypted() asn1.ObjectIdentifier { return oid(1, 2, 840, 113549, 1, 7, 6) }
func oidPBMAC1() asn1.ObjectIdentifier    { return oid(1, 2, 840, 113549, 1, 5, 14) }
func oidPlainKey() asn1.ObjectIdentifier  { return oid(1, 2, 840, 113549, 1, 12, 10, 1, 1) }
func oidKey() asn1.ObjectIdentifier       { return oid(1, 2, 840, 113549, 1, 12, 10, 1, 2) }
func oidCert() asn1.ObjectIdentifier      { return oid(1, 2, 840, 113549, 1, 12, 10, 1, 3) }
func oidName() asn1.ObjectIdentifier      { return oid(1, 2, 840, 113549, 1, 9, 20) }
func oidKeyID() asn1.ObjectIdentifier     { return oid(1, 2, 840, 113549, 1, 9, 21) }

// A safe is a PKCS#12 file taken apart.
type safe struct {
	keys   []safeKey
	certs  []asn1.RawValue // that are not encrypted
	sealed []contentInfo   // parts that are encrypted as a whole
}

type safeKey struct {
	alias string
	raw   asn1.RawValue
}

var errDamagedPKCS12 = errors.New("it is damaged, or no PKCS#12 in DER: try keytool -list -keystore, or openssl pkcs12 -info")

// openPKCS12 reads a PKCS#12 file.
func openPKCS12(data []byte, words passwords) (*keystore, error) {
	if !bytes.Equal(words.key, words.store) {
		return nil, fmt.Errorf("it is PKCS#12, which has one password for the store and its keys: leave key_password_file away (the passwords in %s and %s differ)", words.storeFile, words.keyFile)
	}
	if !utf8.Valid(words.store) {
		return nil, fmt.Errorf("password file %s is not UTF-8", words.storeFile)
	}
	password := string(words.store)
	parts, err := takeApart(data)
	if err != nil {
		return nil, err
	}
	key, certs, err := decode(data, password)
	switch {
	case errors.Is(err, pkcs12.ErrIncorrectPassword):
		return nil, fmt.Errorf("the password in %s is not the store's, or the file is damaged: try keytool -list -keystore", words.storeFile)
	case err == nil: // one key, perhaps sealed: nothing to choose
		alias := "1"
		if len(parts.keys) == 1 {
			alias = parts.keys[0].alias
		}
		return &keystore{keys: []string{alias}, entry: func(string) (crypto.Signer, []*x509.Certificate, error) {
			return chainFor(key, certs)
		}}, nil
	}
	k := &keystore{}
	for _, key := range parts.keys {
		k.keys = append(k.keys, key.alias)
	}
	if len(k.keys) == 0 {
		if err.Error() != "pkcs12: private key missing" {
			return nil, fmt.Errorf("it cannot be read (%w)", err)
		}
		k.only = "certificates"
	}
	k.entry = func(alias string) (crypto.Signer, []*x509.Certificate, error) {
		i := slices.IndexFunc(parts.keys, func(key safeKey) bool { return key.alias == alias })
		key, certs, err := parts.decode(i, password)
		if err != nil {
			return nil, nil, fmt.Errorf("it cannot be decrypted (%w)", err)
		}
		return chainFor(key, certs)
	}
	return k, nil
}

// decode decrypts a file with one private key.
func decode(data []byte, password string) (any, []*x509.Certificate, error) {
	key, first, others, err := pkcs12.DecodeChain(data, password)
	return key, append([]*x509.Certificate{first}, others...), err
}

// chainFor puts the certificates of a store in order for one of its keys.
func chainFor(key any, certs []*x509.Certificate) (crypto.Signer, []*x509.Certificate, error) {
	signer, err := signerOf(key)
	if err != nil {
		return nil, nil, err
	}
	i := slices.IndexFunc(certs, func(c *x509.Certificate) bool { return samePublicKey(signer.Public(), c.PublicKey) })
	if i < 0 {
		return nil, nil, errors.New("it has no certificate for the key: import the one that was issued for it")
	}
	leaf := certs[i]
	others := slices.Delete(slices.Clone(certs), i, i+1)
	return signer, pathOf(append([]*x509.Certificate{leaf}, others...)), nil
}

// takeApart reads the structure of a file without a password, and refuses what
// would take too long to decrypt.
func takeApart(data []byte) (*safe, error) {
	if len(data) > 1 && data[1] == 0x80 {
		return nil, errors.New("it is PKCS#12 in BER, of which only DER is read: write it anew with keytool -importkeystore -srckeystore OLD -destkeystore NEW.p12 -deststoretype PKCS12")
	}
	var p pfx
	if rest, err := asn1.Unmarshal(data, &p); err != nil || len(rest) > 0 || !p.AuthSafe.Type.Equal(oidData()) {
		return nil, errDamagedPKCS12
	}
	if len(p.Mac.Mac.Algorithm.Algorithm) == 0 {
		return nil, errors.New("it has no MAC, by which the password could be checked: write it anew with openssl pkcs12 -export, without -nomac")
	}
	if err := checkMAC(p.Mac); err != nil {
		return nil, fmt.Errorf("it %w", err)
	}
	var octets []byte
	var contents []contentInfo
	if !parse(p.AuthSafe.Content.Bytes, &octets) || !parse(octets, &contents) || len(contents) > maxEntries {
		return nil, errDamagedPKCS12
	}
	s := &safe{}
	for _, c := range contents {
		if err := s.add(c); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func parse(der []byte, into any) bool {
	rest, err := asn1.Unmarshal(der, into)
	return err == nil && len(rest) == 0
}

// checkMAC bounds how long the MAC's key may take.
func checkMAC(m macData) error {
	if !m.Mac.Algorithm.Algorithm.Equal(oidPBMAC1()) {
		return checkRounds(m.Rounds)
	}
	var p pbmac1
	if !parse(m.Mac.Algorithm.Parameters.FullBytes, &p) {
		return errors.New("is damaged")
	}
	return checkPBKDF2(p.KDF)
}

// checkPBKDF2 bounds the rounds; of the hash the library tells.
func checkPBKDF2(kdf pkix.AlgorithmIdentifier) error {
	var p pbkdf2Params
	if !kdf.Algorithm.Equal(oidPBKDF2()) || !parse(kdf.Parameters.FullBytes, &p) {
		return errors.New("derives its key in a way that is not known")
	}
	return checkRounds(p.Rounds)
}

// checkPBE bounds how long decrypting something may take.
func checkPBE(algorithm pkix.AlgorithmIdentifier) error {
	if algorithm.Algorithm.Equal(oidPBES2()) {
		var p pbes2
		if !parse(algorithm.Parameters.FullBytes, &p) {
			return errors.New("is damaged")
		}
		return checkPBKDF2(p.KDF)
	}
	var p pkcs12Params
	if !parse(algorithm.Parameters.FullBytes, &p) {
		return fmt.Errorf("has an encryption that is not known (%s)", algorithm.Algorithm)
	}
	return checkRounds(p.Rounds)
}

// add takes a part of the file.
func (s *safe) add(c contentInfo) error {
	switch {
	case c.Type.Equal(oidEncrypted()):
		var e encryptedData
		if !parse(c.Content.Bytes, &e) {
			return errDamagedPKCS12
		}
		if err := checkPBE(e.Info.Algorithm); err != nil {
			return fmt.Errorf("it %w", err)
		}
		s.sealed = append(s.sealed, c)
		return nil
	case !c.Type.Equal(oidData()):
		return fmt.Errorf("it has a part of a kind that is not known (%s): expected what keytool or openssl pkcs12 -export writes", c.Type)
	}
	var octets []byte
	var bags []asn1.RawValue
	if !parse(c.Content.Bytes, &octets) || !parse(octets, &bags) || len(bags) > maxEntries {
		return errDamagedPKCS12
	}
	for _, raw := range bags {
		if err := s.addBag(raw); err != nil {
			return err
		}
	}
	return nil
}

func (s *safe) addBag(raw asn1.RawValue) error {
	var b bag
	if !parse(raw.FullBytes, &b) {
		return errDamagedPKCS12
	}
	switch {
	case b.ID.Equal(oidCert()):
		s.certs = append(s.certs, raw)
	case b.ID.Equal(oidPlainKey()):
		s.keys = append(s.keys, safeKey{s.aliasOf(b), raw})
	case b.ID.Equal(oidKey()):
		var info encryptedInfo
		if !parse(b.Value.Bytes, &info) {
			return errDamagedPKCS12
		}
		if err := checkPBE(info.Algorithm); err != nil {
			return fmt.Errorf("its key %w", err)
		}
		s.keys = append(s.keys, safeKey{s.aliasOf(b), raw})
	}
	return nil // secret keys and the like are none of ours
}

// aliasOf is the key's friendly name, or else its number; no two are the same.
func (s *safe) aliasOf(b bag) string {
	alias := ""
	for _, a := range b.Attributes {
		var value asn1.RawValue
		if !parse(a.Value.Bytes, &value) {
			continue
		}
		switch {
		case a.ID.Equal(oidName()) && len(value.Bytes)%2 == 0:
			alias = fromBMP(value.Bytes)
		case a.ID.Equal(oidKeyID()) && alias == "":
			alias = hex.EncodeToString(value.Bytes)
		}
	}
	for alias == "" || slices.ContainsFunc(s.keys, func(k safeKey) bool { return k.alias == alias }) {
		alias += fmt.Sprint(len(s.keys) + 1)
	}
	return alias
}

func fromBMP(b []byte) string {
	units := make([]uint16, 0, len(b)/2)
	for i := 0; i+1 < len(b); i += 2 {
		units = append(units, uint16(b[i])<<8|uint16(b[i+1]))
	}
	return string(utf16.Decode(units))
}

// decode decrypts one of the keys, and all certificates: those of one sealed
// part at a time, as the library takes no more.
func (s *safe) decode(i int, password string) (key any, certs []*x509.Certificate, err error) {
	sealed := s.sealed
	for first := true; first || len(sealed) > 0; first = false {
		part := sealed[:min(len(sealed), 1)]
		sealed = sealed[len(part):]
		single, err := s.only(i, part, password)
		if err != nil {
			return nil, nil, err
		}
		var more []*x509.Certificate
		if key, more, err = decode(single, password); err != nil {
			return nil, nil, err
		}
		certs = append(certs, more...)
	}
	return key, certs, nil
}

// only is a file with one of the keys and the certificates that are not sealed
// or in sealed.
func (s *safe) only(i int, sealed []contentInfo, password string) ([]byte, error) {
	plain, err := dataContent(append([]asn1.RawValue{s.keys[i].raw}, s.certs...))
	if err != nil {
		return nil, err
	}
	return assemble(append([]contentInfo{plain}, sealed...), password)
}

// assemble makes a file of its parts.
func assemble(parts []contentInfo, password string) ([]byte, error) {
	safes, err := asn1.Marshal(parts)
	if err != nil {
		return nil, err
	}
	octets, err := octetContent(safes)
	if err != nil {
		return nil, err
	}
	mac, err := macOf(safes, password)
	if err != nil {
		return nil, err
	}
	return asn1.Marshal(pfx{Version: 3, AuthSafe: octets, Mac: mac})
}

// dataContent is a part of a file that is not encrypted.
func dataContent(bags []asn1.RawValue) (contentInfo, error) {
	der, err := asn1.Marshal(bags)
	if err != nil {
		return contentInfo{}, err
	}
	return octetContent(der)
}

func octetContent(octets []byte) (contentInfo, error) {
	der, err := asn1.Marshal(octets)
	return contentInfo{oidData(), asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true, Bytes: der}}, err
}

// macOf is a MAC (RFC 9579) by which the library finds the password right. It
// protects nothing: the file never leaves the process.
func macOf(message []byte, password string) (m macData, err error) {
	salt := make([]byte, 16)
	rand.Read(salt)
	prf := pkix.AlgorithmIdentifier{Algorithm: oidSHA256(), Parameters: asn1.NullRawValue}
	kdf, err := asn1.Marshal(pbkdf2Params{salt, 1, sha256.Size, prf})
	if err != nil {
		return m, err
	}
	params, err := asn1.Marshal(pbmac1{pkix.AlgorithmIdentifier{Algorithm: oidPBKDF2(), Parameters: asn1.RawValue{FullBytes: kdf}}, prf})
	if err != nil {
		return m, err
	}
	key, err := pbkdf2.Key(sha256.New, password, salt, 1, sha256.Size)
	if err != nil {
		return m, err
	}
	mac := hmac.New(sha256.New, key)
	mac.Write(message)
	return macData{
		Mac: digestInfo{pkix.AlgorithmIdentifier{Algorithm: oidPBMAC1(), Parameters: asn1.RawValue{FullBytes: params}}, mac.Sum(nil)},
		// PBMAC1 has salt and rounds of its own.
		Salt: []byte{0}, Rounds: 1,
	}, nil
}
