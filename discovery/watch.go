package discovery

import (
	"context"
	"sync"
	"time"
)

// A view is what a watch believes now.
type view struct {
	instances
	known bool
	taken time.Time
	fault string
}

type update struct {
	name    string // Consul's
	view    view
	failure FailureKind // of the query behind it; "": it did not fail
}

// A watch follows one Consul service by blocking queries, or the list of those
// with tags.
type watch struct {
	name   string // "": the list
	list   listing
	client *consulClient
	timing timing
	belief belief
}

// run sends what is believed after every query, until ctx ends.
func (w *watch) run(ctx context.Context, updates chan<- update) {
	retry := backoff{least: w.timing.leastPause, most: w.timing.mostPause}
	pace := pace{step: 10 * time.Millisecond, burst: 100}
	q := w.query(0)
	for ctx.Err() == nil {
		a, err := w.client.ask(ctx, w.list, q)
		if ctx.Err() != nil {
			return
		}
		b := &w.belief
		var failure FailureKind
		if err != nil {
			b.failed(w.client.explain(err, w.name))
			failure = failureOf(err)
		} else {
			b.answered(a, time.Now())
			failure = b.failureIn(a)
		}
		select {
		case updates <- update{w.name, view{b.instances, b.known, b.taken, b.fault}, failure}:
		case <-ctx.Done():
			return
		}
		if b.failing() {
			pause(ctx, retry.next(), w.client.token.changed)
			q = w.query(0)
			continue
		}
		retry.reset()
		if d := pace.wait(time.Now()); d > 0 {
			pause(ctx, d, nil)
		}
		q = w.query(next(q.index, a.index))
	}
}

// next is the index to wait on. One that goes down means that Consul's state is
// another one now: waiting on the old one would miss what happens meanwhile. An
// index of 0 would not wait at all.
func next(asked, answered uint64) uint64 {
	if answered < asked {
		return 0
	}
	return max(answered, 1)
}

// query is what to ask next, waiting for news after the index. An unsure belief
// asks again before long, the leader itself where an empty list is in question.
func (w *watch) query(index uint64) query {
	q := query{index: index, wait: jittered(w.timing.wait)}
	switch {
	case !w.belief.empty.IsZero():
		q.wait, q.consistent = w.timing.confirm, true
	case w.belief.unsure():
		q.wait = min(q.wait, w.timing.recheck)
	}
	return q
}

// watches are those of a running source.
type watches struct {
	source  *Consul
	ctx     context.Context // ends them all
	updates chan update
	lists   chan update
	running map[string]running // by Consul's names
	group   sync.WaitGroup
}

type running struct {
	fixed bool // needed whatever the tags say
	end   context.CancelFunc
	ended chan struct{}
}

// begin begins those that are needed whatever the tags say, and that of the list.
func (w *watches) begin() {
	for _, name := range w.source.watched() {
		w.start(name)
		r := w.running[name]
		r.fixed = true
		w.running[name] = r
	}
	if w.source.prefix != "" {
		w.run(&watch{list: w.source.client.tagged(w.source.prefix)}, w.lists)
	}
}

// start begins a watch, unless there is one.
func (w *watches) start(name string) {
	if !w.has(name) {
		w.run(&watch{name: name, list: w.source.client.instances(name)}, w.updates)
	}
}

func (w *watches) has(name string) bool { return w.running[name].end != nil }

// stop ends a watch that is not fixed. When it returns, nothing comes of it any more.
func (w *watches) stop(name string) {
	if r := w.running[name]; !r.fixed {
		r.end()
		<-r.ended
		delete(w.running, name)
	}
}

func (w *watches) run(one *watch, to chan<- update) {
	one.client, one.timing = w.source.client, w.source.timing
	one.belief = belief{patience: one.timing.patience, catalog: one.name == ""}
	ctx, end := context.WithCancel(w.ctx)
	r := running{end: end, ended: make(chan struct{})}
	w.running[one.name] = r
	w.group.Go(func() {
		defer close(r.ended)
		one.run(ctx, to)
	})
}
