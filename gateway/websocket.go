package gateway

import (
	"context"
	"net"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/gobwas/ws"

	"singlegate/gateway/relay"
	"singlegate/upstream"
)

// serveWebSocket makes the handshake with the node first and then, as the node
// chose, with the client; then the relay has both legs. A node that refuses is
// answered for like any HTTP answer.
func (r *request) serveWebSocket() *problem {
	if p := r.checkHandshake(); p != nil {
		return p
	}
	if !r.originAllowed() {
		return originRefused()
	}
	x := r.begin()
	up, p := x.upgrade()
	if p != nil {
		x.end()
		return p
	}
	if up.Conn == nil {
		r.ctx.Response.SetConnectionClose() // the client may have sent frames already
		r.conn.linger.Store(true)
		context.AfterFunc(x.ctx, func() { up.Answer.Body.Close() })
		p := x.accept(up.Answer)
		if p != nil {
			x.end()
		}
		return p
	}
	r.takeOver(x, up)
	return nil
}

// originAllowed: without a list every origin is, as is a client that sends none
// (it is no browser, against whom the check would be no defence).
func (r *request) originAllowed() bool {
	allowed := r.match.route.Origins
	origins := r.headers("Origin")
	if len(allowed) == 0 || len(origins) == 0 || slices.Contains(allowed, "*") {
		return true
	}
	return len(origins) == 1 && slices.ContainsFunc(allowed, func(o string) bool { return strings.EqualFold(o, origins[0]) })
}

// upgrade makes the handshake with a node of the route.
func (x *exchange) upgrade() (*upstream.Upgraded, *problem) {
	r := x.r
	x.notWaiting() // the handshake has limits of its own
	pick := r.tunnelPicker()
	key := r.headers("Sec-WebSocket-Key")[0]
	head := r.handshakeHead(r.match.path+r.query, key)
	timeouts := r.match.route.Timeouts
	for {
		lease, addr, p := pick.next()
		if p != nil {
			return nil, p
		}
		x.lease = lease
		up, err := r.server.upstream.Upgrade(upstream.ToNode(x.ctx, lease.Node), upstream.Upgrade{
			Addr: addr, Head: head, Key: key, Connect: timeouts.Connect, Answer: timeouts.Handshake,
		})
		if err == nil {
			lease.Worked()
			return up, nil
		}
		err = x.causeOf(err)
		if nodeFailed(err) {
			lease.Failed()
		}
		if !upstream.DialFailed(err) {
			return nil, upstreamProblem(err)
		}
		lease.Done()
		pick.failed(err)
	}
}

// takeOver gives the client its 101 and both legs to the relay. Until then the
// client's connection owns the node's: whatever ends the one ends the other.
func (r *request) takeOver(x *exchange, up *upstream.Upgraded) {
	r.exchange = nil
	lease := x.lease
	x.lease = nil // the tunnel's from now on
	x.end()
	t := r.newTunnel(relay.WebSocket, lease, up.Conn)
	t.rules, t.reserved = r.match.route.rules, reservedBits(up.Answer.Header)
	r.conn.hold(t)
	fields := slices.Concat(answerFields(up.Answer.Header), r.ownProtocol(up.Answer.Header.Get("Sec-WebSocket-Protocol")))
	head := switchHead(r.match.route.ResponseHeaders.apply(fields))
	r.ctx.HijackSetNoResponse(true)
	r.ctx.Hijack(r.server.owned(r.conn, func(hijacked net.Conn) {
		early, err := r.conn.buffered(hijacked)
		if err == nil {
			_, err = r.conn.Write(head)
		}
		if err != nil {
			r.conn.Close()
			return
		}
		client := relay.Leg{Conn: r.conn.detach(), Early: early}
		t.start(client, relay.Leg{Conn: up.Conn, Early: up.Early})
	}))
}

// switchHead is the 101 for the client.
func switchHead(fields []field) []byte {
	var b strings.Builder
	b.WriteString("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n")
	for _, f := range fields {
		b.WriteString(wireName(f.name) + ": " + f.value + "\r\n")
	}
	b.WriteString("\r\n")
	return []byte(b.String())
}

// wireName undoes net/http's spelling of WebSocket headers, which some clients
// compare by letter.
func wireName(name string) string {
	if rest, ok := strings.CutPrefix(name, "Sec-Websocket-"); ok {
		return "Sec-WebSocket-" + rest
	}
	return name
}

// refuseByClose accepts a valid handshake that cannot be served and closes it
// with the reason, on routes that ask for that: mini-programs and browsers do
// not see the status of a refused handshake.
func (r *request) refuseByClose(p *problem) bool {
	if r.match.route == nil || r.match.route.Refuse != RefuseClose || r.checkHandshake() != nil {
		return false
	}
	frames := r.refusal(p)
	conn := r.conn
	r.ctx.HijackSetNoResponse(true)
	r.ctx.Hijack(r.server.owned(conn, func(net.Conn) {
		conn.Conn.SetWriteDeadline(time.Now().Add(lingerTime))
		conn.Conn.Write(frames)
		conn.linger.Store(true)
		conn.Close()
	}))
	r.logRefusal(p)
	return true
}

// refusal is a 101 and a Close frame, for one write.
func (r *request) refusal(p *problem) []byte {
	var b strings.Builder
	b.WriteString("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " +
		upstream.AcceptFor(r.headers("Sec-WebSocket-Key")[0]) + "\r\n")
	for _, offered := range r.headers("Sec-WebSocket-Protocol") {
		first, _, _ := strings.Cut(offered, ",")
		b.WriteString("Sec-WebSocket-Protocol: " + strings.TrimSpace(first) + "\r\n")
		break
	}
	b.WriteString("\r\n")
	reason := p.text(prefersChinese(headerOf(r.ctx, "Accept-Language")))
	body := ws.NewCloseFrameBody(ws.StatusCode(p.closeCode()), truncated(reason, 123))
	frame, err := ws.CompileFrame(ws.NewCloseFrame(body))
	if err != nil {
		return []byte(b.String())
	}
	return append([]byte(b.String()), frame...)
}

// truncated cuts s to at most n bytes, between characters.
func truncated(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
