package config

import (
	"reflect"
	"testing"
	"time"

	"singlegate/gateway"
)

// What routes and node ports ask of their requests and answers.
func TestPolicies(t *testing.T) {
	f, err := Parse("a.yaml", []byte(`
listeners: [{address: ":80"}]
services: {app: {nodes: {app1: "10.0.0.1:80"}}}
routes:
  - path: /im
    service: app
    rewrite: /
    rewrite_redirects: true
    max_body: 100MB
    cors:
      origins: ["https://web.example.gov", "weapp://app"]
      methods: [POST, OPTIONS]
      headers: [p, cid]
      expose: [X-Total]
      credentials: true
      max_age: 10m
    request_headers: {set: {Host: "app.internal:8080", X-Key: "${SECRET}", X-Flag: true}, remove: [Cookie]}
    response_headers: {set: {X-Frame-Options: DENY}, remove: [Server]}
  - {path: /open, static: ./web, cors: {origins: "*", headers: "*"}}
  - {path: /none, service: app, max_body: 0}
  - {page: host_meta}
node_ports:
  - {service: app, kind: http, listen: {app1: 81}, max_body: 64k, cors: {origins: ["*"]}, request_headers: {remove: [Cookie]}}
`), testEnv)
	if err != nil {
		t.Fatal(err)
	}
	want := []gateway.Policies{
		{
			CORS: &gateway.CORS{
				Origins: []string{"https://web.example.gov", "weapp://app"}, Methods: []string{"POST", "OPTIONS"}, Headers: []string{"p", "cid"},
				Expose: []string{"X-Total"}, Credentials: true, MaxAge: 10 * time.Minute,
			},
			RequestHeaders: gateway.HeaderEdits{
				Set:    []gateway.Header{{Name: "Host", Value: "app.internal:8080"}, {Name: "X-Key", Value: secret}, {Name: "X-Flag", Value: "true"}},
				Remove: []string{"Cookie"},
			},
			ResponseHeaders:  gateway.HeaderEdits{Set: []gateway.Header{{Name: "X-Frame-Options", Value: "DENY"}}, Remove: []string{"Server"}},
			RewriteRedirects: true,
			MaxBody:          100e6,
		},
		{CORS: &gateway.CORS{Origins: []string{"*"}, Methods: gateway.DefaultCORSMethods(), Headers: []string{"*"}}},
		{},
		{},
	}
	for i, r := range f.Gateway.Routes {
		if !reflect.DeepEqual(r.Policies, want[i]) {
			t.Errorf("route %d: %+v\nwant %+v", i, r.Policies, want[i])
		}
	}
	if got := f.Gateway.Routes[3].Paths; !reflect.DeepEqual(got, gateway.HostMetaPaths()) {
		t.Errorf("host_meta has the paths %q", got)
	}
	port := gateway.Policies{
		CORS:           &gateway.CORS{Origins: []string{"*"}, Methods: gateway.DefaultCORSMethods(), Headers: gateway.DefaultCORSHeaders()},
		RequestHeaders: gateway.HeaderEdits{Remove: []string{"Cookie"}},
		MaxBody:        64 << 10,
	}
	if got := f.Gateway.NodePorts[0].Policies; !reflect.DeepEqual(got, port) {
		t.Errorf("node port: %+v\nwant %+v", got, port)
	}
}
