package gateway

import (
	"slices"
	"strings"

	"github.com/valyala/fasthttp"
)

// HeaderEdits are changes to the headers of a request or an answer. A name is
// that of all headers that differ from it by case only. Names and values are
// checked where they are read: RequestHeaderOwner and ResponseHeaderOwner say
// which cannot be changed.
type HeaderEdits struct {
	Set    []Header // in place of all of that name
	Remove []string
}

// A Header is one line of a head. Its value may be a secret.
type Header struct{ Name, Value string }

func (e *HeaderEdits) none() bool { return len(e.Set) == 0 && len(e.Remove) == 0 }

// touches tells whether headers of that name are not left as they are.
func (e *HeaderEdits) touches(name string) bool {
	same := func(n string) bool { return strings.EqualFold(n, name) }
	return slices.ContainsFunc(e.Remove, same) || slices.ContainsFunc(e.Set, func(h Header) bool { return same(h.Name) })
}

// value is what a name is set to.
func (e *HeaderEdits) value(name string) (string, bool) {
	for _, h := range e.Set {
		if strings.EqualFold(h.Name, name) {
			return h.Value, true
		}
	}
	return "", false
}

// apply changes fields; those that are set come last, in the config's order.
func (e *HeaderEdits) apply(fields []field) []field {
	if e.none() {
		return fields
	}
	fields = slices.DeleteFunc(fields, func(f field) bool { return e.touches(f.name) })
	for _, h := range e.Set {
		if !strings.EqualFold(h.Name, "Host") { // the request line's neighbour
			fields = append(fields, field{h.Name, h.Value})
		}
	}
	return fields
}

// applyOwn changes the head of an answer that the gateway has made.
func (e *HeaderEdits) applyOwn(h *fasthttp.ResponseHeader) {
	for _, name := range e.Remove {
		deleteHeader(h, name)
	}
	for _, set := range e.Set {
		deleteHeader(h, set.Name)
		h.Set(set.Name, set.Value)
	}
}

// deleteHeader deletes by name, whatever its case: fasthttp's Del compares by letter.
func deleteHeader(h *fasthttp.ResponseHeader, name string) {
	var spelt []string
	for k := range h.All() {
		if strings.EqualFold(string(k), name) {
			spelt = append(spelt, string(k))
		}
	}
	for _, s := range spelt {
		h.Del(s)
	}
}

// upstreamHost is the Host that the node sees: the client's, unless the route
// names another. X-Forwarded-Host tells the client's all the same.
func (r *request) upstreamHost() string {
	if host, ok := r.match.route.RequestHeaders.value("Host"); ok {
		return host
	}
	return r.rawHost
}

// RequestHeaderOwner says why request_headers cannot set or remove a header; "":
// they can. Host can be set.
func RequestHeaderOwner(name string) string {
	lower := strings.ReplaceAll(strings.ToLower(name), "_", "-")
	switch {
	case lower == "host":
		return ""
	case strings.HasPrefix(lower, "x-forwarded-"), lower == "x-real-ip", lower == "forwarded", lower == "x-request-id", lower == "cdn-loop":
		return "the gateway tells the node about the client and itself by it"
	case strings.HasPrefix(lower, "sec-websocket-"):
		return "it is between the client and the node, which make the handshake by it"
	case ownHeader(lower):
		return "it is about one connection or the form of the message, which the gateway makes itself"
	}
	return ""
}

// ResponseHeaderOwner says why response_headers cannot set or remove a header;
// "": they can.
func ResponseHeaderOwner(name string) string {
	lower := strings.ToLower(name)
	switch {
	case strings.HasPrefix(lower, "sec-websocket-"):
		return "it is between the client and the node, which make the handshake by it"
	case hopHeader(lower), lower == "content-length", lower == "date":
		return "it is about one connection or the form of the message, which the gateway makes itself"
	}
	return ""
}
