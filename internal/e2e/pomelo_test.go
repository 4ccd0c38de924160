package e2e

import (
	"strconv"
	"testing"

	"github.com/gobwas/ws"

	"singlegate/internal/standin"
)

func testPomelo(t *testing.T, e *example) {
	startNode(t, standin.Options{ID: "gate-1", Address: "127.0.0.1:3014", System: standin.Pomelo, Connector: "10.0.0.41:3051"})
	for id, address := range map[string]string{"connector-1": "127.0.0.1:3050", "connector-2": "127.0.0.1:3051", "connector-3": "127.0.0.1:3052"} {
		startNode(t, standin.Options{ID: id, Address: address, System: standin.Pomelo})
	}
	e.start(t)
	d := e.door(t, "tls", "im.example.gov")

	gate := pomeloSession(t, d, "/gate/", "gate-1")
	entry := nodeSays(t, gate.ask(t, ws.OpBinary, pomeloPackage(4, `gate.gateHandler.queryEntry {"uid":"alice"}`))[4:], "gate-1")
	gate.conn.Close()
	if entry.Port != 3051 {
		t.Fatalf("the gate names port %d, want 3051: its answer was changed", entry.Port)
	}
	connector := pomeloSession(t, d, "/ws/"+strconv.Itoa(entry.Port)+"/", "connector-2")
	if got, want := connector.ask(t, ws.OpBinary, pomeloPackage(3, "")), pomeloPackage(3, ""); got != want {
		t.Errorf("the heartbeat was answered with %x, want %x", got, want)
	}
	if got, want := connector.ask(t, ws.OpBinary, pomeloPackage(4, "chat.send hello")), pomeloPackage(4, "chat.send hello"); got != want {
		t.Errorf("the connector answered %q", got)
	}
	pomeloSession(t, d, "/ws/3050/", "connector-1")
	pomeloSession(t, d, "/ws/3052", "connector-3")
	for range 3 {
		pomeloSession(t, d, "/conn/", "connector-1")
	}
	for _, unlisted := range []string{"/ws/3306/", "/ws/3014/", "/ws/30500/", "/ws/"} {
		d.refused(t, 404, unlisted)
	}
	e.checkIt(t)
}

// pomeloSession opens a WebSocket and makes Pomelo's handshake with a node.
func pomeloSession(t *testing.T, d door, target, node string) *socket {
	t.Helper()
	s := d.open(t, target)
	nodeSays(t, s.ask(t, ws.OpBinary, pomeloPackage(1, `{"sys":{"type":"e2e","version":"1"}}`))[4:], node)
	if err := s.send(ws.OpBinary, []byte(pomeloPackage(2, ""))); err != nil {
		t.Fatal(err)
	}
	return s
}

// pomeloPackage is type, length in three bytes, body.
func pomeloPackage(kind byte, body string) string {
	return string([]byte{kind, byte(len(body) >> 16), byte(len(body) >> 8), byte(len(body))}) + body
}
