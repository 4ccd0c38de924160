package gateway

import (
	"hash/maphash"
	"maps"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"singlegate/gateway/bosh"
)

// boshMetrics count what passes on BOSH routes. Sessions live in the nodes; those
// counted here are the ones whose requests pass by this gateway.
type boshMetrics struct {
	polls    *prometheus.GaugeVec
	held     *prometheus.HistogramVec
	ended    *prometheus.CounterVec
	sessions *prometheus.Desc

	mu    sync.Mutex
	seed  maphash.Seed
	live  map[boshSession]*sessionLife
	swept time.Time // when those that are over were last forgotten
}

// A boshSession is a session by the hash of its id, which is a secret.
type boshSession struct {
	service string
	id      uint64
}

type sessionLife struct {
	held  int           // its requests that are under way
	idle  time.Duration // how long its node keeps it without one
	until time.Time     // when that is over
}

// maxSessions bounds the sessions that are counted. Further ones are served alike.
const maxSessions = 1 << 17

// defaultInactivity is how long a session is taken to live without a request
// where its node has not said.
const defaultInactivity = 60 * time.Second

func newBOSHMetrics() *boshMetrics {
	return &boshMetrics{
		polls: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "singlegate_bosh_polls",
			Help: "BOSH requests that are held by nodes now.",
		}, []string{"service"}),
		held: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "singlegate_bosh_poll_seconds",
			Help:    "How long nodes took to answer BOSH requests. A short time is a message, a long one a poll that ended without.",
			Buckets: []float64{0.01, 0.1, 1, 10, 30, 60, 120, 300},
		}, []string{"service"}),
		ended: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "singlegate_bosh_terminations_total",
			Help: "BOSH sessions that were ended, by who ended them (client, node, gateway) and the condition given (XEP-0124 section 17.2; none: without).",
		}, []string{"service", "ended_by", "condition"}),
		sessions: prometheus.NewDesc("singlegate_bosh_sessions",
			"BOSH sessions that live now, of those whose requests pass by this gateway; at most "+strconv.Itoa(maxSessions)+" are counted.", []string{"service"}, nil),
		seed: maphash.MakeSeed(),
		live: map[boshSession]*sessionLife{},
	}
}

// Describe implements prometheus.Collector.
func (m *boshMetrics) Describe(ch chan<- *prometheus.Desc) {
	m.polls.Describe(ch)
	m.held.Describe(ch)
	m.ended.Describe(ch)
	ch <- m.sessions
}

// Collect implements prometheus.Collector.
func (m *boshMetrics) Collect(ch chan<- prometheus.Metric) {
	m.polls.Collect(ch)
	m.held.Collect(ch)
	m.ended.Collect(ch)
	for service, n := range m.countLive(time.Now()) {
		ch <- prometheus.MustNewConstMetric(m.sessions, prometheus.GaugeValue, float64(n), labelValue(service))
	}
}

// countLive counts the sessions by service and forgets those that are over.
func (m *boshMetrics) countLive(now time.Time) map[string]int {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sweep(now)
	count := map[string]int{}
	for key := range m.live {
		count[key.service]++
	}
	return count
}

func (m *boshMetrics) sweep(now time.Time) {
	m.swept = now
	maps.DeleteFunc(m.live, func(_ boshSession, s *sessionLife) bool { return s.held == 0 && now.After(s.until) })
}

// began counts a request on its way to a node, until the function it returns is
// called: then the node has answered or will not.
func (m *boshMetrics) began(b *poll) (over func()) {
	service := b.x.r.match.route.Service
	polls := m.polls.WithLabelValues(labelValue(service))
	polls.Inc()
	start := time.Now()
	if b.sid != "" {
		m.hold(m.key(service, b.sid))
	}
	return func() {
		polls.Dec()
		m.held.WithLabelValues(labelValue(service)).Observe(time.Since(start).Seconds())
		m.over(service, b)
	}
}

func (m *boshMetrics) key(service, sid string) boshSession {
	return boshSession{service, maphash.String(m.seed, sid)}
}

func (m *boshMetrics) hold(key boshSession) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if s := m.session(key); s != nil {
		s.held++
	}
}

// session finds or begins a session; nil: there are too many.
func (m *boshMetrics) session(key boshSession) *sessionLife {
	s := m.live[key]
	if now := time.Now(); s == nil && len(m.live) == maxSessions && now.Sub(m.swept) > time.Minute {
		m.sweep(now)
	}
	if s == nil && len(m.live) < maxSessions {
		s = &sessionLife{idle: defaultInactivity}
		m.live[key] = s
	}
	return s
}

// over notes what the answer to a request means for its session.
func (m *boshMetrics) over(service string, b *poll) {
	ended := b.tag.Ends() || b.said.Ends()
	if ended {
		m.terminated(service, b)
	}
	sid := b.sid
	if sid == "" {
		sid = b.said.SID
	}
	if sid == "" {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	key := m.key(service, sid)
	s := m.session(key)
	if s == nil {
		return
	}
	if b.sid != "" && s.held > 0 {
		s.held--
	}
	if idle, ok := inactivityOf(&b.said); ok {
		s.idle = idle
	}
	s.until = time.Now().Add(s.idle)
	if ended {
		delete(m.live, key)
	}
}

func (m *boshMetrics) terminated(service string, b *poll) {
	by, condition := "node", b.said.Condition
	if b.tag.Ends() {
		by = "client"
	}
	m.ended.WithLabelValues(labelValue(service), by, knownCondition(condition)).Inc()
}

// refused counts a session that the gateway has ended.
func (m *boshMetrics) refused(service string, p *problem) {
	if p.condition != "" {
		m.ended.WithLabelValues(labelValue(service), "gateway", p.condition).Inc()
	}
}

// inactivityOf is how long a session lives without a request, which a node says
// when it creates it (XEP-0124 section 7.2).
func inactivityOf(t *bosh.Tag) (idle time.Duration, ok bool) {
	n, err := strconv.Atoi(t.Inactivity)
	return time.Duration(n) * time.Second, err == nil && n > 0 && n < 1<<20
}

// knownCondition keeps what a node says from becoming a label of its choice.
func knownCondition(c string) string {
	switch c {
	case "":
		return "none"
	case "bad-request", "host-gone", "host-unknown", "improper-addressing", "internal-server-error", "item-not-found",
		"other-request", "policy-violation", "remote-connection-failed", "remote-stream-error", "see-other-uri",
		"system-shutdown", "undefined-condition":
		return c
	}
	return "other"
}
