package gateway

import (
	"context"
	"maps"

	"singlegate/upstream"
)

// checks runs the checks that the config asks for. Its methods are called one
// at a time, under Server.control.
type checks struct {
	running map[string]upstream.Check
	cancel  context.CancelFunc
}

// follow makes the checks those of the config. Checks that stay are not
// interrupted.
func (c *checks) follow(s *Server, services []ServiceRef) {
	wanted := map[string]upstream.Check{}
	for _, ref := range services {
		if ref.Check != nil {
			wanted[ref.Name] = *ref.Check
		}
	}
	if maps.Equal(wanted, c.running) {
		return
	}
	c.stop()
	c.running = wanted
	if len(wanted) == 0 || !s.tasks.enter() {
		return
	}
	var ctx context.Context
	ctx, c.cancel = context.WithCancel(s.running)
	go func() {
		defer s.tasks.leave()
		s.upstream.RunChecks(ctx, wanted, func() *upstream.View { return s.state.Load().table.view }, s.checkChanged)
	}()
}

// stop ends the checks; the server waits for them with its other tasks.
func (c *checks) stop() {
	if c.cancel != nil {
		c.cancel()
	}
	c.cancel, c.running = nil, nil
}

func (s *Server) checkChanged(key upstream.Key, err error) {
	e := s.log.Info()
	what := "the check of a node passes again"
	if err != nil {
		e, what = s.log.Warn().Str("cause", err.Error()), "the check of a node fails"
	}
	e.Str("service", key.Service).Str("node", key.ID).Msg(what)
}
