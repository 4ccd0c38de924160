package e2e

import (
	"fmt"
	"maps"
	"testing"

	"singlegate/internal/imservers"
)

// strophe.js and an ejabberd, at its own paths.
func TestEjabberd(t *testing.T) {
	t.Parallel()
	ejabberd := imservers.StartEjabberd(t, imservers.XMPPOptions{Host: "im.example.gov", Accounts: maps.Clone(accounts)})
	x := startXMPPSite(t, fmt.Sprintf(`
services: {xmpp: {nodes: {xmpp1: %q}}}
routes:
  - {path: /bosh, accept: http, service: xmpp, timeouts: {read: 330s}}
  - {path: /ws, accept: websocket, service: xmpp}
`, ejabberd.HTTP))
	names := []string{"anna", "boris", "chen"}
	x.login("anna", x.url("https", "/bosh"), 0)
	x.login("boris", x.url("wss", "/ws"), 0)
	x.login("chen", x.url("https", "/bosh/"), 10)
	x.converse("hello", names...)
	// chen's polls end unanswered, and the session goes on.
	x.awaitEvent("a poll that ends for its time", serverPatience, func(e event) bool {
		return e.Event == "answer" && e.Path == "/bosh/" && e.Status == 200 && e.Held >= 9_000
	})
	x.converse("again", names...)

	ejabberd.Kill()
	x.awaitNamed("boris", "DISCONNECTED")
	ejabberd.Start()
	for _, name := range names {
		x.awaitTimes(2, name, "CONNECTED")
	}
	x.converse("back", names...)
	x.leave(names...)
}
