package gateway

import (
	"bufio"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/golang-jwt/jwt/v5"

	"singlegate/gateway/auth"
)

const chatSecret = "a-secret-of-django-that-is-fifty-characters-long-aaa"

// chatToken is a token as Django's chats have it.
func chatToken(t *testing.T, more ...any) string {
	t.Helper()
	c := jwt.MapClaims{"user_id": 7, "username": "bob", "exp": time.Now().Add(time.Hour).Unix(), "orig_iat": time.Now().Unix()}
	for i := 0; i < len(more); i += 2 {
		c[more[i].(string)] = more[i+1]
	}
	s, err := jwt.NewWithClaims(jwt.SigningMethodHS256, c).SignedString([]byte(chatSecret))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// tokenAuth is an auth named "chat-token".
func tokenAuth(t *testing.T, tune ...func(*auth.JWT)) auth.Config {
	t.Helper()
	path := filepath.Join(t.TempDir(), "chat.key")
	if err := os.WriteFile(path, []byte(chatSecret), 0o600); err != nil {
		t.Fatal(err)
	}
	j := &auth.JWT{
		Algorithms: []string{"HS256"}, KeyFile: path, Require: []string{"exp"},
		From: []auth.Source{{Kind: auth.FromQuery, Name: "t"}, {Kind: auth.FromHeader, Name: "Authorization"}, {Kind: auth.FromSubprotocol, Name: "access_token"}},
	}
	for _, f := range tune {
		f(j)
	}
	return auth.Config{At: "test:3:1", Name: "chat-token", JWT: j}
}

// sessionAuth is an auth named "chat-session".
func sessionAuth(url string, tune ...func(*auth.Forward)) auth.Config {
	f := &auth.Forward{
		URL: url, Timeout: 10 * time.Second, PassHeaders: []string{"X-User"},
		Credentials: []auth.Source{{Kind: auth.FromPath, Segment: 1}, {Kind: auth.FromCookie, Name: "sessionid"}},
	}
	for _, t := range tune {
		t(f)
	}
	return auth.Config{At: "test:4:1", Name: "chat-session", Forward: f}
}

func with(configs ...auth.Config) func(*Config) {
	return func(c *Config) { c.Auth = configs }
}

func authRoute(path string, names ...string) Route {
	return Route{Paths: []string{path}, Service: "chat", Policies: Policies{Auth: auth.Rule{Names: names}}}
}

// Who has no good token is refused before the node hears anything, is told why as
// far as it is its business, and leaves no token in the log.
func TestTokensAtTheDoor(t *testing.T) {
	t.Parallel()
	node := startRecorder(t, "chat1")
	e := startEdge(t, []Route{authRoute("/ws", "chat-token"), {Paths: []string{"/open"}, Service: "chat"}},
		map[string]map[string]string{"chat": {"chat1": node.addr}}, with(tokenAuth(t)))
	good, none := chatToken(t), base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none"}`))
	parts := strings.Split(good, ".")
	const expiredChallenge = `Bearer error="invalid_token", error_description="The token expired"`
	for _, c := range []struct {
		path, header    string
		status          int
		code, challenge string
	}{
		{"/ws/?t=" + good, "", 200, "", ""},
		{"/ws/", "Authorization: beareR " + good, 200, "", ""},
		{"/open/?t=x", "", 200, "", ""},
		{"/ws/", "", 401, "token_missing", "Bearer"},
		{"/ws/?t=" + chatToken(t, "exp", 1), "", 401, "token_expired", expiredChallenge},
		{"/ws/?t=" + parts[0] + "." + parts[1] + ".AAAA", "", 401, "token_invalid", `Bearer error="invalid_token"`},
		{"/ws/?t=" + none + "." + parts[1] + ".", "", 401, "token_invalid", `Bearer error="invalid_token"`},
		{"/ws/?t=" + good + "&t=" + good, "", 401, "token_invalid", `Bearer error="invalid_token"`},
		{"/ws/?t=" + strings.Repeat("a", 9<<10), "", 401, "token_invalid", `Bearer error="invalid_token"`},
		{"/%77s/", "", 401, "token_missing", "Bearer"},
		{"/ws/?t=" + good[:len(good)-1], "Expect: 100-continue\r\nContent-Length: 5", 401, "token_invalid", `Bearer error="invalid_token"`},
	} {
		for _, upgrade := range []bool{false, true} {
			eachWire(t, func(t *testing.T, secure bool) {
				if upgrade && (c.status == 200 || strings.HasPrefix(c.header, "Expect")) {
					return
				}
				request := "GET " + c.path + " HTTP/1.1\r\nHost: h\r\nConnection: close\r\n"
				if upgrade {
					request = strings.TrimSuffix(handshake(c.path), "\r\n")
				}
				if c.header != "" {
					request += c.header + "\r\n"
				}
				conn := e.dialAny(secure)
				io.WriteString(conn, request+"\r\n")
				answers, _, err := answersOn(conn, 1)
				if err != nil || len(answers) != 1 {
					t.Fatalf("%.40s: %v, %v", c.path, answers, err)
				}
				got := answers[0]
				if got.StatusCode != c.status || problemCode(got.body) != c.code || got.Header.Get("WWW-Authenticate") != c.challenge {
					t.Errorf("%.40s: %s %q %s", c.path, got.Status, got.Header.Get("WWW-Authenticate"), got.body)
				}
				if n := len(node.take()); (n == 1) != (c.status == 200) {
					t.Errorf("%.40s: %d requests reached the node", c.path, n)
				}
			})
		}
	}
	e.logs.wait(t, `"error":"token_invalid"`, `"cause":"auth chat-token: its algorithm is not among those allowed"`)
	e.logs.wait(t, `"error":"token_expired"`, `"cause":"auth chat-token: it has expired (exp)"`)
	for _, token := range []string{parts[0], parts[1], parts[2], none, "aaaaaaaa"} {
		if strings.Contains(e.logs.all(), token) {
			t.Errorf("the log has %q:\n%s", token, e.logs.all())
		}
	}
	e.tells("auth_total", map[string]float64{
		"auth_total{chat-token,passed}": 4, "auth_total{chat-token,missing}": 8,
		"auth_total{chat-token,expired}": 4, "auth_total{chat-token,invalid}": 18,
	})
}

// A route with refuse: close says the same with a Close, to clients that see no
// status.
func TestTokensWithRefuseClose(t *testing.T) {
	t.Parallel()
	route := authRoute("/ws", "chat-token")
	route.Refuse = RefuseClose
	e := startEdge(t, []Route{route}, map[string]map[string]string{"chat": {"chat1": refusedAddr(t)}}, with(tokenAuth(t)))
	c, _ := open(t, e.dial(), handshake("/ws/?t="+chatToken(t, "exp", 1)))
	c.expectClose(1008, "The token has expired")
	c.expectEnd()
}

// Claims reach the node; what clients put in their place does not.
func TestClaimsReachTheNode(t *testing.T) {
	t.Parallel()
	node := startRecorder(t, "chat1")
	cfg := tokenAuth(t, func(j *auth.JWT) {
		j.ClaimsToHeaders = []auth.ClaimHeader{{Header: "X-User", Claim: "user_id"}, {Header: "X-Staff", Claim: "staff"}}
	})
	e := startEdge(t, []Route{authRoute("/ws", "chat-token"), {Paths: []string{"/open"}, Service: "chat"}},
		map[string]map[string]string{"chat": {"chat1": node.addr}}, with(cfg))
	const forged = "X-User: 1\r\nx-user: 2\r\nX_User: 3\r\nX-STAFF: true\r\nx_staff: true\r\n"
	token := "?t=" + chatToken(t)
	for _, request := range []string{
		"GET /ws/" + token + " HTTP/1.1\r\nHost: h\r\n" + forged + "\r\n",
		strings.TrimSuffix(handshake("/ws/"+token), "\r\n") + forged + "\r\n",
		"POST /ws/" + token + " HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n" + forged + "\r\nx",
	} {
		c := e.dial()
		io.WriteString(c, request)
		readAnswer(t, bufio.NewReader(c))
		head := strings.ToLower(strings.ReplaceAll(node.only(t).head, "_", "-"))
		if strings.Count(head, "x-user: ") != 1 || !strings.Contains(head, "\nx-user: 7\r\n") || strings.Contains(head, "x-staff") {
			t.Errorf("the node got\n%s", head)
		}
	}
	e.answerTo("GET /open/ HTTP/1.1\r\nHost: h\r\n" + forged + "\r\n")
	if got := node.only(t).values("X-User"); !slices.Equal(got, []string{"1"}) {
		t.Errorf("a route without auth: the node got X-User %q", got)
	}
}

// A token among the subprotocols does not reach the node, and a browser, which
// gives up unless one of its offers is chosen, gets one.
func TestTokenAmongSubprotocols(t *testing.T) {
	t.Parallel()
	heads := make(chan string, 1)
	node := rawNode(t, func(c net.Conn) {
		br := bufio.NewReader(c)
		head := readHead(br)
		heads <- head
		var chosen []string
		if offers := headerIn(head, "Sec-WebSocket-Protocol"); offers != "" {
			first, _, _ := strings.Cut(offers, ",")
			chosen = append(chosen, "Sec-WebSocket-Protocol: "+first)
		}
		io.WriteString(c, switching(head, chosen...))
		echo(c, br)
	})
	e := startEdge(t, []Route{authRoute("/ws", "chat-token")}, map[string]map[string]string{"chat": {"chat1": node}}, with(tokenAuth(t)))
	token := chatToken(t)
	for _, c := range []struct {
		offers        []string
		reach, chosen string
	}{
		{[]string{"access_token", token}, "", "access_token"},
		{[]string{"access_token", token, "mqtt"}, "mqtt", "mqtt"},
		{[]string{"mqtt", "xmpp", "access_token", token}, "mqtt, xmpp", "mqtt"},
	} {
		eachWire(t, func(t *testing.T, secure bool) {
			dialer := ws.Dialer{Protocols: c.offers}
			conn, chosen, err := clientOf(dialer, e.dialAny(secure))
			if err != nil {
				t.Fatalf("%q: %v", c.offers[0], err)
			}
			defer conn.Close()
			head := await(t, "the handshake at the node", heads)
			if got := headerIn(head, "Sec-WebSocket-Protocol"); got != c.reach || strings.Contains(head, token) || chosen != c.chosen {
				t.Errorf("the node got %q, the client %q; want %q, %q", got, chosen, c.reach, c.chosen)
			}
		})
	}
	lines := strings.Join([]string{"Sec-WebSocket-Protocol: mqtt", "Sec-WebSocket-Protocol: access_token, " + token}, "\r\n")
	_, resp := open(t, e.dial(), handshake("/ws/", lines))
	if head := await(t, "the handshake at the node", heads); headerIn(head, "Sec-WebSocket-Protocol") != "mqtt" || resp.Header.Get("Sec-WebSocket-Protocol") != "mqtt" {
		t.Errorf("over two lines: the node got\n%s", head)
	}
	open(t, e.dial(), handshake("/ws/?t="+token, "Sec-WebSocket-Protocol: mqtt, v2"))
	if head := await(t, "the handshake at the node", heads); headerIn(head, "Sec-WebSocket-Protocol") != "mqtt, v2" {
		t.Errorf("without a token there: the node got\n%s", head)
	}
}

// clientOf makes a handshake with the gobwas client, which checks the subprotocol.
func clientOf(d ws.Dialer, conn net.Conn) (net.Conn, string, error) {
	_, hs, err := d.Upgrade(conn, &url.URL{Scheme: "ws", Host: "im.example.gov", Path: "/ws/"})
	return conn, hs.Protocol, err
}

// A tunnel ends with its token: the client is told, the node gets the client's
// answer; without the option it goes on.
func TestTunnelEndsWithItsToken(t *testing.T) {
	t.Parallel()
	node := echoNode(t)
	closing := tokenAuth(t, func(j *auth.JWT) { j.CloseOnExpiry = true })
	lasting := tokenAuth(t)
	lasting.Name = "lasting"
	e := startEdge(t, []Route{authRoute("/ws", "chat-token"), authRoute("/lasting", "lasting")},
		map[string]map[string]string{"chat": {"chat1": node}}, with(closing, lasting))
	soon, far := chatToken(t, "exp", time.Now().Add(2*time.Second).Unix()), chatToken(t, "exp", 253402300799)
	var ending, staying []*wsConn
	for i := range 2 {
		c, _ := open(t, e.dialEither(i), handshake("/ws/?t="+soon))
		ending = append(ending, c)
		for _, target := range []string{"/lasting/?t=" + soon, "/ws/?t=" + far} {
			c, _ := open(t, e.dialEither(i), handshake(target))
			staying = append(staying, c)
		}
	}
	for _, c := range ending {
		c.expectClose(1008, "token expired")
		c.leave(1008)
	}
	for _, c := range staying {
		c.lives()
	}
	e.logs.wait(t, `"kind":"tunnel"`, `"ended_by":"expired"`, `"close_code":1008`, `"close_reason":"token expired"`)
	e.tells("tunnels_total", map[string]float64{"tunnels_total{expired,chat1,chat}": 2})
	e.answerTo("GET /ws/?t=" + soon + " HTTP/1.1\r\nHost: h\r\n\r\n")
	e.logs.wait(t, `"error":"token_expired"`)
}

// An endpoint decides, and its answer is the client's; where it cannot tell, the
// answer is 503. Nothing of it reaches the node before.
func TestEndpointDecides(t *testing.T) {
	t.Parallel()
	var asked atomic.Int32
	endpoint := httpNode(t, func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		if r.Header.Get("X-Forwarded-Host") != "im.example.gov" || r.Header.Get("X-Real-Ip") != "127.0.0.1" || r.Header.Get("X-User") != "" {
			t.Errorf("the endpoint got %v", r.Header)
		}
		switch {
		case strings.Contains(r.Header.Get("X-Forwarded-Uri"), "k3y"), strings.Contains(r.Header.Get("Cookie"), "k3y"):
			w.Header().Set("X-User", "bob of "+r.Header.Get("X-Forwarded-Method")+" "+r.Header.Get("X-Forwarded-Uri"))
		case strings.Contains(r.Header.Get("X-Forwarded-Uri"), "login"):
			w.Header().Set("Location", "/login/")
			w.Header().Add("Set-Cookie", "a=1; HttpOnly")
			w.Header().Add("Set-Cookie", "b=2")
			w.WriteHeader(302)
		case strings.Contains(r.Header.Get("X-Forwarded-Uri"), "broken"):
			w.WriteHeader(500)
		default:
			w.Header().Set("WWW-Authenticate", "Session")
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(401)
			io.WriteString(w, `{"error":"no_session"}`)
		}
	})
	node := startRecorder(t, "chat1")
	route := authRoute("/ws", "chat-session")
	route.Rewrite = "/"
	e := startEdge(t, []Route{route}, map[string]map[string]string{"chat": {"chat1": node.addr}}, with(sessionAuth("http://"+endpoint+"/session/")))
	for _, c := range []struct {
		path, header string
		status       int
		want         []string // in the answer
	}{
		{"/ws/k3y/bob?x=%20", "", 200, nil},
		{"/ws/a/bob", "Cookie: sessionid=k3y", 200, nil},
		{"/ws/a/bob", "", 401, []string{"\r\nWww-Authenticate: Session\r\n", "\r\nContent-Type: application/json\r\n", `{"error":"no_session"}`}},
		{"/ws/login/bob", "", 302, []string{"\r\nLocation: /login/\r\n", "\r\nSet-Cookie: a=1; HttpOnly\r\n", "\r\nSet-Cookie: b=2\r\n"}},
		{"/ws/broken/bob", "", 503, []string{`"error":"auth_unavailable"`, "\r\nRetry-After: "}},
		{"/ws/", "", 401, nil},
	} {
		for _, head := range []string{
			"GET " + c.path + " HTTP/1.1\r\nHost: im.example.gov\r\nConnection: close\r\nX-User: forged\r\n",
			strings.TrimSuffix(handshake(c.path, "X-User: forged"), "\r\n"),
		} {
			if c.header != "" {
				head += c.header + "\r\n"
			}
			conn := e.dial()
			io.WriteString(conn, head+"\r\n")
			answer := untilQuiet(conn)
			if !strings.HasPrefix(answer, fmt.Sprintf("HTTP/1.1 %d ", c.status)) || !containsAll(answer, c.want) {
				t.Errorf("%s:\n%s\nwant %d, %q", c.path, answer, c.status, c.want)
			}
			got := node.take()
			if (len(got) == 1) != (c.status == 200) {
				t.Errorf("%s: %d requests reached the node", c.path, len(got))
			}
			for _, r := range got {
				if v := r.values("X-User"); !slices.Equal(v, []string{"bob of GET " + c.path}) {
					t.Errorf("%s: the node got X-User %q", c.path, v)
				}
			}
		}
	}
	e.logs.wait(t, `"status":503`, `"cause":"auth chat-session: the endpoint answered with the status 500"`)
	e.logs.wait(t, `"status":302`, `"error":"auth_refused"`)
	if strings.Contains(e.logs.all(), "k3y") || !strings.Contains(e.logs.all(), "/ws/[redacted]/bob") {
		t.Errorf("a session in the path is not redacted:\n%s", e.logs.all())
	}
}

func untilQuiet(c net.Conn) string {
	b, _ := io.ReadAll(c)
	return string(b)
}

// A client that asks whether it may send its body is asked about once, and one
// that leaves takes the question along.
func TestEndpointIsAskedOnce(t *testing.T) {
	t.Parallel()
	var asked atomic.Int32
	began, gone := make(chan struct{}, 1), make(chan struct{}, 1)
	endpoint := httpNode(t, func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		if strings.Contains(r.Header.Get("X-Forwarded-Uri"), "wait") {
			began <- struct{}{}
			<-r.Context().Done()
			gone <- struct{}{}
		}
	})
	node := startRecorder(t, "chat1")
	e := startEdge(t, []Route{authRoute("/ws", "chat-session")}, map[string]map[string]string{"chat": {"chat1": node.addr}},
		with(sessionAuth("http://"+endpoint+"/")))
	c := e.dial()
	io.WriteString(c, "PUT /ws/k3y HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
	br := bufio.NewReader(c)
	if line, err := br.ReadString('\n'); err != nil || !strings.HasPrefix(line, "HTTP/1.1 100") {
		t.Fatalf("got %q, %v", line, err)
	}
	br.ReadString('\n')
	io.WriteString(c, "hello")
	if resp, _ := readAnswer(t, br); resp.StatusCode != 200 || node.only(t).body != "hello" {
		t.Errorf("got %s", resp.Status)
	}
	if n := asked.Load(); n != 1 {
		t.Errorf("%d questions, want one", n)
	}
	io.WriteString(c, "GET /ws/other HTTP/1.1\r\nHost: h\r\n\r\n")
	if resp, _ := readAnswer(t, br); resp.StatusCode != 200 || asked.Load() != 2 {
		t.Errorf("the next request on the connection: %s, %d questions", resp.Status, asked.Load())
	}
	leaver := e.dial()
	io.WriteString(leaver, handshake("/ws/wait"))
	await(t, "the question", began)
	leaver.Close()
	await(t, "the end of the question", gone)
	e.logs.wait(t, `"status":499`, `"error":"client_left"`)
}

// Files, pages and nodes' own ports are guarded as well, by one of several where
// the route says so; a reload reads the keys anew, and one that cannot is refused.
func TestAuthEverywhere(t *testing.T) {
	t.Parallel()
	f := fleet{}
	f.add("node1", imNode(t, "node1"))
	dir, base := t.TempDir(), freePorts(t, 2)
	if err := os.WriteFile(filepath.Join(dir, "a.txt"), []byte("file"), 0o600); err != nil {
		t.Fatal(err)
	}
	endpoint := httpNode(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Cookie") != "sessionid=k3y" {
			w.WriteHeader(403)
		}
	})
	rule := Policies{Auth: auth.Rule{Names: []string{"chat-token", "chat-session"}}}
	token := tokenAuth(t)
	e := startFleet(t, f, func(c *Config) {
		c.Auth = []auth.Config{token, sessionAuth("http://"+endpoint+"/", func(f *auth.Forward) { f.Credentials = f.Credentials[1:] }),
			{At: "test:5:1", Name: "by-path", Forward: &auth.Forward{URL: "http://" + endpoint + "/", Timeout: time.Second, Credentials: []auth.Source{{Kind: auth.FromPath, Segment: 2}}}}}
		c.Routes = append(c.Routes, Route{Paths: []string{"/site"}, Static: dir, Policies: rule}, Route{Paths: []string{"/_check"}, Page: "check", Policies: rule})
		c.NodePorts = []NodePort{{At: "f:1:1", Service: "im", Kind: "http", Listen: PortRule{Base: base - 1}, Timeouts: DefaultTimeouts(), Policies: rule},
			{At: "f:2:1", Service: "im", Kind: "http", Listen: PortRule{Base: base}, Timeouts: DefaultTimeouts(), Policies: Policies{Auth: auth.Rule{Names: []string{"by-path"}}}}}
	})
	status := func(addr, path, header string) int {
		t.Helper()
		c := e.dialTo(addr, false)
		io.WriteString(c, "GET "+path+" HTTP/1.1\r\nHost: h\r\nConnection: close\r\n"+header+"\r\n")
		resp, _ := readAnswer(t, bufio.NewReader(c))
		return resp.StatusCode
	}
	good := "?t=" + chatToken(t)
	for _, at := range []struct{ addr, path string }{{e.plain, "/site/a.txt"}, {e.plain, "/_check/"}, {loopback(base), "/"}} {
		for query, want := range map[string]int{"": 403, good: 200, "?t=x": 401} {
			if got := status(at.addr, at.path+query, ""); got != want {
				t.Errorf("%s%.4s: %d, want %d", at.path, query, got, want)
			}
		}
		if got := status(at.addr, at.path, "Cookie: sessionid=k3y\r\n"); got != 200 {
			t.Errorf("%s with a session: %d", at.path, got)
		}
	}
	status(loopback(base+1), "/room/k3y/x", "")
	e.logs.wait(t, `"path":"/room/[redacted]/x"`)
	e.logs.wait(t, `"path":"/site/a.txt"`)
	if err := os.WriteFile(token.JWT.KeyFile, []byte("another secret, of more than thirty-two bytes"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := e.Apply(e.cfg, nil); err != nil {
		t.Fatal(err)
	}
	if got := status(e.plain, "/site/a.txt"+good, ""); got != 401 {
		t.Errorf("with a token of the old secret: %d", got)
	}
	os.Remove(token.JWT.KeyFile)
	if err := e.Apply(e.cfg, nil); err == nil || !strings.Contains(err.Error(), `test:3:1: auth "chat-token": key_file: `) {
		t.Errorf("without its key file: %v", err)
	}
	if err := Check(e.cfg); err == nil {
		t.Error("check finds nothing wrong with it")
	}
}
