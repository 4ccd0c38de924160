package auth

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
)

// When keys are fetched.
const (
	fetchEvery   = 15 * time.Minute
	fetchTimeout = 10 * time.Second
	retryFirst   = time.Second // after a failure, and twice as long each time
	retryMost    = time.Minute
	fetchSeldom  = 10 * time.Second // between two fetches that tokens with an unknown key id bring about
)

// A keySet are the keys behind a URL: fetched in the background, and once more
// when a token has a key id that is not among them. Keys that were known stay
// when a fetch fails.
type keySet struct {
	url, ca    string
	algorithms []string
	client     *http.Transport
	log        zerolog.Logger
	seldom     time.Duration // fetchSeldom, but for tests

	current atomic.Pointer[[]key] // nil: none are known yet
	wake    chan struct{}         // somebody wants new ones
	stop    context.CancelFunc
	done    chan struct{} // closed when it has ended

	mu      sync.Mutex
	last    time.Time     // when the last fetch ended
	fetched chan struct{} // closed when the next one ends
}

func newKeySet(cfg *JWT, client *http.Transport, log zerolog.Logger) *keySet {
	return &keySet{
		url: cfg.JWKSURL, ca: cfg.CAFile, algorithms: cfg.Algorithms, client: client, seldom: fetchSeldom,
		log:  log.With().Str("jwks_url", cfg.JWKSURL).Logger(),
		wake: make(chan struct{}, 1), fetched: make(chan struct{}), done: make(chan struct{}),
	}
}

func (s *keySet) keys() []key {
	if keys := s.current.Load(); keys != nil {
		return *keys
	}
	return nil
}

// again asks for a fetch and waits for it, unless there was one just now.
func (s *keySet) again(ctx context.Context) bool {
	s.mu.Lock()
	fresh, fetched := time.Since(s.last) < s.seldom, s.fetched
	s.mu.Unlock()
	if fresh {
		return false
	}
	select {
	case s.wake <- struct{}{}:
	default:
	}
	timeout := time.NewTimer(fetchTimeout)
	defer timeout.Stop()
	select {
	case <-fetched:
		return true
	case <-timeout.C:
	case <-s.done:
	case <-ctx.Done():
	}
	return false
}

// start begins to fetch; end ends that and waits for it.
func (s *keySet) start() {
	ctx, cancel := context.WithCancel(context.Background())
	s.stop = cancel
	go s.run(ctx)
}

func (s *keySet) end() {
	s.stop()
	<-s.done
	s.client.CloseIdleConnections()
}

func (s *keySet) run(ctx context.Context) {
	defer close(s.done)
	retry, failed := retryFirst, false
	for ctx.Err() == nil {
		keys, err := s.fetch(ctx)
		wait := fetchEvery
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			if !failed {
				s.log.Warn().Err(err).Bool("older_keys_stay", s.keys() != nil).Msg("keys of tokens could not be fetched")
			}
			wait, retry = retry, min(2*retry, retryMost)
		default:
			if failed {
				s.log.Info().Int("keys", len(keys)).Msg("keys of tokens are fetched again")
			}
			s.current.Store(&keys)
			retry = retryFirst
		}
		failed = err != nil
		s.note()
		s.rest(ctx, wait)
	}
}

// note lets those go on who wait for a fetch.
func (s *keySet) note() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = time.Now()
	close(s.fetched)
	s.fetched = make(chan struct{})
}

// rest waits until the next fetch is due.
func (s *keySet) rest(ctx context.Context, wait time.Duration) {
	due := time.NewTimer(wait)
	defer due.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-due.C:
			return
		case <-s.wake:
			s.mu.Lock()
			since := time.Since(s.last)
			s.mu.Unlock()
			if since >= s.seldom {
				return
			}
		}
	}
}

// fetch gets the keys. A redirect is not followed: the config says where they are.
func (s *keySet) fetch(ctx context.Context) ([]key, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url, nil)
	if err != nil {
		return nil, errors.New("the URL is none")
	}
	req.Header.Set("Accept", "application/jwk-set+json, application/json")
	answer, err := s.client.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the answer is %d, not 200", answer.StatusCode)
	}
	data, err := io.ReadAll(io.LimitReader(answer.Body, maxKeyFile+1))
	switch {
	case err != nil:
		return nil, err
	case len(data) > maxKeyFile:
		return nil, fmt.Errorf("the answer is larger than %d bytes", maxKeyFile)
	}
	keys, err := parseSet(data, s.algorithms)
	if err != nil {
		return nil, fmt.Errorf("the answer %w", err)
	}
	return keys, nil
}
