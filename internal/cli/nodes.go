package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/mattn/go-isatty"

	"singlegate/gateway/admin"
)

type nodesCommand struct {
	adminFlags
	Service string `placeholder:"SERVICE" help:"Only the nodes of this service."`
	JSON    bool   `name:"json" help:"What the gateway says, as JSON: all that the table tells and more."`
	Watch   bool   `help:"Show it anew every second, until Ctrl-C."`
}

// Run shows the nodes of a running gateway.
func (c *nodesCommand) Run(s streams) error {
	say := speak(os.Getenv)
	client, err := c.client(say)
	if err != nil {
		return err
	}
	if c.Watch {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		return c.watch(ctx, s.out, client, time.Second)
	}
	text, err := c.show(context.Background(), client)
	if err != nil {
		return err
	}
	_, err = io.WriteString(s.out, text)
	return err
}

// show asks once.
func (c *nodesCommand) show(ctx context.Context, client *adminClient) (string, error) {
	n, err := client.nodes(ctx)
	if err == nil && c.Service != "" {
		n, err = onlyService(n, c.Service, client.say)
	}
	if err != nil {
		return "", err
	}
	if c.JSON {
		text, err := json.MarshalIndent(n, "", "  ")
		return string(text) + "\n", err
	}
	var b strings.Builder
	if c.Watch {
		fmt.Fprintf(&b, client.say.updated+"\n", n.Time.Local().Format(time.TimeOnly), n.Tunnels)
	}
	return b.String() + nodesView(n, client.say), nil
}

// watch asks until ctx ends: in place on a terminal, in blocks elsewhere. A
// gateway that does not answer may be starting again.
func (c *nodesCommand) watch(ctx context.Context, out io.Writer, client *adminClient, every time.Duration) error {
	terminal := isTerminal(out)
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		text, err := c.show(ctx, client)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			text = err.Error() + "\n"
		}
		if terminal {
			// Home, each line to its end, the rest of the screen: no flicker.
			text = "\x1b[H" + strings.ReplaceAll(text, "\n", "\x1b[K\n") + "\x1b[J"
		} else if !c.JSON {
			text += "\n"
		}
		if _, err := io.WriteString(out, text); err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// isTerminal tells whether out is one that knows how to move its cursor.
func isTerminal(out io.Writer) bool {
	f, ok := out.(*os.File)
	return ok && isatty.IsTerminal(f.Fd()) && runtime.GOOS != "windows" && os.Getenv("TERM") != "dumb"
}

// onlyService leaves out the others.
func onlyService(n admin.Nodes, service string, say words) (admin.Nodes, error) {
	var names []string
	for _, s := range n.Services {
		if s.Name == service {
			only := admin.Nodes{Time: n.Time, Services: []admin.Service{s}, Drains: []admin.Drain{}, PortFaults: []admin.PortFault{}}
			for _, d := range n.Drains {
				if d.Service == service {
					only.Drains = append(only.Drains, d)
				}
			}
			for _, f := range n.PortFaults {
				if strings.HasPrefix(f.Name, service+"/") {
					only.PortFaults = append(only.PortFaults, f)
				}
			}
			for _, node := range s.Nodes {
				only.Tunnels += node.Tunnels
			}
			for _, node := range s.Gone {
				only.Tunnels += node.Tunnels
			}
			return only, nil
		}
		names = append(names, s.Name)
	}
	return n, fmt.Errorf(say.noService+"%s", service, say.suggest(service, names))
}
