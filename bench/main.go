// Command bench measures the gateway beside its peers: one certificate, one set
// of paths, echo nodes and a load generator that are the same for each, all in
// one run, taking turns. README.md tells what is measured and how to read it.
//
// It is a program of three roles: the bench itself, and, started by it, the echo
// nodes and the load generator of each gateway.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

// roleVariable names the environment variable with the role of a process that
// the bench started.
const roleVariable = "SINGLEGATE_BENCH_ROLE"

// playRole is what such a process does; false: it is none.
func playRole() (code int, played bool) {
	var err error
	switch os.Getenv(roleVariable) {
	case "":
		return 0, false
	case "node":
		err = nodeMain()
	case "load":
		err = loadMain()
	default:
		err = errors.New("there is no such role")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1, true
	}
	return 0, true
}

func main() {
	if code, played := playRole(); played {
		os.Exit(code)
	}
	// A child is to end with the thread that started it (process.go): the main one.
	runtime.LockOSThread()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := command(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if errors.Is(err, flag.ErrHelp) {
		os.Exit(2)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// outputs says where what was measured goes.
type outputs struct {
	report, json, profile, from string
}

func command(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	o, out, err := parseFlags(args, stderr)
	if err != nil {
		return err
	}
	if out.from != "" {
		res, err := readResults(out.from)
		if err != nil {
			return err
		}
		return res.write(outputs{report: out.report}, stdout)
	}
	dir, err := os.MkdirTemp("", "singlegate-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	p := newProgress(stderr)
	b, err := openBench(ctx, o, dir, p)
	if err != nil {
		return err
	}
	defer b.close()
	if out.profile != "" {
		return b.profile(out.profile)
	}
	failed := b.run(func() error { return b.results.write(outputs{report: out.report, json: out.json}, io.Discard) })
	if failed != nil {
		b.results.Failed = failed.Error()
	}
	return errors.Join(failed, b.took(), b.results.write(out, stdout))
}

// write writes the report and the figures it is made of.
func (res *results) write(out outputs, stdout io.Writer) error {
	if out.json != "" {
		if err := res.writeJSON(out.json); err != nil {
			return err
		}
	}
	if out.report == "" {
		_, err := io.WriteString(stdout, res.markdown())
		return err
	}
	return os.WriteFile(out.report, []byte(res.markdown()), 0o644)
}

// list is a flag that may be given more than once.
type list []string

func (l *list) String() string     { return strings.Join(*l, ",") }
func (l *list) Set(s string) error { *l = append(*l, s); return nil }

func parseFlags(args []string, stderr io.Writer) (o options, out outputs, err error) {
	var names []string
	for _, s := range scenarios {
		names = append(names, s.name)
	}
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.SetOutput(stderr)
	var binaries list
	f.Var(&binaries, "singlegate", "a `[name=]path` of a singlegate binary; more than once to compare several (default: this checkout, built)")
	peers := f.String("peers", "nginx,haproxy,caddy,fabio", "the `peers`")
	chosen := f.String("scenarios", strings.Join(names, ","), "the `scenarios`")
	quick := f.Bool("quick", false, "a few minutes: fewer rounds, fewer tunnels, nginx and HAProxy only unless -peers says otherwise")
	f.IntVar(&o.rounds, "rounds", 20, "rounds of the rows with a ratio")
	f.IntVar(&o.repeats, "repeats", 3, "rounds of the scenarios that start each gateway anew")
	f.DurationVar(&o.slice, "slice", 1500*time.Millisecond, "how long each gateway's turn in a round is")
	f.DurationVar(&o.settle, "settle", 10*time.Second, "how long after the last message memory is read")
	f.IntVar(&o.workers, "workers", min(2, runtime.NumCPU()), "workers, threads or processors of each gateway")
	f.StringVar(&out.report, "out", "", "the `file` for the report, in Markdown (default: standard output)")
	f.StringVar(&out.json, "json", "", "the `file` for all figures")
	f.StringVar(&out.from, "from", "", "measure nothing: make the report of a `file` that -json wrote")
	f.StringVar(&out.profile, "profile", "", "measure nothing: write perf's profiles of each singlegate under load into this `folder`")
	if err := f.Parse(args); err != nil {
		return o, out, err
	}
	if f.NArg() > 0 {
		return o, out, fmt.Errorf("unexpected argument %q", f.Arg(0))
	}
	given := make(map[string]bool)
	f.Visit(func(f *flag.Flag) { given[f.Name] = true })
	o.full()
	if *quick {
		o.quick(given)
		if !given["peers"] {
			*peers = "nginx,haproxy"
		}
	}
	o.singlegates = binaries
	o.peers, o.scenarios = split(*peers), split(*chosen)
	if err := o.check(names); err != nil {
		return o, out, err
	}
	for _, path := range []*string{&out.report, &out.json, &out.profile} {
		if *path != "" {
			if *path, err = filepath.Abs(*path); err != nil {
				return o, out, err
			}
		}
	}
	return o, out, nil
}

// check holds that the options make sense; names are the scenarios there are.
func (o *options) check(names []string) error {
	for _, s := range o.scenarios {
		if !slices.Contains(names, s) {
			return fmt.Errorf("-scenarios: there is no %q; there are %s", s, strings.Join(names, ", "))
		}
	}
	for _, p := range o.peers {
		if finders[p] == nil {
			return fmt.Errorf("-peers: there is no %q; there are %s", p, strings.Join(slices.Sorted(maps.Keys(finders)), ", "))
		}
	}
	if o.rounds < 1 || o.repeats < 1 || o.workers < 1 || o.slice <= 0 {
		return errors.New("-rounds, -repeats, -workers and -slice are above zero")
	}
	return nil
}

func split(s string) []string {
	return slices.DeleteFunc(strings.Split(s, ","), func(s string) bool { return s == "" })
}

// full sets what no flag does.
func (o *options) full() {
	o.tunnels = []int{1000, 8000}
	o.storm, o.churn, o.polls = 8000, 2000, 2000
	o.active, o.idle = 64, []int{100, 1000, 4000, 9000}
	o.sizes = []int{128, 1 << 10, 16 << 10, 1 << 20}
	o.rates = []pace{{5000, 200}, {1000, 200}}
}

// quick lowers what was not given.
func (o *options) quick(given map[string]bool) {
	if !given["rounds"] {
		o.rounds = 5
	}
	if !given["repeats"] {
		o.repeats = 1
	}
	if !given["slice"] {
		o.slice = 700 * time.Millisecond
	}
	if !given["settle"] {
		o.settle = 6 * time.Second
	}
	o.tunnels = []int{2000}
	o.storm, o.churn, o.polls = 2000, 500, 500
	o.idle = []int{100, 2000}
	o.rates = o.rates[:1]
}
