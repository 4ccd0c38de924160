package e2e

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

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
	dir := t.TempDir()
	writeCertificate(t, dir)
	x := gatewayWith(t, dir, config)
	x.puppet = startPuppet(t, "strophe.mjs", filepath.Join(dir, "cert.pem"))
	return x
}

// gatewayWith runs a gateway with the certificate in a folder, at a port that it
// finds free when it starts again.
func gatewayWith(t *testing.T, dir, config string) *xmppSite {
	t.Helper()
	address := imservers.FreeAddress(t)
	_, port, _ := strings.Cut(address, ":")
	writeFile(t, dir, "gateway.yaml", fmt.Sprintf(`
admin: {address: "127.0.0.1:0"}
listeners: [{name: tls, address: %q, tls: true}]
tls: {certificates: [{cert: cert.pem, key: key.pem}]}
`, address)+config)
	return &xmppSite{site: startSite(t, dir), dir: dir, port: port}
}

// settle waits until clients over BOSH have nothing to say and one request under
// way each. A client whose poll is cut off repeats it at once, and then after 8 s.
// With another request in between the repeated one comes out of order, for which
// Prosody ends the session.
func (p *puppet) settle(names ...string) {
	p.t.Helper()
	for _, name := range names {
		n := len(p.events(name, "settled"))
		p.tell(step{Do: "settle", Name: name})
		p.awaitTimes(n+1, name, "settled")
	}
}

// awaitPolls waits until the gateway sees as many polls held.
func (x *xmppSite) awaitPolls(t *testing.T, n int) {
	t.Helper()
	admin := door{address: x.admin, host: x.admin}
	want := fmt.Sprintf("singlegate_bosh_polls{service=\"xmpp\"} %d\n", n)
	metrics := ""
	for end := time.Now().Add(serverPatience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if _, metrics = admin.request(t, "GET", "/metrics", ""); strings.Contains(metrics, want) {
			return
		}
	}
	t.Fatalf("no %s in\n%s", want, metrics)
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
  - {path: /http-bind, service: xmpp, kind: bosh}
  - {path: /xmpp-websocket, service: xmpp, kind: xmpp}
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
	t.Parallel() // that is, behind those that are not
	if idle.join(t) {
		return
	}
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

// Two Prosodys that know nothing of each other behind one BOSH path: sessions at
// both at once go on through a restart of the gateway and through another gateway
// that shares nothing with it, and begin anew at the other server when theirs dies.
func TestTwoProsodys(t *testing.T) {
	t.Parallel()
	first, second := startProsody(t), startProsody(t)
	config := fmt.Sprintf(`
services: {xmpp: {nodes: {xmpp1: %q, xmpp2: %q}}}
routes: [{path: /http-bind, service: xmpp, kind: bosh}]
shutdown: {grace: 0s, drain: 1s}
`, first.HTTP, second.HTTP)
	x := startXMPPSite(t, config)
	names := slices.Sorted(maps.Keys(accounts))
	sessions := map[string][]string{} // names by the mark of the node in their sid
	for _, name := range names {
		_, mark, _ := strings.Cut(x.login(name, x.url("https", "/http-bind"), 0).SID, "~")
		sessions[mark] = append(sessions[mark], name)
	}
	marks := slices.Collect(maps.Keys(sessions))
	if len(marks) != 2 || len(sessions[marks[0]]) != 2 {
		t.Fatalf("the sessions and their marks are %v, want two at each of two servers", sessions)
	}
	converse := func(about string) {
		t.Helper()
		for _, together := range sessions {
			x.converse(about, together...)
		}
	}
	stranger := sessions[marks[1]][0] // who is not there for those at the other server
	x.tell(step{Do: "say", Name: sessions[marks[0]][0], To: jid(stranger), Text: "are you there?"})
	converse("hello")

	x.settle(names...)
	x.awaitPolls(t, len(names))
	x.site.signal(syscall.SIGTERM)
	if code := x.site.exit(); code != 0 {
		t.Errorf("the gateway ended with %d", code)
	}
	x.site = startSite(t, x.dir)
	x.awaitPolls(t, len(names))
	converse("restarted")

	other := gatewayWith(t, x.dir, config)
	for _, name := range []string{sessions[marks[0]][0], sessions[marks[1]][0]} {
		x.tell(step{Do: "move", Name: name, URL: other.url("https", "/http-bind")})
	}
	converse("some by another gateway")
	x.settle(names...)
	x.awaitPolls(t, 2)
	other.awaitPolls(t, 2)
	for _, name := range names {
		x.tell(step{Do: "move", Name: name, URL: other.url("https", "/http-bind")})
	}
	x.site.signal(syscall.SIGKILL)
	x.site.exit()
	other.awaitPolls(t, len(names))
	converse("all by another gateway")
	logins := func() (n int) {
		for _, name := range names {
			n += len(x.events(name, "CONNECTED"))
		}
		return n
	}
	if n := logins(); n != len(names) {
		t.Errorf("%d logins, want one session of each client all the time", n)
	}

	first.Kill()
	x.awaitEvent("a session that is over", serverPatience, func(e event) bool {
		return e.Event == "answer" && e.Status == 200 && e.Text == "remote-connection-failed"
	})
	n := 0
	x.awaitEvent("the dead server's clients to log in at the other one", serverPatience, func(e event) bool {
		if e.Event == "CONNECTED" {
			n++
		}
		return n == len(names)+2
	})
	x.converse("all at one server", names...)
	if n := logins(); n != len(names)+2 {
		t.Errorf("%d logins, want those of the dead server's clients only", n)
	}
	for _, e := range x.events(stranger, "message") {
		if e.Text == "are you there?" {
			t.Errorf("%s heard somebody of the other server: there were not two", stranger)
		}
	}
	x.leave(names...)
}
