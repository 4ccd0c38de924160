package e2e

import (
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"singlegate/internal/consultest"
)

// A consulFault is one that operators are told of in single_address.md.
type consulFault struct {
	en, zh  string // how its row of the table begins
	kind    string // under which its queries are counted
	unknown bool   // nothing was known before
	// provoke starts a Consul with node1. It says how a gateway asks it and what
	// brings the fault about; nil: it is there from the start.
	provoke func(t *testing.T, dir string, m member) (discovery string, begin func(*site))
}

const readRules = `service "im" { policy = "read" } node_prefix "" { policy = "read" }`

// guardedConsul starts a Consul with access control, and writes a token for the
// gateway.
func guardedConsul(t *testing.T, dir string, m member) (agent *consultest.Agent, discovery, accessor string) {
	t.Helper()
	agent = consultest.Start(t, consultest.Options{ACL: true})
	m.register(agent)
	token, accessor := agent.TokenFor(readRules)
	writeFile(t, dir, "token", token+"\n")
	return agent, fmt.Sprintf("{consul: {address: %q, token_file: token, wait: 1s}}", agent.Address), accessor
}

// threeServers are a cluster whose first server the gateway asks; lose kills the
// two others.
func threeServers(t *testing.T) (first *consultest.Agent, lose func()) {
	t.Helper()
	server := func(name string, o consultest.Options) *consultest.Agent {
		o.Data, o.Servers, o.Name = true, 3, name
		return consultest.Start(t, o)
	}
	first = server("server1", consultest.Options{})
	second := server("server2", consultest.Options{Join: first, Early: true})
	third := server("server3", consultest.Options{Join: first})
	return first, func() {
		second.Kill()
		third.Kill()
	}
}

func consulFaults() map[string]consulFault {
	const (
		lost, lostZH       = "| token deleted or wrong |", "| 令牌被删或有误 |"
		missing, missingZH = "| no token under default deny", "| 默认拒绝策略下没有令牌"
		start, startZH     = "| the same without a cache", "| 同上，但没有缓存"
	)
	return map[string]consulFault{
		"a deleted token": {lost, lostZH, "refused", false, func(t *testing.T, dir string, m member) (string, func(*site)) {
			agent, discovery, accessor := guardedConsul(t, dir, m)
			return discovery, func(*site) { agent.DropToken(accessor) }
		}},
		"no leader": {"| servers without a leader |", "| server 没有 leader |", "no_leader", false, func(t *testing.T, _ string, m member) (string, func(*site)) {
			first, lose := threeServers(t)
			m.register(first)
			return fmt.Sprintf("{consul: {address: %q, wait: 1s}}", first.Address), func(*site) { lose() }
		}},
		"a token that a reload takes away": {missing, missingZH, "refused", false, func(t *testing.T, dir string, m member) (string, func(*site)) {
			_, discovery, _ := guardedConsul(t, dir, m)
			return discovery, func(s *site) {
				config := readFile(t, filepath.Join(dir, "gateway.yaml"))
				writeFile(t, dir, "gateway.yaml", strings.Replace(config, ", token_file: token", "", 1))
				s.signal(syscall.SIGHUP)
			}
		}},
		"no token from the start": {start, startZH, "refused", true, func(t *testing.T, dir string, m member) (string, func(*site)) {
			agent, _, _ := guardedConsul(t, dir, m)
			return fmt.Sprintf("{consul: %q}", agent.Address), nil
		}},
		"a wrong token from the start": {start, startZH, "refused", true, func(t *testing.T, dir string, m member) (string, func(*site)) {
			_, discovery, _ := guardedConsul(t, dir, m)
			writeFile(t, dir, "token", "5e0a7e55-0000-4000-8000-00000000dead")
			return discovery, nil
		}},
		"no agent from the start": {start, startZH, "unreachable", true, func(t *testing.T, _ string, _ member) (string, func(*site)) {
			return fmt.Sprintf("{consul: %q}", freeAddress(t)), nil
		}},
	}
}

// What single_address.md says of faults of Consul is what operators see with
// real Consul servers: in the list of nodes, in the log, at /readyz, and counted.
func TestConsulFaultsAsDescribed(t *testing.T) {
	for name, f := range consulFaults() {
		t.Run(name, func(t *testing.T) {
			dir, m := t.TempDir(), startMember(t, "node1")
			discovery, begin := f.provoke(t, dir, m)
			s, d := startConsulSite(t, dir, discovery, "")
			if begin != nil {
				reachable(t, d, m)
				begin(s)
			}
			var told string
			until(t, "`singlegate nodes` tells of it", func() error {
				out := runCommand(t, dir, "nodes", "--admin", s.admin).out
				found := regexp.MustCompile(`\n  im: (.*)\n`).FindStringSubmatch(out)
				if found == nil || strings.Contains(found[1], "has not answered for it yet") {
					return fmt.Errorf("it says\n%s", out)
				}
				told = found[1]
				return nil
			})
			for _, doc := range []struct{ name, row string }{{"single_address.md", f.en}, {"single_address.zh-CN.md", f.zh}} {
				describes(t, readFile(t, filepath.Join(root, doc.name)), doc.row, told)
			}
			f.check(t, s, d, m, told)
		})
	}
}

// check looks at what else a fault does, and does not.
func (f consulFault) check(t *testing.T, s *site, d door, m member, told string) {
	t.Helper()
	admin := door{address: s.admin, host: s.admin}
	cause, _, aged := strings.Cut(told, ", last good snapshot ")
	if aged == f.unknown {
		t.Errorf("of nodes that are known: %v; the fault is %q", !f.unknown, told)
	}
	s.awaitLog(1, `"message":"Consul: what is known stays"`)
	logged := false
	for _, line := range strings.Split(s.log.String(), "\n") {
		logged = logged || strings.Contains(strings.ReplaceAll(line, `\"`, `"`), `"fault":"`+cause+`"`)
	}
	if !logged {
		t.Errorf("the log does not say %q:\n%s", cause, s.log.String())
	}
	if f.unknown {
		if err := d.answers("/ws/node1", 503, "no_snapshot"); err != nil {
			t.Error(err)
		}
		if err := admin.answers("/readyz", 503, "nothing is known of the nodes of service"); err != nil {
			t.Error(err)
		}
	} else {
		reachable(t, d, m)
		if err := admin.answers("/readyz", 200, "ready"); err != nil {
			t.Error(err)
		}
	}
	for _, series := range []string{`singlegate_snapshot_fault{service="im"} 1`, fmt.Sprintf(`singlegate_consul_errors_total{kind=%q,service="im"} [1-9]`, f.kind)} {
		_, metrics := admin.request(t, "GET", "/metrics", "")
		if !regexp.MustCompile(`(?m)^` + strings.NewReplacer("{", `\{`, "}", `\}`).Replace(series)).MatchString(metrics) {
			t.Errorf("no %s in the metrics", series)
		}
	}
}

// describes fails the test unless a row of a text quotes what operators were
// told; "…" stands for anything.
func describes(t *testing.T, text, row, told string) {
	t.Helper()
	var cells []string
	for _, line := range strings.Split(text, "\n") {
		if strings.HasPrefix(line, row) {
			cells = strings.Split(line, "|")
		}
	}
	if len(cells) != 5 {
		t.Errorf("no row begins with %q, or it has not three cells: %q", row, cells)
		return
	}
	quotes := regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(cells[3], -1)
	age := regexp.MustCompile(`[0-9]+s old$`)
	for _, q := range quotes {
		pattern := strings.ReplaceAll(regexp.QuoteMeta(age.ReplaceAllString(q[1], "… old")), "…", ".+")
		if regexp.MustCompile(`^` + pattern + `$`).MatchString(told) {
			return
		}
	}
	t.Errorf("the row %q does not say\n%s", row, told)
}
