package gateway

import (
	"crypto/sha256"
	"encoding/base64"
	"strconv"
	"strings"
	"time"

	"github.com/valyala/fasthttp"
)

// What pages of the gateway's own may do (Content-Security-Policy). Answers that
// are no pages may do nothing.
const (
	nothingPolicy   = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
	checkPagePolicy = "default-src 'self'; connect-src 'self' ws: wss: http: https:; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
)

// problemPolicy lets an error page have its one style.
func problemPolicy() string {
	sum := sha256.Sum256([]byte(problemStyle))
	return strings.Replace(nothingPolicy, ";", "; style-src 'sha256-"+base64.StdEncoding.EncodeToString(sum[:])+"';", 1)
}

// protect marks an answer that the gateway made: a browser makes nothing of it
// but what its type says, shows it in no frame, and tells nobody where it came
// from.
func protect(h *fasthttp.ResponseHeader, policy string) {
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY") // for browsers that do not know frame-ancestors
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Content-Security-Policy", policy)
}

// plainOnTLS answers who speaks HTTP on a port for TLS.
const plainOnTLS = "HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Type: text/plain; charset=utf-8\r\nCache-Control: no-store\r\n" +
	"X-Content-Type-Options: nosniff\r\nX-Frame-Options: DENY\r\nReferrer-Policy: no-referrer\r\nContent-Security-Policy: " + nothingPolicy + "\r\n\r\n" +
	"This port speaks TLS: use https:// or wss://.\n"

// keepToTLS has browsers come by TLS only from now on, on listeners that ask for
// it (RFC 6797). It replaces what a node says of that.
func (r *request) keepToTLS() {
	if age := r.listener.HSTS; age > 0 && r.conn.secure {
		r.ctx.Response.Header.Set("Strict-Transport-Security", "max-age="+strconv.FormatInt(int64(age/time.Second), 10))
	}
}
