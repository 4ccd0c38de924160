package gateway

import (
	"strings"
	"testing"
)

// What nodes answer, well and badly.
func TestHTTPAnswerCases(t *testing.T) {
	var cases []httpCase
	serve := func(name, node, want string) {
		cases = append(cases, httpCase{name: name, node: node, want: want, seen: sawGet, lives: true})
	}
	refuse := func(name, node string) {
		cases = append(cases, httpCase{name: name, node: node, ends: "closes", want: failed, seen: sawGet, lives: true})
	}
	cut := func(name, node, want string) {
		cases = append(cases, httpCase{name: name, node: node, ends: "closes", want: want, seen: sawGet})
	}

	serve("usual", plainOK, gotOK)
	serve("headers with spaces around", "HTTP/1.1 200 OK|Content-Length:  2  |X: \t y ||ok", "200 OK|Content-Length: 2|X: y||ok")
	serve("a reason of its own", "HTTP/1.1 299 Quite Fine|Content-Length: 2||ok", "299 Quite Fine|Content-Length: 2||ok")
	serve("an empty reason", "HTTP/1.1 200 |Content-Length: 2||ok", gotOK)
	serve("no reason", "HTTP/1.1 200|Content-Length: 2||ok", gotOK)
	serve("a reason with control bytes", "HTTP/1.1 200 O\x01K\x7f|Content-Length: 2||ok", "200 O K |Content-Length: 2||ok")
	serve("a status nobody knows", "HTTP/1.1 999 Nine|Content-Length: 2||ok", "999 Nine|Content-Length: 2||ok")
	serve("a redirect", "HTTP/1.1 302 Found|Location: /b|Content-Length: 0||", "302 Found|Content-Length: 0|Location: /b||")
	serve("401 with a challenge", "HTTP/1.1 401 Unauthorized|WWW-Authenticate: Basic realm=\"x\"|WWW-Authenticate: Bearer|Content-Length: 2||no", "401 Unauthorized|Content-Length: 2|Www-Authenticate: Basic realm=\"x\"|Www-Authenticate: Bearer||no")
	serve("500", "HTTP/1.1 500 Oh|Content-Length: 2||no", "500 Oh|Content-Length: 2||no")
	serve("503 with Retry-After", "HTTP/1.1 503 Later|Retry-After: 7|Content-Length: 2||no", "503 Later|Content-Length: 2|Retry-After: 7||no")
	serve("cookies", "HTTP/1.1 200 OK|Set-Cookie: a=b; Path=/|Set-Cookie: c=d; HttpOnly|Content-Length: 2||ok", "200 OK|Content-Length: 2|Set-Cookie: a=b; Path=/|Set-Cookie: c=d; HttpOnly||ok")
	serve("the same cookie twice", "HTTP/1.1 200 OK|Set-Cookie: a=b; Path=/|Set-Cookie: a=c; Path=/x|Content-Length: 2||ok", "200 OK|Content-Length: 2|Set-Cookie: a=b; Path=/|Set-Cookie: a=c; Path=/x||ok")
	serve("a header twice", "HTTP/1.1 200 OK|X: 1|X: 2|Content-Length: 2||ok", "200 OK|Content-Length: 2|X: 1|X: 2||ok")
	serve("its server and type", "HTTP/1.1 200 OK|Server: me|Content-Type: text/x; a=b|Content-Encoding: gzip|Vary: a|Content-Length: 2||ok", "200 OK|Content-Encoding: gzip|Content-Length: 2|Content-Type: text/x; a=b|Server: me|Vary: a||ok")
	serve("ETag", "HTTP/1.1 200 OK|ETag: \"a\"|Last-Modified: Sat, 21 Nov 2026 00:00:00 GMT|Accept-Ranges: bytes|Content-Length: 2||ok", "200 OK|Accept-Ranges: bytes|Content-Length: 2|Etag: \"a\"|Last-Modified: Sat, 21 Nov 2026 00:00:00 GMT||ok")
	serve("206", "HTTP/1.1 206 Partial Content|Content-Range: bytes 0-1/5|Content-Length: 2||he", "206 Partial Content|Content-Length: 2|Content-Range: bytes 0-1/5||he")
	const ranges = "206 Partial Content|Content-Length: 29|Content-Type: multipart/byteranges; boundary=b||--b|||h|--b|||l|--b--"
	serve("206 of several ranges", "HTTP/1.1 "+ranges, ranges)
	serve("416", "HTTP/1.1 416 Range Not Satisfiable|Content-Range: bytes */5|Content-Length: 0||", "416 Range Not Satisfiable|Content-Length: 0|Content-Range: bytes */5||")
	serve("412", "HTTP/1.1 412 Precondition Failed|Content-Length: 0||", "412 Precondition Failed|Content-Length: 0||")
	serve("304", "HTTP/1.1 304 Not Modified|ETag: \"a\"||", "304 Not Modified|Etag: \"a\"||")
	serve("304 with a length", "HTTP/1.1 304 Not Modified|ETag: \"a\"|Content-Length: 77||", "304 Not Modified|Etag: \"a\"||")
	serve("204", "HTTP/1.1 204 No Content|X: y||", "204 No Content|X: y||")
	serve("204 with length zero", "HTTP/1.1 204 No Content|Content-Length: 0||", "204 No Content||")
	serve("205", "HTTP/1.1 205 Reset Content|Content-Length: 0||", "205 Reset Content|Content-Length: 0||")
	serve("empty", "HTTP/1.1 200 OK|Content-Length: 0||", "200 OK|Content-Length: 0||")
	serve("chunks", "HTTP/1.1 200 OK|Transfer-Encoding: chunked||5|hello|0||", "200 OK|Transfer-Encoding: chunked||5|hello|0||")
	serve("chunks with extensions", "HTTP/1.1 200 OK|Transfer-Encoding: chunked||5;a=b|hello|0;c||", "200 OK|Transfer-Encoding: chunked||5|hello|0||")
	serve("chunks of nothing", "HTTP/1.1 200 OK|Transfer-Encoding: chunked||0||", "200 OK|Transfer-Encoding: chunked||0||")
	serve("chunks in other letters", "HTTP/1.1 200 OK|transfer-encoding: CHUNKED||5|hello|0||", "200 OK|Transfer-Encoding: chunked||5|hello|0||")
	serve("trailers", "HTTP/1.1 200 OK|Trailer: X-T|Transfer-Encoding: chunked||5|hello|0|X-T: 1||", "200 OK|Transfer-Encoding: chunked||5|hello|0||")
	serve("lengths that agree", "HTTP/1.1 200 OK|Content-Length: 2|Content-Length: 2||ok", gotOK)
	serve("length and chunks: chunks count", "HTTP/1.1 200 OK|Content-Length: 2|Transfer-Encoding: chunked||5|hello|0||", "200 OK|Transfer-Encoding: chunked||5|hello|0||")
	serve("only LF", "HTTP/1.1 200 OK\nContent-Length: 2\nX: y\n\nok", "200 OK|Content-Length: 2|X: y||ok")
	serve("a folded header", "HTTP/1.1 200 OK|X: y|  z|Content-Length: 2||ok", "200 OK|Content-Length: 2|X: y z||ok")
	serve("a byte above ASCII", "HTTP/1.1 200 OK|X: 文|Content-Length: 2||ok", "200 OK|Content-Length: 2|X: 文||ok")
	serve("hop-by-hop headers", "HTTP/1.1 200 OK|Connection: x-a|X-A: b|Keep-Alive: timeout=5|Proxy-Authenticate: x|Upgrade: h2c|TE: x|Content-Length: 2||ok", gotOK)
	serve("Connection names Content-Length", "HTTP/1.1 200 OK|Connection: content-length|Content-Length: 2||ok", gotOK)
	serve("100 before", "HTTP/1.1 100 Continue||"+plainOK, gotOK)
	serve("102 before", "HTTP/1.1 102 Processing||"+plainOK, gotOK)
	serve("103 several times", strings.Repeat("HTTP/1.1 103 Early Hints|Link: </a>||", 3)+plainOK, gotOK)
	serve("100 with a length", "HTTP/1.1 100 Continue|Content-Length: 5||"+plainOK, gotOK)
	serve("until the end of HTTP/1.0", "HTTP/1.0 200 OK|Content-Length: 2||ok", gotOK)
	serve("an event stream", "HTTP/1.1 200 OK|Content-Type: text/event-stream|Transfer-Encoding: chunked||c|data: hello\n|0||", "200 OK|Content-Type: text/event-stream|Transfer-Encoding: chunked||c|data: hello\n|0||")

	// What follows an answer is never another one, nor is a body where there is none.
	const evil = "HTTP/1.1 200 OK|Content-Length: 4||evil"
	serve("a second answer behind", plainOK+evil, gotOK)
	serve("bytes behind", plainOK+"more", gotOK)
	serve("a second answer behind chunks", "HTTP/1.1 200 OK|Transfer-Encoding: chunked||5|hello|0||"+evil, "200 OK|Transfer-Encoding: chunked||5|hello|0||")
	serve("a second answer behind nothing", "HTTP/1.1 200 OK|Content-Length: 0||"+evil, "200 OK|Content-Length: 0||")
	serve("a second answer behind 204", "HTTP/1.1 204 No Content||"+evil, "204 No Content||")
	serve("204 with a body", "HTTP/1.1 204 No Content|Content-Length: 38||"+evil, "204 No Content||")
	serve("204 with chunks", "HTTP/1.1 204 No Content|Transfer-Encoding: chunked||5|hello|0||", "204 No Content||")
	serve("a second answer behind 304", "HTTP/1.1 304 Not Modified||"+evil, "304 Not Modified||")
	serve("304 with a body", "HTTP/1.1 304 Not Modified|Content-Length: 38||"+evil, "304 Not Modified||")
	head := func(name, node, want string) {
		cases = append(cases, httpCase{name: name, send: "HEAD /NODE/a HTTP/1.1|Host: h||", node: node, want: want, seen: "HEAD /NODE/a HTTP/1.1|Host: h||", lives: true})
	}
	head("HEAD with a length", "HTTP/1.1 200 OK|Content-Length: 1234||", "200 OK|Content-Length: 1234||")
	head("HEAD without", "HTTP/1.1 200 OK|X: y||", "200 OK|X: y||")
	head("HEAD with chunks", "HTTP/1.1 200 OK|Transfer-Encoding: chunked||", "200 OK||")
	head("HEAD with a body", "HTTP/1.1 200 OK|Content-Length: 38||"+evil, "200 OK|Content-Length: 38||")
	head("HEAD with chunks of a body", "HTTP/1.1 200 OK|Transfer-Encoding: chunked||5|hello|0||", "200 OK||")
	head("HEAD and a second answer", "HTTP/1.1 200 OK|Content-Length: 0||"+evil, "200 OK|Content-Length: 0||")

	refuse("ends in the version", "HTT")
	refuse("ends in the status", "HTTP/1.1 20")
	refuse("ends behind the status", "HTTP/1.1 200 OK|")
	refuse("ends in a header", "HTTP/1.1 200 OK|Content-Le")
	refuse("ends before the empty line", "HTTP/1.1 200 OK|Content-Length: 2|")
	refuse("ends behind an interim answer", "HTTP/1.1 100 Continue||")
	refuse("garbage", "\x00\x01\x02||")
	refuse("another protocol", "SSH-2.0-OpenSSH_9.2||")
	refuse("TLS", "\x15\x03\x01\x00\x02\x02\x46")
	refuse("HTTP/0.9", "<html>hello</html>")
	refuse("ICY", "ICY 200 OK|Content-Length: 2||ok")
	refuse("http in lower case", "http/1.1 200 OK|Content-Length: 2||ok")
	refuse("a version that is none", "HTTP/x.y 200 OK|Content-Length: 2||ok")
	refuse("no space before the status", "HTTP/1.1200 OK|Content-Length: 2||ok")
	for name, status := range map[string]string{"0": "0", "000": "000", "99": "99", "099": "099", "1000": "1000", "20": "20", "-20": "-20", "+200": "+200", "2x0": "2x0", "200OK": "200OK", "nothing": ""} {
		refuse("status "+name, "HTTP/1.1 "+status+" OK|Content-Length: 2||ok")
	}
	refuse("101 unasked", "HTTP/1.1 101 Switching Protocols|Connection: Upgrade|Upgrade: websocket||"+evil)
	refuse("199", "HTTP/1.1 199 Interim||")
	refuse("lengths that differ", "HTTP/1.1 200 OK|Content-Length: 2|Content-Length: 3||ok!")
	refuse("a list of lengths that differ", "HTTP/1.1 200 OK|Content-Length: 2, 3||ok!")
	refuse("length negative", "HTTP/1.1 200 OK|Content-Length: -1||ok")
	refuse("length with plus", "HTTP/1.1 200 OK|Content-Length: +2||ok")
	refuse("length in hex", "HTTP/1.1 200 OK|Content-Length: 0x2||ok")
	refuse("length huge", "HTTP/1.1 200 OK|Content-Length: 99999999999999999999||ok")
	refuse("length a word", "HTTP/1.1 200 OK|Content-Length: two||ok")
	refuse("encoding gzip, chunked", "HTTP/1.1 200 OK|Transfer-Encoding: gzip, chunked||5|hello|0||")
	refuse("encoding identity", "HTTP/1.1 200 OK|Transfer-Encoding: identity||hello")
	refuse("encoding twice", "HTTP/1.1 200 OK|Transfer-Encoding: chunked|Transfer-Encoding: chunked||5|hello|0||")
	refuse("no colon", "HTTP/1.1 200 OK|X|Content-Length: 2||ok")
	refuse("an empty name", "HTTP/1.1 200 OK|: y|Content-Length: 2||ok")
	refuse("the first header folded", "HTTP/1.1 200 OK| X: y|Content-Length: 2||ok")
	refuse("a head too large", "HTTP/1.1 200 OK|X: "+strings.Repeat("x", 70<<10)+"|Content-Length: 2||ok")
	refuse("headers too many", "HTTP/1.1 200 OK|"+strings.Repeat("X: y|", 20<<10)+"Content-Length: 2||ok")
	refuse("interim answers without end", strings.Repeat("HTTP/1.1 103 Early Hints|X: "+strings.Repeat("x", 1000)+"||", 200))

	// A body that breaks off breaks off for the client too.
	cut("ends in a body", "HTTP/1.1 200 OK|Content-Length: 10||hello", "200 OK|Content-Length: 10||hello")
	cut("ends before a body", "HTTP/1.1 200 OK|Content-Length: 100000||", "200 OK|Content-Length: 100000||")
	cut("ends before chunks", "HTTP/1.1 200 OK|Transfer-Encoding: chunked||", "200 OK|Transfer-Encoding: chunked||")
	cut("ends in a size", "HTTP/1.1 200 OK|Transfer-Encoding: chunked||5|hello|5", "200 OK|Transfer-Encoding: chunked||5|hello|")
	cut("ends in a chunk", "HTTP/1.1 200 OK|Transfer-Encoding: chunked||a|hello", "200 OK|Transfer-Encoding: chunked||5|hello|")
	cut("ends between chunks", "HTTP/1.1 200 OK|Transfer-Encoding: chunked||5|hello|", "200 OK|Transfer-Encoding: chunked||5|hello|")
	cut("ends in the last chunk", "HTTP/1.1 200 OK|Transfer-Encoding: chunked||5|hello|0|", "200 OK|Transfer-Encoding: chunked||5|hello|")
	cut("chunk with a bad size", "HTTP/1.1 200 OK|Transfer-Encoding: chunked||5|hello|zz|", "200 OK|Transfer-Encoding: chunked||5|hello|")
	cut("chunk too large", "HTTP/1.1 200 OK|Transfer-Encoding: chunked||5|hello|FFFFFFFFFFFFFFFFF|", "200 OK|Transfer-Encoding: chunked||5|hello|")
	cut("chunk without its end", "HTTP/1.1 200 OK|Transfer-Encoding: chunked||5|helloX|0||", "200 OK|Transfer-Encoding: chunked||5|hello|")
	cases = append(cases,
		httpCase{name: "until the end", node: "HTTP/1.1 200 OK||hello", ends: "closes", want: "200 OK|Transfer-Encoding: chunked||5|hello|0||", seen: sawGet, lives: true},
		httpCase{name: "until the end of HTTP/1.0, where there are no chunks", node: "HTTP/1.0 200 OK|Transfer-Encoding: chunked||5|hello|0||", ends: "closes", want: "200 OK|Transfer-Encoding: chunked||f|5|hello|0|||0||", seen: sawGet, lives: true},
		// A GET would be sent again, on another connection.
		httpCase{name: "nothing", send: up("Content-Length: 5", "hello"), node: silence, ends: "closes", want: failed + " close", seen: hello5},
		httpCase{name: "a reset", send: up("Content-Length: 5", "hello"), node: silence, ends: "resets", want: failed + " close", seen: hello5},
		httpCase{name: "says close", node: "HTTP/1.1 200 OK|Connection: close|Content-Length: 2||ok", ends: "closes", want: gotOK, seen: sawGet, lives: true},
		httpCase{name: "says close and stays", node: "HTTP/1.1 200 OK|Connection: close|Content-Length: 2||ok" + evil, want: gotOK, seen: sawGet, lives: true},
		httpCase{name: "says keep-alive and closes", node: "HTTP/1.1 200 OK|Connection: keep-alive|Content-Length: 2||ok", ends: "closes", want: gotOK, seen: sawGet, lives: true},
		httpCase{name: "says nothing and closes", ends: "closes", want: gotOK, seen: sawGet, lives: true},
	)
	runHTTPCases(t, cases)
}
