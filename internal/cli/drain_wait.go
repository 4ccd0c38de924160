package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"singlegate/gateway/admin"
	"singlegate/upstream"
)

// A drainWait follows a drain until no tunnel is left.
type drainWait struct {
	key      upstream.Key
	client   *adminClient
	out      io.Writer
	terminal bool // one line, rewritten

	every    time.Duration // between two looks
	between  time.Duration // between two lines, at least
	patience time.Duration // how long nothing may change

	started time.Time
	total   int       // tunnels to close
	left    int       // last seen
	changed time.Time // when left last changed
	told    time.Time // when the last line was written
	misses  int       // looks in a row that got no answer
}

// maxMisses is how often in a row the gateway may not answer.
const maxMisses = 5

// newDrainWait is for a node that had so many tunnels before the drain.
func newDrainWait(key upstream.Key, tunnels int, client *adminClient, out io.Writer) *drainWait {
	return &drainWait{
		key: key, client: client, out: out, terminal: isTerminal(out),
		every: 500 * time.Millisecond, between: 2 * time.Second, patience: time.Minute,
		started: time.Now(), total: tunnels,
	}
}

// run returns nil when no tunnel is left, and an error when none can be waited
// for any more.
func (w *drainWait) run(ctx context.Context) error {
	tick := time.NewTicker(w.every)
	defer tick.Stop()
	for {
		done, err := w.look(ctx)
		if ctx.Err() != nil {
			w.endLine()
			return errors.New(w.client.say.waitCut)
		}
		if done || err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

// look asks once and tells of it.
func (w *drainWait) look(ctx context.Context) (done bool, err error) {
	n, err := w.client.nodes(ctx)
	if err != nil {
		if w.misses++; w.misses >= maxMisses {
			w.endLine()
			return false, err
		}
		return false, nil
	}
	w.misses = 0
	p := progressOf(n, w.key)
	w.note(p)
	say, name := w.client.say, shown(w.key.String())
	switch {
	case p.gone && w.total == 0:
		w.endLine()
		return true, w.line(fmt.Sprintf(say.drainGone, name))
	case p.left == 0:
		w.endLine()
		return true, w.line(fmt.Sprintf(say.drainDone, name, w.total, say.span(time.Since(w.started))))
	case p.ended:
		w.endLine()
		return false, fmt.Errorf(say.drainEnded, name, p.left)
	case time.Since(w.changed) > w.patience && !p.waiting:
		w.endLine()
		return false, fmt.Errorf(say.drainStuck, name, p.left, say.span(w.patience))
	}
	return false, w.tell(name, p)
}

// note takes what was seen.
func (w *drainWait) note(p drainProgress) {
	if w.changed.IsZero() || p.left != w.left {
		w.changed = time.Now()
	}
	w.left, w.total = p.left, max(w.total, p.left, p.drain.Total)
}

// A drainProgress is how far a drain is.
type drainProgress struct {
	left    int
	drain   admin.Drain
	active  bool // drain is under way
	waiting bool // it has not begun to close
	ended   bool // the node takes new tunnels again
	gone    bool // there is neither such a node nor a tunnel of it
}

func progressOf(n admin.Nodes, key upstream.Key) (p drainProgress) {
	p.gone = true
	for _, d := range n.Drains {
		if d.Service == key.Service && d.Node == key.ID {
			p.drain, p.active, p.waiting, p.gone, p.left = d, true, d.BeginsIn > 0, false, d.Left
		}
	}
	for _, s := range n.Services {
		for _, node := range s.Gone {
			if s.Name == key.Service && node.ID == key.ID {
				p.left, p.gone = node.Tunnels, false
			}
		}
		for _, node := range s.Nodes {
			if s.Name == key.Service && node.ID == key.ID {
				p.left, p.ended, p.gone = node.Tunnels, !node.Draining, false
			}
		}
	}
	return p
}

// tell shows the progress: in place on a terminal, now and then elsewhere.
func (w *drainWait) tell(name string, p drainProgress) error {
	if !w.terminal && time.Since(w.told) < w.between {
		return nil
	}
	w.told = time.Now()
	say := w.client.say
	closed := w.total - p.left
	text := fmt.Sprintf(say.progressLast, closed, w.total)
	if p.active && p.drain.DoneIn > 0 {
		text = fmt.Sprintf(say.progress, closed, w.total, say.span(seconds(p.drain.DoneIn)))
	}
	if w.terminal {
		_, err := fmt.Fprintf(w.out, "\r%s: %s\x1b[K", name, text)
		return err
	}
	return w.line(name + ": " + text)
}

func (w *drainWait) line(text string) error {
	_, err := fmt.Fprintln(w.out, text)
	return err
}

// endLine clears the line that was rewritten.
func (w *drainWait) endLine() {
	if w.terminal {
		io.WriteString(w.out, "\r\x1b[K")
	}
}
