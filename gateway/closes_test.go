package gateway

import (
	"bufio"
	"context"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// What the gateway closes a tunnel with, on its own account: code and reason, to
// the letter.
func TestCloseReasons(t *testing.T) {
	none := func(*Config) {}
	for _, tc := range []struct {
		name   string
		tune   func(*Config)
		happen func(e *edge, f fleet, node net.Conn)
		want   string
	}{
		{"idle", func(c *Config) { c.Routes[0].Timeouts.Idle = 20 * time.Millisecond },
			func(*edge, fleet, net.Conn) {}, "1001 idle for too long"},
		{"lifetime", func(c *Config) { c.Routes[0].Timeouts.Lifetime = 20 * time.Millisecond },
			func(*edge, fleet, net.Conn) {}, "1001 tunnel lifetime over"},
		{"the node ends", none, func(_ *edge, _ fleet, node net.Conn) { node.Close() }, "1014 upstream connection lost"},
		{"a drain", none, func(e *edge, _ fleet, _ net.Conn) { e.Drain("im", "node1", 0) }, "1012 drained by the operator, reconnect"},
		{"a move", withPolicy(func(p *TunnelPolicy) { p.AddressChange = PolicyClose }), func(e *edge, f fleet, _ net.Conn) {
			f.add("node1", "127.0.0.9:9")
			e.Publish(f.snapshot())
		}, "1012 node moved, reconnect"},
		{"the end", none, func(e *edge, _ fleet, _ net.Conn) { go e.Shutdown(context.Background()) }, "1001 gateway stopping, reconnect"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			conns := make(chan net.Conn, 1)
			f := fleet{}
			f.add("node1", rawNode(t, func(c net.Conn) {
				br := bufio.NewReader(c)
				io.WriteString(c, switching(readHead(br)))
				conns <- c
				io.Copy(io.Discard, br)
			}))
			e := startFleet(t, f, tc.tune)
			c := e.several(1, "node1")[0]
			tc.happen(e, f, await(t, "the node's connection", conns))
			c.expectClosed(nil, tc.want)
			c.leave(1001)
		})
	}
}

// The READMEs list every close code with the reason that the gateway gives.
func TestREADMEsListTheCloseReasons(t *testing.T) {
	reasons := map[string][]string{
		"1001": {stopReason, "idle for too long", "tunnel lifetime over", "the client does not answer"},
		"1002": {"a client's frame must be masked"},
		"1008": {"more than 50 messages a second", "token expired"},
		"1009": {"a message must not be larger than 65536 bytes"},
		"1014": {"upstream connection lost"},
	}
	for _, because := range []string{becauseMoved, becauseFailing, becauseRemoved, becauseMaintenance, becauseOperator} {
		reasons["1012"] = append(reasons["1012"], drainReason(because))
	}
	for _, name := range []string{"../README.md", "../README.zh-CN.md"} {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for code, list := range reasons {
			for _, reason := range list {
				found := slices.ContainsFunc(strings.Split(string(text), "\n"), func(line string) bool {
					return strings.HasPrefix(line, "| "+code) && strings.Contains(line, "`"+reason+"`")
				})
				if !found {
					t.Errorf("%s lacks %s `%s`", name, code, reason)
				}
			}
		}
	}
}
