package discovery

import (
	"strings"
	"testing"
)

func TestParseURLPrefix(t *testing.T) {
	tests := []struct {
		tag, host, path, strip string
		none                   bool
		err                    string
	}{
		{tag: "urlprefix-/path", path: "/path"},
		{tag: "urlprefix-/path strip=/path", path: "/path", strip: "/path"},
		{tag: " urlprefix-IM.example.gov/ ", host: "im.example.gov", path: "/"},
		{tag: "urlprefix-im.example.gov/ws/node1  strip=/ws proto=http", host: "im.example.gov", path: "/ws/node1", strip: "/ws"},
		{tag: "blue", none: true},
		{tag: "", none: true},
		{tag: "URLPREFIX-/x", none: true},
		{tag: "urlprefix-", err: "has no host and no path"},
		{tag: "urlprefix- /x", err: "has no host and no path"},
		{tag: "urlprefix-:1883 proto=tcp", err: "it asks for a TCP port"},
		{tag: "urlprefix-im.example.gov", err: "write im.example.gov/ for the whole host"},
		{tag: "urlprefix-*.example.gov/", err: "hosts with * are not supported"},
		{tag: "urlprefix-im.example.gov:8080/", err: "its host has a port"},
		{tag: "urlprefix-im_..x/", err: "is not a host name"},
		{tag: "urlprefix-/a*", err: "is not a plain path"},
		{tag: "urlprefix-/{node}", err: "is not a plain path"},
		{tag: "urlprefix-/a//b", err: "is not a plain path"},
		{tag: "urlprefix-/x strip=/y", err: `"/y" does not begin its path "/x"`},
		{tag: "urlprefix-/x strip=x", err: `"x" does not begin its path`},
		{tag: "urlprefix-/x strip=", err: `"" does not begin its path`},
		{tag: "urlprefix-/x strip=/x strip=/x", err: "stands twice"},
		{tag: "urlprefix-/x proto=https", err: `the option "proto=https" is not supported`},
		{tag: "urlprefix-/x redirect=302,https://a", err: "is not supported"},
		{tag: "urlprefix-/x allow=ip:10.0.0.0/8", err: "is not supported"},
	}
	for _, tt := range tests {
		host, path, strip, ok, err := ParseURLPrefix(tt.tag)
		if ok == tt.none {
			t.Errorf("%q: ok is %v", tt.tag, ok)
		}
		if (err != nil) != (tt.err != "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%q: the error is %v, want %q", tt.tag, err, tt.err)
		}
		if host != tt.host || path != tt.path || strip != tt.strip {
			t.Errorf("%q: got %q, %q, %q", tt.tag, host, path, strip)
		}
	}
}

func FuzzParseURLPrefix(f *testing.F) {
	for _, tag := range []string{"urlprefix-/path strip=/path", "urlprefix-im.example.gov/ proto=http", "urlprefix-:80", "urlprefix- ", "blue"} {
		f.Add(tag)
	}
	f.Fuzz(func(t *testing.T, tag string) {
		host, path, strip, ok, err := ParseURLPrefix(tag)
		if !ok || err != nil {
			if host+path+strip != "" {
				t.Errorf("got %q, %q, %q with ok %v and %v", host, path, strip, ok, err)
			}
			if err != nil && strings.ContainsAny(err.Error(), "\n\x00") {
				t.Errorf("%q is no line", err)
			}
			return
		}
		if host != "" && !isHost(host) || path[0] != '/' || !strings.HasPrefix(path, strip) {
			t.Errorf("%q gives %q, %q, %q", tag, host, path, strip)
		}
		option := ""
		if strip != "" {
			option = " strip=" + strip
		}
		h, p, s, ok, err := ParseURLPrefix(urlPrefix + host + path + option)
		if h != host || p != path || s != strip || !ok || err != nil {
			t.Errorf("%q does not come back the same: %q, %q, %q, %v, %v", tag, h, p, s, ok, err)
		}
	})
}
