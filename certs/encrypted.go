package certs

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

	"github.com/youmark/pkcs8"
)

// readPassword reads the one line of a password file. Its errors never hold it.
func readPassword(name string) ([]byte, error) {
	data, err := readKind(name, "file with one line")
	if err != nil {
		return nil, fmt.Errorf("password file %s %w", name, err)
	}
	password := bytes.TrimSuffix(bytes.TrimSuffix(data, []byte("\n")), []byte("\r"))
	switch {
	case len(password) == 0:
		return nil, fmt.Errorf("password file %s is empty: write the password as its one line", name)
	case bytes.ContainsAny(password, "\r\n"):
		return nil, fmt.Errorf("password file %s has several lines: expected the password as its one line", name)
	}
	return password, nil
}

// isEncrypted knows both forms: PKCS#8 (RFC 5958) and the header of RFC 1421.
func isEncrypted(block *pem.Block) bool {
	return block.Type == "ENCRYPTED PRIVATE KEY" || strings.Contains(block.Headers["Proc-Type"], "ENCRYPTED")
}

// encryptedKey decrypts a key with the source's password.
func (f *pemFile) encryptedKey(block *pem.Block, source Source) (crypto.Signer, error) {
	if source.PasswordFile == "" {
		return nil, fmt.Errorf("the private key in %s is encrypted: name the file that holds its password as password_file", f.name)
	}
	password, err := readPassword(source.PasswordFile)
	if err != nil {
		return nil, err
	}
	wrong := fmt.Errorf("the private key in %s cannot be decrypted with the password in %s: is it another key's? try openssl pkey -noout -in %s -passin file:%s",
		f.name, source.PasswordFile, f.name, source.PasswordFile)
	var key any
	if block.Type != "ENCRYPTED PRIVATE KEY" {
		//lint:ignore SA1019 weak, but what is there has to be read
		der, err := x509.DecryptPEMBlock(block, password)
		if parsed, ok := parseKey(der); err == nil && ok {
			return parsed, nil
		}
		return nil, wrong
	}
	if err := checkPKCS8(block.Bytes); err != nil {
		return nil, fmt.Errorf("the encrypted private key in %s %w: encrypt it anew with openssl pkcs8 -topk8 -v2 aes-256-cbc -v2prf hmacWithSHA256", f.name, err)
	}
	if key, err = pkcs8.ParsePKCS8PrivateKey(block.Bytes, password); err != nil {
		return nil, wrong
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("the encrypted private key in %s is none that signs: expected an RSA, ECDSA or Ed25519 key", f.name)
	}
	return signer, nil
}

// Bounds of what deriving a key from a password may cost. What tools write is
// far below: 10,000 (keytool) to 600,000 rounds.
const (
	maxRounds = 5_000_000
	maxScrypt = 256 << 20 // bytes
)

// An encryptedInfo is an EncryptedPrivateKeyInfo of RFC 5958.
type encryptedInfo struct {
	Algorithm pkix.AlgorithmIdentifier
	Data      []byte
}

// pbes2 is RFC 8018's PBES2-params.
type pbes2 struct{ KDF, Cipher pkix.AlgorithmIdentifier }

// pbkdf2Params are those of RFC 8018; salts from elsewhere are not in use.
type pbkdf2Params struct {
	Salt      []byte
	Rounds    int
	KeyLength int                      `asn1:"optional"`
	PRF       pkix.AlgorithmIdentifier `asn1:"optional"`
}

// scryptParams are those of RFC 7914.
type scryptParams struct {
	Salt                 []byte
	Cost, Block, Threads int
	KeyLength            int `asn1:"optional"`
}

// pkcs12Params are those of RFC 7292's own encryption.
type pkcs12Params struct {
	Salt   []byte
	Rounds int
}

func oid(numbers ...int) asn1.ObjectIdentifier { return numbers }

func oidPBES2() asn1.ObjectIdentifier  { return oid(1, 2, 840, 113549, 1, 5, 13) }
func oidPBKDF2() asn1.ObjectIdentifier { return oid(1, 2, 840, 113549, 1, 5, 12) }
func oidScrypt() asn1.ObjectIdentifier { return oid(1, 3, 6, 1, 4, 1, 11591, 4, 11) }
func oidSHA1() asn1.ObjectIdentifier   { return oid(1, 2, 840, 113549, 2, 7) }
func oidSHA256() asn1.ObjectIdentifier { return oid(1, 2, 840, 113549, 2, 9) }

// A cipherForm is what the data of a cipher must look like: the library that
// decrypts takes it for granted.
type cipherForm struct {
	id        asn1.ObjectIdentifier
	iv, block int
}

func pkcs8Ciphers() []cipherForm {
	return []cipherForm{
		{oid(2, 16, 840, 1, 101, 3, 4, 1, 2), 16, 16},  // AES-128 CBC
		{oid(2, 16, 840, 1, 101, 3, 4, 1, 22), 16, 16}, // AES-192
		{oid(2, 16, 840, 1, 101, 3, 4, 1, 42), 16, 16}, // AES-256
		{oid(1, 2, 840, 113549, 3, 7), 8, 8},           // 3DES
	}
}

// checkPKCS8 tells why an encrypted key must not be given to the library: its
// error goes on after what it is.
func checkPKCS8(der []byte) error {
	var info encryptedInfo
	var scheme pbes2
	if _, err := asn1.Unmarshal(der, &info); err != nil {
		return errors.New("is damaged")
	}
	if !info.Algorithm.Algorithm.Equal(oidPBES2()) {
		return fmt.Errorf("is encrypted in an old way (%s, not PBES2)", info.Algorithm.Algorithm)
	}
	if _, err := asn1.Unmarshal(info.Algorithm.Parameters.FullBytes, &scheme); err != nil {
		return errors.New("is damaged")
	}
	if err := checkKDF(scheme.KDF); err != nil {
		return err
	}
	var iv []byte
	if _, err := asn1.Unmarshal(scheme.Cipher.Parameters.FullBytes, &iv); err != nil {
		return fmt.Errorf("has a cipher that is not known (%s)", scheme.Cipher.Algorithm)
	}
	for _, c := range pkcs8Ciphers() {
		if !scheme.Cipher.Algorithm.Equal(c.id) {
			continue
		}
		if len(iv) != c.iv || len(info.Data) == 0 || len(info.Data)%c.block != 0 {
			return errors.New("is damaged")
		}
		return nil
	}
	return fmt.Errorf("has a cipher that is not known (%s)", scheme.Cipher.Algorithm)
}

// checkKDF bounds how long a key may be derived from a password.
func checkKDF(kdf pkix.AlgorithmIdentifier) error {
	switch {
	case kdf.Algorithm.Equal(oidPBKDF2()):
		var p pbkdf2Params
		if _, err := asn1.Unmarshal(kdf.Parameters.FullBytes, &p); err != nil {
			return errors.New("is damaged")
		}
		if prf := p.PRF.Algorithm; len(prf) > 0 && !prf.Equal(oidSHA1()) && !prf.Equal(oidSHA256()) {
			return fmt.Errorf("derives its key by a hash that is not known (%s)", prf)
		}
		return checkRounds(p.Rounds)
	case kdf.Algorithm.Equal(oidScrypt()):
		var p scryptParams
		if _, err := asn1.Unmarshal(kdf.Parameters.FullBytes, &p); err != nil {
			return errors.New("is damaged")
		}
		// One factor after the other: a product of all could overflow.
		if p.Cost < 2 || p.Block < 1 || p.Threads < 1 || p.Cost > maxScrypt/128 || p.Block > maxScrypt/128/p.Cost || p.Threads > 16 {
			return fmt.Errorf("takes too much memory or time to decrypt (scrypt with %d, %d, %d)", p.Cost, p.Block, p.Threads)
		}
		return nil
	}
	return fmt.Errorf("derives its key in a way that is not known (%s)", kdf.Algorithm)
}

func checkRounds(n int) error {
	if n < 1 || n > maxRounds {
		return fmt.Errorf("asks for %d rounds, more than %d or less than 1", n, maxRounds)
	}
	return nil
}
