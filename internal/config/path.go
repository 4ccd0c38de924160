package config

import "strings"

const nodeVariable = "{node}"

// checkPath gives what is wrong with the path of a route, or "".
func checkPath(s string) string {
	if problem := checkSegments(s); problem != "" {
		return problem
	}
	for segment := range strings.SplitSeq(s, "/") {
		switch {
		case segment == nodeVariable:
		case strings.Contains(segment, nodeVariable):
			return "{node} is a whole segment between slashes, or not there"
		case strings.ContainsAny(segment, "{}"):
			return "only {node} may stand in braces"
		case segment == "*" || segment == "**":
			return "a path matches all below it; leave the * away"
		}
	}
	if strings.Count(s, nodeVariable) > 1 {
		return "{node} stands in it more than once"
	}
	return ""
}

// checkRewrite gives what is wrong with a rewrite, or "". It goes upstream as it
// is, so it has only characters that need no escape (RFC 3986 section 3.3).
func checkRewrite(s string) string {
	if strings.ContainsAny(s, "{}") {
		return "what stands upstream is fixed; braces cannot be in it"
	}
	for _, r := range s {
		if r <= ' ' || r >= 0x7f || strings.ContainsRune("\"<>[]^`|", r) {
			return "it goes upstream as it is and takes letters, digits and -._~!$&'()*+,;=:@/ only"
		}
	}
	return checkSegments(s)
}

// checkSegments gives what is wrong with the form of a path, or "".
func checkSegments(s string) string {
	switch {
	case !strings.HasPrefix(s, "/"):
		return "a path begins with /"
	case strings.ContainsAny(s, `?#%\`):
		return `it is compared with a decoded path, without its query; leave ?, #, % and \ out`
	case strings.Contains(s, "//"):
		return "// is one slash to clients and servers alike; write one"
	}
	for segment := range strings.SplitSeq(s, "/") {
		name, _, _ := strings.Cut(segment, ";")
		if name == "." || name == ".." {
			return `"." and ".." cannot be segments; write the path that is meant`
		}
	}
	return ""
}

// checkPattern gives what is wrong with a pattern of redacted paths, or "".
func checkPattern(s string) string {
	if problem := checkSegments(s); problem != "" {
		return problem
	}
	secrets := 0
	for segment := range strings.SplitSeq(s, "/") {
		name, braced := inBraces(segment)
		switch {
		case braced && name != "":
			secrets++
		case strings.ContainsAny(segment, "{}"):
			return "braces go around a whole segment and hold a name: /ws/{session}"
		case segment != "*" && strings.Contains(segment, "*"):
			return "* stands for a whole segment"
		}
	}
	if secrets == 0 {
		return "it redacts nothing; put braces around what is secret: /ws/{session}"
	}
	return ""
}

func inBraces(s string) (inner string, ok bool) {
	if len(s) < 2 || s[0] != '{' || s[len(s)-1] != '}' {
		return "", false
	}
	inner = s[1 : len(s)-1]
	return inner, !strings.ContainsAny(inner, "{}")
}

// checkRouteHost gives what is wrong with the host of a route in lower case, or "".
func checkRouteHost(s string) string {
	name, pinned := strings.CutPrefix(s, nodeVariable)
	switch {
	case pinned && !strings.HasPrefix(name, "."):
		return "{node} is the whole first part of a host: {node}.im.example.gov"
	case strings.ContainsAny(name, "{}"):
		return "only {node} may stand in braces, once, as the first part: {node}.im.example.gov"
	case !pinned && isHost(unbracket(s)) && strings.Contains(s, ":"):
		return "a route's host is not an IPv6 address; leave host away to take every host"
	}
	return checkHostName(strings.TrimPrefix(name, "."))
}
