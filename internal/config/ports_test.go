package config

import (
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"singlegate/gateway"
)

func TestPortsFile(t *testing.T) {
	got, err := Parse(filepath.Join("conf", "singlegate.yaml"), readFile(t, "testdata/ports.yaml"), testEnv)
	if err != nil {
		t.Fatal(err)
	}
	waits := gateway.DefaultTimeouts()
	waits.Connect = 3 * time.Second
	idle := func(d time.Duration) gateway.Timeouts {
		w := waits
		w.Idle = d
		return w
	}
	diff(t, reflect.ValueOf([]gateway.Listener{
		{At: "singlegate.yaml:3:5", Name: ":80", Address: ":80"},
		{
			At: "singlegate.yaml:4:5", Name: ":5222", Address: ":5222", Service: "xmpp", Port: "tcp",
			Balance: gateway.RoundRobin, Timeouts: waits,
		},
		{
			At: "singlegate.yaml:5:5", Name: "shared", Address: "[::]:8883", TLS: true, Service: "mqtt",
			Balance: gateway.LeastConnections, ProxyProtocol: "v2", Timeouts: idle(2 * time.Hour),
		},
	}), reflect.ValueOf(got.Gateway.Listeners), "Listeners")
	diff(t, reflect.ValueOf([]gateway.NodePort{
		{
			At: "singlegate.yaml:24:5", Service: "im", Port: "tcp", Kind: "tcp", TLS: true, Host: "0.0.0.0",
			Listen: gateway.PortRule{Map: map[string]uint16{"node1": 5020, "node2": 5021}}, ProxyProtocol: "v1", Timeouts: idle(3 * time.Hour),
		},
		{
			At: "singlegate.yaml:25:5", Service: "im", Port: "http", Kind: "http", Listen: gateway.PortRule{Base: 10080},
			Origins: []string{"*"}, Refuse: gateway.RefuseClose, Timeouts: waits,
			Frames: gateway.Frames{Rate: 1}, Ping: gateway.Ping{Every: time.Second, Timeout: 20 * time.Second},
		},
		{
			At: "singlegate.yaml:26:5", Service: "im", Port: "tcp", Kind: "tcp", Host: "::1",
			Listen: gateway.PortRule{Meta: "entry_tcp_port"}, Timeouts: waits,
		},
		{
			At: "singlegate.yaml:27:5", Service: "mqtt", Kind: "http", Listen: gateway.PortRule{Same: true},
			Refuse: gateway.RefuseStatus, Timeouts: waits,
		},
		{
			At: "singlegate.yaml:28:5", Service: "mqtt", Kind: "tcp", Host: "127.0.0.2", Listen: gateway.PortRule{Base: 10090},
			Timeouts: waits,
		},
		{
			At: "singlegate.yaml:29:5", Service: "mqtt", Kind: "tcp", Host: "127.0.0.3",
			Listen: gateway.PortRule{Map: map[string]uint16{"base": 1000, "b2": 1001}}, Timeouts: waits,
		},
	}), reflect.ValueOf(got.Gateway.NodePorts), "NodePorts")
	var policies []gateway.TunnelPolicy
	for _, ref := range got.Gateway.Services {
		policies = append(policies, ref.Tunnels)
	}
	later := gateway.DefaultTunnelPolicy()
	later.After = time.Minute
	diff(t, reflect.ValueOf([]gateway.TunnelPolicy{
		{
			AddressChange: gateway.PolicyClose, Failing: gateway.PolicyDrain, Maintenance: gateway.PolicyKeep,
			Deregistered: gateway.PolicyClose, PerSecond: 7,
		},
		later,
		gateway.DefaultTunnelPolicy(),
	}), reflect.ValueOf(policies), "Tunnels")
}
