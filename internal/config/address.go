package config

import (
	"net"
	"net/netip"
	"strconv"
	"strings"
)

const (
	notAnAddress = `is not host:port; write it like "10.0.0.21:8888", ":443" or "[::1]:443"`
	notAHost     = "neither a host name nor an IP address"
)

// splitAddress takes host:port; the host may be empty, the port 0. It gives
// what is wrong, without the text.
func splitAddress(s string) (host string, port uint16, problem string) {
	host, digits, err := net.SplitHostPort(s)
	if err != nil {
		return "", 0, notAnAddress
	}
	if host != "" && !isHost(host) {
		return "", 0, "has " + notAHost + " before its port"
	}
	n, err := strconv.ParseUint(digits, 10, 16)
	if err != nil {
		return "", 0, "has no port between 1 and 65535 behind its last colon"
	}
	return host, uint16(n), ""
}

// isHost tells whether s is an IP address, without brackets, or a host name.
func isHost(s string) bool {
	if _, err := netip.ParseAddr(s); err == nil {
		return true
	}
	return checkHostName(strings.ToLower(s)) == ""
}

func unbracket(s string) string {
	if strings.HasPrefix(s, "[") && strings.HasSuffix(s, "]") {
		return s[1 : len(s)-1]
	}
	return s
}

// checkHostName gives what is wrong with a host name (RFC 1123, and
// underscores) in lower case, or "".
func checkHostName(s string) string {
	switch {
	case strings.Contains(s, "://"):
		return "a host has no scheme; leave https:// away"
	case strings.Contains(s, "/"):
		return "a host has no path; put that under path"
	case strings.Contains(s, ":"):
		return "a host name has no port and no colon; leave it away"
	case strings.Contains(s, "*"):
		return `* is not supported; "{node}" before the domain names a node`
	case strings.HasSuffix(s, "."):
		return "leave the final dot away"
	case len(s) > 253:
		return "longer than the 253 bytes of a host name"
	}
	var label string
	for label = range strings.SplitSeq(s, ".") {
		if problem := checkLabel(label); problem != "" {
			return problem
		}
	}
	if strings.Trim(label, "0123456789") == "" && net.ParseIP(s) == nil {
		return notAHost
	}
	return ""
}

func checkLabel(label string) string {
	switch {
	case label == "":
		return "a part between two dots is empty"
	case len(label) > 63:
		return "a part is longer than the 63 bytes of a host name's label"
	case label[0] == '-' || label[len(label)-1] == '-':
		return "no part begins or ends with -"
	}
	for _, r := range label {
		switch {
		case r >= 0x80:
			return "write the name in its ASCII form, which begins with xn--"
		case r != '-' && r != '_' && (r < '0' || r > '9') && (r < 'a' || r > 'z'):
			return "a host name has letters, digits, - and dots only"
		}
	}
	return ""
}

// overlap tells whether two listeners cannot both have their address. A name is
// taken to be one address of its own.
func overlap(a, b socket) bool {
	if a.port != b.port || a.port == 0 {
		return false
	}
	return a.host == b.host || a.covers(b) || b.covers(a)
}

// A socket is what an address binds.
type socket struct {
	host string // "" is every address, 0.0.0.0 every IPv4 one
	port uint16
}

func newSocket(host string, port uint16) socket {
	host = strings.ToLower(host)
	if host == "localhost" {
		host = "127.0.0.1"
	}
	if a, err := netip.ParseAddr(host); err == nil {
		host = a.Unmap().String()
	}
	if host == "::" {
		host = ""
	}
	return socket{host, port}
}

func (s socket) covers(other socket) bool {
	return s.host == "" || s.host == "0.0.0.0" && !strings.Contains(other.host, ":")
}
