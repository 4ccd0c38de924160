// Package gateway is the edge: it accepts connections, finds the route of each
// request, and proxies HTTP and WebSocket to the nodes behind.
//
// The way of one connection: listen.go accepts it, handle.go takes a request
// through table.go to http.go, websocket.go, static.go or page.go; a tunnel ends
// up in package relay.
//
// It imports upstream, discovery, gateway/auth, gateway/relay and gateway/checkpage; it knows
// nothing of the config file, of Consul, or of where certificates come from.
package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"github.com/valyala/fasthttp"

	"singlegate/discovery"
	"singlegate/gateway/auth"
	"singlegate/gateway/relay"
	"singlegate/upstream"
)

// Options are what a Server is made of.
type Options struct {
	Log         zerolog.Logger // what happens to the gateway
	Access      zerolog.Logger // one line per request and tunnel
	Audit       AuditLog       // what a boundary device has to note of them; nil: there is none
	TLS         *tls.Config    // for TLS listeners; nil when there are none
	Upstream    *upstream.Set
	Descriptors *Descriptors
	Unknown     func() map[string]string // why nothing is known of services, by name; may be nil
	Challenge   Challenge                // of ACME servers; nil: there is none
	Collectors  []prometheus.Collector   // of metrics that stand beside the server's own

	// Listen opens the TCP socket of a listener, which may have been opened by
	// somebody else before; nil: net.Listen does.
	Listen func(name, address string) (net.Listener, error)
}

// A Server is the gateway: its listeners, its table, its tunnels. All methods
// are safe for concurrent use.
type Server struct {
	log         zerolog.Logger
	access      zerolog.Logger
	audit       auditor
	tls         *tls.Config
	tcpTLS      *tls.Config // for ports of plain TCP
	upstream    *upstream.Set
	descriptors *Descriptors
	unknown     func() map[string]string
	challenge   Challenge
	listen      func(name, address string) (net.Listener, error)

	relay   *relay.Engine
	tunnels *tunnels
	places  places
	watcher *watcher
	gate    *gate
	guard   *guard
	buffers sync.Pool // of *[]byte, for the bodies of answers
	tasks   tasks
	panics  atomic.Int64
	metrics *metrics
	auth    *auth.Set

	state    atomic.Pointer[state] // what a request sees
	loopID   string
	loops    loops
	stopping context.Context // ends when Shutdown begins
	stop     context.CancelFunc
	running  context.Context // ends when the server has ended
	ended    context.CancelCauseFunc

	control   sync.Mutex           // one change at a time
	listeners map[string]*listener // by Listener.key
	routes    []*route
	allowing  *auth.Authorities // of the config in force
	view      *upstream.View
	faults    []PortFault // node ports that are wanted and not open
	retry     *time.Timer // for them; nil: there are none
	ownNodes  map[OwnAddress]bool
	closed    bool

	noCertificate seldom // handshakes for names whose certificate is still being got

	drains drains
	checks checks
}

// state is what a request sees from beginning to end: swapped, never changed.
type state struct {
	cfg    *Config
	table  *table
	auth   *auth.Authorities
	own    *ownSockets
	redact *redactor

	certificateHeaders []string            // see there
	securePort         uint16              // public port of the first TLS listener; 0: there is none
	secure             []*listenerSettings // of the listeners with TLS that serve routes
}

// Check tells what Apply would refuse in a config, without starting anything:
// it compiles the routes, opens the folders they name, reads the keys of tokens,
// and looks whether source addresses are this machine's.
func Check(cfg Config) error {
	_, err := compileRoutes(&cfg)
	return errors.Join(err, auth.Check(cfg.Auth), checkSources(&cfg))
}

// New returns a server that listens nowhere yet; Apply begins.
func New(o Options) (*Server, error) {
	w, err := newWatcher()
	if err != nil {
		return nil, fmt.Errorf("watching connections: %w", err)
	}
	s := &Server{
		log: o.Log, access: o.Access, audit: newAuditor(o.Audit), tls: ungated(o.TLS), tcpTLS: anyProtocol(ungated(o.TLS)), upstream: o.Upstream, descriptors: o.Descriptors, unknown: o.Unknown, challenge: o.Challenge,
		relay:     relay.New(),
		tunnels:   newTunnels(),
		watcher:   w,
		gate:      newGate(),
		listeners: map[string]*listener{},
		loopID:    newLoopID(),
	}
	if s.listen = o.Listen; s.listen == nil {
		s.listen = func(_, address string) (net.Listener, error) { return net.Listen("tcp", address) }
	}
	s.relay.Crowded = s.gate.crowded
	s.places.nodes = map[upstream.Key]int{}
	s.guard = newGuard(s)
	s.metrics = newMetrics(s)
	s.metrics.registry.MustRegister(o.Collectors...)
	s.auth = auth.New(o.Log, func(name string, result auth.Result) { s.metrics.auth.inc(authLabels{name, result}) })
	s.drains.server = s
	s.drains.active = map[upstream.Key]*drain{}
	s.buffers.New = func() any { b := make([]byte, 32<<10); return &b }
	s.running, s.ended = context.WithCancelCause(context.Background())
	s.stopping, s.stop = context.WithCancel(s.running)
	s.state.Store(&state{cfg: &Config{}, table: &table{}, redact: newRedactor(Redact{})})
	return s, nil
}

// Apply puts a config in force: the first one, or another one while the server
// runs. With it comes, in the same moment, a snapshot of the nodes, if one is
// given. It is done whole or not at all; the error says everything that is wrong.
// No tunnel and no request under way is touched. A listener that the config no
// longer has stops accepting and lets its requests finish.
func (s *Server) Apply(cfg Config, snap *discovery.Snapshot) error {
	s.control.Lock()
	defer s.control.Unlock()
	if s.closed {
		return errors.New("the gateway is stopping")
	}
	routes, err := compileRoutes(&cfg)
	allowing, authErr := s.auth.Prepare(cfg.Auth)
	if err = errors.Join(err, authErr, checkSources(&cfg)); err != nil {
		return err
	}
	opened, err := s.openMissing(cfg)
	if err != nil {
		return err
	}
	s.routes, s.allowing = routes, allowing
	s.auth.Adopt(allowing)
	s.upstream.SetSources(sourcesOf(&cfg))
	s.upstream.SetTLS(nodesTLS(&cfg))
	s.gate.limit(cfg.Limits.Handshakes)
	s.guard.follow(&cfg)
	var changes upstream.Changes
	if snap != nil {
		changes = s.take(*snap)
	}
	s.reconcile(&cfg, opened)
	s.react(changes)
	s.checks.follow(s, cfg.Services)
	return nil
}

// openMissing binds the addresses of the config that are not bound yet; all or
// none.
func (s *Server) openMissing(cfg Config) (map[string]*listener, error) {
	opened := map[string]*listener{}
	var errs []error
	for _, w := range configuredListeners(&cfg) {
		if s.listeners[w.key()] != nil {
			continue
		}
		l, err := openListener(s, w, cfg.Public, cfg.Limits)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		opened[w.key()] = l
	}
	if len(errs) > 0 {
		for _, l := range opened {
			l.socket.Close()
		}
		return nil, errors.Join(errs...)
	}
	return opened, nil
}

// reconcile makes the listeners those of the config and of the nodes that there
// are, and puts the config in force. A node's port that cannot be opened is
// noted and tried again.
func (s *Server) reconcile(cfg *Config, opened map[string]*listener) {
	list, faults := wantedListeners(cfg, s.view)
	keep := map[string]bool{}
	var fresh []*listener
	for _, w := range list {
		key := w.key()
		l := s.listeners[key]
		switch {
		case l != nil:
			l.reconfigure(w, cfg.Public, cfg.Limits)
		case opened[key] != nil:
			l = opened[key]
			fresh = append(fresh, l)
		default:
			err := s.claimed(w)
			if err == nil {
				l, err = openListener(s, w, cfg.Public, cfg.Limits)
			}
			if err != nil {
				faults = append(faults, PortFault{w.At, w.Name, w.Address, err.Error()})
				continue
			}
			s.log.Info().Str("listener", w.Name).Str("address", w.Address).Msg("port opened")
			fresh = append(fresh, l)
		}
		s.listeners[key] = l
		keep[key] = true
	}
	s.swap(cfg, keep)
	for _, l := range fresh {
		go l.serve() // ends, and is waited for, in shut
	}
	s.retireOthers(keep)
	s.noteFaults(faults)
	s.noteOwnAddresses()
}

// retireOthers closes the listeners that nobody wants any more.
func (s *Server) retireOthers(keep map[string]bool) {
	for key, l := range s.listeners {
		if !keep[key] {
			delete(s.listeners, key)
			l.Close() // at once: the next change may want its port again
			s.log.Info().Str("listener", l.settings.Load().Name).Str("address", l.Addr().String()).Msg("listener closed")
			s.retire(l)
		}
	}
}

// retire shuts a listener in the background; its requests have the time that
// the end of the whole server would give them.
func (s *Server) retire(l *listener) {
	if !s.tasks.enter() {
		return
	}
	deadline := s.state.Load().cfg.Shutdown.Deadline
	go func() {
		defer s.tasks.leave()
		ctx, cancel := context.WithTimeout(s.running, deadline)
		defer cancel()
		l.shut(ctx)
	}()
}

// Publish takes a snapshot of the nodes and puts it in force. It does not block
// for long.
func (s *Server) Publish(snap discovery.Snapshot) {
	s.control.Lock()
	defer s.control.Unlock()
	if s.closed {
		return
	}
	changes := s.take(snap)
	s.reconcile(s.state.Load().cfg, nil)
	s.react(changes)
}

// take makes the snapshot the server's view and says what changed.
func (s *Server) take(snap discovery.Snapshot) upstream.Changes {
	view, changes := s.upstream.Apply(snap)
	s.view = view
	for _, c := range []struct {
		what string
		keys []upstream.Key
	}{{"node added", changes.Added}, {"node removed", changes.Removed}, {"node moved", changes.Moved}} {
		for _, k := range c.keys {
			s.log.Info().Str("service", k.Service).Str("node", k.ID).Str("source", snap.Services[k.Service].Source).Msg(c.what)
		}
	}
	for _, c := range changes.Status {
		s.log.Info().Str("service", c.Service).Str("node", c.ID).Str("from", string(c.From)).Str("to", string(c.To)).Msg("node status")
	}
	return changes
}

// swap shows requests the config with the routes and view of the moment, and
// the listeners that are to stay.
func (s *Server) swap(cfg *Config, keep map[string]bool) {
	before := s.state.Load().table
	st := &state{cfg: cfg, table: newTable(cfg, s.routes, s.view, before), auth: s.allowing, own: s.ownSockets(keep), redact: redactorOf(cfg), certificateHeaders: certificateHeaders(cfg)}
	s.noteTags(before, st.table)
	s.loops.forget()
	for _, lc := range cfg.Listeners {
		if l := s.listeners[lc.key()]; l != nil && lc.TLS && lc.Service == "" {
			st.secure = append(st.secure, l.settings.Load())
		}
	}
	if len(st.secure) > 0 {
		st.securePort = st.secure[0].public.Port
	}
	s.state.Store(st)
}

// Ready tells why the gateway should not be sent clients: nothing when it should.
func (s *Server) Ready() (reasons []string) {
	if s.stopping.Err() != nil {
		return []string{"the gateway is stopping"}
	}
	st := s.state.Load()
	for _, svc := range st.cfg.Services {
		if st.table.view == nil || st.table.view.Services[svc.Name] == nil {
			reasons = append(reasons, fmt.Sprintf("nothing is known of the nodes of service %q%s", svc.Name, s.why(svc.Name)))
		}
	}
	if why := st.table.noTags(); why != "" {
		reasons = append(reasons, "nothing is known of routes that tags ask for: "+why)
	}
	if why := s.audit.refuses(); why != "" {
		reasons = append(reasons, "nothing new is served, as nothing can be noted: "+why)
	}
	return reasons
}

// why says, behind a colon, why nothing is known of a service, if its source can say.
func (s *Server) why(service string) string {
	if s.unknown == nil {
		return ""
	}
	if reason := s.unknown()[service]; reason != "" {
		return ": " + reason
	}
	return ""
}

// An Entry is one address that the server listens on.
type Entry struct {
	Name    string
	Address net.Addr
	TLS     bool
	Public  Public // how clients name it
	implied *impliedRoute
}

// Entries are the open listeners: those of the config in its order, then the
// nodes' own ports by name.
func (s *Server) Entries() []Entry {
	s.control.Lock()
	defer s.control.Unlock()
	list, _ := wantedListeners(s.state.Load().cfg, s.view)
	var entries []Entry
	for _, w := range list {
		if l := s.listeners[w.key()]; l != nil {
			set := l.settings.Load()
			entries = append(entries, Entry{Name: set.Name, Address: l.Addr(), TLS: set.TLS, Public: set.public, implied: set.implied})
		}
	}
	return entries
}

// Tunnels is how many tunnels live now.
func (s *Server) Tunnels() int { return s.tunnels.count() }

// Shutdown ends the server in order: it accepts nothing more and is no longer
// ready; after the config's grace tunnels are closed with 1001, paced; requests
// may finish; at the deadline, or when ctx ends, what is left is cut. When it
// returns, every goroutine of the server has ended.
func (s *Server) Shutdown(ctx context.Context) {
	s.stop()
	end := s.state.Load().cfg.Shutdown
	ctx, cancel := context.WithTimeout(ctx, max(end.Deadline, time.Millisecond))
	defer cancel()

	defer context.AfterFunc(ctx, func() { s.ended(errGatewayEnds) })()

	var closing sync.WaitGroup
	for _, l := range s.takeListeners() {
		closing.Go(func() { l.shut(ctx) })
	}
	s.drainTunnels(ctx, end)
	closing.Wait()
	s.tasks.close() // handshakes that were under way are tunnels now, and closing
	s.awaitTunnels(ctx)

	s.ended(errGatewayEnds)
	s.auth.Close()
	s.watcher.close()
	s.upstream.Close()
}

func (s *Server) takeListeners() map[string]*listener {
	s.control.Lock()
	defer s.control.Unlock()
	s.closed = true
	if s.retry != nil {
		s.retry.Stop()
	}
	s.drains.stop()
	s.checks.stop()
	s.guard.stop()
	list := s.listeners
	s.listeners = map[string]*listener{}
	return list
}

// drainTunnels gives tunnels their grace and then closes them, paced.
func (s *Server) drainTunnels(ctx context.Context, end Shutdown) {
	if n := s.tunnels.count(); n > 0 {
		s.log.Info().Int("tunnels", n).Dur("grace", end.Grace).Dur("drain", end.Drain).Msg("draining")
		grace, cancel := context.WithTimeout(ctx, end.Grace)
		defer cancel()
		s.relay.Wait(grace) // no longer than there are any
	}
	s.tunnels.drain(end.Drain, ctx.Done())
}

// awaitTunnels waits for the last tunnel, and cuts what is left when ctx ends.
func (s *Server) awaitTunnels(ctx context.Context) {
	if s.relay.Wait(ctx) != nil {
		s.log.Warn().Int("tunnels", s.tunnels.count()).Msg("tunnels cut at the deadline")
		s.tunnels.kill()
		s.relay.Wait(context.Background()) // a killed tunnel ends by itself
	}
	s.relay.Close()
}

// trusts tells whether an address is one of the trusted proxies.
func (st *state) trusts(a netip.Addr) bool {
	for _, p := range st.cfg.TrustedProxies {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// owned makes a hijack handler of f that the server waits for. A panic in it
// costs this connection.
func (s *Server) owned(c *clientConn, f func(net.Conn)) fasthttp.HijackHandler {
	return func(hijacked net.Conn) {
		if !s.tasks.enter() {
			c.Close()
			return
		}
		defer s.tasks.leave()
		defer func() {
			if v := recover(); v != nil {
				s.panics.Add(1)
				s.log.Error().Interface("panic", v).Bytes("stack", debug.Stack()).Msg("a panic ended a connection")
				c.Close()
			}
		}()
		f(hijacked)
	}
}

// tasks are the goroutines that others started for the server.
type tasks struct {
	mu     sync.Mutex
	closed bool
	group  sync.WaitGroup
}

// enter tells whether a task may begin; then it must leave.
func (t *tasks) enter() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.closed {
		t.group.Add(1)
	}
	return !t.closed
}

func (t *tasks) leave() { t.group.Done() }

// close lets no task begin any more and waits for those that have.
func (t *tasks) close() {
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	t.group.Wait()
}
