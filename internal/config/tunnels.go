package config

import "singlegate/gateway"

// tunnels decodes what becomes of a service's tunnels; what the file leaves out
// has its default.
func (d *decoder) tunnels(v value) (gateway.TunnelPolicy, bool) {
	p := gateway.DefaultTunnelPolicy()
	o, ok := d.object(v, "tunnels")
	if !ok {
		return p, false
	}
	policy := oneOf(d, gateway.PolicyKeep, gateway.PolicyDrain, gateway.PolicyClose)
	read(o, "address_change", &p.AddressChange, policy)
	read(o, "failing", &p.Failing, policy)
	read(o, "maintenance", &p.Maintenance, policy)
	read(o, "deregistered", &p.Deregistered, policy)
	read(o, "after", &p.After, d.duration)
	read(o, "per_second", &p.PerSecond, d.integer(1, 100_000))
	o.done()
	return p, true
}
