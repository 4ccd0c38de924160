package gateway

import (
	"errors"
	"net/netip"
	"strings"
)

// Errors of a request target, for the answer to the client.
var (
	errTargetBytes   = errors.New("the request target holds a byte that must be percent-encoded")
	errPercent       = errors.New("the path holds a broken percent-encoding")
	errControlByte   = errors.New("the path holds a control byte")
	errAboveRoot     = errors.New("the path leads above its root")
	errHiddenDots    = errors.New("the path hides a dot segment behind an encoding")
	errTargetForm    = errors.New("the request target is neither a path nor a URL")
	errHostMismatch  = errors.New("the request target names another host than the Host header")
	errHostMalformed = errors.New("the Host header is not a host name or address")
)

// splitTarget takes a request target (RFC 9112 section 3.2) apart: the host of
// an absolute-form ("" for origin-form), the raw path, and the query with its
// question mark, byte for byte.
func splitTarget(target string) (host, path, query string, err error) {
	for i := range len(target) {
		if c := target[i]; c <= ' ' || c == 0x7f || c == '#' {
			return "", "", "", errTargetBytes
		}
	}
	path, query = target, ""
	if i := strings.IndexByte(path, '?'); i >= 0 {
		path, query = path[:i], path[i:]
	}
	if strings.HasPrefix(path, "/") {
		return "", path, query, nil
	}
	scheme, rest, ok := strings.Cut(path, "://")
	if !ok || !isWebScheme(scheme) {
		return "", "", "", errTargetForm
	}
	host, path = rest, "/"
	if i := strings.IndexByte(rest, '/'); i >= 0 {
		host, path = rest[:i], rest[i:]
	}
	if host == "" || strings.Contains(host, "@") {
		return "", "", "", errTargetForm
	}
	return host, path, query, nil
}

func isWebScheme(s string) bool {
	switch strings.ToLower(s) {
	case "http", "https", "ws", "wss":
		return true
	}
	return false
}

// canonicalPath brings a raw path into the one form that is both matched and
// sent upstream, so that no other spelling of it can reach another route or
// node than the one it was matched with:
//
//   - percent-encoded unreserved characters are decoded, once; other encodings
//     keep theirs, in upper case; bytes that must be encoded are
//   - "//" is one "/"; "." and ".." segments are resolved, and refused when they
//     lead above the root
//   - dot segments that only a server behind us would see ("..;x", "..%2f",
//     "%5c..", "..\") are refused, as are control bytes and broken encodings
//
// The result begins with "/", and applying the function again changes nothing.
func canonicalPath(raw string) (string, error) {
	if isPlainPath(raw) {
		return raw, nil
	}
	decoded, err := normalizeEncoding(raw)
	if err != nil {
		return "", err
	}
	return resolveSegments(decoded)
}

// isPlainPath spots paths that are canonical as they are: nearly all.
func isPlainPath(p string) bool {
	for i := range len(p) {
		switch c := p[i]; {
		case c == '/':
			if i+1 < len(p) && (p[i+1] == '/' || p[i+1] == '.') {
				return false
			}
		case !isPathByte(c) || c == ';':
			return false
		}
	}
	return p != "" && p[0] == '/'
}

func normalizeEncoding(raw string) (string, error) {
	var b strings.Builder
	b.Grow(len(raw) + 8)
	for i := 0; i < len(raw); i++ {
		c := raw[i]
		if c != '%' {
			switch {
			case isControl(c):
				return "", errControlByte
			case isPathByte(c):
				b.WriteByte(c)
			default:
				writeEncoded(&b, c)
			}
			continue
		}
		if i+2 >= len(raw) || !isHex(raw[i+1]) || !isHex(raw[i+2]) {
			return "", errPercent
		}
		c = unhex(raw[i+1])<<4 | unhex(raw[i+2])
		i += 2
		switch {
		case isControl(c):
			return "", errControlByte
		case isUnreserved(c):
			b.WriteByte(c)
		default:
			writeEncoded(&b, c)
		}
	}
	return b.String(), nil
}

func resolveSegments(p string) (string, error) {
	var out []string
	segments := strings.Split(strings.TrimPrefix(p, "/"), "/")
	trailing := false
	for i, s := range segments {
		last := i == len(segments)-1
		switch s {
		case "", ".":
			trailing = last
		case "..":
			if len(out) == 0 {
				return "", errAboveRoot
			}
			out, trailing = out[:len(out)-1], last
		default:
			if hidesDots(s) {
				return "", errHiddenDots
			}
			out = append(out, s)
		}
	}
	joined := "/" + strings.Join(out, "/")
	if trailing && len(out) > 0 {
		joined += "/"
	}
	return joined, nil
}

// hidesDots tells whether a server that decodes slashes and backslashes, or
// cuts path parameters off, would see a dot segment within s.
func hidesDots(s string) bool {
	s = strings.NewReplacer("%2F", "/", "%5C", "/").Replace(s)
	for part := range strings.SplitSeq(s, "/") {
		part, _, _ = strings.Cut(part, ";")
		part, _, _ = strings.Cut(part, "%3B")
		if part == "." || part == ".." {
			return true
		}
	}
	return false
}

// isPathByte tells whether c may stand in a path as it is (pchar or "/",
// RFC 3986 section 3.3).
func isPathByte(c byte) bool {
	return isUnreserved(c) || strings.IndexByte("/!$&'()*+,;=:@", c) >= 0
}

func isUnreserved(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' ||
		c == '-' || c == '.' || c == '_' || c == '~'
}

func isControl(c byte) bool { return c < ' ' || c == 0x7f }

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

func unhex(c byte) byte {
	switch {
	case c <= '9':
		return c - '0'
	case c <= 'F':
		return c - 'A' + 10
	}
	return c - 'a' + 10
}

func writeEncoded(b *strings.Builder, c byte) {
	const digits = "0123456789ABCDEF"
	b.WriteByte('%')
	b.WriteByte(digits[c>>4])
	b.WriteByte(digits[c&15])
}

// canonicalHost brings the value of a Host header into the form that is
// matched: lower case, no port, no trailing dot, no brackets.
func canonicalHost(raw string) (string, error) {
	host := raw
	if strings.HasPrefix(host, "[") {
		end := strings.IndexByte(host, ']')
		if end < 0 || !isPortSuffix(host[end+1:]) {
			return "", errHostMalformed
		}
		if a, err := netip.ParseAddr(host[1:end]); err != nil || !a.Is6() || a.Zone() != "" {
			return "", errHostMalformed
		}
		return strings.ToLower(host[1:end]), nil
	}
	if i := strings.IndexByte(host, ':'); i >= 0 {
		if !isPortSuffix(host[i:]) {
			return "", errHostMalformed
		}
		host = host[:i]
	}
	for i := range len(host) {
		if c := host[i]; !isUnreserved(c) || c == '~' {
			return "", errHostMalformed
		}
	}
	host = strings.TrimSuffix(strings.ToLower(host), ".")
	if host == "" || strings.Contains("."+host+".", "..") {
		return "", errHostMalformed
	}
	return host, nil
}

func isPortSuffix(s string) bool {
	if s == "" {
		return true
	}
	if s[0] != ':' || len(s) > 6 {
		return false
	}
	for _, c := range s[1:] {
		if c < '0' || c > '9' {
			return false
		}
	}
	return true
}
