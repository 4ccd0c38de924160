package gateway

import (
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"singlegate/gateway/auth"
)

// corsNode answers with CORS headers and a Vary of its own.
func corsNode(t *testing.T, seen chan<- string) string {
	return httpNode(t, func(w http.ResponseWriter, r *http.Request) {
		select {
		case seen <- r.Method:
		default:
		}
		h := w.Header()
		h["Access-Control-Allow-Origin"] = []string{"https://node.example.gov", "*"}
		h["Access-Control-Allow-Credentials"] = []string{"true"}
		h["Access-Control-Expose-Headers"] = []string{"X-Node"}
		h["Vary"] = []string{"Accept-Encoding"}
		io.WriteString(w, "node")
	})
}

// corsHeaders are those of an answer, one line each.
func corsHeaders(h http.Header) string {
	var lines []string
	for name, values := range h {
		if strings.HasPrefix(name, "Access-Control-") || name == "Vary" {
			for _, v := range values {
				lines = append(lines, name+": "+v)
			}
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

const (
	webPage   = "https://web.example.gov"
	otherPage = "https://evil.example"
)

func TestCORS(t *testing.T) {
	t.Parallel()
	seen := make(chan string, 100)
	site := t.TempDir()
	if err := os.WriteFile(filepath.Join(site, "a.txt"), []byte("a"), 0o600); err != nil {
		t.Fatal(err)
	}
	web := &CORS{
		Origins: []string{webPage, "weapp://app"}, Methods: []string{"POST", "OPTIONS"}, Headers: []string{"p", "cid"},
		Expose: []string{"X-Total"}, Credentials: true, MaxAge: 10 * time.Minute,
	}
	open := &CORS{Origins: []string{"*"}, Methods: DefaultCORSMethods(), Headers: []string{"*"}}
	service := func(path, service string, p Policies) Route {
		return Route{Paths: []string{path}, Service: service, Policies: p}
	}
	silent := service("/silent", "silent", Policies{CORS: web})
	silent.Timeouts = DefaultTimeouts()
	silent.Timeouts.Read = 50 * time.Millisecond
	e := startEdge(t, []Route{
		service("/im", "app", Policies{CORS: web, MaxBody: 5}),
		service("/open", "app", Policies{CORS: open}),
		service("/route", "app", Policies{}),
		service("/down", "down", Policies{CORS: web}),
		service("/nobody", "nobody", Policies{CORS: web}),
		service("/ws/{node}", "app", Policies{CORS: web}),
		service("/auth", "app", Policies{CORS: web, Auth: auth.Rule{Names: []string{"chat-token"}}}),
		service("/denied", "app", Policies{CORS: web, Deny: prefixes("0.0.0.0/0", "::/0")}),
		{Paths: []string{"/bosh"}, Kind: KindBOSH, Accept: AcceptHTTP, Service: "nobody", Policies: Policies{CORS: web}},
		silent,
		{Paths: []string{"/site"}, Static: site, Policies: Policies{CORS: open}},
		{Paths: []string{"/files"}, Static: site, Policies: Policies{CORS: web}},
		{Paths: []string{"/check"}, Page: "check", Policies: Policies{CORS: web}},
		{Paths: []string{"/away"}, Redirect: "https://other.example.gov/", Policies: Policies{CORS: web}},
	}, map[string]map[string]string{
		"app": {"app1": corsNode(t, seen)}, "down": {"down1": refusedAddr(t)}, "nobody": {},
		"silent": {"silent1": httpNode(t, func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() })},
	}, with(tokenAuth(t)))

	const preflight = "OPTIONS %PATH HTTP/1.1\r\nHost: h\r\nConnection: close\r\naccess-control-request-method: POST\r\n"
	const (
		forWeb = "Access-Control-Allow-Credentials: true\nAccess-Control-Allow-Origin: " + webPage + "\nAccess-Control-Expose-Headers: X-Total\n"
		asked  = "Access-Control-Allow-Credentials: true\nAccess-Control-Allow-Headers: p, cid\nAccess-Control-Allow-Methods: POST, OPTIONS\n" +
			"Access-Control-Allow-Origin: " + webPage + "\nAccess-Control-Expose-Headers: X-Total\nAccess-Control-Max-Age: 600\nVary: Origin"
		nodesOwn = "Access-Control-Allow-Credentials: true\nAccess-Control-Allow-Origin: *\nAccess-Control-Allow-Origin: https://node.example.gov\n" +
			"Access-Control-Expose-Headers: X-Node\nVary: Accept-Encoding"
	)
	cases := []struct {
		name, request, path, origin string
		status                      int
		want                        string
		reached                     bool
	}{
		{"preflight", preflight, "/im", webPage, 204, asked, false},
		{"preflight of another origin", preflight, "/im", otherPage, 403, "Vary: Origin", false},
		{"preflight of another origin to BOSH", preflight, "/bosh", otherPage, 403, "Vary: Origin", false},
		{"preflight of a scheme of its own", preflight, "/im", "weapp://app", 204, strings.ReplaceAll(asked, webPage, "weapp://app"), false},
		{"preflight to any", preflight + "Access-Control-Request-Headers: X-A, x-b,b a d\r\n", "/open", otherPage, 204,
			"Access-Control-Allow-Headers: x-a, x-b\nAccess-Control-Allow-Methods: GET, HEAD, POST\nAccess-Control-Allow-Origin: *\nVary: Access-Control-Request-Headers", false},
		{"preflight where the node answers", preflight, "/route", webPage, 200, nodesOwn, true},
		{"preflight while no node is up", preflight, "/nobody", webPage, 204, asked, false},
		{"preflight to an unknown node", preflight, "/ws/node9", webPage, 204, asked, false},
		{"preflight from an address that is refused", preflight, "/denied", webPage, 204, asked, false},
		{"preflight to files", preflight, "/site/a.txt", webPage, 204, "Access-Control-Allow-Methods: GET, HEAD, POST\nAccess-Control-Allow-Origin: *\nVary: Access-Control-Request-Headers", false},
		{"OPTIONS without a question", "OPTIONS %PATH HTTP/1.1\r\nHost: h\r\nConnection: close\r\n", "/im", webPage, 200, forWeb + "Vary: Accept-Encoding, Origin", true},
		{"OPTIONS without an origin", preflight, "/im", "", 200, "Vary: Accept-Encoding, Origin", true},
		{"request", "", "/im", webPage, 200, forWeb + "Vary: Accept-Encoding, Origin", true},
		{"request of another origin", "", "/im", otherPage, 200, "Vary: Accept-Encoding, Origin", true},
		{"request of a longer origin", "", "/im", webPage + ".evil.example", 200, "Vary: Accept-Encoding, Origin", true},
		{"request of no origin", "", "/im", "", 200, "Vary: Accept-Encoding, Origin", true},
		{"request of two origins", "", "/im", webPage + "\r\nOrigin: " + webPage, 200, "Vary: Accept-Encoding, Origin", true},
		{"request to any", "", "/open", otherPage, 200, "Access-Control-Allow-Origin: *\nVary: Accept-Encoding", true},
		{"request of no origin to any", "", "/open", "", 200, "Access-Control-Allow-Origin: *\nVary: Accept-Encoding", true},
		{"no policy", "", "/route", webPage, 200, nodesOwn, true},
		{"HTTP/1.0", "GET %PATH HTTP/1.0\r\n", "/im", webPage, 200, forWeb + "Vary: Accept-Encoding, Origin", true},
		{"413", "POST %PATH HTTP/1.1\r\nHost: h\r\nContent-Length: 6\r\n", "/im", webPage, 413, forWeb + "Vary: Origin", false},
		{"413 in place of 100", "POST %PATH HTTP/1.1\r\nHost: h\r\nContent-Length: 6\r\nExpect: 100-continue\r\n", "/im", webPage, 413, forWeb + "Vary: Origin", false},
		{"preflight without a token", preflight, "/auth", webPage, 204, asked, false},
		{"401", "", "/auth", webPage, 401, forWeb + "Vary: Origin", false},
		{"403", "", "/denied", webPage, 403, forWeb + "Vary: Origin", false},
		{"403 of another origin", "", "/denied", otherPage, 403, "Vary: Origin", false},
		{"502", "", "/down", webPage, 502, forWeb + "Vary: Origin", false},
		{"503", "", "/nobody", webPage, 503, forWeb + "Vary: Origin", false},
		{"504", "", "/silent", webPage, 504, forWeb + "Vary: Origin", false},
		{"503 of BOSH", "POST %PATH HTTP/1.1\r\nHost: h\r\nConnection: close\r\n", "/bosh", webPage, 503, forWeb + "Vary: Origin", false},
		{"503 of BOSH, another origin", "POST %PATH HTTP/1.1\r\nHost: h\r\nConnection: close\r\n", "/bosh", otherPage, 503, "Vary: Origin", false},
		{"404 of a node", "", "/ws/node9", webPage, 404, forWeb + "Vary: Origin", false},
		{"file", "", "/site/a.txt", webPage, 200, "Access-Control-Allow-Origin: *\nVary: Accept-Encoding", false},
		{"file with a Vary of its own", "", "/files/a.txt", webPage, 200, forWeb + "Vary: Accept-Encoding, Origin", false},
		{"no file", "", "/site/b.txt", webPage, 404, "Access-Control-Allow-Origin: *", false},
		{"page", "", "/check/", webPage, 200, forWeb + "Vary: Origin", false},
		{"redirect", "", "/away", webPage, 301, forWeb + "Vary: Origin", false},
		{"no route", "", "/none", webPage, 404, "", false},
		{"a handshake that is none", "GET %PATH HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\n", "/im", webPage, 400, forWeb + "Vary: Origin", false},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			eachWire(t, func(t *testing.T, secure bool) {
				head := c.request
				if head == "" {
					head = "GET %PATH HTTP/1.1\r\nHost: h\r\nConnection: close\r\n"
				}
				if c.origin != "" {
					head += "Origin: " + c.origin + "\r\n"
				}
				conn := e.dialAny(secure)
				body := ""
				if c.name == "413" {
					body = "123456"
				}
				io.WriteString(conn, strings.ReplaceAll(head, "%PATH", c.path)+"\r\n"+body)
				answers, _, err := answersOn(conn, 1)
				if err != nil || len(answers) != 1 {
					t.Fatalf("%v, %v", answers, err)
				}
				a := answers[0]
				if got := corsHeaders(a.Header); a.StatusCode != c.status || got != c.want {
					t.Errorf("%d with\n%s\nwant %d with\n%s", a.StatusCode, got, c.status, c.want)
				}
				if c.status == 204 && a.body != "" {
					t.Errorf("a body: %q", a.body)
				}
				reached := len(seen) > 0
				for len(seen) > 0 {
					<-seen
				}
				if reached != c.reached {
					t.Errorf("reached the node: %v", reached)
				}
			})
		})
	}
}

// A connection that had a preflight answered carries the request as well.
func TestCORSKeepsConnections(t *testing.T) {
	t.Parallel()
	e := startEdge(t, []Route{{Paths: []string{"/im"}, Service: "app", Policies: Policies{CORS: &CORS{Origins: []string{webPage}}}}},
		map[string]map[string]string{"app": {"app1": corsNode(t, make(chan string, 1))}})
	conn := e.dial()
	io.WriteString(conn, "OPTIONS /im HTTP/1.1\r\nHost: h\r\nOrigin: "+webPage+"\r\nAccess-Control-Request-Method: GET\r\n\r\n"+
		"GET /im HTTP/1.1\r\nHost: h\r\nOrigin: "+webPage+"\r\n\r\n")
	answers, _, err := answersOn(conn, 2)
	if err != nil || len(answers) != 2 || answers[0].StatusCode != 204 || answers[1].body != "node" {
		t.Errorf("%v, %v", answers, err)
	}
}

func TestVaryWith(t *testing.T) {
	for _, c := range []struct{ vary, want string }{
		{"", "Origin"}, {"Accept", "Accept, Origin"}, {"accept, ORIGIN", "accept, ORIGIN"}, {"*", "*"}, {"X-Origin", "X-Origin, Origin"},
	} {
		if got := varyWith(c.vary, "Origin"); got != c.want {
			t.Errorf("%q: %q, want %q", c.vary, got, c.want)
		}
	}
}
