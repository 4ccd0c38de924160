package cli

import (
	_ "embed"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"

	"singlegate/certs"
	"singlegate/gateway"
	"singlegate/internal/config"
	"singlegate/internal/standin"
)

type demoCommand struct {
	Listen string `default:"127.0.0.1:8443" placeholder:"HOST:PORT" help:"The one address (default ${default})."`
	Dir    string `type:"path" placeholder:"DIR" help:"Where the development CA is kept (default: singlegate/demo in your config folder)."`
}

//go:embed demo.yaml
var demoConfig []byte

// Run starts three stand-in nodes and the gateway in front of them.
func (c *demoCommand) Run(s streams) error {
	signals := takeSignals()
	defer signal.Stop(signals)
	dev, err := c.certificate()
	if err != nil {
		return err
	}
	nodes, err := startNodes("node1", "node2", "node3")
	defer closeNodes(nodes)
	if err != nil {
		return err
	}
	load := func() (*config.File, *certs.Store, error) { return c.load(dev, nodes) }
	file, store, err := load()
	if err != nil {
		return err
	}
	site, err := openSite(file, store, newLog(s.err, file.Logs))
	if err != nil {
		return fmt.Errorf("cannot listen on %s; choose another address with --listen: %w", c.Listen, err)
	}
	c.greet(s, site.server.Entries()[0], dev)
	return site.run(signals, load)
}

// certificate makes, or finds, the development CA and a certificate for the
// address listened on.
func (c *demoCommand) certificate() (certs.DevCert, error) {
	host, _, err := net.SplitHostPort(c.Listen)
	if err != nil {
		return certs.DevCert{}, fmt.Errorf("--listen %q is not HOST:PORT: %w", c.Listen, err)
	}
	hosts := []string{host}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		hosts = ownAddresses()
	}
	dir := c.Dir
	if dir == "" {
		base, err := os.UserConfigDir()
		if err != nil {
			return certs.DevCert{}, fmt.Errorf("no folder to keep the development CA in; give one with --dir: %w", err)
		}
		dir = filepath.Join(base, "singlegate", "demo")
	}
	return certs.DevCertificate(dir, hosts)
}

// ownAddresses are those under which a phone on the same network finds us.
func ownAddresses() []string {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	var hosts []string
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && !n.IP.IsLinkLocalUnicast() {
			hosts = append(hosts, n.IP.String())
		}
	}
	return hosts
}

func startNodes(ids ...string) ([]*standin.Node, error) {
	var nodes []*standin.Node
	for _, id := range ids {
		n, err := standin.Start(standin.Options{ID: id, System: standin.Chat})
		if err != nil {
			return nodes, fmt.Errorf("starting stand-in %s: %w", id, err)
		}
		nodes = append(nodes, n)
	}
	return nodes, nil
}

func closeNodes(nodes []*standin.Node) {
	for _, n := range nodes {
		n.Close()
	}
}

func (c *demoCommand) load(dev certs.DevCert, nodes []*standin.Node) (*config.File, *certs.Store, error) {
	values := map[string]string{"LISTEN": c.Listen, "CERT": dev.CertFile, "KEY": dev.KeyFile}
	for i, n := range nodes {
		values["NODE"+strconv.Itoa(i+1)] = n.Addr()
	}
	file, err := config.Parse("demo.yaml", demoConfig, func(name string) (string, bool) {
		v, ok := values[name]
		return v, ok
	})
	if err != nil {
		return nil, nil, err
	}
	store, err := certs.Load(file.Certs)
	return file, store, errors.Join(err)
}

const greeting = `singlegate demo: three stand-in IM nodes behind one address

  page   %[1]s/
  wss    wss://%[2]s/ws/node1, …/ws/node2, …/ws/node3
  CA     %[3]s
         (trust it in the browser, or accept the warning once)

  curl --cacert %[4]s %[1]s/api/version

Ctrl-C ends it.
`

func (c *demoCommand) greet(s streams, e gateway.Entry, dev certs.DevCert) {
	host, _, _ := net.SplitHostPort(c.Listen)
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	address := net.JoinHostPort(host, strconv.Itoa(int(e.Public.Port)))
	fmt.Fprintf(s.out, greeting, "https://"+address, address, dev.CAFile, shellQuoted(dev.CAFile))
}

// shellQuoted is s as one word of a shell's command line.
func shellQuoted(s string) string {
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
