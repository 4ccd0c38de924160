package auth

import (
	"crypto/x509"
	"encoding/base64"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// Every token but a good one is refused, and what is said of it holds nothing of
// the token.
func TestTokenVerification(t *testing.T) {
	k := testKeys()
	der, _ := x509.MarshalPKIXPublicKey(&k.rsa.PublicKey)
	rsaFile, ecFile := publicPEM(t, &k.rsa.PublicKey), publicPEM(t, &k.ec.PublicKey)
	edFile := publicPEM(t, k.ed.Public())
	hs, rs := []string{"HS256"}, []string{"RS256"}
	good := djangoToken(t)
	parts := strings.Split(good, ".")
	past, future := time.Now().Add(-time.Hour).Unix(), time.Now().Add(time.Hour).Unix()
	payload := `{"exp":` + "9999999999" + `,"user_id":7}`
	for _, c := range []struct {
		name       string
		algorithms []string
		file       string
		token      string
		want       error // nil: it passes
		tune       func(*JWT)
	}{
		{name: "good", algorithms: hs, token: good},
		{name: "another of the allowed", algorithms: []string{"HS256", "HS512"}, token: signed(t, jwt.SigningMethodHS512, []byte(secret), claims())},
		{name: "RS256", algorithms: rs, file: rsaFile, token: signed(t, jwt.SigningMethodRS256, k.rsa, claims())},
		{name: "second of two keys", algorithms: rs, file: publicPEM(t, &k.other.PublicKey) + rsaFile, token: signed(t, jwt.SigningMethodRS256, k.rsa, claims())},
		{name: "ES256", algorithms: []string{"ES256"}, file: ecFile, token: signed(t, jwt.SigningMethodES256, k.ec, claims())},
		{name: "EdDSA", algorithms: []string{"EdDSA"}, file: edFile, token: signed(t, jwt.SigningMethodEdDSA, k.ed, claims())},
		{name: "a set with ids", algorithms: rs, file: setOf(t, map[string]any{"a": &k.other.PublicKey, "b": &k.rsa.PublicKey}), token: signed(t, jwt.SigningMethodRS256, k.rsa, claims(), "kid", "b")},
		{name: "within the leeway", algorithms: hs, token: djangoToken(t, "exp", time.Now().Add(-10*time.Second).Unix())},

		{name: "another secret", algorithms: hs, token: signed(t, jwt.SigningMethodHS256, []byte("another secret of many letters"), claims()), want: errSignature},
		{name: "a changed claim", algorithms: hs, token: parts[0] + "." + base64.RawURLEncoding.EncodeToString([]byte(payload)) + "." + parts[2], want: errSignature},
		{name: "no signature", algorithms: hs, token: parts[0] + "." + parts[1] + ".", want: errSignature},
		{name: "alg none", algorithms: hs, token: unsigned(`{"alg":"none"}`, payload, ""), want: errAlgorithm},
		{name: "alg None", algorithms: hs, token: unsigned(`{"alg":"None"}`, payload, ""), want: errAlgorithm},
		{name: "alg none, signed", algorithms: hs, token: unsigned(`{"alg":"none"}`, payload, parts[2]), want: errAlgorithm},
		{name: "no alg", algorithms: hs, token: unsigned(`{"typ":"JWT"}`, payload, parts[2]), want: errMalformed},
		{name: "alg of lower case", algorithms: hs, token: unsigned(`{"alg":"hs256"}`, payload, parts[2]), want: errAlgorithm},
		{name: "an algorithm not allowed", algorithms: hs, token: signed(t, jwt.SigningMethodHS512, []byte(secret), claims()), want: errAlgorithm},
		{name: "the public key as secret, PEM", algorithms: rs, file: rsaFile, token: signed(t, jwt.SigningMethodHS256, []byte(rsaFile), claims()), want: errAlgorithm},
		{name: "the public key as secret, DER", algorithms: rs, file: rsaFile, token: signed(t, jwt.SigningMethodHS256, der, claims()), want: errAlgorithm},
		{name: "a key of another kind", algorithms: []string{"RS256", "ES256"}, file: rsaFile + ecFile, token: unsigned(`{"alg":"ES256"}`, payload, parts[2]), want: errSignature},
		{name: "the id of a key of another kind", algorithms: []string{"RS256", "ES256"}, file: setOf(t, map[string]any{"a": &k.rsa.PublicKey, "b": &k.ec.PublicKey}), token: signed(t, jwt.SigningMethodES256, k.ec, claims(), "kid", "a"), want: errNoKey},
		{name: "another RSA key", algorithms: rs, file: rsaFile, token: signed(t, jwt.SigningMethodRS256, k.other, claims()), want: errSignature},
		{name: "a key id that is not known", algorithms: rs, file: setOf(t, map[string]any{"a": &k.rsa.PublicKey}), token: signed(t, jwt.SigningMethodRS256, k.rsa, claims(), "kid", "z"), want: errNoKey},
		{name: "a key id that leads out of the folder", algorithms: hs, token: signed(t, jwt.SigningMethodHS256, []byte{}, claims(), "kid", "../../dev/null"), want: errSignature},
		{name: "the key of another id", algorithms: rs, file: setOf(t, map[string]any{"a": &k.rsa.PublicKey, "b": &k.other.PublicKey}), token: signed(t, jwt.SigningMethodRS256, k.rsa, claims(), "kid", "b"), want: errSignature},
		{name: "crit", algorithms: hs, token: signed(t, jwt.SigningMethodHS256, []byte(secret), claims(), "crit", "b64"), want: errCritical},

		{name: "expired", algorithms: hs, token: djangoToken(t, "exp", past), want: errExpired},
		{name: "expired, and of another issuer", algorithms: hs, token: djangoToken(t, "exp", past, "iss", "x"), want: errIssuer, tune: func(j *JWT) { j.Issuer = "chat" }},
		{name: "expired and not signed well", algorithms: hs, token: signed(t, jwt.SigningMethodHS256, []byte("x"), claims("exp", past)), want: errSignature},
		{name: "no exp", algorithms: hs, token: djangoToken(t, "exp", nil), want: errors.New("it lacks the claim exp")},
		{name: "no exp, none required", algorithms: hs, token: djangoToken(t, "exp", nil), tune: func(j *JWT) { j.Require = nil }},
		{name: "no user_id", algorithms: hs, token: djangoToken(t, "user_id", nil), want: errors.New("it lacks the claim user_id"), tune: func(j *JWT) { j.Require = []string{"user_id"} }},
		{name: "exp is text", algorithms: hs, token: djangoToken(t, "exp", "tomorrow"), want: errClaims},
		{name: "exp far beyond time", algorithms: hs, token: djangoToken(t, "exp", 253402300799)},
		{name: "not yet", algorithms: hs, token: djangoToken(t, "nbf", future), want: errNotYet},
		{name: "issuer", algorithms: hs, token: djangoToken(t, "iss", "chat"), tune: func(j *JWT) { j.Issuer = "chat" }},
		{name: "another issuer", algorithms: hs, token: djangoToken(t, "iss", "chat2"), want: errIssuer, tune: func(j *JWT) { j.Issuer = "chat" }},
		{name: "no issuer", algorithms: hs, token: good, want: errLacking, tune: func(j *JWT) { j.Issuer = "chat" }},
		{name: "audience", algorithms: hs, token: djangoToken(t, "aud", []string{"x", "im"}), tune: func(j *JWT) { j.Audience = []string{"web", "im"} }},
		{name: "another audience", algorithms: hs, token: djangoToken(t, "aud", "x"), want: errAudience, tune: func(j *JWT) { j.Audience = []string{"im"} }},

		{name: "garbage", algorithms: hs, token: "garbage", want: errMalformed},
		{name: "dots", algorithms: hs, token: "..", want: errMalformed},
		{name: "many parts", algorithms: hs, token: good + ".x", want: errMalformed},
		{name: "claims are no object", algorithms: hs, token: unsigned(`{"alg":"HS256"}`, `[1]`, "x"), want: errMalformed},
		{name: "padding", algorithms: hs, token: good + "=", want: errMalformed},
		{name: "huge", algorithms: hs, token: strings.Repeat("a", maxToken+1), want: errLong},
		{name: "the largest there may be", algorithms: hs, token: strings.Repeat("a", maxToken), want: errMalformed},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := &JWT{Algorithms: c.algorithms, From: []Source{tokenInQuery}, Leeway: 30 * time.Second, Require: []string{"exp"}}
			if cfg.KeyFile = secretFile(t); c.file != "" {
				cfg.KeyFile = keyFileOf(t, c.file)
			}
			if c.tune != nil {
				c.tune(cfg)
			}
			_, a := adopt(t, named("chat", Config{JWT: cfg}))
			d := a.Check(t.Context(), by("chat"), ask("/ws/?token="+c.token))
			want := Invalid
			switch c.want {
			case nil:
				want = Passed
			case errExpired:
				want = Expired
			}
			if d.Result != want || (d.Cause == nil) != (c.want == nil) || c.want != nil && d.Cause.Error() != c.want.Error() {
				t.Errorf("got %s (%v), want %s (%v)", d.Result, d.Cause, want, c.want)
			}
		})
	}
}

// Where a token may be, and that there is just one.
func TestTokenSources(t *testing.T) {
	good, other := djangoToken(t), djangoToken(t, "user_id", 8)
	cfg := Config{JWT: &JWT{
		Algorithms: []string{"HS256"}, KeyFile: secretFile(t),
		From: []Source{tokenInQuery, tokenInHeader, tokenInCookie, tokenOffered, {Kind: FromPath, Segment: 2}},
	}}
	_, a := adopt(t, named("chat", cfg))
	for _, c := range []struct {
		target string
		lines  []string
		want   Result
	}{
		{"/ws/?token=" + good, nil, Passed},
		{"/ws/?opponent=bob&token=" + good + "&", nil, Passed},
		{"/ws/?%74oken=" + good, nil, Passed},
		{"/ws/?token=" + strings.Replace(good, ".", "%2E", 1), nil, Passed},
		{"/ws/?a=b;token=" + good, nil, Passed},
		{"/ws/?Token=" + good, nil, Missing},
		{"/ws/?token=", nil, Missing},
		{"/ws/?token", nil, Missing},
		{"/ws/?xtoken=" + good, nil, Missing},
		{"/ws/", nil, Missing},
		{"/ws/?token=" + good + "&token=" + good, nil, Invalid},
		{"/ws/?token=" + good + "&token=", nil, Invalid},
		{"/ws/?token=&token=" + good, nil, Invalid},
		{"/ws/?token=" + good + ";token=" + other, nil, Invalid},
		{"/ws/?token=" + good + "&to%6ben=" + other, nil, Invalid},
		{"/ws/?token=%zz", nil, Invalid},
		{"/ws/", []string{"Authorization: Bearer " + good}, Passed},
		{"/ws/", []string{"authorization: bearer  " + good}, Passed},
		{"/ws/", []string{"Authorization: BEARER " + good + " "}, Passed},
		{"/ws/", []string{"Authorization: JWT " + good}, Passed},
		{"/ws/", []string{"Authorization: " + good}, Missing},
		{"/ws/", []string{"Authorization: Basic Ym9iOmJvYg=="}, Missing},
		{"/ws/", []string{"Authorization: Bearer " + good, "Authorization: Bearer " + good}, Invalid},
		{"/ws/", []string{"Cookie: a=b; jwt=" + good}, Passed},
		{"/ws/", []string{`Cookie: jwt="` + good + `"; c=d`}, Passed},
		{"/ws/", []string{"Cookie: jwt=" + good + "; jwt=" + other}, Invalid},
		{"/ws/", []string{"Cookie: jwt=" + good, "Cookie: jwt=" + good}, Invalid},
		{"/ws/", []string{"Cookie: Jwt=" + good + "; jwt2=x"}, Missing},
		{"/ws/", []string{"Sec-WebSocket-Protocol: access_token, " + good}, Passed},
		{"/ws/", []string{"Sec-WebSocket-Protocol: mqtt", "Sec-WebSocket-Protocol: access_token,  " + good}, Passed},
		{"/ws/", []string{"Sec-WebSocket-Protocol: mqtt, " + good}, Missing},
		{"/ws/", []string{"Sec-WebSocket-Protocol: " + good + ", access_token"}, Invalid},
		{"/ws/", []string{"Sec-WebSocket-Protocol: access_token, " + good + ", access_token, " + other}, Invalid},
		{"/ws/bob/" + good, nil, Passed},
		{"/ws/bob/" + good + "/x", nil, Passed},
		{"/ws/" + good, nil, Missing},
		{"/ws/?token=" + good, []string{"Authorization: Bearer " + good, "Cookie: jwt=" + good}, Passed},
		{"/ws/?token=" + good, []string{"Authorization: Bearer " + other}, Invalid},
		{"/ws/?token=" + good, []string{"Cookie: jwt=" + other}, Invalid},
	} {
		d := a.Check(t.Context(), by("chat"), ask(c.target, c.lines...))
		if d.Result != c.want {
			t.Errorf("%.60s %.60q: %s (%v), want %s", c.target, c.lines, d.Result, d.Cause, c.want)
		}
		if d.Cause != nil && (strings.Contains(d.Cause.Error(), good[:20]) || strings.Contains(d.Cause.Error(), "bob")) {
			t.Errorf("the cause quotes the request: %v", d.Cause)
		}
	}
}

// Claims go to the node as they are, where a header may hold them, and the
// tunnel ends with the token.
func TestClaims(t *testing.T) {
	cfg := &JWT{
		Algorithms: []string{"HS256"}, KeyFile: secretFile(t), From: []Source{tokenInQuery}, Leeway: 5 * time.Second,
		ClaimsToHeaders: []ClaimHeader{{"X-User", "user_id"}, {"X-Name", "username"}, {"X-Staff", "staff"}, {"X-Bad", "bad"}, {"X-List", "list"}, {"X-None", "none"}},
		CloseOnExpiry:   true,
	}
	_, a := adopt(t, named("chat", Config{JWT: cfg}))
	exp := time.Now().Add(time.Hour).Truncate(time.Second)
	token := djangoToken(t, "user_id", int64(9007199254740993), "username", "张三", "staff", true, "bad", "a\r\nX-Staff: true", "list", []int{1}, "exp", exp.Unix())
	d := a.Check(t.Context(), by("chat"), ask("/ws/?token="+token))
	want := []Field{{"X-User", "9007199254740993"}, {"X-Name", "张三"}, {"X-Staff", "true"}}
	if d.Result != Passed || !slices.Equal(d.Fields, want) {
		t.Errorf("got %s %q, want %q", d.Result, d.Fields, want)
	}
	if !d.Expires.Equal(exp.Add(5 * time.Second)) {
		t.Errorf("it ends at %v, want %v and the leeway", d.Expires, exp)
	}
	if got := a.Headers(by("chat")); !slices.Equal(got, []string{"x-user", "x-name", "x-staff", "x-bad", "x-list", "x-none"}) {
		t.Errorf("headers that clients must not send: %q", got)
	}
}

// One of several, or all.
func TestRules(t *testing.T) {
	jwtOf := func(s Source, closes bool, header string) Config {
		return Config{JWT: &JWT{
			Algorithms: []string{"HS256"}, KeyFile: secretFile(t), From: []Source{s}, CloseOnExpiry: closes,
			ClaimsToHeaders: []ClaimHeader{{header, "username"}},
		}}
	}
	_, a := adopt(t, named("query", jwtOf(tokenInQuery, true, "X-A")), named("cookie", jwtOf(tokenInCookie, true, "X-B")))
	soon, later := time.Now().Add(time.Minute).Unix(), time.Now().Add(time.Hour).Unix()
	good, long, old := djangoToken(t, "exp", soon), djangoToken(t, "exp", later), djangoToken(t, "exp", 1)
	anyOf, all := by("query", "cookie"), Rule{All: true, Names: []string{"query", "cookie"}}
	for _, c := range []struct {
		rule          Rule
		query, cookie string
		want          Result
		by            string
		expires       int64
		fields        int
	}{
		{anyOf, good, "", Passed, "query", soon, 1}, {anyOf, "", long, Passed, "cookie", later, 1}, {anyOf, "x", long, Passed, "cookie", later, 1},
		{anyOf, "", "", Missing, "query", 0, 0}, {anyOf, "", old, Expired, "cookie", 0, 0}, {anyOf, "x", old, Invalid, "query", 0, 0},
		{all, long, good, Passed, "cookie", soon, 2}, {all, good, "", Missing, "cookie", 0, 0}, {all, old, good, Expired, "query", 0, 0},
		{by("nobody"), good, "", Unavailable, "nobody", 0, 0}, {by("nobody", "cookie"), "", good, Passed, "cookie", soon, 1}, {Rule{}, "", "", Passed, "", 0, 0},
	} {
		d := a.Check(t.Context(), c.rule, ask("/ws/?token="+c.query, "Cookie: jwt="+c.cookie))
		expires := int64(0)
		if !d.Expires.IsZero() {
			expires = d.Expires.Unix()
		}
		if d.Result != c.want || d.By != c.by || expires != c.expires || len(d.Fields) != c.fields {
			t.Errorf("%v %.8q %.8q: %s by %q (%v), until %d, %q; want %s by %q until %d", c.rule, c.query, c.cookie, d.Result, d.By, d.Cause, expires, d.Fields, c.want, c.by, c.expires)
		}
	}
	var none *Authorities
	if d := none.Check(t.Context(), by("query"), ask("/")); d.Result != Unavailable {
		t.Errorf("nobody to ask: %s", d.Result)
	}
}
