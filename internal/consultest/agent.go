// Package consultest runs real Consul agents for tests: on loopback, each with
// its own ports and data, ended with the test that started it. It is for tests
// only, and imports nothing of this module.
package consultest

import (
	"cmp"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
)

// patience bounds every wait for an agent.
const patience = 60 * time.Second

// Token is the management token of an agent with Options.ACL.
const Token = "5e0a7e55-0000-4000-8000-000000000001"

// Options are how an agent runs.
type Options struct {
	// Data makes it a server that keeps its state on disk and so survives a
	// Kill and Start; it takes seconds to elect itself. Without it the agent
	// runs as `consul agent -dev` does: up at once, its state gone with it.
	Data bool

	// ACL turns access control on with the default policy deny. Token may do
	// everything, a caller without a token nothing.
	ACL bool

	// Servers is how many servers must find each other before they elect a leader;
	// 0: this one does at once. Start does not wait for a leader unless Join is set.
	Servers int

	// Join is a running agent whose servers this one joins.
	Join *Agent

	// Early is for a server that joins others and is not the last of them: Start
	// does not wait for a leader.
	Early bool

	// Name is its node's; by default "agent", or "joined" with Join.
	Name string

	// Config is a further file of configuration, in Consul's HCL.
	Config string
}

// An Agent is one running Consul server of its own datacenter, dc1. Its methods
// fail the test that started it and belong to that test's goroutine.
type Agent struct {
	Address string // host:port of its HTTP API, the same after a restart

	// API has the management token, if there is one.
	API *api.Client

	t      testing.TB
	binary string
	opts   Options
	dir    string
	ports  []int
	cmd    *exec.Cmd
	exited chan struct{}
}

// Start runs an agent and waits until it has a leader and takes registrations.
// When the test ends, so does the agent.
func Start(t testing.TB, opts Options) *Agent {
	t.Helper()
	a := &Agent{t: t, binary: Binary(t), opts: opts, dir: t.TempDir()}
	t.Cleanup(a.Kill)
	for range 3 { // another process may take a port before the agent does
		a.ports = freePorts(t, 3)
		a.configure()
		if a.start() {
			return a
		}
	}
	t.Fatalf("Consul does not start; the end of its log:\n%s", a.Log())
	return nil
}

// Start runs a killed agent again, on its old ports, with what is left of its
// state, and waits for a leader.
func (a *Agent) Start() {
	a.t.Helper()
	if !a.start() {
		a.t.Fatalf("Consul does not start again; the end of its log:\n%s", a.Log())
	}
}

// Run is Start without waiting for a leader.
func (a *Agent) Run() {
	a.t.Helper()
	args := []string{"agent", "-config-file=" + filepath.Join(a.dir, "agent.hcl"), "-config-file=" + filepath.Join(a.dir, "more.hcl")}
	if a.opts.Data {
		args = append(args, "-server", fmt.Sprintf("-bootstrap-expect=%d", max(1, a.opts.Servers)), "-data-dir="+filepath.Join(a.dir, "data"))
	} else {
		args = append(args, "-dev")
	}
	log, err := os.OpenFile(filepath.Join(a.dir, "agent.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		a.t.Fatal(err)
	}
	defer log.Close()
	a.cmd = exec.Command(a.binary, args...)
	a.cmd.Stdout, a.cmd.Stderr = log, log
	a.cmd.Dir = a.dir
	endWithTests(a.cmd)
	if err := a.cmd.Start(); err != nil {
		a.t.Fatalf("starting Consul: %v", err)
	}
	a.exited = make(chan struct{})
	go func(cmd *exec.Cmd, exited chan struct{}) {
		defer close(exited)
		_ = cmd.Wait() // it is killed, so there is always an error
	}(a.cmd, a.exited)
}

func (a *Agent) start() bool {
	a.t.Helper()
	a.Run()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if a.ready() {
			return true
		}
		select {
		case <-a.exited:
			return false
		default:
		}
	}
	a.Kill()
	return false
}

// ready tells whether the agent has a leader that knows the agent's own node,
// which is when registrations reach the catalog.
func (a *Agent) ready() bool {
	if a.opts.Servers > 1 && a.opts.Join == nil || a.opts.Early {
		_, err := a.API.Agent().Self()
		return err == nil
	}
	if leader, err := a.API.Status().Leader(); err != nil || leader == "" {
		return false
	}
	nodes, _, err := a.API.Catalog().Nodes(nil)
	return err == nil && len(nodes) > 0
}

func (a *Agent) configure() {
	a.t.Helper()
	host := func(port int) string { return net.JoinHostPort("127.0.0.1", fmt.Sprint(port)) }
	a.Address = host(a.ports[0])
	var b strings.Builder
	name := "agent"
	if a.opts.Join != nil {
		name = "joined"
		fmt.Fprintf(&b, "retry_join = [%q]\nretry_interval = \"1s\"\n", host(a.opts.Join.ports[2]))
	}
	name = cmp.Or(a.opts.Name, name)
	fmt.Fprintf(&b, "node_name = %q\nbind_addr = \"127.0.0.1\"\nclient_addr = \"127.0.0.1\"\n", name)
	fmt.Fprintf(&b, "disable_update_check = true\nlog_level = \"warn\"\n")
	// How long a server waits for a leader before it says that there is none.
	fmt.Fprintf(&b, "performance {\n  raft_multiplier = 1\n  rpc_hold_timeout = \"1s\"\n}\n")
	fmt.Fprintf(&b, "ports {\n  http = %d\n  server = %d\n  serf_lan = %d\n  serf_wan = -1\n  dns = -1\n  grpc = -1\n  grpc_tls = -1\n}\n",
		a.ports[0], a.ports[1], a.ports[2])
	if a.opts.ACL {
		fmt.Fprintf(&b, "acl {\n  enabled = true\n  default_policy = \"deny\"\n  tokens {\n    initial_management = %q\n    agent = %q\n  }\n}\n", Token, Token)
	}
	for name, text := range map[string]string{"agent.hcl": b.String(), "more.hcl": a.opts.Config} {
		if err := os.WriteFile(filepath.Join(a.dir, name), []byte(text), 0o600); err != nil {
			a.t.Fatal(err)
		}
	}
	a.connect()
}

// connect makes the client, whose connections end with the test.
func (a *Agent) connect() {
	a.t.Helper()
	transport := &http.Transport{}
	a.t.Cleanup(transport.CloseIdleConnections)
	cfg := &api.Config{Address: "http://" + a.Address, HttpClient: &http.Client{Transport: transport, Timeout: patience}}
	if a.opts.ACL {
		cfg.Token = Token
	}
	client, err := api.NewClient(cfg)
	if err != nil {
		a.t.Fatal(err)
	}
	a.API = client
}

// Kill ends the agent as a power cut does, and returns when it is gone.
func (a *Agent) Kill() {
	if a.cmd == nil {
		return
	}
	_ = a.cmd.Process.Kill()
	<-a.exited
	a.cmd = nil
}

// Wipe removes the state of a killed agent.
func (a *Agent) Wipe() {
	a.t.Helper()
	if err := os.RemoveAll(filepath.Join(a.dir, "data")); err != nil {
		a.t.Fatal(err)
	}
}

// Log is the end of what the agent logged.
func (a *Agent) Log() string {
	b, _ := os.ReadFile(filepath.Join(a.dir, "agent.log"))
	return string(tail(b, 4000))
}

// Register registers an instance with the agent.
func (a *Agent) Register(r api.AgentServiceRegistration) {
	a.t.Helper()
	if err := a.API.Agent().ServiceRegister(&r); err != nil {
		a.t.Fatalf("registering %s: %v", r.ID, err)
	}
}

// Deregister takes an instance out by its service id.
func (a *Agent) Deregister(id string) {
	a.t.Helper()
	if err := a.API.Agent().ServiceDeregister(id); err != nil {
		a.t.Fatalf("deregistering %s: %v", id, err)
	}
}

// Maintenance puts an instance into maintenance or out of it.
func (a *Agent) Maintenance(id string, on bool) {
	a.t.Helper()
	var err error
	if on {
		err = a.API.Agent().EnableServiceMaintenance(id, "maintenance by a test")
	} else {
		err = a.API.Agent().DisableServiceMaintenance(id)
	}
	if err != nil {
		a.t.Fatalf("maintenance of %s: %v", id, err)
	}
}

// TokenFor makes a token with the rules given in Consul's HCL. It returns its
// secret and the accessor by which DropToken ends it.
func (a *Agent) TokenFor(rules string) (secret, accessor string) {
	a.t.Helper()
	policy, _, err := a.API.ACL().PolicyCreate(&api.ACLPolicy{Name: fmt.Sprintf("p%d", time.Now().UnixNano()), Rules: rules}, nil)
	if err != nil {
		a.t.Fatalf("creating a policy: %v", err)
	}
	token, _, err := a.API.ACL().TokenCreate(&api.ACLToken{Policies: []*api.ACLTokenPolicyLink{{ID: policy.ID}}}, nil)
	if err != nil {
		a.t.Fatalf("creating a token: %v", err)
	}
	return token.SecretID, token.AccessorID
}

// DropToken deletes a token.
func (a *Agent) DropToken(accessor string) {
	a.t.Helper()
	if _, err := a.API.ACL().TokenDelete(accessor, nil); err != nil {
		a.t.Fatalf("deleting a token: %v", err)
	}
}

// freePorts finds ports that are free for TCP and UDP.
func freePorts(t testing.TB, n int) []int {
	t.Helper()
	var ports []int
	for len(ports) < n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		port := l.Addr().(*net.TCPAddr).Port
		p, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
		if err != nil {
			continue
		}
		defer p.Close()
		ports = append(ports, port)
	}
	return ports
}

// FreePort finds one more port for an agent's Config.
func FreePort(t testing.TB) int {
	t.Helper()
	return freePorts(t, 1)[0]
}
