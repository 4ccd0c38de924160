package livecheck

import (
	"net"
	"strconv"
	"testing"

	"singlegate/discovery"
	"singlegate/internal/standin"
)

const taggedConfig = `
public: {host: im.example.gov}
listeners:
  - {name: tls, address: ":443", tls: true}
  - {name: plain, address: ":80"}
admin: {address: "127.0.0.1:9180"}
tls: {certificates: [{cert: im.pem}]}
discovery: {consul: {address: "127.0.0.1:8500", tag_routes: {prefix: urlprefix-, listeners: [tls]}}}
routes:
  - {path: /_check/, page: check}
`

// Routes that tags ask for are tried as those of the file, on their listeners.
func TestRoutesOfTags(t *testing.T) {
	s := newSite(t, taggedConfig)
	s.node("10.0.0.11:8080", standin.WildfireChat)
	server := s.runGateway()
	node := func(address, id string) discovery.Node {
		host, text, _ := net.SplitHostPort(address)
		port, _ := strconv.Atoi(text)
		return discovery.Node{ID: id, Address: host, Ports: map[string]uint16{"": uint16(port)}, Weight: 1, Status: discovery.Passing}
	}
	route := func(host, path, id string) discovery.TagRoute {
		return discovery.TagRoute{Host: host, Path: path, Nodes: []discovery.Share{{Node: id}}}
	}
	server.Publish(discovery.Snapshot{Services: map[string]discovery.Service{
		"web": {
			Tagged: true, Source: "consul", Nodes: []discovery.Node{node("10.0.0.11:8080", "w1")},
			Routes: []discovery.TagRoute{route("", "/api", "w1"), route("web.example.gov", "/", "w1")},
		},
		"shop": {
			Tagged: true, Source: "consul", Nodes: []discovery.Node{node("10.0.0.12:8080", "s1")},
			Routes: []discovery.TagRoute{route("", "/shop", "s1"), route("", "/api", "s1")},
		},
	}})
	r := s.check()
	if f := one(t, r, titleService, "https://im.example.gov/api"); f.Mark != OK {
		t.Errorf("/api: %+v", f)
	}
	if f := one(t, r, titleService, "https://web.example.gov/"); f.Mark != OK {
		t.Errorf("a host: %+v", f)
	}
	if f := one(t, r, titleService, "https://im.example.gov/shop"); f.Mark != Fail {
		t.Errorf("a node that refuses: %+v", f)
	}
	if list := find(r, titleService, "http://"); len(list) != 0 {
		t.Errorf("tried on a listener that the routes are not on: %+v", list)
	}
	if f := one(t, r, titleNodes, "shop/s1"); f.Mark != Fail {
		t.Errorf("the node itself: %+v", f)
	}
	for _, section := range r.Sections {
		if section.Title.Code == titleService && section.Title.Params["route"] == "/shop" && section.At != "consul: shop" {
			t.Errorf("it stands at %q", section.At)
		}
	}
}
