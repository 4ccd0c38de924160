package auth

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"slices"
	"strings"
	"testing"
)

// What a key file must hold, said so that an operator can correct it.
func TestKeyFiles(t *testing.T) {
	k := testKeys()
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	private, _ := x509.MarshalPKCS8PrivateKey(k.ec)
	privatePEM := string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}))
	pkcs1 := string(pem.EncodeToMemory(&pem.Block{Type: "RSA PUBLIC KEY", Bytes: x509.MarshalPKCS1PublicKey(&k.rsa.PublicKey)}))
	rsaPEM, ecPEM := publicPEM(t, &k.rsa.PublicKey), publicPEM(t, &k.ec.PublicKey)
	for _, c := range []struct{ name, algorithms, content, want string }{
		{"secret", "HS256", secret, ""},
		{"PKCS#1", "RS256", pkcs1, ""},
		{"two keys, two algorithms", "RS256 ES256", rsaPEM + ecPEM, ""},
		{"set with keys for something else", "ES256", setOf(t, map[string]any{"a": &k.ec.PublicKey, "b": &k.rsa.PublicKey, "c": &k.ec384.PublicKey, "d": secret}), ""},
		{"empty", "HS256", "\n", "is empty; it must hold the secret"},
		{"guessable", "HS256", "secret\n", "holds a secret of 6 bytes"},
		{"PEM as secret", "HS256", rsaPEM, "holds a key in PEM, and HS256, HS384 and HS512 take a secret"},
		{"set as secret", "HS256", setOf(t, map[string]any{"a": &k.rsa.PublicKey}), "holds a JWK set, and HS256"},
		{"secret as key", "RS256", secret, "holds no key; give the PEM of public keys"},
		{"secret in a set", "RS256", setOf(t, map[string]any{"a": secret}), "is a JWK set without a public key for RS256"},
		{"private key", "ES256", privatePEM, "holds a private key, which the gateway must not have"},
		{"broken PEM", "RS256", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "holds a block that cannot be read"},
		{"other key", "RS256", ecPEM, "holds an elliptic-curve key on P-256 (ES256 takes P-256), which none of RS256 uses"},
		{"other curve", "ES256", publicPEM(t, &k.ec384.PublicKey), "holds an elliptic-curve key on P-384"},
		{"small RSA key", "RS256", publicPEM(t, &small.PublicKey), "holds an RSA key of 1024 bits (RS256 takes 2048 or more)"},
		{"one of two algorithms", "RS256 EdDSA", rsaPEM, "holds no key for EdDSA"},
		{"no set", "RS256", `{"a": 1}`, "is no JWK set"},
		{"large", "HS256", strings.Repeat("x", maxKeyFile+1), "is larger than 1048576 bytes; is it a key file?"},
	} {
		cfg := named("chat", Config{JWT: &JWT{Algorithms: strings.Fields(c.algorithms), KeyFile: keyFileOf(t, c.content), From: []Source{tokenInQuery}}})
		err := Check([]Config{cfg})
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: %v", c.name, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: got %v, want %q", c.name, err, c.want)
		case err != nil && !strings.HasPrefix(err.Error(), `test:1:1: auth "chat": key_file: `):
			t.Errorf("%s: %v tells no place", c.name, err)
		case err != nil && strings.Contains(err.Error(), secret):
			t.Errorf("%s: the secret shows: %v", c.name, err)
		}
	}
	missing := named("chat", Config{JWT: &JWT{Algorithms: []string{"HS256"}, KeyFile: "/nonexistent/key"}})
	badCA := named("ask", Config{Forward: &Forward{URL: "https://a/", CAFile: keyFileOf(t, "x")}})
	err = Check([]Config{missing, badCA})
	if err == nil || !strings.Contains(err.Error(), "no such file") || !strings.Contains(err.Error(), "holds no certificate in PEM") {
		t.Errorf("got %v, want both errors", err)
	}
}

func TestWarnings(t *testing.T) {
	weak := named("weak", Config{JWT: &JWT{Algorithms: []string{"HS256"}, KeyFile: keyFileOf(t, "letmein-letmein")}})
	open := named("open", Config{JWT: &JWT{Algorithms: []string{"RS256"}, JWKSURL: "http://10.0.0.5/keys"}})
	good := named("good", Config{JWT: &JWT{Algorithms: []string{"HS256"}, KeyFile: secretFile(t)}})
	got := Warnings([]Config{weak, open, good}, []Rule{by("weak"), {All: true, Names: []string{"open", "weak"}}})
	want := []string{
		`test:1:1: auth "weak": the secret in ` + weak.JWT.KeyFile + ` has 15 bytes, and one of less than 32 can be guessed`,
		`test:1:1: auth "open": the keys are fetched over plain HTTP: who can change them on their way can sign tokens`,
		`test:1:1: auth "good": no route uses it; write auth: good there`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q\nwant %q", got, want)
	}
}
