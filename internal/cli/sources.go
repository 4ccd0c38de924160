package cli

import (
	"cmp"
	"context"
	"maps"
	"reflect"
	"slices"
	"sync"

	"github.com/rs/zerolog"

	"singlegate/discovery"
	"singlegate/internal/config"
)

// A feed runs the sources of nodes that a config asks for, and puts what they say
// in force together with the nodes that the file names. A reload that changes only
// what the file says of nodes leaves the sources running.
type feed struct {
	log     zerolog.Logger
	publish func(discovery.Snapshot)
	failed  discovery.Failures // queries to Consul

	asked  elsewhere // what runs
	cancel context.CancelFunc
	group  sync.WaitGroup

	order sync.Mutex   // held while something is put in force; comes before mu
	file  *config.File // in force, under order; nil: none yet

	mu     sync.Mutex
	others discovery.Snapshot // what sources have said, with what is kept of earlier ones
	prefix string             // of the tags that the last of them followed
	source discovery.Source   // what runs; nil: nothing
}

// elsewhere is what a config says of sources other than the file itself.
type elsewhere struct {
	Consul         *discovery.ConsulConfig
	ConsulServices []discovery.ConsulService
	DNSServices    []discovery.DNSService
	TagPrefix      string
	Taken          []string // names that services of tags do not get
	Cache          string
}

// elsewhereOf leaves places in the file away: a line that moved changes nothing.
func elsewhereOf(file *config.File) elsewhere {
	e := elsewhere{
		Consul: file.Consul, ConsulServices: slices.Clone(file.ConsulServices), DNSServices: slices.Clone(file.DNSServices),
		TagPrefix: file.TagPrefix, Cache: file.Cache,
	}
	for i := range e.ConsulServices {
		e.ConsulServices[i].At = ""
	}
	for i := range e.DNSServices {
		e.DNSServices[i].At = ""
	}
	if e.TagPrefix != "" {
		for _, s := range file.Gateway.Services {
			e.Taken = append(e.Taken, s.Name)
		}
	}
	return e
}

// names are the services that are not, or not only, in the file.
func (e elsewhere) names() []string {
	var names []string
	for _, s := range e.ConsulServices {
		names = append(names, s.Name)
	}
	for _, s := range e.DNSServices {
		names = append(names, s.Name)
	}
	return names
}

// apply puts a config in force together with what is known of its nodes: what it
// says itself, and what sources have said so far. No snapshot comes between.
func (f *feed) apply(file *config.File, put func(*discovery.Snapshot) error) error {
	f.order.Lock()
	defer f.order.Unlock()
	snap := f.known(file)
	if err := put(&snap); err != nil {
		return err
	}
	f.file = file
	return nil
}

// inForce is the config that the feed works with.
func (f *feed) inForce() *config.File {
	f.order.Lock()
	defer f.order.Unlock()
	return f.file
}

// known is what can be said of a config's services. One of which a source has
// said nothing yet is no more than partly known.
func (f *feed) known(file *config.File) discovery.Snapshot {
	f.mu.Lock()
	others, source, prefix := f.others, f.source, f.prefix
	f.mu.Unlock()
	asked := elsewhereOf(file)
	snap := discovery.Snapshot{Services: map[string]discovery.Service{}}
	if asked.TagPrefix != "" {
		if snap.Partial = others.Partial; prefix != asked.TagPrefix {
			snap.Partial = notAsked
		}
		for name, s := range others.Services {
			if s.Tagged && !slices.Contains(asked.Taken, name) {
				snap.Services[name] = s
			}
		}
	}
	names := asked.names()
	for _, name := range names {
		if s, ok := others.Services[name]; ok && !s.Tagged {
			snap.Services[name] = s
		}
	}
	all := discovery.Join(discovery.Static{Services: file.Nodes}.Snapshot(), snap)
	why := unknownOf(source)
	for _, name := range names {
		_, told := snap.Services[name]
		if s, ok := all.Services[name]; ok && !told {
			all.Services[name] = s.Half(cmp.Or(why[name], notAsked))
		}
	}
	return all
}

// notAsked is why a service is not known whose source has not begun.
const notAsked = "its source has not been asked yet"

// check tells what is wrong with the sources of a config, without asking them.
func checkSources(file *config.File) error {
	_, err := sourceOf(elsewhereOf(file), nil, nil)
	return err
}

// follow makes the sources those of the config.
func (f *feed) follow(file *config.File) error {
	asked := elsewhereOf(file)
	if reflect.DeepEqual(asked, f.asked) {
		return nil
	}
	source, err := sourceOf(asked, logTo(f.log), &f.failed)
	if err != nil {
		return err
	}
	f.stop()
	f.asked = asked
	f.mu.Lock()
	f.source = source
	f.mu.Unlock()
	if source == nil {
		return nil
	}
	var ctx context.Context
	ctx, f.cancel = context.WithCancel(context.Background())
	f.group.Go(func() {
		if err := source.Run(ctx, f.take); err != nil && ctx.Err() == nil {
			f.log.Error().Err(err).Msg("the source of nodes ended; the last snapshot stays")
		}
	})
	return nil
}

// take puts a snapshot of the sources in force.
func (f *feed) take(snap discovery.Snapshot) {
	f.order.Lock()
	defer f.order.Unlock()
	f.keep(snap)
	f.publish(f.known(f.file))
}

// keep notes a snapshot. A service that the sources do not know yet stays what an
// earlier one has said of it.
func (f *feed) keep(snap discovery.Snapshot) {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := discovery.Snapshot{Services: map[string]discovery.Service{}, Partial: snap.Partial}
	maps.Copy(all.Services, snap.Services)
	names := f.asked.names()
	for name, was := range f.others.Services {
		_, now := all.Services[name]
		if !now && (was.Tagged && snap.Partial != "" || !was.Tagged && slices.Contains(names, name)) {
			all.Services[name] = was
		}
	}
	f.others, f.prefix = all, f.asked.TagPrefix
}

// unknown says why nothing is known of services, by name.
func (f *feed) unknown() map[string]string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return unknownOf(f.source)
}

// unknownOf is what a source says of what it does not know.
func unknownOf(source discovery.Source) map[string]string {
	if e, ok := source.(discovery.Explainer); ok {
		return e.Unknown()
	}
	return nil
}

func (f *feed) stop() {
	if f.cancel != nil {
		f.cancel()
		f.group.Wait()
		f.cancel = nil
	}
}

// sourceOf makes one source of all but the file; nil: there are none.
func sourceOf(asked elsewhere, log discovery.Log, failed *discovery.Failures) (discovery.Source, error) {
	var all []discovery.Source
	if len(asked.ConsulServices) > 0 || asked.TagPrefix != "" {
		var cfg discovery.ConsulConfig
		if asked.Consul != nil {
			cfg = *asked.Consul
		}
		consul, err := discovery.NewConsul(cfg, asked.ConsulServices, log)
		if err != nil {
			return nil, err
		}
		consul.CountFailures(failed)
		if asked.TagPrefix != "" {
			consul.FollowTags(asked.TagPrefix, asked.Taken)
		}
		all = append(all, consul)
	}
	if len(asked.DNSServices) > 0 {
		dns, err := discovery.NewDNS(asked.DNSServices, nil, log)
		if err != nil {
			return nil, err
		}
		all = append(all, dns)
	}
	if len(all) == 0 {
		return nil, nil
	}
	source := discovery.Merge(all...)
	if asked.Cache != "" {
		source = discovery.WithCache(asked.Cache, source, asked.names(), log)
	}
	return source, nil
}

// logTo writes the events of sources into the log.
func logTo(log zerolog.Logger) discovery.Log {
	return func(level, message string, pairs ...any) {
		l, err := zerolog.ParseLevel(level)
		if err != nil {
			l = zerolog.InfoLevel
		}
		log.WithLevel(l).Fields(pairs).Msg(message)
	}
}
