package livecheck

import (
	"context"
	"crypto/rand"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/gobwas/ws"
)

// An upgrade is a WebSocket handshake to try, and what explains its failure.
type upgrade struct {
	target
	path      string
	sent      string // the path that the gateway asks the node for
	prefix    string // what a rewrite would have removed; "": there is one, or nothing to remove
	origin    string
	byClose   bool   // the route refuses by closing
	httpToo   bool   // the route is for HTTP as well
	guarded   bool   // the route's auth may send strangers to a login
	languages string // Accept-Language
}

// knownSubprotocols are offered where a handshake without one was refused.
const knownSubprotocols = "mqtt, xmpp"

// webSocket tries a handshake. One that is opened counts, whatever the server
// does then: it cannot know us.
func (p *prober) webSocket(ctx context.Context, u upgrade) Finding {
	f, again := p.tryUpgrade(ctx, u, "")
	if again {
		if second, _ := p.tryUpgrade(ctx, u, knownSubprotocols); second.Mark == OK {
			return second
		}
	}
	if f.Code == upgradeNotFound || f.Code == upgradePrefix || f.Code == upgradePlainHTTP {
		return p.orOnlyHTTP(ctx, u, f)
	}
	return f
}

// orOnlyHTTP takes a refusal for what it may be on a route for both kinds: the
// route of a node that has no WebSocket, and answers HTTP there.
func (p *prober) orOnlyHTTP(ctx context.Context, u upgrade, refusal Finding) Finding {
	if !u.httpToo {
		return refusal
	}
	a, f := p.get(ctx, u.target, u.path, acceptJSON)
	if f != nil || a.StatusCode >= 400 {
		return refusal
	}
	return warning(upgradeOnlyHTTP, "status", a.status())
}

// tryUpgrade makes one handshake. again: with another subprotocol it may work.
func (p *prober) tryUpgrade(ctx context.Context, u upgrade, subprotocols string) (f Finding, again bool) {
	conn, fault := p.open(ctx, u.target)
	if fault != nil {
		return *fault, false
	}
	defer conn.Close()
	key := newKey()
	a, fault := ask(conn, u.target, requestHead(u.target, u.path, u.headers(key, subprotocols)...))
	switch {
	case fault != nil:
		return *fault, false
	case a.StatusCode != http.StatusSwitchingProtocols:
		return u.refusal(a), a.gateway == "" && a.StatusCode >= 400 && a.StatusCode < 500
	case !strings.EqualFold(a.Header.Get("Upgrade"), "websocket") || a.Header.Get("Sec-WebSocket-Accept") != acceptFor(key):
		return failure(upgradeBadSwitch), false
	}
	return u.opened(a, goodbye(ctx, conn, a)), false
}

func (u upgrade) headers(key, subprotocols string) []string {
	list := []string{"Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: " + key, "Accept: " + acceptJSON}
	if subprotocols != "" {
		list = append(list, "Sec-WebSocket-Protocol: "+subprotocols)
	}
	if u.origin != "" {
		list = append(list, "Origin: "+u.origin)
	}
	if u.languages != "" {
		list = append(list, "Accept-Language: "+u.languages)
	}
	return list
}

// refusal says what an answer other than 101 means.
func (u upgrade) refusal(a *answer) Finding {
	if f := a.problem(); f != nil {
		return *f
	}
	if a.tlsPort {
		return failure(nodeIsTLS, "address", u.address)
	}
	pairs := []string{"status", a.status(), "path", u.sent, "prefix", u.prefix, "location", a.location()}
	switch s := a.StatusCode; {
	case s == http.StatusUnauthorized || s == http.StatusForbidden:
		return fine(wantsLogin, pairs...)
	case s == http.StatusNotFound && u.prefix != "":
		return failure(upgradePrefix, pairs...)
	case s == http.StatusNotFound:
		return failure(upgradeNotFound, pairs...)
	case s >= 500 && s != http.StatusNotImplemented:
		return failure(upgradeError, pairs...)
	case u.guarded && s >= 300 && s < 400:
		return fine(wantsLogin, pairs...)
	case s >= 300 && s < 400:
		return failure(upgradeRedirected, pairs...)
	case s < 300 || s == http.StatusMethodNotAllowed || s == http.StatusNotImplemented:
		return failure(upgradePlainHTTP, pairs...)
	}
	return failure(upgradeRejected, pairs...)
}

// An ending is how a WebSocket was closed.
type ending struct {
	code   uint16 // 0: no close frame came
	reason string
	ended  bool // the connection ended
}

// opened is the finding of a 101 and what came after it.
func (u upgrade) opened(a *answer, e ending) Finding {
	pairs := []string{"code", strconv.Itoa(int(e.code)), "reason", e.reason, "protocol", a.Header.Get("Sec-WebSocket-Protocol")}
	switch {
	case u.byClose && e.code == uint16(statusTryAgain):
		return failure(upgradeRefused, pairs...)
	case u.byClose && e.code == uint16(ws.StatusPolicyViolation):
		return warning(upgradePolicy, pairs...)
	case e.code != 0 && e.code != uint16(ws.StatusNormalClosure) && e.code != uint16(ws.StatusNoStatusRcvd):
		return fine(switchedClosed, pairs...)
	case e.code == 0 && e.ended:
		return fine(switchedEnded, pairs...)
	case a.Header.Get("Sec-WebSocket-Protocol") != "":
		return fine(switchedFor, pairs...)
	}
	return fine(switched, pairs...)
}

// statusTryAgain is 1013 of the registry of close codes.
const statusTryAgain ws.StatusCode = 1013

// Bounds of a goodbye.
const (
	goodbyeTime = 2 * time.Second
	maxFrames   = 64
)

// goodbye closes the WebSocket and waits, for a bounded time, for the server's
// side of it.
func goodbye(ctx context.Context, conn net.Conn, a *answer) ending {
	end := time.Now().Add(goodbyeTime)
	if all, ok := ctx.Deadline(); ok && all.Before(end) {
		end = all
	}
	conn.SetDeadline(end)
	frame := ws.MaskFrameInPlace(ws.NewCloseFrame(ws.NewCloseFrameBody(ws.StatusNormalClosure, "")))
	ws.WriteFrame(conn, frame) // a server that is gone already shows when reading
	for range maxFrames {
		header, err := ws.ReadHeader(a.reader)
		if err != nil {
			return ending{ended: !isTimeout(err)}
		}
		if header.OpCode == ws.OpClose && header.Length <= ws.MaxControlFramePayloadSize {
			return readClose(a.reader, int(header.Length))
		}
		if _, err := io.CopyN(io.Discard, a.reader, header.Length); err != nil {
			return ending{ended: !isTimeout(err)}
		}
	}
	return ending{}
}

func readClose(r io.Reader, length int) ending {
	body := make([]byte, length)
	if _, err := io.ReadFull(r, body); err != nil {
		return ending{ended: true}
	}
	if length < 2 {
		return ending{code: uint16(ws.StatusNoStatusRcvd)}
	}
	return ending{code: binary.BigEndian.Uint16(body), reason: string(body[2:])}
}

func newKey() string {
	var b [16]byte
	rand.Read(b[:])
	return base64.StdEncoding.EncodeToString(b[:])
}

// acceptFor is the Sec-WebSocket-Accept that answers a key (RFC 6455 section 4.2.2).
func acceptFor(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}
