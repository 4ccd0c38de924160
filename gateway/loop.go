package gateway

import (
	"errors"
	"fmt"
	"strings"

	"singlegate/discovery"
	"singlegate/upstream"
)

// loopHeader is how a request that comes back is known. Every request to a node
// carries it, WebSocket handshakes too, with the id of this gateway added to what
// the client sent; a request that has the id already was here before.
//
// It is the header that RFC 8586 defines for just this, and servers that are no
// CDN pay no heed to it. Via (RFC 9110 section 7.6.3) would say the same, but
// changes answers: nginx, for one, does not compress them for requests that have
// it. A header of our own would be passed on by others only by chance, while
// RFC 8586 forbids to take this one away.
const loopHeader = "CDN-Loop"

// newLoopID is a pseudonym (RFC 8586 section 2) that no other gateway has: of
// several gateways in a row none takes another one's requests for its own.
func newLoopID() string { return "singlegate-" + newRequestID() }

// hops is what the node gets as CDN-Loop.
func (r *request) hops() string { return appended(r.headers(loopHeader), r.server.loopID) }

// cameBack tells whether the request was here before.
func (r *request) cameBack() bool {
	for _, v := range r.headers(loopHeader) {
		for hop := range strings.SplitSeq(v, ",") {
			id, _, _ := strings.Cut(hop, ";")
			if strings.TrimSpace(id) == r.server.loopID {
				return true
			}
		}
	}
	return false
}

// loop refuses a request that came back, and says where it did. The line of the
// access log that has the same request id, and a node, tells by which node.
func (r *request) loop() *problem {
	if ids := r.headers("X-Request-Id"); len(ids) == 1 && isRequestID(ids[0]) {
		r.id = ids[0] // our own, from its first time
	}
	if m, ok := r.findMatch(); ok {
		r.match = m
	}
	at := r.conn.socket.LocalAddr().String()
	r.server.loops.warn(r.server.log, at, r.id)
	return loopDetected().because(fmt.Errorf("the request was here before: a node's address leads to this gateway, at %s", at))
}

// errOwnAddress is why a node is not asked.
var errOwnAddress = errors.New("the node's address is that of one of the gateway's own listeners")

// An OwnAddress is a node's port at which the gateway itself listens.
type OwnAddress struct {
	Service, Node, Address string
	Listener               string
}

func (o OwnAddress) String() string {
	return fmt.Sprintf("its address %s is that of the gateway's own listener %q: connections would come back; give the node's own address and port", o.Address, o.Listener)
}

// ownAddresses are the nodes' ports that are listeners of the gateway.
func ownAddresses(view *upstream.View, own *ownSockets) []OwnAddress {
	if view == nil {
		return nil
	}
	var list []OwnAddress
	for name, svc := range view.Services {
		for _, n := range svc.Nodes() {
			for port := range n.Ports {
				addr, _ := n.Addr(port)
				if listener, ours := own.at(addr); ours {
					list = append(list, OwnAddress{name, n.ID, addr, listener})
				}
			}
		}
	}
	return list
}

// noteOwnAddresses says, once, which nodes are the gateway itself.
func (s *Server) noteOwnAddresses() {
	st := s.state.Load()
	now := map[OwnAddress]bool{}
	for _, o := range ownAddresses(st.table.view, st.own) {
		now[o] = true
		if !s.ownNodes[o] {
			s.log.Error().Str("service", o.Service).Str("node", o.Node).Str("address", o.Address).Str("listener", o.Listener).
				Msg("a node leads to the gateway itself and is not asked: " + o.String())
		}
	}
	s.ownNodes = now
}

// claimed says why a port must not be opened: a node is to listen there, on this
// machine. It would have connections to the node come back.
func (s *Server) claimed(w wanted) error {
	if w.implied == nil || w.implied.node == "" {
		return nil
	}
	own := &ownSockets{machine: ownMachine()}
	own.addText(w.Address, w.Name)
	for _, o := range ownAddresses(s.view, own) {
		return fmt.Errorf("the node %s/%s itself is to listen there, at %s; give the public port another number", o.Service, o.Node, o.Address)
	}
	return nil
}

// CheckNodes tells which nodes of the config file are the gateway itself, as far
// as that can be known: by address, not by name. The error joins all of them.
func CheckNodes(cfg Config, nodes map[string][]discovery.Node) error {
	set := upstream.New(nil)
	defer set.Close()
	view, _ := set.Apply(discovery.Static{Services: nodes}.Snapshot())
	list, _ := wantedListeners(&cfg, view)
	own, places := &ownSockets{machine: ownMachine()}, map[string]string{}
	for _, w := range list {
		own.addText(w.Address, w.Name)
		places[w.Name] = w.At
	}
	var errs []error
	for _, o := range ownAddresses(view, own) {
		node := view.Services[o.Service].Node(o.Node)
		errs = append(errs, fmt.Errorf("%s: node %s/%s: %s (%s)", node.Origin, o.Service, o.Node, o, places[o.Listener]))
	}
	return errors.Join(errs...)
}
