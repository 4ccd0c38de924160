package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// A case that was played, as one of its sides saw it: what peer-client.mjs and
// peer-server.mjs print of it.
type played struct {
	Case   int
	Name   string
	Events json.RawMessage
}

// mustDiffer are the events of the client (the server names no cases) that
// cannot be the same through a gateway: an upstream connection that breaks off
// ends its tunnel with a Close that says so.
var mustDiffer = map[string]struct{ direct, through string }{
	"server terminates": {`["close",1006,""]`, `["close",1014,"upstream connection lost"]`},
}

// npm's ws plays the same cases with a server directly and through the gateway:
// both sides must see the same, event by event.
func TestNPMWebSocketSeesNoGateway(t *testing.T) {
	node := nodeModules(t)
	server := startPeerServer(t, node)
	dir := t.TempDir()
	writeCertificate(t, dir)
	writeFile(t, dir, "gateway.yaml", fmt.Sprintf(`
listeners:
  - {name: plain, address: "127.0.0.1:0"}
  - {name: tls, address: "localhost:0", tls: true}
tls: {certificates: [{cert: cert.pem, key: key.pem}]}
services: {peer: {nodes: {node1: "127.0.0.1:%d"}}}
routes: [{path: "/ws/{node}", service: peer, rewrite: /}]
`, server.port))
	s := startSite(t, dir)

	client, served := server.play(t, node, fmt.Sprintf("ws://127.0.0.1:%d", server.port))
	if len(client) < 25 {
		t.Fatalf("only %d cases were played", len(client))
	}
	t.Run("plain", func(t *testing.T) {
		through, servedThrough := server.play(t, node, "ws://"+s.listeners["plain"]+"/ws/node1")
		compare(t, "client", client, through)
		compare(t, "server", served, servedThrough)
	})
	t.Run("TLS", func(t *testing.T) {
		_, port, _ := strings.Cut(s.listeners["tls"], ":")
		through, servedThrough := server.play(t, node, "wss://localhost:"+port+"/ws/node1", filepath.Join(dir, "cert.pem"))
		compare(t, "client", client, through)
		compare(t, "server", served, servedThrough)
	})
}

// A peerServer is a running peer-server.mjs.
type peerServer struct {
	*process
	port int
	read int // bytes of its output that belong to earlier plays
}

func startPeerServer(t *testing.T, node string) *peerServer {
	t.Helper()
	cmd := exec.Command(node, "peer-server.mjs")
	p := startProcess(t, cmd)
	first := p.await(p.out, "the port", func(text string) bool { return strings.Contains(text, "\n") })
	return &peerServer{process: p, port: decode[struct{ Port int }](t, first).Port, read: len(first)}
}

// play plays every case and returns what the client and what the server saw; a
// refused handshake is none that the server sees.
func (s *peerServer) play(t *testing.T, node string, arguments ...string) (client, server []played) {
	t.Helper()
	r := runToEnd(t, exec.Command(node, append([]string{"peer-client.mjs"}, arguments...)...))
	if r.code != 0 {
		t.Fatalf("peer-client.mjs: exit code %d\n%s", r.code, r.err)
	}
	client = transcriptsOf(t, r.out)
	refused := strings.Count(r.out, `[["refused",`)
	text := s.await(s.out, "the server's side of every case", func(text string) bool {
		return strings.Count(text[s.read:], "\n") >= len(client)-refused
	})
	server = transcriptsOf(t, text[s.read:])
	s.read = len(text)
	return client, server
}

func transcriptsOf(t *testing.T, text string) []played {
	t.Helper()
	var list []played
	for line := range strings.Lines(text) {
		list = append(list, decode[played](t, line))
	}
	return list
}

// compare compares what one side saw directly and through the gateway.
func compare(t *testing.T, side string, direct, through []played) {
	t.Helper()
	byCase := map[int]played{}
	for _, p := range through {
		byCase[p.Case] = p
	}
	if len(byCase) != len(direct) {
		t.Errorf("the %s saw %d cases directly and %d through the gateway", side, len(direct), len(byCase))
	}
	faults := 0
	for _, p := range direct {
		want := p.Events
		if d, ok := mustDiffer[p.Name]; ok {
			want = bytes.Replace(want, []byte(d.direct), []byte(d.through), 1)
		}
		if got := byCase[p.Case].Events; !bytes.Equal(got, want) {
			if faults++; faults > 5 {
				t.Fatal("and more")
			}
			t.Errorf("case %d %q, %s's side through the gateway:\n%.1000s\nwant:\n%.1000s", p.Case, p.Name, side, got, want)
		}
	}
}
