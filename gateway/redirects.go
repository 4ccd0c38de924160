package gateway

import (
	"net"
	"strings"
)

// A redirectMap gives the addresses in a node's answer back what the route's
// rewrite removed from the request: the prefix, and of whole URLs also the scheme
// and host that the client knows.
type redirectMap struct {
	public string   // the prefix as the client wrote it, without a slash at its end: "/app"; "": none
	node   string   // what stood upstream in its place, likewise
	origin string   // "https://im.example.gov:8443", of the request; "": it named no host
	host   string   // of origin, without its port
	port   string   // of origin; "": it has none
	others []string // further names and addresses, with their ports, of the node's side
	local  string   // the node's port
}

// redirectMap is that of the request and the node that answers it.
func (r *request) redirectMap() *redirectMap {
	route := r.match.route
	m := &redirectMap{
		public: strings.TrimSuffix(strings.TrimSuffix(r.path, r.match.rest), "/"),
		node:   strings.TrimSuffix(route.Rewrite, "/"),
	}
	proto, host := r.publicOrigin()
	if host != "" {
		m.origin = proto + "://" + host
	}
	m.host, m.port = splitAuthority(host)
	if r.rawHost != host {
		m.others = append(m.others, r.rawHost) // a proxy's name for the gateway
	}
	if host, ok := route.RequestHeaders.value("Host"); ok {
		m.others = append(m.others, host)
	}
	if lease := r.exchange.lease; lease != nil {
		if addr, ok := lease.Node.Addr(route.Port); ok {
			m.others = append(m.others, addr)
			_, m.local = splitAuthority(addr)
		}
	}
	return m
}

// publicOrigin is how the client named the gateway: with its own scheme and host
// where a trusted proxy stands between and says what they were.
func (r *request) publicOrigin() (proto, host string) {
	proto, host = "http", r.rawHost
	if r.conn.secure {
		proto = "https"
	}
	if !r.trusted {
		return proto, host
	}
	if said := r.firstSaid("X-Forwarded-Proto"); said == "http" || said == "https" {
		proto = said
	}
	said := r.firstSaid("X-Forwarded-Host")
	if _, err := canonicalHost(said); err == nil && said != "" {
		host = said
	}
	return proto, host
}

// firstSaid is the first element of a list, which the proxy next to the client wrote.
func (r *request) firstSaid(name string) string {
	first, _, _ := strings.Cut(firstOr(r.headers(name), ""), ",")
	return strings.TrimSpace(first)
}

// apply maps what a node's answer says of addresses.
func (m *redirectMap) apply(fields []field) []field {
	for i, f := range fields {
		switch strings.ToLower(f.name) {
		case "location", "content-location":
			fields[i].value = m.address(f.value)
		case "refresh":
			fields[i].value = m.refresh(f.value)
		case "set-cookie":
			fields[i].value = m.cookie(f.value)
		}
	}
	return fields
}

// address maps a URL or path. What is relative, another host's, or not below the
// rewrite stays as it is.
func (m *redirectMap) address(s string) string {
	scheme, authority, rest := splitAddress(s)
	if authority == "" {
		if scheme != "" {
			return s
		}
		mapped, _ := m.target(rest)
		return mapped
	}
	if !m.ours(scheme, authority) {
		return s
	}
	if rest == "" || rest[0] != '/' {
		rest = "/" + rest
	}
	mapped, ok := m.target(rest)
	if !ok {
		return s
	}
	return m.origin + mapped
}

// splitAddress takes a URL apart as browsers do, to whom a backslash is a slash:
// scheme and authority are "" where there are none.
func splitAddress(s string) (scheme, authority, rest string) {
	if i := strings.Index(s, "://"); i > 0 && isWebScheme(s[:i]) {
		scheme, rest = strings.ToLower(s[:i]), s[i+3:]
	} else if strings.HasPrefix(s, "//") {
		rest = s[2:]
	} else if i := strings.IndexAny(s, ":/?#"); i > 0 && s[i] == ':' {
		return s[:i], "", s[i+1:] // "mailto:…"
	} else {
		return "", "", s
	}
	end := strings.IndexAny(rest, `/\?#`)
	if end < 0 {
		end = len(rest)
	}
	if authority = rest[:end]; authority == "" {
		authority = "@" // nobody's
	}
	return scheme, authority, rest[end:]
}

// ours tells whether an authority is that of the request or of the node. Nodes
// that know the client's host often put their own port, or none, behind it.
func (m *redirectMap) ours(scheme, authority string) bool {
	host, port := splitAuthority(authority)
	standard := port == "" || port == standardPort(scheme)
	if m.host != "" && strings.EqualFold(host, m.host) && (standard || port == m.port || port == m.local) {
		return true
	}
	for _, other := range m.others {
		otherHost, otherPort := splitAuthority(other)
		if strings.EqualFold(host, otherHost) && (port == otherPort || standard && (otherPort == "" || otherPort == standardPort(scheme))) {
			return true
		}
	}
	return false
}

func standardPort(scheme string) string {
	switch scheme {
	case "https", "wss":
		return "443"
	}
	return "80"
}

// splitAuthority cuts the port off a host, if there is one, and brackets.
func splitAuthority(s string) (host, port string) {
	if host, port, err := net.SplitHostPort(s); err == nil {
		return host, port
	}
	return strings.Trim(s, "[]"), ""
}

// target maps a path with its query and fragment, if the path is absolute and
// below the rewrite.
func (m *redirectMap) target(s string) (string, bool) {
	end := strings.IndexAny(s, "?#")
	if end < 0 {
		end = len(s)
	}
	mapped, ok := m.path(s[:end])
	if !ok {
		return s, false
	}
	return mapped + s[end:], true
}

// path maps an absolute path. It is compared in canonical form, in which also no
// result can begin with two slashes, which would lead to another host.
func (m *redirectMap) path(s string) (string, bool) {
	if !strings.HasPrefix(s, "/") {
		return s, false
	}
	canonical, err := canonicalPath(s)
	if err != nil {
		return s, false
	}
	rest, ok := cutPrefix(canonical, m.node)
	if !ok {
		return s, false
	}
	if mapped := m.public + rest; mapped != "" {
		return mapped, true
	}
	return "/", true
}

// refresh maps the URL of "5; url=/path".
func (m *redirectMap) refresh(s string) string {
	i := strings.Index(strings.ToLower(s), "url=")
	if i < 0 {
		return s
	}
	head, address := s[:i+len("url=")], s[i+len("url="):]
	for _, quote := range []string{`"`, `'`} {
		if inner, ok := strings.CutPrefix(address, quote); ok {
			inner, after, _ := strings.Cut(inner, quote)
			return head + quote + m.address(inner) + quote + after
		}
	}
	return head + m.address(address)
}

// cookie maps the path of a cookie and drops a domain that only the node's side
// knows. The rest of it stays byte for byte.
func (m *redirectMap) cookie(s string) string {
	parts := strings.Split(s, ";")
	kept := parts[:1]
	for _, part := range parts[1:] {
		name, value, _ := strings.Cut(part, "=")
		switch strings.ToLower(strings.TrimSpace(name)) {
		case "path":
			if !strings.HasPrefix(strings.TrimSpace(parts[0]), "__Host-") { // which must have Path=/
				part = name + "=" + m.cookiePath(strings.TrimSpace(value))
			}
		case "domain":
			if m.internal(strings.TrimPrefix(strings.TrimSpace(value), ".")) {
				continue
			}
		}
		kept = append(kept, part)
	}
	return strings.Join(kept, ";")
}

// cookiePath maps the path of a cookie: one that holds for all that the route
// serves holds for all of the public prefix.
func (m *redirectMap) cookiePath(s string) string {
	if _, within := cutPrefix(m.node, strings.TrimSuffix(s, "/")); within && strings.HasPrefix(s, "/") {
		if m.public == "" {
			return "/"
		}
		return m.public
	}
	mapped, _ := m.path(s)
	return mapped
}

// internal tells whether a domain is that of the node's side.
func (m *redirectMap) internal(domain string) bool {
	if strings.EqualFold(domain, m.host) {
		return false
	}
	for _, other := range m.others {
		if host, _ := splitAuthority(other); strings.EqualFold(domain, host) {
			return true
		}
	}
	return false
}
