package standin

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gobwas/ws"
)

const (
	maxSessions = 1024 // BOSH sessions of a node; more: 503
	defaultHold = time.Second
)

// xmpp is an XMPP server's HTTP side: BOSH at /http-bind and WebSocket at
// /xmpp-websocket. It echoes stanzas and knows no users.
type xmpp struct {
	node *Node

	mu       sync.Mutex
	created  int                      // sessions so far
	sessions map[string]chan struct{} // by sid; closed to let go the request that is held
}

// bodyElement is a BOSH <body/> as far as the stand-in reads it.
type bodyElement struct {
	XMLName xml.Name `xml:"http://jabber.org/protocol/httpbind body"`
	SID     string   `xml:"sid,attr"`
	Type    string   `xml:"type,attr"`
	Stanzas string   `xml:",innerxml"`
}

func newXMPP(n *Node) *xmpp {
	return &xmpp{node: n, sessions: make(map[string]chan struct{})}
}

// ServeHTTP implements http.Handler.
func (x *xmpp) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := r.URL.Path
	switch {
	case !x.knows(r.Host):
		x.node.refuse(w, http.StatusNotFound, "this host is not served here; the Host header names the virtual host")
	case wantsWebSocket(r) && path == "/xmpp-websocket":
		x.webSocket(w, r)
	case path == "/http-bind" || path == "/http-bind/":
		x.bosh(w, r)
	default:
		x.node.refuse(w, http.StatusNotFound, "a stand-in XMPP node has /http-bind and /xmpp-websocket")
	}
}

// knows reports whether host, with or without a port, is a virtual host.
func (x *xmpp) knows(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	hosts := x.node.options.Hosts
	return len(hosts) == 0 || slices.ContainsFunc(hosts, func(h string) bool { return strings.EqualFold(h, host) })
}

// bosh answers one BOSH request, with CORS headers of the server's own.
func (x *xmpp) bosh(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Access-Control-Allow-Origin", "*")
	h.Set("Access-Control-Allow-Methods", "POST, OPTIONS")
	h.Set("Access-Control-Allow-Headers", "Content-Type")
	switch r.Method {
	case http.MethodOptions:
		w.WriteHeader(http.StatusNoContent)
	case http.MethodPost:
		x.boshBody(w, r)
	default:
		h.Set("Allow", "POST, OPTIONS")
		x.node.refuse(w, http.StatusMethodNotAllowed, "BOSH is POST")
	}
}

// boshBody answers a <body/>: a new session, the end of one, an echo of
// stanzas, or, after a hold, nothing.
func (x *xmpp) boshBody(w http.ResponseWriter, r *http.Request) {
	body, err := readBody(http.MaxBytesReader(w, r.Body, maxMessage))
	if err != nil {
		x.node.refuse(w, http.StatusBadRequest, err.Error())
		return
	}
	if body.SID == "" {
		x.create(w)
		return
	}
	release, ok := x.take(body.SID, body.Type == "terminate")
	switch {
	case !ok:
		answerXML(w, httpBindBody("type='terminate' condition='item-not-found'", ""))
	case body.Type == "terminate":
		answerXML(w, httpBindBody("type='terminate'", ""))
	case strings.TrimSpace(body.Stanzas) != "":
		answerXML(w, httpBindBody("sid='"+escape(body.SID)+"'", body.Stanzas))
	case x.hold(r, release):
		answerXML(w, httpBindBody("sid='"+escape(body.SID)+"'", ""))
	}
}

// create answers with a new session, whose sid tells the node.
func (x *xmpp) create(w http.ResponseWriter) {
	x.mu.Lock()
	full := len(x.sessions) >= maxSessions
	x.created++
	sid := fmt.Sprintf("%s-%d", x.node.options.ID, x.created)
	if !full {
		x.sessions[sid] = make(chan struct{})
	}
	x.mu.Unlock()
	if full {
		x.node.refuse(w, http.StatusServiceUnavailable, "too many sessions")
		return
	}
	answerXML(w, httpBindBody("sid='"+escape(sid)+"' wait='60' requests='2' hold='1' ver='1.11'", ""))
}

// take lets go the request that the session holds and returns what will let go
// the caller's. The session is dropped when it is over.
func (x *xmpp) take(sid string, over bool) (<-chan struct{}, bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	held, ok := x.sessions[sid]
	if !ok {
		return nil, false
	}
	close(held)
	next := make(chan struct{})
	x.sessions[sid] = next
	if over {
		delete(x.sessions, sid)
	}
	return next, true
}

// hold waits for the session's next request or for the configured time, and
// reports false when the client has gone.
func (x *xmpp) hold(r *http.Request, release <-chan struct{}) bool {
	limit := x.node.options.Hold
	if limit <= 0 {
		limit = defaultHold
	}
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-release:
	case <-timer.C:
	case <-r.Context().Done():
		return false
	}
	return true
}

// webSocket serves the framing of RFC 7395.
func (x *xmpp) webSocket(w http.ResponseWriter, r *http.Request) {
	if !slices.Contains(offered(r), "xmpp") {
		x.node.refuse(w, http.StatusBadRequest, "the WebSocket needs subprotocol xmpp")
		return
	}
	if s := x.node.upgrade(w, r, "xmpp"); s != nil {
		s.serve(func(m message) error { return x.answerFrame(s, r.Host, m) })
	}
}

// answerFrame answers <open/> and <close/> in kind and echoes stanzas.
func (x *xmpp) answerFrame(s *socket, host string, m message) error {
	const framing = " xmlns='urn:ietf:params:xml:ns:xmpp-framing'"
	if m.op != ws.OpText {
		return s.end(ws.StatusUnsupportedData, "XMPP is text")
	}
	switch elementName(m.payload) {
	case "open":
		open := "<open" + framing + " version='1.0' from='" + escape(host) + "' id='" + escape(x.node.options.ID) + "'/>"
		return s.text([]byte(open))
	case "close":
		if err := s.text([]byte("<close" + framing + "/>")); err != nil {
			return err
		}
		return s.end(ws.StatusNormalClosure, "")
	}
	return s.text(m.payload)
}

// readBody reads a request's <body/>.
func readBody(r io.Reader) (bodyElement, error) {
	var body bodyElement
	if err := xml.NewDecoder(r).Decode(&body); err != nil {
		return body, errors.New("the request is not a <body/> of http://jabber.org/protocol/httpbind")
	}
	return body, nil
}

// elementName returns the name of the first element, "" when there is none.
func elementName(text []byte) string {
	decoder := xml.NewDecoder(strings.NewReader(string(text)))
	for {
		token, err := decoder.Token()
		if err != nil {
			return ""
		}
		if start, ok := token.(xml.StartElement); ok {
			return start.Name.Local
		}
	}
}

// httpBindBody builds a <body/> out of attributes and stanzas that are XML.
func httpBindBody(attributes, stanzas string) string {
	return "<body xmlns='http://jabber.org/protocol/httpbind' " + attributes + ">" + stanzas + "</body>"
}

// answerXML writes a whole BOSH answer.
func answerXML(w http.ResponseWriter, body string) {
	w.Header().Set("Content-Type", "text/xml; charset=utf-8")
	w.Header().Set("Content-Length", fmt.Sprint(len(body)))
	_, _ = io.WriteString(w, body)
}

// escape makes text fit for an attribute.
func escape(text string) string {
	var out strings.Builder
	_ = xml.EscapeText(&out, []byte(text))
	return out.String()
}
