package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// A peer is a gateway that the bench can start.
type peer struct {
	name    string
	binary  string
	version string
	ours    bool            // a singlegate
	kinds   map[string]bool // what it can carry
	polls   bool            // it is set up for long polling

	// prepare writes its config into s.dir and says how it is started.
	prepare func(s site) (argv, env []string, err error)
}

// A site is what a gateway has to serve, the same work for each.
type site struct {
	dir           string
	binary        string
	cert, key     string   // PEM files; one P-256 certificate
	wss, ws, tcp  string   // addresses to listen on
	admin         string   // the same, of a singlegate's metrics
	wsNodes       []string // /ws/node1… lead there, with that prefix removed
	tcpNodes      []string // connections to tcp go to these in turn
	pollNode      string   // /http-bind leads there, by wss
	workers       int
	maxTunnels    int // of all kinds together
	maxDescriptor int
}

// file writes one of its files.
func (s site) file(name, text string) (string, error) {
	path := filepath.Join(s.dir, name)
	return path, os.WriteFile(path, []byte(text), 0o600)
}

// goEnv bounds a Go program to the same number of processors as the others have
// workers.
func (s site) goEnv() []string { return []string{fmt.Sprintf("GOMAXPROCS=%d", s.workers)} }

var everyKind = map[string]bool{wss: true, ws: true, tcp: true}

// finders find the peers by name.
var finders = map[string]func(context.Context) (*peer, error){
	"nginx": findNginx, "haproxy": findHAProxy, "caddy": findCaddy, "fabio": findFabio,
}

// findPeers finds the programs for names, keys of finders; those that are not there are named
// in skipped with the reason.
func findPeers(ctx context.Context, names []string) (found []*peer, skipped []string) {
	for _, name := range names {
		p, err := finders[name](ctx)
		if err != nil {
			skipped = append(skipped, name+": "+err.Error())
			continue
		}
		found = append(found, p)
	}
	return found, skipped
}

// installed finds a program of the system; Debian keeps servers in sbin.
func installed(name string) (string, error) {
	for _, dir := range []string{"", "/usr/sbin/", "/usr/local/sbin/"} {
		if path, err := exec.LookPath(dir + name); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("not installed; bench/setup.sh installs it")
}

// says is the first line of a command's output, of either stream.
func says(ctx context.Context, argv ...string) string {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	b, _ := exec.CommandContext(ctx, argv[0], argv[1:]...).CombinedOutput()
	line, _, _ := strings.Cut(string(b), "\n")
	return strings.TrimSpace(line)
}

// ports gives out addresses below the range that outgoing connections use, so
// that a gateway can be started again on its own.
type ports struct{ next uint16 }

func (p *ports) address() (string, error) {
	for range 5000 {
		p.next++
		a := fmt.Sprintf("127.0.0.1:%d", p.next)
		if l, err := net.Listen("tcp4", a); err == nil {
			return a, l.Close()
		}
	}
	return "", fmt.Errorf("no free port up to %d", p.next)
}

func parseAddress(s string) (netip.AddrPort, error) {
	a, err := netip.ParseAddrPort(s)
	if err == nil && !a.Addr().Is4() {
		err = fmt.Errorf("%s is not an IPv4 address", s)
	}
	return a, err
}
