package gateway

import (
	"crypto/tls"
	"errors"
	"slices"
	"strings"
)

// A Challenge answers the requests by which an ACME server verifies a name (RFC
// 8555 section 8.3): host has no port, path is the whole one. Requests for which
// it is false go on to the routes. It is called by many at a time, and may wait
// for a few seconds.
type Challenge func(host, path string) (answer string, ok bool)

// challengePath begins the paths of such requests, maxChallengePath bounds them.
const (
	challengePath    = "/.well-known/acme-challenge/"
	maxChallengePath = 256
)

// isChallenge asks about a request that looks like a challenge. Such a request is
// nobody's who could be authorised, and comes by whatever listener has the port.
func (r *request) isChallenge() bool {
	if r.server.challenge == nil || r.method != "GET" && r.method != "HEAD" || r.websocket ||
		len(r.path) > maxChallengePath || !strings.HasPrefix(r.path, challengePath) {
		return false
	}
	r.answer, r.answered = r.server.challenge(r.host, r.path)
	return r.answered
}

// serveChallenge answers it.
func (r *request) serveChallenge() *problem {
	r.ctx.Response.Header.SetContentType("text/plain")
	r.ctx.Response.SetBodyString(r.answer)
	r.finishOwn()
	return nil
}

// challengeProtocol is the only protocol of handshakes that are challenges (RFC
// 8737): the connection is of no use after them.
const challengeProtocol = "acme-tls/1"

var errChallengeDone = errors.New("the handshake was an ACME server's, to verify a name")

// forChallenge tells whether a configuration was made for such a handshake.
func forChallenge(cfg *tls.Config) bool {
	return cfg != nil && slices.Equal(cfg.NextProtos, []string{challengeProtocol})
}

// ungated is cfg for handshakes that hold a place of the gate: one that is a
// challenge gives it back while the answer is looked for, which may take seconds.
func ungated(cfg *tls.Config) *tls.Config {
	if cfg == nil || cfg.GetConfigForClient == nil {
		return cfg
	}
	own := cfg.Clone()
	own.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		conn, gated := hello.Conn.(*gatedConn)
		if !gated || !slices.Equal(hello.SupportedProtos, []string{challengeProtocol}) {
			return cfg.GetConfigForClient(hello)
		}
		conn.leave()
		chosen, err := cfg.GetConfigForClient(hello)
		if again := conn.enter(); err == nil {
			err = again
		}
		return chosen, err
	}
	return own
}
