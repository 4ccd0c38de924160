package gateway

import (
	"io"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"singlegate/upstream"
)

// A node whose check fails gets nothing of balanced routes, is shown as
// failing, and keeps its pinned route; a reload without the check ends it.
func TestChecks(t *testing.T) {
	var broken atomic.Bool
	sick := httpNode(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/healthz" && broken.Load() {
			w.WriteHeader(http.StatusInternalServerError)
		}
		io.WriteString(w, "sick")
	})
	well := httpNode(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "well") })
	e := startEdge(t, []Route{
		{At: "r", Paths: []string{"/"}, Service: "im"},
		{At: "p", Paths: []string{"/at/{node}"}, Service: "im"},
	}, map[string]map[string]string{"im": {"sick": sick, "well": well}}, func(c *Config) {
		c.Services[0].Check = &upstream.Check{Kind: upstream.CheckHTTP, Path: "/healthz", Every: time.Millisecond, Timeout: 5 * time.Second}
	})
	standing := func() string {
		for _, n := range e.Services()[0].Nodes {
			if n.ID == "sick" {
				return string(n.Status)
			}
		}
		return "gone"
	}
	broken.Store(true)
	eventually(t, "the node is failing", func() bool { return standing() == "failing" })
	e.logs.wait(t, "the check of a node fails", `"node":"sick"`, "500")
	for range 6 {
		if _, body := e.answerTo("GET / HTTP/1.1\r\nHost: x\r\n\r\n"); body != "well" {
			t.Errorf("a failing node was picked: %q", body)
		}
	}
	if _, body := e.answerTo("GET /at/sick HTTP/1.1\r\nHost: x\r\n\r\n"); body != "sick" {
		t.Errorf("the pinned route answered %q", body)
	}
	broken.Store(false)
	eventually(t, "the node passes again", func() bool { return standing() == "passing" })
	cfg := e.cfg
	cfg.Services = []ServiceRef{{Name: "im", Ports: []string{""}}}
	if err := e.Apply(cfg, nil); err != nil {
		t.Fatal(err)
	}
	if len(e.checks.running) > 0 {
		t.Errorf("checks go on: %v", e.checks.running)
	}
}
