package config

import (
	"maps"
	"slices"

	"singlegate/internal/audit"
)

// On what can be done when nothing can be noted.
const (
	onFailureDrop   = "drop"
	onFailureRefuse = "refuse"
)

// audit decodes the audit log.
func (d *decoder) audit(v value) (*audit.Config, bool) {
	o, ok := d.object(v, "audit")
	if !ok {
		return nil, false
	}
	c := audit.Default()
	if require(o, "file", &c.File, d.path) {
		c.At = d.place(o.byKey["file"].value.at)
	}
	size := int(c.MaxSize)
	read(o, "max_size", &size, d.size(1<<20, 1<<40))
	c.MaxSize = int64(size)
	read(o, "keep", &c.Keep, d.bound)
	if o.has("keep") && c.Keep > 0 && c.Keep < day {
		d.fail(o.byKey["keep"].value, "must be a day at least, or none: no end; write 180d")
	}
	read(o, "compress", &c.Compress, d.boolean)
	read(o, "chain", &c.Chain, d.boolean)
	read(o, "key_file", &c.KeyFile, d.path)
	if c.KeyFile != "" && !c.Chain {
		d.errorf(o.keyAt("key_file"), "key_file is the key of the chain, which chain: false switches off")
	}
	onFailure := onFailureDrop
	read(o, "on_failure", &onFailure, oneOf(d, onFailureDrop, onFailureRefuse))
	c.Refuse = onFailure == onFailureRefuse
	read(o, "syslog", &c.Syslog, d.syslog)
	o.done()
	return &c, true
}

// syslog decodes where the collector is.
func (d *decoder) syslog(v value) (*audit.Syslog, bool) {
	o, ok := d.object(v, "syslog")
	if !ok {
		return nil, false
	}
	s := audit.DefaultSyslog()
	require(o, "address", &s.Address, plain(d.checked(checkCollector)))
	read(o, "tls", &s.TLS, d.syslogTLS)
	facilities := audit.Facilities()
	facility := ""
	if read(o, "facility", &facility, oneOf(d, slices.Sorted(maps.Keys(facilities))...)) {
		s.Facility = facilities[facility]
	}
	read(o, "app_name", &s.AppName, plain(d.checked(checkAppName)))
	o.done()
	return &s, true
}

// syslogTLS takes true, or how the collector is to be known.
func (d *decoder) syslogTLS(v value) (*audit.SyslogTLS, bool) {
	if _, ok := scalar(v.node); ok || kind(v.node) == "true or false" {
		on, ok := d.boolean(v)
		if !on {
			return nil, ok
		}
		return &audit.SyslogTLS{}, ok
	}
	o, ok := d.object(v, "tls")
	if !ok {
		return nil, false
	}
	t := &audit.SyslogTLS{}
	read(o, "ca", &t.CA, d.path)
	read(o, "cert", &t.Cert, d.path)
	read(o, "key", &t.Key, d.path)
	read(o, "server_name", &t.ServerName, d.publicHost)
	o.done()
	if (t.Cert == "") != (t.Key == "") {
		d.fail(v, "cert and key go together: the certificate that the collector asks for, and its key")
	}
	return t, true
}

func checkCollector(s string) string {
	host, port, problem := splitAddress(s)
	if problem == "" && (host == "" || port == 0) {
		problem = `has no host or no port; write it like "10.0.0.9:6514"`
	}
	return problem
}

// checkAppName gives what is wrong with an APP-NAME of RFC 5424, or "".
func checkAppName(s string) string {
	if len(s) > 48 {
		return "longer than the 48 characters of RFC 5424"
	}
	for _, r := range s {
		if r <= ' ' || r >= 0x7f {
			return "it has letters, digits and signs of ASCII only, and no space"
		}
	}
	return ""
}
