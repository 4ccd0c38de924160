// Package auth tells whether a request may pass: by a token in it that is
// checked here (JWT), or by what an endpoint answers about it (a subrequest).
//
// It knows tokens, keys and subrequests, and nothing of how requests come in or
// where they go. It imports nothing else of this module. Where anything is
// unclear it lets nobody pass: two tokens, a key that is not known, an endpoint
// that is silent. Neither a token nor what a key file holds is ever part of an
// error or a log line.
//
// A Set is the owner of what goes on between requests: fetching keys and asking
// endpoints. Authorities are what a config says, made ready; they are what
// requests are checked by.
package auth

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"time"
)

// A Config is one named way of telling who may pass. Just one of JWT and Forward
// is set.
type Config struct {
	At      string // where it is written; begins every error about it
	Name    string
	JWT     *JWT
	Forward *Forward
}

// JWT is a token that the gateway checks itself.
type JWT struct {
	Algorithms []string // of Algorithms, and no others are accepted; HS* never beside others
	KeyFile    string   // the HMAC secret, PEM public keys or a JWK set; read when the config is made ready
	JWKSURL    string   // or where the keys are fetched from
	CAFile     string   // whom to believe at an https JWKSURL; "": the system's
	From       []Source // where the token is looked for
	Issuer     string   // "": any
	Audience   []string // one of them; none: any
	Leeway     time.Duration
	Require    []string // claims that must be there

	ClaimsToHeaders []ClaimHeader
	CloseOnExpiry   bool // the tunnel ends when the token does
}

// A ClaimHeader passes a claim on to the node: text, a number or a boolean.
type ClaimHeader struct{ Header, Claim string }

// Forward asks an endpoint.
type Forward struct {
	URL         string
	CAFile      string        // whom to believe at an https URL; "": the system's
	Credentials []Source      // what the answer depends on; none: every request is asked about
	PassHeaders []string      // of a 2xx answer, for the node
	Timeout     time.Duration // for the whole answer
	Cache       time.Duration // how long a 2xx answer counts for the same credentials; 0: for requests at the same moment only
}

// A Rule is what a route asks for. Without names it asks for nothing.
type Rule struct {
	All   bool // every name must let the request pass, else one is enough
	Names []string
}

// A Request is what there is to know of one.
type Request struct {
	Method string
	URI    string // path and query, as the node would get them before any rewrite
	Query  string // with its "?", byte for byte
	Rest   string // the path below the route's prefix: "" or "/…"

	// Values gives the values of all headers of that name, in any case and with
	// "_" for "-", which many servers cannot tell apart.
	Values func(name string) []string

	// Header is that of a subrequest: the client's, and what the gateway says of it.
	Header func() Header
}

// A Header is names and values in order.
type Header []Field

// A Field is one line of a Header.
type Field struct{ Name, Value string }

// Result is what became of a check, for metrics.
type Result string

// The results.
const (
	Passed      Result = "passed"
	Missing     Result = "missing"     // there is no token
	Invalid     Result = "invalid"     // there is one, which is not good
	Expired     Result = "expired"     // it was good once
	Refused     Result = "refused"     // the endpoint said so
	Unavailable Result = "unavailable" // nobody can tell at present
)

// A Decision is the outcome of a check.
type Decision struct {
	Result  Result
	By      string    // the name of who decided; the last one where all had to
	Cause   error     // why it did not pass, for the log; it holds nothing of a token
	Fields  []Field   // for the node
	Subject string    // who passed, as the token says: its claim sub, else username or user_id; "": it does not, or there is none
	Expires time.Time // when the tunnel is to end; zero: never
	Answer  *Answer   // the endpoint's, for the client; only with Refused

	anonymous bool // the endpoint was asked about a request without credentials
}

// rank orders decisions for a choice of authorities none of which lets the
// request pass: what tells the client most counts, doubt before all. Of a
// request with one kind of credential, what is said of that kind counts.
func (d *Decision) rank() int {
	rank := slices.Index([]Result{Missing, Expired, Invalid, Refused, Unavailable}, d.Result)
	if d.anonymous {
		return rank
	}
	return 10 * rank
}

// An Answer is an endpoint's that refused.
type Answer struct {
	Status int // 401, 403, or a redirect
	Fields []Field
	Body   []byte // nil: it had none, or too much
}

// An authority checks requests by one Config.
type authority interface {
	check(ctx context.Context, r *Request) Decision
	headers() []string // that it may set for the node
	sources() []Source
	waits() bool // a check may have to wait for somebody
}

// Authorities are those of a config, made ready. Immutable, and safe for
// concurrent use; nil has none.
type Authorities struct {
	count  func(name string, r Result)
	byName map[string]authority
	keep   sources
}

var errUnknown = errors.New("the config is just being replaced")

// Check asks the authorities of a rule. It ends with ctx, then as Unavailable.
func (a *Authorities) Check(ctx context.Context, rule Rule, r *Request) Decision {
	all, worst := Decision{Result: Passed}, Decision{Result: ""}
	for _, name := range rule.Names {
		d := a.one(ctx, name, r)
		switch {
		case d.Result != Passed && rule.All:
			return d
		case d.Result != Passed:
			if worst.Result == "" || d.rank() > worst.rank() {
				worst = d
			}
		case !rule.All:
			return d
		default:
			all.add(d)
		}
	}
	if rule.All || len(rule.Names) == 0 {
		return all
	}
	return worst
}

func (a *Authorities) one(ctx context.Context, name string, r *Request) Decision {
	d := Decision{Result: Unavailable, Cause: errUnknown}
	if by := a.get(name); by != nil {
		d = by.check(ctx, r)
		if ctx.Err() == nil { // who has left is no fault of whoever decides
			a.count(name, d.Result)
		}
	}
	d.By = name
	return d
}

func (a *Authorities) get(name string) authority {
	if a == nil {
		return nil
	}
	return a.byName[name]
}

// add joins what another authority says of a request that passed.
func (d *Decision) add(other Decision) {
	d.By = other.By
	d.Fields = append(d.Fields, other.Fields...)
	d.Subject = cmp.Or(d.Subject, other.Subject)
	if !other.Expires.IsZero() && (d.Expires.IsZero() || other.Expires.Before(d.Expires)) {
		d.Expires = other.Expires
	}
}

// Waits tells whether a check by the rule may have to wait for somebody else.
func (a *Authorities) Waits(rule Rule) bool {
	return slices.ContainsFunc(rule.Names, func(name string) bool {
		by := a.get(name)
		return by != nil && by.waits()
	})
}

// Headers are the names of headers that the rule's authorities may set for the
// node, in lower case and with "-" for "_": a client's own must not reach it.
func (a *Authorities) Headers(rule Rule) []string {
	var names []string
	for _, name := range rule.Names {
		if by := a.get(name); by != nil {
			for _, h := range by.headers() {
				names = append(names, strings.ReplaceAll(strings.ToLower(h), "_", "-"))
			}
		}
	}
	return names
}

// Segments are those of the path below the route's prefix, counted from 1, that
// are credentials for the rule's authorities.
func (a *Authorities) Segments(rule Rule) (segments []int) {
	for _, name := range rule.Names {
		if by := a.get(name); by != nil {
			for _, s := range by.sources() {
				if s.Kind == FromPath {
					segments = append(segments, s.Segment)
				}
			}
		}
	}
	return segments
}

// Protocol is the subprotocol behind which clients send their token; "": they
// send it elsewhere.
func (a *Authorities) Protocol(rule Rule) string {
	for _, name := range rule.Names {
		if by := a.get(name); by != nil {
			for _, s := range by.sources() {
				if s.Kind == FromSubprotocol {
					return s.Name
				}
			}
		}
	}
	return ""
}

// plain is a header's value without what could split what we write.
func plain(s string) string {
	return strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f {
			return -1
		}
		return c
	}, s)
}

// Sources are the places where the config says that credentials are.
func (c *Config) Sources() []Source {
	if c.JWT != nil {
		return c.JWT.From
	}
	return c.Forward.Credentials
}
