package discovery

import (
	"fmt"
	"strconv"
	"strings"
)

// maxShare bounds the option weight: fabio's are parts of one, and larger ones
// are brought down to it.
const maxShare = 100

// A URLPrefix is what one tag of fabio's form asks for.
type URLPrefix struct {
	Host   string  // in lower case; "": every host
	Path   string  // begins with / and stands for everything below it
	Strip  string  // the beginning of Path that is removed; "": none is
	Weight float64 // the part of the requests that the instance gets, 0 to 100; 0: an equal part of what others leave
}

// ParseURLPrefix reads a tag of fabio's form behind a prefix such as "urlprefix-",
// "urlprefix-host/path strip=/path weight=0.2", as far as a route can say the same.
// A tag without the prefix is none of these: ok is false. With ok true, an error
// says what in the tag a route cannot say; nothing is ignored.
func ParseURLPrefix(prefix, tag string) (u URLPrefix, ok bool, err error) {
	rest, ok := strings.CutPrefix(strings.TrimSpace(tag), prefix)
	if !ok {
		return u, false, nil
	}
	fields := strings.Fields(rest)
	if len(fields) == 0 {
		return u, true, fmt.Errorf("it has no host and no path behind %s", shortened(prefix))
	}
	u.Host, u.Path, err = splitURLPrefix(fields[0])
	if err == nil {
		err = u.options(fields[1:])
	}
	if err != nil {
		return URLPrefix{}, true, err
	}
	return u, true, nil
}

func splitURLPrefix(s string) (host, path string, err error) {
	i := strings.IndexByte(s, '/')
	if i < 0 {
		if strings.HasPrefix(s, ":") {
			return "", "", fmt.Errorf("it asks for a TCP port; write a listener with service and port for it, or node_ports")
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

// options takes strip and weight; proto=http says nothing that is not so anyway.
func (u *URLPrefix) options(options []string) error {
	seen := map[string]bool{}
	for _, option := range options {
		key, value, _ := strings.Cut(option, "=")
		if seen[key] {
			return fmt.Errorf("the option %s stands twice", shortened(key))
		}
		seen[key] = true
		switch {
		case key == "proto" && value == "http":
		case key == "proto" && strings.HasPrefix(value, "tcp"):
			return fmt.Errorf("it asks for TCP (%s); write a listener with service and port for it, or node_ports", shortened(option))
		case key == "weight":
			w, err := strconv.ParseFloat(value, 64)
			if err != nil || !(w >= 0 && w <= maxShare) {
				return fmt.Errorf("weight is %s; expected a part of the requests such as 0.2", quoted(value))
			}
			u.Weight = w
		case key != "strip":
			return fmt.Errorf("the option %s is not supported, only strip and weight; write a route instead", quoted(option))
		case !strings.HasPrefix(value, "/") || !strings.HasPrefix(u.Path, value):
			return fmt.Errorf("%s does not begin its path %s, so there is nothing to remove", quoted(value), quoted(u.Path))
		default:
			u.Strip = value
		}
	}
	return nil
}

// rewrite is what stands upstream in place of Path; "": it goes on unchanged.
func (u URLPrefix) rewrite() string {
	if u.Strip == "" {
		return ""
	}
	return "/" + strings.TrimPrefix(u.Path[len(u.Strip):], "/")
}
