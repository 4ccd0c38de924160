package gateway

import (
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"singlegate/gateway/auth"
	"singlegate/gateway/relay"
	"singlegate/upstream"
)

// metrics count what happens. What there is at one moment (nodes, tunnels,
// drains) is looked up when somebody asks, see metricsCollector.
//
// No label is a client's to choose: routes and listeners are those of the
// config, with {node} for the node where there is a port for each, and every
// other value comes from a fixed set or from the nodes there are.
type metrics struct {
	registry     *prometheus.Registry
	requests     *counters[requestLabels]
	refused      *counters[string]
	handshakes   *counters[handshakeLabels]
	proxyHeaders *counters[handshakeLabels]
	violations   *counters[violation]
	limited      *counters[limitLabels]
	banned       prometheus.Counter
	auth         *counters[authLabels]
	traffic      *traffic
	bosh         *boshMetrics
}

// An origin is what a route or a listener is called: by its name, or, of a port
// that every node of a service has one of, by the service and the nodes' port.
type origin struct{ name, service, port string }

type requestLabels struct {
	route  origin
	status int // 0: none that HTTP has
}

type authLabels struct {
	auth   string
	result auth.Result
}

type handshakeLabels struct {
	listener origin
	cause    string
}

// Metrics are the server's metrics and those of the process, for Prometheus.
// Gathering takes a moment for each node and never waits for a client or a node.
func (s *Server) Metrics() prometheus.Gatherer { return s.metrics.registry }

func newMetrics(s *Server) *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		traffic:  newTraffic(),
		bosh:     newBOSHMetrics(),
		requests: newCounters(prometheus.CounterOpts{
			Name: "singlegate_requests_total",
			Help: "HTTP requests and WebSocket handshakes by route and the status the client got. 101: a WebSocket began. 499: the client left first. Route \"\": none matched.",
		}, []string{"route", "status"}, requestLabels.values),
		refused: newCounters(prometheus.CounterOpts{
			Name: "singlegate_refused_total",
			Help: "Requests and TCP connections that the gateway refused or could not serve, by the error in its answer.",
		}, []string{"error"}, func(code string) []string { return []string{code} }),
		handshakes: newCounters(prometheus.CounterOpts{
			Name: "singlegate_handshake_failures_total",
			Help: "TLS handshakes that failed: timeout, client_left, client_refused (often a certificate it does not trust), client_certificate (one that is not let in), not_tls, protocol, overloaded (limits.handshakes), no_certificate (it is still being got), panic.",
		}, []string{"listener", "cause"}, handshakeLabels.values),
		limited: newCounters(prometheus.CounterOpts{
			Name: "singlegate_limited_total",
			Help: "Connections and requests refused by a limit: connections_per_ip, handshakes_per_ip, tunnels_per_ip, tunnels_per_user, rate, bans; deny: the listener's allow and deny.",
		}, []string{"limit", "listener"}, limitLabels.values),
		banned: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "singlegate_bans_total",
			Help: "Addresses that were banned (limits.bans).",
		}),
		proxyHeaders: newCounters(prometheus.CounterOpts{
			Name: "singlegate_proxy_header_failures_total",
			Help: "Connections closed because of their PROXY header: untrusted, missing, malformed, too_long, timeout, client_left.",
		}, []string{"listener", "cause"}, handshakeLabels.values),
		violations: newCounters(prometheus.CounterOpts{
			Name: "singlegate_tunnel_violations_total",
			Help: "Tunnels ended because a client or a node broke a rule: size (max_message, max_frame), rate, protocol (strict), silent (ping).",
		}, []string{"service", "from", "rule"}, violation.values),
		auth: newCounters(prometheus.CounterOpts{
			Name: "singlegate_auth_total",
			Help: "Checks of who may pass, by their result: passed, missing, invalid, expired, refused (by the endpoint), unavailable.",
		}, []string{"auth", "result"}, authLabels.values),
	}
	m.registry.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		m.requests.vec, m.refused.vec, m.handshakes.vec, m.violations.vec, m.limited.vec, m.banned, m.proxyHeaders.vec, m.auth.vec,
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "singlegate_panics_total",
			Help: "Defects that ended a request, a connection or a tunnel. The log has their stacks.",
		}, func() float64 { return float64(s.panics.Load()) }),
		newMetricsCollector(s),
		newCapsCollector(s),
		newGuardCollector(s.guard),
		m.bosh,
	)
	return m
}

// count counts a request that was answered. A TCP connection is none.
func (rec *record) count(status int) {
	if rec.method == "" {
		return
	}
	labels := requestLabels{route: rec.origin, status: status}
	if status < 100 || status > 599 {
		labels.status = 0
	}
	rec.server.metrics.requests.inc(labels)
}

func (rec *record) countRefusal(p *problem) {
	rec.server.metrics.refused.inc(p.code)
	rec.count(p.status)
}

// countTunnel counts a tunnel that has ended.
func (rec *record) countTunnel(node string, report relay.Report) {
	if report.EndedBy == relay.EndPanic {
		rec.server.panics.Add(1)
	}
	if v := violationOf(rec.service, report); v.rule != "" {
		rec.server.metrics.violations.inc(v)
	}
	rec.server.metrics.traffic.ended(upstream.Key{Service: rec.service, ID: node}, report, rec.server.has)
}

func (l *listener) countHandshakeFailure(cause string) {
	set := l.settings.Load()
	l.server.metrics.handshakes.inc(handshakeLabels{set.origin(set.Name), cause})
}

// origin is the given name of the listener or of its route, unless it is a
// node's own: nodes come and go, and their ports count as one.
func (set *listenerSettings) origin(name string) origin {
	by := set.implied
	switch {
	case by == nil || by.node == "":
		return origin{name: name}
	case by.route.Port != "":
		return origin{service: by.route.Service, port: by.route.Port}
	case by.tcp:
		return origin{service: by.route.Service, port: "tcp"}
	}
	return origin{service: by.route.Service, port: "http"}
}

func (o origin) String() string {
	if o.service == "" {
		return o.name
	}
	return o.service + "/" + nodeVariable + " " + o.port
}

func (l requestLabels) values() []string {
	route := l.route.String()
	if l.route.service != "" {
		route = "port " + route
	}
	if l.status == 0 {
		return []string{route, "other"}
	}
	return []string{route, strconv.Itoa(l.status)}
}

func (l authLabels) values() []string { return []string{l.auth, string(l.result)} }

func (l handshakeLabels) values() []string { return []string{l.listener.String(), l.cause} }

// counters are the counters of one name by their labels. Finding one that has
// counted before takes one map lookup and allocates nothing. Safe for concurrent
// use.
type counters[K comparable] struct {
	vec    *prometheus.CounterVec
	values func(K) []string
	most   int // label sets; beyond them everything is counted under "other"

	mu    sync.Mutex
	known atomic.Pointer[map[K]prometheus.Counter] // swapped, never changed
}

// maxLabelSets bounds the counters of one name: many reloads may have brought
// many routes.
const maxLabelSets = 8192

func newCounters[K comparable](o prometheus.CounterOpts, labels []string, values func(K) []string) *counters[K] {
	c := &counters[K]{vec: prometheus.NewCounterVec(o, labels), values: values, most: maxLabelSets}
	c.known.Store(&map[K]prometheus.Counter{})
	return c
}

func (c *counters[K]) inc(labels K) {
	counter, ok := (*c.known.Load())[labels]
	if !ok {
		counter = c.add(labels)
	}
	counter.Inc()
}

func (c *counters[K]) add(labels K) prometheus.Counter {
	c.mu.Lock()
	defer c.mu.Unlock()
	known := *c.known.Load()
	if counter, ok := known[labels]; ok {
		return counter
	}
	values := c.values(labels)
	full := len(known) >= c.most
	for i := range values {
		values[i] = labelValue(values[i])
		if full {
			values[i] = "other"
		}
	}
	counter := c.vec.WithLabelValues(values...)
	if full {
		return counter
	}
	next := make(map[K]prometheus.Counter, len(known)+1)
	for k, v := range known {
		next[k] = v
	}
	next[labels] = counter
	c.known.Store(&next)
	return counter
}

// labelValue makes s one that Prometheus takes.
func labelValue(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }
