package cli

import (
	"github.com/prometheus/client_golang/prometheus"

	"singlegate/discovery"
)

// consulErrors are the queries to Consul that failed, for Prometheus: the gateway,
// whose other metrics these stand beside, knows nothing of Consul.
type consulErrors struct {
	failed *discovery.Failures
	errors *prometheus.Desc
}

func newConsulErrors(failed *discovery.Failures) *consulErrors {
	return &consulErrors{failed, prometheus.NewDesc("singlegate_consul_errors_total",
		"Queries to Consul that failed, for each service they were for: unreachable, refused (403, or a list that ACLs hide), no_leader, other. `singlegate nodes` gives the reason.",
		[]string{"service", "kind"}, nil)}
}

// Describe implements prometheus.Collector.
func (c *consulErrors) Describe(ch chan<- *prometheus.Desc) { ch <- c.errors }

// Collect implements prometheus.Collector.
func (c *consulErrors) Collect(ch chan<- prometheus.Metric) {
	for what, n := range c.failed.Counts() {
		ch <- prometheus.MustNewConstMetric(c.errors, prometheus.CounterValue, float64(n), what.Service, string(what.Kind))
	}
}
