package discovery

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"
)

// ConsulConfig says how Consul is reached. A field that is not set falls back to
// the environment that Consul's own tools use (CONSUL_HTTP_ADDR, CONSUL_HTTP_TOKEN,
// CONSUL_HTTP_TOKEN_FILE, CONSUL_HTTP_AUTH, CONSUL_HTTP_SSL, CONSUL_CACERT,
// CONSUL_CLIENT_CERT, CONSUL_CLIENT_KEY, CONSUL_TLS_SERVER_NAME …), and then to
// Consul's defaults.
type ConsulConfig struct {
	Address    string // host:port, or a URL; by default 127.0.0.1:8500
	Scheme     string // "http" or "https"
	Datacenter string // by default that of the agent
	TokenFile  string // holds the ACL token; read again at every query, so it may be replaced

	CAFile     string // certificates that Consul's must be signed by, in PEM
	CertFile   string // the gateway's own certificate for Consul, in PEM
	KeyFile    string
	ServerName string // which Consul's certificate must have, if not the host of Address

	Stale bool          // any server may answer, not the leader only; a lost leader is still a fault
	Wait  time.Duration // how long one query may wait for news, 1 s to 10 min; 0: a minute, for as long a deleted token may go unnoticed
}

// A ConsulService is one of our services whose nodes are instances of a service
// in Consul. Several may be of the same one.
type ConsulService struct {
	At      string // where it is written; begins errors about it
	Name    string // ours
	Service string // Consul's
	Tag     string // instances without this tag are not meant; "": all are

	// NodeID says what a node's id is: "id" (or "") the service id, "node" the
	// name of Consul's node, "meta.KEY" the value of that meta key, "tag.PREFIX"
	// what stands behind PREFIX in the tag that begins with it.
	NodeID string

	// Ports says where the ports come from, by name. None: one unnamed port, the
	// registered one.
	Ports map[string]PortFrom

	prefix string // of tags that ask for routes; "": none does
	tagged bool   // only instances with such a tag are meant
}

// PortFrom says where a port comes from; at most one field is set. The zero
// value is the port that the instance is registered with.
type PortFrom struct {
	Meta    string // the value of this meta key
	Number  uint16 // the same for every node
	Sibling string // the registered port of the instance of this Consul service that has the same node id and address
}

// Consul is the Source of nodes that are registered in Consul. What it believes
// of Consul's answers, and when, says the comment of belief in this package.
type Consul struct {
	client   *consulClient
	services []ConsulService
	log      Log
	timing   timing
	unknown  reasons
	prefix   string          // of tags, see FollowTags; "": they are not followed
	taken    map[string]bool // names that no tagged service gets
	failures *Failures       // nil: nobody counts them
}

// timing is how long the source waits for what.
type timing struct {
	patience
	wait       time.Duration // of a blocking query
	recheck    time.Duration // the same while a belief is unsure
	leastPause time.Duration // between attempts that fail
	mostPause  time.Duration
	together   time.Duration // how long the first snapshot waits for services that have not been answered for
}

func defaultTiming() timing {
	return timing{
		patience:   patience{confirm: 1500 * time.Millisecond, settle: 3 * time.Minute},
		wait:       time.Minute,
		recheck:    10 * time.Second,
		leastPause: 250 * time.Millisecond,
		mostPause:  15 * time.Second,
		together:   time.Second,
	}
}

// NewConsul makes a source that is to be run once. It reads the certificates but
// neither the token nor anything from Consul: that is Run's, which goes on until
// it succeeds. The errors begin with a service's At where one is wrong.
func NewConsul(cfg ConsulConfig, services []ConsulService, log Log) (*Consul, error) {
	var errs []error
	for _, s := range services {
		errs = append(errs, s.check())
	}
	t := defaultTiming()
	if cfg.Wait != 0 {
		t.wait = cfg.Wait
	}
	if t.wait < time.Second || t.wait > 10*time.Minute {
		errs = append(errs, fmt.Errorf("discovery.consul: wait is %v; Consul takes 1s to 10m", t.wait))
	}
	client, err := newConsulClient(cfg)
	if err = errors.Join(append(errs, err)...); err != nil {
		return nil, err
	}
	return &Consul{client: client, services: slices.Clone(services), log: log, timing: t}, nil
}

// check reports what is wrong with a service that was not made by package config.
func (s ConsulService) check() error {
	problem := ""
	switch kind, rest, _ := strings.Cut(s.NodeID, "."); {
	case s.Name == "" || s.Service == "":
		problem = "it needs a name and the name of a service in Consul"
	case strings.ContainsAny(s.Service, "/?#"):
		problem = fmt.Sprintf("Consul has no service with a name like %s", quoted(s.Service))
	case slices.Contains([]string{"", "id", "node"}, s.NodeID):
	case (kind == "meta" || kind == "tag") && rest != "":
	default:
		problem = fmt.Sprintf("node_id is %s; expected id, node, meta.KEY or tag.PREFIX", quoted(s.NodeID))
	}
	if problem == "" {
		return nil
	}
	return fmt.Errorf("%s: service %s: %s", s.At, quoted(s.Name), problem)
}

// watched are the names of the Consul services that matter, each once.
func (c *Consul) watched() []string {
	names := map[string]bool{}
	for _, s := range c.services {
		names[s.Service] = true
		for _, sibling := range s.siblings() {
			names[sibling] = true
		}
	}
	return slices.Sorted(maps.Keys(names))
}

// siblings are the Consul services that ports come from.
func (s ConsulService) siblings() []string {
	names := map[string]bool{}
	for _, from := range s.Ports {
		if from.Sibling != "" {
			names[from.Sibling] = true
		}
	}
	return slices.Sorted(maps.Keys(names))
}

// Unknown implements Explainer.
func (c *Consul) Unknown() map[string]string { return c.unknown.all() }

// Run implements Source. The first snapshot comes when Consul has answered, or
// failed to, for every service, and after a second at the latest; it may lack
// services, or be without any. A service that was in a snapshot stays in all
// later ones, unless only its tags named it and it has none left. An emptied or
// unreachable service keeps its nodes as the rules say, with Fault set and Taken
// standing still. Run returns nil.
func (c *Consul) Run(ctx context.Context, publish func(Snapshot)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer c.client.close()
	w := &watches{source: c, ctx: ctx, updates: make(chan update), lists: make(chan update), running: map[string]running{}}
	defer w.group.Wait()
	defer cancel()
	w.begin()
	k := &consulKnowledge{source: c, views: map[string]view{}, services: map[string]Service{}}
	k.catalog.followed = map[string]ConsulService{}
	k.noteUnknown()
	together := time.NewTimer(c.timing.together)
	defer together.Stop()
	for first := true; ; {
		changed := false
		select {
		case <-ctx.Done():
			return nil
		case <-together.C:
			first, changed = false, true
		case u := <-w.updates:
			changed = k.take(u)
		case u := <-w.lists:
			changed = k.found(u.view, w)
		}
		if first && k.heard(w) {
			first, changed = false, true
			together.Stop()
		}
		if changed && !first {
			publish(k.snapshot())
		}
	}
}

// consulKnowledge is all that the watches have said; it belongs to Run.
type consulKnowledge struct {
	source   *Consul
	views    map[string]view    // by Consul's names
	services map[string]Service // by ours
	catalog  catalog
	lacks    string // partial, as of late
}

// heard tells whether every watch has said something.
func (k *consulKnowledge) heard(w *watches) bool {
	for name := range w.running {
		if _, ok := k.views[name]; !ok && name != "" {
			return false
		}
	}
	return k.source.prefix == "" || k.catalog.answered
}

func (k *consulKnowledge) snapshot() Snapshot {
	return Snapshot{Services: maps.Clone(k.services), Partial: k.lacks}
}

// take notes what a watch says and tells whether that changes what is known, or
// why something is not.
func (k *consulKnowledge) take(u update) bool {
	k.logFault(u.name, k.views[u.name].fault, u.view.fault)
	k.views[u.name] = u.view
	changed := false
	if u.name == "" && u.failure != "" {
		k.source.failures.count("", u.failure) // of the list of services
	}
	for _, s := range k.all() {
		if s.Service != u.name && !slices.Contains(s.siblings(), u.name) {
			continue
		}
		if u.failure != "" {
			k.source.failures.count(s.Name, u.failure)
		}
		changed = k.refresh(s) || changed
	}
	return k.noteUnknown() || changed
}

// all are the services of the config and those that only their tags name.
func (k *consulKnowledge) all() []ConsulService {
	return slices.AppendSeq(slices.Clone(k.source.services), maps.Values(k.catalog.followed))
}

// refresh makes what is known of one of our services what the views say, and
// tells whether that is something new.
func (k *consulKnowledge) refresh(s ConsulService) bool {
	service, ok := k.service(s)
	if !ok || reflect.DeepEqual(service, k.services[s.Name]) {
		return false
	}
	k.logLeftOut(s.Name, service.LeftOut)
	k.services[s.Name] = service
	return true
}

// service is what is known of one of our services, once all that it is made of
// is known.
func (k *consulKnowledge) service(s ConsulService) (Service, bool) {
	own := k.views[s.Service]
	out := Service{Source: "consul", Taken: own.taken, Fault: own.fault, Tagged: s.tagged}
	if s.tagged {
		out.Fault = cmp.Or(out.Fault, k.catalog.view.fault)
	}
	known := own.known
	siblings := map[string]instances{}
	for _, name := range s.siblings() {
		v := k.views[name]
		siblings[name] = v.instances
		known = known && v.known
		out.Fault = cmp.Or(out.Fault, v.fault)
		if v.taken.Before(out.Taken) {
			out.Taken = v.taken
		}
	}
	if known {
		out.Nodes, out.Routes, out.LeftOut = build(s, own.instances, siblings)
	}
	return out, known
}

// noteUnknown notes why some services are not known, or may be missing, and tells
// whether that is something new.
func (k *consulKnowledge) noteUnknown() bool {
	missing := map[string]string{}
	for _, s := range k.all() {
		if _, ok := k.services[s.Name]; ok {
			continue
		}
		why := k.views[s.Service].fault
		for _, name := range s.siblings() {
			why = cmp.Or(why, k.views[name].fault)
		}
		missing[s.Name] = cmp.Or(why, "Consul has not answered for it yet")
	}
	lacks := k.partial()
	changed := lacks != k.lacks
	k.lacks = lacks
	return k.source.unknown.set(missing) || changed
}

func (k *consulKnowledge) logFault(name, before, now string) {
	switch {
	case before == now:
	case now == "":
		k.source.log.info("Consul answers again", "consul_service", name)
	default:
		k.source.log.warn("Consul: what is known stays", "consul_service", name, "fault", now)
	}
}

// logLeftOut logs what was not left out before.
func (k *consulKnowledge) logLeftOut(service string, now []LeftOut) {
	for _, l := range now {
		if !slices.Contains(k.services[service].LeftOut, l) {
			k.source.log.warn("an instance cannot be a node, or a tag no route", "service", service, "instance", l.Instance, "reason", l.Reason)
		}
	}
}
