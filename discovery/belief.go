package discovery

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/consul/api"
)

// An answer is what Consul said to one query about one service.
type answer struct {
	entries    []*api.ServiceEntry
	index      uint64
	leader     bool // there was one
	filtered   bool // instances were left out that the token may not read
	blind      bool // no token while the default policy is deny: hidden instances look like none
	consistent bool // the leader made sure that it still is the leader
}

// patience says how long a belief takes to change.
type patience struct {
	confirm time.Duration // between the answer that a service is empty and the one that is believed
	settle  time.Duration // how long Consul may take to list everything again after a fault
}

// A belief is what is held true of one Consul service, whatever Consul says at
// the moment. It is pure: no clock, no connection.
//
// An answer with instances is believed at once. What must not be believed is
// that instances are gone when Consul has only forgotten or hidden them:
//
//   - A fault (no connection, no leader, a refused token) changes nothing.
//   - After a fault, or when the index has gone down, Consul may be coming back
//     without its state, and agents register theirs again one by one. Until every
//     instance is back, or for the time of settle, instances that are missing
//     are kept beside those that are listed. What is listed counts at once.
//   - An empty list is believed when its index is above that of the last list with
//     instances, and a consistent read of its own says the same after the time of
//     confirm. At a lower index Consul has lost its state: that the service
//     is empty is not believed before it was seen with instances again.
//   - A list that was cut down by access rules is believed when it has instances,
//     and the one before it was cut down as well or nothing was known. Without a
//     token under a default policy of deny an empty list means nothing.
type belief struct {
	patience
	instances
	catalog  bool // it is of the list of services with tags, which are its instances
	known    bool
	taken    time.Time // when Consul last confirmed all of it
	fault    string    // why taken stands still
	index    uint64    // of the last answer with instances
	filtered bool      // the last believed answer was cut down
	doubt    bool      // there was a fault since Consul last listed everything
	back     time.Time // when the first answer after the fault came
	lost     bool      // the list is empty at an index that went down
	empty    time.Time // of the first empty answer that is not believed yet
}

// failed notes that there is no answer, and why.
func (b *belief) failed(fault string) {
	b.fault, b.doubt, b.back, b.empty = fault, true, time.Time{}, time.Time{}
}

// answered takes an answer that came at the time now.
func (b *belief) answered(a answer, now time.Time) {
	switch {
	case !a.leader:
		b.failed("Consul's servers have no leader; what they answer may be old")
		return
	case len(a.entries) == 0 && a.blind:
		b.failed(fmt.Sprintf("Consul lists no %s, but it hides all from callers without a token; give the gateway one with token_file", b.one()))
		return
	case a.filtered && (len(a.entries) == 0 || b.known && !b.filtered):
		b.failed(b.rights())
		return
	case b.index > a.index && len(a.entries) > 0:
		b.doubt, b.back = true, now
	}
	if b.doubt && b.back.IsZero() {
		b.back = now
	}
	if len(a.entries) == 0 {
		b.nothing(a, now)
		return
	}
	b.something(a, now)
}

// something takes an answer with instances.
func (b *belief) something(a answer, now time.Time) {
	if b.lost {
		b.lost, b.back = false, now // the registrations come back from now on
	}
	kept := missing(b.instances, a.entries)
	b.doubt = b.doubt && len(kept) > 0 && now.Sub(b.back) < b.settle
	b.listed, b.kept = a.entries, nil
	b.known, b.index, b.filtered, b.empty = true, a.index, a.filtered, time.Time{}
	if b.doubt {
		b.kept = kept
		b.fault = keptBecause(kept, b.back.Add(b.settle))
		return
	}
	b.confirmed(now)
}

// nothing takes an empty answer.
func (b *belief) nothing(a answer, now time.Time) {
	had := len(b.listed) + len(b.kept)
	switch {
	case b.known && had == 0:
		b.confirmed(now)
		return
	case had > 0 && (b.lost || a.index < b.index):
		b.fault = fmt.Sprintf("Consul lost its state (its index was %d and went down) and lists no %s since; the %d known before are kept until it lists some",
			b.index, b.one(), had)
		b.lost, b.doubt, b.back, b.empty = true, true, now, time.Time{}
		return
	case had > 0 && a.index == b.index:
		b.fault = fmt.Sprintf("Consul lists no %s at the index (%d) at which it listed some, as after a restart without its state; the %d known before are kept", b.one(), a.index, had)
		b.doubt, b.back, b.empty = true, now, time.Time{}
		return
	case b.doubt && now.Sub(b.back) < b.settle:
		b.fault = fmt.Sprintf("Consul is back and lists no %s yet; this is believed at %s", b.one(), clock(b.back.Add(b.settle)))
		return
	case b.empty.IsZero():
		b.empty = now
		return
	case !a.consistent || now.Sub(b.empty) < b.confirm:
		return
	}
	b.instances, b.known, b.filtered, b.empty = instances{}, true, false, time.Time{}
	b.confirmed(now)
}

func (b *belief) confirmed(now time.Time) {
	b.taken, b.fault, b.doubt, b.back = now, "", false, time.Time{}
}

// one is what there are several of.
func (b *belief) one() string {
	if b.catalog {
		return "service with tags for routes"
	}
	return "instance"
}

// rights says what a token lacks that hides something.
func (b *belief) rights() string {
	if b.catalog {
		return "the token may not read every service, so tags may be hidden; give it service:read for all that have tags, and node:read"
	}
	return "the token may not read everything of the service; give it service:read for the service and node:read for its nodes"
}

// failing tells whether the last query gave nothing that could be believed or
// waited on: the next one comes after a pause and does not wait for news.
func (b *belief) failing() bool { return b.doubt && b.back.IsZero() }

// unsure tells whether the next answer may change what is believed though Consul
// has nothing new.
func (b *belief) unsure() bool { return b.doubt || !b.empty.IsZero() }

// missing are the instances of old that are not listed now.
func missing(old instances, listed []*api.ServiceEntry) []*api.ServiceEntry {
	now := make(map[string]bool, len(listed))
	for _, e := range listed {
		now[instanceKey(e)] = true
	}
	var gone []*api.ServiceEntry
	for _, e := range slices.Concat(old.listed, old.kept) {
		if !now[instanceKey(e)] {
			gone = append(gone, e)
		}
	}
	return gone
}

// instanceKey tells instances apart: a service id is unique within an agent.
func instanceKey(e *api.ServiceEntry) string {
	if e == nil || e.Node == nil || e.Service == nil {
		return ""
	}
	return e.Node.Node + "\x00" + e.Service.ID
}

// keptBecause says what is kept, by name as far as that is short.
func keptBecause(kept []*api.ServiceEntry, until time.Time) string {
	var names []string
	for _, e := range kept[:min(len(kept), 5)] {
		names = append(names, instanceName(e))
	}
	if more := len(kept) - len(names); more > 0 {
		names = append(names, fmt.Sprintf("and %d more", more))
	}
	return fmt.Sprintf("Consul came back without %s; kept until %s unless it lists them again", strings.Join(names, ", "), clock(until))
}

// clock is a time for a sentence.
func clock(t time.Time) string { return t.Format(time.RFC3339) }
