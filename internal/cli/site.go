package cli

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"reflect"

	"github.com/mattn/go-isatty"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"singlegate/certs"
	"singlegate/discovery"
	"singlegate/gateway"
	"singlegate/gateway/admin"
	"singlegate/internal/audit"
	"singlegate/internal/config"
	"singlegate/upstream"
)

// A site is a running gateway with all its parts.
type site struct {
	log    zerolog.Logger
	file   *config.File
	certs  *certs.Store
	server *gateway.Server
	admin  *admin.Server // nil when there is no admin address
	audit  *audit.Log    // nil when there is no audit log
	fds    *gateway.Descriptors
	nodes  feed
	acme   issuance
	tended func() // ends following the certificates' files, and waits for it; nil: not begun

	service service // that it runs as
}

// openSite starts everything that the config asks for.
func openSite(file *config.File, store *certs.Store, log zerolog.Logger) (*site, error) {
	return openSiteAs(service{}, file, store, log)
}

// openSiteAs is openSite in the hands of a service manager.
func openSiteAs(as service, file *config.File, store *certs.Store, log zerolog.Logger) (*site, error) {
	s := &site{log: log, file: file, certs: store, fds: gateway.NewDescriptors(file.Gateway.Limits.Descriptors), service: as}
	auditing, err := s.openAudit()
	if err != nil {
		return nil, err
	}
	s.server, err = gateway.New(gateway.Options{
		Log:         log,
		Access:      log,
		Audit:       auditing,
		TLS:         store.TLSConfig(),
		Upstream:    upstream.New(s.fds),
		Descriptors: s.fds,
		Unknown:     s.nodes.unknown,
		Challenge:   s.acme.answer,
		Collectors:  []prometheus.Collector{newConsulErrors(&s.nodes.failed), newCertMetrics(store), newAuditMetrics(s.audit)},
		Listen:      as.listen,
	})
	if err != nil {
		s.closeAudit()
		return nil, err
	}
	s.nodes.log, s.nodes.publish = log, s.server.Publish
	s.acme.log = log
	if file.Admin.Address != "" {
		s.admin, err = startAdmin(file.Admin, as, surface{s.server, store})
	}
	if err == nil {
		err = s.apply(file)
	}
	if err == nil {
		err = s.manage(file)
	}
	if err != nil {
		s.close(context.Background())
		return nil, err
	}
	s.tended = tendCerts(store, log)
	return s, nil
}

// startAdmin opens the admin address.
func startAdmin(a config.Admin, as service, gw admin.Gateway) (*admin.Server, error) {
	access, err := accessOf(a)
	if err != nil {
		return nil, err
	}
	started, err := admin.Start(admin.Config{Address: a.Address, Access: access, Listen: as.listen}, gw)
	if err != nil {
		return nil, fmt.Errorf("admin address: %w", err)
	}
	return started, nil
}

// apply puts a config and its nodes in force.
func (s *site) apply(file *config.File) error {
	put := func(snap *discovery.Snapshot) error { return s.server.Apply(file.Gateway, snap) }
	if err := s.nodes.apply(file, put); err != nil {
		return err
	}
	s.file = file
	return s.nodes.follow(file)
}

// manage has certificates by ACME got and served, once the listeners are open.
func (s *site) manage(file *config.File) error {
	for _, w := range acmeWarnings(file, s.certs) {
		s.log.Warn().Msg(w)
	}
	if err := s.acme.follow(file, s.server.Entries()); err != nil {
		return err
	}
	if len(file.ACME) == 0 {
		s.certs.Manage(nil)
	} else {
		s.certs.Manage(managed{&s.acme})
	}
	return nil
}

// reload takes a new config, or says why not and lets the old one go on.
func (s *site) reload(file *config.File, store *certs.Store, err error) {
	before := s.file
	var access admin.Access
	if err == nil {
		access, err = accessOf(file.Admin)
	}
	if err == nil {
		err = s.certs.Judge(store)
	}
	if err == nil {
		err = s.apply(file)
	}
	s.auditReload(err)
	if err != nil {
		s.log.Error().Msgf("reload refused, the old config goes on:\n%v", err)
		return
	}
	s.certs.Adopt(store)
	if err := s.manage(file); err != nil {
		s.log.Error().Err(err).Msg("certificates by ACME stay as they were")
	}
	if file.Admin.Address != before.Admin.Address {
		s.log.Warn().Msg("admin.address changes with a restart")
	}
	if !reflect.DeepEqual(withoutPlace(file.Audit), withoutPlace(before.Audit)) {
		s.log.Warn().Msg("audit changes with a restart")
	}
	if s.admin != nil {
		if err := s.admin.SetAccess(access); err != nil {
			s.log.Warn().Msgf("the tokens of the admin address stay those that were: %v", err)
		}
	}
	for _, w := range s.fds.Headroom().Warnings(file.Gateway) {
		s.log.Warn().Msg(w)
	}
	s.service.reportSockets(s.log, file.Gateway.Listeners)
	s.log.Info().Int("tunnels", s.server.Tunnels()).Msgf("reloaded: %s", summary(file))
}

// announce says what is served where.
func (s *site) announce() {
	for _, w := range auditWarnings(s.file) {
		s.log.Warn().Msg(w)
	}
	for _, c := range s.certs.Infos() {
		if c.NotAfter.IsZero() {
			s.log.Info().Strs("names", c.Names).Str("source", c.Source).Msg("certificate to come")
			continue
		}
		s.log.Info().Strs("names", c.Names).Time("not_after", c.NotAfter).Str("file", c.Source).Msg("certificate")
	}
	for _, e := range s.server.Entries() {
		s.log.Info().Str("listener", e.Name).Str("address", e.Address.String()).Bool("tls", e.TLS).Msg("listening")
	}
	s.service.reportSockets(s.log, s.file.Gateway.Listeners)
	if s.admin != nil {
		s.log.Info().Str("address", s.admin.Addr().String()).Msg("admin")
		if a, ok := s.admin.Addr().(*net.TCPAddr); ok && !a.IP.IsLoopback() {
			s.log.Warn().Msg("the admin address is not on loopback and speaks plain HTTP: its tokens cross the network as they are; keep it on a network for administration, or reach it by SSH or a VPN")
		}
	}
	for _, r := range s.file.Gateway.Routes {
		for _, p := range r.Paths {
			s.log.Info().Str("route", r.Host+p).Str("to", describeAction(r)).Strs("listeners", r.Listeners).Msg("route")
		}
	}
	if prefix := s.file.TagPrefix; prefix != "" {
		s.log.Info().Str("tags", prefix).Strs("listeners", s.file.Gateway.TagRoutes.Listeners).Msg("routes that services in Consul ask for by their tags")
	}
	for _, p := range s.file.Gateway.NodePorts {
		s.log.Info().Str("kind", p.Kind).Bool("tls", p.TLS).Str("to", "service "+p.Service).Msg("one port per node")
	}
	s.fds.Headroom().Log(s.log, s.file.Gateway)
	s.log.Info().Str("version", version).Msgf("ready: %s", summary(s.file))
}

func describeAction(r gateway.Route) string {
	switch {
	case r.Service != "" && r.Port != "":
		return "service " + r.Service + ", port " + r.Port
	case r.Service != "":
		return "service " + r.Service
	case r.Static != "":
		return "files of " + r.Static
	case r.Page != "":
		return "page " + r.Page
	case r.Redirect == "":
		return "nobody"
	}
	return "redirect to " + r.Redirect
}

// close ends everything in order; ctx's end cuts what is left.
func (s *site) close(ctx context.Context) {
	s.nodes.stop()
	if s.tended != nil {
		s.tended()
	}
	s.acme.stop()
	s.server.Shutdown(ctx)
	if s.admin != nil {
		s.admin.Close()
	}
	s.closeAudit()
}

// newLog writes JSON, or lines for people where the config or a terminal asks
// for them.
func newLog(w io.Writer, cfg config.Logs) zerolog.Logger {
	level, err := zerolog.ParseLevel(cfg.Level)
	if err != nil {
		level = zerolog.InfoLevel
	}
	console := cfg.Format == "console"
	file, isFile := w.(*os.File)
	terminal := isFile && isatty.IsTerminal(file.Fd())
	if console || cfg.Format == "" && terminal {
		w = zerolog.ConsoleWriter{Out: w, NoColor: !terminal, TimeFormat: "15:04:05.000"}
	}
	return zerolog.New(w).Level(level).With().Timestamp().Logger()
}
