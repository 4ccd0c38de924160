package gateway

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"singlegate/upstream"
)

// sourcesOf is from where the nodes of each service are connected to.
func sourcesOf(cfg *Config) map[string][]netip.Addr {
	sources := map[string][]netip.Addr{}
	for _, ref := range cfg.Services {
		if len(ref.SourceAddresses) > 0 {
			sources[ref.Name] = ref.SourceAddresses
		}
	}
	return sources
}

// nodesTLS is how the nodes of each service are spoken to that want TLS.
func nodesTLS(cfg *Config) map[string]upstream.TLS {
	list := map[string]upstream.TLS{}
	for _, ref := range cfg.Services {
		if ref.TLS != nil {
			list[ref.Name] = *ref.TLS
		}
	}
	return list
}

// checkSources tells which source addresses are not this machine's.
func checkSources(cfg *Config) error {
	var errs []error
	for _, ref := range cfg.Services {
		for _, a := range ref.SourceAddresses {
			if err := bindable(a); err != nil {
				errs = append(errs, fmt.Errorf("%s: service %q: source_addresses: %s cannot be used (%w); this machine has %s",
					ref.At, ref.Name, a, err, strings.Join(machineAddresses(a.Is4()), ", ")))
			}
		}
	}
	return errors.Join(errs...)
}

// bindable tells whether a connection may come from an address. Trying says
// more than the list of addresses: all of 127.0.0.0/8 may be used, for example.
func bindable(a netip.Addr) error {
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(a, 0)))
	if err != nil {
		var op *net.OpError
		if errors.As(err, &op) {
			err = op.Err
		}
		return err
	}
	return c.Close()
}

// machineAddresses are this machine's of one family that others can reach it by, or
// all if there are none.
func machineAddresses(v4 bool) []string {
	var outside, all []string
	addrs, _ := net.InterfaceAddrs()
	for _, a := range addrs {
		n, ok := a.(*net.IPNet)
		if !ok || (n.IP.To4() != nil) != v4 {
			continue
		}
		all = append(all, n.IP.String())
		if n.IP.IsGlobalUnicast() {
			outside = append(outside, n.IP.String())
		}
	}
	switch {
	case len(outside) > 0:
		all = outside
	case len(all) == 0:
		all = []string{"none of this address family"}
	}
	slices.Sort(all)
	return all
}
