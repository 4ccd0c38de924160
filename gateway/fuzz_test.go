package gateway

import (
	"bufio"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/valyala/fasthttp"
)

// parsedHead parses a request head as fasthttp does for the gateway; nil: it is none.
func parsedHead(head string) *fasthttp.RequestCtx {
	ctx := &fasthttp.RequestCtx{}
	ctx.Request.Header.DisableNormalizing()
	if ctx.Request.Header.Read(bufio.NewReaderSize(strings.NewReader(head), 16<<10)) != nil {
		return nil
	}
	return ctx
}

// Whatever arrives as a request head: what headReceived does to it for fasthttp
// hides nothing from the checks that follow, and leaves at most one Expect, in
// the one spelling that fasthttp acts upon.
func FuzzHeadReceived(f *testing.F) {
	f.Add("POST / HTTP/1.1\r\nHost: x\r\neXpect: 100-Continue\r\nContent-Length: 5\r\n\r\n")
	f.Add("POST / HTTP/1.0\r\nExpect: 100-continue\r\nEXPECT: x\r\nA: b\r\n c\r\n\r\n")
	f.Add("GET / HTTP/1.1\r\nHost: x\r\nconnection: keep-alive, CLOSE\r\nTransfer-Encoding: chunked\nContent-Length: 1\r\n\r\n")
	f.Fuzz(func(t *testing.T, head string) {
		untouched, seen := parsedHead(head), parsedHead(head)
		if seen == nil {
			return
		}
		headReceived(&seen.Request.Header)
		of := func(ctx *fasthttp.RequestCtx) *request { return &request{ctx: ctx} }
		want, got := of(untouched).checkHead(), of(seen).checkHead()
		if want != got {
			t.Fatalf("checkHead says %v, and %v without headReceived: %q", got, want, head)
		}
		if want != nil {
			return
		}
		before, after := of(untouched).headers("Expect"), of(seen).headers("Expect")
		switch {
		case !seen.Request.Header.IsHTTP11() && len(after) > 0:
			t.Fatalf("%q of HTTP/1.0 are left: %q", after, head)
		case len(before) == 1 && strings.EqualFold(before[0], "100-continue") && seen.Request.Header.IsHTTP11() && !seen.Request.MayContinue():
			t.Fatalf("fasthttp does not know of %q: %q", before, head)
		}
		if slices.Contains(tokensOf(of(untouched).headers("Connection")), "close") && !seen.Request.Header.ConnectionClose() {
			t.Fatalf("the connection is kept: %q", head)
		}
	})
}

// Whatever a trusted proxy passes on of what clients sent: the client's address is
// an address, the request id is one, and what the node gets is one line a field,
// with our own word at its end.
func FuzzForwarded(f *testing.F) {
	f.Add("203.0.113.7, 10.0.0.1", "for=1.2.3.4", "https", "im.example.gov", "abc-1", "cdn; a=b")
	f.Add(" ::ffff:10.0.0.1 ,,", `for="[::1]:5"`, "", "x\ty", strings.Repeat("a", 65), "")
	f.Add("fe80::1%eth0, 10.0.0.2", ";", "\"", "", "a b", "singlegate-x")
	peer := netip.MustParseAddrPort("10.0.0.9:1234")
	st := &state{cfg: &Config{TrustedProxies: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}}
	f.Fuzz(func(t *testing.T, chain, forwarded, proto, host, id, loop string) {
		ctx := parsedHead("GET / HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: " + chain + "\r\nForwarded: " + forwarded + "\r\nX-Forwarded-Proto: " + proto +
			"\r\nX-Forwarded-Host: " + host + "\r\nX-Request-Id: " + id + "\r\nCDN-Loop: " + loop + "\r\n\r\n")
		if ctx == nil {
			return
		}
		r := &request{ctx: ctx, conn: &clientConn{peer: peer}, listener: &listenerSettings{}, state: st, server: &Server{loopID: newLoopID()}, rawHost: "h"}
		r.identify()
		if !r.client.IsValid() || r.client.Is4In6() || !isRequestID(r.id) {
			t.Fatalf("client %v, request id %q", r.client, r.id)
		}
		if r.cameBack() {
			t.Fatal("a request that was never here came back")
		}
		if r.checkHead() != nil {
			return
		}
		for _, field := range r.forwardedFields() {
			if !IsToken(field.name) || strings.ContainsAny(field.value, "\r\n\x00") {
				t.Fatalf("%q: %q", field.name, field.value)
			}
			if field.name == "X-Forwarded-For" && !strings.HasSuffix(field.value, "10.0.0.9") {
				t.Fatalf("the peer is not the last of %q", field.value)
			}
		}
	})
}

// Whatever stands in headers that ask for files: a Range that counts is one, and a
// page is what somebody asks for who names it.
func FuzzStaticHead(f *testing.F) {
	f.Add("text/html;q=0.5, */*", "bytes=0-1")
	f.Add("text/html;q=0", "bytes=0-1,2-3")
	f.Add("\"text/html, ;;=", "bytes=--5")
	f.Fuzz(func(t *testing.T, accept, ranges string) {
		ctx := parsedHead("GET / HTTP/1.1\r\nHost: h\r\naccept: " + accept + "\r\nrange: " + ranges + "\r\n\r\n")
		if ctx == nil {
			return
		}
		req := staticRequest(ctx)
		if got := req.Header["Range"]; len(got) > 1 || len(got) == 1 && strings.Contains(got[0], ",") {
			t.Errorf("ranges %q", got)
		}
		if staticAcceptsHTML(http.Header{"Accept": {accept}}) && !strings.Contains(strings.ToLower(accept), "text/html") {
			t.Errorf("%q asks for a page", accept)
		}
		if !staticAcceptsHTML(http.Header{"Accept": {accept, "text/html"}}) {
			t.Errorf("%q and text/html does not ask for a page", accept)
		}
	})
}

// Whatever a node answers about extensions: bits that it may set are reserved
// ones, and a name that is not known allows all of them.
func FuzzExtensions(f *testing.F) {
	f.Add("permessage-deflate; client_max_window_bits=15, x")
	f.Add(`a; b="c, permessage-deflate"`)
	f.Add(`";\"`)
	f.Fuzz(func(t *testing.T, header string) {
		bits := bitsOfExtensions(header)
		if bits&^allOfRSV != 0 {
			t.Fatalf("bits %#x", bits)
		}
		if more := bitsOfExtensions(header + ", unheard-of"); more != allOfRSV {
			t.Fatalf("bits %#x for %q and one more", more, header)
		}
		if bits == rsv1 && !strings.Contains(strings.ToLower(header), "permessage-deflate") {
			t.Fatalf("bits %#x for %q", bits, header)
		}
	})
}
