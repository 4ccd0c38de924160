package e2e

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/gobwas/ws"

	"singlegate/internal/standin"
)

// MQTT packets of a WildfireChat client (MQTT 3.1.1, sections 3.1 and 3.12, with
// WildfireChat's own level 6).
const (
	mqttConnect = "\x10\x10\x00\x04MQTT\x06\x02\x00\xc8\x00\x04user"
	mqttConnack = "\x20\x02\x00\x00"
	mqttPing    = "\xc0\x00"
	mqttPong    = "\xd0\x00"
)

func testWildfireChat(t *testing.T, e *example) {
	for _, o := range []standin.Options{
		{ID: "node1", Address: "127.0.0.1:10081", System: standin.WildfireChat},
		{ID: "node1", Address: "127.0.0.1:8083", System: standin.WildfireChat},
		{ID: "node2", Address: "127.0.0.1:10082", System: standin.WildfireChat},
		{ID: "node2", Address: "127.0.0.1:18083", System: standin.WildfireChat},
	} {
		startNode(t, o)
	}
	startAppServer(t, "127.0.0.1:8888")
	e.start(t)
	for _, listener := range []string{"tls", "plain"} {
		d := e.door(t, listener, "im.example.gov")
		wildfireHTTP(t, d)
		wildfireCORS(t, d)
		wildfireApp(t, d)
		for _, node := range []string{"node1", "node2"} {
			mqttSession(t, d, "/ws/"+node, node)
			mqttSession(t, e.door(t, listener, node+".im.example.gov"), "/", node)
		}
		wildfireRefusals(t, d)
		named := e.door(t, listener, "node2.im.example.gov")
		for range 4 {
			_, body := named.request(t, "GET", "/api/version", "")
			nodeSays(t, body, "node2") // never another one
		}
		stranger := e.door(t, listener, "node7.im.example.gov")
		stranger.refused(t, 404, "/", "Sec-WebSocket-Protocol", "mqtt")
	}
	e.checkIt(t)
}

// wildfireHTTP makes the HTTP calls of a client, which any node answers.
func wildfireHTTP(t *testing.T, d door) {
	t.Helper()
	seen := map[string]int{}
	for range 4 {
		answer, body := d.request(t, "POST", "/route", "encrypted", "Origin", "https://web.example.gov")
		if answer.StatusCode != 200 {
			t.Fatalf("POST /route: %s %s", answer.Status, body)
		}
		seen[decode[said](t, body).Node]++
	}
	if seen["node1"] != 2 || seen["node2"] != 2 {
		t.Errorf("POST /route went to %v, want it to take turns", seen)
	}
	if answer, body := d.request(t, "GET", "/api/version", ""); answer.StatusCode != 200 {
		t.Errorf("GET /api/version: %s %s", answer.Status, body)
	}

	_, body := d.request(t, "POST", "/im/route?x=%2F", "\x00body", "p", "1", "cid", "c", "uid", "u", "appId", "i", "appKey", "k")
	call := decode[said](t, body)
	if call.Body != "\x00body" || call.Path != "/im/route" || len(call.Headers) != 5 || call.Headers["appKey"] != "k" || call.Headers["p"] != "1" {
		t.Errorf("of POST /im/route the node saw %+v", call)
	}
	_, body = d.request(t, "PUT", "/fs/a%20b/x.bin", strings.Repeat("x", 3<<20))
	if upload := decode[said](t, body); upload.Bytes != 3<<20 || upload.Path != "/fs/a%20b/x.bin" {
		t.Errorf("of PUT /fs the node saw %+v", upload)
	}
}

// wildfireCORS calls /im as a page on another host does, and /route, which has no
// CORS headers of the gateway's.
func wildfireCORS(t *testing.T, d door) {
	t.Helper()
	page := []string{"Origin", "https://web.example.gov"}
	preflight := append([]string{"Access-Control-Request-Method", "POST", "Access-Control-Request-Headers", "appid,appkey,cid,p,uid"}, page...)
	answer, body := d.request(t, "OPTIONS", "/im/route", "", preflight...)
	h := answer.Header
	if answer.StatusCode != 204 || body != "" || h.Get("Access-Control-Allow-Origin") != "*" ||
		h.Get("Access-Control-Allow-Methods") != "POST, OPTIONS" || h.Get("Access-Control-Allow-Headers") != "p, cid, uid, appId, appKey" {
		t.Errorf("preflight of /im: %s %v", answer.Status, h)
	}
	answer, _ = d.request(t, "POST", "/im/route", "x", page...)
	if got := answer.Header.Values("Access-Control-Allow-Origin"); answer.StatusCode != 200 || len(got) != 1 || got[0] != "*" {
		t.Errorf("POST /im: %s, Access-Control-Allow-Origin: %q", answer.Status, got)
	}
	answer, _ = d.request(t, "OPTIONS", "/route", "", preflight...)
	if answer.StatusCode == 204 || len(answer.Header.Values("Access-Control-Allow-Origin")) > 0 {
		t.Errorf("preflight of /route: %s %v", answer.Status, answer.Header)
	}
}

// startAppServer serves what an app server has: pages that redirect and set
// cookies, and uploads.
func startAppServer(t *testing.T, address string) {
	t.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, `{"node": "app1"}`) })
	mux.HandleFunc("GET /login", func(w http.ResponseWriter, r *http.Request) {
		http.SetCookie(w, &http.Cookie{Name: "session", Value: "1", Path: "/", HttpOnly: true})
		http.Redirect(w, r, r.URL.Query().Get("to"), http.StatusFound)
	})
	mux.HandleFunc("POST /upload", func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		fmt.Fprintf(w, `{"bytes": %d, "whole": %t}`, n, err == nil)
	})
	listener, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: mux}
	done := make(chan struct{})
	go func() {
		defer close(done)
		server.Serve(listener)
	}()
	t.Cleanup(func() {
		server.Close()
		<-done
	})
}

// wildfireApp uses the app server below /app/.
func wildfireApp(t *testing.T, d door) {
	t.Helper()
	_, body := d.request(t, "GET", "/app/", "")
	nodeSays(t, body, "app1")
	scheme := "http"
	if d.roots != nil {
		scheme = "https"
	}
	for to, want := range map[string]string{
		"/home?x=1":                       "/app/home?x=1",
		"http://127.0.0.1:8888/home":      scheme + "://" + d.host + "/app/home",
		"http://" + d.host + "/home":      scheme + "://" + d.host + "/app/home",
		"https://elsewhere.example.gov/a": "https://elsewhere.example.gov/a",
	} {
		answer, _ := d.request(t, "GET", "/app/login?to="+url.QueryEscape(to), "")
		if got := answer.Header.Get("Location"); answer.StatusCode != 302 || got != want {
			t.Errorf("a redirect to %s: %s to %s, want %s", to, answer.Status, got, want)
		}
		if got := answer.Header.Get("Set-Cookie"); got != "session=1; Path=/app; HttpOnly" {
			t.Errorf("Set-Cookie: %s", got)
		}
	}
	if _, body = d.request(t, "POST", "/app/upload", strings.Repeat("x", 3<<20)); body != `{"bytes": 3145728, "whole": true}` {
		t.Errorf("an upload: %s", body)
	}
	answer, body := d.request(t, "POST", "/app/upload", "", "Content-Length", "100000001", "Expect", "100-continue")
	if answer.StatusCode != 413 || decode[said](t, body).Error != "body_too_large" {
		t.Errorf("a large upload: %s %s", answer.Status, body)
	}
}

// mqttSession connects as web and mini-program clients do.
func mqttSession(t *testing.T, d door, target, node string) {
	t.Helper()
	s := d.open(t, target, "Sec-WebSocket-Protocol", "mqtt", "Origin", "weapp://wx1234567890/devtools/page-frame.html")
	if got := s.answer.Header.Get("Sec-WebSocket-Protocol"); got != "mqtt" {
		t.Errorf("%s: subprotocol %q, want mqtt", target, got)
	}
	if got := s.answer.Header.Get("X-Node"); got != node {
		t.Errorf("%s of %s reached %q, want %s", target, d.host, got, node)
	}
	if got := s.ask(t, ws.OpBinary, mqttConnect); got != mqttConnack {
		t.Errorf("%s: CONNECT was answered with %x", target, got)
	}
	if got := s.ask(t, ws.OpBinary, mqttPing); got != mqttPong {
		t.Errorf("%s: PINGREQ was answered with %x", target, got)
	}
}

func wildfireRefusals(t *testing.T, d door) {
	t.Helper()
	for _, target := range []string{"/ws/node3", "/ws/node10", "/ws/"} {
		d.refused(t, 404, target, "Sec-WebSocket-Protocol", "mqtt")
	}
	if got := decode[said](t, d.refused(t, 404, "/ws/node3")).Error; got != "node_unknown" {
		t.Errorf("the refusal of node3 has error %q, want node_unknown", got)
	}
	for _, path := range []string{"/admin", "/admin/user", "/%61dmin//user", "/minio/"} {
		if answer, body := d.request(t, "GET", path, ""); answer.StatusCode != 403 || decode[said](t, body).Error != "address_refused" {
			t.Errorf("GET %s: %s %s, want 403", path, answer.Status, body)
		}
	}
	if answer, body := d.request(t, "GET", "/", ""); answer.StatusCode != 200 || !strings.Contains(body, "<html") {
		t.Errorf("GET /: %s %s, want the web client", answer.Status, body)
	}
}
