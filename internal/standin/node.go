// Package standin provides stand-in IM nodes: small servers in this process, on
// a loopback port each, that speak just enough of a chat server, WildfireChat or
// Pomelo to demonstrate and to test a gateway in front of them; systems whose real
// servers can be had are tested with those. They keep no users and no history, and
// are not meant for clients one does not trust.
//
// The package imports the standard library and github.com/gobwas/ws, and
// nothing of this module.
package standin

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"
)

// System is the IM system a node stands in for.
type System string

// The systems.
const (
	Chat         System = "chat"         // WebSocket echo on every path; the demo's system
	WildfireChat System = "wildfirechat" // HTTP dispatch and MQTT over WebSocket
	Pomelo       System = "pomelo"       // binary packages over WebSocket, gate and connector
)

// Options say what Start starts. Only ID and System are required.
type Options struct {
	ID      string // the node's id, named in every answer
	Address string // host:port to listen on; "" means a free port of 127.0.0.1
	System  System

	// CloseSilentAfter ends a WebSocket, with close code 1000, whose client has
	// sent nothing for so long, as IM servers do. 0: never.
	CloseSilentAfter time.Duration

	// Connector is the host:port that a Pomelo gate names to its clients. "":
	// the node's own.
	Connector string
}

// Node is one running stand-in. Its methods may be called concurrently.
type Node struct {
	options  Options
	listener net.Listener
	server   *http.Server
	work     sync.WaitGroup // the accept loop, connections and handlers

	mu          sync.Mutex
	connections map[net.Conn]struct{} // nil once closed
}

// Start listens and serves until Close. The caller owns the node and closes it.
func Start(o Options) (*Node, error) {
	if o.ID == "" {
		return nil, errors.New("standin: Options.ID is empty: give the node an id such as node1")
	}
	if o.Address == "" {
		o.Address = "127.0.0.1:0"
	}
	n := &Node{options: o, connections: make(map[net.Conn]struct{})}
	handler, err := n.handler()
	if err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", o.Address)
	if err != nil {
		return nil, fmt.Errorf("standin: node %s cannot listen on %s: %w", o.ID, o.Address, err)
	}
	n.listener = listener
	n.server = &http.Server{
		Handler:           n.counted(handler),
		ConnState:         n.countConnection,
		ReadHeaderTimeout: 10 * time.Second,
	}
	n.work.Go(n.accept)
	return n, nil
}

// handler returns what answers the requests of the node's system.
func (n *Node) handler() (http.Handler, error) {
	switch n.options.System {
	case Chat:
		return chat{n}, nil
	case WildfireChat:
		return wildfirechat{n}, nil
	case Pomelo:
		return pomelo{n}, nil
	}
	return nil, fmt.Errorf("standin: system %q is unknown: expected %s, %s or %s", n.options.System, Chat, WildfireChat, Pomelo)
}

// ID returns the node's id.
func (n *Node) ID() string { return n.options.ID }

// Addr returns the host:port the node listens on.
func (n *Node) Addr() string { return n.listener.Addr().String() }

// Port returns the port the node listens on.
func (n *Node) Port() uint16 { return uint16(n.listener.Addr().(*net.TCPAddr).Port) }

// Close closes the node's sockets without a word to its clients, as a process
// that dies does, and waits for its goroutines. Closing again is harmless.
func (n *Node) Close() error {
	n.mu.Lock()
	open := n.connections
	n.connections = nil
	n.mu.Unlock()

	err := n.server.Close()
	for conn := range open {
		_ = conn.Close()
	}
	n.work.Wait()
	return err
}

// accept serves connections until the listener is closed.
func (n *Node) accept() {
	_ = n.server.Serve(tracking{n.listener, n})
}

// counted makes Close wait for a request's handler; a WebSocket lives in one.
func (n *Node) counted(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n.work.Add(1)
		defer n.work.Done()
		w.Header().Set("X-Node", n.options.ID)
		next.ServeHTTP(w, r)
	})
}

// countConnection makes Close wait for the server's own goroutine of a
// connection. The accept loop is counted while it reports a new one.
func (n *Node) countConnection(_ net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		n.work.Add(1)
	case http.StateClosed, http.StateHijacked:
		n.work.Done()
	}
}

// track takes a fresh connection into the set that Close closes, and reports
// false when the node is closed already.
func (n *Node) track(conn net.Conn) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.connections == nil {
		return false
	}
	n.connections[conn] = struct{}{}
	return true
}

// forget takes a closed connection out of the set.
func (n *Node) forget(conn net.Conn) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.connections, conn)
}

// tracking is the node's listener. Its connections stay in the node's set until
// they are closed, also when a WebSocket took them over from the HTTP server.
type tracking struct {
	net.Listener
	node *Node
}

// Accept implements net.Listener.
func (l tracking) Accept() (net.Conn, error) {
	raw, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	conn := &connection{TCPConn: raw.(*net.TCPConn), node: l.node}
	if !l.node.track(conn) {
		_ = raw.Close()
		return nil, net.ErrClosed
	}
	if l.node.options.System == Pomelo {
		return &sniffed{connection: conn}, nil
	}
	return conn, nil
}

// connection is one accepted socket, known to its node while it is open.
type connection struct {
	*net.TCPConn
	node *Node
}

// Close implements net.Conn.
func (c *connection) Close() error {
	c.node.forget(c)
	return c.TCPConn.Close()
}
