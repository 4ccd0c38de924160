package standin

import (
	"fmt"
	"net"
	"net/http"
	"strings"

	"github.com/gobwas/ws"
)

// django is a Django chat: it listens on 127.0.0.1 only and takes WebSockets at
// /<session>/<user> or /?token=…, so a gateway must remove its own prefix and
// leave the query alone.
type django struct{ node *Node }

// line is the answer to a text message: what the node saw of the address.
type line struct {
	Node    string `json:"node"`
	Session string `json:"session"`
	User    string `json:"user"`
	Query   string `json:"query"`
	Echo    string `json:"echo"`
}

// newDjango refuses addresses other than 127.0.0.1.
func newDjango(n *Node) (django, error) {
	host, _, err := net.SplitHostPort(n.options.Address)
	if err != nil || host != "127.0.0.1" {
		return django{}, fmt.Errorf("standin: a Django node listens on 127.0.0.1 only, not on %q", n.options.Address)
	}
	return django{n}, nil
}

// ServeHTTP implements http.Handler.
func (d django) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	seen, ok := d.address(r)
	switch {
	case !wantsWebSocket(r):
		d.node.refuse(w, http.StatusNotFound, "a stand-in Django chat has WebSockets only")
	case !ok:
		d.node.refuse(w, http.StatusNotFound, "the WebSocket is at /<session>/<user> or /?token=…; was a prefix left on?")
	default:
		d.webSocket(w, r, seen)
	}
}

// address takes the request's address apart, as it came.
func (d django) address(r *http.Request) (line, bool) {
	seen := line{Node: d.node.options.ID, Query: rawQuery(r)}
	path := rawPath(r)
	if path == "/" {
		return seen, r.URL.Query().Get("token") != ""
	}
	session, user, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	seen.Session, seen.User = session, user
	return seen, session != "" && user != "" && !strings.Contains(user, "/")
}

// webSocket echoes.
func (d django) webSocket(w http.ResponseWriter, r *http.Request, seen line) {
	s := d.node.upgrade(w, r, "")
	if s == nil {
		return
	}
	s.serve(func(m message) error {
		if m.op == ws.OpBinary {
			return s.end(ws.StatusUnsupportedData, "this chat is text")
		}
		answer := seen
		answer.Echo = string(m.payload)
		return s.text(encode(answer))
	})
}
