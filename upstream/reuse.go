package upstream

import (
	"context"
	"encoding/hex"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptrace"
	"strconv"
	"strings"
	"sync"
	"time"
)

// A pooledConn is a connection to a node that carries HTTP requests one after
// the other. Between two of them it finds out, as late as possible, whether it
// can carry another: net/http alone would take what a node has sent unasked for
// the next answer if it has read it already, and would write into a connection
// of which the system knows that it has ended.
type pooledConn struct {
	net.Conn

	mu      sync.Mutex
	moved   chan struct{} // closed with every change of what follows; nil: nobody waits
	reading bool          // net/http waits for bytes: it has used up all that came
	closed  bool          // by net/http
	begun   bool          // a request has the connection and has written nothing yet
	wrote   bool          // the request has written something

	lastRead time.Time
	keep     time.Duration // how long the node said that it keeps an idle connection; -1: it did not
}

var errUnasked = errors.New("the node sent something before it was asked")

// Read implements net.Conn.
func (c *pooledConn) Read(p []byte) (int, error) {
	c.change(func() { c.reading = true })
	n, err := c.Conn.Read(p)
	unasked := false
	c.change(func() {
		c.reading, c.lastRead = false, time.Now()
		unasked = c.begun && n > 0
	})
	if unasked {
		return 0, errUnasked
	}
	return n, err
}

// Write implements net.Conn.
func (c *pooledConn) Write(p []byte) (int, error) {
	c.change(func() { c.begun = false })
	n, err := c.Conn.Write(p)
	if n > 0 {
		c.change(func() { c.wrote = true })
	}
	return n, err
}

// Close implements net.Conn.
func (c *pooledConn) Close() error {
	c.change(func() { c.closed = true })
	return c.Conn.Close()
}

func (c *pooledConn) change(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f()
	if c.moved != nil {
		close(c.moved)
		c.moved = nil
	}
}

// await waits until ok, which looks at what mu guards.
func (c *pooledConn) await(ctx context.Context, ok func() bool) {
	for {
		c.mu.Lock()
		if ok() {
			c.mu.Unlock()
			return
		}
		if c.moved == nil {
			c.moved = make(chan struct{})
		}
		moved := c.moved
		c.mu.Unlock()
		select {
		case <-moved:
		case <-ctx.Done():
			return
		}
	}
}

// begin is called when a request has got the connection. One that cannot carry
// it is ended, before anything is written.
func (c *pooledConn) begin(ctx context.Context, reused bool) {
	if reused {
		c.await(ctx, func() bool { return c.reading || c.closed })
	}
	c.mu.Lock()
	c.begun, c.wrote = reused, false
	dead := reused && (c.overdue() || !silent(c.Conn))
	c.mu.Unlock()
	if dead {
		c.Conn.Close()
		c.await(ctx, func() bool { return c.closed })
	}
}

// overdue tells whether the node may be about to close the connection.
func (c *pooledConn) overdue() bool {
	return c.keep >= 0 && time.Since(c.lastRead) > c.keep-min(time.Second, c.keep/2)
}

// noteKeepAlive takes what an answer says of how long the connection is kept.
func (c *pooledConn) noteKeepAlive(answer *http.Response) {
	keep := keepAliveOf(answer.Header.Get("Keep-Alive"))
	c.mu.Lock()
	defer c.mu.Unlock()
	c.keep = keep
}

// keepAliveOf reads "timeout=5, max=100"; -1: it says nothing.
func keepAliveOf(value string) time.Duration {
	for part := range strings.SplitSeq(value, ",") {
		name, seconds, _ := strings.Cut(strings.TrimSpace(part), "=")
		n, err := strconv.Atoi(strings.Trim(seconds, `"`))
		if strings.EqualFold(name, "timeout") && err == nil && 0 <= n && n < 1e6 {
			return time.Duration(n) * time.Second
		}
	}
	return -1
}

// untouched tells whether nothing of the request was written.
func (c *pooledConn) untouched() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.wrote
}

type addressContext struct{}

// overPool is net/http's RoundTrip over connections to one node: a node that has
// come to another's address is not asked over connections that were opened to
// the other. A request of which nothing was written is sent over another
// connection, whatever it is.
func overPool(by *http.Transport, req *http.Request) (*http.Response, error) {
	for {
		var used *pooledConn
		reused := false
		ctx := httptrace.WithClientTrace(req.Context(), &httptrace.ClientTrace{GotConn: func(got httptrace.GotConnInfo) {
			used, reused = got.Conn.(*pooledConn), got.Reused
			used.begin(req.Context(), reused)
		}})
		pooled := toNodesPool(req, ctx)
		if req.GetBody != nil {
			pooled.GetBody = func() (io.ReadCloser, error) {
				if used != nil && !used.untouched() {
					return nil, errSentInPart
				}
				return req.GetBody()
			}
		}
		answer, err := by.RoundTrip(pooled)
		if err == nil {
			used.noteKeepAlive(answer)
			return answer, nil
		}
		if !reused || DialFailed(err) || ctx.Err() != nil || !used.untouched() || !rewound(req) {
			return nil, err
		}
	}
}

var errSentInPart = errors.New("the connection broke when a part of the request had been sent")

// rewound tells whether a request's body can be read from its beginning.
func rewound(req *http.Request) bool {
	if req.Body == nil || req.Body == http.NoBody {
		return true
	}
	if req.GetBody == nil {
		return false
	}
	body, err := req.GetBody()
	if err == nil {
		req.Body = body
	}
	return err == nil
}

// toNodesPool is req with a name for its node and address in the place of the
// address, which is what net/http keeps idle connections by.
func toNodesPool(req *http.Request, ctx context.Context) *http.Request {
	address := req.URL.Host
	ctx = context.WithValue(ctx, addressContext{}, address)
	name := address
	if node, ok := ctx.Value(nodeContext{}).(*Node); ok {
		name += "\x00" + node.Service + "\x00" + node.ID
	}
	pooled := req.WithContext(ctx)
	url := *req.URL
	url.Host = hex.EncodeToString([]byte(name))
	pooled.URL = &url
	if pooled.Host == "" {
		pooled.Host = address
	}
	if req.Body == nil && (req.Method == http.MethodPut || req.Method == http.MethodDelete) {
		// net/http knows of these methods only so that they are idempotent; nothing
		// of it is sent.
		pooled.Header = maps.Clone(req.Header)
		pooled.Header["X-Idempotency-Key"] = append([]string{}, req.Header["X-Idempotency-Key"]...)
	}
	return pooled
}
