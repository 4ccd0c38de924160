package gateway

import (
	"encoding/json"
	"encoding/xml"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
)

// PageHostMeta is the Page that tells XMPP clients where BOSH and WebSocket are
// (XEP-0156), made of the routes of those kinds. HostMetaPaths are the paths of
// its route: XML, and JSON where the path ends with .json.
const PageHostMeta = "host_meta"

// HostMetaPaths gives the paths that clients ask for.
func HostMetaPaths() []string {
	return []string{"/.well-known/host-meta", "/.well-known/host-meta.json"}
}

// serveHostMeta answers with the routes that can be reached over TLS.
func (r *request) serveHostMeta() *problem {
	if r.method != "GET" && r.method != "HEAD" {
		return methodRefused(r.method)
	}
	if r.match.rest != "" && r.match.rest != "/" {
		return notFound()
	}
	links, contentType := r.hostMetaLinks(), "application/xrd+xml; charset=utf-8"
	body := links.xml()
	if strings.HasSuffix(r.match.route.path.text, ".json") {
		body, contentType = links.json(), "application/json; charset=utf-8"
	}
	h := &r.ctx.Response.Header
	h.SetContentType(contentType)
	h.Set("Cache-Control", "no-cache")
	h.Set("X-Content-Type-Options", "nosniff")
	r.ctx.Response.SetBody(body)
	r.finishOwn()
	return nil
}

// hostMetaCORS lets every page read it, as XEP-0156 wants.
func hostMetaCORS() *CORS {
	return &CORS{Origins: []string{"*"}, Methods: []string{"GET", "HEAD"}}
}

type hostMetaLink struct {
	XMLName xml.Name `xml:"Link" json:"-"`
	Rel     string   `xml:"rel,attr" json:"rel"`
	Href    string   `xml:"href,attr" json:"href"`
}

type hostMetaLinks []hostMetaLink

func (l hostMetaLinks) xml() []byte {
	body, _ := xml.MarshalIndent(struct {
		XMLName xml.Name `xml:"http://docs.oasis-open.org/ns/xri/xrd-1.0 XRD"`
		Links   []hostMetaLink
	}{Links: l}, "", "  ")
	return append([]byte(xml.Header), append(body, '\n')...)
}

func (l hostMetaLinks) json() []byte {
	body, _ := json.MarshalIndent(struct {
		Links []hostMetaLink `json:"links"`
	}{append([]hostMetaLink{}, l...)}, "", "  ")
	return append(body, '\n')
}

// hostMetaLinks are those of the routes, WebSocket first. There is none for a
// pinned route, which has no single URL. Where the host that was asked has routes
// of its own, those of other hosts are not its.
func (r *request) hostMetaLinks() hostMetaLinks {
	var sockets, polls hostMetaLinks
	routes := r.state.table.routes
	own := slices.ContainsFunc(routes, func(o *route) bool { return o.Kind != "" && o.Host != "" && o.Host == r.host })
	for _, route := range routes {
		scheme, ok := route.hostMetaScheme()
		if !ok || own && route.Host != "" && route.Host != r.host {
			continue
		}
		origin, ok := r.secureOrigin(route)
		if !ok {
			continue
		}
		if href := scheme + "://" + origin + route.path.text; route.Kind == KindXMPP {
			sockets = append(sockets, hostMetaLink{Rel: "urn:xmpp:alt-connections:websocket", Href: href})
		} else {
			polls = append(polls, hostMetaLink{Rel: "urn:xmpp:alt-connections:xbosh", Href: href})
		}
	}
	return slices.Concat(sockets, polls)
}

func (r *route) hostMetaScheme() (scheme string, ok bool) {
	switch {
	case r.pinned():
		return "", false
	case r.Kind == KindXMPP:
		return "wss", true
	case r.Kind == KindBOSH:
		return "https", true
	}
	return "", false
}

// secureOrigin is the public host, and port where it is not 443, at which a route
// is reached over TLS: by the listener of the request, or else the first with TLS
// that serves the route; or what a trusted proxy that ends TLS says of itself.
func (r *request) secureOrigin(route *route) (origin string, ok bool) {
	public, ok := r.securePublic(route)
	if !ok {
		proto, host := r.publicOrigin()
		return host, proto == "https" && host != "" && route.Host == "" && route.on(r.listener.Name)
	}
	host := route.Host
	if host == "" {
		host = r.host
	}
	if host == "" {
		host = public.Host
	}
	if host == "" {
		return "", false
	}
	if public.Port != 443 {
		return net.JoinHostPort(host, strconv.Itoa(int(public.Port))), true
	}
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	return host, true
}

func (r *request) securePublic(route *route) (public Public, ok bool) {
	serves := func(s *listenerSettings) bool { return s.TLS && s.implied == nil && route.on(s.Name) }
	if serves(r.listener) {
		return r.listener.public, true
	}
	for _, s := range r.state.secure {
		if serves(s) {
			return s.public, true
		}
	}
	return Public{}, false
}

// hostMetaWarnings warns of pages that tell clients of nothing.
func hostMetaWarnings(cfg *Config) (warnings []string) {
	offered := slices.ContainsFunc(cfg.Routes, func(r Route) bool {
		return r.Kind != "" && !strings.Contains(r.Host, nodeVariable) &&
			slices.ContainsFunc(r.Paths, func(p string) bool { return !strings.Contains(p, nodeVariable) })
	})
	for _, r := range cfg.Routes {
		if r.Page == PageHostMeta && !offered {
			warnings = append(warnings, fmt.Sprintf("%s: page: host_meta tells clients of nothing: no route is of kind bosh or xmpp, but for pinned ones, which have no single address", r.At))
		}
	}
	return warnings
}
