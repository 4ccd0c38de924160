package auth

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
)

// Kind is where in a request a credential is.
type Kind string

// The kinds.
const (
	FromQuery       Kind = "query"
	FromHeader      Kind = "header"
	FromCookie      Kind = "cookie"
	FromSubprotocol Kind = "subprotocol" // the entry behind that name in Sec-WebSocket-Protocol
	FromPath        Kind = "path"        // a segment below the route's prefix, counted from 1
)

// A Source is a place in a request where a credential is looked for.
type Source struct {
	Kind    Kind
	Name    string // of the parameter, header, cookie or subprotocol
	Segment int    // of FromPath
}

// String is the source as the config has it.
func (s Source) String() string {
	if s.Kind == FromPath {
		return fmt.Sprintf("path.%d", s.Segment)
	}
	return string(s.Kind) + "." + s.Name
}

// maxToken bounds a credential.
const maxToken = 8 << 10

var (
	errTwice     = errors.New("the token stands twice in one place, and a node might take the other one")
	errTwo       = errors.New("there are different tokens in two places, and a node might take the other one")
	errLong      = fmt.Errorf("the token is longer than %d bytes", maxToken)
	errEncoding  = errors.New("the token's percent-encoding is broken")
	errEmptyPair = errors.New("no token follows its name among the subprotocols")
)

// find gives what a request has in that place, each as often as it stands there.
func (s Source) find(r *Request) ([]string, error) {
	switch s.Kind {
	case FromQuery:
		return inQuery(r.Query, s.Name)
	case FromHeader:
		return inHeader(r.Values(s.Name), strings.EqualFold(s.Name, "Authorization")), nil
	case FromCookie:
		return inCookies(r.Values("Cookie"), s.Name), nil
	case FromSubprotocol:
		return inSubprotocols(r.Values("Sec-WebSocket-Protocol"), s.Name)
	}
	return inPath(r.Rest, s.Segment), nil
}

// inQuery finds a parameter however its name is encoded, and behind either
// separator: servers differ in whether ";" is one.
func inQuery(query, name string) (values []string, err error) {
	query = strings.TrimPrefix(query, "?")
	for part := range strings.FieldsFuncSeq(query, func(c rune) bool { return c == '&' || c == ';' }) {
		key, value, _ := strings.Cut(part, "=")
		if k, err := url.QueryUnescape(key); err != nil || k != name {
			continue
		}
		v, err := url.QueryUnescape(value)
		if err != nil {
			return nil, errEncoding
		}
		values = append(values, v)
	}
	return values, nil
}

// inHeader takes the token behind a scheme: Bearer, or JWT, as Django's REST
// framework has it, in any case. Authorization without one of them is not about
// a token.
func inHeader(lines []string, schemeNeeded bool) (values []string) {
	for _, line := range lines {
		line = strings.TrimSpace(line)
		scheme, rest, ok := strings.Cut(line, " ")
		switch {
		case ok && (strings.EqualFold(scheme, "Bearer") || strings.EqualFold(scheme, "JWT")):
			values = append(values, strings.TrimSpace(rest))
		case !schemeNeeded && line != "":
			values = append(values, line)
		}
	}
	return values
}

// inCookies finds a cookie (RFC 6265 section 4.2.1), with quotes taken off.
func inCookies(lines []string, name string) (values []string) {
	for _, line := range lines {
		for pair := range strings.SplitSeq(line, ";") {
			key, value, ok := strings.Cut(strings.TrimSpace(pair), "=")
			if ok && strings.TrimSpace(key) == name {
				values = append(values, unquoted(strings.TrimSpace(value)))
			}
		}
	}
	return values
}

func unquoted(s string) string {
	if len(s) >= 2 && s[0] == '"' && s[len(s)-1] == '"' {
		return s[1 : len(s)-1]
	}
	return s
}

// inSubprotocols finds the entry behind the one of that name.
func inSubprotocols(lines []string, name string) (values []string, err error) {
	offers := protocols(lines)
	for i := 0; i < len(offers); i++ {
		if offers[i] != name {
			continue
		}
		i++
		if i == len(offers) {
			return values, errEmptyPair
		}
		values = append(values, offers[i])
	}
	return values, nil
}

func protocols(lines []string) (offers []string) {
	for _, line := range lines {
		for offer := range strings.SplitSeq(line, ",") {
			if offer = strings.TrimSpace(offer); offer != "" {
				offers = append(offers, offer)
			}
		}
	}
	return offers
}

// WithoutToken are the subprotocols that a client offers, without the name and
// the token behind it, and whether they were there.
func WithoutToken(lines []string, name string) (offers []string, found bool) {
	all := protocols(lines)
	for i := 0; i < len(all); i++ {
		if all[i] == name {
			found = true
			i++ // the token
			continue
		}
		offers = append(offers, all[i])
	}
	return offers, found
}

// inPath finds a segment, which a node decodes.
func inPath(rest string, segment int) []string {
	for s := range strings.SplitSeq(strings.TrimPrefix(rest, "/"), "/") {
		if segment--; segment == 0 && s != "" {
			return []string{s}
		}
	}
	return nil
}

// token looks for the one token of a request; "": there is none.
func token(r *Request, from []Source) (string, error) {
	found := ""
	for _, s := range from {
		values, err := s.find(r)
		switch {
		case err != nil:
			return "", err
		case len(values) > 1:
			return "", errTwice
		case len(values) == 0 || values[0] == "":
		case len(values[0]) > maxToken:
			return "", errLong
		case found != "" && found != values[0]:
			return "", errTwo
		default:
			found = values[0]
		}
	}
	return found, nil
}
