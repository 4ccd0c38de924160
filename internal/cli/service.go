package cli

import (
	"net"
	"os"
	"time"

	"github.com/rs/zerolog"

	"singlegate/gateway"
	"singlegate/internal/systemd"
)

// A service is what the process has to do with the service manager that started
// it, if one did: the sockets that it passed, and what it is told.
type service struct {
	notify  *systemd.Notifier
	sockets *systemd.Sockets
}

// serviceOf looks into the environment.
func serviceOf(log zerolog.Logger) service {
	sockets, err := systemd.Inherited(os.Getenv)
	if err != nil {
		log.Warn().Msg(err.Error())
	}
	return service{systemd.NewNotifier(os.Getenv), sockets}
}

// listen is for gateway.Options.
func (s service) listen(name, address string) (net.Listener, error) {
	return s.sockets.Listen(name, address)
}

// reportSockets says which listeners have passed sockets and which sockets are
// for nobody.
func (s service) reportSockets(log zerolog.Logger, listeners []gateway.Listener) {
	if !s.sockets.Passed() {
		return
	}
	for _, l := range listeners {
		if socket, ok := s.sockets.Used(l.Address); ok {
			log.Info().Str("listener", l.Name).Str("socket", socket.String()).Msg("listens on a socket that the service manager passed")
			continue
		}
		log.Info().Str("listener", l.Name).Str("address", l.Address).
			Msg("the service manager passed no socket for this listener: the gateway opened its own; to have one passed, add ListenStream= with this address to the socket unit")
	}
	for _, socket := range s.sockets.Unused() {
		log.Warn().Str("socket", socket).
			Msg("no listener wants this socket that the service manager passed: whoever connects to it waits in vain; add a listener with its address, or take it out of the socket unit")
	}
}

// said logs what could not be said to the service manager, which goes on to wait
// for it.
func said(log zerolog.Logger, err error) {
	if err != nil {
		log.Warn().Msg(err.Error())
	}
}

// watch is the tick at which the watchdog wants to hear something; without a
// watchdog it never comes.
func (s service) watch() (tick <-chan time.Time, stop func()) {
	every := s.notify.Watchdog()
	if every == 0 {
		return nil, func() {}
	}
	ticker := time.NewTicker(every)
	return ticker.C, ticker.Stop
}

// proveAlive keeps the watchdog quiet, but only after it has held every lock that
// a reload, a snapshot and a drain need: one of these that hangs ends the process.
// It is called by the goroutine that takes the signals, for the same reason.
func (s *site) proveAlive() {
	s.nodes.inForce()
	s.server.Ready()
	s.server.Entries()
	said(s.log, s.service.notify.Alive())
}
