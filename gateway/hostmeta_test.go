package gateway

import (
	"encoding/json"
	"encoding/xml"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
)

// hostMetaOf asks for both documents, which must say the same: "websocket URL",
// "xbosh URL", in their order.
func hostMetaOf(t *testing.T, e *edge, secure bool, host, more string) []string {
	t.Helper()
	get := func(method, path string) gotAnswer {
		conn := e.dialAny(secure)
		io.WriteString(conn, method+" "+path+" HTTP/1.1\r\nHost: "+host+"\r\nConnection: close\r\n"+more+"\r\n")
		if method == "HEAD" {
			head, err := io.ReadAll(conn)
			if err != nil || !strings.HasPrefix(string(head), "HTTP/1.1 200 ") || !strings.HasSuffix(string(head), "\r\n\r\n") {
				t.Fatalf("HEAD %s: %q, %v", path, head, err)
			}
			return gotAnswer{}
		}
		answers, _, err := answersOn(conn, 1)
		if err != nil || len(answers) != 1 || answers[0].StatusCode != 200 {
			t.Fatalf("%s %s: %v, %v", method, path, answers, err)
		}
		if got := answers[0].Header.Values("Access-Control-Allow-Origin"); !slices.Equal(got, []string{"*"}) {
			t.Errorf("%s: Access-Control-Allow-Origin: %q", path, got)
		}
		return answers[0]
	}
	get("HEAD", "/.well-known/host-meta")
	doc := get("GET", "/.well-known/host-meta")
	var xrd struct {
		XMLName xml.Name `xml:"http://docs.oasis-open.org/ns/xri/xrd-1.0 XRD"`
		Link    []struct {
			Rel  string `xml:"rel,attr"`
			Href string `xml:"href,attr"`
		}
	}
	if err := xml.Unmarshal([]byte(doc.body), &xrd); err != nil || doc.Header.Get("Content-Type") != "application/xrd+xml; charset=utf-8" {
		t.Errorf("%v, %v: %s", doc.Header, err, doc.body)
	}
	jrd := struct {
		Links []struct{ Rel, Href string }
	}{}
	doc = get("GET", "/.well-known/host-meta.json")
	if err := json.Unmarshal([]byte(doc.body), &jrd); err != nil || jrd.Links == nil || doc.Header.Get("Content-Type") != "application/json; charset=utf-8" {
		t.Errorf("%v, %v: %s", doc.Header, err, doc.body)
	}
	var links, other []string
	for _, l := range xrd.Link {
		links = append(links, strings.TrimPrefix(l.Rel, "urn:xmpp:alt-connections:")+" "+l.Href)
	}
	for _, l := range jrd.Links {
		other = append(other, strings.TrimPrefix(l.Rel, "urn:xmpp:alt-connections:")+" "+l.Href)
	}
	if !slices.Equal(links, other) {
		t.Errorf("XML says %q, JSON %q", links, other)
	}
	return links
}

func xmppRoutes(more ...Route) []Route {
	return append([]Route{
		{Paths: HostMetaPaths(), Page: PageHostMeta},
		{Paths: []string{"/http-bind/"}, Kind: KindBOSH, Accept: AcceptHTTP, Service: "xmpp"},
		{Paths: []string{"/xmpp-websocket"}, Kind: KindXMPP, Accept: AcceptWebSocket, Service: "xmpp"},
		{Paths: []string{"/http-bind/{node}"}, Kind: KindBOSH, Accept: AcceptHTTP, Service: "xmpp"},
		{Paths: []string{"/plain"}, Kind: KindBOSH, Accept: AcceptHTTP, Service: "xmpp", Listeners: []string{"plain"}},
		{Paths: []string{"/chat"}, Accept: AcceptWebSocket, Service: "xmpp"},
	}, more...)
}

// Clients are told of the routes for them, by addresses over TLS alone, whichever
// way they ask.
func TestHostMeta(t *testing.T) {
	t.Parallel()
	services := map[string]map[string]string{"xmpp": {}}
	e := startEdge(t, xmppRoutes(
		Route{Host: "{node}.im.example.gov", Paths: []string{"/"}, Kind: KindBOSH, Accept: AcceptHTTP, Service: "xmpp"},
		Route{Host: "chat.example.gov", Paths: []string{"/bosh"}, Kind: KindBOSH, Accept: AcceptHTTP, Service: "xmpp"},
		Route{Host: "chat.example.gov", Paths: HostMetaPaths(), Page: PageHostMeta, Policies: Policies{CORS: &CORS{Origins: []string{"*"}}}},
	), services)
	_, port, _ := net.SplitHostPort(e.secure)
	at := func(host string) string { return host + ":" + port }
	eachWire(t, func(t *testing.T, secure bool) {
		want := []string{
			"websocket wss://" + at("im.example.gov") + "/xmpp-websocket", "xbosh https://" + at("chat.example.gov") + "/bosh", "xbosh https://" + at("im.example.gov") + "/http-bind",
		}
		if got := hostMetaOf(t, e, secure, "im.example.gov:1", ""); !slices.Equal(got, want) {
			t.Errorf("got %q", got)
		}
		want = []string{
			"websocket wss://" + at("chat.example.gov") + "/xmpp-websocket", "xbosh https://" + at("chat.example.gov") + "/bosh", "xbosh https://" + at("chat.example.gov") + "/http-bind",
		}
		if got := hostMetaOf(t, e, secure, "chat.example.gov", ""); !slices.Equal(got, want) {
			t.Errorf("by a host with a route of its own: %q", got)
		}
	})
	for _, c := range []struct {
		request string
		status  int
	}{
		{"POST /.well-known/host-meta", 405}, {"GET /.well-known/host-meta/x", 404}, {"GET /.well-known/other", 404}, {"GET /.well-known/host-meta/", 200},
	} {
		if resp, body := e.answerTo(c.request + " HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"); resp.StatusCode != c.status {
			t.Errorf("%s: %s %s", c.request, resp.Status, body)
		}
	}
}

func TestHostMetaNames(t *testing.T) {
	t.Parallel()
	services := map[string]map[string]string{"xmpp": {}}
	e := startEdge(t, xmppRoutes(), services, func(c *Config) { c.Public = Public{Host: "edge.example.gov", Port: 443} })
	for host, want := range map[string]string{"im.example.gov": "im.example.gov", "[::1]:99": "[::1]"} {
		if got := hostMetaOf(t, e, false, host, ""); !slices.Equal(got, []string{"websocket wss://" + want + "/xmpp-websocket", "xbosh https://" + want + "/http-bind"}) {
			t.Errorf("%s: %q", host, got)
		}
	}
	alone := func(c *Config) { c.Listeners = c.Listeners[:1] }
	e = startEdge(t, xmppRoutes(), services, alone)
	if got := hostMetaOf(t, e, false, "im.example.gov", "X-Forwarded-Proto: https\r\n"); len(got) > 0 {
		t.Errorf("without TLS: %q", got)
	}
	e = startEdge(t, xmppRoutes(), services, alone, func(c *Config) { c.TrustedProxies = prefixes("127.0.0.0/8") })
	want := []string{"websocket wss://out.example.gov/xmpp-websocket", "xbosh https://out.example.gov/http-bind", "xbosh https://out.example.gov/plain"}
	if got := hostMetaOf(t, e, false, "im.example.gov", "X-Forwarded-Proto: https\r\nX-Forwarded-Host: out.example.gov\r\n"); !slices.Equal(got, want) {
		t.Errorf("behind a proxy that ends TLS: %q", got)
	}
}

func TestHostMetaWarnings(t *testing.T) {
	page := Route{At: "f:1:1", Paths: HostMetaPaths(), Page: PageHostMeta}
	pinned := Route{Paths: []string{"/http-bind/{node}"}, Kind: KindBOSH}
	byHost := Route{Host: "{node}.example.gov", Paths: []string{"/"}, Kind: KindXMPP}
	if got := Warnings(Config{Routes: []Route{page, pinned, byHost, {Paths: []string{"/chat"}}}}); len(got) != 1 || !strings.HasPrefix(got[0], "f:1:1: page: host_meta tells clients of nothing") {
		t.Errorf("got %q", got)
	}
	pinned.Paths = append(pinned.Paths, "/http-bind")
	if got := Warnings(Config{Routes: []Route{page, pinned}}); len(got) != 0 {
		t.Errorf("got %q", got)
	}
}
