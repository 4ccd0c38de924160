package discovery

import (
	"fmt"
	"strings"
)

// urlPrefix begins the tags by which services tell fabio their routes.
const urlPrefix = "urlprefix-"

// ParseURLPrefix reads a tag of fabio's form, "urlprefix-host/path strip=/path",
// as far as a route can say the same: a host name, which may be missing, a path
// that begins with / and stands for everything below it, and the option strip
// with the beginning of the path that is removed. The host is in lower case. A
// tag without that beginning is none of these: ok is false. With ok true, an error says
// what in the tag a route cannot say; nothing is ignored.
func ParseURLPrefix(tag string) (host, path, strip string, ok bool, err error) {
	rest, ok := strings.CutPrefix(strings.TrimSpace(tag), urlPrefix)
	if !ok {
		return "", "", "", false, nil
	}
	fields := strings.Fields(rest)
	if len(fields) == 0 || rest[0] == ' ' {
		return "", "", "", true, fmt.Errorf("the tag %s has no host and no path behind %s", quoted(tag), urlPrefix)
	}
	host, path, err = splitURLPrefix(fields[0])
	if err == nil {
		strip, err = urlPrefixOptions(fields[1:], path)
	}
	if err != nil {
		return "", "", "", true, fmt.Errorf("the tag %s: %w", quoted(tag), err)
	}
	return host, path, strip, true, nil
}

func splitURLPrefix(s string) (host, path string, err error) {
	i := strings.IndexByte(s, '/')
	if i < 0 {
		if strings.HasPrefix(s, ":") {
			return "", "", fmt.Errorf("it asks for a TCP port; write a listener with service and port for it")
		}
		return "", "", fmt.Errorf("it has no path; write %s/ for the whole host", shortened(s))
	}
	host, path = strings.ToLower(s[:i]), s[i:]
	switch {
	case strings.ContainsAny(host, "*?"):
		return "", "", fmt.Errorf("hosts with * are not supported; write each one out")
	case strings.Contains(host, ":"):
		return "", "", fmt.Errorf("its host has a port; leave it away and name the listener in a route")
	case host != "" && !isHost(host):
		return "", "", fmt.Errorf("%s is not a host name", quoted(host))
	case strings.ContainsAny(path, "*?#{}") || strings.Contains(path, "//") || strings.ContainsFunc(path, func(r rune) bool { return r <= ' ' || r == 0x7f }):
		return "", "", fmt.Errorf("%s is not a plain path", quoted(path))
	}
	return host, path, nil
}

// urlPrefixOptions takes strip; proto=http says nothing that is not so anyway.
func urlPrefixOptions(options []string, path string) (strip string, err error) {
	for _, option := range options {
		key, value, _ := strings.Cut(option, "=")
		switch {
		case key == "proto" && value == "http":
		case key != "strip":
			return "", fmt.Errorf("the option %s is not supported, only strip; write a route instead", quoted(option))
		case strip != "":
			return "", fmt.Errorf("the option strip stands twice")
		case !strings.HasPrefix(value, "/") || !strings.HasPrefix(path, value):
			return "", fmt.Errorf("%s does not begin its path %s, so there is nothing to remove", quoted(value), quoted(path))
		default:
			strip = value
		}
	}
	return strip, nil
}
