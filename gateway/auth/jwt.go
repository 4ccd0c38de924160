package auth

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/golang-jwt/jwt/v5"
)

// Algorithms are those that a token may be signed with.
func Algorithms() []string {
	return []string{"HS256", "HS384", "HS512", "RS256", "ES256", "EdDSA"}
}

// IsHMAC tells whether an algorithm has one secret for signing and checking.
func IsHMAC(algorithm string) bool { return strings.HasPrefix(algorithm, "HS") }

// Why tokens are refused; the texts hold nothing of a token.
var (
	errMalformed = errors.New("it is not a JWT")
	errAlgorithm = errors.New("its algorithm is not among those allowed")
	errCritical  = errors.New("it demands extensions (crit)")
	errSignature = errors.New("its signature does not fit the key")
	errNoKey     = errors.New("no key fits its key id and algorithm")
	errExpired   = errors.New("it has expired (exp)")
	errNotYet    = errors.New("it is not valid yet (nbf)")
	errIssuer    = errors.New("its issuer is another one (iss)")
	errAudience  = errors.New("it is for another audience (aud)")
	errLacking   = errors.New("it lacks a claim that is asked for (iss, aud)")
	errClaims    = errors.New("its claims are not well-formed")
	errNoToken   = errors.New("the request has no token where one is looked for")
	errNoKeys    = errors.New("no keys could be fetched yet")
)

// A keySource has the keys that tokens are checked with.
type keySource interface {
	// keys are those known now; nil: none are known yet.
	keys() []key

	// again looks for keys that are new, if that makes sense, and tells whether it
	// has: tokens may be signed with one that is not known yet.
	again(ctx context.Context) bool
}

// A key is a public key, or the secret of HMAC.
type key struct {
	id       string // "": it has none
	material any    // []byte, *rsa.PublicKey, *ecdsa.PublicKey, ed25519.PublicKey
}

// A verifier checks tokens.
type verifier struct {
	cfg    *JWT
	parser *jwt.Parser
	known  keySource
	remote bool
}

func newVerifier(cfg *JWT, known keySource) *verifier {
	options := []jwt.ParserOption{jwt.WithValidMethods(cfg.Algorithms), jwt.WithLeeway(cfg.Leeway), jwt.WithJSONNumber()}
	if cfg.Issuer != "" {
		options = append(options, jwt.WithIssuer(cfg.Issuer))
	}
	if len(cfg.Audience) > 0 {
		options = append(options, jwt.WithAudience(cfg.Audience...))
	}
	return &verifier{cfg: cfg, parser: jwt.NewParser(options...), known: known, remote: cfg.JWKSURL != ""}
}

func (v *verifier) sources() []Source { return v.cfg.From }

func (v *verifier) waits() bool { return v.remote }

func (v *verifier) headers() []string {
	var names []string
	for _, c := range v.cfg.ClaimsToHeaders {
		names = append(names, c.Header)
	}
	return names
}

func (v *verifier) check(ctx context.Context, r *Request) Decision {
	text, err := token(r, v.cfg.From)
	switch {
	case err != nil:
		return Decision{Result: Invalid, Cause: err}
	case text == "":
		return Decision{Result: Missing, Cause: errNoToken}
	}
	claims, err := v.verify(text)
	if errors.Is(err, errNoKey) && v.known.again(ctx) {
		claims, err = v.verify(text)
	}
	switch {
	case errors.Is(err, errNoKeys):
		return Decision{Result: Unavailable, Cause: err}
	case errors.Is(err, errExpired):
		return Decision{Result: Expired, Cause: err}
	case err != nil:
		return Decision{Result: Invalid, Cause: err}
	}
	d := Decision{Result: Passed, Fields: v.fields(claims), Subject: subjectOf(claims)}
	if exp, err := claims.GetExpirationTime(); err == nil && exp != nil && v.cfg.CloseOnExpiry {
		d.Expires = exp.Add(v.cfg.Leeway)
	}
	return d
}

// verify gives the claims of a good token.
func (v *verifier) verify(text string) (jwt.MapClaims, error) {
	keys := v.known.keys()
	if keys == nil {
		return nil, errNoKeys
	}
	claims := jwt.MapClaims{}
	t, err := v.parser.ParseWithClaims(text, claims, func(t *jwt.Token) (any, error) { return fitting(keys, t) })
	if err != nil {
		return nil, reasonOf(err, t, v.cfg.Algorithms)
	}
	for _, name := range v.cfg.Require {
		if value, ok := claims[name]; !ok || value == nil || value == "" {
			return nil, fmt.Errorf("it lacks the claim %s", name)
		}
	}
	return claims, nil
}

// fitting are the keys that may have signed a token: of the kind that its
// algorithm needs, so that a public key is never taken for a secret, and of its
// key id where keys have ids.
func fitting(keys []key, t *jwt.Token) (any, error) {
	if _, ok := t.Header["crit"]; ok {
		return nil, errCritical // RFC 7515 section 4.1.11
	}
	id, _ := t.Header["kid"].(string)
	var set jwt.VerificationKeySet
	for _, k := range keys {
		if fits(t.Method.Alg(), k.material) && (id == "" || k.id == "" || k.id == id) {
			set.Keys = append(set.Keys, k.material)
		}
	}
	if len(set.Keys) == 0 {
		return nil, errNoKey
	}
	return set, nil
}

// reasonOf is an error of the library without what it quotes of the token.
func reasonOf(err error, t *jwt.Token, algorithms []string) error {
	for _, c := range []struct{ is, why error }{
		{errCritical, errCritical}, {errNoKey, errNoKey},
		{jwt.ErrTokenNotValidYet, errNotYet}, {jwt.ErrTokenInvalidIssuer, errIssuer}, {jwt.ErrTokenInvalidAudience, errAudience},
		{jwt.ErrTokenRequiredClaimMissing, errLacking}, {jwt.ErrTokenExpired, errExpired}, // last of the claims: it alone is wrong
	} {
		if errors.Is(err, c.is) {
			return c.why
		}
	}
	if t != nil {
		if alg, ok := t.Header["alg"].(string); ok && !slices.Contains(algorithms, alg) {
			return errAlgorithm
		}
	}
	switch {
	case errors.Is(err, jwt.ErrTokenMalformed):
		return errMalformed
	case errors.Is(err, jwt.ErrTokenSignatureInvalid):
		return errSignature
	case errors.Is(err, jwt.ErrTokenInvalidClaims), errors.Is(err, jwt.ErrInvalidType):
		return errClaims
	}
	return errMalformed
}

// fields are the claims that go to the node. One that is no text, number or
// boolean, or holds what no header may, does not.
func (v *verifier) fields(claims jwt.MapClaims) (fields []Field) {
	for _, c := range v.cfg.ClaimsToHeaders {
		if value := textOf(claims[c.Claim]); value != "" {
			fields = append(fields, Field{c.Header, value})
		}
	}
	return fields
}

// textOf is a claim that a header can hold; "": it cannot.
func textOf(claim any) (value string) {
	switch claim := claim.(type) {
	case string:
		value = claim
	case json.Number:
		value = claim.String()
	case bool:
		value = strconv.FormatBool(claim)
	}
	if plain(value) != value {
		return ""
	}
	return value
}

// subjectOf is whom a good token is about.
func subjectOf(claims jwt.MapClaims) string {
	return cmp.Or(textOf(claims["sub"]), textOf(claims["username"]), textOf(claims["user_id"]))
}
