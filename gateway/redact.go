package gateway

import (
	"net/url"
	"strings"
)

// A redactor takes secrets out of what is logged.
type redactor struct {
	query map[string]bool // lower-case parameter names
	paths [][]string      // patterns by segment
}

const redacted = "[redacted]"

func newRedactor(cfg Redact) *redactor {
	r := &redactor{query: map[string]bool{"token": true, "session_key": true, "access_token": true}}
	for _, name := range cfg.Query {
		r.query[strings.ToLower(name)] = true
	}
	for _, p := range cfg.Paths {
		r.paths = append(r.paths, strings.Split(strings.Trim(p, "/"), "/"))
	}
	return r
}

// target is path and query as they may be logged.
func (r *redactor) target(path, query string) string {
	return r.path(path) + r.queryString(query)
}

// path redacts the segments that a pattern has in braces. A pattern matches
// paths that begin with it.
func (r *redactor) path(path string) string {
	for _, pattern := range r.paths {
		segments := strings.Split(strings.TrimPrefix(path, "/"), "/")
		if matchesPattern(pattern, segments) {
			for i := range min(len(pattern), len(segments)) {
				if isSecret(pattern[i]) {
					segments[i] = redacted
				}
			}
			path = "/" + strings.Join(segments, "/")
		}
	}
	return path
}

// matchesPattern: a path that is shorter than the pattern matches as far as it
// goes, or its secret would show because something behind it is missing.
func matchesPattern(pattern, segments []string) bool {
	if len(segments) > len(pattern) {
		segments = segments[:len(pattern)]
	}
	for i, s := range segments {
		if p := pattern[i]; p != "*" && !isSecret(p) && p != s {
			return false
		}
	}
	return true
}

func isSecret(p string) bool { return strings.HasPrefix(p, "{") && strings.HasSuffix(p, "}") }

// queryString redacts the values of secret parameters, however their names are
// encoded and whichever separator is used.
func (r *redactor) queryString(query string) string {
	if query == "" {
		return ""
	}
	if c := strings.ToLower(query); strings.HasPrefix(c, "?<") || strings.HasPrefix(c, "?%3c") {
		return "?" + redacted // a message of BOSH: in it are its session's id, or a password
	}
	var b strings.Builder
	rest := query
	for rest != "" {
		end := strings.IndexAny(rest[1:], "&;")
		part, next := rest, ""
		if end >= 0 {
			part, next = rest[:end+1], rest[end+1:]
		}
		b.WriteByte(part[0])
		b.WriteString(r.parameter(part[1:]))
		rest = next
	}
	return b.String()
}

func (r *redactor) parameter(p string) string {
	name, _, hasValue := strings.Cut(p, "=")
	plain, err := url.QueryUnescape(name)
	if err != nil {
		plain = name
	}
	if hasValue && r.query[strings.ToLower(plain)] {
		return name + "=" + redacted
	}
	return p
}
