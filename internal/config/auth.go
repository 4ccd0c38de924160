package config

import (
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"

	"singlegate/gateway"
	"singlegate/gateway/auth"
)

// What is left out has these.
const (
	defaultLeeway      = 30 * time.Second
	mostLeeway         = 10 * time.Minute
	defaultAuthTimeout = 5 * time.Second
	defaultProtocol    = "access_token" // of the source subprotocol
)

// auths are the ways of authorising that routes may name.
type auths struct {
	list   []auth.Config
	known  []name
	broken bool // some may be missing in list
}

func (d *decoder) authsOf(o *object) (as auths) {
	f := o.take("auth")
	if f == nil || d.missing(f) {
		return as
	}
	all, ok := d.object(f.value, "auth")
	if !ok {
		return auths{broken: true}
	}
	for _, f := range all.fields {
		as.known = append(as.known, name{f.key, quote(f.key)})
		if c, ok := d.auth(f); ok {
			as.list = append(as.list, c)
		}
	}
	return as
}

func (d *decoder) auth(f *field) (auth.Config, bool) {
	c, errs := auth.Config{At: d.place(f.at), Name: f.key}, len(d.errs)
	if problem := checkName(f.key); problem != "" {
		d.errorf(f.at, "auth %s: %s", quote(f.key), problem)
	}
	o, ok := d.object(f.value, "auth "+quote(f.key))
	if !ok {
		return c, false
	}
	read(o, "jwt", &c.JWT, d.jwt)
	read(o, "forward", &c.Forward, d.forward)
	o.done()
	switch {
	case o.has("jwt") && o.has("forward"):
		d.errorf(o.keyAt("forward"), "auth %s has jwt and forward; give each its name, and the route auth: {any: [one, other]} or {all: [one, other]}", quote(f.key))
	case !o.has("jwt") && !o.has("forward"):
		d.errorf(o.at, "auth %s needs jwt (a token that the gateway checks) or forward (an endpoint that is asked)", quote(f.key))
	}
	return c, len(d.errs) == errs
}

func (d *decoder) jwt(v value) (*auth.JWT, bool) {
	o, ok := d.object(v, "jwt")
	if !ok {
		return nil, false
	}
	j := &auth.JWT{Leeway: defaultLeeway, Require: []string{"exp"}}
	require(o, "algorithms", &j.Algorithms, filled(d, oneOf(d, auth.Algorithms()...)))
	read(o, "key_file", &j.KeyFile, d.path)
	read(o, "jwks_url", &j.JWKSURL, d.endpoint)
	read(o, "ca", &j.CAFile, d.path)
	require(o, "from", &j.From, filled(d, d.credential))
	read(o, "issuer", &j.Issuer, plain(d.text))
	read(o, "audience", &j.Audience, d.oneOrMore)
	if read(o, "leeway", &j.Leeway, d.duration) && j.Leeway > mostLeeway {
		d.fail(o.byKey["leeway"].value, "it is for clocks that differ; more than %v would make old tokens good", mostLeeway)
	}
	read(o, "require", &j.Require, listOf(d, plain(d.text)))
	read(o, "claims_to_headers", &j.ClaimsToHeaders, d.claimHeaders)
	read(o, "close_on_expiry", &j.CloseOnExpiry, d.boolean)
	o.done()
	d.checkKeys(o, j)
	return j, true
}

// checkKeys reports algorithms and keys that do not go together.
func (d *decoder) checkKeys(o *object, j *auth.JWT) {
	secret := slices.ContainsFunc(j.Algorithms, auth.IsHMAC)
	public := slices.ContainsFunc(j.Algorithms, func(a string) bool { return !auth.IsHMAC(a) })
	switch {
	case secret && public:
		d.fail(o.byKey["algorithms"].value, "HS256, HS384 and HS512 have a secret, the others public keys, and who took one for the other would take anybody's tokens; give each its own auth, and the route auth: {any: [one, other]}")
	case o.has("key_file") && o.has("jwks_url"):
		d.errorf(o.keyAt("jwks_url"), "the keys are in key_file or behind jwks_url, not both")
	case !o.has("key_file") && !o.has("jwks_url"):
		d.errorf(o.at, "jwt needs key_file (a secret for HS256, public keys for others), or jwks_url")
	case secret && o.has("jwks_url"):
		d.errorf(o.keyAt("jwks_url"), "jwks_url has public keys, and HS256, HS384 and HS512 take a secret; write key_file")
	}
	d.checkCA(o, j.JWKSURL)
}

// checkCA reports a ca without anything to check by it.
func (d *decoder) checkCA(o *object, endpoint string) {
	if o.has("ca") && !strings.HasPrefix(endpoint, "https://") {
		d.errorf(o.keyAt("ca"), "ca is for a URL that begins with https://")
	}
}

func (d *decoder) forward(v value) (*auth.Forward, bool) {
	o, ok := d.object(v, "forward")
	if !ok {
		return nil, false
	}
	f := &auth.Forward{Timeout: defaultAuthTimeout}
	require(o, "url", &f.URL, d.endpoint)
	read(o, "ca", &f.CAFile, d.path)
	read(o, "credentials", &f.Credentials, filled(d, d.credential))
	read(o, "pass_headers", &f.PassHeaders, filled(d, plain(d.checked(checkNodeHeader))))
	read(o, "timeout", &f.Timeout, d.wait)
	read(o, "cache", &f.Cache, d.bound)
	o.done()
	d.checkCA(o, f.URL)
	if f.Cache > 0 && !o.has("credentials") {
		d.errorf(o.keyAt("cache"), "cache needs credentials: what in a request the answer depends on, such as [cookie.sessionid]")
	}
	return f, true
}

// endpoint is a URL that the gateway asks. One that may hold a password is not shown.
func (d *decoder) endpoint(v value) (string, bool) {
	t, ok := d.text(v)
	if ok && strings.Contains(t.value, "@") {
		d.fail(v, "a URL here holds no user and password, nor any @")
		return "", false
	}
	if !ok {
		return "", false
	}
	return plain(d.checked(checkEndpoint))(v)
}

// checkEndpoint gives what is wrong with a URL that the gateway asks, or "".
func checkEndpoint(s string) string {
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "":
		return "expected a URL that begins with https:// or http://"
	case u.Fragment != "":
		return "a URL here has no #"
	}
	return ""
}

// oneOrMore takes a text or a list of them.
func (d *decoder) oneOrMore(v value) ([]string, bool) {
	if _, ok := scalar(v.node); ok {
		t, ok := d.text(v)
		return []string{t.value}, ok
	}
	return filled(d, plain(d.text))(v)
}

// credential takes a place in a request: query.token, header.Authorization,
// cookie.jwt, subprotocol, path.1.
func (d *decoder) credential(v value) (s auth.Source, ok bool) {
	t, ok := d.checked(func(text string) (problem string) {
		s, problem = sourceOf(text)
		return problem
	})(v)
	return s, ok && t.value != ""
}

func sourceOf(text string) (s auth.Source, problem string) {
	kind, name, _ := strings.Cut(text, ".")
	s = auth.Source{Kind: auth.Kind(kind), Name: name}
	switch s.Kind {
	case auth.FromSubprotocol:
		if text == kind {
			s.Name = defaultProtocol
		}
		fallthrough
	case auth.FromHeader, auth.FromCookie:
		if !gateway.IsToken(s.Name) {
			return s, "expected the name behind the dot: header.Authorization, cookie.jwt, subprotocol.access_token"
		}
	case auth.FromQuery:
		if name == "" || strings.ContainsAny(name, "&;=?#% ") {
			return s, "expected the parameter's name behind the dot, as it is without percent-encoding: query.token"
		}
	case auth.FromPath:
		n, err := strconv.Atoi(name)
		if err != nil || n < 1 || n > 16 {
			return s, "expected which segment below the route's path, from 1 to 16: path.1"
		}
		s.Name, s.Segment = "", n
	default:
		return s, "it names no place in a request; write query.NAME, header.NAME, cookie.NAME, subprotocol.NAME or path.NUMBER"
	}
	return s, ""
}

// checkNodeHeader gives what is wrong with a header that is set for the node, or "".
func checkNodeHeader(s string) string {
	switch {
	case !gateway.IsToken(s):
		return "it is no name of a header"
	case gateway.OwnHeader(s):
		return "the gateway itself writes this header"
	}
	return ""
}

// claimHeaders takes a mapping from headers to claims.
func (d *decoder) claimHeaders(v value) (list []auth.ClaimHeader, ok bool) {
	o, ok := d.object(v, "claims_to_headers")
	if !ok {
		return nil, false
	}
	for _, f := range o.fields {
		if problem := checkNodeHeader(f.key); problem != "" {
			d.errorf(f.at, "%s: %s", quote(f.key), problem)
		}
		c := auth.ClaimHeader{Header: f.key}
		read(o, f.key, &c.Claim, plain(d.text))
		list = append(list, c)
	}
	return list, true
}

// authRule reads by whom the requests of a route or node port are authorised.
func (d *decoder) authRule(o *object, rule *auth.Rule, as auths) {
	read(o, "auth", rule, func(v value) (auth.Rule, bool) { return d.rule(v, as) })
	if o.has("auth") && o.has(actRedirect) {
		d.errorf(o.keyAt("auth"), "auth means nothing to a route with redirect; the route that clients are sent to can have it")
	}
}

// rule takes a name, or {any: […]}, or {all: […]}.
func (d *decoder) rule(v value, as auths) (r auth.Rule, ok bool) {
	named := func(v value) (string, bool) {
		t, ok := d.text(v)
		if ok && !as.broken && !slices.ContainsFunc(as.known, func(n name) bool { return n.value == t.value }) {
			d.errorf(t.at, "there is no auth %s%s", t.shown, d.hint(t.value, "known", as.known))
			return "", false
		}
		return t.value, ok
	}
	if _, mapping := v.node.(*ast.MappingNode); !mapping {
		one, ok := named(v)
		r.Names = []string{one}
		return r, ok
	}
	o, _ := d.object(v, "auth")
	read(o, "any", &r.Names, filled(d, named))
	r.All = read(o, "all", &r.Names, filled(d, named))
	o.done()
	if o.has("any") == o.has("all") {
		d.errorf(o.at, "auth is a name, {any: [one, other]} or {all: [one, other]}")
		return r, false
	}
	return r, true
}
