package livecheck

import (
	"context"
	"net"
	"testing"
	"time"

	"singlegate/gateway"
)

// droppingDialer gets no answer from one address, as from behind a firewall.
type droppingDialer struct {
	Dialer
	dropped string
}

func (d droppingDialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	if address == d.dropped {
		return nil, dialError(context.DeadlineExceeded)
	}
	return d.Dialer.DialContext(ctx, network, address)
}

// While the gateway waits for a node, its port for TCP is open and its route is
// silent: neither is well, nor the gateway's own fault.
func TestGatewayWaitsForANode(t *testing.T) {
	s := newSite(t, siteConfig)
	s.world.to["10.0.0.11:8083"] = serve(t, silent)
	s.file.Gateway.NodePorts = []gateway.NodePort{
		{At: "site.yaml:50:5", Service: "im", Port: "ws", Kind: "tcp", Listen: gateway.PortRule{Map: map[string]uint16{"node1": 1001}}},
	}
	server := s.runGateway(func(c *gateway.Config) {
		c.NodePorts = append([]gateway.NodePort(nil), c.NodePorts...)
		c.NodePorts[0].Host, c.NodePorts[0].Timeouts = "127.0.0.1", gateway.DefaultTimeouts()
		c.NodePorts[0].Listen = gateway.PortRule{Map: map[string]uint16{"node1": freePort(t)}}
	})
	for _, e := range server.Entries() {
		if e.Name == "im/node1 ws" {
			s.public(":1001", e.Address.String())
		}
	}
	s.opts.Timeout = time.Second
	check := func() (route, port Finding) {
		t.Helper()
		r := s.check()
		return one(t, r, titleService, "ws://im.example.gov/ws/node1"), one(t, r, titleNodePorts, "tcp://im.example.gov:1001")
	}
	route, port := check()
	is(t, route, Fail, gatewaySilent)
	is(t, port, OK, isConnected)
	s.opts.Dialer = droppingDialer{s.world, "10.0.0.11:8083"}
	route, port = check()
	is(t, route, Fail, gatewayWaits)
	is(t, port, Fail, portWaits)
}
