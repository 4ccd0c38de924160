package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"singlegate/certs"
	"singlegate/discovery"
	"singlegate/gateway"
)

// A fakeGateway says what it was told to, and notes what it is asked to do.
type fakeGateway struct {
	reasons  []string
	registry *prometheus.Registry
	err      error // of Drain and Undrain

	mu    sync.Mutex
	asked []string
	noted []string // in the audit log
}

func newFake() *fakeGateway {
	f := &fakeGateway{registry: prometheus.NewRegistry()}
	c := prometheus.NewCounter(prometheus.CounterOpts{Name: "something_total"})
	f.registry.MustRegister(c)
	c.Add(3)
	return f
}

func (f *fakeGateway) Ready() []string              { return f.reasons }
func (f *fakeGateway) Tunnels() int                 { return 7 }
func (f *fakeGateway) Metrics() prometheus.Gatherer { return f.registry }

func (f *fakeGateway) Services() []gateway.ServiceStatus {
	return []gateway.ServiceStatus{{
		Name: "im", Known: true, Source: "consul", Taken: time.Unix(1_800_000_000, 0).UTC(), Fault: "the token has expired",
		Nodes: []gateway.NodeStatus{{
			ID: "node1", Address: "10.0.0.1", Ports: map[string]uint16{"ws": 8083}, Origin: "consul", Status: discovery.Passing,
			Tunnels: 7, EntryPoints: []string{"wss://im.example.gov/ws/node1"},
		}},
		LeftOut: []discovery.LeftOut{{Instance: "im-7", Reason: "it has no port"}},
	}}
}

func (f *fakeGateway) Drains() []gateway.DrainStatus {
	return []gateway.DrainStatus{{Service: "im", Node: "node1", Because: "node removed", Total: 9, Closed: 2, Left: 7, PerSecond: 5, Begins: 1500 * time.Millisecond, ETA: 3 * time.Second}}
}

func (f *fakeGateway) PortFaults() []gateway.PortFault {
	return []gateway.PortFault{{At: "a.yaml:1:1", Name: "im/node1 tcp", Address: ":1883", Reason: "taken"}}
}

func (f *fakeGateway) Certificates() ([]certs.Info, []string) {
	return []certs.Info{{Names: []string{"im.example.gov"}, Issuer: "a CA", Chain: 2, ChainComplete: true, Key: "ECDSA P-256", Source: "im.jks", Alias: "im", Served: 12}}, []string{"a.yaml:1:1: a fault"}
}

func (f *fakeGateway) Drain(service, node string, perSecond int) error {
	return f.note(fmt.Sprintf("drain %q %q %d", service, node, perSecond))
}

func (f *fakeGateway) Undrain(service, node string) error {
	return f.note(fmt.Sprintf("undrain %q %q", service, node))
}

func (f *fakeGateway) note(what string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = append(f.asked, what)
	return f.err
}

func (f *fakeGateway) NoteAdmin(a gateway.AdminAction) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.noted = append(f.noted, fmt.Sprintf("%s %v %q %q %d %v", a.Action, a.Client.Addr(), a.Service, a.Node, a.PerSecond, a.Err))
}

func (f *fakeGateway) wasAsked() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.asked
}

// start serves the fake until the test ends.
func start(t *testing.T, f *fakeGateway) *Server {
	t.Helper()
	s, err := Start(Config{Address: "127.0.0.1:0"}, f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// ask sends a request and returns the status and the body. A header "Host" is
// the request's host.
func ask(t *testing.T, s *Server, method, path, body string, headers ...string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequest(method, "http://"+s.Addr().String()+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		if headers[i] == "Host" {
			req.Host = headers[i+1]
			continue
		}
		req.Header.Add(headers[i], headers[i+1])
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 20 * time.Second}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(answer)
}

func TestAnswers(t *testing.T) {
	f := newFake()
	s := start(t, f)
	unready := start(t, &fakeGateway{registry: prometheus.NewRegistry(), reasons: []string{"nothing is known of im"}})
	for _, c := range []struct {
		name, method, path string
		server             *Server
		status             int
		kind, body         string
	}{
		{"health", "GET", "/healthz", s, 200, "application/json", `{"status":"ok","tunnels":7}`},
		{"health by HEAD", "HEAD", "/healthz", s, 200, "application/json", ``},
		{"ready", "GET", "/readyz", s, 200, "application/json", `{"status":"ready"}`},
		{"not ready", "GET", "/readyz", unready, 503, "application/json", `{"reasons":["nothing is known of im"],"status":"not ready"}`},
		{"metrics", "GET", "/metrics", s, 200, "text/plain", "# HELP something_total \n# TYPE something_total counter\nsomething_total 3"},
		{"a path there is not", "GET", "/api", s, 404, "application/json", `"error":"not_found"`},
		{"a method it has not", "POST", "/healthz", s, 405, "application/json", `"error":"method_not_allowed","message":"/healthz takes GET"`},
		{"drain by GET", "GET", "/api/drain", s, 405, "application/json", `"message":"/api/drain takes POST"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			resp, body := ask(t, c.server, c.method, c.path, "")
			if resp.StatusCode != c.status || !strings.HasPrefix(resp.Header.Get("Content-Type"), c.kind) {
				t.Errorf("status %d, %s", resp.StatusCode, resp.Header.Get("Content-Type"))
			}
			if !strings.Contains(body, c.body) {
				t.Errorf("the body is %q, want %q in it", body, c.body)
			}
		})
	}
	if asked := f.wasAsked(); len(asked) > 0 {
		t.Errorf("it was asked to %v", asked)
	}
}

func TestNodes(t *testing.T) {
	s := start(t, newFake())
	before := time.Now()
	resp, body := ask(t, s, "GET", "/api/nodes", "")
	if resp.StatusCode != 200 || resp.Header.Get("Cache-Control") != "no-store" {
		t.Fatalf("status %d, headers %v", resp.StatusCode, resp.Header)
	}
	var n Nodes
	if err := json.Unmarshal([]byte(body), &n); err != nil {
		t.Fatal(err)
	}
	if n.Time.Before(before.Add(-time.Second)) || n.Time.After(time.Now().Add(time.Second)) {
		t.Errorf("the time is %v", n.Time)
	}
	rest := body[strings.Index(body, `"tunnels"`):]
	const want = `"tunnels":7,"services":[{"name":"im","known":true,"source":"consul","taken":"2027-01-15T08:00:00Z","fault":"the token has expired",` +
		`"nodes":[{"id":"node1","address":"10.0.0.1","ports":{"ws":8083},"origin":"consul","status":"passing","draining":false,"tunnels":7,` +
		`"entry_points":["wss://im.example.gov/ws/node1"]}],"left_out":[{"instance":"im-7","reason":"it has no port"}]}],` +
		`"drains":[{"service":"im","node":"node1","because":"node removed","total":9,"closed":2,"left":7,"per_second":5,"begins_in_seconds":1.5,"eta_seconds":3}],` +
		`"port_faults":[{"at":"a.yaml:1:1","name":"im/node1 tcp","address":":1883","reason":"taken"}]}`
	if strings.TrimSpace(rest) != want {
		t.Errorf("the answer ends\n%s\nwant\n%s", rest, want)
	}
}

func TestDrain(t *testing.T) {
	const asJSON = "application/json"
	for _, c := range []struct {
		name, path, kind, body string
		err                    error
		status                 int
		code, asked            string
	}{
		{"drain", "/api/drain", asJSON, `{"service":"im","node":"node1","per_second":50}`, nil, 202, "", `drain "im" "node1" 50`},
		{"at the service's pace", "/api/drain", asJSON + "; charset=utf-8", `{"node":"node1"}` + "\n", nil, 202, "", `drain "" "node1" 0`},
		{"undrain", "/api/undrain", asJSON, `{"service":"im","node":"node1"}`, nil, 202, "", `undrain "im" "node1"`},
		{"no such node", "/api/drain", asJSON, `{"node":"x"}`, fmt.Errorf("%w %q", gateway.ErrNoNode, "x"), 404, "no_node", `drain "" "x" 0`},
		{"several such nodes", "/api/undrain", asJSON, `{"node":"x"}`, fmt.Errorf("%w %q", gateway.ErrSeveralNodes, "x"), 409, "several_nodes", `undrain "" "x"`},
		{"another failure", "/api/drain", asJSON, `{"node":"x"}`, errors.New("out of order"), 500, "failed", `drain "" "x" 0`},

		{"a form", "/api/drain", "application/x-www-form-urlencoded", `{"node":"x"}`, nil, 415, "not_json", ""},
		{"plain text", "/api/drain", "text/plain", `{"node":"x"}`, nil, 415, "not_json", ""},
		{"parts", "/api/undrain", "multipart/form-data; boundary=x", `{"node":"x"}`, nil, 415, "not_json", ""},
		{"no type", "/api/drain", "", `{"node":"x"}`, nil, 415, "not_json", ""},
		{"a type that only looks like it", "/api/drain", "text/plain; application/json", `{"node":"x"}`, nil, 415, "not_json", ""},
		{"no body", "/api/drain", asJSON, ``, nil, 400, "bad_request", ""},
		{"no JSON", "/api/drain", asJSON, `node=x`, nil, 400, "bad_request", ""},
		{"null", "/api/drain", asJSON, `null`, nil, 400, "bad_request", ""},
		{"no node", "/api/drain", asJSON, `{"service":"im"}`, nil, 400, "bad_request", ""},
		{"an unknown key", "/api/drain", asJSON, `{"node":"x","persecond":5}`, nil, 400, "bad_request", ""},
		{"two objects", "/api/drain", asJSON, `{"node":"x"}{"node":"y"}`, nil, 400, "bad_request", ""},
		{"a pace below zero", "/api/drain", asJSON, `{"node":"x","per_second":-1}`, nil, 400, "bad_request", ""},
		{"a pace out of bounds", "/api/drain", asJSON, `{"node":"x","per_second":100001}`, nil, 400, "bad_request", ""},
		{"a pace for undrain", "/api/undrain", asJSON, `{"node":"x","per_second":1}`, nil, 400, "bad_request", ""},
		{"too large", "/api/drain", asJSON, `{"node":"` + strings.Repeat("x", maxBody) + `"}`, nil, 413, "body_too_large", ""},
		{"blanks without end", "/api/drain", asJSON, `{"node":"x"}` + strings.Repeat(" ", maxBody), nil, 413, "body_too_large", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFake()
			f.err = c.err
			s := start(t, f)
			resp, body := ask(t, s, "POST", c.path, c.body, "Content-Type", c.kind)
			if resp.StatusCode != c.status {
				t.Errorf("status %d, want %d: %s", resp.StatusCode, c.status, body)
			}
			var problem Error
			if err := json.Unmarshal([]byte(body), &problem); err != nil || problem.Code != c.code || (problem.Message == "") != (c.code == "") {
				t.Errorf("the answer is %q, want error %q", body, c.code)
			}
			if asked := strings.Join(f.wasAsked(), ", "); asked != c.asked {
				t.Errorf("it was asked to %s, want %s", asked, c.asked)
			}
			if (len(f.noted) == 1) != (c.asked != "") || c.asked != "" && !strings.Contains(f.noted[0], " 127.0.0.1 ") {
				t.Errorf("noted: %q", f.noted)
			}
		})
	}
}

// What a page in the operator's browser could send.
func TestForeignPages(t *testing.T) {
	f := newFake()
	s := start(t, f)
	port := s.Addr().(*net.TCPAddr).Port
	for _, c := range []struct {
		name, method string
		headers      []string
		code         string // "": it is let through
	}{
		{"a program", "POST", nil, ""},
		{"by name", "POST", []string{"Host", fmt.Sprintf("localhost:%d", port)}, ""},
		{"by name in capitals", "POST", []string{"Host", "LOCALHOST"}, ""},
		{"by IPv6", "POST", []string{"Host", "[::1]:9180"}, ""},
		{"through a forwarded port", "POST", []string{"Host", "127.0.0.1:9999"}, ""},
		{"a page of its own", "POST", []string{"Origin", "http://" + s.Addr().String()}, ""},
		{"a foreign page", "POST", []string{"Origin", "https://evil.example"}, "foreign_origin"},
		{"a page of another local port", "POST", []string{"Origin", "http://127.0.0.1:1"}, "foreign_origin"},
		{"a page without an origin", "POST", []string{"Origin", "null"}, "foreign_origin"},
		{"as browsers call it", "POST", []string{"Sec-Fetch-Site", "cross-site"}, "foreign_origin"},
		{"another port, as browsers call it", "POST", []string{"Sec-Fetch-Site", "same-site"}, "foreign_origin"},
		{"a rebound name", "POST", []string{"Host", "evil.example", "Origin", "http://evil.example"}, "foreign_host"},
		{"a rebound name reading", "GET", []string{"Host", "evil.example:9180"}, "foreign_host"},
		{"a name that begins like ours", "GET", []string{"Host", "localhost.evil.example"}, "foreign_host"},
		{"an address that is not ours", "GET", []string{"Host", "192.0.2.1"}, "foreign_host"},
		{"an address in a name", "GET", []string{"Host", "127.0.0.1.evil.example"}, "foreign_host"},
		{"reading by name", "GET", []string{"Host", "localhost"}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := len(f.wasAsked())
			path, body := "/api/nodes", ""
			if c.method == "POST" {
				path, body = "/api/drain", `{"node":"node1"}`
			}
			resp, answer := ask(t, s, c.method, path, body, append(c.headers, "Content-Type", "application/json")...)
			if c.code == "" {
				if resp.StatusCode >= 300 {
					t.Errorf("status %d: %s", resp.StatusCode, answer)
				}
				return
			}
			if resp.StatusCode != http.StatusForbidden || !strings.Contains(answer, `"error":"`+c.code+`"`) {
				t.Errorf("status %d: %s", resp.StatusCode, answer)
			}
			if len(f.wasAsked()) != before {
				t.Error("the gateway was asked all the same")
			}
		})
	}
}

// The address that a connection came in by is ours, whichever it is.
func TestBoundAddress(t *testing.T) {
	local := &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 9180}
	for host, want := range map[string]bool{"192.0.2.1:9180": true, "192.0.2.1": true, "192.0.2.2:9180": false, "": false, ":9180": false} {
		r := httptest.NewRequest("GET", "/api/nodes", nil)
		r.Host = host
		r = r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, net.Addr(local)))
		if got := namesUs(r, nil); got != want {
			t.Errorf("Host %q: %v, want %v", host, got, want)
		}
	}
}

func TestCloseEndsServing(t *testing.T) {
	s := start(t, newFake())
	ask(t, s, "GET", "/healthz", "")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if c, err := net.Dial("tcp", s.Addr().String()); err == nil {
		c.Close()
		t.Error("it listens still")
	}
}
