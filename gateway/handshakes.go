package gateway

import (
	"cmp"
	"context"
	"errors"
	"runtime"
	"sync/atomic"

	"github.com/rs/zerolog"
)

// A gate lets as many TLS handshakes compute at a time as there are processors,
// so that a storm of them does not starve live tunnels, and bounds how many
// wait for that with nothing done for them yet: each holds memory, and beyond
// some number they would wait in vain. Safe for concurrent use.
type gate struct {
	places  chan struct{}
	waiting atomic.Int64
	most    atomic.Int64 // that may wait
	warning seldom
}

func newGate() *gate {
	g := &gate{places: make(chan struct{}, runtime.GOMAXPROCS(0))}
	g.limit(0)
	return g
}

// limit sets how many may wait; 0: the default.
func (g *gate) limit(most int) { g.most.Store(int64(cmp.Or(most, DefaultLimits().Handshakes))) }

// errHandshakesFull ends a handshake before any work was done for it. The client
// sees its connection closed, without a TLS alert: that clients take for a
// failure of the network, after which they come back, and an alert for one that
// coming back does not mend.
var errHandshakesFull = errors.New("too many TLS handshakes wait for a processor already")

// enter waits for a place until ctx ends. Only a handshake that has begun may
// wait when as many wait as may.
func (g *gate) enter(ctx context.Context, begun bool) error {
	select {
	case g.places <- struct{}{}:
		return nil
	default:
	}
	defer g.waiting.Add(-1)
	if g.waiting.Add(1) > g.most.Load() && !begun {
		return errHandshakesFull
	}
	select {
	case g.places <- struct{}{}:
		// The scheduler runs at once whom the last handshake has woken, who would
		// wake the next: others that can run come first.
		runtime.Gosched()
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// crowded tells whether handshakes wait.
func (g *gate) crowded() bool { return g.waiting.Load() > 0 }

func (g *gate) leave() { <-g.places }

// warn says, once in ten seconds, that handshakes are refused.
func (g *gate) warn(log zerolog.Logger) {
	if !g.warning.due() {
		return
	}
	log.Error().Int64("waiting", g.waiting.Load()).Int64("limit", g.most.Load()).
		Msg("more TLS handshakes than the processors get done: new connections are closed; tunnels go on (limits.handshakes)")
}
