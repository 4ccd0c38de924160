package auth

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/rs/zerolog"
)

// A Set owns what goes on between requests. Its methods are safe for concurrent
// use; what one caller has prepared, the same one adopts before another prepares.
type Set struct {
	log   zerolog.Logger
	count func(name string, r Result)
	tasks tasks

	mu  sync.Mutex
	now sources // what runs, of the Authorities adopted last
}

// sources are what authorities have in common with those of another config, so
// that a reload keeps what is known: by everything that they were made of.
type sources struct {
	keySets    map[string]*keySet
	forwarders map[string]*forwarder
}

func newSources() sources {
	return sources{map[string]*keySet{}, map[string]*forwarder{}}
}

// New returns a Set that does nothing yet. The function count is called with
// each check's result, by any goroutine.
func New(log zerolog.Logger, count func(name string, r Result)) *Set {
	s := &Set{log: log, count: count, now: newSources()}
	s.tasks.running, s.tasks.cut = context.WithCancel(context.Background())
	return s
}

// Check tells what is wrong with configs, as Prepare does.
func Check(configs []Config) error {
	s := New(zerolog.Nop(), func(string, Result) {})
	defer s.Close()
	_, err := s.Prepare(configs)
	return err
}

// Prepare makes configs ready: it reads the files that they name, and takes over
// from the Authorities adopted last what is made of the same. The error joins
// everything that is wrong. Nothing begins before Adopt.
func (s *Set) Prepare(configs []Config) (*Authorities, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := &Authorities{count: s.count, byName: map[string]authority{}, keep: newSources()}
	var errs []error
	for i := range configs {
		by, err := s.prepare(&configs[i], a.keep)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: auth %q: %w", configs[i].At, configs[i].Name, err))
			continue
		}
		a.byName[configs[i].Name] = by
	}
	return a, errors.Join(errs...)
}

func (s *Set) prepare(c *Config, keep sources) (authority, error) {
	switch {
	case c.Forward != nil:
		return s.forwarder(c, keep)
	case c.JWT.KeyFile != "":
		keys, err := readKeys(c.JWT.KeyFile, c.JWT.Algorithms)
		return newVerifier(c.JWT, keys), err
	}
	known, err := s.keySet(c.JWT, keep)
	return newVerifier(c.JWT, known), err
}

func (s *Set) keySet(cfg *JWT, keep sources) (*keySet, error) {
	client, ca, err := newClient(cfg.CAFile)
	if err != nil {
		return nil, err
	}
	id := fmt.Sprintf("%q %q %q", cfg.JWKSURL, cfg.Algorithms, ca)
	for _, from := range []sources{keep, s.now} {
		if known := from.keySets[id]; known != nil {
			keep.keySets[id] = known
			return known, nil
		}
	}
	keep.keySets[id] = newKeySet(cfg, client, s.log)
	return keep.keySets[id], nil
}

func (s *Set) forwarder(c *Config, keep sources) (*forwarder, error) {
	client, ca, err := newClient(c.Forward.CAFile)
	if err != nil {
		return nil, err
	}
	id := fmt.Sprintf("%q %+v %q", c.Name, *c.Forward, ca)
	if known := s.now.forwarders[id]; known != nil {
		keep.forwarders[id] = known
		return known, nil
	}
	keep.forwarders[id], err = newForwarder(c.Forward, client, &s.tasks)
	return keep.forwarders[id], err
}

// newClient gives a transport, and the CA file it was made with.
func newClient(caFile string) (*http.Transport, []byte, error) {
	t := &http.Transport{
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:    fetchTimeout,
		IdleConnTimeout:        30 * time.Second,
		MaxResponseHeaderBytes: maxAnswer,
		DisableCompression:     true,
	}
	if caFile == "" {
		return t, nil, nil
	}
	pem, err := readBounded(caFile)
	if err != nil {
		return nil, nil, fmt.Errorf("ca: %w", err)
	}
	t.TLSClientConfig.RootCAs = x509.NewCertPool()
	if !t.TLSClientConfig.RootCAs.AppendCertsFromPEM(pem) {
		return nil, nil, fmt.Errorf("ca: %s holds no certificate in PEM", caFile)
	}
	return t, pem, nil
}

// Adopt puts Authorities of Prepare in force: what they need begins, and what
// only those before needed ends. Requests may still be checked by those before.
func (s *Set) Adopt(a *Authorities) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.now
	s.now = a.keep
	for id, k := range s.now.keySets {
		if before.keySets[id] == nil {
			k.start()
		}
	}
	s.end(before)
}

// end ends what is not needed now.
func (s *Set) end(before sources) {
	for id, k := range before.keySets {
		if s.now.keySets[id] == nil {
			k.end()
		}
	}
	for id, f := range before.forwarders {
		if s.now.forwarders[id] == nil {
			f.client.CloseIdleConnections() // and those in use 30 s after that
		}
	}
}

// Close ends everything and waits for it. Whoever is checked from then on finds
// nobody to ask.
func (s *Set) Close() {
	s.tasks.close()
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.now
	s.now = newSources()
	s.end(before)
}

// tasks are the questions that are open.
type tasks struct {
	running context.Context // ends when they must
	cut     context.CancelFunc

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

// close lets no task begin any more, cuts those that have, and waits for them.
func (t *tasks) close() {
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	t.cut()
	t.group.Wait()
}
