package gateway

import (
	"strings"
	"testing"
)

// hello5 is what a node gets of an upload of 5 bytes; helloChunks of one of
// unknown length.
const (
	hello5      = "POST /NODE/a HTTP/1.1|Host: h|Content-Length: 5||hello"
	helloChunks = "POST /NODE/a HTTP/1.1|Host: h|Transfer-Encoding: chunked||hello"
)

// Where a body ends is never a matter of opinion.
func TestHTTPFramingCases(t *testing.T) {
	var cases []httpCase
	refuse := func(name, send string) {
		cases = append(cases, httpCase{name: name, send: send, want: refused})
	}
	serve := func(name, send, seen string) {
		cases = append(cases, httpCase{name: name, send: send, want: gotOK, seen: seen, lives: true})
	}

	const chunks = "5|hello|0||"
	for name, value := range map[string]string{
		"chunked twice": "chunked, chunked", "identity": "identity", "identity before": "identity, chunked", "identity after": "chunked, identity",
		"a parameter": "chunked;q=1", "a comma behind": "chunked,", "a comma before": ", chunked", "xchunked": "xchunked", "chunkedx": "chunkedx",
		"gzip": "gzip, chunked", "gzip alone": "gzip", "in quotes": `"chunked"`, "a space within": "chun ked", "a vertical tab before": "\vchunked",
		"a vertical tab behind": "chunked\v", "a form feed": "\fchunked", "NUL behind": "chunked\x00", "NUL before": "\x00chunked", "nothing": "", "a no-break space": "\xa0chunked",
		"cow": "cow", "chunked twice in a row": "chunked chunked", "CR within": "chunked\r", "a semicolon": "chunked;", "a dot": ".chunked", "a Kelvin sign": "chun\u212aed",
	} {
		refuse("Transfer-Encoding: "+name, up("Transfer-Encoding: "+value, chunks))
		refuse("Content-Length and Transfer-Encoding: "+name, up("Content-Length: 5|Transfer-Encoding: "+value, "hello"))
	}
	for name, value := range map[string]string{
		"usual": " chunked", "no space": "chunked", "a tab before": "\tchunked", "a tab behind": " chunked\t", "spaces around": "  chunked  ", "upper case": " CHUNKED", "mixed case": " cHuNkEd",
	} {
		serve("Transfer-Encoding with "+name, up("Transfer-Encoding:"+value, chunks), helloChunks)
		refuse("Content-Length before Transfer-Encoding with "+name, up("Content-Length: 5|Transfer-Encoding:"+value, chunks))
		refuse("Content-Length behind Transfer-Encoding with "+name, up("Transfer-Encoding:"+value+"|Content-Length: 5", chunks))
	}
	for name, line := range map[string]string{
		"in two lines":            "Transfer-Encoding: chunked|Transfer-Encoding: chunked",
		"in two lines, other":     "Transfer-Encoding: chunked|Transfer-Encoding: identity",
		"in two lines, cases":     "Transfer-Encoding: chunked|transfer-encoding: cow",
		"folded":                  "Transfer-Encoding:| chunked",
		"folded behind":           "Transfer-Encoding: chunked| , identity",
		"a space before":          " Transfer-Encoding: chunked",
		"a space before colon":    "Transfer-Encoding : chunked",
		"a tab before colon":      "Transfer-Encoding\t: chunked",
		"NUL in its name":         "Transfer-Encoding\x00: chunked",
		"behind a bare LF":        "X: y\nTransfer-Encoding: chunked",
		"behind a bare CR":        "X: y\rTransfer-Encoding: chunked",
		"ends with LF":            "Transfer-Encoding: chunked\nX: y",
		"length zero before":      "Content-Length: 0|Transfer-Encoding: chunked",
		"length zero behind":      "Transfer-Encoding: chunked|Content-Length: 0",
		"both in other cases":     "content-length: 5|TRANSFER-ENCODING: chunked",
		"a list over two lines":   "Transfer-Encoding: gzip|Transfer-Encoding: chunked",
		"an empty one before":     "Transfer-Encoding:|Transfer-Encoding: chunked",
		"an empty one and length": "Content-Length: 5|Transfer-Encoding:",
	} {
		refuse("Transfer-Encoding "+name, up(line, chunks))
	}
	refuse("Transfer-Encoding of HTTP/1.0", "POST /NODE/a HTTP/1.0|Host: h|Transfer-Encoding: chunked||"+chunks)
	refuse("both of HTTP/1.0", "POST /NODE/a HTTP/1.0|Host: h|Content-Length: 5|Transfer-Encoding: chunked||"+chunks)
	serve("Transfer_Encoding beside a length is not sent on", up("Transfer_Encoding: chunked|Content-Length: 5", "hello"), hello5)
	serve("chunks of a GET", "GET /NODE/a HTTP/1.1|Host: h|Transfer-Encoding: chunked||"+chunks, "GET /NODE/a HTTP/1.1|Host: h|Transfer-Encoding: chunked||hello")

	for name, lines := range map[string]string{
		"twice": "Content-Length: 5|Content-Length: 5", "twice, other": "Content-Length: 5|Content-Length: 6", "twice, spelt otherwise": "Content-Length: 5|content-length: 5",
		"twice, zero first": "Content-Length: 0|Content-Length: 5", "a list": "Content-Length: 5, 5", "a tight list": "Content-Length: 5,5", "a comma": "Content-Length: 5,", "plus": "Content-Length: +5",
		"minus": "Content-Length: -1", "minus zero": "Content-Length: -0", "hex": "Content-Length: 0x5", "a space within": "Content-Length: 5 5", "a semicolon": "Content-Length: 5;",
		"a fraction": "Content-Length: 5.0", "an exponent": "Content-Length: 5e0", "other digits": "Content-Length: ٥", "empty": "Content-Length:", "blank": "Content-Length:  ", "a word": "Content-Length: five",
		"above 64 bits": "Content-Length: 99999999999999999999999", "wrapping to 5": "Content-Length: 18446744073709551621", "above 63 bits": "Content-Length: 9223372036854775808",
		"an underscore": "Content-Length: 1_0", "folded": "Content-Length:| 5", "folded digits": "Content-Length: 1| 5", "a space before colon": "Content-Length : 5", "a tab before colon": "Content-Length\t: 5",
		"a vertical tab": "Content-Length: \v5", "NUL": "Content-Length: 5\x00", "CR": "Content-Length: 5\r", "behind a bare LF": "X: y\nContent-Length: 5", "quoted": `Content-Length: "5"`,
	} {
		refuse("Content-Length "+name, up(lines, "hello"))
	}
	for name, line := range map[string]string{
		"usual": "Content-Length: 5", "no space": "Content-Length:5", "spaces around": "Content-Length:  5  ", "tabs around": "Content-Length:\t5\t", "leading zeros": "Content-Length: 0005", "lower case": "content-length: 5", "upper case": "CONTENT-LENGTH: 5",
		"beside a look-alike": "Content-Length: 5|Content_Length: 7",
	} {
		serve("Content-Length "+name, up(line, "hello"), hello5)
	}
	serve("length zero of a POST", up("Content-Length: 0", ""), "POST /NODE/a HTTP/1.1|Host: h|Content-Length: 0||")
	serve("length zero of a GET", "GET /NODE/a HTTP/1.1|Host: h|Content-Length: 0||", sawGet)
	serve("POST without a body", up("X: y", ""), "POST /NODE/a HTTP/1.1|Host: h|Content-Length: 0|X: y||")
	serve("body of a GET", "GET /NODE/a HTTP/1.1|Host: h|Content-Length: 5||hello", "GET /NODE/a HTTP/1.1|Host: h|Content-Length: 5||hello")
	serve("body of a DELETE", "DELETE /NODE/a HTTP/1.1|Host: h|Content-Length: 5||hello", "DELETE /NODE/a HTTP/1.1|Host: h|Content-Length: 5||hello")
	serve("a body that looks like a request", up("Content-Length: 36", "GET /NODE/evil HTTP/1.1|Host: h||"), "POST /NODE/a HTTP/1.1|Host: h|Content-Length: 36||GET /NODE/evil HTTP/1.1|Host: h||")
	cases = append(cases,
		httpCase{name: "length larger than what comes", send: up("Content-Length: 9223372036854775807", "hello"), alone: true, want: refused, seen: unfinished},
		httpCase{name: "length one too large", send: up("Content-Length: 6", "hello"), alone: true, want: refused, seen: unfinished},
	)
	runHTTPCases(t, cases)
}

// Chunks in every shape, whole and broken.
func TestHTTPChunkCases(t *testing.T) {
	var cases []httpCase
	chunked := func(body string) string { return up("Transfer-Encoding: chunked", body) }
	for name, body := range map[string]string{
		"usual": "5|hello|0||", "two": "2|he|3|llo|0||", "bytes": "1|h|1|e|1|l|1|l|1|o|0||", "leading zeros": "0005|hello|000||", "an extension": "5;a=b|hello|0||",
		"a quoted extension": `5;a="b;c"|hello|0||`, "an extension of the last": "5|hello|0;a||", "spaces behind the size": "5 |hello|0||", "a trailer": "5|hello|0|X-T: 1||",
		// What the gateway need not be strict about, for nothing of it goes on: the
		// node gets chunks of the gateway's making, without extensions and trailers.
		"NUL in an extension": "5;\x00|hello|0||", "a huge extension": "5;" + strings.Repeat("a", 70_000) + "|hello|0||", "a folded trailer": "5|hello|0|X-T: 1| 2||",
		"a trailer with a space in its name": "5|hello|0|X T: 1||",
		"many trailers":                      "5|hello|0|" + strings.Repeat("X-T: 1|", 30) + "|",
	} {
		cases = append(cases, httpCase{name: name, send: chunked(body), want: gotOK, seen: helloChunks, lives: true})
	}
	for name, size := range map[string]string{"lower case": "1a", "upper case": "1A"} {
		text := strings.Repeat("x", 26)
		cases = append(cases, httpCase{name: name, send: chunked(size + "|" + text + "|0||"), want: gotOK, seen: strings.Replace(helloChunks, "hello", text, 1), lives: true})
	}
	cases = append(cases, httpCase{name: "no bytes at all", send: chunked("0||"), want: gotOK, seen: strings.Replace(helloChunks, "hello", "", 1), lives: true})
	for name, body := range map[string]string{
		"size is no number": "g|hello|0||", "size with a tail": "5g|hello|0||", "size negative": "-5|hello|0||", "size with plus": "+5|hello|0||", "size with 0x": "0x5|hello|0||",
		"size empty": "|hello|0||", "size with space before": " 5|hello|0||", "size with tab before": "\t5|hello|0||", "size above 64 bits": "FFFFFFFFFFFFFFFFF|hello|0||", "size wraps": "10000000000000005|hello|0||",
		"size of minus one": "FFFFFFFFFFFFFFFF|hello|0||", "size above 63 bits": "8000000000000000|hello|0||", "size ends with LF": "5\nhello|0||", "size ends with CR": "5\rhello|0||", "size ends with LF CR": "5\n\rhello|0||",
		"size with an underscore": "0_5|hello|0||", "size with NUL": "5\x00|hello|0||", "size quoted": `"5"|hello|0||`, "two sizes": "5 5|hello|0||",
		"no CRLF behind the chunk": "5|hello0||", "LF behind the chunk": "5|hello\n0||", "CR behind the chunk": "5|hello\r0||", "chunk longer than its size": "4|hello|0||", "chunk shorter than its size": "6|hello|0||",
		"LF in an extension": "5;a\nb|hello|0||", "CR in an extension": "5;a\rb|hello|0||",
		"trailer is Content-Length": "5|hello|0|Content-Length: 5||", "trailer is Transfer-Encoding": "5|hello|0|Transfer-Encoding: chunked||", "trailer is Host": "5|hello|0|Host: g||",
		"trailer without colon": "5|hello|0|X-T||", "trailer with NUL": "5|hello|0|X-T: \x00||", "trailers too large": "5|hello|0|" + strings.Repeat("X-T: "+strings.Repeat("1", 1000)+"|", 40) + "|",
		"the last size ends with LF": "5|hello|0\n\n",
	} {
		cases = append(cases, httpCase{name: name, send: chunked(body), want: refused, seen: unfinished})
	}
	for name, body := range map[string]string{"a trailer that ends with LF": "5|hello|0|X-T: 1\n|", "an end with LF": "5|hello|0|\n"} {
		// Whether LF is an end here shows with what follows; that is never lost.
		cases = append(cases, httpCase{name: name, send: chunked(body), want: gotOK, seen: helloChunks, lives: true, only: "at once"})
	}
	for name, body := range map[string]string{
		"before the first size": "", "in a size": "5", "behind a size": "5|", "in a chunk": "5|he", "behind a chunk": "5|hello", "between chunks": "5|hello|", "in the last size": "5|hello|0", "behind the last size": "5|hello|0|", "in a trailer": "5|hello|0|X-T: 1", "behind a trailer": "5|hello|0|X-T: 1|",
		"in the end": "5|hello|0|\r",
	} {
		cases = append(cases, httpCase{name: "ends " + name, send: chunked(body), alone: true, want: refused, seen: unfinished})
	}
	runHTTPCases(t, cases)
}

// Heads: what is a header, and how much of it.
func TestHTTPHeadCases(t *testing.T) {
	cases := []httpCase{
		{name: "plain", want: gotOK, seen: sawGet, lives: true},
		{name: "an empty line before", send: "|" + plainGet, want: gotOK, seen: sawGet, lives: true},
		{name: "empty lines before", send: "||||" + plainGet, want: gotOK, seen: sawGet, lives: true},
		{name: "the request line ends with LF", send: "GET /NODE/a HTTP/1.1\nHost: h||", want: gotOK, seen: sawGet, lives: true},
		{name: "values with spaces around", send: "GET /NODE/a HTTP/1.1|Host:  h  |X:\t y \t||", want: gotOK, seen: "GET /NODE/a HTTP/1.1|Host: h|X: y||", lives: true},
		{name: "a value with bytes above ASCII", send: "GET /NODE/a HTTP/1.1|Host: h|X: 文\xff||", want: gotOK, seen: "GET /NODE/a HTTP/1.1|Host: h|X: 文\xff||", lives: true},
		{name: "an empty value", send: "GET /NODE/a HTTP/1.1|Host: h|X:||", want: gotOK, seen: "GET /NODE/a HTTP/1.1|Host: h|X: ||", lives: true},
		{name: "a value of colons", send: "GET /NODE/a HTTP/1.1|Host: h|X: :a:b:||", want: gotOK, seen: "GET /NODE/a HTTP/1.1|Host: h|X: :a:b:||", lives: true},
		{name: "a header twice", send: "GET /NODE/a HTTP/1.1|Host: h|X: 1|X: 2||", want: gotOK, seen: "GET /NODE/a HTTP/1.1|Host: h|X: 1|X: 2||", lives: true},
		{name: "names of every token byte", send: "GET /NODE/a HTTP/1.1|Host: h|!#$%&'*+-.^`~09Az: 1||", want: gotOK, seen: "GET /NODE/a HTTP/1.1|Host: h|!#$%&'*+-.^`~09Az: 1||", lives: true},
		{name: "many headers", send: "GET /NODE/a HTTP/1.1|Host: h|" + strings.Repeat("X: 1|", 1000) + "|", want: gotOK, seen: "GET /NODE/a HTTP/1.1|Host: h|" + strings.Repeat("X: 1|", 1000) + "|", lives: true},
		{name: "the largest head", send: headOf(16 << 10), want: gotOK, seen: headOf(16 << 10), lives: true},
		{name: "a head one too large", send: headOf(16<<10 + 1), want: "!431 head_too_large close"},
		{name: "a target too long", send: "GET /NODE/" + strings.Repeat("a", 17<<10) + " HTTP/1.1|Host: h||", want: "!431 head_too_large close"},
		{name: "a name too long", send: "GET /NODE/a HTTP/1.1|Host: h|" + strings.Repeat("a", 17<<10) + ": b||", want: "!431 head_too_large close"},
		{name: "headers too many", send: "GET /NODE/a HTTP/1.1|Host: h|" + strings.Repeat("X: 1|", 4000) + "|", want: "!431 head_too_large close"},
		{name: "ends in the method", send: "GE", alone: true, want: refused},
		{name: "ends in the target", send: "GET /NODE", alone: true, want: refused},
		{name: "ends in the version", send: "GET /NODE/a HTT", alone: true, want: refused},
		{name: "ends behind the line", send: "GET /NODE/a HTTP/1.1|", alone: true, want: refused},
		{name: "ends in a header", send: "GET /NODE/a HTTP/1.1|Host: h|X", alone: true, want: refused},
		{name: "ends before the empty line", send: "GET /NODE/a HTTP/1.1|Host: h|", alone: true, want: refused},
		{name: "ends before anything", send: "||", alone: true, want: ""},
	}
	for name, send := range map[string]string{
		"NUL in a name": "GET /NODE/a HTTP/1.1|Host: h|X\x00: y||", "NUL in a value": "GET /NODE/a HTTP/1.1|Host: h|X: \x00||", "CR in a name": "GET /NODE/a HTTP/1.1|Host: h|X\r: y||", "CR in a value": "GET /NODE/a HTTP/1.1|Host: h|X: y\rz||",
		"LF in a name": "GET /NODE/a HTTP/1.1|Host: h|X\n: y||", "LF in a value": "GET /NODE/a HTTP/1.1|Host: h|X: y\nz||", "CR before CRLF": "GET /NODE/a HTTP/1.1|Host: h|X: y\r||", "a control byte in a value": "GET /NODE/a HTTP/1.1|Host: h|X: \x01||",
		"DEL in a value": "GET /NODE/a HTTP/1.1|Host: h|X: \x7f||", "a control byte in a name": "GET /NODE/a HTTP/1.1|Host: h|X\x01: y||", "a byte above ASCII in a name": "GET /NODE/a HTTP/1.1|Host: h|X\xff: y||",
		"a folded value": "GET /NODE/a HTTP/1.1|Host: h|X: y| z||", "a folded value with a tab": "GET /NODE/a HTTP/1.1|Host: h|X: y|\tz||", "a folded empty line": "GET /NODE/a HTTP/1.1|Host: h|X: y| ||", "the first line folded": "GET /NODE/a HTTP/1.1| Host: h||",
		"a space before the colon": "GET /NODE/a HTTP/1.1|Host: h|X : y||", "a space in a name": "GET /NODE/a HTTP/1.1|Host: h|X Y: z||", "an empty name": "GET /NODE/a HTTP/1.1|Host: h|: y||", "no colon": "GET /NODE/a HTTP/1.1|Host: h|X||", "a colon alone": "GET /NODE/a HTTP/1.1|Host: h|:||",
		"a quote in a name": "GET /NODE/a HTTP/1.1|Host: h|X\": y||", "a slash in a name": "GET /NODE/a HTTP/1.1|Host: h|X/Y: z||", "brackets in a name": "GET /NODE/a HTTP/1.1|Host: h|X[0]: z||", "a comma in a name": "GET /NODE/a HTTP/1.1|Host: h|X,Y: z||",
		"only LF": "GET /NODE/a HTTP/1.1\nHost: h\n\n", "the head ends with LF": "GET /NODE/a HTTP/1.1|Host: h|\n", "the head ends with CR": "GET /NODE/a HTTP/1.1|Host: h|\r\r\n",
		"spaces in the request line": "GET  /NODE/a HTTP/1.1|Host: h||", "a tab in the request line": "GET\t/NODE/a HTTP/1.1|Host: h||", "a space behind the version": "GET /NODE/a HTTP/1.1 |Host: h||", "a space before the method": " GET /NODE/a HTTP/1.1|Host: h||", "CR in the request line": "GET /NODE/a HTTP/1.1\r|Host: h||", "a CR alone before": "\r" + plainGet,
	} {
		cases = append(cases, httpCase{name: name, send: send, want: refused})
	}
	runHTTPCases(t, cases)
}

// headOf is a GET with a head of so many bytes.
func headOf(size int) string {
	head := "GET /NODE/a HTTP/1.1|Host: h|X: ||"
	return strings.Replace(head, "X: ", "X: "+strings.Repeat("x", size-len(head)-4), 1) // CR LF four times
}

// Targets, hosts, methods and versions.
func TestHTTPTargetCases(t *testing.T) {
	cases := []httpCase{
		{name: "absolute-form", send: "GET http://h/NODE/a?b HTTP/1.1|Host: h||", want: gotOK, seen: "GET /NODE/a?b HTTP/1.1|Host: h||", lives: true},
		{name: "absolute-form of https", send: "GET https://h/NODE/a HTTP/1.1|Host: h||", want: gotOK, seen: sawGet, lives: true},
		{name: "absolute-form in upper case", send: "GET HTTP://H/NODE/a HTTP/1.1|Host: h||", want: gotOK, seen: sawGet, lives: true},
		{name: "absolute-form with a port", send: "GET http://h:80/NODE/a HTTP/1.1|Host: h:80||", want: gotOK, seen: "GET /NODE/a HTTP/1.1|Host: h:80||", lives: true},
		{name: "absolute-form of HTTP/1.0 without Host", send: "GET http://h/NODE/a HTTP/1.0|Connection: keep-alive||", want: "200 OK|Connection: keep-alive|Content-Length: 2||ok", seen: sawGet, lives: true},
		{name: "Host in upper case", send: "GET /NODE/a HTTP/1.1|HOST: H||", want: gotOK, seen: "GET /NODE/a HTTP/1.1|Host: H||", lives: true},
		{name: "Host with a port", send: "GET /NODE/a HTTP/1.1|Host: h:8443||", want: gotOK, seen: "GET /NODE/a HTTP/1.1|Host: h:8443||", lives: true},
		{name: "Host with a dot behind", send: "GET /NODE/a HTTP/1.1|Host: h.||", want: gotOK, seen: "GET /NODE/a HTTP/1.1|Host: h.||", lives: true},
		{name: "Host of IPv6", send: "GET /NODE/a HTTP/1.1|Host: [2001:db8::1]:80||", want: gotOK, seen: "GET /NODE/a HTTP/1.1|Host: [2001:db8::1]:80||", lives: true},
		{name: "Host in the middle", send: "GET /NODE/a HTTP/1.1|A: b|Host: h||", want: gotOK, seen: "GET /NODE/a HTTP/1.1|Host: h|A: b||", lives: true},
		{name: "a query with everything", send: "GET /NODE/a?a=b&c[]=%20+|%7C HTTP/1.1|Host: h||", want: refused},
		{name: "a query byte for byte", send: "GET /NODE/a?a=b&&c[]=%20+%zz;'\"<>\\^`{}?/ HTTP/1.1|Host: h||", want: gotOK, seen: "GET /NODE/a?a=b&&c[]=%20+%zz;'\"<>\\^`{}?/ HTTP/1.1|Host: h||", lives: true},
		{name: "no Host of HTTP/1.0", send: "GET /NODE/a HTTP/1.0|Connection: keep-alive||", want: "200 OK|Connection: keep-alive|Content-Length: 2||ok", seen: "GET /NODE/a HTTP/1.1|Host: ADDRESS||", lives: true},
		{name: "HEAD", send: "HEAD /NODE/a HTTP/1.1|Host: h||", node: "HTTP/1.1 200 OK|Content-Length: 2||", want: "200 OK|Content-Length: 2||", seen: "HEAD /NODE/a HTTP/1.1|Host: h||", lives: true},
		{name: "CONNECT", send: "CONNECT h:443 HTTP/1.1|Host: h:443||", want: "!405 method_not_allowed close"},
		{name: "CONNECT to a path", send: "CONNECT /NODE/a HTTP/1.1|Host: h||", want: "!405 method_not_allowed close"},
		{name: "connect in lower case", send: "connect /NODE/a HTTP/1.1|Host: h||", want: "!405 method_not_allowed close"},
		{name: "TRACE", send: "TRACE /NODE/a HTTP/1.1|Host: h||", want: "!405 method_not_allowed close"},
		{name: "Trace in mixed case", send: "Trace /NODE/a HTTP/1.1|Host: h||", want: "!405 method_not_allowed close"},
		{name: "HTTP/1.2", send: "GET /NODE/a HTTP/1.2|Host: h||", want: "!505 version_not_supported close"},
		{name: "HTTP/2.0", send: "GET /NODE/a HTTP/2.0|Host: h||", want: "!505 version_not_supported close"},
		{name: "HTTP/0.9 by number", send: "GET /NODE/a HTTP/0.9|Host: h||", want: "!505 version_not_supported close"},
		{name: "HTTP/2 preface", send: "PRI * HTTP/2.0||SM||", want: "!505 version_not_supported close"},
		{name: "no such node", send: "GET /none/a HTTP/1.1|Host: h||", want: "!404 node_unknown", lives: true},
		{name: "no such node, and a body", send: "POST /none/a HTTP/1.1|Host: h|Content-Length: 5||hello", want: "!404 node_unknown close"},
		{name: "no such node, and chunks", send: "POST /none/a HTTP/1.1|Host: h|Transfer-Encoding: chunked||5|hello|0||", want: "!404 node_unknown close"},
		{name: "no route", send: "GET / HTTP/1.1|Host: h||", want: "!404 no_route", lives: true},
	}
	for _, method := range []string{"GET", "PUT", "DELETE", "PATCH", "OPTIONS", "PROPFIND", "M-SEARCH", "get", "Post", "X", "!#$%&'*+-.^_`~"} {
		length := ""
		if method == "PUT" || method == "PATCH" || method == "POST" {
			length = "Content-Length: 0|"
		}
		cases = append(cases, httpCase{name: "method " + method, send: method + " /NODE/a HTTP/1.1|Host: h||", want: gotOK, seen: method + " /NODE/a HTTP/1.1|Host: h|" + length + "|", lives: true})
	}
	for name, send := range map[string]string{
		"absolute-form of another host": "GET http://g/NODE/a HTTP/1.1|Host: h||", "absolute-form of another port": "GET http://h:81/NODE/a HTTP/1.1|Host: h||", "absolute-form with user": "GET http://u@h/NODE/a HTTP/1.1|Host: h||",
		"absolute-form of ftp": "GET ftp://h/NODE/a HTTP/1.1|Host: h||", "absolute-form without host": "GET http:///NODE/a HTTP/1.1|Host: h||", "authority-form": "GET h:80 HTTP/1.1|Host: h||", "asterisk-form": "OPTIONS * HTTP/1.1|Host: h||", "asterisk of GET": "GET * HTTP/1.1|Host: h||",
		"no slash": "GET NODE/a HTTP/1.1|Host: h||", "a fragment": "GET /NODE/a#b HTTP/1.1|Host: h||", "a space in the target": "GET /NODE/a b HTTP/1.1|Host: h||", "NUL in the target": "GET /NODE/\x00 HTTP/1.1|Host: h||", "DEL in the target": "GET /NODE/\x7f HTTP/1.1|Host: h||", "CR in the target": "GET /NODE/a\rb HTTP/1.1|Host: h||",
		"Host twice": "GET /NODE/a HTTP/1.1|Host: h|Host: g||", "Host twice the same": "GET /NODE/a HTTP/1.1|Host: h|Host: h||", "Host twice in cases": "GET /NODE/a HTTP/1.1|Host: h|host: g||", "no Host": "GET /NODE/a HTTP/1.1|X: y||", "Host empty": "GET /NODE/a HTTP/1.1|Host:||", "Host with user": "GET /NODE/a HTTP/1.1|Host: u@h||",
		"Host with a port name": "GET /NODE/a HTTP/1.1|Host: h:http||", "Host with a huge port": "GET /NODE/a HTTP/1.1|Host: h:123456||", "Host with two ports": "GET /NODE/a HTTP/1.1|Host: h:80:80||", "Host with a slash": "GET /NODE/a HTTP/1.1|Host: h/a||", "Host with a space": "GET /NODE/a HTTP/1.1|Host: h g||", "Host with a comma": "GET /NODE/a HTTP/1.1|Host: h,g||",
		"Host with a quote": "GET /NODE/a HTTP/1.1|Host: h\"||", "Host with an open bracket": "GET /NODE/a HTTP/1.1|Host: [::1||", "Host in brackets is no address": "GET /NODE/a HTTP/1.1|Host: [h]||", "Host with a zone": "GET /NODE/a HTTP/1.1|Host: [fe80::1%25eth0]||", "Host with bytes above ASCII": "GET /NODE/a HTTP/1.1|Host: 文||", "Host with NUL": "GET /NODE/a HTTP/1.1|Host: h\x00||",
		"Host with two dots": "GET /NODE/a HTTP/1.1|Host: h..||", "Host with an empty label": "GET /NODE/a HTTP/1.1|Host: h..g||", "Host with a dot before": "GET /NODE/a HTTP/1.1|Host: .h||",
		"Host of a port alone": "GET /NODE/a HTTP/1.1|Host: :80||", "Host with a hash": "GET /NODE/a HTTP/1.1|Host: h#g||", "Host behind a bare LF": "GET /NODE/a HTTP/1.1|Host: h\nHost: g||",
		"HTTP/0.9": "GET /NODE/a||", "HTTP/1": "GET /NODE/a HTTP/1|Host: h||", "HTTP/1.": "GET /NODE/a HTTP/1.|Host: h||", "HTTP/11": "GET /NODE/a HTTP/11|Host: h||", "HTTP/1.10": "GET /NODE/a HTTP/1.10|Host: h||", "HTTP/01.1": "GET /NODE/a HTTP/01.1|Host: h||", "http/1.1": "GET /NODE/a http/1.1|Host: h||", "HTTPS/1.1": "GET /NODE/a HTTPS/1.1|Host: h||", "no version": "GET /NODE/a |Host: h||",
		"no method": "/NODE/a HTTP/1.1|Host: h||", "a method with a bad byte": "G@T /NODE/a HTTP/1.1|Host: h||", "a method with a control byte": "G\x01T /NODE/a HTTP/1.1|Host: h||", "a method above ASCII": "GÉT /NODE/a HTTP/1.1|Host: h||", "TLS on a plain port": "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03||", "garbage": "\x00\x01\x02\x03||", "an answer": "HTTP/1.1 200 OK|Host: h||",
	} {
		cases = append(cases, httpCase{name: name, send: send, want: refused})
	}
	runHTTPCases(t, cases)
}
