package gateway

import (
	"fmt"
	"net/netip"

	"github.com/rs/zerolog"
)

// A Headroom is how many tunnels this process and this machine allow.
type Headroom struct {
	Descriptors int // open files; 0: unknown
	Tunnels     int // by these, at two each; 0: unknown
	LocalPorts  int // for connections to one port of a node from one source address; 0: unknown
	asked       int // limits.descriptors when the process started
}

// Headroom is that of the process.
func (d *Descriptors) Headroom() Headroom {
	return Headroom{Descriptors: d.limit, Tunnels: d.Tunnels(), LocalPorts: localPorts(), asked: d.asked}
}

// Log writes one line of how many tunnels there is room for, and warns of each
// cap of the config that is above it.
func (h Headroom) Log(log zerolog.Logger, cfg Config) {
	e := log.Info().Int("descriptors", h.Descriptors).Int("tunnels_possible", h.Tunnels).Int("per_node_port", h.LocalPorts)
	for _, ref := range cfg.Services {
		if len(ref.SourceAddresses) > 0 {
			e.Int("per_node_port_of_"+ref.Name, h.perNodePort(ref.SourceAddresses))
		}
	}
	e.Msgf("room for %s tunnels by open files, two each, and from one source address for %s to one port of a node",
		known(h.Tunnels), known(h.LocalPorts))
	for _, w := range h.Warnings(cfg) {
		log.Warn().Msg(w)
	}
}

func known(n int) string {
	if n == 0 {
		return "an unknown number of"
	}
	return fmt.Sprintf("about %d", n)
}

// perNodePort is how many tunnels one port of a node can have from the sources;
// none are one that the system chooses. 0: unknown.
func (h Headroom) perNodePort(sources []netip.Addr) int {
	v4 := 0
	for _, a := range sources {
		if a.Is4() {
			v4++
		}
	}
	return h.LocalPorts * max(v4, len(sources)-v4, 1)
}

// Warnings tells which caps of the config are above what is possible, and what
// to do about it.
func (h Headroom) Warnings(cfg Config) []string {
	var list []string
	warn := func(format string, args ...any) { list = append(list, fmt.Sprintf(format, args...)) }
	if h.Descriptors > 0 && h.asked > h.Descriptors {
		warn("limits.descriptors is %d, but the system allows this process %d open files: raise the hard limit (LimitNOFILE, ulimit -Hn)", h.asked, h.Descriptors)
	}
	if h.tooFew(cfg.Limits.Tunnels) {
		warn("limits.tunnels is %d, but %d open files are enough for about %d: raise the hard limit (LimitNOFILE, ulimit -Hn), or lower the cap", cfg.Limits.Tunnels, h.Descriptors, h.Tunnels)
	}
	for _, ref := range cfg.Services {
		most := ref.TunnelsPerNode
		if h.tooFew(most) {
			warn("%s: tunnels_per_node of service %q is %d, but %d open files are enough for about %d tunnels in all: raise the hard limit (LimitNOFILE, ulimit -Hn), or lower the cap",
				ref.At, ref.Name, most, h.Descriptors, h.Tunnels)
		}
		if n := h.perNodePort(ref.SourceAddresses); n > 0 && most > n {
			warn("%s: tunnels_per_node of service %q is %d, but local ports are enough for about %d to one port of a node: give the service %d source_addresses of each family that its nodes have, or widen net.ipv4.ip_local_port_range",
				ref.At, ref.Name, most, n, (most+h.LocalPorts-1)/h.LocalPorts)
		}
	}
	return list
}

func (h Headroom) tooFew(most int) bool { return h.Tunnels > 0 && most > h.Tunnels }
