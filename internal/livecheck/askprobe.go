package livecheck

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
)

// A target is where a request goes: an address to dial, and how it is named
// there.
type target struct {
	role    role
	address string // host:port to dial
	tls     bool
	host    string      // name for TLS and the Host header
	header  string      // Host header, with a port where it is not the usual one
	verify  *tls.Config // with tls: verify as this says; nil: nothing is verified
}

// open dials the target, with TLS where it has TLS. The certificates are not
// looked at: that is done once per name.
func (p *prober) open(ctx context.Context, t target) (net.Conn, *Finding) {
	conn, f := p.dial(ctx, t.address, t.role)
	if f != nil || !t.tls {
		return conn, f
	}
	if t.verify != nil {
		secure := tls.Client(conn, t.verify)
		if err := secure.HandshakeContext(ctx); err != nil {
			conn.Close()
			f := failure(nodeTLSFailed, "address", t.address, "error", rootCause(err))
			return nil, &f
		}
		return secure, nil
	}
	secure, err := handshake(ctx, conn, t.host)
	if err != nil {
		conn.Close()
		f := handshakeFailure(err, t.host, t.address)
		return nil, &f
	}
	return secure, nil
}

// Bounds of what is read of an answer.
const (
	maxAnswer = 256 << 10
	maxBody   = 16 << 10
)

// An answer is the head of an HTTP answer. Its reader continues behind it.
type answer struct {
	*http.Response
	reader  *bufio.Reader
	gateway string // the code of an error that the gateway itself made
	tlsPort bool   // it says that the port wants TLS
	ownTLS  bool   // in the words of a gateway's listener
}

// ask sends a request head and reads the head of the answer.
func ask(conn net.Conn, t target, head string) (*answer, *Finding) {
	if _, err := io.WriteString(conn, head); err != nil {
		f := brokenOff(err, t)
		return nil, &f
	}
	reader := bufio.NewReader(io.LimitReader(conn, maxAnswer))
	if f := notHTTP(reader, t); f != nil {
		return nil, f
	}
	resp, err := http.ReadResponse(reader, nil)
	if err != nil {
		f := brokenOff(err, t)
		return nil, &f
	}
	a := &answer{Response: resp, reader: reader}
	if resp.StatusCode >= 400 {
		a.readError()
	}
	return a, nil
}

// brokenOff says how a conversation ended before there was an answer.
func brokenOff(err error, t target) Finding {
	switch {
	case isTimeout(err):
		return failure(t.role.code(gatewaySilent, nodeSilent), "address", t.address)
	case isCut(err):
		return failure(t.role.code(gatewayCut, nodeCut), "address", t.address)
	}
	return failure(t.role.code(gatewayNotHTTP, nodeNotHTTP), "address", t.address, "first", err.Error())
}

// notHTTP looks at the first bytes of what should be an HTTP answer.
func notHTTP(r *bufio.Reader, t target) *Finding {
	const start = "HTTP/"
	first, err := r.Peek(len(start))
	var f Finding
	switch {
	case strings.HasPrefix(string(first), "SSH-"):
		f = failure(t.role.code(gatewayNotHTTP, nodeIsSSH), "address", t.address, "first", "SSH")
	case len(first) > 1 && (first[0] == 0x15 || first[0] == 0x16) && first[1] == 3: // TLS alert, handshake
		f = failure(t.role.code(gatewayNotHTTP, nodeIsTLS), "address", t.address, "first", "TLS")
	case len(first) == 0 || strings.HasPrefix(start, string(first)) && err != nil:
		f = brokenOff(err, t)
	case string(first) != start:
		some, _ := r.Peek(min(r.Buffered(), 16))
		f = failure(t.role.code(gatewayNotHTTP, nodeNotHTTP), "address", t.address, "first", string(some))
	default:
		return nil
	}
	return &f
}

// readError looks into the body of an error: for the gateway's own code, which
// comes with a request id that the header repeats, and for the words of a port
// that wants TLS.
func (a *answer) readError() {
	body, _ := io.ReadAll(io.LimitReader(a.Body, maxBody))
	var own struct {
		Error     string `json:"error"`
		RequestID string `json:"request_id"`
	}
	if json.Unmarshal(body, &own) == nil && own.RequestID != "" && own.RequestID == a.Header.Get("X-Request-Id") {
		a.gateway = own.Error
	}
	text := strings.ToLower(string(body))
	a.tlsPort = a.StatusCode == http.StatusBadRequest && strings.Contains(text, "http") &&
		(strings.Contains(text, "https server") || strings.Contains(text, "https port") ||
			strings.Contains(text, "ssl-enabled") || strings.Contains(text, "requires tls"))
	a.ownTLS = a.StatusCode == http.StatusBadRequest && strings.HasPrefix(text, "this port speaks tls: use https://")
	a.tlsPort = a.tlsPort || a.ownTLS
}

func (a *answer) status() string { return strconv.Itoa(a.StatusCode) }

// location is where a redirect leads, without what may be secret in it.
func (a *answer) location() string { return withoutSecrets(a.Header.Get("Location")) }

// withoutSecrets leaves the query, the fragment and the user out of a URL.
func withoutSecrets(u string) string {
	cut := strings.IndexAny(u, "?#")
	if cut >= 0 {
		u = u[:cut] + "?…"
	}
	if scheme, rest, ok := strings.Cut(u, "://"); ok {
		authority, path, _ := strings.Cut(rest, "/")
		if at := strings.LastIndexByte(authority, '@'); at >= 0 {
			authority = authority[at+1:]
		}
		u = scheme + "://" + authority
		if path != "" || strings.HasSuffix(rest, "/") {
			u += "/" + path
		}
	}
	return u
}

// problem is what an error of the gateway's own means; nil: it is none.
func (a *answer) problem() *Finding {
	code, mark := gatewayError, Fail
	switch a.gateway {
	case "":
		if !a.ownTLS {
			return nil
		}
		code = gatewayIsTLS
	case "bad_request", "bad_handshake": // what was sent is neither
		code = gatewayBadRequest
	case "no_route":
		code = noSuchRoute
	case "node_unknown":
		code = nodeNotKnown
	case "node_down":
		code = gatewayNodeDown
	case "node_draining":
		code, mark = gatewayDraining, Warn
	case "address_refused":
		code, mark = gatewayAddress, Warn
	case "no_node", "no_node_reached":
		code = gatewayNoNode
	case "no_snapshot":
		code = gatewayNoSnapshot
	case "token_missing":
		code, mark = wantsToken, OK
	case "upstream_failed":
		code = gatewayBadAnswer
	case "upstream_timeout":
		code = gatewaySlowNode
	}
	f := found(mark, code, "status", a.status(), "code", a.gateway)
	return &f
}

// requestHead is a GET without a body.
func requestHead(t target, path string, headers ...string) string {
	var b strings.Builder
	b.WriteString("GET " + path + " HTTP/1.1\r\nHost: " + t.header + "\r\nUser-Agent: singlegate-check\r\n")
	for _, h := range headers {
		b.WriteString(h + "\r\n")
	}
	b.WriteString("\r\n")
	return b.String()
}
