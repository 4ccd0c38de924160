package certs

import (
	"bytes"
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"golang.org/x/crypto/ocsp"
)

// What asking OCSP responders may take.
const (
	maxOCSPAnswer = 64 << 10
	maxAsked      = 4 // certificates at once
	maxResponders = 3 // of one certificate
	maxAskAgain   = time.Hour
	ocspSlack     = 5 * time.Minute // between the responder's clock and ours
	ocspLife      = time.Hour       // of an answer that tells no end
)

// OCSP is what is known of a certificate's state with its issuer.
type OCSP struct {
	Responder string     `json:"responder,omitempty"` // "": the certificate names none, or none is asked
	Status    string     `json:"status,omitempty"`    // "good", "revoked", "unknown"; "": no answer yet
	Stapled   bool       `json:"stapled"`
	Until     *time.Time `json:"until,omitempty"` // when the answer ends
	Fault     string     `json:"fault,omitempty"` // of the last question
	Failures  uint64     `json:"failures"`
}

// An ocspState is what was learned, immutable.
type ocspState struct {
	status string
	staple []byte // nil: there is none that may be sent
	until  time.Time
	fault  string

	due   time.Time     // for the next question
	retry time.Duration // before the one after a further failure
}

func (e *entry) ocspInfo() OCSP {
	info := OCSP{Failures: e.counts.ocspFailures.Load()}
	if len(e.leaf().OCSPServer) > 0 {
		info.Responder = e.leaf().OCSPServer[0]
	}
	state := e.ocsp.Load()
	if state == nil {
		return info
	}
	info.Status, info.Fault, info.Stapled = state.status, state.fault, state.staple != nil
	if !state.until.IsZero() {
		info.Until = &state.until
	}
	return info
}

// issuer is who answers for the leaf; nil when it is not known.
func (e *entry) issuer(pool intermediates) *x509.Certificate {
	for _, c := range slices.Concat(e.chain[1:], pool.certs) {
		if isIssuerOf(e.leaf())(c) {
			return c
		}
	}
	return nil
}

// staple keeps the OCSP answers of all certificates fresh until ctx ends.
func (s *Store) staple(ctx context.Context, log Log) {
	// A responder is named by the certificate, so that redirects are not
	// followed: they would lead elsewhere.
	client := &http.Client{
		Transport:     &http.Transport{Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true, MaxResponseHeaderBytes: 16 << 10},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	for {
		next := s.askAll(ctx, client, log)
		timer := time.NewTimer(time.Until(next))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		case <-s.due:
			timer.Stop()
		}
	}
}

// askAll asks for every certificate whose time has come, and tells when the next
// one's does.
func (s *Store) askAll(ctx context.Context, client *http.Client, log Log) time.Time {
	set := s.current.Load()
	next := time.Now().Add(s.pace.askAtLeast)
	if set.cfg.NoStapling {
		return next
	}
	places := make(chan struct{}, maxAsked)
	var group sync.WaitGroup
	for _, e := range set.entries {
		issuer := e.issuer(set.pool)
		if len(e.leaf().OCSPServer) == 0 || issuer == nil {
			continue
		}
		state := cmp.Or(e.ocsp.Load(), &ocspState{})
		if time.Now().Before(state.due) {
			continue
		}
		group.Go(func() {
			places <- struct{}{}
			defer func() { <-places }()
			e.ask(ctx, client, s.pace, issuer, log)
		})
	}
	group.Wait()
	for _, e := range set.entries {
		if state := e.ocsp.Load(); state != nil && state.due.Before(next) {
			next = state.due
		}
	}
	return next
}

// ask asks for one certificate and puts its answer in force.
func (e *entry) ask(ctx context.Context, client *http.Client, pace pace, issuer *x509.Certificate, log Log) {
	before := cmp.Or(e.ocsp.Load(), &ocspState{})
	answer, err := fetch(ctx, client, pace.ask, e.leaf(), issuer)
	if ctx.Err() != nil {
		return
	}
	var state *ocspState
	if err != nil {
		e.counts.ocspFailures.Add(1)
		state = before.failed(err, pace)
		if before.fault == "" {
			log("warn", "an OCSP responder gives no answer that can be stapled", append(e.pairs(), "reason", state.fault)...)
		}
	} else {
		state = answered(answer, pace)
		if state.status == "revoked" && before.status != "revoked" {
			log("error", "a certificate is revoked: clients that ask refuse it; replace it", e.pairs()...)
		} else if before.fault != "" {
			log("info", "the OCSP responder answers again", e.pairs()...)
		}
	}
	e.ocsp.Store(state)
	if !bytes.Equal(state.staple, before.staple) {
		e.show(state.staple)
	}
}

// failed is what is left when a question failed: an answer goes on as long as it
// is good.
func (s *ocspState) failed(err error, pace pace) *ocspState {
	now := time.Now()
	next := *s
	next.fault = err.Error()
	next.retry = min(max(2*s.retry, pace.askAgain), max(maxAskAgain, pace.askAgain))
	next.due = now.Add(next.retry)
	if now.After(next.until) {
		next.status, next.staple, next.until = "", nil, time.Time{}
	} else if next.due.After(next.until) {
		next.due = next.until // to take it away
	}
	return &next
}

// answered is what an answer brings. Only a good one is stapled.
func answered(answer *ocsp.Response, pace pace) *ocspState {
	now := time.Now()
	state := &ocspState{until: answer.NextUpdate}
	if state.until.IsZero() {
		state.until = now.Add(ocspLife)
	}
	switch answer.Status {
	case ocsp.Good:
		state.status, state.staple = "good", answer.Raw
	case ocsp.Revoked:
		state.status = "revoked"
	default:
		state.status = "unknown"
	}
	wait := state.until.Sub(now) / 2
	if wait < pace.askAtMost {
		state.staple, wait = nil, pace.askAtMost
	}
	state.due = now.Add(min(wait, pace.askAtLeast))
	return state
}

// fetch asks the certificate's responders one after the other until one answers.
func fetch(ctx context.Context, client *http.Client, patience time.Duration, leaf, issuer *x509.Certificate) (*ocsp.Response, error) {
	question, err := ocsp.CreateRequest(leaf, issuer, nil)
	if err != nil {
		return nil, err
	}
	var failures []error
	for _, responder := range leaf.OCSPServer[:min(len(leaf.OCSPServer), maxResponders)] {
		raw, err := post(ctx, client, patience, responder, question)
		if err == nil {
			var answer *ocsp.Response
			if answer, err = checkAnswer(raw, leaf, issuer, time.Now()); err == nil {
				return answer, nil
			}
		}
		failures = append(failures, fmt.Errorf("%.200q: %w", responder, err))
	}
	return nil, errors.Join(failures...)
}

func post(ctx context.Context, client *http.Client, patience time.Duration, responder string, question []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, responder, bytes.NewReader(question))
	if err != nil || req.URL.Scheme != "http" && req.URL.Scheme != "https" {
		return nil, errors.New("its address is no http:// URL")
	}
	req.Header.Set("Content-Type", "application/ocsp-request")
	req.Header.Set("Accept", "application/ocsp-response")
	resp, err := client.Do(req)
	if err != nil {
		if wrapped, ok := errors.AsType[*url.Error](err); ok {
			err = wrapped.Err // the rest repeats the address
		}
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("it answered %s", resp.Status)
	}
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxOCSPAnswer+1))
	if err == nil && len(raw) > maxOCSPAnswer {
		err = fmt.Errorf("its answer is larger than %d bytes", maxOCSPAnswer)
	}
	return raw, err
}

// checkAnswer takes an answer only where clients would: about this certificate,
// by its issuer or whom the issuer entitled to answer, and of now.
func checkAnswer(raw []byte, leaf, issuer *x509.Certificate, now time.Time) (*ocsp.Response, error) {
	answer, err := ocsp.ParseResponseForCert(raw, leaf, issuer)
	if err != nil {
		return nil, fmt.Errorf("its answer is not usable (%w)", err)
	}
	if by := answer.Certificate; by != nil && !by.Equal(issuer) {
		switch {
		case !slices.Contains(by.ExtKeyUsage, x509.ExtKeyUsageOCSPSigning):
			return nil, errors.New("its answer is signed by a certificate that is not for signing OCSP answers")
		case now.After(by.NotAfter) || now.Before(by.NotBefore):
			return nil, errors.New("its answer is signed by a certificate that is not valid now")
		}
	}
	switch {
	case answer.ThisUpdate.After(now.Add(ocspSlack)):
		return nil, fmt.Errorf("its answer is of a time to come, %s", answer.ThisUpdate.UTC().Format(time.RFC3339))
	case !answer.NextUpdate.IsZero() && !now.Before(answer.NextUpdate):
		return nil, fmt.Errorf("its answer ended on %s", answer.NextUpdate.UTC().Format(time.RFC3339))
	}
	return answer, nil
}
