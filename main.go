// Command singlegate is a public edge gateway for single-entry deployments of
// instant-messaging systems. Its verbs are in package internal/cli.
package main

import (
	"io"
	"log"
	"os"

	"singlegate/internal/cli"
)

func main() {
	// net/http says there what a node sent unasked, tokens included. What matters
	// is in our own log.
	log.SetOutput(io.Discard)
	os.Exit(cli.Main(os.Args[1:], os.Stdout, os.Stderr))
}
