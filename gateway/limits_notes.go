package gateway

import (
	"net/netip"
	"sync"
	"time"
)

const (
	noteEvery = time.Minute
	mostNotes = 100 // addresses that are named in a minute
)

// notes keep what is said of refused clients to one line for each address and
// minute, and to some hundred in all: who floods the gateway does not flood its
// log. One timer serves all of it, and runs only while there is something to say.
type notes struct {
	mu      sync.Mutex
	lines   map[noteKey]int // how often since it was said last
	others  int             // of addresses beyond those that are named
	said    time.Time       // when the lines were said last
	timer   *time.Timer
	wake    time.Time // when it is due; zero: it does not run
	stopped bool
}

type noteKey struct {
	limit  string
	client netip.Addr
}

// note says at once what it says for the first time, and the rest when the minute
// is over.
func (g *guard) note(limit string, client netip.Addr, what string) {
	n := &g.notes
	key := noteKey{limit, client}
	n.mu.Lock()
	count, known := n.lines[key]
	fresh := !known && len(n.lines) < mostNotes
	switch {
	case known:
		n.lines[key] = count + 1
	case fresh:
		n.lines[key] = 0
	default:
		n.others++
	}
	n.mu.Unlock()
	if fresh {
		g.server.log.Warn().Str("limit", limit).Str("client", client.String()).Msg(what)
		g.wakeIn(noteEvery)
	}
}

// wakeIn has the guard look after its notes and bans in so long, or earlier.
func (g *guard) wakeIn(d time.Duration) {
	n := &g.notes
	n.mu.Lock()
	defer n.mu.Unlock()
	at := time.Now().Add(d)
	if n.stopped || !n.wake.IsZero() && n.wake.Before(at) {
		return
	}
	if n.timer != nil {
		n.timer.Stop()
	}
	n.wake = at
	n.timer = time.AfterFunc(d, g.awake)
}

// awake says which bans are over, and what was noted in the last minute.
func (g *guard) awake() {
	if !g.server.tasks.enter() {
		return
	}
	defer g.server.tasks.leave()
	n := &g.notes
	n.mu.Lock()
	n.wake = time.Time{}
	n.mu.Unlock()
	g.sayEnded()
	if g.sayNotes() {
		g.wakeIn(noteEvery)
	}
}

func (g *guard) sayEnded() {
	over, left, next := g.bans.Ended()
	for i, key := range over {
		if i == mostNotes {
			g.server.log.Info().Str("limit", byBan).Int("addresses", len(over)-i).Msg("further bans are over")
			break
		}
		g.server.log.Info().Str("limit", byBan).Str("client", key.Addr().String()).Msg("ban is over")
	}
	if left > 0 {
		g.wakeIn(max(time.Until(next), time.Second))
	}
}

// sayNotes says how often what was noted has happened again, if a minute is over,
// and tells whether there may be more to say.
func (g *guard) sayNotes() (more bool) {
	n := &g.notes
	n.mu.Lock()
	if time.Since(n.said) < noteEvery-time.Second {
		defer n.mu.Unlock()
		return len(n.lines) > 0
	}
	n.said = time.Now()
	again, others := map[noteKey]int{}, n.others
	for key, count := range n.lines {
		if count > 0 {
			again[key] = count
			n.lines[key] = 0
		} else {
			delete(n.lines, key) // quiet for a minute: the next time it is said at once
		}
	}
	n.others = 0
	more = len(n.lines) > 0
	n.mu.Unlock()
	for key, count := range again {
		g.server.log.Warn().Str("limit", key.limit).Str("client", key.client.String()).Int("times", count).Msg("refused again and again")
	}
	if others > 0 {
		g.server.log.Warn().Int("times", others).Msg("refused connections and requests of further addresses")
	}
	return more
}

// stop ends the timer for good.
func (g *guard) stop() {
	n := &g.notes
	n.mu.Lock()
	defer n.mu.Unlock()
	n.stopped = true
	if n.timer != nil {
		n.timer.Stop()
	}
}
