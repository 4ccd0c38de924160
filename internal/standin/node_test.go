package standin

import (
	"net"
	"strconv"
	"strings"
	"testing"
)

func TestStartRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		options Options
		want    string
	}{
		"no id":          {Options{System: Chat}, "Options.ID is empty"},
		"no system":      {Options{ID: "node1"}, `system "" is unknown`},
		"bad address":    {Options{ID: "node1", System: Chat, Address: "127.0.0.1:port"}, "cannot listen on 127.0.0.1:port"},
		"another system": {Options{ID: "node1", System: "matrix"}, "expected chat, wildfirechat"},
	} {
		t.Run(name, func(t *testing.T) {
			n, err := Start(c.options)
			if err == nil {
				n.Close()
				t.Fatal("started")
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %q does not say %q", err, c.want)
			}
		})
	}
}

func TestNodeSaysWhereItIs(t *testing.T) {
	n := start(t, Options{ID: "node7", System: Chat})
	if n.ID() != "node7" {
		t.Errorf("ID is %q", n.ID())
	}
	if want := net.JoinHostPort("127.0.0.1", strconv.Itoa(int(n.Port()))); n.Addr() != want {
		t.Errorf("Addr is %q, Port says %q", n.Addr(), want)
	}
}

func TestCloseCutsEveryConnection(t *testing.T) {
	n := start(t, Options{System: Chat})
	silent := connect(t, n)
	socket := open(t, n, "/")
	socket.expectOpen(`"path":"/"`)
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	silent.expectEnd()
	socket.expectEnd()
	if conn, err := net.Dial("tcp", n.Addr()); err == nil {
		conn.Close()
		t.Error("the port still accepts")
	}
	if err := n.Close(); err != nil {
		t.Errorf("closing again: %v", err)
	}
}
