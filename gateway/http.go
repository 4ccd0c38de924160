package gateway

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"

	"singlegate/gateway/bosh"
	"singlegate/upstream"
)

// serveHTTP proxies one HTTP request. Another node is tried only while nothing
// was sent to the one before.
func (r *request) serveHTTP() *problem {
	x := r.begin()
	p := x.forward()
	if p != nil {
		x.end()
	}
	return p
}

func (x *exchange) forward() *problem {
	if err := x.takeSmallBody(); err != nil {
		return upstreamProblem(err)
	}
	pick := picker{match: &x.r.match, own: x.r.state.own}
	header := x.header()
	for {
		lease, addr, p := pick.next()
		if p != nil {
			return p
		}
		x.lease = lease
		answer, err := x.send(x.request(addr, header))
		if err == nil {
			lease.Worked()
			x.notWaiting()
			return x.accept(answer)
		}
		err = x.causeOf(err)
		if upstream.DialFailed(err) && nodeFailed(err) {
			lease.Failed()
		}
		if !upstream.DialFailed(err) || x.bodyTouched() {
			return upstreamProblem(err)
		}
		lease.Done()
		pick.failed(err)
		x.waiting()
	}
}

// accept replies with a node's answer, unless it is none.
func (x *exchange) accept(answer *http.Response) *problem {
	var err error
	switch code := answer.StatusCode; {
	case code == http.StatusSwitchingProtocols:
		err = errUnaskedSwitch
	case code < 200 || code > 999:
		err = fmt.Errorf("the node answered with the status %d", code)
	}
	if err != nil {
		answer.Body.Close()
		return upstreamFailed().because(err)
	}
	if x.poll != nil {
		x.poll.answered(answer)
	}
	x.reply(answer)
	return nil
}

// header is that of the request to the node.
func (x *exchange) header() http.Header {
	h := x.r.upstreamHeader()
	if x.poll != nil && x.poll.marks() {
		maps.DeleteFunc(h, func(name string, _ []string) bool { return strings.EqualFold(name, "Accept-Encoding") })
	}
	return h
}

// send asks the node.
func (x *exchange) send(req *http.Request) (*http.Response, error) {
	if x.poll != nil && x.poll.form == bosh.Script {
		return x.r.server.upstream.RoundTripOnce(req)
	}
	return x.r.server.upstream.RoundTrip(req)
}

// request is what the node gets: path and query as they are.
func (x *exchange) request(addr string, header http.Header) *http.Request {
	req := (&http.Request{
		Method: x.r.method,
		Host:   x.r.upstreamHost(),
		URL: &url.URL{
			Scheme:     "http",
			Host:       addr,
			Opaque:     x.r.match.path,
			RawQuery:   strings.TrimPrefix(x.r.query, "?"),
			ForceQuery: x.r.query == "?",
		},
		Header: header,
	}).WithContext(upstream.ToNode(x.ctx, x.lease.Node))
	x.setBody(req)
	return req
}

var errUnaskedSwitch = errors.New("the node answered 101 to a request that offered no upgrade")

// nodeFailed tells whether a failure is the node's own: it refused, or was
// silent in a handshake.
func nodeFailed(err error) bool {
	var timeout net.Error
	return !errors.Is(err, ErrDescriptors) && !errors.Is(err, upstream.ErrNoPort) && !errors.Is(err, errClientLeft) && !errors.Is(err, errGatewayEnds) &&
		(upstream.DialFailed(err) || errors.As(err, &timeout) && timeout.Timeout())
}

// upstreamProblem sorts the failures of a node that was reached.
func upstreamProblem(err error) *problem {
	var timeout net.Error
	if limit, ok := errors.AsType[bodyLimit](err); ok {
		return bodyTooLarge(int64(limit)).because(err)
	}
	switch {
	case errors.Is(err, errClientBody):
		return badRequest(errClientBody).because(err)
	case errors.Is(err, errClientLeft):
		return clientLeft().because(err)
	case errors.Is(err, ErrDescriptors):
		return overloaded().because(err)
	case errors.Is(err, upstream.ErrNoPort):
		return noPort().because(err)
	case errors.Is(err, errGatewayEnds):
		return stopping()
	case errors.Is(err, errNodeSilent), errors.Is(err, errTotalTimeout), errors.Is(err, os.ErrDeadlineExceeded),
		errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return upstreamTimeout().because(err)
	}
	return upstreamFailed().because(unquoted(err))
}

// unquoted is err without what it quotes of a node's answer, for the log: a node
// that is not an HTTP server may send back what the client sent, tokens included.
func unquoted(err error) error {
	text := err.Error()
	for _, sign := range []string{`"`, "header line: "} {
		text, _, _ = strings.Cut(text, sign)
	}
	if text == err.Error() {
		return err
	}
	return errors.New(text + "(not quoted)")
}

// A picker walks over the nodes that a request may go to: the one of a pinned
// route, or those of a balanced one by its policy, each once.
type picker struct {
	match  *match
	own    *ownSockets
	places *places // which of them have room for a tunnel; nil: it is not for one
	caps   caps
	holder holder // for whom it is
	tried  []*upstream.Node
	loops  int   // of them: the gateway itself
	full   bool  // some were left out because they are full
	err    error // why the last one failed
}

// maxTries bounds how long a client waits for a service whose nodes refuse.
const maxTries = 5

// next leases the next node and gives its address.
func (p *picker) next() (*upstream.Lease, string, *problem) {
	route := p.match.route
	if errors.Is(p.err, ErrDescriptors) {
		return nil, "", overloaded().because(p.err)
	}
	node := p.choose()
	if node == nil {
		return nil, "", p.nobody()
	}
	p.tried = append(p.tried, node)
	addr, ok := node.Addr(route.Port)
	if _, ours := p.own.at(addr); ours {
		p.loop()
		return p.next()
	}
	if !ok {
		return nil, "", nodeDown(p.match.name).because(errors.New("the node has no port " + route.Port))
	}
	return p.lease(node, addr)
}

func (p *picker) choose() *upstream.Node {
	route := p.match.route
	switch {
	case len(p.tried) == maxTries:
		return nil
	case p.match.pinned:
		if len(p.tried) > 0 {
			return nil
		}
		return p.match.node
	case route.Balance == LeastConnections:
		return p.match.service.LeastConnections(route.Port, p.leftOut())
	}
	return p.match.service.RoundRobin(route.Port, p.leftOut())
}

// failed notes that the node could not be reached.
func (p *picker) failed(err error) { p.err = err }

// loop notes that the node is the gateway itself.
func (p *picker) loop() {
	p.loops++
	p.failed(errOwnAddress)
}

// nobody says why no node is left.
func (p *picker) nobody() *problem {
	switch {
	case errors.Is(p.err, upstream.ErrNoPort):
		return noPort().because(p.err)
	case p.full:
		return p.allFull()
	case p.loops > 0 && p.loops == len(p.tried):
		return loopDetected().because(p.err)
	case p.match.pinned:
		return nodeDown(p.match.name).because(p.err)
	case len(p.tried) == 0:
		return noNode(p.match.route.Service)
	}
	return noneReached(p.match.route.Service).because(p.err)
}
