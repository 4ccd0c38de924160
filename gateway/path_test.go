package gateway

import (
	"strings"
	"testing"
)

func TestCanonicalPath(t *testing.T) {
	cases := []struct {
		raw, want string
		err       error
	}{
		{"/", "/", nil},
		{"/ws/node1", "/ws/node1", nil},
		{"/ws/%6eode1", "/ws/node1", nil},
		{"/ws/%6Eode1/", "/ws/node1/", nil},
		{"/ws/%256eode1", "/ws/%256eode1", nil}, // decoded once, never twice
		{"/ws/a%2fb", "/ws/a%2Fb", nil},
		{"//ws///node1//", "/ws/node1/", nil},
		{"/ws/./node1", "/ws/node1", nil},
		{"/ws/node2/../node1", "/ws/node1", nil},
		{"/ws/node2/%2e%2e/node1", "/ws/node1", nil},
		{"/ws/..", "/", nil},
		{"/ws/node1/.", "/ws/node1/", nil},
		{"/..", "", errAboveRoot},
		{"/ws/../../etc", "", errAboveRoot},
		{"/ws/..;/admin", "", errHiddenDots},
		{"/ws/..;x=1/admin", "", errHiddenDots},
		{"/ws/..%3b/admin", "", errHiddenDots},
		{"/ws/..%2fadmin", "", errHiddenDots},
		{"/ws/a%2f..%2fadmin", "", errHiddenDots},
		{"/ws/%2e%2e%5cadmin", "", errHiddenDots},
		{`/ws/..\admin`, "", errHiddenDots},
		{"/ws/%00", "", errControlByte},
		{"/ws/a%0d%0ab", "", errControlByte},
		{"/ws/%zz", "", errPercent},
		{"/ws/%", "", errPercent},
		{"/ws/%6", "", errPercent},
		{"/文件", "/%E6%96%87%E4%BB%B6", nil},
		{"/%e6%96%87", "/%E6%96%87", nil},
		{`/a"b<c>`, "/a%22b%3Cc%3E", nil},
		{"/.well-known/host-meta", "/.well-known/host-meta", nil},
		{"/a;v=1/b", "/a;v=1/b", nil},
	}
	for _, c := range cases {
		got, err := canonicalPath(c.raw)
		if got != c.want || err != c.err {
			t.Errorf("canonicalPath(%q) = %q, %v; want %q, %v", c.raw, got, err, c.want, c.err)
		}
	}
}

func FuzzCanonicalPath(f *testing.F) {
	for _, s := range []string{"/", "/ws/%6eode1", "/a/../b", "/..;/", "/%2e%2e%2f", "//", `/\..`, "/%c0%ae", "/a/%3b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		if !strings.HasPrefix(raw, "/") {
			return
		}
		got, err := canonicalPath(raw)
		if err != nil {
			return
		}
		if again, err := canonicalPath(got); err != nil || again != got {
			t.Fatalf("canonicalPath(%q) = %q, but of that %q, %v", raw, got, again, err)
		}
		if !strings.HasPrefix(got, "/") || strings.Contains(got, "//") {
			t.Fatalf("canonicalPath(%q) = %q", raw, got)
		}
		for s := range strings.SplitSeq(got, "/") {
			if s == "." || s == ".." {
				t.Fatalf("canonicalPath(%q) = %q has a dot segment", raw, got)
			}
		}
		for i := range len(got) {
			if got[i] <= ' ' || got[i] >= 0x7f || got[i] == '?' || got[i] == '#' {
				t.Fatalf("canonicalPath(%q) = %q has a byte that may not stand in a path", raw, got)
			}
		}
	})
}

func FuzzSplitTarget(f *testing.F) {
	for _, s := range []string{"/", "/a?b=c", "http://x/y?z", "*", "x:443", "wss://h", "http://u@h/"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, target string) {
		host, path, query, err := splitTarget(target)
		if err != nil {
			return
		}
		if !strings.HasPrefix(path, "/") || query != "" && query[0] != '?' {
			t.Fatalf("splitTarget(%q) = %q, %q, %q", target, host, path, query)
		}
		if host == "" && path+query != target {
			t.Fatalf("splitTarget(%q) = %q, %q", target, path, query)
		}
	})
}

func TestCanonicalHost(t *testing.T) {
	cases := []struct{ raw, want string }{
		{"im.example.gov", "im.example.gov"},
		{"IM.Example.GOV.:8443", "im.example.gov"},
		{"127.0.0.1:80", "127.0.0.1"},
		{"[::1]:443", "::1"},
		{"[2001:DB8::1]", "2001:db8::1"},
		{"node_1.im.x", "node_1.im.x"},
	}
	for _, c := range cases {
		if got, err := canonicalHost(c.raw); got != c.want || err != nil {
			t.Errorf("canonicalHost(%q) = %q, %v; want %q", c.raw, got, err, c.want)
		}
	}
	for _, bad := range []string{"", ".", "a b", "a/b", "x:y", "x:1:2", "[::1", "[::1]x", "x:123456", "a@b", "a,b"} {
		if got, err := canonicalHost(bad); err == nil {
			t.Errorf("canonicalHost(%q) = %q, want an error", bad, got)
		}
	}
}

// A Host that is taken can stand in a header as it is, and names the same host
// when what is matched is sent instead.
func FuzzCanonicalHost(f *testing.F) {
	for _, seed := range []string{"h", "H.example:443", "[::1]:80", "[fe80::1%eth0]", "1.2.3.4.", "a:b", "[", "a\"", "文"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		host, err := canonicalHost(raw)
		if err != nil {
			return
		}
		for i := range len(raw) {
			if c := raw[i]; c <= ' ' || c >= 0x7f || strings.IndexByte("\"'(),/;<=>?@\\{}|^`#&", c) >= 0 {
				t.Errorf("%q holds %q", raw, c)
			}
		}
		if strings.ContainsRune(host, ':') {
			host = "[" + host + "]"
		}
		if again, err := canonicalHost(host); err != nil || again != strings.Trim(host, "[]") {
			t.Errorf("%q is %q, and that is %q, %v", raw, host, again, err)
		}
	})
}
