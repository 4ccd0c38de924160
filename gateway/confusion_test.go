package gateway

import (
	"slices"
	"testing"
)

func TestWarnings(t *testing.T) {
	cfg := Config{Routes: []Route{
		{At: "f:1:1", Paths: []string{"/ws/{node}"}, Service: "im"},
		{At: "f:2:1", Paths: []string{"/ws/status"}, Service: "im"},
		{At: "f:3:1", Paths: []string{"/ws/node1/deep"}, Service: "im"},
		{At: "f:4:1", Paths: []string{"/ws", "/other/x"}, Service: "im"},
		{At: "f:5:1", Host: "h", Paths: []string{"/ws/elsewhere"}, Service: "im"},
	}}
	want := []string{
		`f:3:1: a node named "node1" cannot be reached, or only in part, by /ws/{node} (f:1:1): /ws/node1/deep takes that path`,
		`f:2:1: a node named "status" cannot be reached, or only in part, by /ws/{node} (f:1:1): /ws/status takes that path`,
	}
	if got := Warnings(cfg); !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
	cfg.Routes[0].Listeners, cfg.Routes[1].Listeners, cfg.Routes[2].Listeners = []string{"a"}, []string{"b"}, []string{"b"}
	if got := Warnings(cfg); len(got) > 0 {
		t.Errorf("on different listeners: %q", got)
	}
}
