package livecheck

import (
	"context"
	"net/http"
)

// A use is what a node's port is there for.
type use int

const (
	useTCP use = iota // nothing is known of what it speaks
	useHTTP
	useWebSocket
)

// node dials a node directly, as the gateway does. Where HTTP or WebSockets are
// to be spoken any HTTP answer shows that the port is the right one.
func (p *prober) node(ctx context.Context, t target, u use, path string) Finding {
	conn, f := p.open(ctx, t)
	if f != nil {
		return *f
	}
	defer conn.Close()
	if u == useTCP {
		return fine(nodeListens)
	}
	headers := []string{"Accept: " + acceptJSON, "Connection: close"}
	if u == useWebSocket {
		headers = upgrade{}.headers(newKey(), knownSubprotocols)
	}
	a, f := ask(conn, t, requestHead(t, path, headers...))
	switch {
	case f != nil && f.Code == nodeCut && p.speaksTLS(ctx, t):
		return failure(nodeIsTLS, "address", t.address)
	case f != nil && f.Code == nodeSilent && u == useHTTP:
		f.Mark = Warn // some paths hold requests
		return *f
	case f != nil:
		return *f
	case a.tlsPort:
		return failure(nodeIsTLS, "address", t.address)
	}
	if a.StatusCode == http.StatusSwitchingProtocols {
		goodbye(ctx, conn, a)
		return fine(nodeSwitches)
	}
	return a.reached(nodeAnswers)
}

// speaksTLS tells whether a port that hung up on HTTP takes a TLS handshake:
// many servers say nothing about the difference.
func (p *prober) speaksTLS(ctx context.Context, t target) bool {
	t.tls = true
	conn, f := p.open(ctx, t)
	if f == nil {
		conn.Close()
		return true
	}
	return f.Code == tlsRefused // it answered in TLS, with an alert
}
