package discovery

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	defaultInterval = 30 * time.Second
	lookupTime      = 10 * time.Second
	maxRecords      = 1000
)

// A DNSService is one of our services whose nodes stand in DNS: the targets of
// SRV records, or the addresses of a name.
type DNSService struct {
	At   string // where it is written; begins errors about it
	Name string // ours

	// SRV is the name of SRV records (RFC 2782). A node is a target: its id is the
	// first label of the target, its address the target, its weight the record's, at
	// least 1. Priorities are not followed: every target is a node.
	SRV string

	// Host is a name with A and AAAA records, instead of SRV. A node is an address,
	// which is its id as well.
	Host string
	Port uint16 // of the nodes of Host

	Interval time.Duration // between two look-ups; 0: 30 s
}

// DNS is the Source of nodes that stand in DNS. A name that cannot be resolved,
// or resolves to nothing, keeps the nodes that are known.
type DNS struct {
	services []DNSService
	resolver *net.Resolver
	log      Log
	unknown  reasons
}

// NewDNS makes a source that is to be run once. The resolver may be nil for that
// of the system. Errors begin with a service's At.
func NewDNS(services []DNSService, resolver *net.Resolver, log Log) (*DNS, error) {
	var errs []error
	for _, s := range services {
		problem := ""
		switch {
		case s.Name == "" || (s.SRV == "") == (s.Host == ""):
			problem = "it needs a name, and either srv or a host with a port"
		case s.Host != "" && s.Port == 0:
			problem = "a host needs a port"
		case s.Interval < 0:
			problem = "its interval is negative"
		default:
			continue
		}
		errs = append(errs, fmt.Errorf("%s: service %s: %s", s.At, quoted(s.Name), problem))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return &DNS{services: slices.Clone(services), resolver: cmp.Or(resolver, net.DefaultResolver), log: log}, nil
}

// Unknown implements Explainer.
func (d *DNS) Unknown() map[string]string { return d.unknown.all() }

// resolution is what one look-up gave.
type resolution struct {
	service string
	nodes   []Node
	leftOut []LeftOut
	fault   string
}

// Run implements Source. A snapshot has the services that were resolved so far.
// Run returns nil.
func (d *DNS) Run(ctx context.Context, publish func(Snapshot)) error {
	ctx, cancel := context.WithCancel(ctx)
	var watches sync.WaitGroup
	defer watches.Wait()
	defer cancel()
	resolutions := make(chan resolution)
	unknown := map[string]string{}
	for _, s := range d.services {
		unknown[s.Name] = notResolved
		watches.Go(func() { d.watch(ctx, s, resolutions) })
	}
	d.unknown.set(maps.Clone(unknown))
	services := map[string]Service{}
	for {
		select {
		case <-ctx.Done():
			return nil
		case r := <-resolutions:
			before, known := services[r.service]
			d.logChange(r, before, cmp.Or(before.Fault, unknown[r.service]))
			now := Service{Nodes: r.nodes, LeftOut: r.leftOut, Source: "dns", Taken: time.Now()}
			switch {
			case r.fault != "" && !known:
				unknown[r.service] = r.fault
			case r.fault != "":
				now = before
				now.Fault = r.fault
				services[r.service] = now
			default:
				services[r.service] = now
				delete(unknown, r.service)
			}
			if d.unknown.set(maps.Clone(unknown)) || !reflect.DeepEqual(before, services[r.service]) {
				publish(Snapshot{Services: maps.Clone(services)})
			}
		}
	}
}

// notResolved is why a service is not known before the first look-up is over.
const notResolved = "DNS has not answered for it yet"

func (d *DNS) logChange(r resolution, before Service, fault string) {
	switch {
	case r.fault == fault, r.fault == "" && fault == notResolved:
	case r.fault == "":
		d.log.info("DNS answers again", "service", r.service)
	default:
		d.log.warn("DNS: what is known stays", "service", r.service, "fault", r.fault)
	}
	for _, l := range r.leftOut {
		if !slices.Contains(before.LeftOut, l) {
			d.log.warn("an instance cannot be a node", "service", r.service, "instance", l.Instance, "reason", l.Reason)
		}
	}
}

// watch looks a service up again and again, sooner after a failure.
func (d *DNS) watch(ctx context.Context, s DNSService, to chan<- resolution) {
	interval := cmp.Or(s.Interval, defaultInterval)
	retry := backoff{least: min(time.Second, interval), most: interval}
	for ctx.Err() == nil {
		r := d.resolve(ctx, s)
		if ctx.Err() != nil {
			return
		}
		select {
		case to <- r:
		case <-ctx.Done():
			return
		}
		if r.fault != "" {
			pause(ctx, retry.next(), nil)
			continue
		}
		retry.reset()
		pause(ctx, jittered(interval), nil)
	}
}

func (d *DNS) resolve(ctx context.Context, s DNSService) resolution {
	ctx, cancel := context.WithTimeout(ctx, lookupTime)
	defer cancel()
	r, name := resolution{service: s.Name}, s.SRV
	var err error
	if s.SRV != "" {
		r.nodes, r.leftOut, err = d.targets(ctx, s.SRV)
	} else {
		name = s.Host
		r.nodes, err = d.addresses(ctx, s)
	}
	switch {
	case err != nil:
		r.fault = dnsFault(name, err)
	case len(r.nodes) == 0:
		r.fault = fmt.Sprintf("DNS has no usable record for %s", quoted(name))
	}
	return r
}

// dnsFault is a sentence without the server's address and port.
func dnsFault(name string, err error) string {
	e, ok := errors.AsType[*net.DNSError](err)
	switch {
	case ok && e.IsNotFound:
		return fmt.Sprintf("DNS does not know %s", quoted(name))
	case ok && e.IsTimeout || errors.Is(err, context.DeadlineExceeded):
		return fmt.Sprintf("DNS does not answer in time for %s", quoted(name))
	case ok:
		return fmt.Sprintf("DNS cannot resolve %s: %s", quoted(name), oneLine(e.Err))
	}
	return fmt.Sprintf("DNS cannot resolve %s: %s", quoted(name), oneLine(cause(err)))
}

// targets are the nodes of SRV records, in the order of their names.
func (d *DNS) targets(ctx context.Context, name string) ([]Node, []LeftOut, error) {
	_, records, err := d.resolver.LookupSRV(ctx, "", "", name)
	if err != nil && len(records) == 0 {
		return nil, nil, err
	}
	slices.SortFunc(records, func(x, y *net.SRV) int {
		return cmp.Or(cmp.Compare(x.Target, y.Target), cmp.Compare(x.Port, y.Port))
	})
	var nodes []Node
	var leftOut []LeftOut
	taken := map[string]bool{}
	for _, r := range records[:min(len(records), maxRecords)] {
		target := strings.TrimSuffix(r.Target, ".")
		id, _, _ := strings.Cut(strings.ToLower(target), ".")
		problem := ""
		switch {
		case target == "" || !isHost(target) || r.Port == 0:
			problem = "the record has no host or no port"
		case taken[id]:
			problem = fmt.Sprintf("another record has the node id %s, the first label of its target; give targets other names", quoted(id))
		}
		if problem != "" {
			leftOut = append(leftOut, LeftOut{Instance: fmt.Sprintf("%s:%d", shortened(target), r.Port), Reason: problem})
			continue
		}
		taken[id] = true
		nodes = append(nodes, Node{
			ID: id, Address: target, Ports: map[string]uint16{"": r.Port},
			Weight: min(max(int(r.Weight), 1), maxWeight), Status: Passing, Origin: "dns",
		})
	}
	slices.SortFunc(nodes, func(x, y Node) int { return cmp.Compare(x.ID, y.ID) })
	return nodes, leftOut, nil
}

// addresses are the nodes of a name, by address.
func (d *DNS) addresses(ctx context.Context, s DNSService) ([]Node, error) {
	found, err := d.resolver.LookupNetIP(ctx, "ip", s.Host)
	if err != nil {
		return nil, err
	}
	ids := map[string]bool{}
	for _, a := range found[:min(len(found), maxRecords)] {
		ids[netip.Addr.Unmap(a).String()] = true
	}
	var nodes []Node
	for _, id := range slices.Sorted(maps.Keys(ids)) {
		nodes = append(nodes, Node{
			ID: id, Address: id, Ports: map[string]uint16{"": s.Port}, Weight: 1, Status: Passing, Origin: "dns",
		})
	}
	return nodes, nil
}
