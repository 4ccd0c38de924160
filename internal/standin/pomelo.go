package standin

import (
	"bytes"
	"errors"
	"net"
	"net/http"
	"strconv"
	"sync"

	"github.com/gobwas/ws"
)

// The package types of Pomelo's binary protocol: one byte, then the length of
// the body in three, then the body.
const (
	pomeloHandshake    = 1
	pomeloHandshakeAck = 2
	pomeloHeartbeat    = 3
	pomeloData         = 4
)

// pomelo is a gate and a connector in one: data that names a gate's route gets
// the address of a connector, all other data comes back.
type pomelo struct{ node *Node }

// greeting answers a client's handshake package.
type greeting struct {
	Code int    `json:"code"`
	Node string `json:"node"`
	Sys  struct {
		Heartbeat int `json:"heartbeat"` // seconds
	} `json:"sys"`
}

// entry is a gate's answer: the connector the client is to use.
type entry struct {
	Code int    `json:"code"`
	Node string `json:"node"`
	Host string `json:"host"`
	Port int    `json:"port"`
}

// ServeHTTP implements http.Handler.
func (p pomelo) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case !wantsWebSocket(r):
		w.Header().Set("Upgrade", "websocket")
		p.node.refuse(w, http.StatusUpgradeRequired, "a Pomelo node takes WebSockets only")
	case r.URL.Path != "/":
		p.node.refuse(w, http.StatusNotFound, "the WebSocket is at / only")
	default:
		if s := p.node.upgrade(w, r, ""); s != nil {
			s.serve(func(m message) error { return p.answer(s, m) })
		}
	}
}

// answer answers one package.
func (p pomelo) answer(s *socket, m message) error {
	if m.op != ws.OpBinary {
		return s.end(ws.StatusUnsupportedData, "Pomelo is binary")
	}
	kind, body, ok := splitPackage(m.payload)
	if !ok {
		return s.end(ws.StatusProtocolError, "not a Pomelo package")
	}
	switch {
	case kind == pomeloHandshake:
		hello := greeting{Code: 200, Node: p.node.options.ID}
		hello.Sys.Heartbeat = 3
		return s.binary(joinPackage(pomeloHandshake, encode(hello)))
	case kind == pomeloHandshakeAck:
		return nil
	case kind == pomeloHeartbeat:
		return s.binary(joinPackage(pomeloHeartbeat, nil))
	case kind == pomeloData && bytes.Contains(body, []byte("gate.")):
		return s.binary(joinPackage(pomeloData, encode(p.entry())))
	}
	return s.binary(m.payload)
}

// entry names the connector that was configured, or this node.
func (p pomelo) entry() entry {
	address := p.node.options.Connector
	if address == "" {
		address = p.node.Addr()
	}
	host, service, _ := net.SplitHostPort(address)
	port, _ := strconv.Atoi(service)
	return entry{Code: 200, Node: p.node.options.ID, Host: host, Port: port}
}

// splitPackage takes a package apart. It reports false when the length does not
// fit.
func splitPackage(p []byte) (kind byte, body []byte, ok bool) {
	if len(p) < 4 {
		return 0, nil, false
	}
	length := int(p[1])<<16 | int(p[2])<<8 | int(p[3])
	return p[0], p[4:], length == len(p)-4
}

// joinPackage is the inverse of splitPackage, for bodies under 16 MiB.
func joinPackage(kind byte, body []byte) []byte {
	length := len(body)
	return append([]byte{kind, byte(length >> 16), byte(length >> 8), byte(length)}, body...)
}

// errNotHTTP is what reading a sniffed connection that is not HTTP returns.
var errNotHTTP = errors.New("standin: the first segment does not begin with an HTTP method")

// sniffed is a connection whose first read must begin with the first four bytes
// of an HTTP method: Pomelo serves raw TCP clients on the same port and decides
// by the first segment, so a request head that arrives in pieces is lost.
type sniffed struct {
	*connection
	once sync.Once
}

// Read implements net.Conn.
func (s *sniffed) Read(p []byte) (int, error) {
	n, err := s.connection.Read(p)
	s.once.Do(func() {
		if err == nil && !startsWithMethod(p[:n]) {
			n, err = 0, errNotHTTP
			_ = s.Close()
		}
	})
	return n, err
}

// startsWithMethod reports whether bytes begin as a request line does.
func startsWithMethod(b []byte) bool {
	if len(b) < 4 {
		return false
	}
	switch string(b[:4]) {
	case "GET ", "POST", "PUT ", "HEAD", "DELE", "OPTI", "PATC", "TRAC", "CONN":
		return true
	}
	return false
}
