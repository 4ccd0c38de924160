package gateway

import (
	"encoding/json"
	"errors"
	"net"
	"strconv"
	"strings"

	"github.com/valyala/fasthttp"

	"singlegate/gateway/checkpage"
)

// servePage serves the connection check page below its path.
func (r *request) servePage() *problem {
	if r.method != "GET" && r.method != "HEAD" {
		return methodRefused(r.method)
	}
	if r.match.rest == "" {
		return r.redirect(r.path + "/" + r.query)
	}
	name := strings.TrimPrefix(r.match.rest, "/")
	body, contentType, ok := checkpage.Asset(name)
	if name == "nodes.json" {
		body, contentType, ok = r.checkEntries(), "application/json; charset=utf-8", true
	}
	if !ok {
		return notFound()
	}
	h := &r.ctx.Response.Header
	h.SetContentType(contentType)
	h.Set("Cache-Control", "no-cache")
	protect(h, checkPagePolicy)
	r.ctx.Response.SetBody(body)
	r.finishOwn()
	return nil
}

// A checkEntry is one address that the page tries.
type checkEntry struct {
	Service string `json:"service"`
	Node    string `json:"node"`
	Route   string `json:"route"`
	URL     string `json:"url"`
	Kind    string `json:"kind"`
}

// checkEntries lists what can be reached through the listener that the page
// came by: each node of pinned routes, and routes for WebSockets alone.
func (r *request) checkEntries() []byte {
	list := struct {
		Gateway string       `json:"gateway"`
		Entries []checkEntry `json:"entries"`
	}{"singlegate", []checkEntry{}}
	for _, route := range r.state.table.routes {
		if route.Service == "" || !route.takes(r.listener.Name, true) {
			continue
		}
		switch {
		case route.pinned():
			list.Entries = append(list.Entries, r.pinnedEntries(route)...)
		case route.Accept == AcceptWebSocket:
			list.Entries = append(list.Entries, checkEntry{route.Service, "", route.name, r.entryURL(route, ""), "websocket"})
		}
	}
	body, _ := json.MarshalIndent(list, "", " ")
	return body
}

func (r *request) pinnedEntries(route *route) []checkEntry {
	view := r.state.table.view
	if view == nil || view.Services[route.Service] == nil {
		return nil
	}
	var entries []checkEntry
	for _, n := range view.Services[route.Service].Nodes() {
		name := n.ID
		if len(n.Names) > 0 {
			name = n.Names[0] // clients use the name that the site gave
		}
		entries = append(entries, checkEntry{route.Service, n.ID, route.name, r.entryURL(route, name), "websocket"})
	}
	return entries
}

// entryURL is the public address of a route: a path when it is on every host,
// else a whole URL.
func (r *request) entryURL(route *route, node string) string {
	path := route.path.of(node)
	if route.Host == "" {
		return path
	}
	scheme, standard := "ws", uint16(80)
	if r.conn.secure {
		scheme, standard = "wss", 443
	}
	host := strings.ReplaceAll(route.Host, nodeVariable, strings.ToLower(node))
	if port := r.listener.public.Port; port != standard {
		host = net.JoinHostPort(host, strconv.Itoa(int(port)))
	}
	return scheme + "://" + host + path
}

// serveRedirect answers with the address that the route names.
func (r *request) serveRedirect() *problem {
	target := r.match.route.Redirect
	if target == "https" {
		if r.host == "" && r.state.cfg.Public.Host == "" {
			return badRequest(errNoHost)
		}
		target = "https://" + r.secureHost() + r.path + r.query
	}
	return r.redirect(target)
}

var errNoHost = errors.New("it names no host that it could be redirected to")

// secureHost is the request's host with the port of the TLS entry.
func (r *request) secureHost() string {
	host := r.host
	if host == "" {
		host = r.state.cfg.Public.Host
	}
	if port := r.state.securePort; port != 0 && port != 443 {
		return net.JoinHostPort(host, strconv.Itoa(int(port)))
	}
	if strings.Contains(host, ":") {
		return "[" + host + "]"
	}
	return host
}

// redirect sends the client elsewhere for good; a method with a body is kept.
func (r *request) redirect(location string) *problem {
	status := fasthttp.StatusPermanentRedirect
	if r.method == "GET" || r.method == "HEAD" {
		status = fasthttp.StatusMovedPermanently
	}
	r.ctx.Response.SetStatusCode(status)
	r.ctx.Response.Header.Set("Location", location)
	protect(&r.ctx.Response.Header, nothingPolicy)
	r.finishOwn()
	return nil
}
