package livecheck

import (
	"cmp"
	"context"
	"net"
	"net/netip"
	"slices"
	"strconv"

	"singlegate/gateway"
)

// An entry is a public address of the gateway: that of a listener, or a node's
// own port.
type entry struct {
	name     string
	tls      bool
	host     string // how clients name it
	port     uint16 // 0: it is not known
	dialPort uint16 // with Options.Connect
	routes   bool   // it serves the routes
	listener *gateway.Listener
}

// entries are those of the config's listeners.
func (c *checker) listEntries() {
	chosen := c.connectEntry()
	for i := range c.cfg.Listeners {
		l := &c.cfg.Listeners[i]
		e := &entry{name: l.Name, tls: l.TLS, routes: l.Service == "", listener: l}
		e.host, e.port = c.publicOf(l)
		e.dialPort = cmp.Or(boundPort(l.Address), e.port)
		if i == chosen && c.connect.port != 0 {
			e.dialPort = c.connect.port
		}
		c.entries = append(c.entries, e)
	}
}

// connectEntry is the listener that Connect's port stands for.
func (c *checker) connectEntry() int {
	has := func(l gateway.Listener) bool {
		_, public := c.publicOf(&l)
		return boundPort(l.Address) == c.connect.port || public == c.connect.port
	}
	if i := slices.IndexFunc(c.cfg.Listeners, has); i >= 0 {
		return i
	}
	secure := func(l gateway.Listener) bool { return l.TLS && l.Service == "" }
	return max(0, slices.IndexFunc(c.cfg.Listeners, secure))
}

// publicOf is how clients name a listener, as the gateway resolves it.
func (c *checker) publicOf(l *gateway.Listener) (host string, port uint16) {
	port = l.Public.Port
	if l.TLS && l.Service == "" {
		port = cmp.Or(port, c.cfg.Public.Port)
	}
	bound, _, _ := net.SplitHostPort(l.Address)
	return cmp.Or(l.Public.Host, c.cfg.Public.Host, ownHost(bound)), cmp.Or(port, boundPort(l.Address))
}

// ownHost is the name, on this machine, of an address that is listened on.
func ownHost(bound string) string {
	if ip, err := netip.ParseAddr(bound); bound == "" || err == nil && ip.IsUnspecified() {
		return "localhost"
	}
	return bound
}

func boundPort(address string) uint16 {
	_, text, _ := net.SplitHostPort(address)
	port, _ := strconv.ParseUint(text, 10, 16)
	return uint16(port)
}

// at is the target for a host name at the entry.
func (c *checker) at(e *entry, host string) target {
	t := target{role: toGateway, tls: e.tls, host: host, header: host, address: joinPort(host, e.port)}
	standard := e.tls && e.port == 443 || !e.tls && e.port == 80
	if !standard {
		t.header = joinPort(host, e.port)
	} else if ip, err := netip.ParseAddr(host); err == nil && ip.Is6() {
		t.header = "[" + host + "]"
	}
	if c.connect.host != "" {
		t.address = joinPort(c.connect.host, e.dialPort)
	}
	return t
}

// A door is a host name at an entry: what has to open before any route behind
// it can be tried.
type door struct {
	entry   *entry
	host    string
	pattern string // "{node}.im.example.gov": the name is a node's
	open    bool   // set by its job
	job     *job
}

// doorAt is the door of a host name, the same one each time.
func (c *checker) doorAt(e *entry, host, pattern string) *door {
	for _, d := range c.doors {
		if d.entry == e && d.host == host {
			return d
		}
	}
	d := &door{entry: e, host: host, pattern: pattern}
	t := c.at(e, host)
	d.job = &job{who: e.name, target: scheme(e.tls, false) + "://" + t.header, probe: func(ctx context.Context) []Finding {
		findings := c.knock(ctx, t)
		d.open = len(findings) > 0 && !isShut(findings[0].Code)
		return findings
	}}
	c.doors = append(c.doors, d)
	c.first = append(c.first, d.job)
	return d
}

func scheme(tls, websocket bool) string {
	switch {
	case tls && websocket:
		return "wss"
	case websocket:
		return "ws"
	case tls:
		return "https"
	}
	return "http"
}

// knock connects to a door and, where there is TLS, judges the certificates.
func (p *prober) knock(ctx context.Context, t target) []Finding {
	conn, f := p.dial(ctx, t.address, t.role)
	if f != nil {
		return []Finding{*f}
	}
	defer conn.Close()
	if !t.tls {
		return []Finding{fine(isConnected, "address", conn.RemoteAddr().String())}
	}
	_, findings := p.certificates(ctx, conn, t.host, t.address)
	return findings
}

// isShut tells whether nothing can be asked behind a door with that finding.
// Certificates that clients refuse are said once; what is behind is tried all
// the same.
func isShut(c Code) bool {
	switch c {
	case isConnected, isTrusted, issuerMissing, issuerMissingURL, rootUnknown, selfSigned, expired, notYetValid,
		expiresSoon, wrongName, noNames, chainInvalid:
		return false
	}
	return true
}

// portProbe tries a public port that is a node's, or a service's, own: whether
// it can be connected to, with which certificates, and then with what it is for.
func (p *prober) portProbe(ctx context.Context, t target, with func(context.Context, net.Conn) Finding) []Finding {
	conn, f := p.dial(ctx, t.address, t.role)
	if f != nil {
		return []Finding{*f}
	}
	defer conn.Close()
	var findings []Finding
	if t.tls {
		secure, judged := p.certificates(ctx, conn, t.host, t.address)
		if secure == nil {
			return judged
		}
		findings, conn = notFine(judged), secure
	}
	return append(findings, with(ctx, conn))
}

func notFine(list []Finding) []Finding {
	return slices.DeleteFunc(list, func(f Finding) bool { return f.Mark == OK })
}

// webPort tries a node's own port with what it is there for, at "/": which
// paths there are is between the clients and the node, and so is any answer that
// is about the path. A refusal that is not is told of, though with another
// subprotocol or path clients may get through.
func (p *prober) webPort(ctx context.Context, u upgrade, http, websocket bool) Finding {
	if !websocket {
		return p.webPortHTTP(ctx, u)
	}
	f := p.webSocket(ctx, u)
	switch f.Code {
	case upgradeNotFound, upgradePlainHTTP, upgradeRedirected:
		return fine(answered, "status", f.Params["status"])
	case upgradeRejected:
		if http {
			if plain := p.webPortHTTP(ctx, u); plain.Mark == OK {
				return plain
			}
		}
		return warning(portRejected, "status", f.Params["status"])
	}
	return f
}

func (p *prober) webPortHTTP(ctx context.Context, u upgrade) Finding {
	f := p.reachable(ctx, u.target, u.path)
	if f.Code == answered && f.Params["status"] == "400" {
		return warning(portBadRequest, "status", "400", "header", u.header)
	}
	return f
}
