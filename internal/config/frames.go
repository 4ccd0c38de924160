package config

import (
	"math"
	"time"

	"github.com/goccy/go-yaml/ast"

	"singlegate/gateway"
)

// frames decodes what the frames of a route's WebSockets must keep to.
func (d *decoder) frames(v value) (f gateway.Frames, ok bool) {
	o, ok := d.object(v, "frames")
	if !ok {
		return f, false
	}
	read(o, "max_message", &f.MaxMessage, d.bytes)
	read(o, "max_frame", &f.MaxFrame, d.bytes)
	read(o, "rate", &f.Rate, d.integer(1, 1_000_000))
	read(o, "strict", &f.Strict, d.boolean)
	o.done()
	return f, true
}

// bytes is a size that a rule for frames may name.
func (d *decoder) bytes(v value) (int64, bool) {
	n, ok := d.size(1, math.MaxInt32)(v)
	return int64(n), ok
}

// ping takes how quiet clients are asked whether they are there: a duration, or
// {every: 60s, timeout: 20s}.
func (d *decoder) ping(v value) (gateway.Ping, bool) {
	p := gateway.Ping{Timeout: gateway.DefaultPingTimeout}
	if _, mapping := v.node.(*ast.MappingNode); !mapping {
		var ok bool
		p.Every, ok = d.seconds(v)
		return p, ok
	}
	o, _ := d.object(v, "ping")
	ok := require(o, "every", &p.Every, d.seconds)
	ok = (read(o, "timeout", &p.Timeout, d.seconds) || !o.has("timeout")) && ok
	o.done()
	return p, ok
}

// seconds is a wait that the relay, which looks once a second, can keep.
func (d *decoder) seconds(v value) (time.Duration, bool) {
	dur, ok := d.wait(v)
	if ok && dur < time.Second {
		d.fail(v, "must be 1s or more")
		return 0, false
	}
	return dur, ok
}

// tunnelRules reads the rules for WebSockets of what has timeouts, which must have
// been read.
func (d *decoder) tunnelRules(o *object, f *gateway.Frames, p *gateway.Ping, t gateway.Timeouts) {
	read(o, "frames", f, d.frames)
	if !read(o, "ping", p, d.ping) {
		return
	}
	if t.Idle > 0 && (p.Every > t.Idle || p.Timeout > t.Idle-p.Every) {
		d.fail(o.byKey["ping"].value, "every and timeout together are longer than timeouts.idle, %v, which ends the tunnel before a silent client is noticed; ping sooner, or make idle longer", t.Idle)
	}
}

// aboutWebSockets are the keys of a route or port that mean nothing where there
// are none, with what they are about.
func aboutWebSockets() []struct{ key, about string } {
	return []struct{ key, about string }{
		{"origins", "WebSocket handshakes"}, {"refuse", "WebSocket handshakes"},
		{"frames", "WebSockets"}, {"ping", "WebSockets"}, {"tunnels_per_user", "WebSockets"},
	}
}
