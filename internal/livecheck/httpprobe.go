package livecheck

import (
	"context"
	"net/http"
	"strings"
)

// get asks for a path and gives the answer or why there was none. The
// connection is closed.
func (p *prober) get(ctx context.Context, t target, path, accept string) (*answer, *Finding) {
	conn, f := p.open(ctx, t)
	if f != nil {
		return nil, f
	}
	defer conn.Close()
	return ask(conn, t, requestHead(t, path, "Accept: "+accept, "Connection: close"))
}

const (
	acceptJSON = "application/json"
	acceptPage = "text/html"
)

// reachable asks a route with a service. Any answer of a node will do: what it
// thinks of the path is its own affair.
func (p *prober) reachable(ctx context.Context, t target, path string) Finding {
	a, f := p.get(ctx, t, path, acceptJSON)
	if f != nil {
		if f.Code == gatewaySilent {
			f.Mark, f.Code = Warn, slowAnswer // some paths hold requests
		}
		return *f
	}
	if f := a.problem(); f != nil {
		return *f
	}
	switch {
	case a.tlsPort:
		return failure(nodeIsTLS, "address", t.address)
	case a.StatusCode >= 502 && a.StatusCode <= 504:
		return failure(foreign5xx, "status", a.status())
	}
	return a.reached(answered)
}

// reached is the finding of an answer that shows that a node is there.
func (a *answer) reached(c Code) Finding {
	if a.StatusCode == http.StatusUnauthorized || a.StatusCode == http.StatusForbidden {
		c = wantsLogin
	}
	return fine(c, "status", a.status())
}

// closed asks for what nobody gets.
func (p *prober) closed(ctx context.Context, t target, path string) Finding {
	f := p.reachable(ctx, t, path)
	if f.Code == gatewayAddress {
		return fine(refusedToAll, "status", f.Params["status"])
	}
	if f.Mark == OK {
		return found(Fail, notRefused, "status", f.Params["status"])
	}
	return f
}

// served asks a static route or a page for its first page.
func (p *prober) served(ctx context.Context, t target, path string, static bool) Finding {
	a, f := p.get(ctx, t, path, acceptPage)
	switch {
	case f != nil:
		return *f
	case a.StatusCode == http.StatusOK:
		return fine(answered, "status", a.status())
	case a.gateway == "token_missing":
		return *a.problem()
	case a.StatusCode == http.StatusNotFound && static:
		return warning(staticNoIndex, "status", a.status())
	}
	return failure(notOK, "status", a.status())
}

// redirects asks a route that redirects; to is "https" or an absolute URL.
func (p *prober) redirects(ctx context.Context, t target, path, to string) Finding {
	a, f := p.get(ctx, t, path, acceptJSON)
	if f != nil {
		return *f
	}
	location := a.Header.Get("Location")
	switch {
	case a.StatusCode < 300 || a.StatusCode > 399 || location == "":
		return failure(noRedirect, "status", a.status())
	case to == "https" && !strings.HasPrefix(location, "https://"), to != "https" && location != to:
		return failure(wrongRedirect, "status", a.status(), "location", a.location(), "wanted", withoutSecrets(to))
	}
	return fine(redirected, "status", a.status(), "location", a.location())
}
