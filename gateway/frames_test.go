package gateway

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"
)

// listeningNode echoes text, sends what a message "say …" holds byte for byte,
// and tells which frames it got, as "text hello", "close 1001 reason".
func listeningNode(t *testing.T, headers ...string) (addr string, heard chan string) {
	heard = make(chan string, 1000)
	addr = rawNode(t, func(c net.Conn) {
		br := bufio.NewReader(c)
		io.WriteString(c, switching(readHead(br), headers...))
		for {
			f, err := ws.ReadFrame(br)
			if err != nil {
				return
			}
			f = ws.UnmaskFrameInPlace(f)
			switch f.Header.OpCode {
			case ws.OpClose:
				code, reason := ws.ParseCloseFrameData(f.Payload)
				heard <- fmt.Sprintf("close %d %s", code, reason)
				c.Write(serverFrame(ws.OpClose, string(f.Payload)))
				return
			case ws.OpText:
				heard <- "text " + string(f.Payload)
				if raw, ok := strings.CutPrefix(string(f.Payload), "say "); ok {
					io.WriteString(c, raw)
				} else {
					c.Write(serverFrame(ws.OpText, string(f.Payload)))
				}
			default:
				heard <- fmt.Sprintf("%x %s", f.Header.OpCode, f.Payload)
			}
		}
	})
	return addr, heard
}

// A frame that breaks a rule of its route or port does not reach the other side.
// Both sides are told why, in the log there is a line, and it counts.
func TestFramesKeepToTheRules(t *testing.T) {
	unmasked := string(serverFrame(ws.OpText, "x"))
	reserved := string(clientFrame(ws.OpText, "x"))
	reserved = string([]byte{reserved[0] | 0x40}) + reserved[1:]
	text := func(payload string) string { return string(clientFrame(ws.OpText, payload)) }
	cases := []struct {
		name         string
		frames       Frames
		send         string   // by the client
		passes       []string // to the node, before the end
		client, node string   // the Closes that they get
		from, rule   string
	}{
		{"message too big", Frames{MaxMessage: 10}, text("0123456789") + text("0123456789a"), []string{"0123456789"},
			"1009 a message must not be larger than 10 bytes", "1001 a message must not be larger than 10 bytes", "client", "size"},
		{"frame too big", Frames{MaxFrame: 5, MaxMessage: 10}, text("01234") + text("012345"), []string{"01234"},
			"1009 a frame must not be larger than 5 bytes", "1001 a frame must not be larger than 5 bytes", "client", "size"},
		{"too many", Frames{Rate: 2}, text("1") + text("2") + text("3"), []string{"1", "2"},
			"1008 more than 2 messages a second", "1001 more than 2 messages a second", "client", "rate"},
		{"not masked", Frames{Strict: true}, text("masked") + unmasked, []string{"masked"},
			"1002 a client's frame must be masked", "1001 a client's frame must be masked", "client", "protocol"},
		{"reserved bit", Frames{Strict: true}, reserved, nil,
			"1002 reserved bits without an extension", "1001 reserved bits without an extension", "client", "protocol"},
		{"the node's message", Frames{MaxMessage: 30}, text("say " + string(serverFrame(ws.OpText, strings.Repeat("x", 31)))[:10]), nil,
			"1001 a message must not be larger than 30 bytes", "1009 a message must not be larger than 30 bytes", "upstream", "size"},
		{"the node's mask", Frames{Strict: true}, text("say " + text("x")), nil,
			"1001 a server's frame must not be masked", "1002 a server's frame must not be masked", "upstream", "protocol"},
	}
	for i, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			node, heard := listeningNode(t)
			f := fleet{}
			f.add("node1", node)
			base := freePorts(t, 1) - 1
			e := startFleet(t, f, func(c *Config) {
				c.Routes[0].Frames = tc.frames
				c.NodePorts = []NodePort{{At: "p", Service: "im", Kind: "http", Listen: PortRule{Base: base}, Frames: tc.frames}}
			})
			for n, conn := range []net.Conn{e.dialEither(i), e.dialTo(loopback(base+1), false)} {
				c, _ := open(t, conn, handshake([]string{"/ws/node1", "/"}[n]))
				io.WriteString(c, tc.send)
				if tc.from == "upstream" {
					<-heard // what it was to say
				}
				for _, passes := range tc.passes {
					if got := await(t, "the node hears", heard); got != "text "+passes {
						t.Errorf("the node heard %q, want %q", got, passes)
					}
				}
				c.expectClosed(tc.passes, tc.client)
				if got := await(t, "the node's Close", heard); got != "close "+tc.node {
					t.Errorf("the node heard %q, want a Close %q", got, tc.node)
				}
				c.leave(1000)
				e.tells("tunnel_violations_total", map[string]float64{
					"tunnel_violations_total{" + tc.from + "," + tc.rule + ",im}": float64(n + 1),
				})
			}
			line := e.logs.wait(t, `"kind":"tunnel"`, `"rule":"`+tc.rule+`"`)
			code, reason, _ := strings.Cut(tc.client, " ")
			for _, want := range []string{`"ended_by":"` + tc.from + `"`, `"close_code":` + code, `"close_reason":"` + reason + `"`, "broke a rule"} {
				if !strings.Contains(line, want) {
					t.Errorf("the tunnel's line lacks %s: %s", want, line)
				}
			}
		})
	}
}

// expectClosed reads echoes that were on their way, and then just this Close.
func (c *wsConn) expectClosed(echoes []string, want string) {
	c.t.Helper()
	for {
		f := c.next()
		if f.Header.OpCode == ws.OpText && slices.Contains(echoes, string(f.Payload)) {
			continue
		}
		code, reason := ws.ParseCloseFrameData(f.Payload)
		if got := fmt.Sprintf("%d %s", code, reason); f.Header.OpCode != ws.OpClose || got != want {
			c.t.Errorf("got frame %x %q, want a Close %q", f.Header.OpCode, got, want)
		}
		return
	}
}

// Without rules a route passes what breaks every one of them, and a peer's own
// Close with such a code breaks none.
func TestNoRules(t *testing.T) {
	node, heard := listeningNode(t)
	routes, nodes := pinned(node)
	e := startEdge(t, routes, nodes)
	c, _ := open(t, e.dial(), handshake("/ws/node1"))
	c.Write(serverFrame(ws.OpText, "not masked"))
	c.expect(ws.OpText, "not masked")
	<-heard
	c.send(ws.OpClose, string(ws.NewCloseFrameBody(1009, "too much for me")))
	c.expectClose(1009, "too much for me")
	c.expectEnd()
	line := e.logs.wait(t, `"kind":"tunnel"`)
	if strings.Contains(line, `"rule"`) || !strings.Contains(line, `"close_code":1009`) {
		t.Errorf("the tunnel's line is %s", line)
	}
	e.tells("tunnel_violations_total", map[string]float64{})
}

// The reserved bits are those of the extensions that the node chose.
func TestReservedBitsOfExtensions(t *testing.T) {
	for _, tc := range []struct {
		answer string
		first  byte // of the client's frame
		passes bool
	}{
		{"X-None: 1", 0xc1, false},
		{"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits=12", 0xc1, true},
		{"Sec-WebSocket-Extensions: permessage-deflate", 0xa1, false},
		{"Sec-WebSocket-Extensions: x-mux", 0xf1, true},
	} {
		node, heard := listeningNode(t, tc.answer)
		routes, nodes := pinned(node)
		routes[0].Frames.Strict = true
		e := startEdge(t, routes, nodes)
		c, _ := open(t, e.dial(), handshake("/ws/node1", "Sec-WebSocket-Extensions: permessage-deflate, x-mux"))
		frame := clientFrame(ws.OpText, "x")
		frame[0] = tc.first
		c.Write(frame)
		if got := await(t, "the node hears", heard); strings.HasPrefix(got, "text") != tc.passes {
			t.Errorf("%s, first byte %x: the node heard %q", tc.answer, tc.first, got)
		}
	}
}

func TestReservedBits(t *testing.T) {
	for _, tc := range []struct {
		headers []string
		want    byte
	}{
		{nil, 0},
		{[]string{""}, 0},
		{[]string{" , ,\t"}, 0},
		{[]string{"permessage-deflate"}, 0x40},
		{[]string{"Permessage-Deflate ; server_no_context_takeover"}, 0x40},
		{[]string{", permessage-deflate;client_max_window_bits=\"1\\\"0, x\";a , "}, 0x40},
		{[]string{"permessage-deflate, permessage-deflate; server_max_window_bits=10"}, 0x40},
		{[]string{"", "permessage-deflate"}, 0x40},
		{[]string{"permessage-deflate", "x-unknown"}, 0x70},
		{[]string{"permessage-deflate, x-unknown"}, 0x70},
		{[]string{"permessage-deflate; a=\"b, x-unknown"}, 0x70},
		{[]string{`permessage-deflate; a="b\", x-unknown`}, 0x70},
		{[]string{"permessage-deflate; a=\"b\", x-unknown"}, 0x70},
		{[]string{"; permessage-deflate"}, 0x70},
		{[]string{"permessage-deflate2"}, 0x70},
		{[]string{"permessage-deflate x"}, 0x70},
		{[]string{"x-webkit-deflate-frame"}, 0x70},
	} {
		h := http.Header{}
		for _, v := range tc.headers {
			h.Add("Sec-WebSocket-Extensions", v)
		}
		if got := reservedBits(h); got != tc.want {
			t.Errorf("%q: bits %x, want %x", tc.headers, got, tc.want)
		}
	}
}

// A quiet client is pinged; its answer is kept from the node. One that does not
// answer is ended, and counted as silent.
func TestPings(t *testing.T) {
	node, heard := listeningNode(t)
	routes, nodes := pinned(node)
	routes[0].Ping = Ping{Every: 20 * time.Millisecond, Timeout: 20 * time.Millisecond}
	e := startEdge(t, routes, nodes)
	c, _ := open(t, e.dialTLS(), handshake("/ws/node1"))
	for answered := range 2 {
		f := c.next()
		if f.Header.OpCode != ws.OpPing || len(f.Payload) != 8 {
			t.Fatalf("got frame %x %q, want a Ping", f.Header.OpCode, f.Payload)
		}
		if answered == 0 {
			c.send(ws.OpPong, string(f.Payload))
		}
	}
	c.expectClose(1001, "the client does not answer")
	if got := await(t, "the node's Close", heard); got != "close 1001 the client does not answer" {
		t.Errorf("the node heard %q", got)
	}
	c.leave(1001)
	e.logs.wait(t, `"kind":"tunnel"`, `"ended_by":"client"`, `"close_code":1001`, `"cause":"the client did not answer a Ping"`, `"rule":"silent"`)
	e.tells("tunnel_violations_total", map[string]float64{"tunnel_violations_total{client,silent,im}": 1})
}

// A tunnel keeps the rules that it began with.
func TestReloadKeepsRulesOfTunnels(t *testing.T) {
	f := fleet{}
	f.add("node1", echoNode(t))
	e := startFleet(t, f, func(c *Config) { c.Routes[0].Frames.MaxMessage = 20 })
	old := e.openWS("node1")
	old.lives()
	cfg := e.cfg
	cfg.Routes = slices.Clone(cfg.Routes)
	cfg.Routes[0].Frames.MaxMessage = 10
	e.apply(cfg, f)
	old.lives()
	fresh := e.openWS("node1")
	fresh.send(ws.OpText, "still there?")
	fresh.expectClosed(nil, "1009 a message must not be larger than 10 bytes")
	old.send(ws.OpText, "more than twenty bytes")
	old.expectClosed(nil, "1009 a message must not be larger than 20 bytes")
}

// The paths of a route share its rules; no rules are none.
func TestRulesAreTheRoutes(t *testing.T) {
	routes, err := compileRoutes(&Config{Routes: []Route{
		{Paths: []string{"/a", "/b"}, Service: "im", Frames: Frames{Strict: true}},
		{Paths: []string{"/c"}, Service: "im"},
		{Paths: []string{"/d"}, Service: "im", Ping: Ping{Every: time.Minute}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	by := map[string]*route{}
	for _, r := range routes {
		by[r.name] = r
	}
	if by["/a"].rules == nil || by["/a"].rules != by["/b"].rules {
		t.Error("two paths of a route have two sets of rules, or none")
	}
	if by["/c"].rules != nil {
		t.Error("a route without rules has some")
	}
	if r := by["/d"].rules; r == nil || r.Ping != time.Minute || r.PingTimeout != DefaultPingTimeout {
		t.Errorf("the rules of a ping are %+v", r)
	}
}

func TestWarningsOfRules(t *testing.T) {
	for _, tc := range []struct {
		frames Frames
		want   []string // beginnings
	}{
		{Frames{}, nil},
		{Frames{MaxMessage: 1 << 20, MaxFrame: 1 << 16, Rate: 50, Strict: true}, nil},
		{Frames{MaxMessage: 1 << 16, MaxFrame: 1 << 16}, nil},
		{Frames{MaxMessage: 1 << 16, MaxFrame: 1 << 20}, []string{"max_frame is 1048576 bytes, and no message may have more than max_message, 65536:"}},
		{Frames{MaxMessage: 100}, []string{"max_message is 100 bytes:"}},
		{Frames{MaxMessage: 100, MaxFrame: 50}, []string{"max_message is 100 bytes:", "max_frame is 50 bytes:"}},
		{Frames{Rate: 2}, []string{"rate is 2: 3 messages at once"}},
	} {
		cfg := Config{
			Routes:    []Route{{At: "f:1:2", Paths: []string{"/"}, Service: "im", Frames: tc.frames}},
			NodePorts: []NodePort{{At: "f:3:4", Service: "im", Frames: tc.frames}},
		}
		var want []string
		for _, at := range []string{"f:1:2", "f:3:4"} {
			for _, w := range tc.want {
				want = append(want, at+": frames: "+w)
			}
		}
		got := Warnings(cfg)
		if !slices.EqualFunc(got, want, strings.HasPrefix) {
			t.Errorf("%+v: warnings\n%s\nwant\n%s", tc.frames, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
}
