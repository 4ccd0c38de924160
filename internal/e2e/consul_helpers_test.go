package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/hashicorp/consul/api"

	"singlegate/internal/consultest"
	"singlegate/internal/standin"
)

// consulConfig takes the discovery, and what else stands in service im.
const consulConfig = `
listeners: [{name: plain, address: "127.0.0.1:0"}]
admin: {address: "127.0.0.1:0"}
discovery: %s
services: {im: {consul: im%s}}
routes: [{path: "/ws/{node}", service: im, rewrite: /}]
node_ports: [{service: im, kind: http, address: 127.0.0.1, listen: meta.public}]
`

// startConsulSite runs a gateway of consulConfig in a folder.
func startConsulSite(t *testing.T, dir, discovery, more string) (*site, door) {
	t.Helper()
	writeFile(t, dir, "gateway.yaml", fmt.Sprintf(consulConfig, discovery, more))
	s := startSite(t, dir)
	return s, door{address: s.listeners["plain"], host: "localhost"}
}

// A member is a stand-in that may be registered in Consul.
type member struct {
	*standin.Node
	port door // its public port
}

// startMember starts a stand-in and finds a public port for it.
func startMember(t *testing.T, id string) member {
	t.Helper()
	return member{startNode(t, standin.Options{ID: id}), door{address: freeAddress(t), host: "localhost"}}
}

// register registers the member as an instance of im, by its id.
func (m member) register(a *consultest.Agent) {
	_, public, _ := net.SplitHostPort(m.port.address)
	a.Register(registration(m.ID(), m.Port(), public))
}

func registration(id string, port uint16, public string) api.AgentServiceRegistration {
	return api.AgentServiceRegistration{ID: id, Name: "im", Address: "127.0.0.1", Port: int(port), Meta: map[string]string{"public": public}}
}

// until tries until there is no error.
func until(t testing.TB, what string, try func() error) {
	t.Helper()
	var err error
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if err = try(); err == nil {
			return
		}
	}
	t.Fatalf("waiting until %s: %v", what, err)
}

// reaches opens a WebSocket that must lead to a node, and closes it.
func (d door) reaches(target, node string) error {
	s, err := d.handshake(target)
	if err != nil {
		return err
	}
	defer s.conn.Close()
	if s.answer.StatusCode != 101 {
		return fmt.Errorf("%s: %s %s", target, s.answer.Status, s.body)
	}
	_, greeting, err := s.next()
	if err != nil {
		return fmt.Errorf("%s: no greeting: %w", target, err)
	}
	var hello said
	if err := json.Unmarshal(greeting, &hello); err != nil || hello.Node != node {
		return fmt.Errorf("%s: %q greets, want node %s", target, greeting, node)
	}
	return nil
}

// answers tells whether a request gets a status and, with a problem, its code.
func (d door) answers(target string, status int, code string) error {
	answer, body, err := d.tryRequest("GET", target, "")
	switch {
	case err != nil:
		return err
	case answer.StatusCode != status || !strings.Contains(body, code):
		return fmt.Errorf("%s: %s %s, want %d %s", target, answer.Status, body, status, code)
	}
	return nil
}

// closed tells whether nobody listens.
func (d door) closed() error {
	conn, err := net.DialTimeout("tcp", d.address, patience)
	if err != nil {
		return nil
	}
	conn.Close()
	return errors.New(d.address + " is open")
}

// reachable waits until members are reached by path and by their own port.
func reachable(t *testing.T, d door, members ...member) {
	t.Helper()
	for _, m := range members {
		until(t, m.ID()+" is reachable by path", func() error { return d.reaches("/ws/"+m.ID(), m.ID()) })
		until(t, m.ID()+" is reachable by its port", func() error { return m.port.reaches("/", m.ID()) })
	}
}

// follows opens tunnels to members in turn, by path and by port, and lets them echo.
func (e *echoes) follows(t *testing.T, d door, tunnels int, members ...member) {
	t.Helper()
	for i := range tunnels {
		m := members[i%len(members)]
		if i/len(members)%2 == 0 {
			e.follow(d.open(t, "/ws/"+m.ID()))
		} else {
			e.follow(m.port.open(t, "/"))
		}
	}
}

// finish ends the echoes, of which none may have failed.
func (e *echoes) finish(t *testing.T) {
	t.Helper()
	if err := e.stop(); err != nil {
		t.Error(err)
	}
	t.Logf("%d messages came back in order", e.messages.Load())
}

// visitors come one after the other, and every one must be served.
type visitors struct {
	once   sync.Once
	quit   chan struct{}
	served atomic.Int64
	ended  chan struct{}
	err    error // of the first that was not, once ended
}

// startVisitors makes visits in turn until finish, or until one fails.
func startVisitors(t *testing.T, visits ...func() error) *visitors {
	v := &visitors{quit: make(chan struct{}), ended: make(chan struct{})}
	go func() {
		defer close(v.ended)
		for i := 0; ; i++ {
			select {
			case <-v.quit:
				return
			default:
			}
			if v.err = visits[i%len(visits)](); v.err != nil {
				return
			}
			v.served.Add(1)
		}
	}()
	t.Cleanup(v.stop)
	return v
}

// more waits until so many more were served.
func (v *visitors) more(t *testing.T, n int64) {
	t.Helper()
	want := v.served.Load() + n
	until(t, "more visitors are served", func() error {
		select {
		case <-v.ended:
			return nil // too early, as finish tells
		default:
		}
		if got := v.served.Load(); got < want {
			return fmt.Errorf("%d of %d were", got, want)
		}
		return nil
	})
}

// stop ends the visits. It may be called again.
func (v *visitors) stop() {
	v.once.Do(func() { close(v.quit) })
	<-v.ended
}

// finish ends the visits, of which none may have failed.
func (v *visitors) finish(t *testing.T) {
	t.Helper()
	v.stop()
	if v.err != nil {
		t.Errorf("after %d that were served: %v", v.served.Load(), v.err)
	}
	t.Logf("%d visitors were served", v.served.Load())
}

// visitsOf are visits to members by path and by port.
func visitsOf(d door, members ...member) []func() error {
	var visits []func() error
	for _, m := range members {
		visits = append(visits,
			func() error { return d.reaches("/ws/"+m.ID(), m.ID()) },
			func() error { return m.port.reaches("/", m.ID()) })
	}
	return visits
}

// What tests read of /api/nodes.
type (
	nodesAnswer struct {
		Services []serviceAnswer
		Drains   []struct {
			Service, Node, Because string
			Total, Left            int
		}
	}
	serviceAnswer struct {
		Name, Source, Fault string
		Known               bool
		Taken               time.Time
		Nodes               []nodeAnswer
	}
	nodeAnswer struct {
		ID, Address, Status string
		Ports               map[string]uint16
		Tunnels             int
	}
)

// node is the one with the id; none: the zero value.
func (s serviceAnswer) node(id string) nodeAnswer {
	i := slices.IndexFunc(s.Nodes, func(n nodeAnswer) bool { return n.ID == id })
	if i < 0 {
		return nodeAnswer{}
	}
	return s.Nodes[i]
}

// im is what the gateway knows of service im.
func (s *site) im() serviceAnswer {
	s.t.Helper()
	_, body := door{address: s.admin, host: s.admin}.request(s.t, "GET", "/api/nodes", "")
	n := decode[nodesAnswer](s.t, body)
	if len(n.Services) != 1 {
		s.t.Fatalf("%d services, want im alone: %s", len(n.Services), body)
	}
	return n.Services[0]
}

// tells waits until /api/nodes tells of a fault with such words; "": of none.
func (s *site) tells(fault string) {
	s.t.Helper()
	until(s.t, fmt.Sprintf("/api/nodes tells of the fault %q", fault), func() error {
		if got := s.im().Fault; !strings.Contains(got, fault) || (fault == "") != (got == "") {
			return fmt.Errorf("the fault is %q", got)
		}
		return nil
	})
}

// cached waits until the cache file of a folder knows a node.
func cached(t *testing.T, dir, name, node string) {
	t.Helper()
	until(t, "the cache knows "+node, func() error {
		if files, _ := filepath.Glob(filepath.Join(dir, name)); len(files) == 0 {
			return errors.New("there is no file")
		}
		if text := readFile(t, filepath.Join(dir, name)); !strings.Contains(text, strconv.Quote(node)) {
			return errors.New(text)
		}
		return nil
	})
}

// closedWith reads a socket to its end, which must come with one Close.
func closedWith(s *socket, want ws.StatusCode) error {
	codes, reasons, err := s.end()
	if err != nil || len(codes) != 1 || codes[0] != want {
		return fmt.Errorf("closed with %v %q, %v, want %d once", codes, reasons, err, want)
	}
	return nil
}
