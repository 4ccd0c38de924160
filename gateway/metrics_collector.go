package gateway

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"singlegate/discovery"
	"singlegate/upstream"
)

// Health is a node's state in one word.
type Health string

// The states. Where several hold, the first of them counts.
const (
	HealthDraining    Health = "draining"    // by the operator: it gets no new tunnels
	HealthMaintenance Health = "maintenance" // by its source: likewise
	HealthFailing     Health = "failing"     // its source says so: balanced routes avoid it
	HealthEjected     Health = "ejected"     // requests found it unreachable: balanced routes avoid it for a while
	HealthPassing     Health = "passing"
)

func healths() []Health {
	return []Health{HealthDraining, HealthMaintenance, HealthFailing, HealthEjected, HealthPassing}
}

// Health sums up the node's Status, Draining and EjectedUntil.
func (n NodeStatus) Health() Health { return healthOf(n.Status, n.Draining, n.EjectedUntil) }

func healthOf(status discovery.Status, draining bool, ejected time.Time) Health {
	switch {
	case draining:
		return HealthDraining
	case status == discovery.Maintenance:
		return HealthMaintenance
	case status == discovery.Failing:
		return HealthFailing
	case !ejected.IsZero():
		return HealthEjected
	}
	return HealthPassing
}

// A metricsCollector looks up what there is when a Prometheus asks. A node that
// is gone and has no tunnels left is so in no series any more.
type metricsCollector struct {
	server *Server

	tunnels, tunnelsEnded, bytes, messages  *prometheus.Desc
	age, fault, nodes, leftOut, ports, busy *prometheus.Desc
}

func newMetricsCollector(s *Server) *metricsCollector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("singlegate_"+name, help, labels, nil)
	}
	return &metricsCollector{
		server:       s,
		tunnels:      desc("tunnels", "Tunnels (WebSockets and TCP connections) that live now.", "service", "node"),
		tunnelsEnded: desc("tunnels_total", "Tunnels that have ended, by who or what ended them: client, upstream, gateway, idle, lifetime, expired, stalled, panic.", "service", "node", "ended_by"),
		bytes:        desc("tunnel_bytes_total", "Bytes that tunnels passed on, counted as they pass. in: from clients. out: from the node.", "service", "node", "direction"),
		messages:     desc("tunnel_messages_total", "WebSocket messages that tunnels passed on, counted as they pass. in: from clients. out: from the node.", "service", "node", "direction"),
		age:          desc("snapshot_age_seconds", "How long ago the source of a service's nodes last confirmed them. Services of the config file alone have none: a file does not grow stale.", "service", "source"),
		fault:        desc("snapshot_fault", "1 while a service's nodes are not known freshly: its source is in trouble, or nothing is known yet.", "service"),
		nodes:        desc("nodes", "Nodes by health: passing, failing, maintenance, ejected, draining.", "service", "status"),
		leftOut:      desc("left_out", "Instances that are registered but cannot be nodes. `singlegate nodes` gives the reasons.", "service"),
		ports:        desc("port_faults", "Node ports that are wanted and not open. `singlegate nodes` gives the reasons."),
		busy:         desc("drains", "Drains under way."),
	}
}

// Describe implements prometheus.Collector.
func (c *metricsCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		c.tunnels, c.tunnelsEnded, c.bytes, c.messages, c.age, c.fault, c.nodes, c.leftOut, c.ports, c.busy,
	} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *metricsCollector) Collect(ch chan<- prometheus.Metric) {
	out := sink{ch}
	s := c.server
	st := s.state.Load()
	out.gauge(c.ports, float64(len(s.PortFaults())))
	out.gauge(c.busy, float64(len(s.Drains())))
	c.collectServices(out, st)
	c.collectTunnels(out, st)
	c.collectTraffic(out)
}

// collectServices tells of the services of the config and of the snapshot.
func (c *metricsCollector) collectServices(out sink, st *state) {
	names := map[string]bool{}
	for _, ref := range st.cfg.Services {
		names[ref.Name] = true
	}
	if st.table.view != nil {
		for name := range st.table.view.Services {
			names[name] = true
		}
	}
	for name := range names {
		svc := st.table.service(name)
		if svc == nil {
			out.gauge(c.fault, 1, name)
			continue
		}
		fault := 0.0
		if c.server.faultOf(svc) != "" {
			fault = 1
		}
		out.gauge(c.fault, fault, name)
		out.gauge(c.leftOut, float64(len(st.table.leftOutOf(svc))), name)
		if svc.Source != "file" && !svc.Taken.IsZero() {
			out.gauge(c.age, max(0, time.Since(svc.Taken).Seconds()), name, svc.Source)
		}
		count := map[Health]int{}
		for _, n := range svc.Nodes() {
			count[healthOf(n.Standing(), n.Draining(), n.Ejected())]++
		}
		for _, h := range healths() {
			out.gauge(c.nodes, float64(count[h]), name, string(h))
		}
	}
}

func (c *metricsCollector) collectTunnels(out sink, st *state) {
	live := c.server.tunnels.counts()
	if st.table.view != nil {
		for name, svc := range st.table.view.Services {
			for _, n := range svc.Nodes() {
				key := upstream.Key{Service: name, ID: n.ID}
				out.gauge(c.tunnels, float64(live[key]), name, n.ID)
				delete(live, key)
			}
		}
	}
	for key, n := range live { // of nodes that are gone
		out.gauge(c.tunnels, float64(n), key.Service, key.ID)
	}
}

func (c *metricsCollector) collectTraffic(out sink) {
	c.server.metrics.traffic.each(c.server.has, func(key upstream.Key, n *nodeTraffic) {
		for by, count := range n.ended {
			out.counter(c.tunnelsEnded, count, key.Service, key.ID, string(by))
		}
		t := n.passed()
		out.counter(c.bytes, t.BytesIn, key.Service, key.ID, "in")
		out.counter(c.bytes, t.BytesOut, key.Service, key.ID, "out")
		out.counter(c.messages, t.MessagesIn, key.Service, key.ID, "in")
		out.counter(c.messages, t.MessagesOut, key.Service, key.ID, "out")
	})
}

// A sink takes metrics with their labels.
type sink struct{ ch chan<- prometheus.Metric }

func (s sink) gauge(d *prometheus.Desc, v float64, labels ...string) {
	s.put(d, prometheus.GaugeValue, v, labels)
}

func (s sink) counter(d *prometheus.Desc, v int64, labels ...string) {
	s.put(d, prometheus.CounterValue, float64(v), labels)
}

func (s sink) put(d *prometheus.Desc, kind prometheus.ValueType, v float64, labels []string) {
	for i := range labels {
		labels[i] = labelValue(labels[i])
	}
	s.ch <- prometheus.MustNewConstMetric(d, kind, v, labels...)
}
