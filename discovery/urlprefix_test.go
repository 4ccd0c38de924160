package discovery

import (
	"strconv"
	"strings"
	"testing"
)

func TestParseURLPrefix(t *testing.T) {
	tests := []struct {
		tag, host, path, strip string
		weight                 float64
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
		{tag: "urlprefix- /x", path: "/x"},
		{tag: "urlprefix-/x weight=0.25 strip=/x", path: "/x", strip: "/x", weight: 0.25},
		{tag: "urlprefix-/x weight=0", path: "/x"},
		{tag: "urlprefix-/x weight=-1", err: `weight is "-1"; expected a part`},
		{tag: "urlprefix-/x weight=NaN", err: `weight is "NaN"`},
		{tag: "urlprefix-/x weight=", err: `weight is ""`},
		{tag: "urlprefix-:1883 proto=tcp", err: "it asks for a TCP port"},
		{tag: "urlprefix-im.example.gov/ proto=tcp+sni", err: "it asks for TCP (proto=tcp+sni)"},
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
		u, ok, err := ParseURLPrefix("urlprefix-", tt.tag)
		if ok == tt.none {
			t.Errorf("%q: ok is %v", tt.tag, ok)
		}
		if (err != nil) != (tt.err != "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%q: the error is %v, want %q", tt.tag, err, tt.err)
		}
		if want := (URLPrefix{tt.host, tt.path, tt.strip, tt.weight}); u != want {
			t.Errorf("%q: got %+v", tt.tag, u)
		}
	}
	if u, ok, err := ParseURLPrefix("edge:", "edge:/x"); u.Path != "/x" || !ok || err != nil {
		t.Errorf("another prefix: got %+v, %v, %v", u, ok, err)
	}
}

func TestURLPrefixRewrite(t *testing.T) {
	for _, tt := range []struct{ path, strip, want string }{
		{"/app", "", ""},
		{"/app", "/app", "/"},
		{"/app/", "/app", "/"},
		{"/app/", "/app/", "/"},
		{"/ws/node1", "/ws", "/node1"},
		{"/ws/node1/", "/ws/", "/node1/"},
		{"/foobar", "/foo", "/bar"},
		{"/", "/", "/"},
	} {
		if got := (URLPrefix{Path: tt.path, Strip: tt.strip}).rewrite(); got != tt.want {
			t.Errorf("%s strip=%s: %q, want %q", tt.path, tt.strip, got, tt.want)
		}
	}
}

func FuzzParseURLPrefix(f *testing.F) {
	for _, tag := range []string{
		"urlprefix-/path strip=/path", "urlprefix-im.example.gov/ proto=http", "urlprefix-:80", "urlprefix- ", "blue", "urlprefix-/x weight=0.1",
	} {
		f.Add(tag)
	}
	f.Fuzz(func(t *testing.T, tag string) {
		u, ok, err := ParseURLPrefix("urlprefix-", tag)
		if !ok || err != nil {
			if u != (URLPrefix{}) {
				t.Errorf("got %+v with ok %v and %v", u, ok, err)
			}
			if err != nil && strings.ContainsAny(err.Error(), "\n\x00") {
				t.Errorf("%q is no line", err)
			}
			return
		}
		if u.Host != "" && !isHost(u.Host) || u.Path[0] != '/' || !strings.HasPrefix(u.Path, u.Strip) || !(u.Weight >= 0 && u.Weight <= maxShare) {
			t.Errorf("%q gives %+v", tag, u)
		}
		if r := u.rewrite(); r != "" && r[0] != '/' {
			t.Errorf("%q is rewritten to %q", tag, r)
		}
		options := ""
		if u.Strip != "" {
			options = " strip=" + u.Strip
		}
		if u.Weight != 0 {
			options += " weight=" + strconv.FormatFloat(u.Weight, 'g', -1, 64)
		}
		again, ok, err := ParseURLPrefix("urlprefix-", "urlprefix-"+u.Host+u.Path+options)
		if again != u || !ok || err != nil {
			t.Errorf("%q does not come back the same: %+v, %v, %v", tag, again, ok, err)
		}
	})
}
