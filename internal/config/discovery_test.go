package config

import (
	"reflect"
	"testing"
	"time"

	"singlegate/discovery"
	"singlegate/gateway"
	"singlegate/upstream"
)

func TestDiscovery(t *testing.T) {
	const text = `
listeners: [{address: ":80"}]
discovery:
  consul: {address: "https://consul.internal:8501", token_file: consul.token, ca: /etc/ca.pem, stale: true, wait: 2m}
  cache: cache/snapshot.json
services:
  im:
    consul: {service: im-http, node_id: meta.node, tag: live}
    ports: {http: port, ws: meta.ws_port, tcp: {consul: im-tcp}, fixed: 8080}
    nodes: {spare: {address: 10.0.0.9, ports: {http: 80}}}
    check: {kind: websocket, port: ws, path: /ws, every: 5s}
  short: {consul: short}
  old: {dns: {srv: _im._tcp.example.gov}}
  older: {dns: {name: app.internal, port: 8888, interval: 1m}}
routes:
  - {path: "/ws/{node}", service: im, port: ws}
`
	f, err := Parse("dir/x.yaml", []byte(text), func(string) (string, bool) { return "", false })
	if err != nil {
		t.Fatal(err)
	}
	want := &File{
		Consul: &discovery.ConsulConfig{
			Address: "https://consul.internal:8501", TokenFile: "dir/consul.token", CAFile: "/etc/ca.pem", Stale: true, Wait: 2 * time.Minute,
		},
		Cache: "dir/cache/snapshot.json",
		ConsulServices: []discovery.ConsulService{
			{At: "x.yaml:7:3", Name: "im", Service: "im-http", Tag: "live", NodeID: "meta.node", Ports: map[string]discovery.PortFrom{
				"http": {}, "ws": {Meta: "ws_port"}, "tcp": {Sibling: "im-tcp"}, "fixed": {Number: 8080},
			}},
			{At: "x.yaml:12:3", Name: "short", Service: "short"},
		},
		DNSServices: []discovery.DNSService{
			{At: "x.yaml:13:3", Name: "old", SRV: "_im._tcp.example.gov"},
			{At: "x.yaml:14:3", Name: "older", Host: "app.internal", Port: 8888, Interval: time.Minute},
		},
	}
	got := &File{Consul: f.Consul, Cache: f.Cache, ConsulServices: f.ConsulServices, DNSServices: f.DNSServices}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if len(f.Nodes) != 1 || len(f.Nodes["im"]) != 1 {
		t.Errorf("nodes in the file: %+v", f.Nodes)
	}
	check := upstream.Check{Kind: upstream.CheckWebSocket, Port: "ws", Path: "/ws", Every: 5 * time.Second, Timeout: 3 * time.Second}
	if c := f.Gateway.Services[0].Check; c == nil || *c != check {
		t.Errorf("check: %+v", c)
	}
	if f.TagPrefix != "" || f.Gateway.TagRoutes != nil {
		t.Errorf("tags ask for routes that the file does not want: %q, %+v", f.TagPrefix, f.Gateway.TagRoutes)
	}
	// Consul may stand in the environment alone.
	env := func(name string) (string, bool) { return "127.0.0.1:8500", name == "CONSUL_HTTP_ADDR" }
	if _, err := Parse("x.yaml", []byte("listeners: [{address: \":80\"}]\nservices: {a: {consul: a}}\n"), env); err != nil {
		t.Error(err)
	}
}

func TestTagRoutes(t *testing.T) {
	for _, tt := range []struct {
		text      string
		listeners []string
	}{{"urlprefix-", nil}, {"{prefix: urlprefix-, listeners: [tls]}", []string{"tls"}}} {
		text := `
listeners: [{name: tls, address: ":443", tls: true}, {address: ":80"}]
tls: {certificates: [{cert: a.pem, key: a.key}]}
timeouts: {read: 7s}
discovery:
  consul: {address: "127.0.0.1:8500", tag_routes: ` + tt.text + "}\n"
		f, err := Parse("x.yaml", []byte(text), func(string) (string, bool) { return "", false })
		if err != nil {
			t.Fatal(err)
		}
		waits := gateway.DefaultTimeouts()
		waits.Read = 7 * time.Second
		want := &gateway.Route{
			At: "x.yaml:6:51", Accept: gateway.AcceptAny, Listeners: tt.listeners, Balance: gateway.RoundRobin, Refuse: gateway.RefuseStatus, Timeouts: waits,
		}
		if f.TagPrefix != "urlprefix-" || !reflect.DeepEqual(f.Gateway.TagRoutes, want) {
			t.Errorf("%s: got %q, %+v", tt.text, f.TagPrefix, f.Gateway.TagRoutes)
		}
	}
}
