package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"singlegate/certs"
	"singlegate/discovery"
	"singlegate/gateway"
	"singlegate/internal/config"
	"singlegate/internal/livecheck"
)

type checkCommand struct {
	Config  string `required:"" placeholder:"FILE" help:"The config file."`
	Live    bool   `help:"Try the running gateway as clients do: every route and node, certificates, and the nodes behind it."`
	Connect string `placeholder:"HOST[:PORT]" help:"With --live: dial this in place of the public address, keeping its names (to try from inside)."`
	CA      string `name:"ca" placeholder:"FILE" help:"With --live: trust the certificates of this PEM file in place of the system's."`
	JSON    bool   `name:"json" help:"With --live: the report in JSON."`
}

// Validate refuses what has no meaning; kong calls it.
func (c *checkCommand) Validate() error {
	if !c.Live && (c.Connect != "" || c.CA != "" || c.JSON) {
		return errors.New("--connect, --ca and --json go with --live")
	}
	return nil
}

// Run loads the config as run would, opens its certificates and folders, and
// starts nothing.
func (c *checkCommand) Run(s streams) error {
	if c.Live {
		return c.runLive(s)
	}
	file, store, err := load(c.Config)
	if err != nil {
		return c.notUsable(s, err)
	}
	for _, w := range slices.Concat(store.Warnings(), acmeWarnings(file, store), gateway.Warnings(file.Gateway), auditWarnings(file)) {
		fmt.Fprintln(s.err, "warning:", w)
	}
	fmt.Fprintf(s.out, "%s: ok: %s\n", c.Config, summary(file))
	return nil
}

func (c *checkCommand) notUsable(s streams, err error) error {
	fmt.Fprintln(s.err, err)
	fmt.Fprintf(s.err, "%s: not usable\n", c.Config)
	return errSaid
}

// runLive tries the gateway that runs with the config. Certificates and folders
// that cannot be opened from here do not keep it from that: the gateway may run
// as somebody else, or elsewhere.
func (c *checkCommand) runLive(s streams) error {
	file, err := config.Load(c.Config)
	if err != nil {
		return c.notUsable(s, err)
	}
	for _, w := range gateway.Warnings(file.Gateway) {
		fmt.Fprintln(s.err, "warning:", w)
	}
	if err := openNodeTLS(file); err != nil {
		fmt.Fprintln(s.err, "warning:", err)
	}
	options := livecheck.Options{Name: c.Config, Connect: c.Connect, Chinese: livecheck.IsChinese(os.Getenv)}
	if len(file.ConsulServices) > 0 || file.TagPrefix != "" {
		options.Consul = consulOf(file)
	}
	if c.CA != "" {
		if options.Roots, err = livecheck.Roots(c.CA); err != nil {
			return err
		}
	}
	if isTerminal(s.err) {
		options.Progress = func(done, total int) { fmt.Fprintf(s.err, "\r%d/%d ", done, total) }
	}
	report, err := livecheck.Run(context.Background(), file, options)
	if options.Progress != nil {
		fmt.Fprint(s.err, "\r\x1b[K")
	}
	if err != nil {
		return err
	}
	if c.JSON {
		err = report.WriteJSON(s.out, options.Chinese)
	} else {
		err = report.WriteText(s.out, options.Chinese, isTerminal(s.out))
	}
	if err == nil && report.Failed() {
		err = errSaid
	}
	return err
}

// consulOf is how to ask whether the config's Consul is there.
func consulOf(file *config.File) *livecheck.Consul {
	var cfg discovery.ConsulConfig
	if file.Consul != nil {
		cfg = *file.Consul
	}
	return &livecheck.Consul{
		Address: cfg.Where(),
		Leader:  func(ctx context.Context) (string, error) { return discovery.Leader(ctx, cfg) },
	}
}

// load reads a config and opens what it names; the error says all that is wrong
// with any of it.
func load(path string) (*config.File, *certs.Store, error) {
	file, err := config.Load(path)
	if file == nil {
		return nil, nil, err
	}
	store, certErr := certs.Load(file.Certs)
	if err == nil {
		err = checkSources(file)
	}
	_, acmeErr := acmeWishes(file)
	_, adminErr := accessOf(file.Admin)
	if err = errors.Join(err, certErr, adminErr, acmeErr, openClientCertificates(file), openNodeTLS(file), checkAudit(file), gateway.Check(file.Gateway), gateway.CheckNodes(file.Gateway, file.Nodes)); err != nil {
		return nil, nil, err
	}
	return file, store, nil
}

func summary(f *config.File) string {
	nodes := 0
	for _, n := range f.Nodes {
		nodes += len(n)
	}
	parts := []string{
		count(len(f.Gateway.Listeners), "listener"),
		count(len(f.Gateway.Routes), "route"),
		count(len(f.Gateway.Services), "service"),
		count(nodes, "node") + " in the file",
		count(len(f.Certs.Certificates), "certificate"),
	}
	names := 0
	for _, a := range f.ACME {
		names += len(a.Names)
	}
	if names > 0 {
		parts = append(parts, count(names, "name")+" by ACME")
	}
	if f.TagPrefix != "" {
		parts = append(parts, "more routes by tags with "+f.TagPrefix)
	}
	return strings.Join(parts, ", ")
}

func count(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}
