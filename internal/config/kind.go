package config

import (
	"github.com/goccy/go-yaml/ast"

	"singlegate/gateway"
)

// routeKind reads what the requests of a route are. That says which of them it
// accepts; accept may say the same.
func (d *decoder) routeKind(r *route) {
	if !read(r.o, "kind", &r.Kind, oneOf(d, gateway.KindBOSH, gateway.KindXMPP)) {
		return
	}
	accept, what := gateway.AcceptHTTP, "HTTP requests"
	if r.Kind == gateway.KindXMPP {
		accept, what = gateway.AcceptWebSocket, "WebSockets"
	}
	if r.o.has("accept") && r.Accept != accept {
		d.errorf(r.o.keyAt("accept"), "accept: a route of kind %s takes %s alone; leave accept away", r.Kind, what)
	}
	r.Accept = accept
}

// takesOnly says in the file's words which requests alone the route takes.
func (r *route) takesOnly() string {
	if r.Kind != "" {
		return "kind: " + string(r.Kind)
	}
	return "accept: " + string(r.Accept)
}

// timeoutsOf are the waits of routes that set none.
func (ctx routeContext) timeoutsOf(kind gateway.Kind) gateway.Timeouts {
	t := ctx.timeouts
	if kind == gateway.KindBOSH {
		t.Read = ctx.boshRead
	}
	return t
}

// sets tells whether the value of a key is a mapping with that key in it.
func (o *object) sets(key, inner string) bool {
	f := o.byKey[key]
	if f == nil {
		return false
	}
	m, ok := f.value.node.(*ast.MappingNode)
	if !ok {
		return false
	}
	for _, entry := range m.Values {
		if text, _ := keyText(entry.Key); text == inner {
			return true
		}
	}
	return false
}
