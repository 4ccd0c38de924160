package auth

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/textproto"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/rs/zerolog"

	"singlegate/internal/leaktest"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

const secret = "a-secret-of-django-that-is-fifty-characters-long-aaa"

// secretFile is a key file for HS256.
func secretFile(t *testing.T) string { return keyFileOf(t, secret+"\n") }

func keyFileOf(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "chat.key")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// keys that tests sign with, made once.
var testKeys = sync.OnceValue(func() (k struct {
	rsa, other *rsa.PrivateKey
	ec, ec384  *ecdsa.PrivateKey
	ed         ed25519.PrivateKey
}) {
	k.rsa, _ = rsa.GenerateKey(rand.Reader, 2048)
	k.other, _ = rsa.GenerateKey(rand.Reader, 2048)
	k.ec, _ = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	k.ec384, _ = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	_, k.ed, _ = ed25519.GenerateKey(rand.Reader)
	return k
})

func publicPEM(t *testing.T, keys ...any) string {
	t.Helper()
	var b strings.Builder
	for _, k := range keys {
		der, err := x509.MarshalPKIXPublicKey(k)
		if err != nil {
			t.Fatal(err)
		}
		pem.Encode(&b, &pem.Block{Type: "PUBLIC KEY", Bytes: der})
	}
	return b.String()
}

// claims are those of a Django chat's token, with more.
func claims(more ...any) jwt.MapClaims {
	c := jwt.MapClaims{
		"user_id": 7, "username": "bob", "email": "bob@example.gov",
		"orig_iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix(),
	}
	for i := 0; i < len(more); i += 2 {
		c[more[i].(string)] = more[i+1]
		if more[i+1] == nil {
			delete(c, more[i].(string))
		}
	}
	return c
}

func signed(t *testing.T, method jwt.SigningMethod, key any, c jwt.MapClaims, header ...string) string {
	t.Helper()
	token := jwt.NewWithClaims(method, c)
	for i := 0; i < len(header); i += 2 {
		token.Header[header[i]] = header[i+1]
	}
	s, err := token.SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// djangoToken is a good one.
func djangoToken(t *testing.T, more ...any) string {
	return signed(t, jwt.SigningMethodHS256, []byte(secret), claims(more...))
}

// unsigned is a token with a header and a signature of the test's own.
func unsigned(header, payload, signature string) string {
	e := base64.RawURLEncoding.EncodeToString
	return e([]byte(header)) + "." + e([]byte(payload)) + "." + signature
}

var (
	tokenInQuery  = Source{Kind: FromQuery, Name: "token"}
	tokenInHeader = Source{Kind: FromHeader, Name: "Authorization"}
	tokenInCookie = Source{Kind: FromCookie, Name: "jwt"}
	tokenOffered  = Source{Kind: FromSubprotocol, Name: "access_token"}
)

// ask makes a Request of a target and header lines, as the gateway does.
func ask(target string, lines ...string) *Request {
	path, query := target, ""
	if i := strings.IndexByte(target, '?'); i >= 0 {
		path, query = target[:i], target[i:]
	}
	r := &Request{Method: "GET", URI: target, Query: query, Rest: strings.TrimPrefix(path, "/ws")}
	r.Values = func(name string) (values []string) {
		for _, line := range lines {
			k, v, _ := strings.Cut(line, ": ")
			if textproto.CanonicalMIMEHeaderKey(strings.ReplaceAll(k, "_", "-")) == textproto.CanonicalMIMEHeaderKey(name) {
				values = append(values, v)
			}
		}
		return values
	}
	r.Header = func() (h Header) {
		for _, line := range lines {
			k, v, _ := strings.Cut(line, ": ")
			h = append(h, Field{k, v})
		}
		return h
	}
	return r
}

// adopt makes configs ready and puts them in force until the test ends.
func adopt(t *testing.T, configs ...Config) (*Set, *Authorities) {
	t.Helper()
	s := New(zerolog.New(zerolog.NewTestWriter(t)), func(string, Result) {})
	t.Cleanup(s.Close)
	return s, readopt(t, s, configs...)
}

func readopt(t *testing.T, s *Set, configs ...Config) *Authorities {
	t.Helper()
	a, err := s.Prepare(configs)
	if err != nil {
		t.Fatal(err)
	}
	s.Adopt(a)
	return a
}

func named(name string, c Config) Config {
	c.At, c.Name = "test:1:1", name
	return c
}

func by(names ...string) Rule { return Rule{Names: names} }

// setOf is a JWK set of public keys, by key id.
func setOf(t *testing.T, keys map[string]any) string {
	t.Helper()
	e := base64.RawURLEncoding.EncodeToString
	set := map[string]any{"keys": []any{}}
	for id, k := range keys {
		jwk := map[string]any{"kid": id, "use": "sig"}
		switch k := k.(type) {
		case *rsa.PublicKey:
			jwk["kty"], jwk["n"], jwk["e"] = "RSA", e(k.N.Bytes()), "AQAB"
		case *ecdsa.PublicKey:
			point, err := k.Bytes()
			if err != nil {
				t.Fatal(err)
			}
			half := (len(point) - 1) / 2
			jwk["kty"], jwk["crv"], jwk["x"], jwk["y"] = "EC", k.Params().Name, e(point[1:1+half]), e(point[1+half:])
		case ed25519.PublicKey:
			jwk["kty"], jwk["crv"], jwk["x"] = "OKP", "Ed25519", e(k)
		case string:
			jwk["kty"], jwk["k"] = "oct", e([]byte(k))
		}
		set["keys"] = append(set["keys"].([]any), jwk)
	}
	b, err := json.Marshal(set)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// await waits for a signal of another goroutine.
func await[T any](t *testing.T, what string, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(20 * time.Second):
		t.Fatalf("waited in vain: %s", what)
		panic("unreachable")
	}
}

// eventually waits for a condition of which there is no signal.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

func text(body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte(body)) }
}
