package gateway

import (
	"io"
	"net/netip"
	"testing"
)

func prefixes(list ...string) []netip.Prefix {
	var ps []netip.Prefix
	for _, s := range list {
		ps = append(ps, netip.MustParsePrefix(s))
	}
	return ps
}

// Who may use a route is decided by the client's address, which only a trusted
// proxy may say; whom it refuses, no node hears of.
func TestAddressPolicies(t *testing.T) {
	t.Parallel()
	here, elsewhere, all := prefixes("127.0.0.0/8", "::1/128"), prefixes("10.0.0.0/8"), prefixes("0.0.0.0/0", "::/0")
	node := startRecorder(t, "app1")
	route := func(path string, p Policies) Route { return Route{Paths: []string{path}, Service: "app", Policies: p} }
	e := startEdge(t, []Route{
		route("/here", Policies{Allow: here}),
		route("/elsewhere", Policies{Allow: elsewhere}),
		route("/both", Policies{Allow: here, Deny: here}),
		route("/open", Policies{Deny: elsewhere}),
		route("/open/closed", Policies{Deny: all}),
		{Paths: []string{"/nothing"}, Policies: Policies{Deny: all}},
	}, map[string]map[string]string{"app": {"app1": node.addr}})
	trusting := startEdge(t, []Route{route("/elsewhere", Policies{Allow: elsewhere})}, map[string]map[string]string{"app": {"app1": node.addr}},
		func(c *Config) { c.TrustedProxies = here })
	const from10 = "X-Forwarded-For: 10.1.2.3\r\n"
	const handshake = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
	cases := []struct {
		edge          *edge
		path, headers string
		status        int
	}{
		{e, "/here", "", 200}, {e, "/elsewhere", "", 403}, {e, "/both", "", 403}, {e, "/open", "", 200},
		{e, "/open/closed/x", "", 403}, {e, "/open/%63losed", "", 403}, {e, "/open//closed", "", 403},
		{e, "/nothing", "", 403}, {e, "/nothing", handshake, 403},
		{e, "/elsewhere", from10, 403}, {e, "/open", from10, 200}, {trusting, "/elsewhere", from10, 200}, {trusting, "/elsewhere", "", 403},
		{e, "/elsewhere", "Expect: 100-continue\r\nContent-Length: 5\r\n", 403},
	}
	for _, c := range cases {
		eachWire(t, func(t *testing.T, secure bool) {
			conn := c.edge.dialAny(secure)
			io.WriteString(conn, "GET "+c.path+" HTTP/1.1\r\nHost: h\r\nConnection: close\r\n"+c.headers+"\r\n")
			answers, _, err := answersOn(conn, 1)
			if err != nil || len(answers) != 1 || answers[0].StatusCode != c.status {
				t.Fatalf("%s %q: %v, %v, want %d", c.path, c.headers, answers, err, c.status)
			}
			if got := len(node.take()); (got == 1) != (c.status == 200) {
				t.Errorf("%s: %d requests reached the node", c.path, got)
			}
		})
	}
}
