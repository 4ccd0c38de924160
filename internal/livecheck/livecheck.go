// Package livecheck tries a gateway from the outside: for every route and node
// of a config it does what a client does, and behind the gateway it dials every
// node, to say in plain words what does not work, why, and what to do.
//
// A probe returns findings: a mark, a code and params. The tables of English
// and Chinese texts are the only places with words. Every probe is bounded by
// Options.Timeout, the whole check by Options.Total.
//
// The package may import config, gateway and discovery for their types. Only
// the command line imports it.
package livecheck

import (
	"cmp"
	"context"
	"crypto/x509"
	"fmt"
	"net"
	"strconv"
	"sync"
	"time"

	"singlegate/internal/config"
)

// Options say how a check is made. Every field may be left out.
type Options struct {
	Name string // the config file, as messages name it

	// Connect, HOST or HOST:PORT, is dialled in place of the public addresses;
	// names in TLS and Host headers stay. PORT is that of the listener that has
	// it, else of the first one with TLS; other listeners are dialled at HOST
	// and their own ports.
	Connect string

	Roots    *x509.CertPool // what clients trust; nil: the system's
	Consul   *Consul        // nil: the config has none
	Chinese  bool           // the language that the gateway is asked for reasons in
	Progress func(done, total int)

	Dialer  Dialer           // nil: a net.Dialer
	Timeout time.Duration    // of one probe; 0: 5 s
	Settle  time.Duration    // how long a TCP port has to stay open; 0: 500 ms
	Total   time.Duration    // of the whole check; 0: 2 min
	Now     func() time.Time // by which certificates are judged; nil: time.Now
}

// A Dialer opens connections; *net.Dialer is one.
type Dialer interface {
	DialContext(ctx context.Context, network, address string) (net.Conn, error)
}

func (o Options) withDefaults() Options {
	if o.Dialer == nil {
		o.Dialer = &net.Dialer{}
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	o.Timeout = cmp.Or(o.Timeout, 5*time.Second)
	o.Settle = cmp.Or(o.Settle, 500*time.Millisecond)
	o.Total = cmp.Or(o.Total, 2*time.Minute)
	return o
}

// Run checks the gateway that should be running with the config. The error is
// about the options only; what is wrong with the site is in the report.
func Run(ctx context.Context, file *config.File, o Options) (*Report, error) {
	return run(ctx, file, o, thisMachine())
}

func run(ctx context.Context, file *config.File, o Options, local machine) (*Report, error) {
	c := &checker{prober: prober{Options: o.withDefaults(), local: local}, file: file, cfg: &file.Gateway}
	if err := c.setConnect(o.Connect); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, c.Total)
	defer cancel()
	c.lookAround(ctx)
	c.plan()
	c.total = len(c.first) + len(c.second)
	c.work(ctx, c.first)
	for _, j := range c.second {
		if j.door != nil && !j.door.open {
			j.probe = nil
		}
	}
	c.work(ctx, c.second)
	return c.report(), nil
}

// setConnect reads HOST or HOST:PORT.
func (c *checker) setConnect(s string) error {
	if s == "" {
		return nil
	}
	host, portText, err := net.SplitHostPort(s)
	if err != nil {
		c.connect.host = s // a host alone
		if ip := net.ParseIP(s); ip == nil && addressErrorIsFatal(err) {
			return fmt.Errorf("--connect %q is neither HOST nor HOST:PORT: %w", s, err)
		}
		return nil
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil || port == 0 || host == "" {
		return fmt.Errorf("--connect %q is not HOST:PORT with a port from 1 to 65535", s)
	}
	c.connect.host, c.connect.port = host, uint16(port)
	return nil
}

func addressErrorIsFatal(err error) bool {
	addr, ok := err.(*net.AddrError)
	return !ok || addr.Err != "missing port in address"
}

// parallel is how many probes run at a time.
const parallel = 8

// A job is one probe and what it found.
type job struct {
	who, target string
	door        *door // nil: it goes through none
	behind      *behind
	probe       func(context.Context) []Finding
	findings    []Finding
}

// work runs jobs, a bounded number at a time. What the end of ctx leaves over
// is marked as not tried.
func (c *checker) work(ctx context.Context, jobs []*job) {
	queue := make(chan *job)
	var workers sync.WaitGroup
	for range min(parallel, len(jobs)) {
		workers.Go(func() {
			for j := range queue {
				c.do(ctx, j)
			}
		})
	}
	for _, j := range jobs {
		queue <- j
	}
	close(queue)
	workers.Wait()
}

func (c *checker) do(ctx context.Context, j *job) {
	switch {
	case j.probe == nil:
		j.findings = []Finding{skipped(doorClosed)}
	case ctx.Err() != nil:
		j.findings = []Finding{skipped(notTried)}
	default:
		one, cancel := context.WithTimeout(ctx, c.Timeout)
		j.findings = j.probe(one)
		cancel()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.done++
	if c.Progress != nil {
		c.Progress(c.done, c.total)
	}
}
