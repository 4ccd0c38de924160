package config

import (
	"reflect"
	"testing"
	"time"

	"singlegate/gateway"
	"singlegate/gateway/limit"
)

func TestLimits(t *testing.T) {
	file, err := Parse("a.yaml", []byte(`
listeners:
  - {address: ":443", proxy_protocol_in: from_trusted, allow: [10.0.0.0/8], deny: [10.1.2.3]}
  - {address: ":5222", service: im, proxy_protocol_in: required}
trusted_proxies: [10.9.0.1]
services: {im: {nodes: {node1: "10.0.0.31:80"}}}
limits:
  connections_per_ip: 100
  handshakes_per_ip: {rate: 20/s, burst: 50}
  tunnels_per_ip: 30
  ipv6_prefix: 56
  exempt: [10.0.0.0/8, "fd00::/8"]
  bans: {after: 20, within: 2m, for: 1h}
node_ports:
  - {service: im, kind: tcp, listen: {base: 9000}, proxy_protocol_in: required, rate: {per: ip, requests: 600/m}}
routes:
  - {path: /, service: im, rate: {per: token, requests: 10/h, burst: 3}, tunnels_per_user: 5}
`), testEnv)
	if err != nil {
		t.Fatal(err)
	}
	g := file.Gateway
	same := func(what string, got, want any) {
		t.Helper()
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %+v, want %+v", what, got, want)
		}
	}
	same("limits", g.Limits.PerAddress, gateway.AddressLimits{
		Connections: 100, Handshakes: limit.Rate{Interval: 50 * time.Millisecond, Burst: 50}, Tunnels: 30, IPv6Prefix: 56,
		Exempt: g.Limits.PerAddress.Exempt, Bans: limit.Ban{After: 20, Within: 2 * time.Minute, For: time.Hour},
	})
	same("exempt", len(g.Limits.PerAddress.Exempt), 2)
	same("allow", g.Listeners[0].Allow[0].String(), "10.0.0.0/8")
	same("deny", g.Listeners[0].Deny[0].String(), "10.1.2.3/32")
	same("proxy in", []gateway.ProxyIn{g.Listeners[0].ProxyIn, g.Listeners[1].ProxyIn, g.NodePorts[0].ProxyIn},
		[]gateway.ProxyIn{gateway.ProxyInTrusted, gateway.ProxyInRequired, gateway.ProxyInRequired})
	same("node port", g.NodePorts[0].RouteLimits, gateway.RouteLimits{Rate: limit.Rate{Interval: 100 * time.Millisecond, Burst: 600}, Per: gateway.PerAddress})
	same("route", g.Routes[0].RouteLimits, gateway.RouteLimits{Rate: limit.Rate{Interval: 6 * time.Minute, Burst: 3}, Per: gateway.PerToken, TunnelsPerUser: 5})
}
