package gateway

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/valyala/fasthttp"
)

// CORS says which pages of other origins may use a route: the gateway answers
// their preflights (Fetch standard, section 4.8), before the address of the
// client or a credential is looked at, and puts the headers on every answer in
// place of the node's own.
type CORS struct {
	Origins     []string      // values of Origin; "*" alone: any, and then Credentials must not be set
	Methods     []string      // beside GET, HEAD and POST, which browsers do not ask about
	Headers     []string      // of requests; "*" alone: whichever are asked for
	Expose      []string      // headers of answers that the page may read
	Credentials bool          // cookies and the like may come along
	MaxAge      time.Duration // how long a browser may remember a preflight; 0: its own default
}

// DefaultCORSMethods and DefaultCORSHeaders are those of a policy that names
// none.
func DefaultCORSMethods() []string { return []string{"GET", "HEAD", "POST"} }
func DefaultCORSHeaders() []string {
	return []string{"Authorization", "Content-Type", "X-Requested-With"}
}

// any tells whether every origin is let in by name of none.
func (c *CORS) any() bool { return len(c.Origins) == 1 && c.Origins[0] == "*" }

// lets tells whether a page of that origin may use the route.
func (c *CORS) lets(origins []string) bool {
	return len(origins) == 1 && slices.ContainsFunc(c.Origins, func(o string) bool { return o == "*" || strings.EqualFold(o, origins[0]) })
}

// answerCORS is the policy whose headers the answer to this request gets; nil:
// none.
func (r *request) answerCORS() *CORS {
	if r.match.route == nil {
		return nil
	}
	return r.match.route.CORS
}

// isPreflight tells a browser's question before a request from other OPTIONS,
// which go on to the node.
func (r *request) isPreflight() bool {
	return r.method == fasthttp.MethodOptions && !r.websocket && r.answerCORS() != nil &&
		len(r.headers("Origin")) > 0 && len(r.headers("Access-Control-Request-Method")) > 0
}

// answerPreflight lets the browser decide: it is told all that is allowed. A page
// of another origin is refused, so that the log tells of it.
func (r *request) answerPreflight() *problem {
	c := r.answerCORS()
	if !c.lets(r.headers("Origin")) {
		return corsRefused()
	}
	h := &r.ctx.Response.Header
	h.Set("Access-Control-Allow-Methods", strings.Join(c.Methods, ", "))
	if allowed := c.allowedHeaders(r.headers("Access-Control-Request-Headers")); allowed != "" {
		h.Set("Access-Control-Allow-Headers", allowed)
	}
	if c.asked() {
		h.Set("Vary", "Access-Control-Request-Headers")
	}
	if c.MaxAge > 0 {
		h.Set("Access-Control-Max-Age", strconv.FormatInt(int64(c.MaxAge/time.Second), 10))
	}
	r.ctx.Response.SetStatusCode(fasthttp.StatusNoContent)
	r.finishOwn()
	return nil
}

// asked tells whether headers are allowed because they are asked for.
func (c *CORS) asked() bool { return len(c.Headers) == 1 && c.Headers[0] == "*" }

// allowedHeaders is the list of a preflight's answer. With credentials "*" would
// be a name like any other to browsers, so it is spelt out.
func (c *CORS) allowedHeaders(asked []string) string {
	if !c.asked() {
		return strings.Join(c.Headers, ", ")
	}
	var names []string
	for _, name := range tokensOf(asked) {
		if IsToken(name) {
			names = append(names, name)
		}
	}
	return strings.Join(names, ", ")
}

// fields are the headers of every answer to the request: those that let the page
// read it, if its origin may.
func (c *CORS) fields(origins []string) []field {
	switch {
	case c.any():
		return c.exposing(field{"Access-Control-Allow-Origin", "*"})
	case c.lets(origins):
		fields := c.exposing(field{"Access-Control-Allow-Origin", origins[0]})
		if c.Credentials {
			fields = append(fields, field{"Access-Control-Allow-Credentials", "true"})
		}
		return fields
	}
	return nil
}

func (c *CORS) exposing(fields ...field) []field {
	if len(c.Expose) > 0 {
		fields = append(fields, field{"Access-Control-Expose-Headers", strings.Join(c.Expose, ", ")})
	}
	return fields
}

// apply puts the policy's headers in place of a node's.
func (c *CORS) apply(fields []field, r *request) []field {
	if c == nil {
		return fields
	}
	fields = slices.DeleteFunc(fields, func(f field) bool { return isCORSHeader(f.name) })
	fields = append(fields, c.fields(r.headers("Origin"))...)
	if c.any() {
		return fields
	}
	return varying(fields, "Origin")
}

// applyOwn puts them on an answer that the gateway has made.
func (c *CORS) applyOwn(r *request) {
	if c == nil {
		return
	}
	h := &r.ctx.Response.Header
	for _, name := range []string{"Access-Control-Allow-Origin", "Access-Control-Allow-Credentials", "Access-Control-Expose-Headers"} {
		deleteHeader(h, name) // what an auth endpoint said
	}
	for _, f := range c.fields(r.headers("Origin")) {
		h.Set(f.name, f.value)
	}
	if !c.any() {
		h.Set("Vary", varyWith(string(h.Peek("Vary")), "Origin"))
	}
}

func isCORSHeader(name string) bool {
	const family = "access-control-"
	return len(name) > len(family) && strings.EqualFold(name[:len(family)], family)
}

// varying adds a name to the Vary of an answer, in the line that there is.
func varying(fields []field, name string) []field {
	for i, f := range fields {
		if strings.EqualFold(f.name, "Vary") {
			fields[i].value = varyWith(f.value, name)
			return fields
		}
	}
	return append(fields, field{"Vary", name})
}

// varyWith is a Vary with the name in it, once.
func varyWith(vary, name string) string {
	switch tokens := tokensOf([]string{vary}); {
	case len(tokens) == 0:
		return name
	case slices.Contains(tokens, "*"), slices.Contains(tokens, strings.ToLower(name)):
		return vary
	}
	return vary + ", " + name
}
