package discovery

import (
	"context"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/hashicorp/consul/api"
)

// A FailureKind is why a query to Consul gave nothing to go by.
type FailureKind string

// The kinds. Refused is a 403, or a list that access rules hide. NoLeader is
// said by an agent, of servers that have none or that it does not reach; an agent
// that does not answer is Unreachable. Other is
// the rest: TLS, an unknown datacenter, a token file that cannot be read.
const (
	Unreachable FailureKind = "unreachable"
	Refused     FailureKind = "refused"
	NoLeader    FailureKind = "no_leader"
	OtherFault  FailureKind = "other"
)

// FailureKinds are all kinds there are.
func FailureKinds() []FailureKind { return []FailureKind{Unreachable, Refused, NoLeader, OtherFault} }

// A Failure is what failed queries are counted by.
type Failure struct {
	Service string // ours
	Kind    FailureKind
}

// Failures counts the queries to Consul that failed, each for every service of
// ours that it was for. The zero value is ready. Its methods are safe for
// concurrent use, and a nil one counts nothing.
type Failures struct {
	mu sync.Mutex
	by map[Failure]int64
}

// Counts are how many queries failed, of every kind for every service that is
// in Consul now; 0 where none did.
func (f *Failures) Counts() map[Failure]int64 {
	if f == nil {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return maps.Clone(f.by)
}

// follow makes the services those that are counted; others are forgotten.
func (f *Failures) follow(services []string) {
	if f == nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	maps.DeleteFunc(f.by, func(x Failure, _ int64) bool { return !slices.Contains(services, x.Service) })
	if f.by == nil {
		f.by = map[Failure]int64{}
	}
	for _, name := range services {
		for _, kind := range FailureKinds() {
			f.by[Failure{name, kind}] += 0
		}
	}
}

func (f *Failures) count(service string, kind FailureKind) {
	if f == nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.by == nil {
		f.by = map[Failure]int64{}
	}
	f.by[Failure{service, kind}]++
}

// CountFailures has the source count the queries of its that fail. It is called
// before Run. Counts of services that this source has as well go on.
func (c *Consul) CountFailures(in *Failures) {
	var names []string
	for _, s := range c.services {
		names = append(names, s.Name)
	}
	in.follow(names)
	c.failures = in
}

// failureIn is what is wrong with an answer that belief takes for a fault; "":
// nothing is.
func (b *belief) failureIn(a answer) FailureKind {
	switch {
	case !b.failing():
		return ""
	case !a.leader:
		return NoLeader
	}
	return Refused
}

// failureOf sorts the errors that explain has sentences for.
func failureOf(err error) FailureKind {
	if status, ok := errors.AsType[api.StatusError](err); ok {
		switch {
		case status.Code == http.StatusForbidden:
			return Refused
		case strings.Contains(status.Body, "No cluster leader"), leaderNotReached(oneLine(status.Body)):
			return NoLeader
		}
		return OtherFault
	}
	var name *net.DNSError
	if errors.As(err, &name) || isTimeout(err) || errors.Is(err, context.DeadlineExceeded) {
		return Unreachable
	}
	for _, gone := range []error{
		syscall.ECONNREFUSED, syscall.ECONNRESET, syscall.EPIPE, syscall.EHOSTUNREACH, syscall.ENETUNREACH, io.EOF, io.ErrUnexpectedEOF,
	} {
		if errors.Is(err, gone) {
			return Unreachable
		}
	}
	return OtherFault
}
