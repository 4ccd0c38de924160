package auth

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/MicahParks/jwkset"
)

// What keys must be.
const (
	maxKeyFile   = 1 << 20 // bytes of a key file or of a fetched set
	maxKeys      = 100     // of a set
	minRSA       = 2048    // bits
	shortSecret  = 32      // bytes; less is easily guessed
	minSecret    = 8       // less is refused
	publicSyntax = "give the PEM of public keys (PUBLIC KEY, CERTIFICATE), or a JWK set"
)

// keyFile are the keys of a file.
type keyFile []key

func (f keyFile) keys() []key                { return f }
func (f keyFile) again(context.Context) bool { return false }

// readKeys reads the keys of a file for the algorithms.
func readKeys(path string, algorithms []string) (keyFile, error) {
	data, err := readBounded(path)
	if err != nil {
		return nil, fmt.Errorf("key_file: %w", err)
	}
	var keys []key
	switch {
	case IsHMAC(algorithms[0]):
		keys, err = secretOf(data)
	case bytes.HasPrefix(bytes.TrimSpace(data), []byte("{")):
		keys, err = parseSet(data, algorithms)
	default:
		keys, err = publicKeys(data)
	}
	if err == nil {
		err = checkFit(keys, algorithms)
	}
	if err != nil {
		return nil, fmt.Errorf("key_file: %s %w", path, err)
	}
	return keys, nil
}

func readBounded(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxKeyFile+1))
	if err == nil && len(data) > maxKeyFile {
		err = fmt.Errorf("%s is larger than %d bytes; is it a key file?", path, maxKeyFile)
	}
	return data, err
}

// secretOf is the whole file, without the line ending that editors add. Public
// keys are refused: whoever has them could sign tokens.
func secretOf(data []byte) ([]key, error) {
	secret := bytes.TrimRight(data, "\r\n")
	var set struct{ Keys []json.RawMessage }
	switch {
	case len(bytes.TrimSpace(secret)) == 0:
		return nil, errors.New("is empty; it must hold the secret that tokens are signed with")
	case bytes.Contains(secret, []byte("-----BEGIN ")):
		return nil, errors.New("holds a key in PEM, and HS256, HS384 and HS512 take a secret; with that key tokens have RS256, ES256 or EdDSA")
	case json.Unmarshal(secret, &set) == nil && set.Keys != nil:
		return nil, errors.New("holds a JWK set, and HS256, HS384 and HS512 take the secret itself")
	case len(secret) < minSecret:
		return nil, fmt.Errorf("holds a secret of %d bytes, which anybody can guess; take 32 or more", len(secret))
	}
	return []key{{material: secret}}, nil
}

func publicKeys(data []byte) ([]key, error) {
	var keys []key
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			break
		}
		material, err := publicKey(block)
		if err != nil {
			return nil, err
		}
		keys = append(keys, key{material: material})
	}
	if len(keys) == 0 {
		return nil, errors.New("holds no key; " + publicSyntax)
	}
	return keys, nil
}

func publicKey(block *pem.Block) (material any, err error) {
	switch {
	case strings.HasSuffix(block.Type, "PRIVATE KEY"):
		return nil, errors.New("holds a private key, which the gateway must not have; " + publicSyntax)
	case block.Type == "CERTIFICATE":
		var cert *x509.Certificate
		if cert, err = x509.ParseCertificate(block.Bytes); err == nil {
			material = cert.PublicKey
		}
	case block.Type == "RSA PUBLIC KEY":
		material, err = x509.ParsePKCS1PublicKey(block.Bytes)
	default:
		material, err = x509.ParsePKIXPublicKey(block.Bytes)
	}
	if err != nil {
		return nil, errors.New("holds a block that cannot be read; " + publicSyntax)
	}
	return material, nil
}

// parseSet takes a JWK set (RFC 7517 section 5): of it the public keys for the
// algorithms. Keys that are for something else are left out.
func parseSet(data []byte, algorithms []string) ([]key, error) {
	var set jwkset.JWKSMarshal
	if err := json.Unmarshal(data, &set); err != nil || set.Keys == nil {
		return nil, errors.New(`is no JWK set ({"keys": [...]})`)
	}
	keys := []key{}
	for _, m := range set.Keys[:min(len(set.Keys), maxKeys)] {
		if k, ok := keyOf(m, algorithms); ok {
			keys = append(keys, k)
		}
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("is a JWK set without a public key for %s", strings.Join(algorithms, ", "))
	}
	return keys, nil
}

func keyOf(m jwkset.JWKMarshal, algorithms []string) (key, bool) {
	if m.USE != "" && m.USE != jwkset.UseSig || m.KTY == jwkset.KtyOct {
		return key{}, false
	}
	m.X5U, m.X5C, m.X5T, m.X5TS256 = "", nil, "", "" // nothing is fetched because a key says so
	jwk, err := jwkset.NewJWKFromMarshal(m, jwkset.JWKMarshalOptions{}, jwkset.JWKValidateOptions{})
	if err != nil {
		return key{}, false
	}
	material := jwk.Key()
	sound := slices.ContainsFunc(algorithms, func(alg string) bool {
		return fits(alg, material) && (m.ALG == "" || string(m.ALG) == alg)
	})
	return key{id: m.KID, material: material}, sound
}

// fits tells whether a key is of the kind that an algorithm needs.
func fits(algorithm string, material any) bool {
	switch k := material.(type) {
	case []byte:
		return IsHMAC(algorithm)
	case *rsa.PublicKey:
		return algorithm == "RS256" && k.N.BitLen() >= minRSA
	case *ecdsa.PublicKey:
		return algorithm == "ES256" && k.Curve == elliptic.P256()
	case ed25519.PublicKey:
		return algorithm == "EdDSA"
	}
	return false
}

// checkFit refuses keys that no algorithm uses, and algorithms without a key.
func checkFit(keys []key, algorithms []string) error {
	for _, k := range keys {
		if !slices.ContainsFunc(algorithms, func(alg string) bool { return fits(alg, k.material) }) {
			return fmt.Errorf("holds %s, which none of %s uses", describe(k.material), strings.Join(algorithms, ", "))
		}
	}
	for _, alg := range algorithms {
		if !slices.ContainsFunc(keys, func(k key) bool { return fits(alg, k.material) }) {
			return fmt.Errorf("holds no key for %s", alg)
		}
	}
	return nil
}

func describe(material any) string {
	switch k := material.(type) {
	case *rsa.PublicKey:
		return fmt.Sprintf("an RSA key of %d bits (RS256 takes %d or more)", k.N.BitLen(), minRSA)
	case *ecdsa.PublicKey:
		return "an elliptic-curve key on " + k.Curve.Params().Name + " (ES256 takes P-256)"
	case ed25519.PublicKey:
		return "an Ed25519 key (EdDSA)"
	}
	return "a key of another kind"
}

// Warnings tells what in the configs works but is weak or useless: secrets that
// can be guessed, keys fetched in the clear, and authorities that no rule names.
// It reads the key files.
func Warnings(configs []Config, rules []Rule) (warnings []string) {
	for _, c := range configs {
		warn := func(format string, args ...any) {
			warnings = append(warnings, fmt.Sprintf("%s: auth %q: ", c.At, c.Name)+fmt.Sprintf(format, args...))
		}
		if !slices.ContainsFunc(rules, func(r Rule) bool { return slices.Contains(r.Names, c.Name) }) {
			warn("no route uses it; write auth: %s there", c.Name)
		}
		if c.JWT == nil {
			continue
		}
		if strings.HasPrefix(c.JWT.JWKSURL, "http://") {
			warn("the keys are fetched over plain HTTP: who can change them on their way can sign tokens")
		}
		if c.JWT.KeyFile == "" || !IsHMAC(c.JWT.Algorithms[0]) {
			continue
		}
		if keys, err := readKeys(c.JWT.KeyFile, c.JWT.Algorithms); err == nil {
			if n := len(keys[0].material.([]byte)); n < shortSecret {
				warn("the secret in %s has %d bytes, and one of less than %d can be guessed", c.JWT.KeyFile, n, shortSecret)
			}
		}
	}
	return warnings
}
