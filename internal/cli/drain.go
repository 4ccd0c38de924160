package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"singlegate/gateway"
	"singlegate/gateway/admin"
	"singlegate/upstream"
)

type drainCommand struct {
	Node string `arg:"" help:"The node's id, or one of its names; \"singlegate nodes\" lists them."`
	adminFlags
	Service   string `placeholder:"SERVICE" help:"Its service, where several have such a node."`
	PerSecond int    `placeholder:"N" help:"Close so many tunnels a second (default: the service's own pace)."`
	Wait      bool   `help:"Show the progress and return when no tunnel is left. Ctrl-C ends the waiting, not the drain."`
}

// Run drains a node.
func (c *drainCommand) Run(s streams) error {
	if c.PerSecond < 0 {
		return fmt.Errorf("--per-second is %d, expected a number above 0", c.PerSecond)
	}
	say := speak(os.Getenv)
	client, err := c.client(say)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	key, node, err := client.find(ctx, c.Service, c.Node)
	if err != nil {
		return err
	}
	err = client.post(ctx, "/api/drain", admin.DrainRequest{Service: key.Service, Node: key.ID, PerSecond: c.PerSecond})
	if err != nil {
		return err
	}
	if c.Wait {
		return newDrainWait(key, node.Tunnels, client, s.out).run(ctx)
	}
	return announceDrain(ctx, s.out, client, key)
}

// announceDrain says what has begun.
func announceDrain(ctx context.Context, out io.Writer, client *adminClient, key upstream.Key) error {
	n, err := client.nodes(ctx)
	if err != nil {
		return err
	}
	say, name := client.say, shown(key.String())
	v := view{n, say, nil}
	for _, d := range n.Drains {
		if d.Service == key.Service && d.Node == key.ID && d.Left > 0 {
			undrain := shellWord(key.ID) + " --service " + shellWord(key.Service)
			_, err = fmt.Fprintf(out, say.drainBegun+"\n", name, v.progress(d), undrain)
			return err
		}
	}
	_, err = fmt.Fprintf(out, say.drainEmpty+"\n", name)
	return err
}

// shellWord is s as it is typed at a shell, quoted where it has to be.
func shellWord(s string) string {
	plain := func(r rune) bool {
		return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("-_.", r)
	}
	if s != "" && !strings.HasPrefix(s, "-") && strings.IndexFunc(s, func(r rune) bool { return !plain(r) }) < 0 {
		return s
	}
	return shellQuoted(shown(s))
}

type undrainCommand struct {
	Node string `arg:"" help:"The node's id, or one of its names; \"singlegate nodes\" lists them."`
	adminFlags
	Service string `placeholder:"SERVICE" help:"Its service, where several have such a node."`
}

// Run lets a node have new tunnels again.
func (c *undrainCommand) Run(s streams) error {
	say := speak(os.Getenv)
	client, err := c.client(say)
	if err != nil {
		return err
	}
	ctx := context.Background()
	key, node, err := client.find(ctx, c.Service, c.Node)
	if err != nil {
		return err
	}
	if !node.Draining {
		_, err = fmt.Fprintf(s.out, say.notDraining+"\n", shown(key.String()))
		return err
	}
	if err := client.post(ctx, "/api/undrain", admin.DrainRequest{Service: key.Service, Node: key.ID}); err != nil {
		return err
	}
	_, err = fmt.Fprintf(s.out, say.undrained+"\n", shown(key.String()))
	return err
}

// find finds the one node that is meant, or says which ones there are.
func (c *adminClient) find(ctx context.Context, service, name string) (key upstream.Key, node gateway.NodeStatus, err error) {
	n, err := c.nodes(ctx)
	if err == nil && service != "" {
		n, err = onlyService(n, service, c.say)
	}
	if err != nil {
		return key, node, err
	}
	var found, names []string
	for _, s := range n.Services {
		for _, candidate := range s.Nodes {
			all := append([]string{candidate.ID}, candidate.Names...)
			names = append(names, all...)
			if slices.Contains(all, name) {
				key, node = upstream.Key{Service: s.Name, ID: candidate.ID}, candidate
				found = append(found, shown(s.Name))
			}
		}
	}
	switch len(found) {
	case 0:
		return key, node, fmt.Errorf(c.say.noNode+"%s", name, c.say.suggest(name, names))
	case 1:
		return key, node, nil
	}
	return key, node, fmt.Errorf(c.say.severalNodes, name, strings.Join(found, c.say.listSeparator))
}

// What an error lists at most.
const (
	maxNear  = 5
	maxNames = 10
)

// suggest says which name was meant, or which ones there are.
func (w *words) suggest(wrong string, names []string) string {
	slices.Sort(names)
	names = slices.Compact(names)
	if near := nearNames(wrong, names); len(near) > 0 {
		return fmt.Sprintf(w.didYouMean, strings.Join(near, w.listSeparator))
	}
	if len(names) == 0 {
		return ""
	}
	var list []string
	for _, n := range names[:min(len(names), maxNames)] {
		list = append(list, shown(n))
	}
	text := strings.Join(list, w.listSeparator)
	if more := len(names) - len(list); more > 0 {
		text += fmt.Sprintf(w.andMore, more)
	}
	return fmt.Sprintf(w.known, text)
}

// nearNames are the names that a wrong one may be a slip of, the likeliest
// first: letters in the wrong case, wrong, missing or too many, or the name cut
// short.
func nearNames(wrong string, names []string) []string {
	type candidate struct {
		name     string
		distance int
	}
	var near []candidate
	for _, name := range names {
		d := editDistance(strings.ToLower(wrong), strings.ToLower(name))
		switch {
		case d <= max(1, min(2, len(wrong)/3)):
		case len(wrong) >= 3 && strings.Contains(strings.ToLower(name), strings.ToLower(wrong)):
			d = 3
		default:
			continue
		}
		near = append(near, candidate{name, d})
	}
	slices.SortStableFunc(near, func(a, b candidate) int { return a.distance - b.distance })
	var list []string
	for _, c := range near[:min(len(near), maxNear)] {
		list = append(list, shown(c.name))
	}
	return list
}

// editDistance is how many letters have to be put in, left out or exchanged.
// Long names are compared by their beginnings.
func editDistance(a, b string) int {
	x, y := []rune(a), []rune(b)
	x, y = x[:min(len(x), 64)], y[:min(len(y), 64)]
	before := make([]int, len(y)+1)
	for j := range before {
		before[j] = j
	}
	for i := range x {
		diagonal := before[0]
		before[0] = i + 1
		for j := range y {
			above := before[j+1]
			cost := diagonal
			if x[i] != y[j] {
				cost++
			}
			before[j+1] = min(cost, above+1, before[j]+1)
			diagonal = above
		}
	}
	return before[len(y)]
}
