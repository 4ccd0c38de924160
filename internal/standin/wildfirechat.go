package standin

import (
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/gobwas/ws"
)

// mqttLevel is the protocol level in a WildfireChat client's CONNECT.
const mqttLevel = 6

// The MQTT packets a stand-in knows (MQTT 3.1.1, sections 3.1, 3.2, 3.12).
const (
	mqttAccepted = "\x20\x02\x00\x00"
	mqttRefused  = "\x20\x02\x00\x01" // unacceptable protocol version
	mqttPing     = "\xc0\x00"
	mqttPong     = "\xd0\x00"
)

// wildfirechat dispatches over HTTP and talks MQTT over WebSocket. Unlike the
// real system its answers are readable.
type wildfirechat struct{ node *Node }

// call is the answer to POST /im/…: what reached the node.
type call struct {
	Node    string            `json:"node"`
	Path    string            `json:"path"`
	Headers map[string]string `json:"headers"`
	Body    string            `json:"body"`
}

// upload is the answer to PUT /fs/….
type upload struct {
	Node  string `json:"node"`
	Path  string `json:"path"`
	Bytes int64  `json:"bytes"`
}

// ServeHTTP implements http.Handler.
func (f wildfirechat) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := r.URL.Path
	switch {
	case wantsWebSocket(r):
		f.webSocket(w, r)
	case path == "/route" && r.Method == http.MethodPost:
		f.route(w)
	case path == "/api/version" && r.Method == http.MethodGet:
		f.node.version(w)
	case strings.HasPrefix(path, "/im/") && r.Method == http.MethodPost:
		f.call(w, r)
	case strings.HasPrefix(path, "/fs/") && r.Method == http.MethodPut:
		f.upload(w, r)
	default:
		f.node.refuse(w, http.StatusNotFound, "a stand-in WildfireChat node has POST /route, GET /api/version, POST /im/… and PUT /fs/…")
	}
}

// route names the node a client is to connect to: always this one.
func (f wildfirechat) route(w http.ResponseWriter) {
	answerJSON(w, http.StatusOK, struct {
		Node string `json:"node"`
		Port uint16 `json:"port"`
	}{f.node.options.ID, f.node.Port()})
}

// call tells the client which of its headers arrived.
func (f wildfirechat) call(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxMessage))
	if err != nil {
		f.node.refuse(w, http.StatusRequestEntityTooLarge, "the body is incomplete or has more than 1 MiB")
		return
	}
	headers := make(map[string]string)
	for _, name := range []string{"p", "cid", "uid", "appId", "appKey"} {
		headers[name] = r.Header.Get(name)
	}
	answerJSON(w, http.StatusOK, call{f.node.options.ID, rawPath(r), headers, string(body)})
}

// upload counts a file of any size without keeping it.
func (f wildfirechat) upload(w http.ResponseWriter, r *http.Request) {
	size, err := io.Copy(io.Discard, r.Body)
	if err != nil {
		f.node.refuse(w, http.StatusBadRequest, "the upload is incomplete")
		return
	}
	answerJSON(w, http.StatusOK, upload{f.node.options.ID, rawPath(r), size})
}

// webSocket serves MQTT at "/".
func (f wildfirechat) webSocket(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/" {
		f.node.refuse(w, http.StatusNotFound, "the WebSocket is at / only")
		return
	}
	if !slices.Contains(offered(r), "mqtt") {
		f.node.refuse(w, http.StatusBadRequest, "the WebSocket needs subprotocol mqtt")
		return
	}
	if s := f.node.upgrade(w, r, "mqtt"); s != nil {
		s.serve(func(m message) error { return answerMQTT(s, m) })
	}
}

// answerMQTT answers one packet; MQTT allows binary messages only.
func answerMQTT(s *socket, m message) error {
	switch {
	case m.op != ws.OpBinary:
		return s.end(ws.StatusUnsupportedData, "MQTT is binary")
	case string(m.payload) == mqttPing:
		return s.binary([]byte(mqttPong))
	case len(m.payload) == 0 || m.payload[0] != 0x10:
		return s.binary(m.payload)
	case connectLevel(m.payload) == mqttLevel:
		return s.binary([]byte(mqttAccepted))
	}
	if err := s.binary([]byte(mqttRefused)); err != nil {
		return err
	}
	return s.end(ws.StatusNormalClosure, "not a CONNECT of level 6")
}

// connectLevel returns the protocol level in a CONNECT packet, 0 when there is
// none: type, remaining length in 1 to 4 bytes, a name with its 16-bit length,
// then the level.
func connectLevel(packet []byte) byte {
	rest := packet[min(1, len(packet)):]
	for i := 0; ; i++ {
		if i == 4 || i == len(rest) {
			return 0
		}
		if rest[i] < 0x80 {
			rest = rest[i+1:]
			break
		}
	}
	if len(rest) < 2 {
		return 0
	}
	name := int(rest[0])<<8 | int(rest[1])
	if len(rest) < 2+name+1 {
		return 0
	}
	return rest[2+name]
}
