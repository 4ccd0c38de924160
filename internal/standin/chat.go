package standin

import (
	"net/http"

	"github.com/gobwas/ws"
)

// chat is the demo's system: a WebSocket echo on every path, with whatever
// subprotocol the client offers first, and three small HTTP answers.
type chat struct{ node *Node }

// opened is the first message of a chat's WebSocket.
type opened struct {
	Node     string `json:"node"`
	Event    string `json:"event"`
	Path     string `json:"path"`
	Query    string `json:"query,omitempty"`
	Protocol string `json:"protocol"`
}

// echoed answers a text message.
type echoed struct {
	Node string `json:"node"`
	Echo string `json:"echo"`
}

// ServeHTTP implements http.Handler.
func (c chat) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case wantsWebSocket(r):
		c.webSocket(w, r)
	case r.URL.Path == "/api/version":
		c.node.version(w)
	case r.URL.Path == "/":
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = w.Write([]byte("This is " + c.node.options.ID + ", a stand-in chat node.\n"))
	default:
		c.node.refuse(w, http.StatusNotFound, "a stand-in chat node has no such path")
	}
}

// webSocket greets and echoes.
func (c chat) webSocket(w http.ResponseWriter, r *http.Request) {
	s := c.node.upgrade(w, r, firstOffered(r))
	if s == nil {
		return
	}
	id := c.node.options.ID
	hello := opened{Node: id, Event: "open", Path: rawPath(r), Query: rawQuery(r), Protocol: s.protocol}
	_ = s.text(encode(hello)) // a client that is gone already ends serve
	s.serve(func(m message) error {
		if m.op == ws.OpBinary {
			return s.binary(m.payload)
		}
		return s.text(encode(echoed{id, string(m.payload)}))
	})
}
