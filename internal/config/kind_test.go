package config

import (
	"testing"
	"time"

	"singlegate/gateway"
)

// The kind of a route says which requests it takes, and how long those of BOSH
// may wait where neither the file nor the route says so.
func TestKinds(t *testing.T) {
	const head = `{listeners: [{address: ":80"}], services: {x: {nodes: {x1: "10.0.0.1:5280"}}}, `
	cases := []struct {
		file   string
		accept gateway.Accept
		read   time.Duration
	}{
		{`routes: [{path: /b, service: x, kind: bosh}]}`, gateway.AcceptHTTP, gateway.DefaultBOSHRead},
		{`routes: [{path: /b, service: x, kind: bosh, accept: http, timeouts: {idle: 5m}}]}`, gateway.AcceptHTTP, gateway.DefaultBOSHRead},
		{`routes: [{path: /b, service: x, kind: bosh, timeouts: {read: 70s}}]}`, gateway.AcceptHTTP, 70 * time.Second},
		{`timeouts: {read: 80s}, routes: [{path: /b, service: x, kind: bosh}]}`, gateway.AcceptHTTP, 80 * time.Second},
		{`timeouts: {idle: 80s}, routes: [{path: /b, service: x, kind: bosh}]}`, gateway.AcceptHTTP, gateway.DefaultBOSHRead},
		{`routes: [{path: /b, service: x, kind: xmpp}]}`, gateway.AcceptWebSocket, gateway.DefaultTimeouts().Read},
		{`routes: [{path: /b, service: x}]}`, gateway.AcceptAny, gateway.DefaultTimeouts().Read},
	}
	for _, c := range cases {
		f, err := Parse("a.yaml", []byte(head+c.file), testEnv)
		if err != nil {
			t.Fatalf("%s: %v", c.file, err)
		}
		if r := f.Gateway.Routes[0]; r.Accept != c.accept || r.Timeouts.Read != c.read {
			t.Errorf("%s: accept %s, read %v; want %s, %v", c.file, r.Accept, r.Timeouts.Read, c.accept, c.read)
		}
	}
}
