// Package cli is the command line: it takes a config apart into the parts of
// the gateway, wires them, and ends them in order. It may import every package
// of the module; none but main imports it.
package cli

import (
	"errors"
	"fmt"
	"io"

	"github.com/alecthomas/kong"
	"github.com/rs/zerolog"
)

// Exit codes.
const (
	exitOK      = 0
	exitFailure = 1 // what was asked for did not work out; stderr says why
	exitUsage   = 2 // the command line itself is wrong

	exitUnchecked = 3 // audit verify could not check what it was given
)

type grammar struct {
	Run     runCommand     `cmd:"" help:"Run the gateway with a config file."`
	Check   checkCommand   `cmd:"" help:"Check a config file: every error at once, with its place. Starts nothing."`
	Demo    demoCommand    `cmd:"" help:"Run the gateway in front of three stand-in IM nodes, with nothing to set up."`
	Nodes   nodesCommand   `cmd:"" help:"Show the nodes of a running gateway: health, tunnels, entry points, and what is wrong."`
	Certs   certsCommand   `cmd:"" help:"Show the certificates: names, issuer, chain, days left, source, how often served."`
	Drain   drainCommand   `cmd:"" help:"Give a node no new tunnels and close those it has, so many a second."`
	Undrain undrainCommand `cmd:"" help:"Let a drained node have new tunnels again."`
	Audit   auditCommand   `cmd:"" help:"The audit log: verify that nobody has changed it."`
	Health  healthCommand  `cmd:"" help:"Ask a running gateway whether it is well (for container health checks)."`
	Trust   trustCommand   `cmd:"" help:"Print how systems and browsers are made to trust a CA. Changes nothing."`
	Version versionCommand `cmd:"" help:"Print the version."`
}

// streams are where a command writes.
type streams struct{ out, err io.Writer }

const description = `A public edge gateway for instant-messaging systems: one TLS address in front of many nodes.

Start with "singlegate demo", then write a config and try "singlegate check --config FILE".

Signals of run and demo: SIGTERM ends in order (a second one at once), SIGHUP reloads config and certificates.`

// Main runs the command line and returns the exit code.
func Main(args []string, stdout, stderr io.Writer) (code int) {
	zerolog.TimeFieldFormat = "2006-01-02T15:04:05.000Z07:00"
	type exit int // kong exits after --help; unwind to here instead
	defer func() {
		if v := recover(); v != nil {
			e, ok := v.(exit)
			if !ok {
				panic(v)
			}
			code = int(e)
		}
	}()
	parser, err := kong.New(&grammar{},
		kong.Name("singlegate"),
		kong.Description(description),
		kong.Writers(stdout, stderr),
		kong.Exit(func(code int) { panic(exit(code)) }),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, NoExpandSubcommands: true, WrapUpperBound: 100}),
	)
	if err != nil {
		fmt.Fprintln(stderr, "singlegate:", err)
		return exitFailure
	}
	if len(args) == 0 {
		args = []string{"--help"}
	}
	command, err := parser.Parse(args)
	if err != nil {
		fmt.Fprintf(stderr, "singlegate: %v\nTry \"singlegate --help\".\n", err)
		return exitUsage
	}
	if err := command.Run(streams{stdout, stderr}); err != nil {
		if !errors.Is(err, errSaid) {
			fmt.Fprintf(stderr, "singlegate: %v\n", err)
		}
		if errors.Is(err, errUnchecked) {
			return exitUnchecked
		}
		return exitFailure
	}
	return exitOK
}

// errSaid is a failure that was written out already.
var errSaid = errors.New("failed")
