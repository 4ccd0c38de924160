package cli

import (
	"context"
	"maps"
	"reflect"
	"slices"
	"sync"

	"github.com/rs/zerolog"

	"singlegate/discovery"
	"singlegate/internal/config"
)

// inFile is the source of services whose nodes the file alone names.
const inFile = "file"

// A feed runs the sources of nodes that a config asks for. A reload that changes
// only what the file says of nodes leaves the others running.
type feed struct {
	log     zerolog.Logger
	publish func(discovery.Snapshot)
	failed  discovery.Failures // queries to Consul

	asked   elsewhere // what runs
	written *written
	cancel  context.CancelFunc
	group   sync.WaitGroup

	order sync.Mutex // held while publishing; comes before mu, which is not

	mu     sync.Mutex
	last   discovery.Snapshot // as it was published
	told   bool               // known has told of last
	source discovery.Source   // what runs
}

// elsewhere is what a config says of sources other than the file itself.
type elsewhere struct {
	Consul         *discovery.ConsulConfig
	ConsulServices []discovery.ConsulService
	DNSServices    []discovery.DNSService
	Cache          string
}

// elsewhereOf leaves places in the file away: a line that moved changes nothing.
func elsewhereOf(file *config.File) elsewhere {
	e := elsewhere{file.Consul, slices.Clone(file.ConsulServices), slices.Clone(file.DNSServices), file.Cache}
	for i := range e.ConsulServices {
		e.ConsulServices[i].At = ""
	}
	for i := range e.DNSServices {
		e.DNSServices[i].At = ""
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

// known is what can be said of a config's services before its sources have
// spoken: what the file says, and what is known already of the others.
func (f *feed) known(file *config.File) discovery.Snapshot {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.told = true
	snap := discovery.Static{Services: file.Nodes}.Snapshot()
	for _, name := range elsewhereOf(file).names() {
		if svc, ok := f.last.Services[name]; ok {
			snap.Services[name] = svc
		}
	}
	return snap
}

// check tells what is wrong with the sources of a config, without asking them.
func checkSources(file *config.File) error {
	_, err := sourceOf(elsewhereOf(file), &written{}, nil, nil)
	return err
}

// follow makes the sources those of the config.
func (f *feed) follow(file *config.File) error {
	asked := elsewhereOf(file)
	if f.cancel != nil && reflect.DeepEqual(asked, f.asked) {
		f.written.set(file.Nodes)
		f.again()
		return nil
	}
	w := newWritten(file.Nodes)
	source, err := sourceOf(asked, w, logTo(f.log), &f.failed)
	if err != nil {
		return err
	}
	f.stop()
	var ctx context.Context
	ctx, f.cancel = context.WithCancel(context.Background())
	f.asked, f.written = asked, w
	f.mu.Lock()
	f.source = source
	f.mu.Unlock()
	f.group.Go(func() {
		if err := source.Run(ctx, f.take); err != nil && ctx.Err() == nil {
			f.log.Error().Err(err).Msg("the source of nodes ended; the last snapshot stays")
		}
	})
	return nil
}

// take passes a snapshot on. A service that the new sources do not know yet, or
// of which they know the file's half only, stays what it was.
func (f *feed) take(snap discovery.Snapshot) {
	f.order.Lock()
	defer f.order.Unlock()
	f.publish(f.complete(snap))
}

// complete notes a snapshot with what it lacks.
func (f *feed) complete(snap discovery.Snapshot) discovery.Snapshot {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := discovery.Snapshot{Services: map[string]discovery.Service{}}
	maps.Copy(all.Services, snap.Services)
	for _, name := range f.asked.names() {
		now, ok := all.Services[name]
		if was, known := f.last.Services[name]; known && (!ok || now.Source == inFile && was.Source != inFile) {
			all.Services[name] = was
		}
	}
	f.last, f.told = all, false
	return all
}

// again publishes what came after known was asked: what that told has been put
// in force over it, and a source says nothing twice.
func (f *feed) again() {
	f.order.Lock()
	defer f.order.Unlock()
	f.mu.Lock()
	last, told := f.last, f.told
	f.mu.Unlock()
	if !told {
		f.publish(last)
	}
}

// unknown says why nothing is known of services, by name.
func (f *feed) unknown() map[string]string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if e, ok := f.source.(discovery.Explainer); ok {
		return e.Unknown()
	}
	return nil
}

func (f *feed) stop() {
	if f.cancel != nil {
		f.cancel()
		f.group.Wait()
	}
}

// sourceOf makes one source of all: the file first, whose nodes win.
func sourceOf(asked elsewhere, w *written, log discovery.Log, failed *discovery.Failures) (discovery.Source, error) {
	var others []discovery.Source
	if len(asked.ConsulServices) > 0 {
		var cfg discovery.ConsulConfig
		if asked.Consul != nil {
			cfg = *asked.Consul
		}
		consul, err := discovery.NewConsul(cfg, asked.ConsulServices, log)
		if err != nil {
			return nil, err
		}
		consul.CountFailures(failed)
		others = append(others, consul)
	}
	if len(asked.DNSServices) > 0 {
		dns, err := discovery.NewDNS(asked.DNSServices, nil, log)
		if err != nil {
			return nil, err
		}
		others = append(others, dns)
	}
	if len(others) == 0 {
		return w, nil
	}
	source := discovery.Merge(others...)
	if asked.Cache != "" {
		source = discovery.WithCache(asked.Cache, source, asked.names(), log)
	}
	return discovery.Merge(w, source), nil
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

// written is the source of the nodes that the file names. A reload may name
// others.
type written struct {
	mu      sync.Mutex
	nodes   map[string][]discovery.Node
	changed chan struct{} // one slot: look again
}

func newWritten(nodes map[string][]discovery.Node) *written {
	return &written{nodes: nodes, changed: make(chan struct{}, 1)}
}

func (w *written) set(nodes map[string][]discovery.Node) {
	w.mu.Lock()
	w.nodes = nodes
	w.mu.Unlock()
	select {
	case w.changed <- struct{}{}:
	default:
	}
}

// Run implements discovery.Source.
func (w *written) Run(ctx context.Context, publish func(discovery.Snapshot)) error {
	for {
		w.mu.Lock()
		static := discovery.Static{Services: w.nodes}
		w.mu.Unlock()
		publish(static.Snapshot())
		select {
		case <-w.changed:
		case <-ctx.Done():
			return nil
		}
	}
}
