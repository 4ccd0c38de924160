package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	if code, played := playRole(); played {
		os.Exit(code)
	}
	os.Exit(m.Run())
}

// tiny is every scenario with next to nothing in it.
func tiny() options {
	return options{
		peers:     []string{"nginx", "haproxy"},
		scenarios: []string{"memory", "messages", "paced", "connects", "slope", "storm", "attacks", "churn", "syscalls", "bosh"},
		rounds:    3, repeats: 1, slice: 50 * time.Millisecond, settle: 10 * time.Millisecond,
		tunnels: []int{4, 12}, storm: 20, churn: 4, polls: 6, idle: []int{2, 6}, active: 4,
		sizes: []int{128, 16 << 10, 1 << 20}, rates: []pace{{200, 10}}, workers: 2,
	}
}

// All scenarios, through the gateway of this checkout and the peers that are
// installed.
func TestEveryScenario(t *testing.T) {
	dir := t.TempDir()
	var log bytes.Buffer
	defer func() {
		if t.Failed() || testing.Verbose() {
			t.Log(log.String())
		}
	}()
	b, err := openBench(t.Context(), tiny(), dir, newProgress(&log))
	if err != nil {
		t.Fatal(err)
	}
	defer b.close()
	saved := 0
	if err := b.run(func() error { saved++; return nil }); err != nil {
		t.Fatal(err)
	}
	if saved != len(scenarios) {
		t.Errorf("results were saved %d times, after %d scenarios", saved, len(scenarios))
	}
	checkRows(t, b)

	path := filepath.Join(dir, "results.json")
	if err := b.results.writeJSON(path); err != nil {
		t.Fatal(err)
	}
	again, err := readResults(path)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := again.markdown(), b.results.markdown(); got != want {
		t.Errorf("the report made of the JSON file differs:\n%s\nwant\n%s", got, want)
	}
}

// checkRows holds that every gateway has its figures in every row.
func checkRows(t *testing.T, b *bench) {
	rounds := map[string]int{"memory": 1, "inside": 1, "messages": 3, "paced": 3, "connects": 3, "slope": 2, "storm": 1, "attacks": 1, "churn": 1, "syscalls": 1, "bosh": 3}
	seen := make(map[string]int)
	for _, row := range b.results.Rows {
		seen[row.Scenario]++
		kind, _, _ := strings.Cut(row.Variant, ",")
		for _, r := range b.rigs {
			if (row.Scenario == "inside" || strings.HasSuffix(row.Variant, limitedVariant)) && !r.peer.ours {
				continue
			}
			n := len(row.Values[r.peer.name])
			want := rounds[row.Scenario]
			if row.Metric == "resident per poll" {
				want = 1
			}
			if row.Scenario == "bosh" && !r.peer.polls {
				want = 0
			}
			if able, known := r.peer.kinds[kind]; known && !able {
				if n > 0 {
					t.Errorf("%s cannot carry %s, and has %d figures for it", r.peer.name, kind, n)
				}
				continue
			}
			if n != want {
				t.Errorf("%s, %s, %s: %s has %d figures, want %d", row.Scenario, row.Variant, row.Metric, r.peer.name, n, want)
			}
			for _, v := range row.Values[r.peer.name] {
				if strings.HasPrefix(row.Metric, "CPU") && row.Unit == "µs" && v <= 0 {
					t.Errorf("%s, %s: the CPU time of %s is %v", row.Scenario, row.Variant, r.peer.name, v)
				}
			}
		}
	}
	noPerf := perfCounts(t.Context())
	for _, s := range scenarios {
		if s.name == "syscalls" && noPerf != nil {
			t.Logf("no system calls counted: %v", noPerf)
			continue
		}
		if seen[s.name] == 0 {
			t.Errorf("scenario %s has no rows", s.name)
		}
	}
	for _, r := range b.rigs {
		if r.peer.ours && r.curves[browserHello] != "X25519MLKEM768" || r.curves["wss, X25519 hello"] != "X25519" {
			t.Errorf("the key exchanges of %s are %v", r.peer.name, r.curves)
		}
	}
}

func TestFlags(t *testing.T) {
	for _, tt := range []struct{ args, want string }{
		{"-scenarios memory,storms", `there is no "storms"; there are memory, messages`},
		{"-peers nginx,apache", `there is no "apache"; there are caddy, fabio, haproxy, nginx`},
		{"-rounds 0", "above zero"},
		{"run", `unexpected argument "run"`},
	} {
		if _, _, err := parseFlags(strings.Fields(tt.args), new(bytes.Buffer)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %s", tt.args, err, tt.want)
		}
	}
	o, _, err := parseFlags([]string{"-quick", "-rounds", "7"}, new(bytes.Buffer))
	if err != nil || o.rounds != 7 || o.repeats != 1 || strings.Join(o.peers, ",") != "nginx,haproxy" {
		t.Errorf("-quick -rounds 7: %+v, %v", o, err)
	}
}

// A run that names a binary which is not there says so before anything starts.
func TestNoBinary(t *testing.T) {
	err := command(t.Context(), []string{"-singlegate", filepath.Join(t.TempDir(), "none"), "-peers", ""}, new(bytes.Buffer), new(bytes.Buffer))
	if err == nil || !strings.Contains(err.Error(), "-singlegate") {
		t.Errorf("%v", err)
	}
}

func TestReport(t *testing.T) {
	r := func(name string) *rig { return &rig{peer: &peer{name: name}} }
	res := newResults(options{rounds: 4, workers: 2}, []*peer{{name: "ours", ours: true}, {name: "a"}, {name: "b"}}, []string{"c: not installed"})
	for round := range 4 {
		drift := 1 + float64(round)/10 // of the machine: the ratios do not show it
		res.add("messages", "wss, 128 B", "CPU per echo", "µs", r("ours"), 9.5*drift)
		res.add("messages", "wss, 128 B", "CPU per echo", "µs", r("a"), 10*drift)
		res.add("messages", "wss, 128 B", "CPU per echo", "µs", r("b"), 20*drift)
	}
	res.add("memory", "wss, X25519 hello, 8,000 tunnels, after 200 bytes", "resident per tunnel", "KB", r("ours"), 7)
	text := res.markdown()
	for _, want := range []string{
		"| CPU per 128-byte echo, closed loop: ahead of every peer | 1.00 × the best peer | 0.95, 0.95–0.95 × a | met |",
		"| the same, the stretch | 0.90 × the best peer | 0.95, 0.95–0.95 × a | **missed** |",
		"| the same, X25519 hello | 6.00 KB | 7.00 KB | **missed** |",
		"| CPU per 16 KiB echo, closed loop | 0.75 × the best peer |  | not measured |",
		"| wss, 128 B: CPU per echo, µs | 10.9 | 11.5 [**0.95, 0.95–0.95**] | 23.0 [**0.47, 0.47–0.48**] |",
		"- not there: c: not installed",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the report lacks %q:\n%s", want, text)
		}
	}
}

func TestResultsKeepEveryRound(t *testing.T) {
	res := newResults(options{}, []*peer{{name: "ours", ours: true}}, nil)
	r := &rig{peer: &peer{name: "ours"}}
	res.add("paced", "v", "latency, p99", "µs", r, 1)
	res.merge("paced", "v", r, Buckets{bucketOf(time.Millisecond): 99})
	res.merge("paced", "v", r, Buckets{bucketOf(time.Second): 1})
	b, err := json.Marshal(res)
	if err != nil {
		t.Fatal(err)
	}
	var again results
	if err := json.Unmarshal(b, &again); err != nil {
		t.Fatal(err)
	}
	got := again.figure(again.Rows[0], "ours")
	if got < 1000 || got > 1020 {
		t.Errorf("p99 of 99 times 1 ms and one second is %v µs", got)
	}
}
