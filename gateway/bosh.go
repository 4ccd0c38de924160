package gateway

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"time"

	"github.com/valyala/fasthttp"

	"singlegate/gateway/bosh"
)

// A poll is one request of a BOSH route (XEP-0124) that carries a message. A
// session lives in the node that created it, and its requests come over any
// connection and any gateway. So where a service has several nodes, the session
// id that a client sees names the node: it is marked in every answer and restored
// in every request. Of a message only its opening tag is read; what is not
// understood there passes as it is, unless a node has to be chosen by it.
type poll struct {
	x      *exchange
	form   bosh.Form
	tag    bosh.Tag // of the request
	sid    string   // the session, as its node calls it; "": there is none yet
	mark   string   // the node, as the client's sid names it; "": it does not
	begins bool     // it asks for a session, whose sid is to be marked
	said   bosh.Tag // of the answer
}

var errNoBody = errors.New("no <body> could be found at the beginning of the message")

// serveBOSH proxies one request of a BOSH route: to the node of its session, or
// to any where there is none.
func (r *request) serveBOSH() *problem {
	script := r.scriptMessage()
	switch {
	case r.method == fasthttp.MethodPost, script != "":
	case r.method == fasthttp.MethodGet, r.method == fasthttp.MethodHead, r.method == fasthttp.MethodOptions, r.oneNode():
		if p := r.match.nodeProblem(); p != nil {
			return p
		}
		return r.serveHTTP() // what servers show to a browser, and CORS
	default:
		return methodRefused(r.method).allowing("GET, HEAD, POST, OPTIONS")
	}
	x := r.begin()
	x.poll = &poll{x: x}
	p := x.poll.serve(script)
	if p != nil {
		x.end()
	}
	return p
}

func (b *poll) serve(script string) *problem {
	if p := b.read(script); p != nil {
		return p
	}
	if p := b.choose(); p != nil {
		return p
	}
	defer context.AfterFunc(b.x.r.server.stopping, b.release)()
	defer b.x.r.server.metrics.bosh.began(b)()
	return b.lost(b.x.forward())
}

// oneNode tells whether there is no choice between nodes.
func (r *request) oneNode() bool {
	if r.match.pinned {
		return true
	}
	n := 0
	for _, node := range r.match.service.Nodes() {
		if _, ok := node.Addr(r.match.route.Port); ok {
			n++
		}
	}
	return n <= 1
}

// scriptMessage is the message of a GET whose query is one (XEP-0252 section 4).
func (r *request) scriptMessage() string {
	if r.method != fasthttp.MethodGet || r.query == "" {
		return ""
	}
	message, err := url.QueryUnescape(r.query[1:])
	if err != nil || !strings.HasPrefix(strings.TrimLeft(message, " \t\r\n"), "<") {
		return ""
	}
	return message
}

// read finds the opening tag of the request's message.
func (b *poll) read(script string) *problem {
	var out bosh.Outcome
	if script != "" {
		b.form = bosh.Script
		b.tag, out = bosh.Parse([]byte(script), bosh.Plain)
	} else {
		var err error
		if out, err = b.readBody(); err != nil {
			return badRequest(errClientBody).because(err)
		}
	}
	b.sid, b.mark = bosh.Split(b.tag.SID)
	switch {
	case out != bosh.Found && !b.x.r.oneNode():
		return boshMalformed().because(errNoBody)
	case b.mark == "":
	case b.form == bosh.Script:
		b.x.r.query = "?" + strings.ReplaceAll(url.QueryEscape(string(b.tag.WithSID([]byte(script), b.sid))), "+", "%20")
	default:
		b.x.body.prefix = b.tag.WithSID(b.x.body.prefix, b.sid)
		if b.x.body.length >= 0 {
			b.x.body.length -= int64(len(b.tag.SID) - len(b.sid))
		}
	}
	return nil
}

// readBody reads as much of the request's body as its opening tag takes. It
// stays the beginning of what the node gets.
func (b *poll) readBody() (bosh.Outcome, error) {
	body := b.x.body
	if body == nil {
		return bosh.None, nil
	}
	b.x.notWaiting() // it is the client that is waited for
	defer b.x.waiting()
	var out bosh.Outcome
	var err error
	body.prefix, out, err = readTag(body.src, &b.tag, bosh.Plain)
	if err == io.EOF {
		err = nil // whether it came too early is for the body to judge
	}
	return out, err
}

// readTag reads from src until a message's opening tag is whole, or cannot become so.
func readTag(src io.Reader, tag *bosh.Tag, form bosh.Form) (text []byte, out bosh.Outcome, err error) {
	text = make([]byte, 0, 1024)
	for {
		if len(text) == cap(text) {
			text = append(make([]byte, 0, 2*cap(text)), text...)
		}
		var n int
		n, err = src.Read(text[len(text):cap(text)])
		text = text[:len(text)+n]
		if *tag, out = bosh.Parse(text, form); out != bosh.More {
			return text, out, err
		}
		if err != nil {
			return text, bosh.None, err
		}
	}
}

// choose finds the node of the request's session. Without a session any will do.
func (b *poll) choose() *problem {
	r := b.x.r
	switch {
	case r.match.pinned && r.match.node == nil && b.sid != "" && !r.match.service.Partial:
		return boshNodeGone()
	case r.match.pinned && b.sid == "":
		return r.match.nodeProblem() // a session that is there may go on
	case r.match.pinned:
	case b.mark != "":
		for _, n := range r.match.service.Nodes() {
			if bosh.Mark(n.Service, n.ID) == b.mark {
				r.match.pinned, r.match.name, r.match.node = true, n.ID, n
				return nil
			}
		}
		if r.match.service.Partial {
			return noSnapshot(r.match.route.Service)
		}
		return boshNodeGone()
	case r.oneNode():
	case b.sid != "":
		return boshUnknownSession()
	default:
		b.begins = true
	}
	return nil
}

// release lets a poll that is held go when the gateway ends: after the grace, and
// not all of them at once. Its client then repeats it, and another gateway, or the
// next one here, takes it to the same node.
func (b *poll) release() {
	end := b.x.r.state.cfg.Shutdown
	select {
	case <-time.After(end.Grace + rand.N(end.Drain+1)):
		if !b.x.answered.Load() {
			b.x.cancel(errGatewayEnds)
		}
	case <-b.x.ctx.Done():
	}
}

// lost tells the client that its session is over when its node has nobody any
// more who could know of it.
func (b *poll) lost(p *problem) *problem {
	if p != nil && b.tag.SID != "" && errors.Is(p.cause, syscall.ECONNREFUSED) {
		return boshNodeGone().because(p.cause)
	}
	return p
}

// answered marks the session id in a node's answer, whose framing stays what it
// is. An answer that is something else than expected stays untouched.
func (b *poll) answered(answer *http.Response) {
	if answer.StatusCode != http.StatusOK || answer.Header.Get("Content-Encoding") != "" {
		return
	}
	b.x.waiting()
	text, out, err := readTag(answer.Body, &b.said, b.form)
	b.x.notWaiting()
	if out == bosh.Found && b.said.SID != "" && b.said.SID == b.markable() {
		marked := bosh.Join(b.said.SID, b.nodeMark())
		text = b.said.WithSID(text, marked)
		if answer.ContentLength >= 0 {
			answer.ContentLength += int64(len(marked) - len(b.said.SID))
		}
	}
	answer.Body = &resumed{text: text, err: err, body: answer.Body}
}

// markable is the session id that an answer may name; "": it stays as it is.
func (b *poll) markable() string {
	switch {
	case b.begins:
		return b.said.SID
	case b.mark != "":
		return b.sid
	}
	return ""
}

func (b *poll) nodeMark() string {
	node := b.x.lease.Node
	return bosh.Mark(node.Service, node.ID)
}

// resumed is a body of which the beginning was read already, and the error that
// came with it.
type resumed struct {
	text []byte
	err  error
	body io.ReadCloser
}

func (b *resumed) Read(p []byte) (int, error) {
	if len(b.text) == 0 {
		if b.err != nil {
			return 0, b.err
		}
		return b.body.Read(p)
	}
	n := copy(p, b.text)
	b.text = b.text[n:]
	if len(b.text) == 0 {
		return n, b.err
	}
	return n, nil
}

func (b *resumed) Close() error { return b.body.Close() }

// marks tells whether an answer may have to be changed, for which it must come as it is.
func (b *poll) marks() bool { return b.begins || b.mark != "" }
