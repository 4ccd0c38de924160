// Command node is a stand-in WildfireChat node of the example: it serves HTTP
// and WebSocket on every address it is given, until it gets SIGINT or SIGTERM.
//
//	node node1 127.0.0.1:10601 127.0.0.1:10611
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"singlegate/internal/standin"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "node:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) < 2 {
		return fmt.Errorf("expected an id and addresses, as in: node node1 127.0.0.1:10601 127.0.0.1:10611")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	for _, address := range args[1:] {
		n, err := standin.Start(standin.Options{ID: args[0], Address: address, System: standin.WildfireChat})
		if err != nil {
			return err
		}
		defer n.Close()
	}
	<-ctx.Done()
	return nil
}
