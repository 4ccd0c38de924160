package gateway

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"singlegate/discovery"
	"singlegate/upstream"
)

// closeServiceRestart is the close code of a drain of a node: come back, to
// another connection.
const closeServiceRestart = 1012

// Why tunnels of a node are drained: what operators are told, and clients with a
// hint, see drainReason.
const (
	becauseMoved       = "node moved"
	becauseFailing     = "node failing"
	becauseRemoved     = "node removed"
	becauseMaintenance = "node in maintenance"
	becauseOperator    = "drained by the operator"
)

// drainReason is that of a drain's Close.
func drainReason(because string) string { return because + ", reconnect" }

// urgency orders the reasons by how many tunnels they concern, and how soon.
func urgency(because string) int {
	return slices.Index([]string{becauseMoved, becauseFailing, becauseRemoved, becauseMaintenance, becauseOperator}, because)
}

// drains are those under way, at most one for a node.
type drains struct {
	server *Server

	mu     sync.Mutex
	active map[upstream.Key]*drain
	closed bool
}

// A drain ends a node's tunnels, so many a second.
type drain struct {
	key       upstream.Key
	because   string
	policy    Policy
	after     time.Duration // left alone first
	perSecond int
	spare     func(*tunnel) bool // which tunnels it does not concern; nil: it concerns all
	started   time.Time
	cancel    context.CancelFunc
	total     int // tunnels to close, known when closing begins; under drains.mu
	closedNow int // of them
}

// DrainStatus is how far a drain is.
type DrainStatus struct {
	Service   string        `json:"service"`
	Node      string        `json:"node"`
	Because   string        `json:"because"`
	Total     int           `json:"total"`
	Closed    int           `json:"closed"`
	Left      int           `json:"left"`
	PerSecond int           `json:"per_second"` // 0: all at once
	Begins    time.Duration `json:"-"`          // how long tunnels are left alone yet
	ETA       time.Duration `json:"-"`          // until the last Close is sent
}

// react does what the services' policies say about nodes that changed.
func (s *Server) react(c upstream.Changes) {
	for _, k := range c.Added {
		s.drains.cancel(k, becauseRemoved, becauseMoved, becauseFailing, becauseMaintenance)
		s.reactToStatus(upstream.StatusChange{Key: k, To: s.nodeNow(k).Status}) // its tunnels may have outlived its absence
	}
	for _, k := range c.Removed {
		p := s.policyOf(k.Service)
		s.drains.begin(&drain{key: k, because: becauseRemoved, policy: p.Deregistered, after: p.After, perSecond: p.PerSecond})
	}
	for _, k := range c.Moved {
		s.drains.cancel(k, becauseMoved) // it may be where those tunnels go again
		s.drainMoved(k)
	}
	for _, change := range c.Status {
		s.reactToStatus(change)
	}
}

func (s *Server) reactToStatus(c upstream.StatusChange) {
	p := s.policyOf(c.Service)
	switch cmp.Or(c.To, discovery.Passing) {
	case discovery.Passing:
		s.drains.cancel(c.Key, becauseFailing, becauseMaintenance)
	case discovery.Failing:
		s.drains.cancel(c.Key, becauseMaintenance)
		s.drains.begin(&drain{key: c.Key, because: becauseFailing, policy: p.Failing, perSecond: p.PerSecond})
	case discovery.Maintenance:
		s.drains.begin(&drain{key: c.Key, because: becauseMaintenance, policy: p.Maintenance, perSecond: p.PerSecond})
	}
	if !s.drains.underWay(c.Key) {
		s.drainMoved(c.Key) // the drain that is over now stood in for it
	}
}

// drainMoved does what the policy says about tunnels to where the node was
// before, if there are any.
func (s *Server) drainMoved(k upstream.Key) {
	node := s.nodeNow(k)
	if node == nil {
		return
	}
	p, spare := s.policyOf(k.Service), sparesMoved(node)
	if len(s.tunnels.of(k, spare)) > 0 {
		s.drains.begin(&drain{key: k, because: becauseMoved, policy: p.AddressChange, perSecond: p.PerSecond, spare: spare})
	}
}

// sparesMoved: tunnels that go to where the node is now are not concerned by
// its move.
func sparesMoved(node *upstream.Node) func(*tunnel) bool {
	return func(t *tunnel) bool {
		addr, ok := node.Addr(t.port)
		return ok && addr == t.addr
	}
}

func (p Policy) ends() bool { return p == PolicyDrain || p == PolicyClose }

// nodeNow is the node in the snapshot in force; nil: it is not in it.
func (s *Server) nodeNow(k upstream.Key) *upstream.Node {
	svc := s.state.Load().table.service(k.Service)
	if svc == nil {
		return nil
	}
	return svc.Node(k.ID)
}

// policyOf is that of a service in the config in force.
func (s *Server) policyOf(service string) TunnelPolicy {
	for _, ref := range s.state.Load().cfg.Services {
		if ref.Name == service && ref.Tunnels != (TunnelPolicy{}) {
			return ref.Tunnels
		}
	}
	return DefaultTunnelPolicy()
}

// Why Drain and Undrain refuse.
var (
	ErrNoNode       = errors.New("there is no node")
	ErrSeveralNodes = errors.New("several services have a node")
)

// Drain marks a node so that it gets no new tunnels, and closes those it has at
// so many a second; 0: the service's own pace. The error is an ErrNoNode or an
// ErrSeveralNodes.
func (s *Server) Drain(service, node string, perSecond int) error {
	key, err := s.findNode(service, node)
	if err != nil {
		return err
	}
	if perSecond <= 0 {
		perSecond = s.policyOf(key.Service).PerSecond
	}
	s.upstream.Drain(key, true)
	s.log.Info().Str("service", key.Service).Str("node", key.ID).Int("per_second", perSecond).Msg("drain asked for by the operator")
	s.drains.begin(&drain{key: key, because: becauseOperator, policy: PolicyDrain, perSecond: perSecond})
	return nil
}

// Undrain lets a node have new tunnels again and ends the operator's drain of it.
func (s *Server) Undrain(service, node string) error {
	key, err := s.findNode(service, node)
	if err != nil {
		return err
	}
	s.upstream.Drain(key, false)
	s.drains.cancel(key, becauseOperator)
	if n := s.nodeNow(key); n != nil {
		s.reactToStatus(upstream.StatusChange{Key: key, To: n.Status}) // the operator's drain stood in for it
	}
	s.log.Info().Str("service", key.Service).Str("node", key.ID).Msg("drain ended by the operator")
	return nil
}

// findNode finds a node by id or name, in the service or, if that is "", in the
// only one that has it.
func (s *Server) findNode(service, node string) (upstream.Key, error) {
	var found []upstream.Key
	if view := s.state.Load().table.view; view != nil {
		for name, svc := range view.Services {
			if n := svc.Node(node); n != nil && (service == "" || service == name) {
				found = append(found, n.Key())
			}
		}
	}
	switch len(found) {
	case 0:
		return upstream.Key{}, fmt.Errorf("%w %q", ErrNoNode, node)
	case 1:
		return found[0], nil
	}
	return upstream.Key{}, fmt.Errorf("%w %q: name the service as well", ErrSeveralNodes, node)
}

// begin starts a drain, in place of another one of the node that is not more urgent.
func (d *drains) begin(dr *drain) {
	if !dr.policy.ends() {
		return
	}
	if dr.policy == PolicyClose {
		dr.perSecond, dr.after = 0, 0
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed || !d.server.tasks.enter() {
		return
	}
	if old := d.active[dr.key]; old != nil {
		if urgency(old.because) > urgency(dr.because) {
			d.server.tasks.leave()
			return
		}
		old.cancel()
	}
	var ctx context.Context
	ctx, dr.cancel = context.WithCancel(d.server.running)
	dr.started = time.Now()
	d.active[dr.key] = dr
	go func() {
		defer d.server.tasks.leave()
		defer dr.cancel()
		d.run(ctx, dr)
		d.forget(dr)
	}()
}

// cancel ends a node's drain if it is under way for one of these reasons.
func (d *drains) cancel(key upstream.Key, reasons ...string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if dr := d.active[key]; dr != nil && slices.Contains(reasons, dr.because) {
		dr.cancel()
		delete(d.active, key)
	}
}

// underWay tells whether a node's tunnels are being drained.
func (d *drains) underWay(key upstream.Key) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.active[key] != nil
}

func (d *drains) forget(dr *drain) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.active[dr.key] == dr {
		delete(d.active, dr.key)
	}
}

// crossed tells whether a tunnel that has just begun is one that its node's
// drain would have closed, had it been there: its handshake crossed the drain's
// beginning, and may have taken longer than the whole drain. So the node counts
// as it was when it was picked, and as it is now.
func (s *Server) crossed(t *tunnel) (because string, concerned bool) {
	was, p := t.lease.Node, s.policyOf(t.lease.Node.Service)
	now := s.nodeNow(was.Key())
	switch {
	case now == nil:
		return becauseRemoved, p.Deregistered.ends() && s.drains.delayOver(t, p)
	case now.Draining():
		return becauseOperator, true
	case now.Status == discovery.Maintenance && p.Maintenance.ends():
		return becauseMaintenance, true
	case now.Status == discovery.Failing && was.Status != discovery.Failing && p.Failing.ends():
		return becauseFailing, true
	}
	addr, ok := now.Addr(t.port)
	return becauseMoved, p.AddressChange.ends() && (!ok || addr != t.addr)
}

// delayOver tells whether tunnels of a node that is gone are not left alone any
// more. While they are, the drain to come finds this one.
func (d *drains) delayOver(t *tunnel, p TunnelPolicy) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if dr := d.active[t.lease.Node.Key()]; dr != nil {
		return time.Since(dr.started) >= dr.after
	}
	// The node was still there when the request began.
	return p.Deregistered == PolicyClose || time.Since(t.record.start) >= p.After
}

// stop ends all drains: the gateway's own end takes over.
func (d *drains) stop() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	for _, dr := range d.active {
		dr.cancel()
	}
}

// run closes the tunnels that there are when it begins. Those that begin later
// are spared, as of a node that has moved, or closed at once, see crossed.
func (d *drains) run(ctx context.Context, dr *drain) {
	if !pause(ctx, dr.after) {
		return
	}
	s := d.server
	list := s.tunnels.of(dr.key, dr.spare)
	if len(list) == 0 {
		return
	}
	d.note(dr, len(list), 0)
	s.log.Info().Str("service", dr.key.Service).Str("node", dr.key.ID).Str("because", dr.because).Int("tunnels", len(list)).
		Int("per_second", dr.perSecond).Msg("drain begins")
	for i, t := range list {
		t.close(closeServiceRestart, drainReason(dr.because))
		d.note(dr, len(list), i+1)
		if !pause(ctx, dr.step()) {
			return
		}
	}
	s.log.Info().Str("service", dr.key.Service).Str("node", dr.key.ID).Int("tunnels", len(list)).
		Dur("took_ms", time.Since(dr.started)).Msg("drain done")
}

func (d *drains) note(dr *drain, total, closed int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	dr.total, dr.closedNow = total, closed
}

// step is the time to the next Close: jittered, so that clients do not come
// back in a rhythm.
func (dr *drain) step() time.Duration {
	if dr.perSecond <= 0 {
		return 0
	}
	even := time.Second / time.Duration(dr.perSecond)
	return even/2 + rand.N(max(even, 1))
}

// pause waits for d and tells whether ctx let it.
func pause(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// Drains are those under way that have something to close, in a stable order.
func (s *Server) Drains() []DrainStatus {
	d := &s.drains
	d.mu.Lock()
	defer d.mu.Unlock()
	list := make([]DrainStatus, 0, len(d.active))
	for key, dr := range d.active {
		st := DrainStatus{
			Service: key.Service, Node: key.ID, Because: dr.because, PerSecond: dr.perSecond,
			Total: dr.total, Closed: dr.closedNow, Left: s.tunnels.countOf(key),
			Begins: max(0, dr.after-time.Since(dr.started)),
		}
		if st.Left == 0 {
			continue
		}
		toClose := dr.total - dr.closedNow
		if dr.total == 0 {
			toClose = st.Left - s.tunnels.lingeringOf(key)
		}
		st.ETA = st.Begins
		if dr.perSecond > 0 {
			st.ETA += time.Duration(toClose) * time.Second / time.Duration(dr.perSecond)
		}
		list = append(list, st)
	}
	slices.SortFunc(list, func(a, b DrainStatus) int {
		return cmp.Or(cmp.Compare(a.Service, b.Service), cmp.Compare(a.Node, b.Node))
	})
	return list
}
