package admin

import (
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// guarded keeps pages in the operator's browser out: those that have the
// browser post something, and those whose name was rebound to this address.
func guarded(f http.HandlerFunc) http.HandlerFunc {
	origins := http.NewCrossOriginProtection()
	return func(w http.ResponseWriter, r *http.Request) {
		if !namesUs(r) {
			refuse(w, http.StatusForbidden, "foreign_host", "the Host must be localhost, a loopback address or the address that was connected to")
			return
		}
		if err := origins.Check(r); err != nil {
			refuse(w, http.StatusForbidden, "foreign_origin", "pages of another origin may not use this")
			return
		}
		f(w, r)
	}
}

// namesUs tells whether the Host is localhost or an address of ours. The port is
// left out of account: it is another one behind a forwarded port.
func namesUs(r *http.Request) bool {
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(strings.Trim(host, "[]"))
	if err != nil {
		return false
	}
	local, ok := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
	return ip.IsLoopback() || ok && local.AddrPort().Addr().Unmap() == ip.Unmap()
}
