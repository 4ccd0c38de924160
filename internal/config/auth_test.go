package config

import (
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"singlegate/gateway/auth"
)

// What the READMEs show of auth means what they say.
func TestAuthOfTheREADMEs(t *testing.T) {
	want := []auth.Config{
		{At: "a.yaml:2:3", Name: "chat-token", JWT: &auth.JWT{
			Algorithms: []string{"HS256"}, KeyFile: filepath.Join("conf", "chat.key"),
			From: []auth.Source{
				{Kind: auth.FromQuery, Name: "token"}, {Kind: auth.FromHeader, Name: "Authorization"},
				{Kind: auth.FromCookie, Name: "jwt"}, {Kind: auth.FromSubprotocol, Name: "access_token"},
			},
			Issuer: "https://login.example.gov", Audience: []string{"im"}, Leeway: 30 * time.Second, Require: []string{"exp", "user_id"},
			ClaimsToHeaders: []auth.ClaimHeader{{Header: "X-User", Claim: "user_id"}}, CloseOnExpiry: true,
		}},
		{At: "a.yaml:13:3", Name: "chat-session", Forward: &auth.Forward{
			URL: "http://10.0.0.5:8000/session/", PassHeaders: []string{"X-User"}, Timeout: 5 * time.Second, Cache: 10 * time.Second,
			Credentials: []auth.Source{{Kind: auth.FromPath, Segment: 1}, {Kind: auth.FromCookie, Name: "sessionid"}},
		}},
	}
	for _, name := range []string{"README.md", "README.zh-CN.md"} {
		f := parseAuth(t, authBlocks(t, name)[0])
		if !reflect.DeepEqual(f.Gateway.Auth, want) {
			t.Errorf("%s: got %+v, want %+v", name, f.Gateway.Auth, want)
		}
		if got := f.Gateway.Routes[0].Auth; !reflect.DeepEqual(got, auth.Rule{Names: []string{"chat-token", "chat-session"}}) {
			t.Errorf("%s: the first route's auth is %+v", name, got)
		}
	}
	for _, name := range []string{"single_address.md", "single_address.zh-CN.md"} {
		for _, block := range authBlocks(t, name) {
			parseAuth(t, block)
		}
	}
}

func authBlocks(t *testing.T, name string) []string {
	t.Helper()
	var blocks []string
	for _, m := range regexp.MustCompile("(?s)```yaml\n(auth:.*?)```").FindAllStringSubmatch(string(readFile(t, "../../"+name)), -1) {
		blocks = append(blocks, m[1])
	}
	if len(blocks) == 0 {
		t.Fatalf("%s shows nothing of auth", name)
	}
	return blocks
}

func parseAuth(t *testing.T, block string) *File {
	t.Helper()
	f, err := Parse(filepath.Join("conf", "a.yaml"), []byte(block+"listeners: [{address: \":80\"}]\nservices: {chat: {nodes: {chat1: \"10.0.0.5:5002\"}}}\n"), testEnv)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// What is left out has its default; both forms of a rule, and of an audience.
func TestAuthDefaults(t *testing.T) {
	f := parseAuth(t, strings.TrimLeft(`
auth:
  a: {jwt: {algorithms: [RS256, ES256], jwks_url: "https://login.example.gov/keys", ca: ca.pem, audience: [x, y], from: [subprotocol]}}
  b: {jwt: {algorithms: [EdDSA], key_file: k, require: [], from: [header.X-Token]}}
  c: {forward: {url: "http://10.0.0.5/"}}
routes:
  - {path: /a, service: chat, auth: {all: [a, b]}}
  - {path: /b, static: web, auth: c}
`, "\n"))
	want := []any{
		&auth.JWT{
			Algorithms: []string{"RS256", "ES256"}, JWKSURL: "https://login.example.gov/keys", CAFile: filepath.Join("conf", "ca.pem"),
			Audience: []string{"x", "y"}, From: []auth.Source{{Kind: auth.FromSubprotocol, Name: "access_token"}}, Leeway: 30 * time.Second, Require: []string{"exp"},
		},
		&auth.JWT{
			Algorithms: []string{"EdDSA"}, KeyFile: filepath.Join("conf", "k"), From: []auth.Source{{Kind: auth.FromHeader, Name: "X-Token"}},
			Leeway: 30 * time.Second, Require: []string{},
		},
		&auth.Forward{URL: "http://10.0.0.5/", Timeout: 5 * time.Second},
	}
	got := []any{f.Gateway.Auth[0].JWT, f.Gateway.Auth[1].JWT, f.Gateway.Auth[2].Forward}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %+v, %+v", got...)
	}
	rules := []auth.Rule{f.Gateway.Routes[0].Auth, f.Gateway.Routes[1].Auth}
	if !reflect.DeepEqual(rules, []auth.Rule{{All: true, Names: []string{"a", "b"}}, {Names: []string{"c"}}}) {
		t.Errorf("got %+v", rules)
	}
}
