package upstream

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"
)

// A Check is how the nodes of a service are asked, again and again, whether they
// work. A node that fails its check twice in a row is left out by balanced
// routes, unless all are, until it passes once.
type Check struct {
	Kind    CheckKind
	Port    string        // the node's; "": its only one
	Path    string        // of kinds http and websocket
	Host    string        // the Host header; "": the node's address
	Every   time.Duration // between two checks of a node
	Timeout time.Duration // for one
}

// CheckKind is what a check asks for.
type CheckKind string

// CheckTCP is content with a connection, CheckHTTP with a status below 500,
// CheckWebSocket with an accepted handshake.
const (
	CheckTCP       CheckKind = "tcp"
	CheckHTTP      CheckKind = "http"
	CheckWebSocket CheckKind = "websocket"
)

// failuresToFail is how often in a row a check must fail to count.
const failuresToFail = 2

// checksAtOnce bounds the connections that checks hold.
const checksAtOnce = 16

// RunChecks checks the nodes of the view in force, which view gives, until ctx
// ends. changed is told of a node that begins to fail (with the reason) or works
// again (with nil); it must not block for long.
func (s *Set) RunChecks(ctx context.Context, checks map[string]Check, view func() *View, changed func(Key, error)) {
	var services sync.WaitGroup
	places := make(chan struct{}, checksAtOnce)
	for name, check := range checks {
		services.Go(func() {
			tick := time.NewTicker(check.Every)
			defer tick.Stop()
			for ctx.Err() == nil {
				s.checkService(ctx, name, check, view(), places, changed)
				select {
				case <-tick.C:
				case <-ctx.Done():
				}
			}
		})
	}
	services.Wait()
}

// checkService checks each node of a service once.
func (s *Set) checkService(ctx context.Context, name string, check Check, view *View, places chan struct{}, changed func(Key, error)) {
	if view == nil || view.Services[name] == nil {
		return
	}
	var nodes sync.WaitGroup
	for _, n := range view.Services[name].Nodes() {
		nodes.Go(func() {
			places <- struct{}{}
			defer func() { <-places }()
			err := s.check(ctx, n, check)
			if ctx.Err() == nil && !errors.Is(err, ErrNoPort) && n.state.checked.take(err) {
				changed(n.Key(), err)
			}
		})
	}
	nodes.Wait()
}

// check asks one node.
func (s *Set) check(ctx context.Context, n *Node, c Check) error {
	ctx, cancel := context.WithTimeout(ToNode(ctx, n), c.Timeout)
	defer cancel()
	addr, ok := n.Addr(c.Port)
	if !ok {
		return fmt.Errorf("the node has no port %q", c.Port)
	}
	host := c.Host
	if host == "" {
		host = addr
	}
	switch c.Kind {
	case CheckHTTP:
		return s.checkHTTP(ctx, addr, host, c.Path)
	case CheckWebSocket:
		return s.checkWebSocket(ctx, addr, host, c)
	}
	conn, err := s.dial(ctx, "tcp", addr)
	if err == nil {
		conn.Close()
	}
	return err
}

func (s *Set) checkHTTP(ctx context.Context, addr, host, path string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+path, nil)
	if err != nil {
		return err
	}
	req.Host = host
	answer, err := overPool(s.transport, req)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	io.CopyN(io.Discard, answer.Body, 64<<10) // so that the connection can be used again
	if answer.StatusCode >= http.StatusInternalServerError {
		return fmt.Errorf("the check of %s was answered with %s", path, answer.Status)
	}
	return nil
}

func (s *Set) checkWebSocket(ctx context.Context, addr, host string, c Check) error {
	var nonce [16]byte
	rand.Read(nonce[:])
	key := base64.StdEncoding.EncodeToString(nonce[:])
	head := "GET " + c.Path + " HTTP/1.1\r\nHost: " + host + "\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + key + "\r\n\r\n"
	up, err := s.Upgrade(ctx, Upgrade{Addr: addr, Head: []byte(head), Key: key, Connect: c.Timeout, Answer: c.Timeout})
	if err != nil {
		return err
	}
	if up.Conn == nil {
		up.Answer.Body.Close()
		return fmt.Errorf("the handshake of the check was answered with %s", up.Answer.Status)
	}
	return up.Conn.Close()
}

// checked is what checks have found out about a node.
type checked struct {
	mu      sync.Mutex
	failed  int // in a row
	failing bool
}

// take notes the outcome of a check and tells whether the node has changed.
func (c *checked) take(err error) (changed bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil {
		changed = c.failing
		c.failed, c.failing = 0, false
		return changed
	}
	c.failed = min(c.failed+1, failuresToFail)
	changed = !c.failing && c.failed == failuresToFail
	c.failing = c.failing || changed
	return changed
}

func (c *checked) bad() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.failing
}
