package cli

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"singlegate/gateway"
	"singlegate/gateway/admin"
	"singlegate/upstream"
)

// A view makes text of what the gateway says of its nodes.
type view struct {
	admin.Nodes
	say    words
	drains map[upstream.Key]admin.Drain
}

// nodesView is the table of nodes with their entry points, and what is wrong.
func nodesView(n admin.Nodes, say words) string {
	v := view{n, say, map[upstream.Key]admin.Drain{}}
	for _, d := range n.Drains {
		v.drains[upstream.Key{Service: d.Service, ID: d.Node}] = d
	}
	var b strings.Builder
	if len(n.Services) == 0 {
		b.WriteString(say.noServices + "\n")
	} else {
		v.table(&b)
	}
	section(&b, say.troubles, v.troubles())
	section(&b, say.leftOut, v.leftOut())
	section(&b, say.ports, v.portFaults())
	return b.String()
}

func (v *view) table(b *strings.Builder) {
	t := table{right: 5}
	t.add(v.say.columns[:])
	for _, s := range v.Services {
		for _, n := range s.Nodes {
			key := upstream.Key{Service: s.Name, ID: n.ID}
			t.add([]string{
				shown(s.Name), shown(n.ID), address(n), source(s, n), v.health(n), tunnels(n),
				v.drain(key, n.Draining, n.Tunnels, n.Lingering), v.age(s),
			}, entryPoints(n)...)
		}
		v.addGone(&t, s)
	}
	t.write(b)
}

// addGone adds the nodes that are gone and still have tunnels.
func (v *view) addGone(t *table, s admin.Service) {
	for _, n := range s.Gone {
		key := upstream.Key{Service: s.Name, ID: n.ID}
		t.add([]string{
			shown(s.Name), shown(n.ID), "-", "-", v.say.gone, strconv.Itoa(n.Tunnels), v.drain(key, false, n.Tunnels, n.Lingering), "-",
		})
	}
}

// address is the node's with its ports: 10.0.0.1:80, or 10.0.0.1 http:80 ws:81.
func address(n gateway.NodeStatus) string {
	host := n.Address
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	if len(n.Ports) == 1 {
		for _, port := range n.Ports {
			return shown(fmt.Sprintf("%s:%d", host, port))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(n.Ports)) {
		host += fmt.Sprintf(" %s:%d", name, n.Ports[name])
	}
	return shown(host)
}

// tunnels is how many there are, of how many there may be.
func tunnels(n gateway.NodeStatus) string {
	if n.TunnelsLimit > 0 {
		return fmt.Sprintf("%d/%d", n.Tunnels, n.TunnelsLimit)
	}
	return strconv.Itoa(n.Tunnels)
}

func source(s admin.Service, n gateway.NodeStatus) string {
	if s.Source == "cache" {
		return s.Source
	}
	return shown(cmp.Or(n.Origin, s.Source, "-"))
}

func (v *view) health(n gateway.NodeStatus) string {
	h := n.Health()
	text, ok := v.say.health[h]
	if !ok {
		return shown(string(h))
	}
	if h == gateway.HealthEjected {
		return fmt.Sprintf(text, v.say.span(n.EjectedUntil.Sub(v.Time)))
	}
	return text
}

// drain is how far the node's drain is. When its last Close is sent, clients that
// have not answered theirs are what is left of it.
func (v *view) drain(key upstream.Key, draining bool, tunnels, lingering int) string {
	d, ok := v.drains[key]
	switch {
	case ok && (tunnels > lingering || d.BeginsIn > 0):
		return v.progress(d)
	case lingering > 0:
		return fmt.Sprintf(v.say.lingering, lingering)
	case draining && tunnels == 0:
		return v.say.drained
	}
	return "-"
}

func (v *view) progress(d admin.Drain) string {
	total := d.Total
	if total == 0 {
		total = d.Left
	}
	switch {
	case d.BeginsIn > 0:
		return fmt.Sprintf(v.say.begins, v.say.span(seconds(d.BeginsIn)))
	case d.PerSecond == 0:
		return v.say.closing
	}
	return fmt.Sprintf(v.say.draining, d.Closed, total, v.say.span(seconds(d.DoneIn)))
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// age is how old the snapshot is; that of a file does not grow stale.
func (v *view) age(s admin.Service) string {
	if s.Source == "file" || s.Taken.IsZero() {
		return "-"
	}
	return v.say.span(v.Time.Sub(s.Taken))
}

func entryPoints(n gateway.NodeStatus) []string {
	urls := make([]string, len(n.EntryPoints))
	for i, u := range n.EntryPoints {
		urls[i] = shown(u)
	}
	return urls
}

// section writes lines under a heading, if there are any.
func section(b *strings.Builder, heading string, lines []string) {
	if len(lines) == 0 {
		return
	}
	b.WriteString("\n" + heading + "\n")
	for _, line := range lines {
		b.WriteString("  " + shown(line) + "\n")
	}
}

func (v *view) troubles() (lines []string) {
	for _, s := range v.Services {
		switch {
		case s.Fault != "" && !s.Known:
			lines = append(lines, s.Name+": "+s.Fault)
		case s.Fault != "":
			lines = append(lines, s.Name+": "+fmt.Sprintf(v.say.fault, s.Fault, v.say.span(v.Time.Sub(s.Taken))))
		case !s.Known:
			lines = append(lines, s.Name+": "+v.say.unknown)
		case len(s.Nodes) == 0:
			lines = append(lines, s.Name+": "+v.say.empty)
		}
		for _, n := range s.Nodes {
			if n.Fault != "" {
				lines = append(lines, s.Name+"/"+n.ID+": "+n.Fault)
			}
		}
	}
	return lines
}

func (v *view) leftOut() (lines []string) {
	for _, s := range v.Services {
		for _, l := range s.LeftOut {
			lines = append(lines, s.Name+" "+l.Instance+": "+l.Reason)
		}
	}
	return lines
}

func (v *view) portFaults() (lines []string) {
	for _, f := range v.PortFaults {
		line := f.Name
		if f.Address != "" {
			line += " " + f.Address
		}
		lines = append(lines, line+": "+f.Reason+" ("+f.At+")")
	}
	return lines
}
