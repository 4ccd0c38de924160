package gateway

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"singlegate/discovery"
	"singlegate/upstream"
)

// drained expects every tunnel to be closed with 1012 and the reason, answers
// as clients do, and waits for the gateway to have forgotten them.
func drained(t *testing.T, clients []*wsConn, reason string) {
	t.Helper()
	for _, c := range clients {
		c.expectClose(closeServiceRestart, reason)
		c.leave(closeServiceRestart)
	}
}

// several opens n tunnels to a node that has none, and waits until they have
// begun: a client may have its 101 before that.
func (e *edge) several(n int, node string) (list []*wsConn) {
	e.t.Helper()
	for i := range n {
		c, _ := open(e.t, e.dialEither(i), handshake("/ws/"+node))
		list = append(list, c)
	}
	eventually(e.t, "the tunnels have begun", func() bool { return len(e.tunnels.of(upstream.Key{Service: "im", ID: node}, nil)) == n })
	return list
}

// handshakeAnswer is the status and problem of a handshake with a node.
func (e *edge) handshakeAnswer(path string) (int, string) {
	e.t.Helper()
	resp, body := e.answerTo(handshake(path))
	return resp.StatusCode, problemCode(body)
}

// A node in maintenance gets no new tunnels, pinned or balanced, and those it
// has are closed; other nodes' are not.
func TestMaintenance(t *testing.T) {
	f := fleet{}
	f.add("node1", echoNode(t))
	f.add("node2", echoNode(t))
	e := startFleet(t, f, func(c *Config) {
		withPolicy(func(*TunnelPolicy) {})(c)
		c.Routes = append(c.Routes, Route{Paths: []string{"/any"}, Service: "im", Timeouts: DefaultTimeouts()})
	})
	leaving, staying := e.several(10, "node1"), e.several(10, "node2")
	f.set("node1", discovery.Maintenance)
	e.Publish(f.snapshot())
	drained(t, leaving, "node in maintenance")
	if status, code := e.handshakeAnswer("/ws/node1"); status != 503 || code != "node_draining" {
		t.Errorf("a new tunnel to it: %d %s", status, code)
	}
	for range 4 {
		c, _ := open(t, e.dial(), handshake("/any"))
		staying = append(staying, c)
	}
	for _, c := range staying {
		c.lives()
	}
	e.logs.wait(t, `"message":"drain done"`, `"node":"node1"`, `"tunnels":10`)
	if n := e.Services()[0].Nodes[1].Tunnels; n != 14 {
		t.Errorf("node2 has %d tunnels, want its 10 and all 4 balanced ones", n)
	}
	f.set("node1", discovery.Passing)
	e.Publish(f.snapshot())
	e.openWS("node1").lives()
}

// A drain closes one tunnel after the other, tells how far it is, and ends when
// its reason does.
func TestDrainIsPaced(t *testing.T) {
	f := fleet{}
	f.add("node1", echoNode(t))
	e := startFleet(t, f, withPolicy(func(p *TunnelPolicy) { p.PerSecond = 1 }))
	const tunnels = 30 // half a minute, of which the test sees the beginning
	closes := make(chan int, tunnels)
	clients := e.several(tunnels, "node1")
	for i, c := range clients {
		go func() {
			if f, err := ws.ReadFrame(c.br); err == nil && f.Header.OpCode == ws.OpClose {
				closes <- i
			}
		}()
	}
	f.set("node1", discovery.Maintenance)
	e.Publish(f.snapshot())
	first := await(t, "the first tunnel is closed", closes)
	clients[first].leave(closeServiceRestart)
	eventually(t, "the drain tells of it", func() bool {
		list := e.Drains()
		return len(list) == 1 && list[0].Closed >= 1
	})
	st := e.Drains()[0]
	if st.Service != "im" || st.Node != "node1" || st.Because != "node in maintenance" || st.PerSecond != 1 || st.Total != tunnels || st.Begins != 0 {
		t.Errorf("the drain is %+v", st)
	}
	if st.Closed == tunnels || st.Left < tunnels-st.Closed-1 || st.ETA != time.Duration(tunnels-st.Closed)*time.Second {
		t.Errorf("the drain is at %+v", st)
	}
	f.set("node1", discovery.Passing)
	e.Publish(f.snapshot())
	if list := e.Drains(); len(list) > 0 {
		t.Errorf("out of maintenance, and still there is %+v", list)
	}
	eventually(t, "the tunnels that were closed have ended", func() bool { return e.Tunnels() <= tunnels-1 })
	if n := e.Tunnels(); n < tunnels/2 {
		t.Errorf("%d tunnels live, of %d", n, tunnels)
	}
}

// A node that moves keeps its tunnels, or, if that is the policy, loses those
// to its old address; new ones go to where it is now.
func TestAddressChange(t *testing.T) {
	for _, policy := range []Policy{PolicyKeep, PolicyDrain, PolicyClose} {
		t.Run(string(policy), func(t *testing.T) {
			f := fleet{}
			here, there := imNode(t, "here"), imNode(t, "there")
			f.add("node1", here)
			f.add("node2", here)
			e := startFleet(t, f, withPolicy(func(p *TunnelPolicy) { p.AddressChange = policy }))
			old, other := e.several(6, "node1"), e.openWS("node2")
			for _, c := range append(old, other) {
				c.expect(ws.OpText, "here")
			}
			f.add("node1", there)
			e.Publish(f.snapshot())
			moved := e.openWS("node1")
			moved.expect(ws.OpText, "there")
			if policy == PolicyKeep {
				for _, c := range old {
					c.lives()
				}
			} else {
				drained(t, old, "node moved")
				eventually(t, "the drain is over", func() bool { return len(e.Drains()) == 0 })
			}
			moved.lives()
			other.lives()
			if policy != PolicyKeep {
				eventually(t, "only the tunnel to the new address lives", func() bool { return f.tunnels(e, "node1") == 1 })
			}
		})
	}
}

// A node of which only another port moves keeps the tunnels to this one.
func TestAddressChangeOfAnotherPort(t *testing.T) {
	f := fleet{}
	ports := func(http uint16) func(*discovery.Node) {
		return func(n *discovery.Node) { n.Ports = map[string]uint16{"ws": n.Ports[""], "http": http} }
	}
	addr := echoNode(t)
	f.add("node1", addr, ports(1))
	e := startFleet(t, f, func(c *Config) {
		withPolicy(func(p *TunnelPolicy) { p.AddressChange = PolicyClose })(c)
		c.Routes[0].Port = "ws"
	})
	clients := e.several(6, "node1")
	f.add("node1", addr, ports(2))
	e.Publish(f.snapshot())
	e.logs.wait(t, `"message":"node moved"`)
	eventually(t, "the drain is over", func() bool { return len(e.Drains()) == 0 })
	for _, c := range clients {
		c.lives()
	}
}

// tunnels is how many the node has.
func (f fleet) tunnels(e *edge, node string) int {
	for _, n := range e.Services()[0].Nodes {
		if n.ID == node {
			return n.Tunnels
		}
	}
	return -1
}

// A node that fails its check keeps its tunnels unless told otherwise, and can
// still be reached by name: its source may be wrong.
func TestFailing(t *testing.T) {
	for _, policy := range []Policy{PolicyKeep, PolicyDrain, PolicyClose} {
		t.Run(string(policy), func(t *testing.T) {
			f := fleet{}
			f.add("node1", echoNode(t))
			e := startFleet(t, f, withPolicy(func(p *TunnelPolicy) { p.Failing = policy }))
			old := e.several(6, "node1")
			f.set("node1", discovery.Failing)
			e.Publish(f.snapshot())
			if policy == PolicyKeep {
				for _, c := range old {
					c.lives()
				}
			} else {
				drained(t, old, "node failing")
			}
			e.openWS("node1").lives()
			e.Publish(f.snapshot()) // says nothing new
			if list := e.Drains(); policy == PolicyKeep && len(list) > 0 {
				t.Errorf("there is %+v", list)
			}
		})
	}
}

// The tunnels of a node that is gone are left alone for a while, in which it may
// come back.
func TestDeregistered(t *testing.T) {
	gone := fleet{}
	t.Run("comes back", func(t *testing.T) {
		f := fleet{}
		f.add("node1", echoNode(t))
		e := startFleet(t, f, withPolicy(func(p *TunnelPolicy) { p.After = time.Hour; p.PerSecond = 2 }))
		clients := e.several(6, "node1")
		e.Publish(gone.snapshot())
		list := e.Drains()
		if len(list) != 1 || list[0].Because != "node removed" || list[0].Left != 6 || list[0].Closed != 0 ||
			list[0].Begins <= 0 || list[0].Begins > time.Hour || list[0].ETA < list[0].Begins+2*time.Second {
			t.Errorf("the drains are %+v", list)
		}
		if status, code := e.handshakeAnswer("/ws/node1"); status != 404 || code != "node_unknown" {
			t.Errorf("a new tunnel to it: %d %s", status, code)
		}
		e.Publish(f.snapshot())
		if list := e.Drains(); len(list) > 0 {
			t.Errorf("it is back, and still there is %+v", list)
		}
		for _, c := range append(clients, e.openWS("node1")) {
			c.lives()
		}
	})
	for name, after := range map[string]time.Duration{"at once": 0, "after a while": 50 * time.Millisecond} {
		t.Run(name, func(t *testing.T) {
			f := fleet{}
			f.add("node1", echoNode(t))
			e := startFleet(t, f, withPolicy(func(p *TunnelPolicy) { p.After = after }))
			clients := e.several(6, "node1")
			e.Publish(gone.snapshot())
			drained(t, clients, "node removed")
		})
	}
	t.Run("in maintenance when it comes back", func(t *testing.T) {
		f := fleet{}
		f.add("node1", echoNode(t))
		e := startFleet(t, f, withPolicy(func(p *TunnelPolicy) { p.After = time.Hour }))
		clients := e.several(6, "node1")
		e.Publish(gone.snapshot())
		f.set("node1", discovery.Maintenance)
		e.Publish(f.snapshot())
		drained(t, clients, "node in maintenance")
	})
}

func TestOperatorDrains(t *testing.T) {
	f := fleet{}
	f.add("node1", echoNode(t), func(n *discovery.Node) { n.Names = []string{"3050"} })
	f.add("node2", echoNode(t))
	e := startFleet(t, f, func(c *Config) {
		withPolicy(func(*TunnelPolicy) {})(c)
		c.Routes = append(c.Routes, Route{Paths: []string{"/any"}, Service: "im", Timeouts: DefaultTimeouts()})
	})
	for _, wrong := range []error{e.Drain("im", "node3", 0), e.Drain("other", "node1", 0), e.Undrain("", "node3")} {
		if !errors.Is(wrong, ErrNoNode) {
			t.Errorf("no such node, and the error is %v", wrong)
		}
	}
	clients := e.several(10, "node1")
	if err := e.Drain("", "3050", 100_000); err != nil { // by another of its names
		t.Fatal(err)
	}
	drained(t, clients, "drained by the operator")
	e.Publish(f.snapshot()) // the mark outlives snapshots
	if status, code := e.handshakeAnswer("/ws/node1"); status != 503 || code != "node_draining" {
		t.Errorf("a new tunnel to it: %d %s", status, code)
	}
	for range 4 {
		c, _ := open(t, e.dial(), handshake("/any"))
		c.lives()
	}
	if n := f.tunnels(e, "node2"); n != 4 {
		t.Errorf("%d of 4 balanced tunnels went to the other node", n)
	}
	if !e.Services()[0].Nodes[0].Draining {
		t.Error("the node's status does not show the drain")
	}
	if err := e.Undrain("im", "node1"); err != nil {
		t.Fatal(err)
	}
	e.openWS("node1").lives()
	if len(e.Drains()) > 0 || e.Services()[0].Nodes[0].Draining {
		t.Error("the drain goes on")
	}
}

func TestDrainNamesTheService(t *testing.T) {
	addr := echoNode(t)
	e := startEdge(t, nil, map[string]map[string]string{"a": {"node1": addr}, "b": {"node1": addr}})
	if err := e.Drain("", "node1", 0); !errors.Is(err, ErrSeveralNodes) {
		t.Errorf("two services have the node, and the error is %v", err)
	}
	if err := e.Drain("b", "node1", 0); err != nil {
		t.Error(err)
	}
}

// Of two reasons the more urgent one counts; when it ends, the other does.
func TestDrainsOfTwoReasons(t *testing.T) {
	f := fleet{}
	here, elsewhere := echoNode(t), echoNode(t)
	f.add("node1", here)
	e := startFleet(t, f, withPolicy(func(p *TunnelPolicy) {
		p.AddressChange, p.PerSecond, p.After = PolicyDrain, 1, time.Hour
	}))
	e.several(30, "node1")
	because := func(want string) {
		t.Helper()
		if list := e.Drains(); len(list) != 1 || list[0].Because != want {
			t.Fatalf("the drains are %+v, want one: %s", list, want)
		}
	}
	f.set("node1", discovery.Maintenance)
	e.Publish(f.snapshot())
	because("node in maintenance")
	if err := e.Drain("im", "node1", 1); err != nil {
		t.Fatal(err)
	}
	because("drained by the operator")
	if err := e.Undrain("im", "node1"); err != nil {
		t.Fatal(err)
	}
	because("node in maintenance")
	f.add("node1", elsewhere, status(discovery.Maintenance)) // moved, and its drain goes on
	e.Publish(f.snapshot())
	because("node in maintenance")
	e.Publish(fleet{}.snapshot())
	because("node in maintenance")
	f.set("node1", discovery.Passing) // its tunnels go to where it was
	e.Publish(f.snapshot())
	because("node moved")
	f.add("node1", here)
	e.Publish(f.snapshot())
	if list := e.Drains(); len(list) > 0 {
		t.Errorf("all is well again, and there is %+v", list)
	}
}

// The drain of a move that another one pushed aside, or kept from beginning,
// takes place when that one is over; tunnels to the new address are spared.
func TestMoveIsDrainedAfterwards(t *testing.T) {
	moves := func(e *edge, f fleet, to string) {
		f.add("node1", to, status(f["node1"].Status))
		e.Publish(f.snapshot())
	}
	tired := func(e *edge, f fleet, s discovery.Status) {
		f.set("node1", s)
		e.Publish(f.snapshot())
	}
	for _, tc := range []struct {
		name  string
		event func(e *edge, f fleet, to string)
		end   func(e *edge, f fleet)
	}{
		{"maintenance during the drain", func(e *edge, f fleet, to string) {
			moves(e, f, to)
			tired(e, f, discovery.Maintenance)
		}, func(e *edge, f fleet) { tired(e, f, discovery.Passing) }},
		{"moved in maintenance", func(e *edge, f fleet, to string) {
			tired(e, f, discovery.Maintenance)
			moves(e, f, to)
		}, func(e *edge, f fleet) { tired(e, f, discovery.Passing) }},
		{"maintenance and then failing", func(e *edge, f fleet, to string) {
			moves(e, f, to)
			tired(e, f, discovery.Maintenance)
		}, func(e *edge, f fleet) { tired(e, f, discovery.Failing) }},
		{"the operator's", func(e *edge, f fleet, to string) {
			moves(e, f, to)
			e.Drain("im", "node1", 1)
		}, func(e *edge, f fleet) { e.Undrain("im", "node1") }},
		{"gone for a while", func(e *edge, f fleet, to string) {
			moves(e, f, to)
			e.Publish(fleet{}.snapshot())
		}, func(e *edge, f fleet) { e.Publish(f.snapshot()) }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := fleet{}
			here, there := imNode(t, "here"), imNode(t, "there")
			f.add("node1", here)
			pace := func(perSecond int) func(*Config) {
				return withPolicy(func(p *TunnelPolicy) {
					p.AddressChange, p.PerSecond, p.After = PolicyDrain, perSecond, time.Hour
				})
			}
			e := startFleet(t, f, pace(1)) // so slow that hardly any is closed before the end
			const tunnels = 20
			old := e.several(tunnels, "node1")
			tc.event(e, f, there)
			if list := e.Drains(); len(list) != 1 || list[0].Because == becauseMoved {
				t.Fatalf("there is %+v, want the drain that is more urgent", list)
			}
			cfg := e.cfg
			pace(100_000)(&cfg)
			if err := e.Apply(cfg, nil); err != nil {
				t.Fatal(err)
			}
			tc.end(e, f)
			e.logs.wait(t, `"message":"drain begins"`, `"because":"node moved"`)
			fresh := e.openWS("node1")
			fresh.expect(ws.OpText, "there")
			for _, c := range old {
				c.expect(ws.OpText, "here")
				c.expectClose(closeServiceRestart, "")
				c.leave(closeServiceRestart)
			}
			fresh.lives()
		})
	}
}

// What a drain leaves over are clients that do not answer their Close: they are
// told of, also when their node is gone.
func TestLingering(t *testing.T) {
	f := fleet{}
	f.add("node1", echoNode(t))
	e := startFleet(t, f, withPolicy(func(p *TunnelPolicy) { p.After = 0 }))
	mute, polite := e.several(2, "node1"), e.openWS("node1")
	eventually(t, "all tunnels live", func() bool { return f.tunnels(e, "node1") == 3 })
	f.set("node1", discovery.Maintenance)
	e.Publish(f.snapshot())
	polite.expectClose(closeServiceRestart, "node in maintenance")
	polite.leave(closeServiceRestart)
	e.logs.wait(t, `"message":"drain done"`)
	eventually(t, "two tunnels linger", func() bool {
		n := e.Services()[0].Nodes[0]
		return n.Tunnels == 2 && n.Lingering == 2
	})
	eventually(t, "the drain is over", func() bool { return len(e.Drains()) == 0 })

	e.Publish(fleet{}.snapshot())
	if got := e.Services()[0]; len(got.Nodes) > 0 || !slices.Equal(got.Gone, []GoneNode{{"node1", 2, 2}}) {
		t.Errorf("without the node there is %+v", got)
	}
	for _, c := range mute {
		c.expectClose(closeServiceRestart, "node in maintenance")
		c.leave(closeServiceRestart)
	}
	eventually(t, "no tunnel is left", func() bool { return len(e.Services()[0].Gone) == 0 })
	if len(e.tunnels.lingering) > 0 {
		t.Errorf("still noted are %v", e.tunnels.lingering)
	}
}

// A node that goes without tunnels leaves no drain to come behind.
func TestDeregisteredWithoutTunnels(t *testing.T) {
	f := fleet{}
	f.add("node1", echoNode(t))
	e := startFleet(t, f, withPolicy(func(p *TunnelPolicy) { p.After = time.Hour }))
	e.Publish(fleet{}.snapshot())
	if list := e.Drains(); len(list) > 0 {
		t.Errorf("there is %+v", list)
	}
	e.tells("drains", map[string]float64{"drains": 0})
	if gone := e.Services()[0].Gone; len(gone) > 0 {
		t.Errorf("told of as gone are %+v", gone)
	}
}

// A handshake that was under way when its node's tunnels were drained becomes a
// tunnel that is closed too, also when the drain has been over for long; and
// one that is kept where tunnels are.
func TestHandshakeCrossesDrain(t *testing.T) {
	cases := []struct {
		name   string
		policy func(*TunnelPolicy)
		event  func(e *edge, f fleet)
		reason string // "": it is kept
	}{
		{"maintenance", func(*TunnelPolicy) {}, func(e *edge, f fleet) { f.set("node1", discovery.Maintenance) }, "node in maintenance"},
		{"maintenance kept", func(p *TunnelPolicy) { p.Maintenance = PolicyKeep }, func(e *edge, f fleet) { f.set("node1", discovery.Maintenance) }, ""},
		{"failing", func(p *TunnelPolicy) { p.Failing = PolicyDrain }, func(e *edge, f fleet) { f.set("node1", discovery.Failing) }, "node failing"},
		{"failing kept", func(*TunnelPolicy) {}, func(e *edge, f fleet) { f.set("node1", discovery.Failing) }, ""},
		{"removed", func(p *TunnelPolicy) { p.After = 0 }, func(e *edge, f fleet) { delete(f, "node1") }, "node removed"},
		{"removed at once", func(p *TunnelPolicy) { p.Deregistered = PolicyClose }, func(e *edge, f fleet) { delete(f, "node1") }, "node removed"},
		{"removed, left alone yet", func(p *TunnelPolicy) { p.After = time.Hour }, func(e *edge, f fleet) { delete(f, "node1") }, ""},
		{"removed kept", func(p *TunnelPolicy) { p.Deregistered, p.After = PolicyKeep, 0 }, func(e *edge, f fleet) { delete(f, "node1") }, ""},
		{"moved", func(p *TunnelPolicy) { p.AddressChange = PolicyDrain }, func(e *edge, f fleet) { f.add("node1", "127.0.0.9:9") }, "node moved"},
		{"moved kept", func(*TunnelPolicy) {}, func(e *edge, f fleet) { f.add("node1", "127.0.0.9:9") }, ""},
		{"operator", func(*TunnelPolicy) {}, func(e *edge, f fleet) { e.Drain("im", "node1", 0) }, "drained by the operator"},
		{"passing again", func(*TunnelPolicy) {}, func(e *edge, f fleet) {
			f.set("node1", discovery.Maintenance)
			e.Publish(f.snapshot())
			f.set("node1", discovery.Passing)
		}, ""},
		{"nothing", func(*TunnelPolicy) {}, func(*edge, fleet) {}, ""},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			node := startGateKeeper(t)
			f := fleet{}
			f.add("node1", node.addr)
			e := startFleet(t, f, withPolicy(tc.policy))
			c := e.dial()
			io.WriteString(c, handshake("/ws/node1"))
			await(t, "the node was asked", node.asked)
			tc.event(e, f)
			e.Publish(f.snapshot())
			if tc.name != "removed, left alone yet" {
				eventually(t, "the drain has found nothing to close", func() bool { return !e.drains.underWay(upstream.Key{Service: "im", ID: "node1"}) })
			}
			node.answer()
			tunnel, _ := open(t, c, "")
			if tc.reason == "" {
				tunnel.lives()
				return
			}
			tunnel.expectClose(closeServiceRestart, tc.reason)
			tunnel.leave(closeServiceRestart)
		})
	}
}

// Tunnels of TCP ports are drained as well: both sides see the end.
func TestDrainOfTCP(t *testing.T) {
	f := fleet{}
	ended := make(chan string, 10)
	f.add("node1", rawNode(t, func(c net.Conn) {
		io.WriteString(c, "hello\n")
		all, _ := io.ReadAll(c)
		ended <- string(all)
	}))
	f.add("node2", tcpNode(t, "node2"))
	base := freePorts(t, 2)
	e := startFleet(t, f, func(c *Config) {
		withPolicy(func(*TunnelPolicy) {})(c)
		c.NodePorts = []NodePort{{Service: "im", Kind: "tcp", Listen: PortRule{Base: base - 1}}}
	})
	staying := e.dialTo(loopback(base+1), false)
	other := bufio.NewReader(staying)
	expectLine(t, other, "node2")
	leaving := e.dialTo(loopback(base), false)
	br := bufio.NewReader(leaving)
	expectLine(t, br, "hello")
	f.set("node1", discovery.Maintenance)
	e.Publish(f.snapshot())
	if rest, reset := awaitEnd(t, br); rest != "" || reset {
		t.Errorf("the client's end: %q, reset %v", rest, reset)
	}
	leaving.Close()
	if got := await(t, "the node sees the end", ended); got != "" {
		t.Errorf("the node got %q", got)
	}
	e.logs.wait(t, `"kind":"tunnel"`, `"node":"node1"`, `"ended_by":"gateway"`)
	io.WriteString(staying, "still there?\n")
	expectLine(t, other, "still there?")
}

// While messages flow, a drain's Close stands between two of them.
func TestDrainClosesBetweenMessages(t *testing.T) {
	message := strings.Repeat("0123456789", 500)
	frame := serverFrame(ws.OpText, message)
	f := fleet{}
	f.add("node1", rawNode(t, func(c net.Conn) {
		br := bufio.NewReader(c)
		io.WriteString(c, switching(readHead(br)))
		var group sync.WaitGroup
		defer group.Wait()
		group.Go(func() {
			io.Copy(io.Discard, br) // to the client's Close, and the end behind it
			c.Close()
		})
		stream := bytes.Repeat(frame, 7)
		for { // in pieces that never end where a frame does
			for piece := stream; len(piece) > 0; {
				n := min(len(piece), 777)
				if _, err := c.Write(piece[:n]); err != nil {
					return
				}
				piece = piece[n:]
			}
		}
	}))
	e := startFleet(t, f, withPolicy(func(*TunnelPolicy) {}))
	clients := e.several(3, "node1")
	for _, c := range clients {
		c.expect(ws.OpText, message)
	}
	f.set("node1", discovery.Maintenance)
	e.Publish(f.snapshot())
	for _, c := range clients {
		for {
			frame := c.next()
			if frame.Header.OpCode == ws.OpClose {
				if code, reason := ws.ParseCloseFrameData(frame.Payload); code != closeServiceRestart || reason != "node in maintenance, reconnect" {
					t.Errorf("closed with %d %q", code, reason)
				}
				break
			}
			if frame.Header.OpCode != ws.OpText || string(frame.Payload) != message {
				t.Fatalf("a frame %x of %d bytes is not the node's", frame.Header.OpCode, len(frame.Payload))
			}
		}
		c.leave(closeServiceRestart)
	}
}

// The gateway's own end takes over from drains, those that wait and those that
// have begun.
func TestShutdownDuringDrains(t *testing.T) {
	f := fleet{}
	for i := range 3 {
		f.add(fmt.Sprintf("node%d", i), echoNode(t))
	}
	e := startFleet(t, f, func(c *Config) {
		withPolicy(func(p *TunnelPolicy) { p.PerSecond, p.After = 1, time.Hour })(c)
		c.Shutdown = Shutdown{Deadline: 10 * time.Second}
	})
	var clients []*wsConn
	for i := range 3 {
		clients = append(clients, e.several(5, fmt.Sprintf("node%d", i))...)
	}
	f.set("node0", discovery.Maintenance)
	delete(f, "node1")
	e.Publish(f.snapshot())
	if n := len(e.Drains()); n != 2 {
		t.Errorf("%d drains, want 2", n)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		e.Shutdown(context.Background())
	}()
	for _, c := range clients {
		frame := c.next()
		if code, reason := ws.ParseCloseFrameData(frame.Payload); code != 1001 && (code != 1012 || reason != "node in maintenance, reconnect") {
			t.Errorf("closed with %d %q", code, reason)
		}
		c.leave(1001)
	}
	await(t, "the gateway has ended", done)
	if n := len(e.Drains()); n > 0 || e.Tunnels() > 0 {
		t.Errorf("%d drains and %d tunnels are left", n, e.Tunnels())
	}
	e.Drain("im", "node2", 0) // has nothing to do any more, and says so by doing nothing
	if n := len(e.Drains()); n > 0 {
		t.Errorf("%d drains began after the end", n)
	}
}
