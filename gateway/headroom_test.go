package gateway

import (
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/rs/zerolog"
)

func TestHeadroomWarnings(t *testing.T) {
	v4, v6 := netip.MustParseAddr("10.0.0.5"), netip.MustParseAddr("fd00::5")
	h := Headroom{Descriptors: 20_000, Tunnels: 9_768, LocalPorts: 1_000}
	const raise = "raise the hard limit (LimitNOFILE, ulimit -Hn)"
	cases := map[string]struct {
		asked int
		all   int
		ref   ServiceRef
		want  []string // the beginning and the end of each
	}{
		"no caps":             {},
		"caps that fit":       {20_000, 9_768, ServiceRef{TunnelsPerNode: 1_000}, nil},
		"more sources":        {0, 0, ServiceRef{TunnelsPerNode: 2_000, SourceAddresses: []netip.Addr{v4, v4, v6}}, nil},
		"descriptors":         {30_000, 0, ServiceRef{}, []string{"limits.descriptors is 30000, but the system allows this process 20000 open files: " + raise}},
		"all":                 {0, 9_769, ServiceRef{}, []string{"limits.tunnels is 9769, but 20000 open files are enough for about 9768: " + raise}},
		"ports":               {0, 0, ServiceRef{TunnelsPerNode: 1_001}, []string{`f:1:1: tunnels_per_node of service "im" is 1001, but local ports are enough for about 1000 to one port of a node: give the service 2 source_addresses`}},
		"sources, half of it": {0, 0, ServiceRef{TunnelsPerNode: 2_000, SourceAddresses: []netip.Addr{v4, v6}}, []string{`f:1:1: tunnels_per_node of service "im" is 2000, but local ports are enough for about 1000 to one port`}},
		"everything": {0, 0, ServiceRef{TunnelsPerNode: 10_000}, []string{
			`f:1:1: tunnels_per_node of service "im" is 10000, but 20000 open files are enough for about 9768 tunnels in all: ` + raise,
			`f:1:1: tunnels_per_node of service "im" is 10000, but local ports are enough for about 1000 to one port of a node: give the service 10 source_addresses`,
		}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			h := h
			h.asked = c.asked
			c.ref.At, c.ref.Name = "f:1:1", "im"
			got := h.Warnings(Config{Limits: Limits{Tunnels: c.all}, Services: []ServiceRef{c.ref}})
			if !slices.EqualFunc(got, c.want, strings.HasPrefix) {
				t.Errorf("got %q\nwant %q", got, c.want)
			}
		})
	}
	unknown := Headroom{asked: 1 << 20}
	if got := unknown.Warnings(Config{Limits: Limits{Tunnels: 1 << 20}, Services: []ServiceRef{{TunnelsPerNode: 1 << 20}}}); len(got) > 0 {
		t.Errorf("of what is not known: %q", got)
	}
}

// What there is room for is one line, with a warning behind it for each cap that
// is too high.
func TestHeadroomLog(t *testing.T) {
	lines := newLogLines()
	cfg := Config{Limits: Limits{Tunnels: 10_000}, Services: []ServiceRef{
		{Name: "im", SourceAddresses: []netip.Addr{netip.MustParseAddr("10.0.0.5"), netip.MustParseAddr("10.0.0.6")}}, {Name: "app"},
	}}
	Headroom{Descriptors: 20_000, Tunnels: 9_768, LocalPorts: 28_232}.Log(zerolog.New(lines), cfg)
	want := `{"level":"info","descriptors":20000,"tunnels_possible":9768,"per_node_port":28232,"per_node_port_of_im":56464,"message":"room for about 9768 tunnels by open files, two each, and from one source address for about 28232 to one port of a node"}
{"level":"warn","message":"limits.tunnels is 10000, but 20000 open files are enough for about 9768: raise the hard limit (LimitNOFILE, ulimit -Hn), or lower the cap"}`
	if got := lines.all(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if runtime.GOOS == "linux" && NewDescriptors(0).Headroom().LocalPorts == 0 {
		t.Error("the local ports are not known")
	}
}

// The soft limit of open files is raised to the hard one without our doing.
func TestSoftLimitIsRaised(t *testing.T) {
	if os.Getenv("SINGLEGATE_TEST_SOFT_LIMIT") != "" {
		if got := NewDescriptors(0).limit; got <= 200 {
			t.Errorf("the limit is %d", got)
		}
		return
	}
	if descriptorLimit() <= 300 {
		t.Skip("descriptors have no limit here, or a low one")
	}
	child := exec.CommandContext(t.Context(), "sh", "-c", `ulimit -S -n 200 && test "$(ulimit -n)" = 200 && exec "$0" -test.run='^TestSoftLimitIsRaised$'`, os.Args[0])
	child.Env = append(os.Environ(), "SINGLEGATE_TEST_SOFT_LIMIT=1")
	if out, err := child.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
