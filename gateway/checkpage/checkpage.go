// Package checkpage holds the connection check page: the page an operator opens
// in a browser to see, for every entry point of the gateway, whether a WebSocket
// opens, and if not, why.
//
// The page is static. It uses relative addresses only, so it works under any
// path that ends with "/", and needs beside it a nodes.json that the gateway
// serves:
//
//	{"gateway": "singlegate", "entries": [
//	  {"service": "im", "node": "node1", "route": "/ws/{node}", "url": "wss://im.example.gov/ws/node1", "kind": "websocket"}]}
//
// where url is absolute or begins with "/", for the page's own host; kind is
// "websocket" or "http"; and node is empty where the gateway picks one. It has no
// inline script or style and loads nothing from elsewhere: it runs under
//
//	default-src 'self'; connect-src 'self' ws: wss: http: https:
//
// The package imports the standard library only.
package checkpage

import (
	"embed"
	"path"
)

//go:embed check.html check.css check.js probe.js view.js strings.json icon.svg
var files embed.FS // read-only

// Asset returns the file of the page under name ("" and "index.html": the page
// itself), its content type and whether there is one. The caller owns body. It
// may be called concurrently.
func Asset(name string) (body []byte, contentType string, ok bool) {
	if name == "" || name == "index.html" {
		name = "check.html"
	}
	body, err := files.ReadFile(name)
	if err != nil {
		return nil, "", false
	}
	return body, contentTypeOf(name), true
}

// contentTypeOf knows the page's own files, whatever the machine's table of
// types says.
func contentTypeOf(name string) string {
	switch path.Ext(name) {
	case ".html":
		return "text/html; charset=utf-8"
	case ".css":
		return "text/css; charset=utf-8"
	case ".js":
		return "text/javascript; charset=utf-8"
	case ".json":
		return "application/json"
	}
	return "image/svg+xml"
}
