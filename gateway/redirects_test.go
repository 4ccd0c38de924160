package gateway

import (
	"io"
	"net/http"
	"strings"
	"testing"
)

// What of a node's addresses is mapped, and what is not.
func TestRedirectMap(t *testing.T) {
	app := redirectMap{
		public: "/app", node: "", origin: "https://im.example.gov:8443", host: "im.example.gov", port: "8443",
		others: []string{"app.internal", "10.0.0.21:8888"}, local: "8888",
	}
	deep := app
	deep.public, deep.node = "/app/node1", "/x/y"
	root := app
	root.public, root.node = "", "/x"
	anonymous := app
	anonymous.origin, anonymous.host, anonymous.port = "", "", ""
	const public = "https://im.example.gov:8443/app"
	cases := []struct {
		m        *redirectMap
		in, want string // want "": the same
	}{
		{&app, "/", "/app/"},
		{&app, "/login?next=/x%2Fy&a=//b#/top", "/app/login?next=/x%2Fy&a=//b#/top"},
		{&app, "/a%20b/", "/app/a%20b/"},
		{&app, "/app/login", "/app/app/login"}, // the node knows nothing of the prefix
		{&app, "", ""}, {&app, "login", ""}, {&app, "../login", ""}, {&app, "?a=/b", ""}, {&app, "#/a", ""}, {&app, "./", ""},
		{&app, "//evil.example/login", ""}, {&app, "///evil.example", ""}, {&app, `/\evil.example/`, "/app/%5Cevil.example/"},
		{&app, "https://evil.example/login", ""}, {&app, "https://im.example.gov.evil.example/", ""}, {&app, "https://evil.example#@im.example.gov/", ""},
		{&app, "https://im.example.gov@evil.example/", ""}, {&app, "https://u:p@im.example.gov/", ""}, {&app, "https:/login", ""}, {&app, "https:///login", ""},
		{&app, `https://im.example.gov\@evil.example/`, public + "/%5C@evil.example/"},
		{&app, "mailto:a@im.example.gov", ""}, {&app, "weixin://im.example.gov/login", ""}, {&app, "javascript:/login", ""},
		{&app, "http://im.example.gov:8443/login?x#y", public + "/login?x#y"},
		{&app, "HTTP://IM.example.gov/login", public + "/login"}, {&app, "https://im.example.gov", public + "/"}, {&app, "https://im.example.gov?x", public + "/?x"},
		{&app, "//im.example.gov/login", public + "/login"}, {&app, "http://im.example.gov:8888/login", public + "/login"},
		{&app, "http://im.example.gov:9999/login", ""}, {&app, "ftp://im.example.gov/login", ""},
		{&app, "http://10.0.0.21:8888/login", public + "/login"}, {&app, "http://10.0.0.21/login", ""}, {&app, "http://10.0.0.22:8888/login", ""},
		{&app, "http://app.internal/login", public + "/login"}, {&app, "http://app.internal:80/login", public + "/login"}, {&app, "http://app.internal:81/login", ""},
		{&app, "/a/../../b", ""}, {&app, "/%zz", ""},

		{&deep, "/x/y", "/app/node1"}, {&deep, "/x/y/", "/app/node1/"}, {&deep, "/x/y/z?q", "/app/node1/z?q"},
		{&deep, "/x/yy", ""}, {&deep, "/x", ""}, {&deep, "/", ""}, {&deep, "/x/y/../z", ""}, {&deep, "/x/%79/z", "/app/node1/z"},
		{&deep, "http://10.0.0.21:8888/x/y/z", public + "/node1/z"}, {&deep, "http://10.0.0.21:8888/z", ""},

		{&root, "/x", "/"}, {&root, "/x/a", "/a"}, {&root, "/x//evil.example", "/evil.example"}, {&root, "/xy", ""}, {&root, "/x?a", "/?a"},
		{&anonymous, "/login", "/app/login"}, {&anonymous, "http://10.0.0.21:8888/login", "/app/login"}, {&anonymous, "http:///login", ""},
	}
	for _, c := range cases {
		if c.want == "" {
			c.want = c.in
		}
		if got := c.m.address(c.in); got != c.want {
			t.Errorf("%s → %s: %q gives %q, want %q", c.m.public, c.m.node, c.in, got, c.want)
		}
	}
	for _, c := range [][2]string{
		{"5; url=/login", "5; url=/app/login"}, {`0;URL="/a;b"`, `0;URL="/app/a;b"`}, {"0; url='/a' ", "0; url='/app/a' "},
		{"5", "5"}, {"5; url=https://evil.example/", "5; url=https://evil.example/"},
	} {
		if got := app.refresh(c[0]); got != c[1] {
			t.Errorf("Refresh %q gives %q, want %q", c[0], got, c[1])
		}
	}
}

func TestRedirectMapCookies(t *testing.T) {
	app := redirectMap{public: "/app", origin: "https://im.example.gov", host: "im.example.gov", others: []string{"app.internal", "10.0.0.21:8888"}}
	deep := app
	deep.public, deep.node = "/app/node1", "/x/y"
	root := app
	root.public, root.node = "", "/x"
	own := app
	own.others = []string{"im.example.gov"}
	cases := []struct {
		m        *redirectMap
		in, want string
	}{
		{&app, "a=b", "a=b"},
		{&app, "a=/; Path=/; HttpOnly", "a=/; Path=/app; HttpOnly"},
		{&app, "a=b;path=/chat;Secure", "a=b;path=/app/chat;Secure"},
		{&app, "a=b; Path=", "a=b; Path="},
		{&app, "a=b; Path=chat", "a=b; Path=chat"},
		{&app, "__Host-a=b; Path=/; Secure", "__Host-a=b; Path=/; Secure"},
		{&app, "a=b; Domain=app.internal; Path=/", "a=b; Path=/app"},
		{&app, "a=b; Domain=.APP.internal", "a=b"},
		{&app, "a=b; domain=10.0.0.21; Max-Age=1", "a=b; Max-Age=1"},
		{&app, "a=b; Domain=example.gov", "a=b; Domain=example.gov"},
		{&app, "a=b; Domain=im.example.gov", "a=b; Domain=im.example.gov"},
		{&own, "a=b; Domain=im.example.gov", "a=b; Domain=im.example.gov"},
		{&app, "Path=/x; Path=/x", "Path=/x; Path=/app/x"}, // the first is its name
		{&deep, "a=b; Path=/", "a=b; Path=/app/node1"},
		{&deep, "a=b; Path=/x", "a=b; Path=/app/node1"},
		{&deep, "a=b; Path=/x/y/", "a=b; Path=/app/node1"},
		{&deep, "a=b; Path=/x/y/z", "a=b; Path=/app/node1/z"},
		{&deep, "a=b; Path=/x/yy", "a=b; Path=/x/yy"},
		{&root, "a=b; Path=/x", "a=b; Path=/"},
		{&root, "a=b; Path=/x/z", "a=b; Path=/z"},
	}
	for _, c := range cases {
		if got := c.m.cookie(c.in); got != c.want {
			t.Errorf("%s → %s: %q gives %q, want %q", c.m.public, c.m.node, c.in, got, c.want)
		}
	}
}

// A route gives the prefix back, pinned ones with their node's name, and in the
// scheme and host that the client knows; without the policy nothing is touched.
func TestRewriteRedirects(t *testing.T) {
	t.Parallel()
	node := httpNode(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Location", r.URL.Query().Get("to"))
		w.Header().Set("Content-Location", "/a")
		w.Header().Set("Refresh", "1; url=/a")
		w.Header().Add("Set-Cookie", "a=b; Path=/")
		w.Header().Add("Set-Cookie", "c=d; Path=/c; Domain=app.internal")
		w.WriteHeader(302)
		io.WriteString(w, "moved")
	})
	policy := Policies{RewriteRedirects: true}
	virtual := policy
	virtual.RequestHeaders.Set = []Header{{"Host", "app.internal"}}
	e := startEdge(t, []Route{
		{Paths: []string{"/app/"}, Service: "app", Rewrite: "/", Policies: policy},
		{Paths: []string{"/on/{node}/x"}, Service: "app", Rewrite: "/", Policies: policy},
		{Host: "{node}.im.example.gov", Paths: []string{"/app"}, Service: "app", Rewrite: "/", Policies: policy},
		{Paths: []string{"/virtual"}, Service: "app", Rewrite: "/", Policies: virtual},
		{Paths: []string{"/plain"}, Service: "app", Rewrite: "/"},
	}, map[string]map[string]string{"app": {"app1": node}})
	cases := []struct{ host, path, to, location, prefix string }{
		{"im.example.gov", "/app/", "/login?x=/y", "/app/login?x=/y", "/app"},
		{"im.example.gov:81", "/app/deep/er", "http://im.example.gov:81/login", "SCHEME://im.example.gov:81/app/login", "/app"},
		{"im.example.gov", "/app", "http://" + node + "/login", "SCHEME://im.example.gov/app/login", "/app"},
		{"im.example.gov", "//app/%2e/", "/", "/app/", "/app"},
		{"im.example.gov", "/on/app1/x/y", "/login", "/on/app1/x/login", "/on/app1/x"},
		{"im.example.gov", "/on/a%70p1/x", "/login", "/on/app1/x/login", "/on/app1/x"},
		{"app1.im.example.gov", "/app/z", "http://app1.im.example.gov/login", "SCHEME://app1.im.example.gov/app/login", "/app"},
		{"im.example.gov", "/virtual/z", "https://app.internal/login", "SCHEME://im.example.gov/virtual/login", "/virtual"},
		{"im.example.gov", "/app/", "https://evil.example/", "https://evil.example/", "/app"},
	}
	for _, c := range cases {
		eachWire(t, func(t *testing.T, secure bool) {
			scheme := "http"
			if secure {
				scheme = "https"
			}
			a := e.redirected(t, secure, c.host, c.path+"?to="+strings.ReplaceAll(c.to, "?", "%3F"))
			if got, want := a.Header.Get("Location"), strings.Replace(c.location, "SCHEME", scheme, 1); got != want {
				t.Errorf("%s%s to %s: %s, want %s", c.host, c.path, c.to, got, want)
			}
			if got, want := a.Header.Get("Content-Location"), c.prefix+"/a"; got != want {
				t.Errorf("Content-Location: %s, want %s", got, want)
			}
			if got, want := a.Header.Get("Refresh"), "1; url="+c.prefix+"/a"; got != want {
				t.Errorf("Refresh: %s, want %s", got, want)
			}
			domain := "; Domain=app.internal"
			if c.prefix == "/virtual" {
				domain = ""
			}
			got, want := strings.Join(a.Header.Values("Set-Cookie"), "|"), "a=b; Path="+c.prefix+"|c=d; Path="+c.prefix+"/c"+domain
			if got != want {
				t.Errorf("Set-Cookie: %s, want %s", got, want)
			}
		})
	}
	a := e.redirected(t, false, "im.example.gov", "/plain?to=/login")
	if a.Header.Get("Location") != "/login" || a.Header.Values("Set-Cookie")[0] != "a=b; Path=/" {
		t.Errorf("without the policy: %v", a.Header)
	}
}

// redirected is the answer to a GET, which must be whole.
func (e *edge) redirected(t *testing.T, secure bool, host, target string) gotAnswer {
	t.Helper()
	conn := e.dialAny(secure)
	io.WriteString(conn, "GET "+target+" HTTP/1.1\r\nHost: "+host+"\r\nConnection: close\r\n\r\n")
	answers, _, err := answersOn(conn, 1)
	if err != nil || len(answers) != 1 || answers[0].StatusCode != 302 || answers[0].body != "moved" {
		t.Fatalf("%s: %v, %v", target, answers, err)
	}
	return answers[0]
}

// Behind a trusted proxy that ends TLS, whole URLs are those of its clients.
func TestRewriteRedirectsBehindProxy(t *testing.T) {
	t.Parallel()
	node := httpNode(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Location", "http://"+r.Header.Get(r.URL.Query().Get("by"))+"/login")
		if w.Header().Get("Location") == "http:///login" {
			w.Header().Set("Location", "http://"+r.Host+"/login")
		}
		w.Header().Set("Set-Cookie", "a=b; Domain=inner")
		w.WriteHeader(302)
	})
	e := startEdge(t, []Route{{Paths: []string{"/app"}, Service: "app", Rewrite: "/", Policies: Policies{RewriteRedirects: true}}},
		map[string]map[string]string{"app": {"app1": node}}, func(c *Config) { c.TrustedProxies = prefixes("127.0.0.0/8") })
	for _, c := range []struct{ by, proto, host, want string }{
		{"X-Forwarded-Host", "https", "im.example.gov", "https://im.example.gov/app/login"},
		{"Host", "https", "im.example.gov", "https://im.example.gov/app/login"},
		{"Host", "https, http", "im.example.gov:8443, other", "https://im.example.gov:8443/app/login"},
		{"Host", "gopher", "a b", "http://inner:81/app/login"},
	} {
		resp, _ := e.answerTo("GET /app?by=" + c.by + " HTTP/1.1\r\nHost: inner:81\r\nX-Forwarded-Proto: " + c.proto + "\r\nX-Forwarded-Host: " + c.host + "\r\nConnection: close\r\n\r\n")
		if got := resp.Header.Get("Location"); got != c.want {
			t.Errorf("%+v: Location: %s", c, got)
		}
		if got, kept := resp.Header.Get("Set-Cookie"), c.host == "a b"; strings.Contains(got, "Domain") != kept {
			t.Errorf("%+v: Set-Cookie: %s", c, got)
		}
	}
}
