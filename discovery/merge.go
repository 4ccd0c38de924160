package discovery

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"
)

// takenEvery is how often a snapshot in which only Taken differs is published at
// most.
const takenEvery = time.Second

// Merge makes one source of several. What they know of one service is put
// together: a node whose id or name an earlier source's node has is left out and
// reported, so the order of sources is their precedence. A service's Taken is the
// oldest, that of the config file aside; Fault says what is wrong with any source
// of it, and so also that one of them does not know it yet; then it is Partial.
//
// A snapshot comes when the first source has published, and then when something
// has changed; a change of Taken alone may wait for the next one.
//
// The merged source ends with its context, or with the first of its sources that
// ends by itself, and returns when all of them have.
func Merge(sources ...Source) Source { return &merged{sources: slices.Clone(sources)} }

type merged struct{ sources []Source }

// Unknown implements Explainer. It names services as well that another source knows.
func (m *merged) Unknown() map[string]string {
	all := map[string]string{}
	for _, s := range m.sources {
		for name, why := range unknownOf(s) {
			if all[name] != "" {
				why = all[name] + "; " + why
			}
			all[name] = why
		}
	}
	return all
}

func (m *merged) notFound() (why string) {
	for _, s := range m.sources {
		why = joined(why, notFoundBy(s))
	}
	return why
}

// Run implements Source.
func (m *merged) Run(ctx context.Context, publish func(Snapshot)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type part struct {
		source int
		snap   Snapshot
	}
	parts := make(chan part)
	ended := make(chan error, len(m.sources))
	for i, s := range m.sources {
		go func() {
			ended <- s.Run(ctx, func(snap Snapshot) {
				select {
				case parts <- part{i, snap}:
				case <-ctx.Done():
				}
			})
		}()
	}
	if len(m.sources) == 0 {
		<-ctx.Done()
		return nil
	}
	known := make([]Snapshot, len(m.sources))
	for i, s := range m.sources {
		known[i].Partial = notFoundBy(s)
	}
	var last publication
	for {
		select {
		case err := <-ended:
			cancel()
			for range len(m.sources) - 1 {
				err = cmp.Or(err, <-ended)
			}
			return err
		case p := <-parts:
			known[p.source] = p.snap
			if snap := m.merge(known); last.differs(snap, time.Now()) {
				publish(snap)
			}
		}
	}
}

// publication is what was published last, and when.
type publication struct {
	snap Snapshot
	at   time.Time
}

// differs tells whether a snapshot is to be published now, and notes it if so.
func (p *publication) differs(snap Snapshot, now time.Time) bool {
	if now.Sub(p.at) < takenEvery && p.snap.Partial == snap.Partial && reflect.DeepEqual(timeless(p.snap), timeless(snap)) {
		return false
	}
	if reflect.DeepEqual(p.snap, snap) {
		return false
	}
	p.snap, p.at = snap, now
	return true
}

// timeless is a snapshot without its times.
func timeless(snap Snapshot) map[string]Service {
	services := maps.Clone(snap.Services)
	for name, s := range services {
		s.Taken = time.Time{}
		services[name] = s
	}
	return services
}

// merge puts together what the sources have published.
func (m *merged) merge(known []Snapshot) Snapshot {
	out := Snapshot{Services: map[string]Service{}}
	for _, snap := range known {
		out = Join(out, snap)
	}
	for name, why := range m.Unknown() {
		if s, ok := out.Services[name]; ok {
			out.Services[name] = s.Half(why)
		}
	}
	return out
}

// Join puts together what two sources know, as Merge does.
func Join(first, second Snapshot) Snapshot {
	out := Snapshot{Services: make(map[string]Service, len(first.Services)+len(second.Services)), Partial: joined(first.Partial, second.Partial)}
	maps.Copy(out.Services, first.Services)
	for name, s := range second.Services {
		if before, ok := out.Services[name]; ok {
			s = together(before, s)
		}
		out.Services[name] = s
	}
	return out
}

// Half is the service when one of its sources has not spoken, and why: it must
// not seem to have no further nodes.
func (s Service) Half(why string) Service {
	s.Partial = true
	if !strings.Contains(s.Fault, why) {
		s.Fault = joined(s.Fault, why)
	}
	return s
}

// together is one service of two sources; the first one's nodes win.
func together(a, b Service) Service {
	out := Service{
		Nodes:   slices.Clone(a.Nodes),
		LeftOut: slices.Concat(a.LeftOut, b.LeftOut),
		Source:  a.Source + "+" + b.Source,
		Taken:   a.Taken,
		Fault:   joined(a.Fault, b.Fault),
		Partial: a.Partial || b.Partial,
		Tagged:  a.Tagged && b.Tagged,
	}
	// The file's nodes are as fresh as ever: their time says nothing.
	if a.Source == "file" || b.Source != "file" && b.Taken.Before(a.Taken) {
		out.Taken = b.Taken
	}
	owners, lost := map[string]Node{}, map[string]bool{}
	for _, n := range a.Nodes {
		claim(owners, n)
	}
	for _, n := range b.Nodes {
		if name, owner, ok := claimed(owners, n); ok {
			lost[n.ID] = true
			out.LeftOut = append(out.LeftOut, LeftOut{Instance: n.ID, Reason: fmt.Sprintf(
				"its name %s is taken by the node %s of %s, which comes first; rename one of them", quoted(name), quoted(owner.ID), cmp.Or(owner.Origin, a.Source))})
			continue
		}
		claim(owners, n)
		out.Nodes = append(out.Nodes, n)
	}
	slices.SortStableFunc(out.Nodes, func(x, y Node) int { return cmp.Compare(x.ID, y.ID) })
	out.Routes = slices.Concat(a.Routes, without(b.Routes, lost))
	return out
}

// claim takes a node's id and names, in which case does not count.
func claim(owners map[string]Node, n Node) {
	for _, name := range append([]string{n.ID}, n.Names...) {
		owners[strings.ToLower(name)] = n
	}
}

// claimed gives the first of a node's names that another node has.
func claimed(owners map[string]Node, n Node) (name string, owner Node, ok bool) {
	for _, name := range append([]string{n.ID}, n.Names...) {
		if owner, ok := owners[strings.ToLower(name)]; ok {
			return name, owner, true
		}
	}
	return "", Node{}, false
}

func joined(a, b string) string {
	if a != "" && b != "" {
		return a + "; " + b
	}
	return a + b
}
