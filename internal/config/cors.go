package config

import (
	"slices"
	"strings"
	"time"

	"singlegate/gateway"
)

// cors decodes which pages of other origins may use a route. A policy that names
// no methods or headers has the gateway's.
func (d *decoder) cors(v value) (*gateway.CORS, bool) {
	o, ok := d.object(v, "cors")
	if !ok {
		return nil, false
	}
	c := &gateway.CORS{Methods: gateway.DefaultCORSMethods(), Headers: gateway.DefaultCORSHeaders()}
	require(o, "origins", &c.Origins, d.corsOrigins)
	read(o, "methods", &c.Methods, d.words(checkMethod))
	read(o, "headers", &c.Headers, d.corsHeaders)
	read(o, "expose", &c.Expose, d.words(checkHeaderName))
	read(o, "credentials", &c.Credentials, d.boolean)
	if read(o, "max_age", &c.MaxAge, d.wait) && c.MaxAge < time.Second {
		d.fail(o.byKey["max_age"].value, "it is counted in whole seconds; write 1s or more, such as 10m")
	}
	o.done()
	if c.Credentials && slices.Contains(c.Origins, "*") {
		d.errorf(o.keyAt("credentials"), `credentials: browsers refuse them where origins is "*", which lets any page in; list the origins`)
	}
	if c.Credentials && slices.Contains(c.Expose, "*") {
		d.errorf(o.keyAt("expose"), `expose: with credentials "*" is a header of that name to browsers; list the headers`)
	}
	return c, true
}

// corsOrigins takes a list as origins does, or "*" without one.
func (d *decoder) corsOrigins(v value) ([]string, bool) {
	if s, ok := scalar(v.node); ok && s == "*" {
		return []string{"*"}, true
	}
	return d.origins(v)
}

// corsHeaders takes a list of names, or "*" for those that are asked for.
func (d *decoder) corsHeaders(v value) ([]string, bool) {
	if s, ok := scalar(v.node); ok && s == "*" {
		return []string{"*"}, true
	}
	names, ok := d.words(checkHeaderName)(v)
	if ok && len(names) > 1 && slices.Contains(names, "*") {
		d.fail(v, `"*" allows whichever headers are asked for and stands alone`)
		return nil, false
	}
	return names, ok
}

// words takes a list of words that check has nothing against.
func (d *decoder) words(check func(string) string) func(value) ([]string, bool) {
	return func(v value) ([]string, bool) {
		list, ok := filled(d, d.checked(check))(v)
		return valuesOf(list), ok
	}
}

func checkMethod(s string) string {
	switch {
	case s == "*":
		return "list the methods; browsers do not take * with credentials"
	case !gateway.IsToken(s):
		return "it is not a method"
	case s != strings.ToUpper(s):
		return "methods are compared by letter; write it in capitals"
	case s == "CONNECT" || s == "TRACE":
		return "browsers never send it, and the gateway takes none"
	}
	return ""
}

func checkHeaderName(s string) string {
	if !gateway.IsToken(s) {
		return "it is not the name of a header: letters, digits and -, without the colon"
	}
	return ""
}
