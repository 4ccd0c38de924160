package auth

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

// What endpoints may take and answer.
const (
	maxAnswer  = 64 << 10 // bytes of a refusal's body that go to the client
	maxAnswers = 10_000   // that are remembered
	maxAsking  = 100      // connections to an endpoint; further questions wait for one
)

// Why an endpoint could not tell.
var (
	errSilent  = errors.New("the endpoint did not answer in time")
	errNoHTTP  = errors.New("the endpoint closed the connection or did not answer with HTTP")
	errNowhere = errors.New("the endpoint redirects without a Location")
	errEnding  = errors.New("the gateway is ending")
)

// A forwarder asks an endpoint. Requests with the same credentials share one
// question while it is open, and a good answer for a while.
type forwarder struct {
	cfg    *Forward
	url    *url.URL
	client *http.Transport
	tasks  *tasks
	salt   [16]byte // of the hashes below, which so tell nothing of credentials
	now    func() time.Time

	mu   sync.Mutex
	good *cache
	open map[credential]*question
}

// A credential is the hash of what stands in the places that the config names.
type credential [sha256.Size]byte

// A question is a subrequest on its way.
type question struct {
	done     chan struct{} // closed when the decision is there
	decision Decision
	cancel   context.CancelFunc
	shared   bool
	id       credential
	waiting  int // who waits for it, under forwarder.mu; nobody: it is given up
}

func newForwarder(cfg *Forward, client *http.Transport, t *tasks) (*forwarder, error) {
	u, err := url.Parse(cfg.URL)
	if err != nil {
		return nil, errors.New("url: it cannot be read")
	}
	client.MaxConnsPerHost, client.MaxIdleConnsPerHost = maxAsking, maxAsking/4
	f := &forwarder{
		cfg: cfg, url: u, client: client, tasks: t, now: time.Now,
		good: newCache(maxAnswers), open: map[credential]*question{},
	}
	rand.Read(f.salt[:]) // never fails
	return f, nil
}

func (f *forwarder) headers() []string { return f.cfg.PassHeaders }

func (f *forwarder) sources() []Source { return f.cfg.Credentials }

func (f *forwarder) waits() bool { return true }

func (f *forwarder) check(ctx context.Context, r *Request) Decision {
	id, found, shared := f.credential(r)
	q, d := f.ask(r, id, shared)
	if q != nil {
		select {
		case <-q.done:
			d = q.decision
		case <-ctx.Done():
			f.leave(q)
			return Decision{Result: Unavailable, Cause: context.Cause(ctx)}
		}
	}
	d.anonymous = !found && len(f.cfg.Credentials) > 0
	return d
}

// credential is what a request has for credentials, whether it has any, and
// whether each is there just once: otherwise it is asked about alone.
func (f *forwarder) credential(r *Request) (id credential, found, shared bool) {
	h := sha256.New()
	h.Write(f.salt[:])
	for i, s := range f.cfg.Credentials {
		values, err := s.find(r)
		if err != nil || len(values) > 1 {
			return id, true, false
		}
		for _, v := range values {
			found = true
			h.Write(binary.BigEndian.AppendUint64(nil, uint64(i)))
			h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(v))))
			io.WriteString(h, v)
		}
	}
	h.Sum(id[:0])
	return id, found, found
}

// ask gives the decision that is remembered, or else the question to wait for,
// which may be another request's.
func (f *forwarder) ask(r *Request, id credential, shared bool) (*question, Decision) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if shared {
		if d, ok := f.good.get(id, f.now()); ok {
			return nil, d
		}
		if q := f.open[id]; q != nil {
			q.waiting++
			return q, Decision{}
		}
	}
	if !f.tasks.enter() {
		return nil, Decision{Result: Unavailable, Cause: errEnding}
	}
	ctx, cancel := context.WithTimeoutCause(f.tasks.running, f.cfg.Timeout, errSilent)
	q := &question{done: make(chan struct{}), cancel: cancel, shared: shared, id: id, waiting: 1}
	if shared {
		f.open[id] = q
	}
	req := f.request(ctx, r)
	go f.answer(q, req) // waited for by the tasks
	return q, Decision{}
}

// leave gives up waiting, and the question with the last who waits.
func (f *forwarder) leave(q *question) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if q.waiting--; q.waiting == 0 {
		q.cancel()
		f.forget(q)
	}
}

// forget takes a question off those that can be shared. Under mu.
func (f *forwarder) forget(q *question) {
	if f.open[q.id] == q {
		delete(f.open, q.id)
	}
}

// answer gets the answer to a question.
func (f *forwarder) answer(q *question, req *http.Request) {
	defer f.tasks.leave()
	defer q.cancel()
	q.decision = f.decide(req)
	f.mu.Lock()
	f.forget(q)
	if q.shared && q.decision.Result == Passed && f.cfg.Cache > 0 {
		f.good.put(q.id, q.decision, f.now().Add(f.cfg.Cache))
	}
	f.mu.Unlock()
	close(q.done)
}

// request asks with GET and without a body; the headers tell of the original.
func (f *forwarder) request(ctx context.Context, r *Request) *http.Request {
	h := http.Header{"User-Agent": {""}} // or net/http would invent one
	for _, field := range r.Header() {
		if aboutBody(field.Name) {
			continue
		}
		name := http.CanonicalHeaderKey(field.Name)
		if name == "User-Agent" {
			h[name] = nil
		}
		h[name] = append(h[name], field.Value)
	}
	h["X-Forwarded-Method"], h["X-Forwarded-Uri"] = []string{r.Method}, []string{r.URI}
	return (&http.Request{Method: http.MethodGet, URL: f.url, Host: f.url.Host, Header: h}).WithContext(ctx)
}

// aboutBody: headers that speak of a body, or ask for a part or a state of
// something else than the answer that is wanted; and those of a handshake.
func aboutBody(name string) bool {
	switch name = strings.ToLower(name); name {
	case "range", "content-type", "content-encoding", "content-language", "content-md5", "content-range", "accept-encoding",
		"sec-websocket-key", "sec-websocket-version", "sec-websocket-extensions", "x-forwarded-method", "x-forwarded-uri":
		return true
	}
	return strings.HasPrefix(name, "if-")
}

// decide makes a decision of the endpoint's answer.
func (f *forwarder) decide(req *http.Request) Decision {
	answer, err := f.client.RoundTrip(req)
	if err != nil {
		return Decision{Result: Unavailable, Cause: f.causeOf(req.Context(), err)}
	}
	defer answer.Body.Close()
	code := answer.StatusCode
	switch {
	case code >= 200 && code <= 299:
		io.CopyN(io.Discard, answer.Body, maxAnswer) // so that the connection can be used again
		return Decision{Result: Passed, Fields: f.passed(answer.Header)}
	case code == http.StatusUnauthorized || code == http.StatusForbidden:
	case slices.Contains([]int{301, 302, 303, 307, 308}, code):
		if answer.Header.Get("Location") == "" {
			return Decision{Result: Unavailable, Cause: errNowhere}
		}
	default:
		return Decision{Result: Unavailable, Cause: fmt.Errorf("the endpoint answered with the status %d", code)}
	}
	refusal, err := refusalOf(answer)
	if err != nil {
		return Decision{Result: Unavailable, Cause: f.causeOf(req.Context(), err)}
	}
	return Decision{Result: Refused, Cause: fmt.Errorf("the endpoint answered with the status %d", code), Answer: refusal}
}

// passed are the headers of a good answer that go to the node.
func (f *forwarder) passed(h http.Header) (fields []Field) {
	for _, name := range f.cfg.PassHeaders {
		for _, v := range h.Values(name) {
			fields = append(fields, Field{name, plain(v)})
		}
	}
	return fields
}

// refusalOf is what the client gets of an answer. A body that is too long is
// left out.
func refusalOf(answer *http.Response) (*Answer, error) {
	body, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswer+1))
	if err != nil {
		return nil, err
	}
	a := &Answer{Status: answer.StatusCode}
	names := []string{"Location", "Set-Cookie", "WWW-Authenticate"}
	if len(body) > 0 && len(body) <= maxAnswer {
		a.Body = body
		names = append(names, "Content-Type", "Content-Language")
	}
	for _, name := range names {
		for _, v := range answer.Header.Values(name) {
			a.Fields = append(a.Fields, Field{name, plain(v)})
		}
	}
	return a, nil
}

// causeOf is an error without what it may quote of the endpoint's answer.
func (f *forwarder) causeOf(ctx context.Context, err error) error {
	var dial *net.OpError
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.As(err, &dial) && dial.Op == "dial":
		return fmt.Errorf("the endpoint cannot be reached: %w", err)
	}
	return errNoHTTP
}
