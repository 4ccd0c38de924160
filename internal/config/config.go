// Package config reads the config file: it makes of its text what the other
// packages take (gateway.Config, certs.Config, the nodes of discovery), or says
// everything that is wrong with it, all at once, each with its place.
//
// Decoding is strict: a key that is not known is an error, not a key that is
// ignored. Values are checked as far as that is possible without opening a file
// or a socket. The text of an environment variable never shows in an error.
//
// The package may import gateway, gateway/auth, discovery, certs and internal/audit for their types, and the
// YAML parser, which nothing else of this module uses. Only main and the
// command's verbs import it.
package config

import (
	"fmt"
	"io"
	"os"
	"path/filepath"

	"singlegate/certs"
	"singlegate/discovery"
	"singlegate/gateway"
	"singlegate/internal/audit"
)

// A File is what a config file says. Everything that it leaves out has its
// default; names of files and folders are joined with the file's own folder.
type File struct {
	Gateway gateway.Config
	Certs   certs.Config
	Nodes   map[string][]discovery.Node // services written in the file, their nodes in its order
	Admin   Admin
	Logs    Logs
	Audit   *audit.Config // nil: there is no audit log

	ACME   []ACME // certificates to be got; what Certs names comes first
	Shared Shared

	Consul         *discovery.ConsulConfig // nil: the environment says where Consul is, if anything does
	ConsulServices []discovery.ConsulService
	DNSServices    []discovery.DNSService
	Clients        map[string]certs.ClientConfig // how clients' certificates are verified, by the At of listeners and node ports; the Clients of these lack Ask
	NodeTLS        map[string]certs.Client       // how the nodes of services are spoken to that speak TLS; their Gateway.Services lack TLS.Config
	TagPrefix      string                        // how tags begin by which services in Consul ask for routes; "": none do
	Cache          string                        // the file that keeps the last snapshot; "": none does
}

// Admin is the listener for metrics, health and nodes. Off loopback it has a
// token.
type Admin struct {
	Address        string   // host:port; "" means that there is none
	TokenFile      string   // holds the token that lets read; "": there is none
	WriteTokenFile string   // holds the token that lets read and change; "": there is none
	Hosts          []string // names that it may be asked under, beside its addresses
}

// Logs says how the gateway writes its logs.
type Logs struct {
	Format string // "json", "console", or "" for console on a terminal and json elsewhere
	Level  string // "trace", "debug", "info", "warn" or "error"
}

// Load reads the file at path and decodes it as Parse does, with the
// environment of this process. The error is an *Errors when the content is
// wrong, and another one when the file cannot be read.
func Load(path string) (*File, error) {
	data, err := readBounded(path)
	if err != nil {
		return nil, fmt.Errorf("cannot read the config file: %w", err)
	}
	return Parse(path, data, os.LookupEnv)
}

// readBounded reads one byte more than a file may have, so that Parse sees that
// there is too much.
func readBounded(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxFile+1))
}

// Parse decodes the content of a config file. The folder of name is where
// relative files are looked for, its base stands in every place ("singlegate.yaml:12:5").
// The function env gives the value of a variable and whether it is set. The
// error is an *Errors. With an error comes what could be decoded, for further
// checks only, or nil where nothing could. Parse opens no file and keeps
// neither data nor env.
func Parse(name string, data []byte, env func(string) (string, bool)) (*File, error) {
	d := &decoder{
		file: filepath.Base(name),
		dir:  filepath.Dir(name),
		env:  env,
	}
	var f *File
	if root, ok := d.tree(data); ok {
		f = d.decodeFile(root)
	}
	return f, d.finish(data)
}

// decodeFile decodes the top level: first what others refer to, then the routes.
func (d *decoder) decodeFile(root value) *File {
	f := &File{
		Gateway: gateway.Config{Limits: gateway.DefaultLimits(), Shutdown: gateway.DefaultShutdown()},
		Logs:    Logs{Level: "info"},
	}
	o, ok := d.object(root, "the file")
	if !ok {
		return f
	}
	g := &f.Gateway
	read(o, "public", &g.Public, d.public)
	read(o, "admin", &f.Admin, d.admin)
	waits := gateway.DefaultTimeouts()
	read(o, "timeouts", &waits, d.timeouts(waits))
	ls := d.listenersOf(o, f.Admin, waits)
	var ts tlsRules
	certain := read(o, "tls", &ts, d.tls) || !o.has("tls")
	f.Certs, f.Shared = ts.Config, ts.shared
	f.ACME = d.acmeOf(ts.acme, ts.shared, ls)
	ss := d.servicesOf(o)
	var w where
	if read(o, "discovery", &w, d.discovery) || !o.has("discovery") {
		d.checkConsul(w, ss)
		d.checkSharedConsul(w, ts)
	}
	f.Consul, f.Cache, f.TagPrefix = w.consul, w.cache, w.tags.prefix
	g.TagRoutes = d.tagRoutes(w.tags, ls, waits)
	d.checkListenerServices(ls, ss)
	read(o, "trusted_proxies", &g.TrustedProxies, listOf(d, d.prefix))
	read(o, "limits", &g.Limits, d.limits)
	read(o, "shutdown", &g.Shutdown, d.shutdown)
	read(o, "logs", &f.Logs, d.logs(&g.Redact))
	read(o, "audit", &f.Audit, d.audit)
	as := d.authsOf(o)
	ctx := routeContext{listeners: ls, services: ss, auths: as, timeouts: waits, boshRead: gateway.DefaultBOSHRead}
	if o.sets("timeouts", "read") {
		ctx.boshRead = waits.Read
	}
	ports := d.nodePortsOf(o, ctx)
	d.checkPorts(ports, ls, ss, f.Admin)
	d.checkOwnPolicies(f.Certs, ls, ports)
	rs := d.routesOf(o, ctx)
	for _, l := range ls.list {
		d.checkProxyIn(l.o, l.ProxyIn, g, o)
	}
	for _, np := range ports {
		d.checkProxyIn(np.o, np.ProxyIn, g, o)
	}
	o.done()
	if certain && len(f.Certs.Certificates)+len(f.ACME) == 0 {
		d.checkTLS(ls.list)
		d.checkPortTLS(ports)
	}

	g.Listeners = ls.configs()
	g.Services, g.Auth = ss.refs(), as.list
	f.Nodes = ss.nodes()
	f.NodeTLS = ss.clients()
	f.Clients = clientsOf(ls, ports)
	f.ConsulServices, f.DNSServices = ss.elsewhere()
	g.Routes = configsOf(rs)
	g.NodePorts = nodePortConfigs(ports)
	return f
}
