package standin

import (
	"crypto/sha1"
	"encoding/base64"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"
)

// acceptGUID is appended to a handshake's key (RFC 6455, section 1.3).
const acceptGUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

// wantsWebSocket reports whether a request asks for an upgrade.
func wantsWebSocket(r *http.Request) bool {
	return hasToken(r.Header.Values("Connection"), "upgrade") && r.Header.Get("Upgrade") != ""
}

// upgrade answers a handshake (RFC 6455, section 4.2) with 101 and the chosen
// subprotocol, "" for none, and hands over the socket. It has answered the
// request itself when it returns nil.
func (n *Node) upgrade(w http.ResponseWriter, r *http.Request, protocol string) *socket {
	if status, fault := handshakeFault(r); fault != "" {
		w.Header().Set("Upgrade", "websocket")
		w.Header().Set("Sec-WebSocket-Version", "13")
		n.refuse(w, status, fault)
		return nil
	}
	conn, buffered, err := w.(http.Hijacker).Hijack()
	if err != nil {
		n.refuse(w, http.StatusInternalServerError, "the connection cannot be taken over")
		return nil
	}
	s := &socket{conn: conn, reader: buffered.Reader, protocol: protocol, silence: n.options.CloseSilentAfter}
	if err := s.accept(n.options.ID, r.Header.Get("Sec-WebSocket-Key")); err != nil {
		_ = conn.Close()
		return nil
	}
	return s
}

// accept writes the head of the 101 answer.
func (s *socket) accept(node, key string) error {
	head := "HTTP/1.1 101 Switching Protocols\r\n" +
		"Upgrade: websocket\r\n" +
		"Connection: Upgrade\r\n" +
		"Sec-WebSocket-Accept: " + acceptKey(key) + "\r\n" +
		"X-Node: " + node + "\r\n"
	if s.protocol != "" {
		head += "Sec-WebSocket-Protocol: " + s.protocol + "\r\n"
	}
	_ = s.conn.SetDeadline(time.Time{}) // the HTTP server's own deadlines end here
	return s.write(net.Buffers{[]byte(head + "\r\n")})
}

// handshakeFault says what is wrong with a handshake: a status and a reason, or
// an empty reason.
func handshakeFault(r *http.Request) (int, string) {
	key, err := base64.StdEncoding.DecodeString(r.Header.Get("Sec-WebSocket-Key"))
	switch {
	case r.Method != http.MethodGet:
		return http.StatusMethodNotAllowed, "a WebSocket handshake is a GET"
	case !hasToken(r.Header.Values("Upgrade"), "websocket"):
		return http.StatusUpgradeRequired, "the only upgrade is websocket"
	case r.Header.Get("Sec-WebSocket-Version") != "13":
		return http.StatusUpgradeRequired, "the only WebSocket version is 13"
	case err != nil || len(key) != 16:
		return http.StatusBadRequest, "Sec-WebSocket-Key is not 16 bytes in base64"
	}
	return 0, ""
}

// acceptKey returns the Sec-WebSocket-Accept that proves a key was understood.
func acceptKey(key string) string {
	sum := sha1.Sum([]byte(key + acceptGUID))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// offered returns the subprotocols a client offers, in its order.
func offered(r *http.Request) []string {
	return listed(r.Header.Values("Sec-WebSocket-Protocol"))
}

// firstOffered returns the first subprotocol offered, "" without any.
func firstOffered(r *http.Request) string {
	if names := offered(r); len(names) > 0 {
		return names[0]
	}
	return ""
}

// hasToken reports whether a comma-separated header names token in any case.
func hasToken(values []string, token string) bool {
	return slices.ContainsFunc(listed(values), func(t string) bool { return strings.EqualFold(t, token) })
}

// listed splits comma-separated header values.
func listed(values []string) []string {
	var out []string
	for _, value := range values {
		for part := range strings.SplitSeq(value, ",") {
			if part = strings.TrimSpace(part); part != "" {
				out = append(out, part)
			}
		}
	}
	return out
}
