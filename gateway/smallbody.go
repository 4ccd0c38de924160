package gateway

import (
	"bytes"
	"io"
	"net/http"
)

// smallBody is the size up to which fasthttp has read a body of known length
// when the handler begins.
const smallBody = 8 << 10

// takeSmallBody takes such a body over: it leaves with the head in one write,
// and can be sent to another node as long as the first one has got nothing of it.
func (x *exchange) takeSmallBody() error {
	if x.body == nil || x.body.length < 0 || x.body.length > smallBody {
		return nil
	}
	body := make([]byte, x.body.length)
	if _, err := io.ReadFull(x.body, body); err != nil {
		return x.causeOf(err)
	}
	x.small = body
	return nil
}

// setBody gives a request to a node its body.
func (x *exchange) setBody(req *http.Request) {
	switch {
	case x.small != nil:
		req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(x.small)), nil }
		req.Body, _ = req.GetBody()
		req.ContentLength = int64(len(x.small))
	case x.body != nil:
		req.Body, req.ContentLength, req.GetBody = x.body, x.body.length, x.body.again
	}
}

// bodyTouched tells whether the body cannot be sent again from its beginning.
func (x *exchange) bodyTouched() bool {
	return x.small == nil && x.body != nil && x.body.received.Load() > 0
}
