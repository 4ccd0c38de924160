package admin

import (
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
)

// Access says who may use the API and the metrics. It is never modified once it
// was handed over.
type Access struct {
	Token      string   // lets read
	WriteToken string   // lets read and change
	Hosts      []string // names that clients may call the gateway by, beside its addresses; lower case
}

// open: no token is asked for. Only loopback may be so.
func (a *Access) open() bool { return a.Token == "" && a.WriteToken == "" }

// A guard decides about requests. Its methods may be called concurrently.
type guard struct {
	access   atomic.Pointer[Access]
	origins  *http.CrossOriginProtection
	failures failures
}

func newGuard(a Access) *guard {
	g := &guard{origins: http.NewCrossOriginProtection()}
	g.access.Store(&a)
	return g
}

// reading lets requests through that may read.
func (g *guard) reading(f http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if _, ok := g.admit(w, r); ok {
			f(w, r)
		}
	}
}

// writing lets requests through that may change something.
func (g *guard) writing(f http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		writes, ok := g.admit(w, r)
		switch {
		case !ok:
		case writes:
			f(w, r)
		default:
			refuse(w, http.StatusForbidden, "read_only", "this token lets read only; changes need that of admin.write_token_file")
		}
	}
}

// probing is for health checks: they need no token, and get f's answer; who has
// one gets full's.
func (g *guard) probing(f, full http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		access := g.access.Load()
		switch {
		case access.open():
			full(w, r)
		case r.Header.Get("Authorization") == "":
			f(w, r)
		default:
			g.reading(full)(w, r)
		}
	}
}

// admit tells whether a request may read, and whether it may change something;
// otherwise it has been refused. It keeps pages in the operator's browser out,
// those that have the browser post something and those whose name was rebound to
// this address, and everybody without a token where there is one.
func (g *guard) admit(w http.ResponseWriter, r *http.Request) (writes, ok bool) {
	access := g.access.Load()
	if !namesUs(r, access.Hosts) {
		refuse(w, http.StatusForbidden, "foreign_host", "the Host must be localhost, a loopback address, the address that was connected to, or one of admin.hosts")
		return false, false
	}
	if err := g.origins.Check(r); err != nil {
		refuse(w, http.StatusForbidden, "foreign_origin", "pages of another origin may not use this")
		return false, false
	}
	if access.open() {
		return true, true
	}
	return g.admitToken(w, r, access)
}

// admitToken is admit where tokens are asked for. An address that had too many
// wrong ones is not heard for a while, not even with the right one: it would be
// told by the answer.
func (g *guard) admitToken(w http.ResponseWriter, r *http.Request, access *Access) (writes, ok bool) {
	from := clientOf(r)
	if wait := g.failures.blocked(from); wait > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(wait.Seconds())+1))
		refuse(w, http.StatusTooManyRequests, "too_many_tokens", fmt.Sprintf("more than %d wrong tokens came from this address; try again in %d seconds", maxFailures-1, int(wait.Seconds())+1))
		return false, false
	}
	token, given := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if writes = same(token, access.WriteToken); writes || same(token, access.Token) {
		return writes, true
	}
	w.Header().Set("WWW-Authenticate", "Bearer")
	if !given {
		refuse(w, http.StatusUnauthorized, "token_missing", "this needs a token: Authorization: Bearer …; the commands take it from --admin-token-file")
		return false, false
	}
	g.failures.note(from)
	refuse(w, http.StatusUnauthorized, "token_wrong", "the token is not that of admin.token_file or admin.write_token_file")
	return false, false
}

// same compares in a time that tells nothing of the token, nor of its length. No
// token is that of nobody.
func same(given, token string) bool {
	a, b := sha256.Sum256([]byte(given)), sha256.Sum256([]byte(token))
	return subtle.ConstantTimeCompare(a[:], b[:]) == 1 && token != ""
}

// clientOf is the address that a request came from; of IPv6 the network, which
// one client has whole.
func clientOf(r *http.Request) netip.Addr {
	ap, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	ip := ap.Addr().Unmap().WithZone("")
	if ip.Is6() {
		if p, err := ip.Prefix(64); err == nil {
			return p.Addr()
		}
	}
	return ip
}

// namesUs tells whether the Host is localhost, an address of ours, or one of the
// names. The port is left out of account: it is another one behind a forwarded
// port.
func namesUs(r *http.Request, names []string) bool {
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.ToLower(host)
	if host == "localhost" || slices.Contains(names, host) {
		return true
	}
	ip, err := netip.ParseAddr(strings.Trim(host, "[]"))
	if err != nil {
		return false
	}
	local, ok := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
	return ip.IsLoopback() || ok && local.AddrPort().Addr().Unmap() == ip.Unmap()
}
