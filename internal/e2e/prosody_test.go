package e2e

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"singlegate/internal/imservers"
)

// accounts are those of every real XMPP server here, by user name.
var accounts = map[string]string{"anna": "a-1", "boris": "b-2", "chen": "c-3", "dora": "d-4"}

// startProsody starts a Prosody for im.example.gov.
func startProsody(t *testing.T) *imservers.Server {
	t.Helper()
	return imservers.StartProsody(t, imservers.XMPPOptions{Host: "im.example.gov", Accounts: maps.Clone(accounts)})
}

// An xmppSite is a gateway in front of XMPP servers, and a program with clients
// that use it.
type xmppSite struct {
	*site
	*puppet
	dir  string
	port string // of its TLS listener
}

// startXMPPSite runs a gateway with services and routes, and no client yet.
func startXMPPSite(t *testing.T, config string) *xmppSite {
	t.Helper()
	x := &xmppSite{dir: t.TempDir()}
	writeCertificate(t, x.dir)
	writeFile(t, x.dir, "gateway.yaml", `
listeners: [{name: tls, address: "127.0.0.1:0", tls: true}]
tls: {certificates: [{cert: cert.pem, key: key.pem}]}
`+config)
	x.site = startSite(t, x.dir)
	_, x.port, _ = strings.Cut(x.listeners["tls"], ":")
	x.puppet = startPuppet(t, "strophe.mjs", filepath.Join(x.dir, "cert.pem"))
	return x
}

// url is an address of the site, as clients have it.
func (x *xmppSite) url(scheme, path string) string {
	return scheme + "://im.example.gov:" + x.port + path
}

// jid is the full address of a client by its name.
func jid(name string) string { return name + "@im.example.gov/web" }

// login lets a client log in and waits until it has done so. wait is how many
// seconds the server may hold its polls, 0: as strophe has it.
func (p *puppet) login(name, url string, wait int) event {
	p.t.Helper()
	p.tell(step{Do: "connect", Name: name, URL: url, JID: jid(name), Password: accounts[name], Wait: wait, Again: true})
	return p.awaitNamed(name, "CONNECTED")
}

// converse lets every client say something to every other one.
func (p *puppet) converse(about string, names ...string) {
	p.t.Helper()
	each := func(do func(from, to string)) {
		for _, from := range names {
			for _, to := range names {
				if from != to {
					do(from, to)
				}
			}
		}
	}
	text := func(from, to string) string { return fmt.Sprintf("%s: 你好 %s & <%s>", about, to, from) }
	each(func(from, to string) { p.tell(step{Do: "say", Name: from, To: jid(to), Text: text(from, to)}) })
	each(func(from, to string) { p.awaitHeard(to, jid(from), text(from, to)) })
}

// leave lets clients log out, in order.
func (p *puppet) leave(names ...string) {
	p.t.Helper()
	for _, name := range names {
		n := len(p.events(name, "DISCONNECTED"))
		p.tell(step{Do: "leave", Name: name})
		p.awaitTimes(n+1, name, "DISCONNECTED")
	}
}

// oneXMPP is a service with one node, and routes to its two doors.
func oneXMPP(address string) string {
	return fmt.Sprintf(`
services: {xmpp: {nodes: {xmpp1: %q}}}
routes:
  - {path: /http-bind, accept: http, service: xmpp, timeouts: {read: 330s}}
  - {path: /xmpp-websocket, accept: websocket, service: xmpp}
`, address)
}

// strophe.js and a Prosody: login, presence and messages over BOSH at both of its
// paths and over WebSocket, between one another; the server dies and comes back.
func TestProsody(t *testing.T) {
	t.Parallel()
	prosody := startProsody(t)
	x := startXMPPSite(t, oneXMPP(prosody.HTTP))
	names := []string{"anna", "boris", "chen"}
	for name, url := range map[string]string{
		"anna":  x.url("https", "/http-bind"),
		"boris": x.url("https", "/http-bind/"),
		"chen":  x.url("wss", "/xmpp-websocket"),
	} {
		x.login(name, url, 0)
	}
	for i, name := range names {
		other := names[(i+1)%len(names)]
		x.tell(step{Do: "greet", Name: name, To: jid(other)})
		x.awaitEvent(other+" to see "+name, serverPatience, func(e event) bool {
			return e.Name == other && e.Event == "presence" && e.From == jid(name) && e.Text == "available"
		})
	}
	x.converse("hello", names...)

	prosody.Kill()
	x.awaitNamed("chen", "DISCONNECTED")
	prosody.Start()
	for _, name := range names {
		x.awaitTimes(2, name, "CONNECTED")
	}
	x.converse("back", names...)
	x.leave(names...)
	x.awaitAnswers("/http-bind", "/http-bind/")
}

// awaitAnswers makes sure that BOSH was asked for at paths.
func (p *puppet) awaitAnswers(paths ...string) {
	p.t.Helper()
	for _, path := range paths {
		p.awaitEvent("an answer at "+path, patience, func(e event) bool {
			return e.Event == "answer" && e.Path == path && e.Status == 200
		})
	}
}

// Nobody says anything for longer than the minute after which many a proxy ends
// what it takes for dead.
func TestProsodyIdle(t *testing.T) {
	t.Parallel()
	prosody := startProsody(t)
	x := startXMPPSite(t, oneXMPP(prosody.HTTP))
	x.login("anna", x.url("https", "/http-bind"), 67)
	x.login("boris", x.url("wss", "/xmpp-websocket"), 0)
	x.awaitEvent("a poll of more than 65 s", 2*serverPatience, func(e event) bool {
		return e.Event == "answer" && e.Status == 200 && e.Held >= 65_000
	})
	x.converse("still here", "anna", "boris")
	for _, name := range []string{"anna", "boris"} {
		if all := x.events(name, "CONNECTED"); len(all) != 1 {
			t.Errorf("%s logged in %d times, want once", name, len(all))
		}
	}
	if statuses := x.statuses(); !slices.Equal(statuses, []int{200}) {
		t.Errorf("BOSH was answered with %v, want 200 only", statuses)
	}
	x.leave("anna", "boris")
}

// statuses are the different ones of the answers so far.
func (p *puppet) statuses() []int {
	p.t.Helper()
	var list []int
	for _, e := range p.events("", "answer") {
		if !slices.Contains(list, e.Status) {
			list = append(list, e.Status)
		}
	}
	return list
}
