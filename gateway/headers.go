package gateway

import (
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// A field is one header line to be sent to a node, with the name's case kept.
type field struct{ name, value string }

// passedFields are the client's headers that go on to the node, in their order
// and case: all but those of this hop (RFC 9110 section 7.6.1), those the
// gateway makes itself or who authorises, and what only a trusted proxy may say.
func (r *request) passedFields() []field {
	named, made := tokensOf(r.headers("Connection")), r.state.auth.Headers(r.authRule())
	var fields []field
	for k, v := range r.ctx.Request.Header.AllInOrder() {
		name := string(k)
		lower := strings.ToLower(name)
		if ownHeader(lower) || forgedHeader(lower) || r.untrusted(lower) || alike(made, lower) || slices.Contains(named, lower) {
			continue
		}
		fields = append(fields, field{name, string(v)})
	}
	return fields
}

// nodeFields are those with the changes that the route asks for.
func (r *request) nodeFields() []field {
	return r.match.route.RequestHeaders.apply(r.passedFields())
}

// ownHeader: headers of one hop, and those the gateway writes anew.
func ownHeader(lower string) bool {
	switch lower {
	case "connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade",
		"proxy-authenticate", "proxy-authorization", "host", "content-length", "expect",
		"x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-real-ip", "forwarded", "x-request-id", "cdn-loop":
		return true
	}
	return false
}

// OwnHeader tells whether the gateway itself writes a header of that name, or
// drops it as one of a hop or a handshake, so that nothing else may set it.
func OwnHeader(name string) bool {
	lower := strings.ReplaceAll(strings.ToLower(name), "_", "-")
	return ownHeader(lower) || strings.HasPrefix(lower, "x-forwarded-") || strings.HasPrefix(lower, "sec-websocket-")
}

// forgedHeader spots names that differ from a protected one only by underscores
// for hyphens: many servers cannot tell these apart.
func forgedHeader(lower string) bool {
	if !strings.Contains(lower, "_") {
		return false
	}
	plain := strings.ReplaceAll(lower, "_", "-")
	return ownHeader(plain) || strings.HasPrefix(plain, "x-forwarded-")
}

// untrusted: the rest of the X-Forwarded family, and what only the gateway says of
// clients' certificates.
func (r *request) untrusted(lower string) bool {
	return !r.trusted && strings.HasPrefix(lower, "x-forwarded-") || r.state.ofCertificate(lower)
}

// forwardedFields tell the node about the client. They are made from the peer;
// what a trusted proxy said is kept and added to.
func (r *request) forwardedFields() []field {
	peer := r.conn.peer.Addr().String()
	proto, host := "http", r.rawHost
	if r.conn.secure {
		proto = "https"
	}
	chain, forwarded := peer, forwardedElement(r.conn.peer.Addr(), r.rawHost, proto)
	if r.trusted {
		chain = appended(r.headers("X-Forwarded-For"), peer)
		forwarded = appended(r.headers("Forwarded"), forwarded)
		proto = firstOr(r.headers("X-Forwarded-Proto"), proto)
		host = firstOr(r.headers("X-Forwarded-Host"), host)
	}
	fields := []field{
		{"X-Forwarded-For", chain},
		{"X-Forwarded-Proto", proto},
		{"X-Real-IP", r.client.String()},
		{"Forwarded", forwarded},
		{"X-Request-Id", r.id},
		{loopHeader, r.hops()},
	}
	if host != "" { // HTTP/1.0 may have none
		fields = append(fields, field{"X-Forwarded-Host", host})
	}
	return append(fields, r.certificateFields()...)
}

func appended(values []string, last string) string {
	return strings.Join(append(values, last), ", ")
}

func firstOr(values []string, otherwise string) string {
	if len(values) > 0 && values[0] != "" {
		return values[0]
	}
	return otherwise
}

// forwardedElement is one element of a Forwarded header (RFC 7239 section 4).
func forwardedElement(peer netip.Addr, host, proto string) string {
	by := peer.String()
	if peer.Is6() {
		by = `"[` + by + `]"`
	}
	if host != "" {
		by += `;host="` + host + `"`
	}
	return "for=" + by + ";proto=" + proto
}

// upstreamHeader is the header of a proxied HTTP request. Names keep their case;
// an empty User-Agent keeps net/http from inventing one.
func (r *request) upstreamHeader() http.Header {
	h := http.Header{"User-Agent": {""}}
	for _, f := range slices.Concat(r.nodeFields(), r.forwardedFields(), r.authFields()) {
		name := f.name
		if strings.EqualFold(name, "User-Agent") {
			h["User-Agent"] = []string{f.value}
			continue
		}
		h[name] = append(h[name], f.value)
	}
	return h
}

// handshakeHead is the head of a WebSocket handshake to a node, for one write.
// No header of the client can remove or double what the gateway sets.
func (r *request) handshakeHead(target, key string) []byte {
	var b strings.Builder
	b.WriteString("GET " + target + " HTTP/1.1\r\nHost: " + r.upstreamHost() + "\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n")
	for _, f := range slices.Concat(r.handshakeFields(key), r.forwardedFields(), r.authFields()) {
		b.WriteString(f.name + ": " + f.value + "\r\n")
	}
	b.WriteString("\r\n")
	return []byte(b.String())
}

// handshakeFields pass the client's headers on; those of the handshake itself
// cannot be taken away by being named in Connection.
func (r *request) handshakeFields(key string) []field {
	fields := []field{{"Sec-WebSocket-Version", "13"}, {"Sec-WebSocket-Key", key}}
	for _, v := range r.protocolsForNode() {
		fields = append(fields, field{"Sec-WebSocket-Protocol", v})
	}
	for _, v := range r.headers("Sec-WebSocket-Extensions") {
		fields = append(fields, field{"Sec-WebSocket-Extensions", v})
	}
	for _, f := range r.nodeFields() {
		switch strings.ToLower(f.name) {
		case "sec-websocket-version", "sec-websocket-key", "sec-websocket-protocol", "sec-websocket-extensions":
		default:
			fields = append(fields, f)
		}
	}
	return fields
}

// hopHeader: headers of a node's answer that concern only its own connection.
func hopHeader(name string) bool {
	switch strings.ToLower(name) {
	case "connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade", "proxy-authenticate":
		return true
	}
	return false
}

// answerFields are the headers of a node's answer that go on to the client.
func answerFields(h http.Header) []field {
	named := tokensOf(h["Connection"])
	var fields []field
	for name, values := range h {
		if hopHeader(name) || slices.Contains(named, strings.ToLower(name)) || name == "Content-Length" {
			continue
		}
		if !IsToken(name) {
			continue // net/http passes names with spaces
		}
		for _, v := range values {
			fields = append(fields, field{name, printable(v)})
		}
	}
	return fields
}

// IsToken tells whether s is a token (RFC 9110 section 5.6.2), as the names of
// headers and methods are.
func IsToken(s string) bool {
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c >= 0x7f || strings.IndexByte(`"(),/:;<=>?@[\]{}`, c) >= 0 {
			return false
		}
	}
	return s != ""
}

// printable has a space for every control byte but the tab: none of them may
// split what we write.
func printable(s string) string {
	if strings.IndexFunc(s, isSplitting) < 0 {
		return s
	}
	return strings.Map(func(c rune) rune {
		if isSplitting(c) {
			return ' '
		}
		return c
	}, s)
}

func isSplitting(c rune) bool { return c < ' ' && c != '\t' || c == 0x7f }
