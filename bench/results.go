package main

import (
	"encoding/json"
	"os"
	"runtime"
	"strings"
	"time"
)

// results is what a run has measured: what -json writes and the report is made of.
type results struct {
	Started  time.Time
	Took     time.Duration
	Failed   string // why the run ended early
	Machine  Machine
	Options  Settings
	Gateways []Gateway
	Skipped  []string
	Rows     []*Row
	Latency  []*Merged
	Curves   map[string]map[string]string // by gateway and kind of tunnel: the key exchange
}

// Machine is where it was measured.
type Machine struct {
	Processor, Kernel, Go string
	Cores                 int
	LoadBefore            string  // the system's load averages
	Others, Stolen        float64 // shares of the machine that other processes, and its host, had during the run
}

// Settings are the options that the figures depend on.
type Settings struct {
	Rounds, Repeats int
	Slice, Settle   time.Duration
	Workers         int
}

// A Gateway is one that took part.
type Gateway struct {
	Name, Version string
	Ours          bool
}

// A Row is one figure of every gateway, by round. The rounds of all gateways
// are the same: value i of one was taken next to value i of the others.
type Row struct {
	Scenario, Variant, Metric, Unit string
	Values                          map[string][]float64
}

// Merged are the latencies of all rounds.
type Merged struct {
	Scenario, Variant, Gateway string
	Buckets                    Buckets
}

func newResults(o options, peers []*peer, skipped []string) *results {
	res := &results{
		Started: time.Now().UTC(),
		Machine: Machine{
			Processor: processor(), Kernel: fileText("/proc/sys/kernel/osrelease"), Go: runtime.Version(),
			Cores: runtime.NumCPU(), LoadBefore: loadAverage(),
		},
		Options: Settings{Rounds: o.rounds, Repeats: o.repeats, Slice: o.slice, Settle: o.settle, Workers: o.workers},
		Skipped: skipped,
		Curves:  make(map[string]map[string]string),
	}
	for _, p := range peers {
		res.Gateways = append(res.Gateways, Gateway{Name: p.name, Version: p.version, Ours: p.ours})
	}
	return res
}

func fileText(path string) string {
	b, _ := os.ReadFile(path)
	return strings.TrimSpace(string(b))
}

func loadAverage() string {
	f := strings.Fields(fileText("/proc/loadavg"))
	return strings.Join(f[:min(3, len(f))], " ")
}

func processor() string {
	for line := range strings.Lines(fileText("/proc/cpuinfo")) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}

func (res *results) row(scenario, variant, metric string) *Row {
	for _, row := range res.Rows {
		if row.Scenario == scenario && row.Variant == variant && row.Metric == metric {
			return row
		}
	}
	return nil
}

// add records a round's figure of a gateway.
func (res *results) add(scenario, variant, metric, unit string, r *rig, value float64) {
	row := res.row(scenario, variant, metric)
	if row == nil {
		row = &Row{scenario, variant, metric, unit, make(map[string][]float64)}
		res.Rows = append(res.Rows, row)
	}
	row.Values[r.peer.name] = append(row.Values[r.peer.name], value)
}

// values are a gateway's figures by round.
func (res *results) values(scenario, variant, metric string, r *rig) []float64 {
	return res.row(scenario, variant, metric).Values[r.peer.name]
}

// merge adds a round's latencies to those of all rounds.
func (res *results) merge(scenario, variant string, r *rig, l Buckets) {
	m := res.merged(scenario, variant, r.peer.name)
	if m == nil {
		m = &Merged{scenario, variant, r.peer.name, make(Buckets)}
		res.Latency = append(res.Latency, m)
	}
	m.Buckets.merge(l)
}

func (res *results) merged(scenario, variant, gateway string) *Merged {
	for _, m := range res.Latency {
		if m.Scenario == scenario && m.Variant == variant && m.Gateway == gateway {
			return m
		}
	}
	return nil
}

// writeJSON writes everything, every round's figures included.
func (res *results) writeJSON(path string) error {
	b, err := json.MarshalIndent(res, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(b, '\n'), 0o644)
}

func readResults(path string) (*results, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	res := new(results)
	return res, json.Unmarshal(b, res)
}
