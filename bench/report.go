package main

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// A goal is what a row of ours has to come to: at most so much, or at most so
// many times what the best peer needs.
type goal struct {
	text                      string
	scenario, variant, metric string
	atMost                    float64
	ofBest                    bool
}

var goals = []goal{
	{"memory per idle wss tunnel of 8,000, a browser's hello", "memory", "wss, browser's hello, 8,000 tunnels, after 200 bytes", "resident per tunnel", 8, false},
	{"the same, X25519 hello", "memory", "wss, X25519 hello, 8,000 tunnels, after 200 bytes", "resident per tunnel", 6, false},
	{"the same, after 16 KiB each way", "memory", "wss, browser's hello, 8,000 tunnels, after 16 KiB", "resident per tunnel", 10, false},
	{"CPU per 128-byte echo, closed loop: ahead of every peer", "messages", "wss, 128 B", "CPU per echo", 1, true},
	{"the same, the stretch", "messages", "wss, 128 B", "CPU per echo", 0.9, true},
	{"CPU per 16 KiB echo, closed loop", "messages", "wss, 16 KiB", "CPU per echo", 0.75, true},
	{"CPU per 128-byte echo at 5,000/s", "paced", "wss, 128 B, 5,000/s over 200 tunnels", "CPU per echo", 0.95, true},
	{"p99 at 5,000/s: the lowest of all", "paced", "wss, 128 B, 5,000/s over 200 tunnels", "latency, p99", 1, true},
	{"CPU per connect, X25519", "connects", "wss, X25519 hello", "CPU per connect", 0.85, true},
}

// markdown is the report.
func (res *results) markdown() string {
	var b strings.Builder
	res.head(&b)
	ours := slices.IndexFunc(res.Gateways, func(g Gateway) bool { return g.Ours })
	if ours >= 0 {
		res.goals(&b, res.Gateways[ours].Name)
	}
	for _, scenario := range res.scenarios() {
		res.tableHead(&b, scenario)
		for _, row := range res.Rows {
			if row.Scenario == scenario {
				res.tableRow(&b, row)
			}
		}
	}
	return b.String()
}

// scenarios are those with rows, in the order of their first ones.
func (res *results) scenarios() (names []string) {
	for _, row := range res.Rows {
		if !slices.Contains(names, row.Scenario) {
			names = append(names, row.Scenario)
		}
	}
	return names
}

func (res *results) head(b *strings.Builder) {
	m, o := res.Machine, res.Options
	fmt.Fprintf(b, "# The gateway beside its peers\n\nMade by `make bench` (README.md tells what is measured, and how); do not edit.\n\n")
	if res.Failed != "" {
		fmt.Fprintf(b, "**This run failed, and its figures are not whole:** %s\n\n", res.Failed)
	}
	fmt.Fprintf(b, "- %s, in %s\n", res.Started.Format("2006-01-02 15:04 UTC"), res.Took.Round(1e9))
	fmt.Fprintf(b, "- %s, %d cores, Linux %s, %s\n", m.Processor, m.Cores, m.Kernel, m.Go)
	fmt.Fprintf(b, "- load averages %s before; during the run other processes had %.0f %% of the machine, and its host kept %.0f %%", m.LoadBefore, 100*m.Others, 100*m.Stolen)
	if m.Others+m.Stolen > 0.05 {
		b.WriteString(": **not quiet**, so ratios count, latencies hardly")
	}
	b.WriteString("\n")
	var names []string
	for _, g := range res.Gateways {
		names = append(names, fmt.Sprintf("%s (%s)", g.Name, g.Version))
	}
	fmt.Fprintf(b, "- %s; %d workers each\n", strings.Join(names, ", "), o.Workers)
	for _, s := range res.Skipped {
		fmt.Fprintf(b, "- not there: %s\n", s)
	}
	fmt.Fprintf(b, "- rows with rounds: %d of %s; memory, storm: %d, and half of that for churn; memory read %s after the last message\n", o.Rounds, o.Slice, o.Repeats, o.Settle)
	for _, h := range hellos {
		var curves []string
		for _, g := range res.Gateways {
			if curve := res.Curves[g.Name][h.name]; curve != "" {
				curves = append(curves, g.Name+" "+curve)
			}
		}
		if len(curves) > 0 {
			fmt.Fprintf(b, "- key exchange, %s: %s\n", h.name, strings.Join(curves, ", "))
		}
	}
	fmt.Fprintf(b, "\nA figure is the median of the rounds; a latency is that of all rounds together. In brackets: the first column's\n"+
		"figure divided by this one, round by round (geometric mean), with its 95 %% confidence interval. **Bold**: the\n"+
		"interval lies wholly on the first column's side.\n")
}

func (res *results) goals(b *strings.Builder, ours string) {
	fmt.Fprintf(b, "\n## Goals\n\n| goal | at most | %s | |\n| --- | --- | --- | --- |\n", ours)
	for _, g := range goals {
		row := res.row(g.scenario, g.variant, g.metric)
		limit, got, verdict := number(g.atMost)+" KB", "", "not measured"
		if g.ofBest {
			limit = number(g.atMost) + " × the best peer"
		}
		switch {
		case row == nil || len(row.Values[ours]) == 0:
		case !g.ofBest:
			value := median(row.Values[ours])
			got, verdict = number(value)+" KB", "met"
			if value > g.atMost {
				verdict = "**missed**"
			}
		default:
			if best, ratio, ok := res.best(row, ours); ok {
				got, verdict = ratioText(ratio)+" × "+best, judge(ratio, g.atMost)
			}
		}
		fmt.Fprintf(b, "| %s | %s | %s | %s |\n", g.text, limit, got, verdict)
	}
}

func judge(r interval, atMost float64) string {
	switch {
	case r.High <= atMost:
		return "met"
	case r.Value <= atMost:
		return "met, but not beyond doubt"
	case r.Low <= atMost:
		return "missed, but not beyond doubt"
	}
	return "**missed**"
}

// best is the peer that we look worst beside.
func (res *results) best(row *Row, ours string) (name string, worst interval, ok bool) {
	for _, g := range res.Gateways {
		if g.Ours || len(row.Values[g.Name]) == 0 {
			continue
		}
		if r := ratioOf(row.Values[ours], row.Values[g.Name]); !ok || r.Value > worst.Value {
			name, worst, ok = g.Name, r, true
		}
	}
	return name, worst, ok
}

func (res *results) tableHead(b *strings.Builder, scenario string) {
	fmt.Fprintf(b, "\n## %s\n\n|  |", strings.ToUpper(scenario[:1])+scenario[1:])
	for _, g := range res.Gateways {
		fmt.Fprintf(b, " %s |", g.Name)
	}
	fmt.Fprintf(b, "\n|%s\n", strings.Repeat(" --- |", len(res.Gateways)+1))
}

func (res *results) tableRow(b *strings.Builder, row *Row) {
	fmt.Fprintf(b, "| %s: %s |", row.Variant, strings.TrimSuffix(row.Metric+", "+row.Unit, ", "))
	first := res.Gateways[0].Name
	for i, g := range res.Gateways {
		values := row.Values[g.Name]
		if len(values) == 0 {
			b.WriteString(" – |")
			continue
		}
		text := number(res.figure(row, g.Name))
		if ratio := ratioOf(row.Values[first], values); i > 0 && row.compared() && !math.IsNaN(ratio.Value) {
			mark := ""
			if ahead := ratio.High < 1; ahead && row.Unit != "/s" || ratio.Low > 1 && row.Unit == "/s" {
				mark = "**"
			}
			text += fmt.Sprintf(" [%s%s%s]", mark, ratioText(ratio), mark)
		}
		fmt.Fprintf(b, " %s |", text)
	}
	b.WriteString("\n")
}

// compared tells whether a ratio of the row says something about the gateways.
func (row *Row) compared() bool {
	return !strings.Contains(row.Metric, "generator") && !strings.HasPrefix(row.Metric, "nodes") && row.Unit != "ns"
}

// figure is what stands in the table for a gateway.
func (res *results) figure(row *Row, gateway string) float64 {
	if q, ok := strings.CutPrefix(row.Metric, "latency, p"); ok {
		percent, _ := strconv.ParseFloat(q, 64)
		return micros(res.merged(row.Scenario, row.Variant, gateway).Buckets.quantile(percent / 100))
	}
	return median(row.Values[gateway])
}

func ratioText(r interval) string {
	if math.IsInf(r.High, 1) {
		return fmt.Sprintf("%.2f", r.Value)
	}
	return fmt.Sprintf("%.2f, %.2f–%.2f", r.Value, r.Low, r.High)
}

// number shows three digits.
func number(v float64) string {
	switch a := math.Abs(v); {
	case a >= 1000:
		return thousands(int(math.Round(v)))
	case a >= 100:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case a >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	default:
		return strconv.FormatFloat(v, 'f', 2, 64)
	}
}

// thousands is a number with commas.
func thousands(n int) string {
	if n < 0 {
		return "-" + thousands(-n)
	}
	if n < 1000 {
		return strconv.Itoa(n)
	}
	return thousands(n/1000) + fmt.Sprintf(",%03d", n%1000)
}

func bytesText(n int) string {
	switch {
	case n >= 1<<20:
		return fmt.Sprintf("%d MiB", n>>20)
	case n >= 1<<10:
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprintf("%d B", n)
}
