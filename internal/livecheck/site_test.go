package livecheck

import (
	"bytes"
	"context"
	"crypto/tls"
	"flag"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"singlegate/certs"
	"singlegate/discovery"
	"singlegate/gateway"
	"singlegate/gateway/admin"
	"singlegate/internal/config"
	"singlegate/internal/standin"
	"singlegate/upstream"
)

var update = flag.Bool("update", false, "write the golden files anew")

const siteConfig = `
public: {host: im.example.gov}
listeners:
  - {name: tls, address: ":443", tls: true}
  - {name: plain, address: ":80"}
admin: {address: "127.0.0.1:9180"}
tls: {certificates: [{cert: im.pem}]}
services:
  im:
    nodes:
      node1: {address: 10.0.0.11, ports: {http: 8080, ws: 8083}}
      node2: {address: 10.0.0.12, ports: {http: 8080, ws: 8083}}
  chat: {nodes: {chat1: "10.0.0.21:9000"}}
routes:
  - {paths: [/route, /api], service: im, port: http}
  - {path: "/ws/{node}", service: im, port: ws, rewrite: /}
  - {host: "{node}.im.example.gov", path: /, accept: websocket, service: im, port: ws}
  - {path: /, accept: websocket, service: chat}
  - {path: /, accept: http, static: ./web}
  - {path: /_check/, page: check}
  - {host: web.example.gov, path: /, listeners: [plain], redirect: https}
`

// A site is a gateway that runs with a config whose addresses are led to
// loopback, behind and before it.
type site struct {
	t     *testing.T
	world *worldDialer
	file  *config.File
	root  *ca
	sent  tls.Certificate
	opts  Options
	local machine
}

// newSite parses the config and makes a certificate, of which the chain that is
// given is sent.
func newSite(t *testing.T, text string) *site {
	t.Helper()
	file, err := config.Parse("site.yaml", []byte(text), func(string) (string, bool) { return "", false })
	if err != nil {
		t.Fatal(err)
	}
	s := &site{t: t, world: newWorldDialer(), file: file, root: newCA(t, "Example Root", nil), local: gatewayMachine()}
	middle := newCA(t, "Example Middle", s.root)
	template := leafFor("im.example.gov", "*.im.example.gov", "web.example.gov")
	template.IssuingCertificateURL = []string{"http://ca.example.gov/middle.crt"}
	s.sent = middle.issue(t, template, middle)
	web := filepath.Join(t.TempDir(), "web")
	if err := os.Mkdir(web, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(web, "index.html"), []byte("hello"), 0o600); err != nil {
		t.Fatal(err)
	}
	for i := range file.Gateway.Routes {
		if file.Gateway.Routes[i].Static != "" {
			file.Gateway.Routes[i].Static = web
		}
	}
	s.opts = Options{Name: "site.yaml", Dialer: s.world, Roots: poolOf(s.root), Settle: 50 * time.Millisecond, Now: func() time.Time { return today }}
	return s
}

// node leads an address to a stand-in.
func (s *site) node(address string, system standin.System) {
	id, _, _ := strings.Cut(address, ":")
	s.world.to[address] = node(s.t, id, system)
}

// runGateway runs the gateway on free ports. tune may change what it runs with
// against what the check believes.
func (s *site) runGateway(tune ...func(*gateway.Config)) *gateway.Server {
	s.t.Helper()
	cfg := s.file.Gateway
	cfg.Listeners = append([]gateway.Listener(nil), cfg.Listeners...)
	for i := range cfg.Listeners {
		cfg.Listeners[i].Public = gateway.Public{Host: "im.example.gov", Port: boundPort(cfg.Listeners[i].Address)}
		cfg.Listeners[i].Address = "127.0.0.1:0"
	}
	for _, f := range tune {
		f(&cfg)
	}
	server, err := gateway.New(gateway.Options{
		Log: zerolog.Nop(), Access: zerolog.Nop(),
		TLS:         &tls.Config{Certificates: []tls.Certificate{s.sent}, NextProtos: []string{"http/1.1"}},
		Upstream:    upstream.New(s.world),
		Descriptors: gateway.NewDescriptors(0),
	})
	if err != nil {
		s.t.Fatal(err)
	}
	snap := discovery.Static{Services: s.file.Nodes}.Snapshot()
	if err := server.Apply(cfg, &snap); err != nil {
		s.t.Fatal(err)
	}
	ctl, err := admin.Start(admin.Config{Address: "127.0.0.1:0"}, plainSite{server})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		ctl.Close()
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		server.Shutdown(ctx)
	})
	s.world.to[s.file.Admin.Address] = ctl.Addr().String()
	for _, e := range server.Entries() {
		for _, l := range s.file.Gateway.Listeners {
			if l.Name == e.Name {
				s.public(l.Address, e.Address.String())
			}
		}
	}
	return server
}

// public leads a port of every public name to an address.
func (s *site) public(port, to string) {
	_, port, _ = net.SplitHostPort(port)
	for _, host := range []string{"im.example.gov", "node1.im.example.gov", "node2.im.example.gov", "web.example.gov"} {
		s.world.to[net.JoinHostPort(host, port)] = to
	}
}

// check runs the check, and sees to it that everything found can be said.
func (s *site) check() *Report {
	s.t.Helper()
	report, err := run(s.t.Context(), s.file, s.opts, s.local)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, section := range report.Sections {
		sure(s.t, section.Title)
		for _, l := range section.Lines {
			sure(s.t, l.Finding)
		}
	}
	return report
}

// find gives the findings of the lines that have a part of a target, or who.
func find(r *Report, section Code, part string) []Finding {
	var list []Finding
	for _, s := range r.Sections {
		for _, l := range s.Lines {
			if s.Title.Code == section && (strings.Contains(l.Target, part) || l.Who == part) {
				list = append(list, l.Finding)
			}
		}
	}
	return list
}

// one is the only one of them.
func one(t *testing.T, r *Report, section Code, part string) Finding {
	t.Helper()
	list := find(r, section, part)
	if len(list) != 1 {
		var b bytes.Buffer
		r.WriteText(&b, false, false)
		t.Fatalf("%d findings with %q in %s, want one\n%s", len(list), part, section, b.String())
	}
	return list[0]
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s: the report is\n%s\nwant\n%s", name, got, want)
	}
}

func goldens(t *testing.T, name string, r *Report) {
	t.Helper()
	for _, c := range []struct {
		name              string
		chinese, terminal bool
	}{{name + ".en.golden", false, false}, {name + ".zh.golden", true, false}, {name + ".terminal.golden", false, true}} {
		var b bytes.Buffer
		if err := r.WriteText(&b, c.chinese, c.terminal); err != nil {
			t.Fatal(err)
		}
		golden(t, c.name, b.Bytes())
	}
	var b bytes.Buffer
	if err := r.WriteJSON(&b, false); err != nil {
		t.Fatal(err)
	}
	golden(t, name+".json.golden", b.Bytes())
}

func TestSiteThatIsWell(t *testing.T) {
	s := newSite(t, siteConfig)
	for _, a := range []string{"10.0.0.11:8080", "10.0.0.11:8083", "10.0.0.12:8080", "10.0.0.12:8083"} {
		s.node(a, standin.WildfireChat)
	}
	s.node("10.0.0.21:9000", standin.Chat)
	s.runGateway()
	r := s.check()
	if r.Failed() {
		t.Error("failed")
	}
	goldens(t, "well", r)
}

func TestSiteThatIsBroken(t *testing.T) {
	s := newSite(t, strings.Replace(siteConfig, "routes:", `  ops: {nodes: {minio: "10.0.0.31:9002"}}
routes:
  - {path: "/plain/{node}", service: im, port: ws}
  - {path: /console/, service: ops}`, 1))
	s.sent.Certificate = s.sent.Certificate[:1]
	s.node("10.0.0.11:8083", standin.WildfireChat)
	s.world.to["10.0.0.11:8080"] = serve(t, banner("SSH-2.0-OpenSSH_9.6\r\n"))
	s.world.errs["10.0.0.12:8080"] = dialError(os.ErrDeadlineExceeded)
	s.file.Nodes["im"][1].Ports["ws"] = 8084 // refused
	s.world.to["10.0.0.31:9002"] = serve(t, says(status("200 OK")))
	s.file.Nodes["chat"][0].Address = "10.0.0.5" // this machine, where 8083 is on loopback only
	s.file.Nodes["chat"][0].Ports[""] = 8083
	s.runGateway()
	r := s.check()
	if !r.Failed() {
		t.Error("not failed")
	}
	goldens(t, "broken", r)
}

func TestGatewayThatDoesNotRun(t *testing.T) {
	s := newSite(t, siteConfig)
	s.world.errs["web.example.gov:80"] = dialError(&net.DNSError{IsNotFound: true})
	s.node("10.0.0.11:8080", standin.WildfireChat)
	goldens(t, "not_running", s.check())
}

// The running gateway has another config than the file.
func TestAnotherConfig(t *testing.T) {
	s := newSite(t, siteConfig)
	for _, a := range []string{"10.0.0.11:8080", "10.0.0.11:8083", "10.0.0.12:8080", "10.0.0.12:8083"} {
		s.node(a, standin.WildfireChat)
	}
	nodes := s.file.Nodes["im"]
	s.file.Nodes["im"] = nodes[:1]
	s.runGateway(func(c *gateway.Config) { c.Routes = c.Routes[1:2] })
	s.file.Nodes["im"] = nodes
	r := s.check()
	is(t, one(t, r, titleService, "http://im.example.gov/route"), Fail, noSuchRoute)
	is(t, one(t, r, titleService, "wss://im.example.gov/ws/node1"), OK, switchedFor)
	is(t, one(t, r, titleService, "wss://im.example.gov/ws/node2"), Fail, nodeNotKnown)
	is(t, one(t, r, titlePage, "https://im.example.gov/_check/"), Fail, notOK)
	is(t, one(t, r, titleRedirect, "http://web.example.gov/"), Fail, noRedirect)
}

// Nodes that only the running gateway knows are checked as well, and one in
// maintenance is no failure.
func TestNodesOfTheRunningGateway(t *testing.T) {
	s := newSite(t, siteConfig)
	for _, a := range []string{"10.0.0.11:8083", "10.0.0.12:8083"} {
		s.node(a, standin.WildfireChat)
	}
	server := s.runGateway()
	if err := server.Drain("im", "node2", 1); err != nil {
		t.Fatal(err)
	}
	s.file.Nodes = map[string][]discovery.Node{}
	r := s.check()
	is(t, one(t, r, titleService, "wss://im.example.gov/ws/node1"), OK, switchedFor)
	is(t, one(t, r, titleService, "wss://im.example.gov/ws/node2"), Warn, gatewayDraining)
	is(t, one(t, r, titleNodes, "im/node1 ws"), OK, nodeSwitches)
}

func TestWithoutAdminNoNodesAreKnown(t *testing.T) {
	s := newSite(t, siteConfig)
	s.runGateway()
	s.file.Admin.Address = ""
	s.file.Nodes = map[string][]discovery.Node{}
	r := s.check()
	is(t, r.Sections[0].Lines[0].Finding, OK, isAnswering)
	if len(find(r, titleNodes, "")) != 0 {
		t.Error("there are nodes")
	}
	for _, section := range r.Sections {
		if section.Title.Code == titleService && section.Title.Params["to"] == "im:ws" {
			is(t, section.Lines[0].Finding, Warn, noNodes)
		}
	}
}

// From another machine the nodes' addresses may mean nothing.
func TestFromAnotherMachine(t *testing.T) {
	s := newSite(t, siteConfig)
	s.runGateway()
	delete(s.world.to, s.file.Admin.Address)
	s.local = machine{readFile: func(string) ([]byte, error) { return nil, nil }, addresses: nowhere().addresses}
	r := s.check()
	is(t, one(t, r, titleGateway, "127.0.0.1:9180"), Warn, adminSilent)
	is(t, one(t, r, titleNodes, "im/node1 ws"), Warn, nodeRefused)
	is(t, find(r, titleNodes, "")[0], Warn, elsewhere)
}

func TestNotReady(t *testing.T) {
	s := newSite(t, siteConfig)
	s.file.Nodes = map[string][]discovery.Node{}
	s.runGateway()
	is(t, s.check().Sections[0].Lines[0].Finding, Warn, notReady, "reasons=im")
}

// From inside, at an address that no DNS knows.
func TestConnect(t *testing.T) {
	s := newSite(t, strings.Replace(siteConfig, `":443"`, `":8443"`, 1))
	for _, a := range []string{"10.0.0.11:8083", "10.0.0.12:8083"} {
		s.node(a, standin.WildfireChat)
	}
	s.runGateway()
	inside := map[string]string{}
	for address, to := range s.world.to {
		host, port, _ := net.SplitHostPort(address)
		switch {
		case !strings.HasSuffix(host, "example.gov"):
			inside[address] = to
		case port == "8443":
			inside["10.0.0.5:10443"] = to
		default:
			inside["10.0.0.5:80"] = to
		}
	}
	s.world.to = inside
	s.opts.Connect = "10.0.0.5:10443"
	r := s.check()
	is(t, one(t, r, titleGateway, "https://im.example.gov:8443"), OK, isTrusted)
	is(t, one(t, r, titleGateway, "http://im.example.gov"), OK, isConnected, "address=10.0.0.5:80")
	is(t, one(t, r, titleService, "wss://node1.im.example.gov:8443/"), OK, switchedFor)
	for _, bad := range []string{":443", "10.0.0.5:0", "10.0.0.5:x", "1:2:3"} {
		s.opts.Connect = bad
		if _, err := run(t.Context(), s.file, s.opts, s.local); err == nil {
			t.Errorf("--connect %s is taken", bad)
		}
	}
	s.opts.Connect = "::1"
	c := &checker{}
	if err := c.setConnect("::1"); err != nil || c.connect.host != "::1" || c.connect.port != 0 {
		t.Errorf("--connect ::1: %+v, %v", c.connect, err)
	}
}

func TestRefusalByClosing(t *testing.T) {
	s := newSite(t, strings.Replace(siteConfig, "service: chat}", "service: chat, refuse: close}", 1))
	s.opts.Chinese = true
	s.runGateway()
	for _, section := range s.check().Sections {
		if section.Title.Params["to"] == "chat" {
			is(t, section.Lines[0].Finding, Fail, upgradeRefused, "reason=的节点都无法连接")
			return
		}
	}
	t.Error("the route was not checked")
}

// Public ports of nodes and services: TCP, with and without TLS, and HTTP.
func TestPorts(t *testing.T) {
	s := newSite(t, siteConfig)
	for _, a := range []string{"10.0.0.11:8083", "10.0.0.11:8080"} {
		s.node(a, standin.WildfireChat)
	}
	rule := func(ports map[string]uint16) gateway.PortRule { return gateway.PortRule{Map: ports} }
	s.file.Gateway.NodePorts = []gateway.NodePort{
		{At: "site.yaml:50:5", Service: "im", Port: "ws", Kind: "tcp", Listen: rule(map[string]uint16{"node1": 1001, "node2": 1002})},
		{At: "site.yaml:51:5", Service: "im", Port: "ws", Kind: "http", TLS: true, Listen: rule(map[string]uint16{"node1": 2001})},
		{At: "site.yaml:52:5", Service: "im", Port: "http", Kind: "http", Listen: rule(map[string]uint16{"node1": 3001, "node2": 3002})},
		{At: "site.yaml:53:5", Service: "im", Port: "http", Kind: "http", Listen: gateway.PortRule{Meta: "port"}},
	}
	s.file.Gateway.Listeners = append(s.file.Gateway.Listeners,
		gateway.Listener{At: "site.yaml:9:5", Name: "xmpp", Address: ":5222", Service: "im", Port: "http"},
		gateway.Listener{At: "site.yaml:10:5", Name: "xmpps", Address: ":5223", Service: "chat", TLS: true})
	taken := freePort(t)
	server := s.runGateway(func(c *gateway.Config) {
		c.NodePorts = append([]gateway.NodePort(nil), c.NodePorts[:3]...)
		for i := range c.NodePorts {
			c.NodePorts[i].Host, c.NodePorts[i].Timeouts = "127.0.0.1", gateway.DefaultTimeouts()
		}
		for i := range c.Listeners {
			c.Listeners[i].Timeouts = gateway.DefaultTimeouts()
		}
		c.NodePorts[0].Listen = rule(map[string]uint16{"node1": freePort(t), "node2": freePort(t)})
		c.NodePorts[1].Listen = rule(map[string]uint16{"node1": freePort(t)})
		c.NodePorts[2].Listen = rule(map[string]uint16{"node1": freePort(t), "node2": taken})
		c.Listeners = append(c.Listeners, gateway.Listener{Name: "taken", Address: joinPort("127.0.0.1", taken)})
	})
	public := map[string][]string{"im/node1 ws": {"1001", "2001"}, "im/node2 ws": {"1002"}, "im/node1 http": {"3001"}}
	for _, e := range server.Entries() {
		if ports := public[e.Name]; len(ports) > 0 {
			s.public(":"+ports[0], e.Address.String())
			public[e.Name] = ports[1:]
		}
	}
	r := s.check()
	is(t, one(t, r, titleNodePorts, "tcp://im.example.gov:1001"), OK, isConnected)
	is(t, one(t, r, titleNodePorts, "tcp://im.example.gov:1002"), Fail, closedAtOnce)
	is(t, one(t, r, titleNodePorts, "wss://im.example.gov:2001"), OK, switchedFor, "protocol=mqtt") // without it is a 400
	is(t, one(t, r, titleNodePorts, "http://im.example.gov:3001"), OK, answered)
	is(t, one(t, r, titleNodePorts, "http://im.example.gov:3002"), Fail, gatewayRefused)
	is(t, one(t, r, titleListener, "tcp://im.example.gov:5222"), OK, isConnected)
	is(t, one(t, r, titleListener, "tls://im.example.gov:5223"), Fail, closedAtOnce)
	var notes []Code
	for _, section := range r.Sections {
		for _, l := range section.Lines {
			if section.Title.Code == titleNodePorts && l.Target == "" {
				notes = append(notes, l.Code)
			}
		}
	}
	if len(notes) != 3 || notes[0] != portNotOpen || notes[1] != portUnknown || notes[2] != portUnknown {
		t.Errorf("notes are %v", notes)
	}
}

func freePort(t *testing.T) uint16 {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return uint16(l.Addr().(*net.TCPAddr).Port)
}

// The time of the whole check is bounded; what is left over is said, and is no
// success.
func TestTimeIsUp(t *testing.T) {
	s := newSite(t, siteConfig)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r, err := run(ctx, s.file, s.opts, s.local)
	if err != nil {
		t.Fatal(err)
	}
	is(t, one(t, r, titleNodes, "im/node1 ws"), Skip, notTried)
	if !r.Failed() {
		t.Error("a check that tried nothing succeeds")
	}
}

func TestConsulOfTheSite(t *testing.T) {
	s := newSite(t, siteConfig)
	s.opts.Consul = &Consul{"127.0.0.1:8500", func(context.Context) (string, error) { return "10.0.0.5:8300", nil }}
	var last [2]int
	s.opts.Progress = func(done, total int) { last = [2]int{done, total} }
	is(t, one(t, s.check(), titleDiscovery, "127.0.0.1:8500"), OK, hasLeader)
	if last[0] == 0 || last[0] != last[1] {
		t.Errorf("progress ends at %d of %d", last[0], last[1])
	}
}

// Another program than a gateway at the admin address says nothing about one.
func TestForeignAdminAddress(t *testing.T) {
	s := newSite(t, siteConfig)
	s.world.to[s.file.Admin.Address] = serve(t, says(withBody("200 OK", "hello")))
	is(t, s.check().Sections[0].Lines[0].Finding, Fail, notRunning)
}

// A plainSite is a gateway whose certificates nobody asks for.
type plainSite struct{ *gateway.Server }

// Certificates implements admin.Gateway.
func (plainSite) Certificates() ([]certs.Info, []string) { return nil, nil }
