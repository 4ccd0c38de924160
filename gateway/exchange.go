package gateway

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"

	"singlegate/upstream"
)

// An exchange is one proxied HTTP request. It owns both bodies: the request's,
// which net/http reads while fasthttp owns the connection it comes from, and
// the answer's, which fasthttp reads after the handler has returned. It ends
// once, when both sides have let go; end makes them.
type exchange struct {
	r        *request
	ctx      context.Context
	cancel   context.CancelCauseFunc
	body     *requestBody // nil: the request has none
	small    []byte       // the body, if it was taken over whole
	poll     *poll        // nil: it is no message of BOSH
	lease    *upstream.Lease
	answer   *http.Response // set when the client is being answered
	answered atomic.Bool    // so it is
	limit    atomic.Int64   // nanoseconds of silence on the node's side
	timer    *time.Timer    // runs while the node is waited for
	stop     []func()       // what else end has to undo
	once     sync.Once

	status int
	sent   int64 // body bytes to the client
	cause  error // why the answer was cut short
}

// Why an exchange was given up; the causes of its context.
var (
	errClientLeft   = errors.New("the client left")
	errClientBody   = errors.New("the client's body broke off")
	errNodeSilent   = errors.New("the node was silent for too long")
	errTotalTimeout = errors.New("the whole exchange took too long")
	errExchangeOver = errors.New("the exchange is over")
	errGatewayEnds  = errors.New("the gateway is ending")
)

func (r *request) begin() *exchange {
	t := r.match.route.Timeouts
	x := &exchange{r: r}
	x.limit.Store(int64(t.Read))
	x.ctx, x.cancel = context.WithCancelCause(upstream.WithConnectTimeout(r.conn.listener.running, t.Connect))
	if t.Total > 0 {
		total := time.AfterFunc(t.Total, func() { x.cancel(errTotalTimeout) })
		x.stop = append(x.stop, func() { total.Stop() })
	}
	x.timer = time.AfterFunc(t.Read, func() { x.cancel(errNodeSilent) })
	r.conn.transferring(t.Stall)
	if r.hasBody() {
		x.body = &requestBody{x: x, src: r.ctx.RequestBodyStream(), length: int64(r.ctx.Request.Header.ContentLength()), limit: bodyLimit(r.match.route.MaxBody)}
	} else {
		x.watchClient()
	}
	r.exchange = x
	return x
}

// watchClient gives the exchange up when the client leaves. A client that still
// sends its body is not watched: its end shows there.
func (x *exchange) watchClient() {
	stop := x.r.server.watcher.watch(x.r.conn.socket, func() { x.cancel(errClientLeft) })
	x.stop = append(x.stop, stop)
}

// waiting and notWaiting frame the moments at which the node is waited for.
func (x *exchange) waiting()    { x.timer.Reset(time.Duration(x.limit.Load())) }
func (x *exchange) notWaiting() { x.timer.Stop() }

// end makes both sides let go and gives everything back. Only the first call
// does anything.
func (x *exchange) end() {
	x.once.Do(func() {
		x.cancel(errExchangeOver)
		if x.answer != nil {
			x.answer.Body.Close()
		}
		if x.body != nil {
			x.body.detach() // from here on nothing else uses the exchange
		}
		x.timer.Stop()
		for _, stop := range x.stop {
			stop()
		}
		if x.lease != nil {
			x.lease.Done()
		}
		if x.answer != nil {
			x.r.logExchange(x)
		}
	})
}

// reply begins the answer to the client. fasthttp reads the body through the
// exchange when the handler has returned, and closes it.
func (x *exchange) reply(answer *http.Response) {
	x.answer, x.status = answer, answer.StatusCode
	x.answered.Store(true)
	x.notWaiting()
	ctx := x.r.ctx
	x.copyHead(&ctx.Response)
	if x.body != nil && !x.body.complete.Load() {
		// The client may still be sending. The rest of its body must never be
		// taken for the next request.
		ctx.Response.SetConnectionClose()
		x.r.conn.linger.Store(true)
	}
	if strings.HasPrefix(answer.Header.Get("Content-Type"), "text/event-stream") {
		x.limit.Store(int64(x.r.match.route.Timeouts.Idle))
	}
	length := answer.ContentLength
	switch {
	case ctx.IsHead() || !bodyAllowed(answer.StatusCode):
		if length >= 0 {
			ctx.Response.Header.SetContentLength(int(length))
		}
		x.end()
	case length < 0 && !ctx.Request.Header.IsHTTP11():
		x.replyUntilClose()
	default:
		ctx.Response.ImmediateHeaderFlush = length < 0 || length > 64<<10
		ctx.Response.SetBodyStream(x, int(length))
	}
}

func bodyAllowed(status int) bool {
	return status >= 200 && status != http.StatusNoContent && status != http.StatusNotModified
}

func (x *exchange) copyHead(resp *fasthttp.Response) {
	resp.SetStatusCode(x.answer.StatusCode)
	if _, reason, ok := strings.Cut(x.answer.Status, " "); ok {
		resp.Header.SetStatusMessage([]byte(printable(reason)))
	}
	for _, f := range x.r.policed(answerFields(x.answer.Header)) {
		resp.Header.Add(f.name, f.value)
	}
}

// replyUntilClose answers an HTTP/1.0 client whose answer has no known length:
// the end of the connection is the end of the body.
func (x *exchange) replyUntilClose() {
	x.r.conn.hold(x)
	x.r.ctx.HijackSetNoResponse(true)
	head := x.headUntilClose()
	conn := x.r.conn
	x.r.ctx.Hijack(x.r.server.owned(conn, func(net.Conn) {
		defer conn.Close()
		if _, err := conn.Write(head); err != nil {
			x.cause = errClientLeft
			return
		}
		if _, err := x.WriteTo(conn); err != nil {
			conn.reset()
		}
	}))
}

func (x *exchange) headUntilClose() []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "HTTP/1.1 %s\r\n", printable(x.answer.Status))
	for _, f := range x.r.policed(answerFields(x.answer.Header)) {
		b.WriteString(f.name + ": " + f.value + "\r\n")
	}
	b.WriteString("Connection: close\r\n\r\n")
	return []byte(b.String())
}

// Read implements io.Reader, which fasthttp asks of a body stream.
func (x *exchange) Read(p []byte) (int, error) {
	x.waiting()
	n, err := x.answer.Body.Read(p)
	x.notWaiting()
	x.sent += int64(n)
	if err != nil && err != io.EOF {
		x.cause = unquoted(x.causeOf(err))
	}
	return n, err
}

// SupportsBodyWriteTo makes fasthttp use WriteTo.
func (x *exchange) SupportsBodyWriteTo() bool { return true }

// WriteTo sends the answer's body on as it comes: what one read gave is flushed
// before the next. A body that breaks off is an error, upon which fasthttp
// closes the connection without ending the message.
func (x *exchange) WriteTo(w io.Writer) (total int64, err error) {
	buf := x.r.server.buffers.Get().(*[]byte)
	defer x.r.server.buffers.Put(buf)
	flusher, _ := w.(*bufio.Writer)
	for {
		n, rerr := x.Read(*buf)
		if n > 0 {
			if _, err = w.Write((*buf)[:n]); err == nil && flusher != nil {
				err = flusher.Flush()
			}
			if err != nil {
				x.cause = errClientLeft
				return total, err
			}
			total += int64(n)
		}
		if rerr == io.EOF {
			return total, nil
		}
		if rerr != nil {
			return total, rerr
		}
	}
}

// Close implements io.Closer: fasthttp is done with the answer.
func (x *exchange) Close() error {
	x.end()
	return nil
}

// causeOf prefers the reason for which the exchange was given up over the error
// that this led to.
func (x *exchange) causeOf(err error) error {
	if cause := context.Cause(x.ctx); cause != nil {
		return cause
	}
	return err
}

// A requestBody is the gate between net/http, which reads it, and fasthttp, to
// whom the stream behind it belongs. Once detached it never touches the stream.
type requestBody struct {
	x        *exchange
	length   int64       // -1: chunked
	limit    bodyLimit   // bytes it may have; 0: any number
	complete atomic.Bool // read to its end
	received atomic.Int64

	mu     sync.Mutex // held while the stream is read
	prefix []byte     // what was read of src already
	src    io.Reader  // nil when detached
}

// Read implements io.Reader. A body that ends early is an error, also where
// fasthttp takes the end of the connection for the end of the body.
func (b *requestBody) Read(p []byte) (n int, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	defer func() {
		if v := recover(); v != nil { // in net/http's goroutine it would end the process
			b.x.r.logPanic(v)
			n, err = 0, errClientBody
		}
	}()
	if b.src == nil {
		return 0, errExchangeOver
	}
	if b.complete.Load() {
		return 0, io.EOF
	}
	p = b.within(p)
	if len(b.prefix) > 0 {
		n = copy(p, b.prefix)
		b.prefix = b.prefix[n:]
		return b.judge(n, nil)
	}
	if b.x.answered.Load() {
		n, err = b.src.Read(p) // the node has begun to answer: its silence is counted there
		return b.judge(n, err)
	}
	b.x.notWaiting()
	n, err = b.src.Read(p)
	b.x.waiting()
	return b.judge(n, err)
}

// judge tells what a read means for the exchange, and what of it the node gets.
func (b *requestBody) judge(n int, err error) (int, error) {
	got := b.received.Add(int64(n))
	switch {
	case b.exceeds(got):
		b.x.cancel(b.limit)
		return 0, b.limit
	case b.length >= 0 && got == b.length, err == io.EOF && b.length < 0 && !b.x.r.conn.ended.Load():
		b.complete.Store(true)
		b.x.watchClient()
		return n, err
	case err != nil:
		b.x.cancel(errClientBody)
		return n, fmt.Errorf("%w: %w", errClientBody, err)
	}
	return n, nil
}

// again is the same body for another try: net/http sends a request again when a
// pooled connection turns out to be dead before anything was written to it.
func (b *requestBody) again() (io.ReadCloser, error) {
	if b.received.Load() > 0 {
		return nil, errBodyTouched
	}
	return b, nil
}

var errBodyTouched = errors.New("the request's body was sent in part already")

// Close implements io.Closer for net/http, which may close at any time.
func (b *requestBody) Close() error { return nil }

// detach takes the stream back for fasthttp. A read in progress is cut short;
// the connection then cannot carry another request, which reply has told the
// client already.
func (b *requestBody) detach() {
	if !b.mu.TryLock() {
		if !b.complete.Load() {
			b.x.r.conn.cutReads()
		}
		b.mu.Lock()
	}
	b.src = nil
	b.mu.Unlock()
}
