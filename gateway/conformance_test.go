package gateway

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// A wsCase is something that one side of a WebSocket does to the other, and is
// played with the client and with the node as that side.
type wsCase struct {
	name   string
	script []step
	peer   []step // what the other side does; nil: it answers as RFC 6455 wants it
	want   string // what comes back, without a gateway between: the frames in short
	only   side   // who does it; 0: both in turn
	early  bool   // the first step comes in one write with the head of the handshake
	offer  []string
	answer []string
	rules  rules // that the answer brings

	// What the gateway changes on purpose, by its name in differences, when the
	// client or the node is the side.
	byClient, byNode string
}

type side int

const (
	both side = iota
	clientOnly
	nodeOnly
)

// A difference is one that is allowed: what one side sees of an end that the
// other side has no orderly way to pass on.
type difference struct {
	why          string
	client, node change
}

// A change turns the end of what was seen directly into what is seen through
// the gateway.
type change struct {
	direct  string // a regular expression; empty: nothing changes
	through string
}

func differences() map[string]difference {
	const (
		lost     = `881a close:26 "\x03\xf6upstream connection lost"` + "\nend"
		answered = `889a37fa213d close:26 "\x03\xf6upstream connection lost"` + "\nend"
	)
	return map[string]difference{
		"node lost": {
			why:    "between two frames a client is told with 1014 that its node is gone, and its answer goes to the node",
			client: change{`end$`, lost}, node: change{`end$`, answered},
		},
		"node lost, the client sends on": {
			why:    "a client that is in the middle of a message does not answer the 1014 at once",
			client: change{`end$`, lost},
		},
		"node lost in a header": {
			why:    "the beginning of a header that is never completed gives way to the 1014",
			client: change{`cut .*\nend$`, lost}, node: change{`end$`, answered},
		},
		"node reset": {
			why:    "to the client a reset is the same as an end",
			client: change{`reset$`, lost},
		},
		"node reset in a frame": {
			why:    "nothing can be inserted there, nor after a Close: the client sees the stream end",
			client: change{`reset$`, `end`},
		},
		"client reset": {
			why:  "the node sees a stream that ends without a Close, as RFC 6455 has it for 1006",
			node: change{`reset$`, `end`},
		},
	}
}

// What clients and nodes see of each other through the gateway is what they see
// without it, frame by frame and byte by byte.
func TestConformance(t *testing.T) {
	s := startStage(t)
	routes, nodes := pinned(s.node)
	e := startEdge(t, routes, nodes)
	plain := func() (net.Conn, error) { return net.Dial("tcp", e.plain) }
	secure := func() (net.Conn, error) {
		return tls.Dial("tcp", e.secure, &tls.Config{
			RootCAs: e.roots, ServerName: "localhost", CurvePreferences: []tls.CurveID{tls.CurveP256}, // the fastest
		})
	}
	straight := func() (net.Conn, error) { return net.Dial("tcp", s.node) }
	for _, p := range plays(t) {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			s.unlessStuck(t)
			direct := s.run(t, p, "/", straight)
			if got := direct.came; got != p.want {
				t.Fatalf("without a gateway came %q, want %q; the client saw:\n%s\nthe node saw:\n%s", got, p.want, direct.client, direct.node)
			}
			want := p.through(t, direct)
			if s.run(t, p, "/ws/node1/", plain).compare(t, "plain", want) {
				s.run(t, p, "/ws/node1/", secure).compare(t, "TLS", want)
			}
		})
	}
}

// A play is a case with one of its sides as the one that acts.
type play struct {
	*wsCase
	name     string
	byClient bool
	differs  string
}

func plays(t *testing.T) []play {
	var list []play
	names := map[string]bool{}
	for _, c := range wsCases() {
		if names[c.name] {
			t.Fatalf("two cases are called %q", c.name)
		}
		names[c.name] = true
		if c.only != nodeOnly {
			list = append(list, play{&c, c.name + "/by the client", true, c.byClient})
		}
		if c.only != clientOnly {
			list = append(list, play{&c, c.name + "/by the node", false, c.byNode})
		}
	}
	if len(names) < 200 {
		t.Fatalf("only %d cases", len(names))
	}
	return list
}

// through is what has to be seen through the gateway.
func (p play) through(t *testing.T, direct seen) seen {
	t.Helper()
	if p.differs == "" {
		return direct
	}
	d, ok := differences()[p.differs]
	if !ok {
		t.Fatalf("there is no difference %q", p.differs)
	}
	return seen{client: d.client.of(t, direct.client), node: d.node.of(t, direct.node)}
}

func (c change) of(t *testing.T, direct string) string {
	t.Helper()
	if c.direct == "" {
		return direct
	}
	pattern := regexp.MustCompile(c.direct)
	if !pattern.MatchString(direct) {
		t.Fatalf("without a gateway was seen:\n%s\nwant an end like %s", direct, c.direct)
	}
	return pattern.ReplaceAllLiteralString(direct, c.through)
}

// seen is what there was to see in one run of a play.
type seen struct {
	client, node string
	came         string // to the side that acts, in short
}

func (got seen) compare(t *testing.T, where string, want seen) bool {
	t.Helper()
	if got.client != want.client {
		t.Errorf("through the gateway (%s) the client saw:\n%s\nwant, as without it:\n%s", where, got.client, want.client)
	}
	if got.node != want.node {
		t.Errorf("through the gateway (%s) the node saw:\n%s\nwant, as without it:\n%s", where, got.node, want.node)
	}
	return got.client == want.client && got.node == want.node
}

// A stage is a node that meets clients of plays: the path tells which.
type stage struct {
	node string

	mu      sync.Mutex
	runs    int
	stuck   int // runs that did not end in time
	waiting map[string]*run
}

// A run is a play on its way.
type run struct {
	play
	client, node *player
	ended        chan struct{} // the node's side
}

func startStage(t *testing.T) *stage {
	s := &stage{waiting: map[string]*run{}}
	s.node = rawNode(t, func(c net.Conn) {
		in := bufio.NewReader(c)
		head := readHead(in)
		_, path, _ := strings.Cut(head, " ")
		path, _, _ = strings.Cut(path, " ")
		if r := s.take(path); r != nil {
			defer close(r.ended)
			r.serve(c, in, head)
		}
	})
	return s
}

func (s *stage) enter(r *run) (path string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.runs++
	path = fmt.Sprintf("/%d", s.runs)
	s.waiting[path] = r
	return path
}

func (s *stage) take(path string) *run {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.waiting[path]
	delete(s.waiting, path)
	return r
}

// run plays with a connection that dial opens; under prefix is the stage.
func (s *stage) run(t *testing.T, p play, prefix string, dial func() (net.Conn, error)) seen {
	t.Helper()
	r := &run{play: p, ended: make(chan struct{})}
	r.client = &player{tape: newTape(), client: true, rules: p.rules}
	r.node = &player{tape: newTape(), rules: p.rules}
	r.client.other, r.node.other = r.node.tape, r.client.tape
	acts, other := r.client, r.node
	if !p.byClient {
		acts, other = other, acts
	}
	acts.script, other.script = p.script, p.peer
	conn, err := dial()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	r.request(t, conn, prefix+strings.TrimPrefix(s.enter(r), "/"))
	<-r.ended
	got := seen{client: r.client.text(), node: r.node.text(), came: strings.Join(acts.brief, " ")}
	if strings.Contains(got.client+got.node, noEnd) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.stuck++
	}
	return got
}

// unlessStuck skips a play when several before it had to be given up: the rest
// would take hours to say the same.
func (s *stage) unlessStuck(t *testing.T) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stuck > 2 {
		t.Skip("too many plays did not end in time")
	}
}

// request is the client's side.
func (r *run) request(t *testing.T, conn net.Conn, path string) {
	t.Helper()
	p := r.client
	p.conn, p.in = conn, bufio.NewReader(conn)
	io.WriteString(conn, handshake(path, r.offer...)+r.opening(p))
	resp, err := http.ReadResponse(p.in, nil)
	if err != nil {
		t.Fatalf("reading the answer to the handshake: %v", err)
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		body, _ := io.ReadAll(resp.Body)
		t.Fatalf("handshake answered %s: %s", resp.Status, body)
	}
	p.note("answered " + fieldsOf(resp.Header))
	p.play()
}

// serve is the node's side.
func (r *run) serve(conn net.Conn, in *bufio.Reader, head string) {
	p := r.node
	p.conn, p.in = conn, in
	req, err := http.ReadRequest(bufio.NewReader(strings.NewReader(head)))
	if err != nil {
		p.note("not a request: " + err.Error())
		return
	}
	p.note("asked " + fieldsOf(req.Header))
	io.WriteString(conn, switching(head, r.answer...)+r.opening(p))
	p.play()
}

// opening is the step that comes with the head.
func (r *run) opening(p *player) string {
	if !r.early || p.client != r.byClient {
		return ""
	}
	p.begun = 1
	return string(p.script[0].wire(p.client))
}

// fieldsOf lists what a head says of the WebSocket, and cookies: what else there
// is belongs to one hop.
func fieldsOf(header http.Header) string {
	var list []string
	for name, values := range header {
		if strings.HasPrefix(name, "Sec-Websocket-") || strings.Contains(name, "Cookie") || name == "Origin" {
			list = append(list, fmt.Sprintf("%s: %q", name, values))
		}
	}
	slices.Sort(list)
	return strings.Join(list, ", ")
}
