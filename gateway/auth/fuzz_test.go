package auth

import (
	"slices"
	"strings"
	"testing"
)

// Whatever a request holds: looking for a token ends well, what is found stood
// there, and what goes on to the node has no token in it.
func FuzzToken(f *testing.F) {
	for _, s := range [][4]string{
		{"?token=a.b.c&x=1", "Bearer a.b.c", "jwt=a.b.c; x=y", "access_token, a.b.c"},
		{"?&;=;token;to%6ben=%zz", "bearer\t", `jwt=";;=`, ",,access_token,,access_token"},
		{"?token=%2B+&token=", "JWT  ", "jwt=jwt=jwt", "mqtt, access_token"},
	} {
		f.Add(s[0], s[1], s[2], s[3])
	}
	all := []Source{tokenInQuery, tokenInHeader, tokenInCookie, tokenOffered, {Kind: FromPath, Segment: 2}}
	f.Fuzz(func(t *testing.T, query, authorization, cookie, offer string) {
		r := ask("/ws/a/b" + query)
		r.Query = query
		r.Values = func(name string) []string {
			return map[string][]string{"Authorization": {authorization}, "Cookie": {cookie}, "Sec-WebSocket-Protocol": {offer}}[name]
		}
		for _, s := range all {
			values, err := s.find(r)
			one, oneErr := token(r, []Source{s})
			switch {
			case err != nil || len(values) > 1:
				if oneErr == nil {
					t.Errorf("%s: %q, %v is taken for %q", s, values, err, one)
				}
			case len(values) == 1 && oneErr == nil && one != values[0]:
				t.Errorf("%s: %q of %q", s, one, values)
			}
			if len(one) > maxToken {
				t.Errorf("%s: %d bytes", s, len(one))
			}
		}
		found, err := tokenOffered.find(r)
		rest, there := WithoutToken([]string{offer}, tokenOffered.Name)
		if there != (len(found) > 0 || err != nil) || slices.Contains(rest, tokenOffered.Name) {
			t.Errorf("%q: %q, %v; without it %q, %v", offer, found, err, rest, there)
		}
		for _, p := range rest {
			if !strings.Contains(offer, p) {
				t.Errorf("%q is not in %q", p, offer)
			}
		}
	})
}
