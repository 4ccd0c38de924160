package config

import "net/netip"

// sources decodes the addresses from which a service's nodes are connected to.
// Whether they are this machine's shows when the config is put in force.
func (d *decoder) sources(v value) ([]netip.Addr, bool) {
	first := map[netip.Addr]pos{}
	return filled(d, func(v value) (netip.Addr, bool) {
		t, ok := d.checked(checkSource)(v)
		if !ok {
			return netip.Addr{}, false
		}
		a := netip.MustParseAddr(unbracket(t.value)).Unmap()
		if at, taken := first[a]; taken {
			d.fail(v, "%s: stands at %s already", t.shown, d.place(at))
			return a, false
		}
		first[a] = v.at
		return a, true
	})(v)
}

// checkSource gives what is wrong with a source address, or "".
func checkSource(s string) string {
	a, err := netip.ParseAddr(unbracket(s))
	switch {
	case err != nil:
		return "not an IP address; write one of this machine, without a port"
	case a.Zone() != "":
		return "an address with a zone is valid on one link only; write one of this machine without"
	case a.IsUnspecified(), a.IsMulticast(), a.Unmap() == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return "connections cannot come from this address; write one of this machine"
	}
	return ""
}
