package discovery

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"
	"unicode"

	"github.com/hashicorp/consul/api"
)

// Bounds of what is read from outside.
const (
	maxAnswer = 64 << 20 // bytes of one answer of Consul's
	maxToken  = 4 << 10
)

// answerTime is how long Consul may take for an answer beyond the waiting it was
// asked for. Its servers wait 7 s for a leader.
const answerTime = 15 * time.Second

// consulClient asks one Consul agent. Its methods are safe for concurrent use.
type consulClient struct {
	api        *api.Client
	transport  *http.Transport
	shown      string // the address for messages, without user and password
	datacenter string
	stale      bool
	token      *token
}

func newConsulClient(cfg ConsulConfig) (*consulClient, error) {
	conf, transport, token, err := cfg.connection()
	if err != nil {
		return nil, err
	}
	consul, err := api.NewClient(conf)
	if err != nil {
		return nil, fmt.Errorf("discovery.consul: %w", err)
	}
	return &consulClient{
		api: consul, transport: transport, shown: withoutUser(conf.Address), datacenter: cfg.Datacenter, stale: cfg.Stale,
		token: token,
	}, nil
}

// connection is how to reach the Consul that the config, or else the environment,
// names.
func (cfg ConsulConfig) connection() (*api.Config, *http.Transport, *token, error) {
	conf := api.DefaultConfig()
	conf.Address = cmp.Or(cfg.Address, conf.Address)
	conf.Scheme = cmp.Or(cfg.Scheme, conf.Scheme)
	conf.TLSConfig.CAFile = cmp.Or(cfg.CAFile, conf.TLSConfig.CAFile)
	conf.TLSConfig.CertFile = cmp.Or(cfg.CertFile, conf.TLSConfig.CertFile)
	conf.TLSConfig.KeyFile = cmp.Or(cfg.KeyFile, conf.TLSConfig.KeyFile)
	conf.TLSConfig.Address = cmp.Or(cfg.ServerName, conf.TLSConfig.Address)
	file := cmp.Or(cfg.TokenFile, conf.TokenFile)
	conf.TokenFile = "" // it is read at every query
	transport := consulTransport()
	client, err := api.NewHttpClient(transport, conf.TLSConfig)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("discovery.consul: the certificates for Consul cannot be used: %w", err)
	}
	client.Transport = bounded{transport}
	conf.HttpClient = client
	return conf, transport, &token{file: file, fixed: conf.Token}, nil
}

// consulTransport notices a host that is gone within half a minute, also in the
// middle of a query that waits for news.
func consulTransport() *http.Transport {
	dialer := &net.Dialer{
		Timeout:         5 * time.Second,
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 3},
	}
	return &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         dialer.DialContext,
		TLSHandshakeTimeout: 10 * time.Second,
		MaxIdleConnsPerHost: 16,
		IdleConnTimeout:     90 * time.Second,
	}
}

// withoutUser leaves user and password out of an address.
func withoutUser(address string) string {
	if i := strings.LastIndex(address, "@"); i >= 0 {
		return address[i+1:]
	}
	return address
}

func (c *consulClient) close() { c.transport.CloseIdleConnections() }

// A query asks Consul for a list, at once or when there is news.
type query struct {
	index      uint64        // wait for news after it; 0: answer at once
	wait       time.Duration // how long
	consistent bool
}

// A listing is what queries ask for.
type listing func(*api.QueryOptions) ([]*api.ServiceEntry, *api.QueryMeta, error)

// instances lists one service's instances with their checks, whatever their state.
func (c *consulClient) instances(service string) listing {
	return func(opts *api.QueryOptions) ([]*api.ServiceEntry, *api.QueryMeta, error) {
		return c.api.Health().Service(service, "", false, opts)
	}
}

// ask asks once. It returns soon after the query's wait at the latest.
func (c *consulClient) ask(ctx context.Context, list listing, q query) (answer, error) {
	secret, err := c.token.read()
	if err != nil {
		return answer{}, err
	}
	limit := answerTime
	if q.index > 0 {
		limit += q.wait + q.wait/8 // Consul adds up to a sixteenth
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	// Asking for an order by distance keeps the agent from answering out of its
	// stream of events, as it otherwise does to queries that wait: such answers know
	// no leader and heed no `consistent`, count with another index, are empty while the
	// stream begins, and miss what happens after Consul's servers have lost their state.
	opts := &api.QueryOptions{
		Near:       "_agent",
		Datacenter: c.datacenter, Token: secret, WaitIndex: q.index, WaitTime: q.wait,
		RequireConsistent: q.consistent, AllowStale: c.stale && !q.consistent,
	}
	entries, meta, err := list(opts.WithContext(ctx))
	if err != nil {
		return answer{}, err
	}
	streamed := meta.QueryBackend == api.QueryBackendStreaming
	return answer{
		entries:    entries,
		index:      meta.LastIndex,
		leader:     meta.KnownLeader || streamed,
		filtered:   meta.ResultsFilteredByACLs,
		blind:      secret == "" && meta.DefaultACLPolicy == "deny",
		consistent: q.consistent && !streamed,
	}, nil
}

// explain says in one plain sentence why there is no answer about a service, or,
// with "", about which there are. The same cause gives the same sentence: it holds
// no port of ours and no count.
func (c *consulClient) explain(err error, service string) string {
	if status, ok := errors.AsType[api.StatusError](err); ok {
		return c.explainStatus(status, service)
	}
	var name *net.DNSError
	if tokenErr, ok := errors.AsType[*tokenError](err); ok {
		return tokenErr.Error()
	}
	text := oneLine(cause(err))
	switch {
	case errors.Is(err, context.DeadlineExceeded) || isTimeout(err):
		return fmt.Sprintf("Consul at %s does not answer in time", c.shown)
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Sprintf("Consul at %s refuses connections; is its agent running, and does it listen there?", c.shown)
	case errors.As(err, &name):
		return fmt.Sprintf("the host of Consul's address %s is not known to DNS", c.shown)
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Sprintf("Consul at %s ended the connection", c.shown)
	case strings.Contains(text, "server gave HTTP response to HTTPS client"):
		return fmt.Sprintf("Consul at %s speaks plain HTTP there; set scheme: http, or use its HTTPS port", c.shown)
	case strings.Contains(text, "tls: ") || strings.Contains(text, "x509: "):
		return fmt.Sprintf("TLS with Consul at %s fails: %s; compare ca, cert, key and server_name", c.shown, text)
	}
	return fmt.Sprintf("Consul at %s cannot be asked: %s", c.shown, text)
}

func (c *consulClient) explainStatus(status api.StatusError, service string) string {
	body := oneLine(status.Body)
	switch {
	case status.Code == http.StatusForbidden && service == "":
		return fmt.Sprintf("Consul refuses %s (403: %s); it needs service:read for the services with tags, and node:read", c.token, body)
	case status.Code == http.StatusForbidden:
		return fmt.Sprintf("Consul refuses %s (403: %s); it needs service:read for %s and node:read", c.token, body, quoted(service))
	case strings.Contains(body, "No path to datacenter"):
		return fmt.Sprintf("Consul knows no datacenter %s; check discovery.consul.datacenter, or its links to other datacenters", quoted(c.datacenter))
	case strings.Contains(body, "No cluster leader"):
		return "Consul's servers have no leader; they elect one when more than half of them run"
	case leaderNotReached(body):
		return fmt.Sprintf("Consul at %s does not reach its servers' leader: %s", c.shown, body)
	case status.Code == http.StatusBadRequest && strings.Contains(body, "HTTPS server"):
		return fmt.Sprintf("Consul at %s speaks HTTPS there; set scheme: https", c.shown)
	case status.Code == http.StatusTooManyRequests:
		return "Consul answers too many requests (429); its limits refuse the gateway's queries"
	}
	return fmt.Sprintf("Consul at %s answers %d: %s", c.shown, status.Code, body)
}

// leaderNotReached tells whether an agent says that it knows a leader, or at
// least servers, and does not get through to them.
func leaderNotReached(body string) bool {
	return strings.Contains(body, "No known Consul servers") || strings.Contains(body, "leader not found in server lookup") ||
		strings.Contains(body, "rpc error") && (strings.Contains(body, "failed to get conn") || strings.HasSuffix(body, "EOF") || strings.Contains(body, "i/o timeout"))
}

func isTimeout(err error) bool {
	timeout, ok := errors.AsType[net.Error](err)
	return ok && timeout.Timeout()
}

// cause is the text of an error without the address of the query and the ports of
// the connection, which differ every time.
func cause(err error) string {
	if e, ok := errors.AsType[*url.Error](err); ok {
		err = e.Err
	}
	if e, ok := errors.AsType[*net.OpError](err); ok {
		err = e.Err
	}
	return err.Error()
}

// oneLine is a text from outside for a sentence: short and without control characters.
func oneLine(s string) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, strings.TrimSpace(s))
	if len(s) > 200 {
		s = strings.ToValidUTF8(s[:200], "") + "…"
	}
	return s
}

// A token is read from its file whenever it is needed, so that it can be replaced.
type token struct {
	file  string
	fixed string // without a file: from the environment

	mu   sync.Mutex
	last string // read before
}

// String says where the token comes from.
func (t *token) String() string {
	switch {
	case t.file != "":
		return "the token in " + t.file
	case t.fixed != "":
		return "the token of CONSUL_HTTP_TOKEN"
	}
	return "callers without a token"
}

// A tokenError says why there is no token.
type tokenError struct{ problem string }

func (e *tokenError) Error() string { return e.problem }

// read gives the token, or "" when there is to be none.
func (t *token) read() (string, error) {
	if t.file == "" {
		return t.fixed, nil
	}
	secret, err := t.load()
	if err != nil {
		return "", err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.last = secret
	return secret, nil
}

func (t *token) load() (string, error) {
	f, err := os.Open(t.file)
	if err != nil {
		return "", &tokenError{"the token for Consul cannot be read: " + err.Error()}
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxToken+1))
	secret := strings.TrimSpace(string(text))
	switch {
	case err != nil:
		return "", &tokenError{"the token for Consul cannot be read: " + err.Error()}
	case secret == "":
		return "", &tokenError{fmt.Sprintf("the token file %s is empty; write the token into it", t.file)}
	case len(text) > maxToken || strings.ContainsFunc(secret, func(r rune) bool { return r <= ' ' || r >= 0x7f }):
		return "", &tokenError{fmt.Sprintf("the file %s holds no token: expected one word", t.file)}
	}
	return secret, nil
}

// changed tells whether the file holds another token than was read last.
func (t *token) changed() bool {
	if t.file == "" {
		return false
	}
	secret, err := t.load()
	t.mu.Lock()
	defer t.mu.Unlock()
	return err == nil && secret != t.last
}

// bounded limits the bodies of answers.
type bounded struct{ http.RoundTripper }

func (b bounded) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := b.RoundTripper.RoundTrip(req)
	if err == nil {
		resp.Body = &boundedBody{ReadCloser: resp.Body, left: maxAnswer}
	}
	return resp, err
}

type boundedBody struct {
	io.ReadCloser
	left int
}

func (b *boundedBody) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, fmt.Errorf("the answer is larger than %d MiB", maxAnswer>>20)
	}
	n, err := b.ReadCloser.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}
