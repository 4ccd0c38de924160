package cli

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"singlegate/certs"
	"singlegate/internal/config"
	"singlegate/internal/memory"
)

type runCommand struct {
	Config string `required:"" placeholder:"FILE" help:"The config file."`
}

// Run runs the gateway until a signal ends it.
func (c *runCommand) Run(s streams) error {
	signals := takeSignals()
	defer signal.Stop(signals)
	file, store, err := load(c.Config)
	if err != nil {
		return fmt.Errorf("the config is not usable\n%w", err)
	}
	log := newLog(s.err, file.Logs)
	site, err := openSiteAs(serviceOf(log), file, store, log)
	if err != nil {
		return err
	}
	site.announce()
	return site.run(signals, func() (*config.File, *certs.Store, error) { return load(c.Config) })
}

// tendMemory keeps the process's memory small until stop.
func (s *site) tendMemory() (stop func()) {
	memory.Bound(s.log)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		memory.Trim(ctx)
	}()
	return func() {
		cancel()
		<-done
	}
}

// takeSignals comes first in a command: a SIGHUP that nobody takes would end
// the process.
func takeSignals() chan os.Signal {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	return signals
}

// closeTime is what the end of a site may take beyond the deadline of its config.
const closeTime = 5 * time.Second

// serve returns with the signal that ends the site.
func (s *site) serve(signals <-chan os.Signal, reload func() (*config.File, *certs.Store, error)) {
	tick, stop := s.service.watch()
	defer stop()
	for {
		select {
		case <-tick:
			s.proveAlive()
		case sig := <-signals:
			if sig != syscall.SIGHUP {
				s.log.Info().Str("signal", sig.String()).Msg("stopping")
				return
			}
			said(s.log, s.service.notify.Reloading())
			s.reload(reload())
			said(s.log, s.service.notify.Ready(summary(s.file)))
		}
	}
}

// run serves until SIGTERM or SIGINT, and reloads on SIGHUP.
func (s *site) run(signals <-chan os.Signal, reload func() (*config.File, *certs.Store, error)) error {
	defer s.tendMemory()()
	said(s.log, s.service.notify.Ready(summary(s.file)))
	s.serve(signals, reload)
	said(s.log, s.service.notify.Stopping(s.file.Gateway.Shutdown.Deadline+closeTime))
	ctx, cut := context.WithCancel(context.Background())
	defer cut()
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		s.close(ctx)
	}()
	for {
		select {
		case sig := <-signals:
			if sig != syscall.SIGHUP {
				s.log.Warn().Msg("second signal: everything left is cut")
				cut()
			}
		case <-closed:
			s.log.Info().Msg("stopped")
			return nil
		}
	}
}
