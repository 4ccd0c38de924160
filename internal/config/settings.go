package config

import (
	"net/netip"
	"strings"

	"singlegate/gateway"
)

func (d *decoder) public(v value) (p gateway.Public, ok bool) {
	o, ok := d.object(v, "public")
	if !ok {
		return p, false
	}
	read(o, "host", &p.Host, d.publicHost)
	read(o, "port", &p.Port, d.port)
	o.done()
	return p, true
}

// publicHost is a host name or an IP address; an IPv6 address goes without brackets.
func (d *decoder) publicHost(v value) (string, bool) {
	t, ok := d.checked(func(s string) string {
		if _, err := netip.ParseAddr(unbracket(s)); err == nil {
			return ""
		}
		return checkHostName(strings.ToLower(s))
	})(v)
	return strings.ToLower(unbracket(t.value)), ok
}

// prefix takes 10.0.0.0/8, or one address.
func (d *decoder) prefix(v value) (netip.Prefix, bool) {
	t, ok := d.text(v)
	if !ok {
		return netip.Prefix{}, false
	}
	if a, err := netip.ParseAddr(t.value); err == nil && a.Zone() == "" {
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), true
	}
	p, err := netip.ParsePrefix(t.value)
	switch {
	case err != nil || p.Addr().Is4In6():
		d.fail(v, "%s is neither an address range such as 10.0.0.0/8 nor an address", t.shown)
	case p != p.Masked() && t.expanded:
		d.fail(v, "%s has bits set behind its prefix length", t.shown)
	case p != p.Masked():
		d.fail(v, "%s has bits set behind its prefix length; write %s", t.shown, p.Masked())
	default:
		return p, true
	}
	return netip.Prefix{}, false
}

// timeouts decodes waits; those that the file leaves out are taken from defaults.
func (d *decoder) timeouts(defaults gateway.Timeouts) func(value) (gateway.Timeouts, bool) {
	return func(v value) (gateway.Timeouts, bool) {
		t := defaults
		o, ok := d.object(v, "timeouts")
		if !ok {
			return t, false
		}
		read(o, "connect", &t.Connect, d.wait)
		read(o, "handshake", &t.Handshake, d.wait)
		read(o, "read", &t.Read, d.wait)
		read(o, "stall", &t.Stall, d.wait)
		read(o, "total", &t.Total, d.bound)
		read(o, "idle", &t.Idle, d.wait)
		read(o, "lifetime", &t.Lifetime, d.bound)
		o.done()
		return t, true
	}
}

func (d *decoder) shutdown(v value) (gateway.Shutdown, bool) {
	s := gateway.DefaultShutdown()
	o, ok := d.object(v, "shutdown")
	if !ok {
		return s, false
	}
	errs := len(d.errs)
	read(o, "grace", &s.Grace, d.duration)
	read(o, "drain", &s.Drain, d.duration)
	read(o, "deadline", &s.Deadline, d.wait)
	if len(d.errs) == errs && endsEarly(s) {
		d.fail(v, "deadline comes before grace and drain are over; it counts from the signal, so make it as long as both")
	}
	o.done()
	return s, true
}

// endsEarly is Deadline < Grace+Drain for durations whose sum may overflow.
func endsEarly(s gateway.Shutdown) bool {
	left := s.Deadline - s.Grace
	return left < 0 || left < s.Drain
}

// logs decodes the log settings, and what is redacted into r.
func (d *decoder) logs(r *gateway.Redact) func(value) (Logs, bool) {
	return func(v value) (Logs, bool) {
		l := Logs{Level: "info"}
		o, ok := d.object(v, "logs")
		if !ok {
			return l, false
		}
		read(o, "format", &l.Format, oneOf(d, "json", "console"))
		read(o, "level", &l.Level, oneOf(d, "trace", "debug", "info", "warn", "error"))
		read(o, "redact_query", &r.Query, listOf(d, plain(d.text)))
		read(o, "redact_paths", &r.Paths, listOf(d, plain(d.checked(checkPattern))))
		o.done()
		return l, true
	}
}
