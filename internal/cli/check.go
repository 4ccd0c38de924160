package cli

import (
	"errors"
	"fmt"
	"strings"

	"singlegate/certs"
	"singlegate/gateway"
	"singlegate/internal/config"
)

type checkCommand struct {
	Config string `required:"" placeholder:"FILE" help:"The config file."`
}

// Run loads the config as run would, opens its certificates and folders, and
// starts nothing.
func (c *checkCommand) Run(s streams) error {
	file, store, err := load(c.Config)
	if err != nil {
		fmt.Fprintln(s.err, err)
		fmt.Fprintf(s.err, "%s: not usable\n", c.Config)
		return errSaid
	}
	for _, w := range append(store.Warnings(), gateway.Warnings(file.Gateway)...) {
		fmt.Fprintln(s.err, "warning:", w)
	}
	fmt.Fprintf(s.out, "%s: ok: %s\n", c.Config, summary(file))
	return nil
}

// load reads a config and opens what it names; the error says all that is wrong
// with any of it.
func load(path string) (*config.File, *certs.Store, error) {
	file, err := config.Load(path)
	if file == nil {
		return nil, nil, err
	}
	store, certErr := certs.Load(file.Certs)
	if err = errors.Join(err, certErr, gateway.Check(file.Gateway)); err != nil {
		return nil, nil, err
	}
	return file, store, nil
}

func summary(f *config.File) string {
	nodes := 0
	for _, n := range f.Nodes {
		nodes += len(n)
	}
	return strings.Join([]string{
		count(len(f.Gateway.Listeners), "listener"),
		count(len(f.Gateway.Routes), "route"),
		count(len(f.Nodes), "service"),
		count(nodes, "node"),
		count(len(f.Certs.Certificates), "certificate"),
	}, ", ")
}

func count(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}
