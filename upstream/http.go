package upstream

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"runtime/debug"
	"time"
)

// newTransport is the pool of connections for HTTP requests. It passes bytes
// on as they are: no compression of its own, no proxy, no HTTP/2.
func (s *Set) newTransport() *http.Transport {
	return &http.Transport{
		DialContext: func(ctx context.Context, network, address string) (conn net.Conn, err error) {
			// net/http dials in a goroutine of its own, where a panic would end
			// the process: it is carried to the request that waits, see RoundTrip.
			defer func() {
				if v := recover(); v != nil {
					conn, err = nil, &dialPanic{value: v, stack: debug.Stack()}
				}
			}()
			if to, ok := ctx.Value(addressContext{}).(string); ok {
				address = to
			}
			conn, err = s.dialWithin(ctx, network, address)
			if err != nil {
				return nil, err
			}
			return &pooledConn{Conn: conn, keep: -1}, nil
		},
		DisableCompression:     true,
		MaxIdleConns:           1024,
		MaxIdleConnsPerHost:    256, // of one node
		IdleConnTimeout:        idleConnTime,
		MaxResponseHeaderBytes: maxAnswerHead,
		// A poll that is held holds both; longer reads and writes pass them by.
		ReadBufferSize:  1 << 10,
		WriteBufferSize: 2 << 10,
	}
}

// idleConnTime is how long a connection to a node waits for its next request.
// It is below the 5 s after which the strictest of common servers close theirs
// (Node.js, Apache, uvicorn): a request that may not be sent twice would be lost
// if it met such an end half-way. A connection costs a round trip to the node;
// one that has been idle for seconds is not worth that risk.
const idleConnTime = 4 * time.Second

// maxAnswerHead bounds the head of a node's answer, HTTP or handshake.
const maxAnswerHead = 64 << 10

type connectTimeout struct{}

// WithConnectTimeout bounds every dial made under the context. A dial that
// takes longer fails with an error for which DialFailed is true.
func WithConnectTimeout(ctx context.Context, d time.Duration) context.Context {
	return context.WithValue(ctx, connectTimeout{}, d)
}

func (s *Set) dialWithin(ctx context.Context, network, address string) (net.Conn, error) {
	if d, ok := ctx.Value(connectTimeout{}).(time.Duration); ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, d)
		defer cancel()
	}
	conn, err := s.dial(ctx, network, address)
	if err != nil {
		return nil, &DialError{Address: address, Err: err}
	}
	return conn, nil
}

// A DialError says that no connection to the node came about, so that nothing
// was sent to it.
type DialError struct {
	Address string
	Err     error
}

func (e *DialError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *DialError) Unwrap() error { return e.Err }

// DialFailed tells whether err means that nothing was sent, because there never
// was a connection.
func DialFailed(err error) bool {
	var d *DialError
	return errors.As(err, &d)
}

// RoundTrip sends one HTTP request to a node over a pooled connection and
// returns its answer with the body still to be read; the caller closes it.
// Contract and cancellation are those of http.RoundTripper. A request is
// repeated only on a pooled connection that died before the answer began: any if
// nothing of it was sent, one without a body also if its method is idempotent.
// A panic of the dialer is the caller's.
func (s *Set) RoundTrip(req *http.Request) (*http.Response, error) {
	return s.roundTrip(s.transport, req)
}

func (s *Set) roundTrip(by *http.Transport, req *http.Request) (*http.Response, error) {
	answer, err := overPool(by, req)
	var p *dialPanic
	if errors.As(err, &p) {
		panic(p.Error())
	}
	return answer, err
}

// RoundTripOnce is RoundTrip over a connection of its own, so that the request
// is sent to the node once at most, whatever its method.
func (s *Set) RoundTripOnce(req *http.Request) (*http.Response, error) {
	return s.roundTrip(s.single, req)
}

// dialPanic is a panic of the dialer on its way to the goroutine it belongs to.
type dialPanic struct {
	value any
	stack []byte
}

func (p *dialPanic) Error() string {
	return fmt.Sprintf("panic while dialling: %v\n%s", p.value, p.stack)
}
