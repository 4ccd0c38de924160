package gateway

import "github.com/prometheus/client_golang/prometheus"

// A capsCollector tells of the caps that the config sets, and of what waits.
type capsCollector struct {
	server                    *Server
	tunnels, perNode, waiting *prometheus.Desc
}

func newCapsCollector(s *Server) *capsCollector {
	return &capsCollector{
		server:  s,
		tunnels: prometheus.NewDesc("singlegate_tunnels_limit", "How many tunnels there may be (limits.tunnels). Without that cap there is no such series.", nil, nil),
		perNode: prometheus.NewDesc("singlegate_tunnels_per_node_limit", "How many tunnels a node of the service may have (tunnels_per_node). Without that cap there is no such series.", []string{"service"}, nil),
		waiting: prometheus.NewDesc("singlegate_handshakes_waiting", "TLS handshakes that wait for a processor. Beyond limits.handshakes new ones are closed.", nil, nil),
	}
}

// Describe implements prometheus.Collector.
func (c *capsCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- c.tunnels
	ch <- c.perNode
	ch <- c.waiting
}

// Collect implements prometheus.Collector.
func (c *capsCollector) Collect(ch chan<- prometheus.Metric) {
	out := sink{ch}
	cfg := c.server.state.Load().cfg
	if cfg.Limits.Tunnels > 0 {
		out.gauge(c.tunnels, float64(cfg.Limits.Tunnels))
	}
	for _, ref := range cfg.Services {
		if ref.TunnelsPerNode > 0 {
			out.gauge(c.perNode, float64(ref.TunnelsPerNode), ref.Name)
		}
	}
	out.gauge(c.waiting, float64(c.server.gate.waiting.Load()))
}
