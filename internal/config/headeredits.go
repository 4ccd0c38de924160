package config

import (
	"strings"

	"github.com/goccy/go-yaml/ast"

	"singlegate/gateway"
)

// requestHeaders and responseHeaders decode {set: {Name: value}, remove: [Name]}.
func (d *decoder) requestHeaders(v value) (gateway.HeaderEdits, bool) {
	return d.headerEdits(v, "request_headers", func(name string, set bool) string {
		if strings.EqualFold(name, "Host") && !set {
			return "every request has one; set it to another"
		}
		return gateway.RequestHeaderOwner(name)
	})
}

func (d *decoder) responseHeaders(v value) (gateway.HeaderEdits, bool) {
	return d.headerEdits(v, "response_headers", func(name string, set bool) string {
		if set && strings.HasPrefix(strings.ToLower(name), "access-control-") {
			return "cors says it of every answer and answers preflights; write cors: {origins: …}"
		}
		if set && strings.EqualFold(name, "Set-Cookie") {
			return "it would take the place of the node's cookies"
		}
		return gateway.ResponseHeaderOwner(name)
	})
}

// headerEdits decodes changes to headers; refuse gives why one cannot be made, or "".
func (d *decoder) headerEdits(v value, what string, refuse func(name string, set bool) string) (e gateway.HeaderEdits, ok bool) {
	o, ok := d.object(v, what)
	if !ok {
		return e, false
	}
	read(o, "set", &e.Set, func(v value) ([]gateway.Header, bool) {
		return d.setHeaders(v, func(name string) string { return refuse(name, true) })
	})
	read(o, "remove", &e.Remove, d.words(func(name string) string {
		if problem := checkHeaderName(name); problem != "" {
			return problem
		}
		if why := refuse(name, false); why != "" {
			return "it cannot be removed: " + why
		}
		for _, h := range e.Set {
			if strings.EqualFold(h.Name, name) {
				return "set takes the place of all headers of that name already; leave it away here"
			}
		}
		return ""
	}))
	o.done()
	if len(o.fields) == 0 {
		d.fail(v, "it changes nothing; write set: {Name: value}, remove: [Name] or both")
	}
	return e, true
}

func (d *decoder) setHeaders(v value, refuse func(name string) string) ([]gateway.Header, bool) {
	o, ok := d.object(v, "set")
	if !ok {
		return nil, false
	}
	if len(o.fields) == 0 {
		d.fail(v, "it sets nothing; write {Name: value}")
	}
	var list []gateway.Header
	first := map[string]pos{}
	for _, f := range o.fields {
		lower := strings.ToLower(f.key)
		at, twice := first[lower]
		first[lower] = f.at
		switch problem := checkHeaderName(f.key); {
		case problem != "":
			d.errorf(f.at, "%s: %s", quote(f.key), problem)
		case twice:
			d.errorf(f.at, "%s: names of headers differ by case alone; the first is at %s", quote(f.key), d.place(at))
		case refuse(f.key) != "":
			d.errorf(f.at, "%s: it cannot be set: %s", quote(f.key), refuse(f.key))
		}
		h := gateway.Header{Name: f.key}
		if read(o, f.key, &h.Value, d.headerValue(lower)) {
			list = append(list, h)
		}
	}
	return list, true
}

// headerValue takes the value of a header; it may be a secret.
func (d *decoder) headerValue(name string) func(value) (string, bool) {
	return func(v value) (string, bool) {
		if b, ok := v.node.(*ast.BoolNode); ok { // X-Internal: true
			return b.GetToken().Value, true
		}
		if raw, ok := scalar(v.node); ok && isVariable(raw) {
			d.fail(v, "%s: there are no variables of a request; the gateway tells nodes about clients by X-Real-IP, X-Forwarded-For, -Proto and -Host, and ${NAME} is an environment variable", quote(raw))
			return "", false
		}
		return plain(d.checked(func(s string) string { return checkHeaderValue(name, s) }))(v)
	}
}

// isVariable spots nginx's $host and the like.
func isVariable(s string) bool {
	return len(s) > 1 && s[0] == '$' && 'a' <= s[1] && s[1] <= 'z'
}

func checkHeaderValue(name, s string) string {
	switch {
	case strings.TrimSpace(s) != s:
		return "a header's value has no space at its ends"
	case strings.ContainsFunc(s, func(r rune) bool { return r >= 0x7f }):
		return "a header's value has letters, digits and signs of ASCII alone"
	case name == "host":
		return checkHostValue(s)
	}
	return ""
}

// checkHostValue gives what is wrong with a Host, with or without a port, or "".
func checkHostValue(s string) string {
	host, port, problem := splitAddress(s)
	withPort := problem == "" && host != "" && port > 0
	if withPort || isHost(unbracket(s)) && (s[0] == '[' || !strings.Contains(s, ":")) {
		return ""
	}
	return "it is not a host name or address, with or without :port"
}
