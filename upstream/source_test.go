package upstream

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"singlegate/discovery"
)

// A sourceDialer notes from where it is to dial, and fails as it is told to.
type sourceDialer struct {
	from  []string
	fails func(from netip.Addr) error
}

func (d *sourceDialer) DialContext(ctx context.Context, _, _ string) (net.Conn, error) {
	from, _ := ctx.Value(sourceContext{}).(netip.Addr)
	d.from = append(d.from, from.String())
	if err := d.fails(from); err != nil {
		return nil, err
	}
	c, other := net.Pipe()
	other.Close()
	return c, nil
}

func (d *sourceDialer) take() string {
	defer func() { d.from = nil }()
	return strings.Join(d.from, " ")
}

// sourcesOf parses addresses.
func sourcesOf(list ...string) (addrs []netip.Addr) {
	for _, s := range list {
		addrs = append(addrs, netip.MustParseAddr(s))
	}
	return addrs
}

// twoNodes is a set with nodes a and b of service s, reached from the sources.
func twoNodes(d Dialer, sources ...string) (*Set, *Service) {
	set := New(d)
	set.SetSources(map[string][]netip.Addr{"s": sourcesOf(sources...)})
	view, _ := set.Apply(discovery.Static{Services: map[string][]discovery.Node{
		"s": {{ID: "a", Address: "10.0.0.1", Weight: 1}, {ID: "b", Address: "10.0.0.2", Weight: 1}},
	}}.Snapshot())
	return set, view.Services["s"]
}

func fails(err error, from ...string) func(netip.Addr) error {
	return func(a netip.Addr) error {
		if slices.Contains(from, a.String()) {
			return err
		}
		return nil
	}
}

// Each node's connections come from the addresses in turn; one without a port
// left is passed over, as is one of another family; a failure of the node's is
// no reason to try another address of the same family.
func TestSourcesInTurn(t *testing.T) {
	none := fails(nil)
	noPort := fmt.Errorf("connect: %w", syscall.EADDRNOTAVAIL)
	refused := fmt.Errorf("connect: %w", syscall.ECONNREFUSED)
	unfit := &net.OpError{Op: "dial", Err: &net.AddrError{Err: "no suitable address"}}
	cases := map[string]struct {
		sources []string
		address string
		fails   func(netip.Addr) error
		dials   string // of three connections
		err     error  // of the last
	}{
		"none":              {nil, "10.0.0.1:80", none, "invalid IP, invalid IP, invalid IP", nil},
		"in turn":           {[]string{"10.0.0.5", "10.0.0.6"}, "10.0.0.1:80", none, "10.0.0.5, 10.0.0.6, 10.0.0.5", nil},
		"one spent":         {[]string{"10.0.0.5", "10.0.0.6"}, "10.0.0.1:80", fails(noPort, "10.0.0.5"), "10.0.0.5 10.0.0.6, 10.0.0.6, 10.0.0.5 10.0.0.6", nil},
		"all spent, early":  {[]string{"10.0.0.5"}, "10.0.0.1:80", fails(fmt.Errorf("bind: %w", errInUse), "10.0.0.5"), "10.0.0.5, 10.0.0.5, 10.0.0.5", ErrNoPort},
		"all spent":         {[]string{"10.0.0.5", "10.0.0.6"}, "10.0.0.1:80", fails(noPort, "10.0.0.5", "10.0.0.6"), "10.0.0.5 10.0.0.6, 10.0.0.6 10.0.0.5, 10.0.0.5 10.0.0.6", ErrNoPort},
		"none, spent":       {nil, "10.0.0.1:80", fails(noPort, "invalid IP"), "invalid IP, invalid IP, invalid IP", ErrNoPort},
		"refused":           {[]string{"10.0.0.5", "10.0.0.6"}, "10.0.0.1:80", fails(refused, "10.0.0.5", "10.0.0.6"), "10.0.0.5, 10.0.0.6, 10.0.0.5", syscall.ECONNREFUSED},
		"other family":      {[]string{"10.0.0.5", "fd00::5"}, "[fd00::1]:80", none, "fd00::5, fd00::5, fd00::5", nil},
		"a name, v4 closed": {[]string{"10.0.0.5", "10.0.0.6", "fd00::5"}, "node:80", fails(refused, "10.0.0.5", "10.0.0.6"), "10.0.0.5 fd00::5, 10.0.0.6 fd00::5, fd00::5", nil},
		"a name, v4 only": {[]string{"10.0.0.5", "fd00::5"}, "node:80", func(a netip.Addr) error {
			if a.Is6() {
				return unfit
			}
			return noPort
		}, "10.0.0.5 fd00::5, fd00::5 10.0.0.5, 10.0.0.5 fd00::5", ErrNoPort},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			d := &sourceDialer{fails: c.fails}
			set, svc := twoNodes(d, c.sources...)
			ctx := ToNode(t.Context(), svc.Node("a"))
			var dials []string
			var err error
			for range 3 {
				var conn net.Conn
				if conn, err = set.Dial(ctx, c.address); err == nil {
					conn.Close()
				}
				dials = append(dials, d.take())
			}
			if got := strings.Join(dials, ", "); got != c.dials {
				t.Errorf("dialled from %s; want %s", got, c.dials)
			}
			if !errors.Is(err, c.err) || !DialFailed(err) && err != nil {
				t.Errorf("the error is %v; want %v", err, c.err)
			}
			if errors.Is(err, ErrNoPort) != (c.err == ErrNoPort) {
				t.Errorf("ErrNoPort: %v", err)
			}
		})
	}
}

// Each node has a turn of its own, which goes on across snapshots.
func TestSourcesTakeTurnsByNode(t *testing.T) {
	d := &sourceDialer{fails: fails(nil)}
	set, svc := twoNodes(d, "10.0.0.5", "10.0.0.6")
	for range 3 {
		for _, id := range []string{"a", "b"} {
			conn, err := set.Dial(ToNode(t.Context(), svc.Node(id)), "10.0.0.1:80")
			if err != nil {
				t.Fatal(err)
			}
			conn.Close()
		}
		view, _ := set.Apply(discovery.Static{Services: map[string][]discovery.Node{"s": {svc.Node("a").Node, svc.Node("b").Node}}}.Snapshot())
		svc = view.Services["s"]
	}
	if got, want := d.take(), "10.0.0.5 10.0.0.5 10.0.0.6 10.0.0.6 10.0.0.5 10.0.0.5"; got != want {
		t.Errorf("dialled from %s; want %s", got, want)
	}
}

// A node of a family that no source address has is not dialled, and the error
// says why.
func TestNoSourceOfTheFamily(t *testing.T) {
	d := &sourceDialer{fails: fails(nil)}
	set, svc := twoNodes(d, "10.0.0.5")
	_, err := set.Dial(ToNode(t.Context(), svc.Node("a")), "[fd00::1]:80")
	if err == nil || !strings.Contains(err.Error(), "source_addresses") || errors.Is(err, ErrNoPort) || d.take() != "" {
		t.Errorf("got %v", err)
	}
}

// Where a name may have addresses of both families, one that swallows
// connections leaves the other half of the time.
func TestSourcesShareTheTime(t *testing.T) {
	d := &deadlineDialer{}
	set, svc := twoNodes(d, "10.0.0.5", "fd00::5")
	ctx := WithConnectTimeout(ToNode(t.Context(), svc.Node("a")), time.Hour)
	if _, err := set.Dial(ctx, "node:80"); err == nil {
		t.Fatal("no error")
	}
	if len(d.left) != 2 || d.left[0] > 31*time.Minute || d.left[1] < 31*time.Minute {
		t.Errorf("the attempts had %v", d.left)
	}
}

// A deadlineDialer refuses, and notes how long it could have tried.
type deadlineDialer struct{ left []time.Duration }

func (d *deadlineDialer) DialContext(ctx context.Context, _, _ string) (net.Conn, error) {
	end, _ := ctx.Deadline()
	d.left = append(d.left, time.Until(end))
	return nil, syscall.ECONNREFUSED
}
