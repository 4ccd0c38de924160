package certs

import (
	"crypto"
	"crypto/rand"
	"crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"strings"
	"testing"

	"github.com/youmark/pkcs8"
	"software.sslmate.com/src/go-pkcs12"
)

// sealed is a key as encrypted PKCS#8.
func sealed(t testing.TB, key any, password string, opts *pkcs8.Opts) []byte {
	t.Helper()
	der, err := pkcs8.MarshalPrivateKey(key, []byte(password), opts)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func sealedPEM(der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: der}))
}

func TestEncryptedKeys(t *testing.T) {
	dir := t.TempDir()
	writePasswords(t, dir)
	im, other := issued(t, ecKey(t), "im.example.gov"), issued(t, rsaKey(), "other.example.gov")
	certs := map[string]string{"im": pemOf(im.chain...), "other": pemOf(other.chain...)}
	write(t, dir, "im.pem", certs["im"])
	write(t, dir, "other.pem", certs["other"])
	write(t, dir, "im.key", sealedPEM(sealed(t, im.key, storePassword, nil)))
	write(t, dir, "scrypt.key", sealedPEM(sealed(t, im.key, storePassword, &pkcs8.Opts{Cipher: pkcs8.AES256CBC, KDFOpts: pkcs8.ScryptOpts{SaltSize: 16, CostParameter: 1 << 14, BlockSize: 8, ParallelizationParameter: 1}})))
	write(t, dir, "both.pem", certs["im"]+sealedPEM(sealed(t, im.key, storePassword, nil)))
	der, err := x509.MarshalPKCS8PrivateKey(other.key)
	if err != nil {
		t.Fatal(err)
	}
	//lint:ignore SA1019 the form that is tested
	legacy, err := x509.EncryptPEMBlock(rand.Reader, "PRIVATE KEY", der, []byte(storePassword), x509.PEMCipherAES256)
	if err != nil {
		t.Fatal(err)
	}
	write(t, dir, "legacy.key", string(pem.EncodeToMemory(legacy)))
	checkServed(t, dir, map[string]wanted{
		"PKCS#8":            {Source{Cert: "im.pem", Key: "im.key", PasswordFile: "store.pass"}, "im.example.gov", 3},
		"PKCS#8 in one":     {Source{Cert: "both.pem", PasswordFile: "store.pass"}, "im.example.gov", 3},
		"scrypt":            {Source{Cert: "im.pem", Key: "scrypt.key", PasswordFile: "store.pass"}, "im.example.gov", 3},
		"of OpenSSL of old": {Source{Cert: "other.pem", Key: "legacy.key", PasswordFile: "store.pass"}, "other.example.gov", 3},
	})

	write(t, dir, "cut.key", sealedPEM(sealed(t, im.key, storePassword, nil)[:60]))
	write(t, dir, "gcm.key", sealedPEM(sealed(t, im.key, storePassword, &pkcs8.Opts{Cipher: pkcs8.AES256GCM, KDFOpts: pkcs8.PBKDF2Opts{SaltSize: 8, IterationCount: 1, HMACHash: crypto.SHA256}})))
	costly, err := asn1.Marshal(scryptParams{[]byte("salt"), 1 << 11, 1 << 11, 1, 0})
	if err != nil {
		t.Fatal(err)
	}
	write(t, dir, "costly.key", sealedPEM(changed(t, sealed(t, im.key, storePassword, nil), func(info *encryptedInfo, scheme *pbes2) {
		scheme.KDF = pkix.AlgorithmIdentifier{Algorithm: oidScrypt(), Parameters: asn1.RawValue{FullBytes: costly}}
	})))
	write(t, dir, "iv.key", sealedPEM(changed(t, sealed(t, im.key, storePassword, nil), func(info *encryptedInfo, scheme *pbes2) { scheme.Cipher.Parameters = octets(t, 15) })))
	write(t, dir, "block.key", sealedPEM(changed(t, sealed(t, im.key, storePassword, nil), func(info *encryptedInfo, scheme *pbes2) { info.Data = info.Data[1:] })))
	write(t, dir, "old.key", sealedPEM(changed(t, sealed(t, im.key, storePassword, nil), func(info *encryptedInfo, scheme *pbes2) {
		info.Algorithm.Algorithm = oid(1, 2, 840, 113549, 1, 5, 3)
	})))
	pair := func(key, password string) Source { return Source{Cert: "im.pem", Key: key, PasswordFile: password} }
	const anew = ": encrypt it anew with openssl pkcs8 -topk8 -v2 aes-256-cbc -v2prf hmacWithSHA256"
	checkRefused(t, dir, map[string]Source{
		"no password":     pair("im.key", ""),
		"wrong":           pair("im.key", "wrong.pass"),
		"wrong, old form": {Cert: "other.pem", Key: "legacy.key", PasswordFile: "wrong.pass"},
		"wrong, scrypt":   pair("scrypt.key", "wrong.pass"),
		"GCM":             pair("gcm.key", "store.pass"),
		"no such file":    pair("im.key", "none.pass"),
		"cut":             pair("cut.key", "store.pass"),
		"costly":          pair("costly.key", "store.pass"),
		"IV":              pair("iv.key", "store.pass"),
		"block":           pair("block.key", "store.pass"),
		"old":             pair("old.key", "store.pass"),
	}, map[string]string{
		"no password":     "the private key in im.key is encrypted: name the file that holds its password as password_file",
		"wrong":           wrongPassword("im.key"),
		"wrong, old form": wrongPassword("legacy.key"),
		"wrong, scrypt":   wrongPassword("scrypt.key"),
		"GCM":             "the encrypted private key in gcm.key has a cipher that is not known (2.16.840.1.101.3.4.1.46)" + anew,
		"no such file":    "password file none.pass does not exist: check the name; a relative one is taken from the config's folder",
		"cut":             "the encrypted private key in cut.key is damaged" + anew,
		"costly":          "the encrypted private key in costly.key takes too much memory or time to decrypt (scrypt with 2048, 2048, 1)" + anew,
		"IV":              "the encrypted private key in iv.key is damaged" + anew,
		"block":           "the encrypted private key in block.key is damaged" + anew,
		"old":             "the encrypted private key in old.key is encrypted in an old way (1.2.840.113549.1.5.3, not PBES2)" + anew,
	})
}

func wrongPassword(key string) string {
	return "the private key in " + key + " cannot be decrypted with the password in wrong.pass: is it another key's? try openssl pkey -noout -in " + key + " -passin file:wrong.pass"
}

// octets are so many, as DER.
func octets(t testing.TB, n int) asn1.RawValue {
	t.Helper()
	der, err := asn1.Marshal(make([]byte, n))
	if err != nil {
		t.Fatal(err)
	}
	return asn1.RawValue{FullBytes: der}
}

// changed is an encrypted key with something else in its structure.
func changed(t testing.TB, der []byte, change func(*encryptedInfo, *pbes2)) []byte {
	t.Helper()
	var info encryptedInfo
	var scheme pbes2
	if !parse(der, &info) || !parse(info.Algorithm.Parameters.FullBytes, &scheme) {
		t.Fatal("not PBES2")
	}
	change(&info, &scheme)
	params, err := asn1.Marshal(scheme)
	if err != nil {
		t.Fatal(err)
	}
	info.Algorithm.Parameters = asn1.RawValue{FullBytes: params}
	if der, err = asn1.Marshal(info); err != nil {
		t.Fatal(err)
	}
	return der
}

// What openssl writes by default, and with other ciphers.
func TestEncryptedKeysOfOpenSSL(t *testing.T) {
	program(t, "openssl")
	dir := t.TempDir()
	writePasswords(t, dir)
	im := issued(t, rsaKey(), "im.example.gov")
	write(t, dir, "im.pem", pemOf(im.chain...))
	write(t, dir, "plain.key", pemKey(t, im.key))
	const pass = "pass:" + storePassword
	cases := map[string]wanted{}
	for name, args := range map[string][]string{
		"default":     {"pkcs8", "-topk8"},
		"AES-128":     {"pkcs8", "-topk8", "-v2", "aes-128-cbc", "-iter", "600000"},
		"3DES":        {"pkcs8", "-topk8", "-v2", "des3"},
		"scrypt":      {"pkcs8", "-topk8", "-scrypt"},
		"traditional": {"rsa", "-traditional", "-aes256"},
		"trad. 3DES":  {"rsa", "-traditional", "-des3"},
	} {
		file := strings.ReplaceAll(name, " ", "") + ".key"
		command(t, dir, "openssl", append(args, "-in", "plain.key", "-out", file, "-passout", pass)...)
		cases[name] = wanted{Source{Cert: "im.pem", Key: file, PasswordFile: "store.pass"}, "im.example.gov", 3}
	}
	checkServed(t, dir, cases)
}

// Whatever a keystore or an encrypted key holds, it is read or refused: without
// a panic, without much memory or time, and without its password in the error.
func FuzzKeystore(f *testing.F) {
	dir := f.TempDir()
	writePasswords(f, dir)
	im, other := issued(f, ecKey(f), "im.example.gov"), issued(f, ecKey(f), "other.example.gov")
	makeJKS(f, dir, "im.jks", im, other, []byte(storePassword), []byte(storePassword))
	for _, name := range []string{"im.jks"} {
		data, err := readKind(within(dir, Source{Keystore: name}).Keystore, "keystore")
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	one := makePKCS12(f, dir, "im.p12", pkcs12.Modern.WithIterations(1), im)
	two := makePKCS12(f, dir, "other.p12", pkcs12.LegacyRC2.WithIterations(1), other)
	f.Add(one)
	f.Add(two)
	f.Add(merged(f, one, two))
	f.Add(signedJKS([]byte(shortKey)))
	f.Add([]byte("\xfe\xed\xfe\xed\x00\x00\x00\x02\x00\x00\x00\x01\x00\x00\x00\x01\x00\x02im\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x04\x30\x02\x30\x00\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, data []byte) {
		name := write(t, dir, "fuzz.store", string(data))
		for _, alias := range []string{"", "im"} {
			s, err := Load(Config{Certificates: []Source{within(dir, Source{Keystore: "fuzz.store", Alias: alias, PasswordFile: "store.pass"})}})
			if err == nil {
				s.Warnings()
				continue
			}
			if !strings.HasPrefix(err.Error(), "singlegate.yaml:7:7: keystore "+name) || strings.Contains(err.Error(), storePassword) {
				t.Errorf("the error is %v", err)
			}
		}
		// Past the digest, as if the password were right for it.
		if len(data) > jksDigest {
			if store, err := openJKS(signedJKS(data[:len(data)-jksDigest]), passwords{store: []byte(storePassword), key: []byte(storePassword)}); err == nil {
				for _, alias := range store.keys {
					store.entry(alias)
				}
			}
		}
		// Past the MAC, as if the password were right for it.
		if parts, err := takeApart(data); err == nil {
			for i := range parts.keys[:min(len(parts.keys), 3)] {
				if key, certs, err := parts.decode(i, storePassword); err == nil {
					chainFor(key, certs)
				}
			}
		}
	})
}

func FuzzEncryptedKey(f *testing.F) {
	key := ecKey(f)
	weak := &pkcs8.Opts{Cipher: pkcs8.AES128CBC, KDFOpts: pkcs8.PBKDF2Opts{SaltSize: 8, IterationCount: 1, HMACHash: crypto.SHA256}}
	f.Add(sealed(f, key, storePassword, weak))
	f.Add(sealed(f, key, storePassword, &pkcs8.Opts{Cipher: pkcs8.AES256CBC, KDFOpts: pkcs8.ScryptOpts{SaltSize: 8, CostParameter: 2, BlockSize: 1, ParallelizationParameter: 1}}))
	f.Add(changed(f, sealed(f, key, storePassword, weak), func(info *encryptedInfo, scheme *pbes2) { scheme.Cipher.Parameters = octets(f, 3) }))
	f.Add(changed(f, sealed(f, key, storePassword, weak), func(info *encryptedInfo, scheme *pbes2) { info.Data = nil }))
	dir := f.TempDir()
	writePasswords(f, dir)
	source := within(dir, Source{Cert: "im.pem", PasswordFile: "store.pass"})
	f.Fuzz(func(t *testing.T, der []byte) {
		file := &pemFile{name: "im.key"}
		for _, block := range []*pem.Block{
			{Type: "ENCRYPTED PRIVATE KEY", Bytes: der},
			{Type: "EC PRIVATE KEY", Bytes: der, Headers: map[string]string{"Proc-Type": "4,ENCRYPTED", "DEK-Info": "AES-128-CBC,00112233445566778899AABBCCDDEEFF"}},
		} {
			if _, err := file.encryptedKey(block, source); err != nil && strings.Contains(err.Error(), storePassword) {
				t.Errorf("the error is %v", err)
			}
		}
	})
}

// An unusual hash is refused by name, and not taken for a wrong password.
func TestUnknownHash(t *testing.T) {
	kdf, err := asn1.Marshal(pbkdf2Params{[]byte("salt"), 1, sha512.Size, pkix.AlgorithmIdentifier{Algorithm: oid(1, 2, 840, 113549, 2, 11)}})
	if err != nil {
		t.Fatal(err)
	}
	der := changed(t, sealed(t, ecKey(t), storePassword, nil), func(_ *encryptedInfo, s *pbes2) { s.KDF.Parameters = asn1.RawValue{FullBytes: kdf} })
	if err := checkPKCS8(der); err == nil || err.Error() != "derives its key by a hash that is not known (1.2.840.113549.2.11)" {
		t.Errorf("the error is %v", err)
	}
}
