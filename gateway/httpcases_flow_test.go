package gateway

import (
	"strings"
	"testing"
)

// How requests follow each other on a connection, and what of them is for one
// hop only.
func TestHTTPFlowCases(t *testing.T) {
	get := func(headers string) string { return "GET /NODE/a HTTP/1.1|Host: h|" + headers + "||" }
	saw := func(headers string) string { return "GET /NODE/a HTTP/1.1|Host: h|" + headers + "||" }
	const post5 = "POST /NODE/a HTTP/1.1|Host: h|Content-Length: 5||hello"
	const postChunks = "POST /NODE/a HTTP/1.1|Host: h|Transfer-Encoding: chunked||5|hello|0||"
	const upgrade = "GET /NODE/a HTTP/1.1|Host: h|Connection: Upgrade|Upgrade: websocket|Sec-WebSocket-Version: 13|Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==||"
	const kept10 = "200 OK|Connection: keep-alive|Content-Length: 2||ok"
	const closed = "200 OK|Connection: close|Content-Length: 2||ok"
	cases := []httpCase{
		{name: "two requests", send: strings.Repeat(plainGet, 2), answers: 2, want: strings.Repeat(gotOK, 2), seen: strings.Repeat(sawGet, 2), lives: true},
		{name: "five requests", send: strings.Repeat(plainGet, 5), answers: 5, want: strings.Repeat(gotOK, 5), seen: strings.Repeat(sawGet, 5), lives: true},
		{name: "bodies between", send: plainGet + post5 + plainGet + postChunks + plainGet, answers: 5, want: strings.Repeat(gotOK, 5), seen: sawGet + hello5 + sawGet + helloChunks + sawGet, lives: true},
		{name: "a refusal between", send: plainGet + "GET /none/a HTTP/1.1|Host: h||" + plainGet, answers: 3, want: gotOK + "!404 node_unknown" + gotOK, seen: sawGet + sawGet, lives: true},
		{name: "an error between", send: plainGet + "GET /NODE/a HTTP/1.1|Host: h|X Y: z||" + plainGet, want: gotOK + refused, seen: sawGet},
		{name: "a broken body between", send: plainGet + up("Transfer-Encoding: chunked", "zz|hello|0||") + plainGet, want: gotOK + refused, seen: sawGet + unfinished},
		{name: "a close between", send: plainGet + get("Connection: close") + plainGet, want: gotOK + closed, seen: sawGet + sawGet, only: "at once"},
		{name: "a refused body between", send: plainGet + "POST /none/a HTTP/1.1|Host: h|Content-Length: 5||hello" + plainGet, want: gotOK + "!404 node_unknown close", seen: sawGet},
		{name: "an upgrade without its key between", send: plainGet + get("Connection: Upgrade|Upgrade: websocket|Sec-WebSocket-Version: 13") + plainGet, want: gotOK + "!400 bad_handshake close", seen: sawGet},
		{name: "an upgrade to a missing node between", send: plainGet + strings.ReplaceAll(upgrade, "/NODE/", "/none/") + plainGet, want: gotOK + "!404 node_unknown close", seen: sawGet},
		{name: "an offer of h2c is not taken", send: get("Connection: Upgrade, HTTP2-Settings|Upgrade: h2c|HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA"), want: gotOK, seen: sawGet, lives: true},
		{name: "an offer of TLS is not taken", send: get("Connection: Upgrade|Upgrade: TLS/1.2"), want: gotOK, seen: sawGet, lives: true},
		{name: "an offer of two", send: get("Connection: Upgrade|Upgrade: websocket, h2c"), want: "!400 bad_handshake close"},

		{name: "close", send: get("Connection: close"), want: closed, seen: sawGet},
		{name: "close in upper case", send: get("Connection: CLOSE"), want: closed, seen: sawGet},
		{name: "close among others", send: get("Connection: keep-alive, close"), want: closed, seen: sawGet},
		{name: "close in a second line", send: get("Connection: x|Connection: close"), want: closed, seen: sawGet},
		{name: "keep-alive", send: get("Connection: keep-alive"), want: gotOK, seen: sawGet, lives: true},
		{name: "a token like close", send: get("Connection: closed"), want: gotOK, seen: sawGet, lives: true},
		{name: "Connection names a header", send: get("Connection: x-a|X-A: b|X-B: c"), want: gotOK, seen: saw("X-B: c"), lives: true},
		{name: "Connection names two headers", send: get("Connection: X-A,x-b|x-a: b|X-B: c|X-C: d"), want: gotOK, seen: saw("X-C: d"), lives: true},
		{name: "Connection names headers in two lines", send: get("Connection: x-a|Connection: x-b|X-A: b|X-B: c"), want: gotOK, seen: sawGet, lives: true},
		{name: "Connection names Host", send: get("Connection: host"), want: gotOK, seen: sawGet, lives: true},
		{name: "Connection names Content-Length", send: up("Connection: content-length|Content-Length: 5", "hello"), want: gotOK, seen: hello5, lives: true},
		{name: "Connection names Transfer-Encoding", send: up("Connection: transfer-encoding|Transfer-Encoding: chunked", "5|hello|0||"), want: gotOK, seen: helloChunks, lives: true},
		{name: "Connection names what the gateway sets", send: get("Connection: x-forwarded-for, x-real-ip, forwarded, x-request-id, cdn-loop, x-forwarded-proto"), want: gotOK, seen: sawGet, lives: true},
		{name: "Connection names Cookie", send: get("Connection: cookie|Cookie: a=b"), want: gotOK, seen: sawGet, lives: true},
		{name: "Connection empty", send: get("Connection:"), want: gotOK, seen: sawGet, lives: true},
		{name: "Connection of commas", send: get("Connection: ,, ,"), want: gotOK, seen: sawGet, lives: true},
		{name: "headers of one hop", send: get("Keep-Alive: timeout=5|Proxy-Connection: keep-alive|TE: trailers|Trailer: X|Proxy-Authorization: Basic eDp5|X-A: b"), want: gotOK, seen: saw("X-A: b"), lives: true},
		{name: "forged headers", send: get("X-Forwarded-For: 10.0.0.1|X-Real-IP: 10.0.0.1|Forwarded: for=10.0.0.1|X_Forwarded_For: 10.0.0.1|X-Forwarded-Port: 1|X-Request-Id: mine|X-A: b"), want: gotOK, seen: saw("X-A: b"), lives: true},
		{name: "Range and conditions", send: get("If-Match: \"a\"|If-Modified-Since: Sat, 21 Nov 2026 00:00:00 GMT|If-None-Match: W/\"a\", \"b\"|If-Range: \"a\"|Range: bytes=0-1,5-"), want: gotOK, seen: saw("If-Match: \"a\"|If-Modified-Since: Sat, 21 Nov 2026 00:00:00 GMT|If-None-Match: W/\"a\", \"b\"|If-Range: \"a\"|Range: bytes=0-1,5-"), lives: true},
		{name: "cookies, credentials, encodings", send: get("Accept-Encoding: gzip, br|Authorization: Bearer x|Cookie: a=b; c=d|Origin: null|User-Agent: me"), want: gotOK, seen: "GET /NODE/a HTTP/1.1|Host: h|User-Agent: me|Accept-Encoding: gzip, br|Authorization: Bearer x|Cookie: a=b; c=d|Origin: null||", lives: true},
		{name: "names keep their case", send: get("aCCEPT: x|sOAPAction: y|x-lower: z"), want: gotOK, seen: saw("aCCEPT: x|sOAPAction: y|x-lower: z"), lives: true},

		{name: "HTTP/1.0", send: "GET /NODE/a HTTP/1.0|Host: h||", want: closed, seen: sawGet},
		{name: "HTTP/1.0 kept alive", send: "GET /NODE/a HTTP/1.0|Host: h|Connection: keep-alive||", want: kept10, seen: sawGet, lives: true},
		{name: "HTTP/1.0 kept alive in upper case", send: "GET /NODE/a HTTP/1.0|Host: h|Connection: Keep-Alive||", want: kept10, seen: sawGet, lives: true},
		{name: "HTTP/1.0 with a body", send: "POST /NODE/a HTTP/1.0|Host: h|Content-Length: 5||hello", want: closed, seen: hello5},
		{name: "HTTP/1.0 kept alive with a body", send: "POST /NODE/a HTTP/1.0|Host: h|Connection: keep-alive|Content-Length: 5||hello", want: kept10, seen: hello5, lives: true},
		{name: "HTTP/1.0 and an answer of unknown length", send: "GET /NODE/a HTTP/1.0|Host: h|Connection: keep-alive||", node: "HTTP/1.1 200 OK|Transfer-Encoding: chunked||5|hello|0||", want: "200 OK|Connection: close||hello", seen: sawGet},
		{name: "HTTP/1.0 and an answer until the end", send: "GET /NODE/a HTTP/1.0|Host: h||", node: "HTTP/1.1 200 OK||hello", ends: "closes", want: "200 OK|Connection: close||hello", seen: sawGet},
		{name: "HTTP/1.0 and a broken answer", send: "GET /NODE/a HTTP/1.0|Host: h||", node: "HTTP/1.1 200 OK|Transfer-Encoding: chunked||5|hello|5|he", ends: "closes", want: "200 OK|Connection: close||hellohe(reset)", seen: sawGet},
		{name: "HTTP/1.0 offers an upgrade", send: strings.Replace(upgrade, "HTTP/1.1", "HTTP/1.0", 1), want: "!400 bad_handshake close"},

		{name: "100-continue of a client that does not wait", send: up("Expect: 100-continue|Content-Length: 5", "hello"), want: "100 Continue||" + gotOK, seen: hello5, lives: true},
		{name: "100-continue with chunks", send: up("Expect: 100-Continue|Transfer-Encoding: chunked", "5|hello|0||"), want: "100 Continue||" + gotOK, seen: helloChunks, lives: true},
		{name: "100-continue in lower case", send: up("expect: 100-continue|Content-Length: 5", "hello"), want: "100 Continue||" + gotOK, seen: hello5, lives: true},
		{name: "100-continue of HTTP/1.0", send: "POST /NODE/a HTTP/1.0|Host: h|Expect: 100-continue|Content-Length: 5||hello", want: closed, seen: hello5},
		{name: "100-continue refused", send: "POST /none/a HTTP/1.1|Host: h|Expect: 100-continue|Content-Length: 5||hello", want: "!404 node_unknown close"},
		{name: "100-continue refused before the body", send: "POST /none/a HTTP/1.1|Host: h|Expect: 100-continue|Content-Length: 5||", want: "!404 node_unknown close"},
		{name: "100-continue and no body", send: get("Expect: 100-continue"), want: "100 Continue||" + gotOK, seen: sawGet, lives: true},
		{name: "100-continue and then nothing", send: up("Expect: 100-continue|Content-Length: 5", ""), alone: true, want: "100 Continue||" + refused, seen: unfinished},
		{name: "an unknown expectation", send: up("Expect: tea|Content-Length: 5", "hello"), want: "!417 expectation_failed close"},
		{name: "an unknown expectation without a body", send: get("Expect: tea"), want: "!417 expectation_failed close"},
		{name: "an expectation too many", send: up("Expect: 100-continue, tea|Content-Length: 5", "hello"), want: "!417 expectation_failed close"},
		{name: "an expectation twice", send: up("Expect: 100-continue|Expect: 100-continue|Content-Length: 5", "hello"), want: "!417 expectation_failed close"},
		{name: "an empty expectation", send: up("Expect:|Content-Length: 5", "hello"), want: "!417 expectation_failed close"},
		{name: "an unknown expectation of HTTP/1.0", send: "POST /NODE/a HTTP/1.0|Host: h|Expect: tea|Content-Length: 5||hello", want: closed, seen: hello5},

		{name: "an early answer", send: up("Content-Length: 50000", strings.Repeat("x", 20000)), node: "HTTP/1.1 401 Unauthorized|Content-Length: 2||no", early: true, want: "401 Unauthorized|Connection: close|Content-Length: 2||no", seen: unfinished},
	}
	runHTTPCases(t, cases)
}
