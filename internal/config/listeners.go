package config

import (
	"net/netip"
	"slices"
	"time"

	"singlegate/gateway"
)

// A listener is one of the file with what checks need of it.
type listener struct {
	gateway.Listener
	name   text // how it is written
	socket socket

	addressAt, tlsAt pos

	own ownTLS

	o             *object // nil: it could not be read
	service, port text    // of a TCP listener
}

// listeners are those of the file.
type listeners struct {
	list   []listener
	broken bool // some could not be read, so a name that is missing may be one of theirs
}

// listenersOf decodes the listeners and checks them against each other and the
// admin listener. TCP listeners take the waits that they do not set from waits.
func (d *decoder) listenersOf(o *object, admin Admin, waits gateway.Timeouts) listeners {
	errs := len(d.errs)
	var ls listeners
	require(o, "listeners", &ls.list, filled(d, func(v value) (listener, bool) { return d.listener(v, waits) }))
	d.checkNames(ls.list)
	d.checkSockets(ls.list, o, admin)
	ls.broken = len(d.errs) > errs
	return ls
}

func (d *decoder) listener(v value, waits gateway.Timeouts) (listener, bool) {
	var l listener
	o, ok := d.object(v, "a listener")
	if !ok {
		return l, true // its neighbours are checked all the same
	}
	l.o, l.At = o, d.place(v.at)
	var address text
	require(o, "address", &address, d.address(&l.socket))
	l.Address, l.addressAt, l.name = address.value, address.at, address
	read(o, "name", &l.name, d.text)
	l.Name = l.name.value
	if read(o, "tls", &l.TLS, d.boolean) {
		l.tlsAt = o.byKey["tls"].value.at
	}
	if read(o, "hsts", &l.HSTS, d.hsts) && !l.TLS {
		d.errorf(o.keyAt("hsts"), "hsts: only a TLS listener can say so; add tls: true, or leave it away")
	}
	read(o, "public", &l.Public, d.public)
	read(o, "allow", &l.Allow, d.addresses)
	read(o, "deny", &l.Deny, d.addresses)
	d.proxyIn(o, &l.ProxyIn)
	d.listenerService(o, &l, waits)
	l.own = d.ownTLS(o, l.TLS, &l.Policy, &l.Clients)
	o.done()
	if o.has("service") {
		d.checkTCPClients(o, l.Clients)
	}
	return l, true
}

// hsts is a time in whole seconds: what browsers take.
func (d *decoder) hsts(v value) (time.Duration, bool) {
	dur, ok := d.wait(v)
	if ok && dur%time.Second != 0 {
		d.fail(v, "must be whole seconds, as 180d")
		return 0, false
	}
	return dur, ok
}

// address takes host:port and puts the socket that it names into s.
func (d *decoder) address(s *socket) func(value) (text, bool) {
	return func(v value) (text, bool) {
		t, ok := d.text(v)
		if !ok {
			return text{}, false
		}
		host, port, problem := splitAddress(t.value)
		if problem != "" {
			d.fail(v, "%s %s", t.shown, problem)
			return text{}, false
		}
		*s = newSocket(host, port)
		return t, true
	}
}

func (d *decoder) checkNames(list []listener) {
	first := map[string]listener{}
	for _, l := range list {
		other, ok := first[l.Name]
		unnamed := l.name.at == l.addressAt
		switch {
		case l.Name == "":
		case !ok:
			first[l.Name] = l
		case unnamed && overlap(l.socket, other.socket): // checkSockets says so
		case unnamed:
			d.errorf(l.name.at, "the listener at %s has this address, too; give both a name", other.At)
		default:
			d.errorf(l.name.at, "name: %s is the name of the listener at %s already", l.name.shown, other.At)
		}
	}
}

func (d *decoder) checkSockets(list []listener, o *object, admin Admin) {
	for i, l := range list {
		j := slices.IndexFunc(list[:i], func(other listener) bool { return overlap(l.socket, other.socket) })
		if j >= 0 {
			d.errorf(l.addressAt, "address: the listener at %s has this address already", list[j].At)
		}
	}
	if admin.Address == "" {
		return
	}
	host, port, _ := splitAddress(admin.Address)
	socket := newSocket(host, port)
	i := slices.IndexFunc(list, func(l listener) bool { return overlap(l.socket, socket) })
	if i >= 0 {
		d.errorf(o.byKey["admin"].value.at, "admin: the listener at %s has this address already", list[i].At)
	}
}

func (d *decoder) checkTLS(list []listener) {
	for _, l := range list {
		if l.TLS {
			d.errorf(l.tlsAt, "tls: a TLS listener needs a certificate; add tls: {certificates: [{cert: …, key: …}]} to the file")
		}
	}
}

func (ls listeners) configs() []gateway.Listener {
	var configs []gateway.Listener
	for _, l := range ls.list {
		configs = append(configs, l.Listener)
	}
	return configs
}

func (ls listeners) names() []name {
	var names []name
	for _, l := range ls.list {
		names = append(names, name{l.Name, l.name.shown})
	}
	return names
}

func (d *decoder) admin(v value) (a Admin, ok bool) {
	o, ok := d.object(v, "admin")
	if !ok {
		return a, false
	}
	var s socket
	ok = require(o, "address", &a.Address, plain(d.address(&s)))
	read(o, "token_file", &a.TokenFile, d.path)
	read(o, "write_token_file", &a.WriteTokenFile, d.path)
	read(o, "hosts", &a.Hosts, listOf(d, d.publicHost))
	if ok && !s.loopback() && !o.has("token_file") && !o.has("write_token_file") {
		d.errorf(o.byKey["address"].value.at, "address: off loopback the admin listener needs a token; add token_file: FILE, or write 127.0.0.1 and the port")
	}
	o.done()
	return a, true
}

func (s socket) loopback() bool {
	a, err := netip.ParseAddr(s.host)
	return err == nil && a.IsLoopback()
}
