package cli

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

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
	site, err := openSite(file, store, newLog(s.err, file.Logs))
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

// run serves until SIGTERM or SIGINT, and reloads on SIGHUP.
func (s *site) run(signals <-chan os.Signal, reload func() (*config.File, *certs.Store, error)) error {
	defer s.tendMemory()()
	for sig := range signals {
		if sig != syscall.SIGHUP {
			s.log.Info().Str("signal", sig.String()).Msg("stopping")
			break
		}
		s.reload(reload())
	}
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
