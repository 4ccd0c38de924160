package discovery

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
)

// A step is a fault or an answer, and what is believed after it.
type step struct {
	at    time.Duration
	fault string // instead of an answer

	index      uint64
	ids        string
	noLeader   bool
	filtered   bool
	blind      bool
	consistent bool

	want  string // ids believed; "?": nothing is known
	says  string // part of the fault; "": it is well
	aged  bool   // the belief was not confirmed by this step
	doubt bool   // asks again before long
}

func TestBelief(t *testing.T) {
	const refused = "refuses connections"
	tests := []struct {
		name  string
		steps []step
	}{
		{"nodes come and go", []step{
			{index: 5, ids: "a b", want: "a b"},
			{index: 6, ids: "b", want: "b"},
		}},
		{"a service without nodes is believed the second time", []step{
			{index: 5, want: "?", aged: true, doubt: true},
			{at: 2 * time.Second, index: 5, want: "?", aged: true, doubt: true},
			{at: 2 * time.Second, index: 5, consistent: true, want: ""},
			{at: 3 * time.Second, index: 9, want: ""},
			{at: 4 * time.Second, index: 10, ids: "a", want: "a"},
		}},
		{"the second answer comes too early", []step{
			{index: 5, want: "?", aged: true, doubt: true},
			{at: time.Millisecond, index: 5, consistent: true, want: "?", aged: true, doubt: true},
		}},
		{"emptied", []step{
			{index: 5, ids: "a", want: "a"},
			{index: 6, want: "a", aged: true, doubt: true},
			{at: 2 * time.Second, index: 6, consistent: true, want: ""},
		}},
		{"emptied for a moment", []step{
			{index: 5, ids: "a", want: "a"},
			{index: 6, want: "a", aged: true, doubt: true},
			{at: time.Second, index: 7, ids: "b", want: "b"},
			{at: 2 * time.Second, index: 8, consistent: true, want: "b", aged: true, doubt: true},
		}},
		{"a fault between the two answers", []step{
			{index: 5, ids: "a", want: "a"},
			{index: 6, want: "a", aged: true, doubt: true},
			{at: time.Second, fault: refused, want: "a", says: refused, aged: true, doubt: true},
			{at: 2 * time.Second, index: 6, consistent: true, want: "a", says: "lists no instance yet", aged: true, doubt: true},
		}},
		{"empty at the same index", []step{
			{index: 5, ids: "a", want: "a"},
			{index: 5, want: "a", says: "at which it listed some", aged: true, doubt: true},
			{at: time.Hour, index: 5, consistent: true, want: "a", says: "at which it listed some", aged: true, doubt: true},
		}},
		{"state lost is never believed empty", []step{
			{index: 42, ids: "a b", want: "a b"},
			{fault: refused, want: "a b", says: refused, aged: true, doubt: true},
			{at: time.Second, index: 6, want: "a b", says: "lost its state", aged: true, doubt: true},
			{at: time.Hour, index: 60, want: "a b", says: "lost its state", aged: true, doubt: true},
			{at: 2 * time.Hour, index: 61, consistent: true, want: "a b", says: "lost its state", aged: true, doubt: true},
			{at: 3 * time.Hour, index: 62, ids: "b", want: "b a", says: "without a on agent", aged: true, doubt: true},
			{at: 3*time.Hour + 2*time.Minute, index: 62, ids: "b", want: "b a", says: "without a on agent", aged: true, doubt: true},
			{at: 3*time.Hour + 4*time.Minute, index: 62, ids: "b", want: "b"},
			{at: 4 * time.Hour, index: 63, want: "b", aged: true, doubt: true},
			{at: 5 * time.Hour, index: 63, consistent: true, want: ""},
		}},
		{"back with everything", []step{
			{index: 42, ids: "a b", want: "a b"},
			{fault: refused, want: "a b", says: refused, aged: true, doubt: true},
			{index: 42, ids: "a b", want: "a b"},
			{index: 43, ids: "a", want: "a"},
		}},
		{"back one by one", []step{
			{index: 42, ids: "a b", want: "a b"},
			{index: 7, ids: "b", want: "b a", says: "came back without a on agent; kept until", aged: true, doubt: true},
			{index: 8, ids: "b c", want: "b c a", says: "without a on agent", aged: true, doubt: true},
			{index: 9, ids: "a b c", want: "a b c"},
		}},
		{"a second fault starts the time anew", []step{
			{index: 42, ids: "a b", want: "a b"},
			{fault: refused, want: "a b", says: refused, aged: true, doubt: true},
			{index: 42, ids: "a", want: "a b", says: "without b", aged: true, doubt: true},
			{at: 2 * time.Minute, fault: refused, want: "a b", says: refused, aged: true, doubt: true},
			{at: 4 * time.Minute, index: 42, ids: "a", want: "a b", says: "without b", aged: true, doubt: true},
			{at: 8 * time.Minute, index: 42, ids: "a", want: "a"},
		}},
		{"emptied during a fault", []step{
			{index: 42, ids: "a", want: "a"},
			{fault: refused, want: "a", says: refused, aged: true, doubt: true},
			{index: 50, want: "a", says: "this is believed at", aged: true, doubt: true},
			{at: 4 * time.Minute, index: 50, want: "a", says: "this is believed at", aged: true, doubt: true},
			{at: 5 * time.Minute, index: 50, consistent: true, want: ""},
		}},
		{"no leader", []step{
			{index: 5, ids: "a", want: "a"},
			{index: 9, ids: "b", noLeader: true, want: "a", says: "no leader", aged: true, doubt: true},
		}},
		{"hidden from callers without a token", []step{
			{index: 5, blind: true, want: "?", says: "without a token", aged: true, doubt: true},
			{at: time.Hour, index: 5, blind: true, consistent: true, want: "?", says: "without a token", aged: true, doubt: true},
			{index: 5, ids: "a", blind: true, want: "a"},
			{index: 6, blind: true, want: "a", says: "without a token", aged: true, doubt: true},
		}},
		{"cut down to nothing", []step{
			{index: 5, filtered: true, want: "?", says: "may not read", aged: true, doubt: true},
			{at: time.Hour, index: 6, filtered: true, consistent: true, want: "?", says: "may not read", aged: true, doubt: true},
		}},
		{"cut down from the beginning", []step{
			{index: 5, ids: "a b", filtered: true, want: "a b"},
			{index: 6, ids: "a", filtered: true, want: "a"},
			{index: 7, filtered: true, want: "a", says: "may not read", aged: true, doubt: true},
		}},
		{"cut down later", []step{
			{index: 5, ids: "a b", want: "a b"},
			{index: 6, ids: "a", filtered: true, want: "a b", says: "may not read", aged: true, doubt: true},
			{index: 6, ids: "a b c", want: "a b c"},
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			begin := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
			b := belief{patience: defaultTiming().patience}
			for i, s := range tt.steps {
				now := begin.Add(s.at + time.Duration(i))
				if s.fault != "" {
					b.failed(s.fault)
				} else {
					b.answered(s.answer(), now)
				}
				s.compare(t, i, &b, now)
			}
		})
	}
}

func (s step) answer() answer {
	a := answer{index: s.index, leader: !s.noLeader, filtered: s.filtered, blind: s.blind, consistent: s.consistent}
	for id := range strings.FieldsSeq(s.ids) {
		a.entries = append(a.entries, entry(id))
	}
	return a
}

func (s step) compare(t *testing.T, i int, b *belief, now time.Time) {
	t.Helper()
	got := "?"
	if b.known {
		var ids []string
		for _, e := range slices.Concat(b.listed, b.kept) {
			ids = append(ids, e.Service.ID)
		}
		got = strings.Join(ids, " ")
	}
	if got != s.want {
		t.Errorf("step %d: believed is %q, want %q", i, got, s.want)
	}
	if s.says == "" && b.fault != "" || !strings.Contains(b.fault, s.says) {
		t.Errorf("step %d: the fault is %q, want %q", i, b.fault, s.says)
	}
	if aged := !b.taken.Equal(now); aged != s.aged {
		t.Errorf("step %d: taken is %v at %v", i, b.taken, now)
	}
	if b.unsure() != s.doubt {
		t.Errorf("step %d: unsure is %v", i, b.unsure())
	}
}

// The fault names a few of many.
func TestKeptBecause(t *testing.T) {
	var kept []*api.ServiceEntry
	for _, id := range []string{"a", "b", "c", "d", "e", "f", "g"} {
		kept = append(kept, entry(id))
	}
	if got := keptBecause(kept, time.Time{}); !strings.Contains(got, "e on agent, and 2 more; kept") {
		t.Error(got)
	}
}

func TestNextIndex(t *testing.T) {
	for _, tt := range []struct{ asked, answered, want uint64 }{
		{0, 0, 1}, {0, 7, 7}, {7, 7, 7}, {7, 9, 9}, {42, 6, 0},
	} {
		if got := next(tt.asked, tt.answered); got != tt.want {
			t.Errorf("next(%d, %d) is %d", tt.asked, tt.answered, got)
		}
	}
}

func TestBackoffIsBounded(t *testing.T) {
	b := backoff{least: 250 * time.Millisecond, most: 15 * time.Second}
	for i, most := range []time.Duration{250, 500, 1000, 2000, 4000, 8000, 15000, 15000} {
		most *= time.Millisecond
		if d := b.next(); d > most || d < most/2-1 {
			t.Errorf("pause %d is %v, want %v to %v", i, d, most/2, most)
		}
	}
	b.failures = 1 << 40
	if d := b.next(); d > b.most {
		t.Errorf("pause is %v", d)
	}
	b.reset()
	if d := b.next(); d > b.least {
		t.Errorf("pause after a reset is %v", d)
	}
}

func TestPace(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	p := pace{step: time.Second, burst: 3}
	for i, want := range []time.Duration{0, 0, 0, time.Second, 2 * time.Second} {
		if d := p.wait(now); d != want {
			t.Errorf("run %d waits %v", i, d)
		}
	}
	if d := p.wait(now.Add(time.Hour)); d != 0 {
		t.Errorf("after an hour it waits %v", d)
	}
}
