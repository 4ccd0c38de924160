package certs

import (
	"bytes"
	"crypto"
	"crypto/sha1"
	"crypto/tls"
	"crypto/x509"
	"encoding/asn1"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	jks "github.com/pavlo-v-chernykh/keystore-go/v4"
	"software.sslmate.com/src/go-pkcs12"
)

const (
	storePassword = "store-s3cret"
	keyPassword   = "key-s3cret"
)

// A program that is missing skips what needs it, or fails with CI=true.
func program(t testing.TB, name string) {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("%s is missing", name)
		}
		t.Skipf("%s is missing", name)
	}
}

// command runs a program in a folder to its end.
func command(t testing.TB, dir, name string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, out)
	}
}

// An identity is a certificate with its key and chain.
type identity struct {
	key   crypto.Signer
	chain []*x509.Certificate
}

func (i identity) pem(t testing.TB) string { return pemOf(i.chain...) + pemKey(t, i.key) }

// issued is an identity of a CA with an intermediate.
func issued(t testing.TB, key crypto.Signer, names ...string) identity {
	t.Helper()
	root := newCA(t, "root", nil)
	middle := newCA(t, "middle", root)
	return identity{key, []*x509.Certificate{sign(t, leaf(names...), key, middle), middle.cert, root.cert}}
}

func writePasswords(t testing.TB, dir string) {
	t.Helper()
	write(t, dir, "store.pass", storePassword+"\n")
	write(t, dir, "key.pass", keyPassword+"\r\n")
	write(t, dir, "wrong.pass", "wr0ng-s3cret")
	write(t, dir, "empty.pass", "\n")
	write(t, dir, "lines.pass", storePassword+"\n"+storePassword+"\n")
	write(t, dir, "latin.pass", "sécret-s3cret\n")
	write(t, dir, "chinese.pass", "密码s3cret\n")
}

// makeJKS writes a JKS file with two keys and a trusted certificate.
func makeJKS(t testing.TB, dir, name string, im, other identity, password, keyPassword []byte) {
	t.Helper()
	store := jks.New(jks.WithOrderedAliases())
	for alias, i := range map[string]identity{"im": im, "other": other} {
		der, err := x509.MarshalPKCS8PrivateKey(i.key)
		if err != nil {
			t.Fatal(err)
		}
		e := jks.PrivateKeyEntry{CreationTime: time.Now(), PrivateKey: der}
		for _, c := range i.chain {
			e.CertificateChain = append(e.CertificateChain, jks.Certificate{Type: "X.509", Content: c.Raw})
		}
		if err := store.SetPrivateKeyEntry(alias, e, keyPassword); err != nil {
			t.Fatal(err)
		}
	}
	ca := jks.TrustedCertificateEntry{CreationTime: time.Now(), Certificate: jks.Certificate{Type: "X.509", Content: im.chain[2].Raw}}
	if err := store.SetTrustedCertificateEntry("ca", ca); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := store.Store(&b, password); err != nil {
		t.Fatal(err)
	}
	write(t, dir, name, b.String())
}

// shortKey is a JKS file whose key is too short for its salt and digest.
const shortKey = "\xfe\xed\xfe\xed\x00\x00\x00\x02\x00\x00\x00\x01" + // the head, for one entry
	"\x00\x00\x00\x01\x00\x02im\x00\x00\x00\x00\x00\x00\x00\x00" + // a key "im"
	"\x00\x00\x00\x14\x30\x12\x30\x0d\x06\x0b\x2b\x06\x01\x04\x01\x2a\x02\x11\x01\x01\x00\x04\x01x" + // of one byte
	"\x00\x00\x00\x00" // without a certificate

// signedJKS adds the digest by which a JKS file's password is found right.
func signedJKS(body []byte) []byte {
	hash := sha1.New()
	for _, b := range []byte(storePassword) {
		hash.Write([]byte{0, b})
	}
	hash.Write([]byte("Mighty Aphrodite"))
	hash.Write(body)
	return hash.Sum(slices.Clone(body))
}

// makePKCS12 writes a PKCS#12 file with one key.
func makePKCS12(t testing.TB, dir, name string, encoder *pkcs12.Encoder, i identity) []byte {
	t.Helper()
	data, err := encoder.Encode(i.key, i.chain[0], i.chain[1:], storePassword)
	if err != nil {
		t.Fatal(err)
	}
	write(t, dir, name, string(data))
	return data
}

// merged puts the keys and certificates of several files into one.
func merged(t testing.TB, files ...[]byte) []byte {
	t.Helper()
	all := &safe{}
	for _, f := range files {
		s, err := takeApart(f)
		if err != nil {
			t.Fatal(err)
		}
		all.keys = append(all.keys, s.keys...)
		all.sealed = append(all.sealed, s.sealed...)
	}
	var bags []asn1.RawValue
	for _, k := range all.keys {
		bags = append(bags, k.raw)
	}
	plain, err := dataContent(bags)
	if err != nil {
		t.Fatal(err)
	}
	data, err := assemble(append([]contentInfo{plain}, all.sealed...), storePassword)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// A wanted certificate has this first name and sends as many certificates.
type wanted struct {
	source Source
	name   string
	chain  int
}

func checkServed(t *testing.T, dir string, cases map[string]wanted) {
	t.Helper()
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			s, err := Load(Config{Certificates: []Source{within(dir, c.source)}})
			if err != nil {
				t.Fatal(err)
			}
			conn := mustDial(t, serve(t, s.TLSConfig(), "127.0.0.1:0"), &tls.Config{ServerName: c.name})
			if got := namesOf(conn.leaf())[0]; got != c.name || len(conn.state.PeerCertificates) != c.chain {
				t.Errorf("%q with %d certificates, want %q with %d", got, len(conn.state.PeerCertificates), c.name, c.chain)
			}
			if w := s.Warnings(); len(w) > 0 {
				t.Errorf("warnings: %q", w)
			}
		})
	}
}

// within is a source with its files in a folder.
func within(dir string, s Source) Source {
	for _, name := range []*string{&s.Cert, &s.Key, &s.Keystore, &s.Folder, &s.PasswordFile, &s.KeyPasswordFile} {
		if *name != "" {
			*name = filepath.Join(dir, *name)
		}
	}
	s.At = "singlegate.yaml:7:7"
	return s
}

func checkRefused(t *testing.T, dir string, cases map[string]Source, want map[string]string) {
	t.Helper()
	for name, source := range cases {
		t.Run(name, func(t *testing.T) {
			_, err := Load(Config{Certificates: []Source{within(dir, source)}})
			if err == nil {
				t.Fatal("accepted")
			}
			got := strings.ReplaceAll(err.Error(), dir+string(filepath.Separator), "")
			if got != "singlegate.yaml:7:7: "+want[name] {
				t.Errorf("the error is\n%s\nwant\n%s", got, "singlegate.yaml:7:7: "+want[name])
			}
			if strings.Contains(got, "s3cret") {
				t.Error("the error holds a password")
			}
		})
	}
}

// Keystores made here, so that something is always tried.
func TestKeystores(t *testing.T) {
	dir := t.TempDir()
	writePasswords(t, dir)
	im, other := issued(t, ecKey(t), "im.example.gov"), issued(t, rsaKey(), "other.example.gov")
	makeJKS(t, dir, "im.jks", im, other, []byte(storePassword), []byte(keyPassword))
	makeJKS(t, dir, "latin.jks", im, other, []byte("s\xe9cret-s3cret"), []byte("s\xe9cret-s3cret"))
	modern := makePKCS12(t, dir, "modern.p12", pkcs12.Modern, im)
	makePKCS12(t, dir, "old.p12", pkcs12.LegacyRC2, im)
	makePKCS12(t, dir, "des.p12", pkcs12.LegacyDES, im)
	rsaStore := makePKCS12(t, dir, "rsa.p12", pkcs12.LegacyDES, other)
	both := merged(t, modern, rsaStore)
	write(t, dir, "both.p12", string(both))
	parts, err := takeApart(both)
	if err != nil {
		t.Fatal(err)
	}
	checkServed(t, dir, map[string]wanted{
		"JKS":                    {Source{Keystore: "im.jks", Alias: "IM", PasswordFile: "store.pass", KeyPasswordFile: "key.pass"}, "im.example.gov", 3},
		"JKS, the other":         {Source{Keystore: "im.jks", Alias: "other", PasswordFile: "store.pass", KeyPasswordFile: "key.pass"}, "other.example.gov", 3},
		"JKS, Latin-1":           {Source{Keystore: "latin.jks", Alias: "im", PasswordFile: "latin.pass"}, "im.example.gov", 3},
		"PKCS#12":                {Source{Keystore: "modern.p12", PasswordFile: "store.pass"}, "im.example.gov", 3},
		"PKCS#12, same twice":    {Source{Keystore: "modern.p12", PasswordFile: "store.pass", KeyPasswordFile: "store.pass"}, "im.example.gov", 3},
		"PKCS#12, RC2":           {Source{Keystore: "old.p12", PasswordFile: "store.pass"}, "im.example.gov", 3},
		"PKCS#12, 3DES":          {Source{Keystore: "des.p12", PasswordFile: "store.pass"}, "im.example.gov", 3},
		"PKCS#12, RSA":           {Source{Keystore: "rsa.p12", PasswordFile: "store.pass"}, "other.example.gov", 3},
		"PKCS#12, first of two":  {Source{Keystore: "both.p12", Alias: parts.keys[0].alias, PasswordFile: "store.pass"}, "im.example.gov", 3},
		"PKCS#12, second of two": {Source{Keystore: "both.p12", Alias: parts.keys[1].alias, PasswordFile: "store.pass"}, "other.example.gov", 3},
	})
}

// What is wrong with a keystore is said, with what to do.
func TestBrokenKeystores(t *testing.T) {
	dir := t.TempDir()
	writePasswords(t, dir)
	im, other := issued(t, ecKey(t), "im.example.gov"), issued(t, ecKey(t), "other.example.gov")
	makeJKS(t, dir, "im.jks", im, other, []byte(storePassword), []byte(keyPassword))
	good := makePKCS12(t, dir, "im.p12", pkcs12.Modern, im)
	write(t, dir, "cut.p12", string(good[:len(good)-9]))
	trust, err := pkcs12.Modern.EncodeTrustStore([]*x509.Certificate{im.chain[2]}, storePassword)
	if err != nil {
		t.Fatal(err)
	}
	write(t, dir, "trust.p12", string(trust))
	two := merged(t, good, makePKCS12(t, dir, "other.p12", pkcs12.Modern, other))
	write(t, dir, "two.p12", string(two))
	parts, err := takeApart(two)
	if err != nil {
		t.Fatal(err)
	}
	stranger := identity{other.key, im.chain}
	makePKCS12(t, dir, "stranger.p12", pkcs12.Modern, stranger)
	makeJKS(t, dir, "stranger.jks", stranger, stranger, []byte(storePassword), []byte(storePassword))
	old := leaf("im.example.gov")
	old.NotBefore, old.NotAfter = time.Now().Add(-50*oneDay), time.Now().Add(-9*oneDay)
	makePKCS12(t, dir, "expired.p12", pkcs12.Modern, identity{im.key, []*x509.Certificate{sign(t, old, im.key, nil)}})
	jksData, err := os.ReadFile(filepath.Join(dir, "im.jks"))
	if err != nil {
		t.Fatal(err)
	}
	write(t, dir, "cut.jks", string(jksData[:len(jksData)-9]))
	write(t, dir, "bomb.jks", "\xfe\xed\xfe\xed\x00\x00\x00\x02\x00\x00\x00\x01\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\xff\xff")
	write(t, dir, "many.jks", "\xfe\xed\xfe\xed\x00\x00\x00\x02\xff\xff\xff\xff")
	write(t, dir, "short.jks", string(signedJKS([]byte(shortKey))))
	write(t, dir, "ber.p12", "\x30\x80\x02\x01\x03\x00\x00")
	write(t, dir, "old.jceks", "\xce\xce\xce\xce\x00\x00\x00\x02")
	write(t, dir, "im.pem", im.pem(t))
	write(t, dir, "text", "hello")
	write(t, dir, "nothing", "")

	store := func(name string) Source { return Source{Keystore: name, PasswordFile: "store.pass"} }
	with := func(s Source, change func(*Source)) Source { change(&s); return s }
	today := day(time.Now())
	twoAliases := quotedList([]string{parts.keys[0].alias, parts.keys[1].alias}, "")
	checkRefused(t, dir, map[string]Source{
		"missing":           store("none.jks"),
		"folder":            store("."),
		"empty":             store("nothing"),
		"text":              store("text"),
		"PEM":               store("im.pem"),
		"JCEKS":             store("old.jceks"),
		"no password":       {Keystore: "im.jks"},
		"password missing":  with(store("im.jks"), func(s *Source) { s.PasswordFile = "none.pass" }),
		"empty password":    with(store("im.jks"), func(s *Source) { s.PasswordFile = "empty.pass" }),
		"several lines":     with(store("im.jks"), func(s *Source) { s.PasswordFile = "lines.pass" }),
		"wrong":             with(store("im.jks"), func(s *Source) { s.PasswordFile = "wrong.pass" }),
		"not Latin-1":       with(store("im.jks"), func(s *Source) { s.PasswordFile = "chinese.pass" }),
		"wrong for the key": with(store("im.jks"), func(s *Source) { s.Alias = "im" }),
		"no alias":          store("im.jks"),
		"another alias":     with(store("im.jks"), func(s *Source) { s.Alias = "tomcat" }),
		"trusted alias":     with(store("im.jks"), func(s *Source) { s.Alias = "CA" }),
		"cut":               store("cut.jks"),
		"a length too long": store("bomb.jks"),
		"a key too short":   store("short.jks"),
		"too many entries":  store("many.jks"),
		"another's key":     with(store("stranger.jks"), func(s *Source) { s.Alias = "im" }),
		"wrong, PKCS12":     with(store("im.p12"), func(s *Source) { s.PasswordFile = "wrong.pass" }),
		"two words, PKCS12": with(store("im.p12"), func(s *Source) { s.KeyPasswordFile = "key.pass" }),
		"cut, PKCS12":       store("cut.p12"),
		"BER":               store("ber.p12"),
		"trust store":       store("trust.p12"),
		"no alias, PKCS12":  store("two.p12"),
		"other one, PKCS12": with(store("two.p12"), func(s *Source) { s.Alias = "tomcat" }),
		"another's, PKCS12": store("stranger.p12"),
		"expired":           store("expired.p12"),
	}, map[string]string{
		"missing":           "keystore none.jks does not exist: check the name; a relative one is taken from the config's folder",
		"folder":            "keystore " + dir + " is not a regular file: name a keystore",
		"empty":             "keystore nothing is empty: expected JKS or PKCS#12",
		"text":              "keystore text is neither JKS nor PKCS#12: expected what keytool or openssl pkcs12 -export writes",
		"PEM":               "keystore im.pem is PEM: name it as cert, with its key",
		"JCEKS":             "keystore old.jceks is of the old kind JCEKS, which is not read: convert it with keytool -importkeystore -srcstoretype JCEKS -srckeystore OLD -deststoretype PKCS12 -destkeystore NEW.p12",
		"no password":       "keystore im.jks: it needs password_file, a file with the store's password as its one line",
		"password missing":  "password file none.pass does not exist: check the name; a relative one is taken from the config's folder",
		"empty password":    "password file empty.pass is empty: write the password as its one line",
		"several lines":     "password file lines.pass has several lines: expected the password as its one line",
		"wrong":             "keystore im.jks: the password in wrong.pass is not the store's, or the file is damaged: try keytool -list -keystore",
		"not Latin-1":       "keystore im.jks: the password in chinese.pass has characters outside of Latin-1, with which a JKS store cannot be opened: change it with keytool -storepasswd, or convert the store to PKCS12",
		"wrong for the key": `keystore im.jks, alias "im": the password in store.pass is not that of the key: name a file with the key's own password as key_password_file`,
		"no alias":          `keystore im.jks: it holds 2 private keys: say which with alias, one of "im", "other"`,
		"another alias":     `keystore im.jks: it has no alias "tomcat"; with a private key there are "im", "other"`,
		"trusted alias":     `keystore im.jks: alias "CA" is a certificate without a private key; with one there are "im", "other"`,
		"cut":               "keystore cut.jks: the file is damaged: it does not end where its entries do",
		"a length too long": "keystore bomb.jks: the file is damaged: it does not end where its entries do",
		"a key too short":   "keystore short.jks: the file is damaged: it does not end where its entries do",
		"too many entries":  "keystore many.jks: it says that it has 4294967295 entries, and more than 1000 are not read",
		"another's key":     `keystore stranger.jks, alias "im": its certificate (im.example.gov) does not belong to the key in stranger.jks: use the key that the certificate was requested with`,
		"wrong, PKCS12":     "keystore im.p12: the password in wrong.pass is not the store's, or the file is damaged: try keytool -list -keystore",
		"two words, PKCS12": "keystore im.p12: it is PKCS#12, which has one password for the store and its keys: leave key_password_file away (the passwords in store.pass and key.pass differ)",
		"cut, PKCS12":       "keystore cut.p12: it is damaged, or no PKCS#12 in DER: try keytool -list -keystore, or openssl pkcs12 -info",
		"BER":               "keystore ber.p12: it is PKCS#12 in BER, of which only DER is read: write it anew with keytool -importkeystore -srckeystore OLD -destkeystore NEW.p12 -deststoretype PKCS12",
		"trust store":       "keystore trust.p12: it holds no private key, only certificates: is it a trust store? expected the store that the server's certificate was requested with",
		"no alias, PKCS12":  "keystore two.p12: it holds 2 private keys: say which with alias, one of " + twoAliases,
		"other one, PKCS12": `keystore two.p12: it has no alias "tomcat"; with a private key there are ` + twoAliases,
		"another's, PKCS12": "keystore stranger.p12, alias " + quoted(mustAlias(t, dir, "stranger.p12")) + ": it has no certificate for the key: import the one that was issued for it",
		"expired":           "keystore expired.p12, alias " + quoted(mustAlias(t, dir, "expired.p12")) + ": the certificate expired on " + day(old.NotAfter) + ": renew it, or set this machine's clock (it says " + today + ")",
	})
}

// mustAlias is that of a PKCS#12 file's only key.
func mustAlias(t *testing.T, dir, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	parts, err := takeApart(data)
	if err != nil || len(parts.keys) != 1 {
		t.Fatal(parts, err)
	}
	return parts.keys[0].alias
}

// What keytool and openssl write.
func TestKeystoresOfTools(t *testing.T) {
	program(t, "keytool")
	program(t, "openssl")
	dir := t.TempDir()
	writePasswords(t, dir)
	im, other := issued(t, ecKey(t), "im.example.gov"), issued(t, rsaKey(), "other.example.gov")
	write(t, dir, "im.pem", im.pem(t))
	write(t, dir, "other.pem", other.pem(t))
	write(t, dir, "root.pem", pemOf(im.chain[2]))
	openssl := func(args ...string) { command(t, dir, "openssl", args...) }
	keytool := func(args ...string) {
		command(t, dir, "keytool", append([]string{"-J-XX:TieredStopAtLevel=1"}, args...)...)
	}
	const pass = "pass:" + storePassword
	openssl("pkcs12", "-export", "-in", "im.pem", "-name", "IM server", "-out", "im.p12", "-passout", pass)
	openssl("pkcs12", "-export", "-in", "other.pem", "-name", "other", "-out", "other.p12", "-passout", pass,
		"-keypbe", "PBE-SHA1-3DES", "-certpbe", "PBE-SHA1-3DES", "-macalg", "sha1") // what JDK 8 and openssl 1.1 write
	openssl("pkcs12", "-export", "-in", "im.pem", "-out", "plaincerts.p12", "-passout", pass, "-certpbe", "NONE", "-macalg", "sha512")
	openssl("pkcs12", "-export", "-in", "im.pem", "-nokeys", "-out", "nokeys.p12", "-passout", pass)
	openssl("pkcs12", "-export", "-in", "im.pem", "-nomac", "-out", "nomac.p12", "-passout", pass)

	from := func(file, alias, to, kind string, more ...string) {
		keytool(append([]string{"-importkeystore", "-noprompt", "-srckeystore", file, "-srcstoretype", "PKCS12", "-srcstorepass", storePassword, "-srcalias", alias,
			"-destkeystore", to, "-deststoretype", kind, "-deststorepass", storePassword}, more...)...)
	}
	from("im.p12", "im server", "both.jks", "JKS", "-destkeypass", keyPassword)
	from("other.p12", "other", "both.jks", "JKS", "-destkeypass", storePassword)
	from("im.p12", "im server", "both.p12", "PKCS12")
	from("other.p12", "other", "both.p12", "PKCS12")
	for _, store := range []string{"both.jks", "both.p12"} {
		keytool("-importcert", "-noprompt", "-alias", "root", "-file", "root.pem", "-keystore", store, "-storepass", storePassword)
	}
	keytool("-genseckey", "-alias", "secret", "-keyalg", "AES", "-keysize", "256", "-keystore", "both.p12", "-storepass", storePassword)
	from("im.p12", "im server", "im.jceks", "JCEKS", "-destkeypass", storePassword)
	keytool("-importcert", "-noprompt", "-alias", "root", "-file", "root.pem", "-keystore", "trust.p12", "-storepass", storePassword)
	keytool("-genkeypair", "-alias", "im", "-keyalg", "EC", "-dname", "CN=im", "-ext", "san=dns:fresh.example.gov,ip:10.0.0.1", "-keystore", "fresh.p12", "-storepass", storePassword)

	store := func(name, alias string) Source {
		return Source{Keystore: name, PasswordFile: "store.pass", Alias: alias}
	}
	jksIM := store("both.jks", "IM Server")
	jksIM.KeyPasswordFile = "key.pass"
	checkServed(t, dir, map[string]wanted{
		"openssl":                   {store("im.p12", ""), "im.example.gov", 3},
		"openssl, old":              {store("other.p12", "OTHER"), "other.example.gov", 3},
		"openssl, certs in plain":   {store("plaincerts.p12", ""), "im.example.gov", 3},
		"keytool, JKS":              {jksIM, "im.example.gov", 3},
		"keytool, JKS, same word":   {store("both.jks", "other"), "other.example.gov", 3},
		"keytool, PKCS12, one":      {store("both.p12", "im server"), "im.example.gov", 3},
		"keytool, PKCS12, other":    {store("both.p12", "other"), "other.example.gov", 3},
		"keytool, PKCS12, new pair": {store("fresh.p12", ""), "fresh.example.gov", 1},
	})
	checkRefused(t, dir, map[string]Source{
		"no alias":    store("both.p12", ""),
		"JKS":         store("both.jks", "im server"),
		"JCEKS":       store("im.jceks", ""),
		"trust store": store("trust.p12", ""),
		"no keys":     store("nokeys.p12", ""),
		"no MAC":      store("nomac.p12", ""),
		"wrong word":  {Keystore: "both.p12", PasswordFile: "wrong.pass"},
	}, map[string]string{
		"no alias":    `keystore both.p12: it holds 2 private keys: say which with alias, one of "im server", "other"`,
		"JKS":         `keystore both.jks, alias "im server": the password in store.pass is not that of the key: name a file with the key's own password as key_password_file`,
		"JCEKS":       "keystore im.jceks is of the old kind JCEKS, which is not read: convert it with keytool -importkeystore -srcstoretype JCEKS -srckeystore OLD -deststoretype PKCS12 -destkeystore NEW.p12",
		"trust store": "keystore trust.p12: it holds no private key, only certificates: is it a trust store? expected the store that the server's certificate was requested with",
		"no keys":     "keystore nokeys.p12: it holds no private key, only certificates: is it a trust store? expected the store that the server's certificate was requested with",
		"no MAC":      "keystore nomac.p12: it has no MAC, by which the password could be checked: write it anew with openssl pkcs12 -export, without -nomac",
		"wrong word":  "keystore both.p12: the password in wrong.pass is not the store's, or the file is damaged: try keytool -list -keystore",
	})
}
