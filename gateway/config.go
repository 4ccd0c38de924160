package gateway

import (
	"net/netip"
	"strings"
	"time"

	"singlegate/gateway/auth"
	"singlegate/upstream"
)

// Config says what a Server serves. It is what package config makes of the
// file; every field of it is checked by Compile. A Config is never modified
// once it was handed over.
type Config struct {
	Public         Public
	Listeners      []Listener
	Routes         []Route
	TagRoutes      *Route // what routes have that nodes ask for by tags, beside their match, service, port and rewrite; nil: there are none
	NodePorts      []NodePort
	Auth           []auth.Config  // how clients are authorised, for routes to name
	Services       []ServiceRef   // the services that routes may name
	TrustedProxies []netip.Prefix // peers whose X-Forwarded-* and Forwarded are believed
	Limits         Limits
	Shutdown       Shutdown
	Redact         Redact
}

// Public is how clients name the gateway: the host and port behind which its
// listeners are reached (NAT, a load balancer). It is used for URLs that the
// gateway prints or serves. Zero values: the request's host, the listener's own
// port.
type Public struct {
	Host string
	Port uint16
}

// A Listener is a socket the gateway accepts on.
type Listener struct {
	At      string // where it is written, "singlegate.yaml:3:5"; begins every error about it
	Name    string // unique; the address when the file gives none
	Address string // host:port; an empty host is every address, IPv4 and IPv6
	TLS     bool
	HSTS    time.Duration // how long browsers are to come by TLS only, of a TLS listener for routes; 0: nothing is said
	Public  Public        // overrides Config.Public, field by field

	Allow   []netip.Prefix // peers, or clients that a PROXY header names, that may connect; none: every one
	Deny    []netip.Prefix // those that may not, also where Allow lets them in
	ProxyIn ProxyIn        // whether connections begin with a PROXY header

	Policy  *TLSPolicy          // with TLS: its own; nil: that of all listeners
	Clients *ClientCertificates // with TLS: how clients are asked for certificates; nil: they are not

	// With a service the listener is one public TCP port balanced over its
	// nodes, instead of serving routes.
	Service       string
	Port          string // the nodes' port
	Balance       Balance
	ProxyProtocol ProxyProtocol
	Timeouts      Timeouts
}

// A NodePort opens one public port per node of a service.
type NodePort struct {
	At      string
	Service string
	Port    string // the node's port; "": its only one
	Kind    string // "tcp", or "http", which carries WebSocket as well
	TLS     bool
	Host    string // the address to bind; "": every one
	Listen  PortRule

	Policy  *TLSPolicy          // as in Listener
	Clients *ClientCertificates // likewise

	ProxyIn       ProxyIn       // as in Listener
	ProxyProtocol ProxyProtocol // kind tcp
	Origins       []string      // kind http, as in Route
	Refuse        Refuse        // kind http, as in Route
	Timeouts      Timeouts
	Frames        Frames // kind http, as in Route
	Ping          Ping   // likewise
	Policies             // likewise
}

// A PortRule says which public port a node gets. Just one field is set.
type PortRule struct {
	Map  map[string]uint16 // by node id; a node that is not in it gets none
	Meta string            // the key of the node's metadata that holds it
	Same bool              // the node's own port number
	Base int               // this plus the number at the end of the node's id: node3 → base+3
}

// ProxyProtocol is the header that tells a node about the client of a TCP
// connection: "", "v1" or "v2".
type ProxyProtocol string

// key tells listeners apart: by address, so that one that is renamed keeps its
// socket. Port 0 is another one each time.
func (l Listener) key() string {
	if strings.HasSuffix(l.Address, ":0") {
		return l.Name + " " + l.Address
	}
	return l.Address
}

// A ServiceRef tells Compile which services there are and which port names
// their nodes have, so that a route to a port that no node has is refused.
type ServiceRef struct {
	At    string
	Name  string
	Ports []string // the names its nodes may have; "" stands for the unnamed one

	Tunnels TunnelPolicy
	Check   *upstream.Check // how its nodes are checked; nil: they are not

	TunnelsPerNode  int          // how many a node may have; more: 503; 0: no cap
	SourceAddresses []netip.Addr // of this machine, from which its nodes are connected to, in turn; none: the system chooses

	TLS *upstream.TLS // how its nodes are spoken to; nil: without TLS
}

// TunnelPolicy is what becomes of a node's tunnels when something happens to
// the node.
type TunnelPolicy struct {
	AddressChange Policy
	Failing       Policy
	Maintenance   Policy
	Deregistered  Policy
	After         time.Duration // a deregistered node's tunnels are left alone for so long
	PerSecond     int           // tunnels closed by a drain
}

// Policy is what becomes of tunnels.
type Policy string

// Keep leaves them alone. Drain closes so many a second. Close closes them all
// at once.
const (
	PolicyKeep  Policy = "keep"
	PolicyDrain Policy = "drain"
	PolicyClose Policy = "close"
)

// DefaultTunnelPolicy is that of a service which sets none.
func DefaultTunnelPolicy() TunnelPolicy {
	return TunnelPolicy{
		AddressChange: PolicyKeep,
		Failing:       PolicyKeep,
		Maintenance:   PolicyDrain,
		Deregistered:  PolicyDrain,
		After:         30 * time.Second,
		PerSecond:     50,
	}
}

// A Route is a rule: host, path prefix and kind of request → one action. Just
// one of Service, Static, Page and Redirect is set, or none where Deny names
// every address.
type Route struct {
	At        string   // where it is written; begins every error about it
	Host      string   // "im.example.gov", "{node}.im.example.gov", or "" for every host
	Paths     []string // prefixes, matched at segment boundaries; one segment of each may be {node}
	Accept    Accept   // which requests it takes
	Listeners []string // names; none: every listener

	Service string // proxied to this service
	Kind    Kind   // what its requests are, where that matters; "": any
	Port    string // the node's port; "": its only one
	Rewrite string // stands upstream in place of the matched prefix; "": the path goes on unchanged
	Balance Balance
	Origins []string // allowed Origin values of WebSocket handshakes ("*" alone: any); none: no check
	Refuse  Refuse   // how a WebSocket handshake that cannot be served is refused

	Static   string // folder whose files are served
	Fallback string // file within it that answers for paths that do not exist; "": 404
	Page     string // "check": the connection check page; or PageHostMeta
	Redirect string // "https" (same host and path), or an absolute URL

	Timeouts Timeouts
	Frames   Frames // of its WebSockets
	Ping     Ping   // likewise
	Policies
}

// Accept is the kind of request that a route matches.
type Accept string

// The kinds. The narrower one wins where two routes match alike.
const (
	AcceptAny       Accept = "any"
	AcceptHTTP      Accept = "http"
	AcceptWebSocket Accept = "websocket"
)

// Kind is what the requests of a route to a service are. Nothing is done to them
// on account of it but what belongs to that protocol.
type Kind string

// KindBOSH is XMPP by long polls (XEP-0124, XEP-0206), for which Accept must be
// AcceptHTTP. KindXMPP is XMPP in WebSockets (RFC 7395), for which it must be
// AcceptWebSocket; whether a handshake without the subprotocol "xmpp" is taken is
// for the node to say. Clients find both by host-meta (XEP-0156).
const (
	KindBOSH Kind = "bosh"
	KindXMPP Kind = "xmpp"
)

// DefaultBOSHRead is the Timeouts.Read of a route of KindBOSH where none is set:
// longer than servers hold a poll, which is 300 seconds at most in those we know.
const DefaultBOSHRead = 330 * time.Second

// Balance is how a balanced route picks a node.
type Balance string

// The policies; both follow the nodes' weights.
const (
	RoundRobin       Balance = "round_robin"
	LeastConnections Balance = "least_connections"
)

// Refuse is how a WebSocket handshake that the gateway cannot serve is refused.
type Refuse string

// RefuseStatus answers with an HTTP status. RefuseClose accepts the handshake
// and closes it with code 1013 or 1008 and the reason, for clients that cannot
// see the status of a refused handshake (mini-programs, browsers).
const (
	RefuseStatus Refuse = "status"
	RefuseClose  Refuse = "close"
)

// Timeouts are a route's waits. Zero means the default, which DefaultTimeouts
// gives, except for Total and Lifetime, where it means no limit.
type Timeouts struct {
	Connect   time.Duration // until a node has accepted the connection
	Handshake time.Duration // until a node has answered a WebSocket handshake
	Read      time.Duration // until the head of an HTTP answer has come, and between two reads of its body
	Stall     time.Duration // between two bytes that a client sends or takes
	Total     time.Duration // for a whole HTTP exchange
	Idle      time.Duration // how long a tunnel, or an event stream, may be silent
	Lifetime  time.Duration // how long a tunnel may live
}

// DefaultTimeouts are the waits of a route that sets none.
func DefaultTimeouts() Timeouts {
	return Timeouts{
		Connect:   10 * time.Second,
		Handshake: 10 * time.Second,
		Read:      100 * time.Second,
		Stall:     60 * time.Second,
		Idle:      time.Hour,
	}
}

// Limits bound what one client and the whole process may take. Zero means the
// default, which DefaultLimits gives.
type Limits struct {
	HeadSize         int           // bytes of a request head; more: 431
	HeadTimeout      time.Duration // from the first byte of a request head to its last
	HandshakeTimeout time.Duration // for a TLS handshake
	KeepAlive        time.Duration // how long a connection may wait for its next request
	Descriptors      int           // open files the process may use; 0: what the system allows
	Tunnels          int           // how many there may be; more: 503; 0: as many as the descriptors allow
	Handshakes       int           // TLS handshakes that may wait for a processor; more: closed at once

	PerAddress AddressLimits
}

// DefaultLimits are the limits of a file that sets none.
func DefaultLimits() Limits {
	return Limits{
		HeadSize:         16 << 10,
		HeadTimeout:      10 * time.Second,
		HandshakeTimeout: 10 * time.Second,
		KeepAlive:        75 * time.Second,
		Handshakes:       8192,
	}
}

// Shutdown is how the gateway ends on SIGTERM: not ready, Grace during which
// requests and tunnels go on as they are, tunnels closed with 1001 spread over
// Drain, everything else cut at Deadline after the signal.
type Shutdown struct {
	Grace    time.Duration
	Drain    time.Duration
	Deadline time.Duration
}

// DefaultShutdown is the ending of a file that sets none.
func DefaultShutdown() Shutdown {
	return Shutdown{Grace: 2 * time.Second, Drain: 5 * time.Second, Deadline: 30 * time.Second}
}

// Redact says what never reaches a log.
type Redact struct {
	Query []string // names of query parameters, beside token, session_key and access_token
	Paths []string // patterns such as "/ws/{session}/*": segments in braces are redacted, * is any segment
}
