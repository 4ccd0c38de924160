package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"singlegate/internal/standin"
)

// A host is a machine with a network of its own: a network namespace.
type host string

// twoHosts makes a gateway's host, 10.99.0.1, and one of nodes, 10.99.0.2 and
// 10.99.0.3, on one network. Of what reaches 10.99.0.3 nothing comes back, as
// behind a firewall that drops. The test is skipped where hosts cannot be made.
func twoHosts(t *testing.T) (gateway, nodes host) {
	t.Helper()
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("hosts are made with `ip` of iproute2, which is not there")
	}
	gateway, nodes = host(fmt.Sprintf("singlegate-%d-g", os.Getpid())), host(fmt.Sprintf("singlegate-%d-n", os.Getpid()))
	for _, h := range []host{gateway, nodes} {
		if out, err := exec.Command("ip", "netns", "add", string(h)).CombinedOutput(); err != nil {
			t.Skipf("network namespaces cannot be made, which takes root and CAP_SYS_ADMIN: %s", out)
		}
		t.Cleanup(func() {
			if out, err := exec.Command("ip", "netns", "del", string(h)).CombinedOutput(); err != nil {
				t.Errorf("removing the namespace: %s", out)
			}
		})
	}
	for _, args := range []string{
		"link add sg-g netns " + string(gateway) + " type veth peer name sg-n netns " + string(nodes),
		"-n " + string(gateway) + " addr add 10.99.0.1/24 dev sg-g",
		"-n " + string(nodes) + " addr add 10.99.0.2/24 dev sg-n",
		"-n " + string(nodes) + " addr add 10.99.0.3/24 dev sg-n",
		"-n " + string(nodes) + " rule add from 10.99.0.3 blackhole",
		"-n " + string(gateway) + " link set lo up", "-n " + string(gateway) + " link set sg-g up",
		"-n " + string(nodes) + " link set lo up", "-n " + string(nodes) + " link set sg-n up",
	} {
		if out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput(); err != nil {
			t.Skipf("networks cannot be set up here: ip %s: %s", args, out)
		}
	}
	return gateway, nodes
}

// command is a command that runs on the host.
func (h host) command(dir string, args ...string) *exec.Cmd {
	cmd := exec.Command("ip", append([]string{"netns", "exec", string(h)}, args...)...)
	cmd.Dir = dir
	return cmd
}

// start starts a stand-in on the host: its socket belongs to the namespace that
// the thread is in when it is made.
func (h host) start(t *testing.T, id, address string) {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	own, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	there, err := os.Open(filepath.Join("/run/netns", string(h)))
	if err != nil {
		t.Fatal(err)
	}
	defer there.Close()
	if err := unix.Setns(int(there.Fd()), unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Setns(int(own.Fd()), unix.CLONE_NEWNET); err != nil {
			panic(err) // this thread must not be used for anything else
		}
	}()
	startNode(t, standin.Options{ID: id, Address: address})
}

const hostsConfig = `
public: {host: 10.99.0.1}
listeners: [{name: plain, address: ":8080"}]
admin: {address: "127.0.0.1:9180"}
services:
  im:
    nodes: {loopback1: "10.99.0.2:7001", nothing2: "10.99.0.2:7002", dropped3: "10.99.0.3:7003", right4: "10.99.0.2:7004", nobody5: "10.99.0.9:7005"}
routes: [{path: "/ws/{node}", service: im, rewrite: /}]
node_ports: [{service: im, kind: tcp, listen: {base: 11880}}]
shutdown: {grace: 0s, drain: 0s, deadline: 2s}
`

// check --live tells apart why a node on another host is not reached: the
// connection is refused, or nothing comes back, or nobody has the address. It
// does not take the gateway's patience with such a node for an answer. From a
// third machine it warns, and does not advise what only helps there.
func TestCheckLiveOfAnotherHost(t *testing.T) {
	gateway, nodes := twoHosts(t)
	dir := t.TempDir()
	writeFile(t, dir, "gateway.yaml", hostsConfig)
	nodes.start(t, "loopback1", "127.0.0.1:7001")
	nodes.start(t, "dropped3", "10.99.0.3:7003")
	nodes.start(t, "right4", "10.99.0.2:7004")
	p := startProcess(t, gateway.command(dir, command(t), "run", "--config", "gateway.yaml"))
	p.awaitLog(1, `"message":"ready: `)

	type outcome struct {
		result
		err error
	}
	check := func(h host, language string, more ...string) <-chan outcome {
		cmd := h.command(dir, append([]string{command(t), "check", "--live", "--config", "gateway.yaml"}, more...)...)
		cmd.Env = append(os.Environ(), "LC_ALL="+language)
		done := make(chan outcome, 1)
		go func() {
			r, err := tryToEnd(t.Context(), cmd)
			done <- outcome{r, err}
		}()
		return done
	}
	here, chinese, away := check(gateway, "C", "--json"), check(gateway, "zh_CN.UTF-8"), check(nodes, "C", "--json")

	found := codesOf(t, (<-here).out)
	for line, want := range map[string]string{
		"nodes im/loopback1": "fail node_refused", "nodes im/nothing2": "fail node_refused", "nodes im/dropped3": "fail node_timeout",
		"nodes im/right4": "ok node_opens_websockets", "nodes im/nobody5": "fail node_host_unreachable",
		"route_service loopback1": "fail gateway_node_down", "route_service dropped3": "fail gateway_waits_for_node",
		"route_service right4": "ok websocket_open",
		"node_ports loopback1": "fail port_closed_at_once", "node_ports nothing2": "fail port_closed_at_once",
		"node_ports dropped3": "fail port_waits_for_node", "node_ports nobody5": "fail port_waits_for_node", "node_ports right4": "ok connected",
	} {
		if found[line] != want {
			t.Errorf("on the gateway's host, %s: %q, want %q", line, found[line], want)
		}
	}
	if text := (<-chinese).out; !strings.Contains(text, "只监听 127.0.0.1") || !strings.Contains(text, "防火墙丢弃了数据包") ||
		!strings.Contains(text, "主机不可达") || !strings.Contains(text, "原因见下面") {
		t.Errorf("in Chinese:\n%s", text)
	}
	found = codesOf(t, (<-away).out)
	for line, want := range map[string]string{
		"nodes im/loopback1": "warn node_listens_on_its_loopback", "nodes im/nothing2": "warn node_not_listening",
		"node_ports right4": "ok connected", "gateway ": "warn admin_silent",
	} {
		if found[line] != want {
			t.Errorf("on the nodes' host, %s: %q, want %q", line, found[line], want)
		}
	}
}

// codesOf are the marks and codes of a report in JSON, by section and node.
func codesOf(t *testing.T, report string) map[string]string {
	t.Helper()
	var doc struct {
		Sections []struct {
			Kind  string
			Lines []struct{ Mark, Code, Who string }
		}
	}
	if err := json.Unmarshal([]byte(report), &doc); err != nil {
		t.Fatalf("%v in:\n%s", err, report)
	}
	codes := map[string]string{}
	for _, s := range doc.Sections {
		for _, l := range s.Lines {
			codes[s.Kind+" "+l.Who] = l.Mark + " " + l.Code
		}
	}
	return codes
}
