// Command singlegate is a public edge gateway for single-entry deployments of
// instant-messaging systems. Its verbs are in package internal/cli.
package main

import (
	"os"

	"singlegate/internal/cli"
)

func main() {
	os.Exit(cli.Main(os.Args[1:], os.Stdout, os.Stderr))
}
