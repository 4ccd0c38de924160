package livecheck

import (
	"strings"
	"unicode"
)

// A Mark is how a finding is meant.
type Mark string

// The marks. Only Fail makes a check fail; Skip is what was not tried.
const (
	OK   Mark = "ok"
	Warn Mark = "warn"
	Fail Mark = "fail"
	Skip Mark = "skip"
)

// A Finding is what a probe found. It says so in no language: the tables of
// languages make texts of the code and its params.
type Finding struct {
	Mark   Mark
	Code   Code
	Params Params
}

// Params are what the texts of a code refer to, by name. They are printable,
// bounded, and hold no secrets.
type Params map[string]string

// maxParam bounds a param, most of which come from the network.
const maxParam = 160

func found(m Mark, c Code, pairs ...string) Finding {
	f := Finding{Mark: m, Code: c, Params: Params{}}
	for i := 0; i+1 < len(pairs); i += 2 {
		f.Params[pairs[i]] = printable(pairs[i+1])
	}
	return f
}

func fine(c Code, pairs ...string) Finding    { return found(OK, c, pairs...) }
func warning(c Code, pairs ...string) Finding { return found(Warn, c, pairs...) }
func failure(c Code, pairs ...string) Finding { return found(Fail, c, pairs...) }
func skipped(c Code, pairs ...string) Finding { return found(Skip, c, pairs...) }

// printable makes of what a peer sent something that does nothing to a terminal.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if r == unicode.ReplacementChar || !unicode.IsPrint(r) {
			return '.'
		}
		return r
	}, s)
	if runes := []rune(s); len(runes) > maxParam {
		s = string(runes[:maxParam-1]) + "…"
	}
	return s
}

// A Code names what was found. Codes are stable, for programs that read JSON.
type Code string

// Titles of sections.
const (
	titleGateway   Code = "gateway"
	titleDiscovery Code = "discovery"
	titleService   Code = "route_service"
	titleStatic    Code = "route_static"
	titlePage      Code = "route_page"
	titleRedirect  Code = "route_redirect"
	titleClosed    Code = "route_closed"
	titleListener  Code = "listener_service"
	titleNodePorts Code = "node_ports"
	titleNodes     Code = "nodes"
)

// What is well.
const (
	isReady        Code = "ready"
	isAnswering    Code = "answering"
	isConnected    Code = "connected"
	isTrusted      Code = "tls_trusted"
	answered       Code = "http_answered"
	wantsLogin     Code = "wants_login"
	wantsToken     Code = "gateway_wants_token"
	switched       Code = "websocket_open"
	switchedFor    Code = "websocket_open_subprotocol"
	switchedClosed Code = "websocket_open_then_closed"
	switchedEnded  Code = "websocket_open_then_ended"
	redirected     Code = "redirected"
	nodeListens    Code = "node_listens"
	nodeAnswers    Code = "node_answers"
	nodeSwitches   Code = "node_opens_websockets"
	hasLeader      Code = "consul_leader"
)

// The gateway as a whole.
const (
	notRunning  Code = "gateway_not_running"
	notReady    Code = "gateway_not_ready"
	adminSilent Code = "admin_silent"
	elsewhere   Code = "not_the_gateways_machine"
)

// The way to the gateway.
const (
	gatewayRefused      Code = "gateway_refused"
	gatewayNotListening Code = "gateway_not_listening"
	gatewayOtherAddress Code = "gateway_listens_elsewhere"
	gatewayTimeout      Code = "gateway_timeout"
	gatewayUnreachable  Code = "gateway_unreachable"
	gatewayUnresolved   Code = "gateway_name_unknown"
	gatewayNoDNS        Code = "gateway_dns_silent"
	gatewayDialFailed   Code = "gateway_connection_failed"
	gatewaySilent       Code = "gateway_silent"
	gatewayCut          Code = "gateway_cut"
	gatewayNotHTTP      Code = "gateway_not_http"
	portUnknown         Code = "port_unknown"
	doorClosed          Code = "listener_not_reached"
	notTried            Code = "time_is_up"
)

// Certificates.
const (
	issuerMissing    Code = "tls_issuer_missing"
	issuerMissingURL Code = "tls_issuer_missing_url"
	rootUnknown      Code = "tls_root_unknown"
	selfSigned       Code = "tls_self_signed"
	expired          Code = "tls_expired"
	notYetValid      Code = "tls_not_yet_valid"
	expiresSoon      Code = "tls_expires_soon"
	wrongName        Code = "tls_wrong_name"
	noNames          Code = "tls_no_names"
	chainInvalid     Code = "tls_chain_invalid"
	notTLS           Code = "tls_not_spoken"
	tlsCut           Code = "tls_cut"
	tlsSilent        Code = "tls_silent"
	tlsRefused       Code = "tls_refused"
)

// Routes.
const (
	hiddenRoute       Code = "route_hidden"
	noSuchRoute       Code = "gateway_no_route"
	nodeNotKnown      Code = "gateway_node_unknown"
	gatewayNodeDown   Code = "gateway_node_down"
	gatewayNoNode     Code = "gateway_no_node"
	gatewayNoSnapshot Code = "gateway_no_snapshot"
	gatewayDraining   Code = "gateway_node_draining"
	gatewayAddress    Code = "gateway_address_refused"
	gatewayBadAnswer  Code = "gateway_upstream_failed"
	gatewaySlowNode   Code = "gateway_upstream_timeout"
	gatewayWaits      Code = "gateway_waits_for_node"
	gatewayError      Code = "gateway_error"
	gatewayBadRequest Code = "gateway_bad_request"
	gatewayIsTLS      Code = "gateway_speaks_tls"
	foreign5xx        Code = "http_5xx"
	slowAnswer        Code = "http_slow"
	noRedirect        Code = "redirect_missing"
	wrongRedirect     Code = "redirect_elsewhere"
	staticNoIndex     Code = "static_no_index"
	notOK             Code = "http_not_200"
	upgradePrefix     Code = "upgrade_404_prefix"
	upgradeNotFound   Code = "upgrade_404"
	upgradeRejected   Code = "upgrade_400"
	upgradePlainHTTP  Code = "upgrade_plain_http"
	upgradeOnlyHTTP   Code = "upgrade_not_wanted"
	upgradeRedirected Code = "upgrade_redirected"
	upgradeError      Code = "upgrade_5xx"
	upgradeBadSwitch  Code = "upgrade_bad_101"
	upgradeRefused    Code = "upgrade_closed_1013"
	upgradePolicy     Code = "upgrade_closed_1008"
	closedAtOnce      Code = "port_closed_at_once"
	portWaits         Code = "port_waits_for_node"
	portRejected      Code = "port_handshake_refused"
	portBadRequest    Code = "port_bad_request"
	noNodes           Code = "no_nodes_known"
	noNodePort        Code = "node_without_port"
	portNotOpen       Code = "port_not_open"
	exposedIMAdmin    Code = "exposed_18080"
	exposedMinIO      Code = "exposed_9002"
	exposedPath       Code = "exposed_path"
	refusedToAll      Code = "refused_to_all"
	notRefused        Code = "not_refused"
)

// The way to the nodes, and to Consul.
const (
	nodeRefused       Code = "node_refused"
	nodeNotListening  Code = "node_not_listening"
	nodeLoopbackOnly  Code = "node_listens_on_loopback"
	nodeLoopbackAway  Code = "node_listens_on_its_loopback"
	nodeOtherAddress  Code = "node_listens_elsewhere"
	nodeTimeout       Code = "node_timeout"
	nodeUnreachable   Code = "node_unreachable"
	nodeNoHost        Code = "node_host_unreachable"
	nodeUnresolved    Code = "node_name_unknown"
	nodeNoDNS         Code = "node_dns_silent"
	nodeDialFailed    Code = "node_connection_failed"
	nodeIsTLS         Code = "node_speaks_tls"
	nodeTLSFailed     Code = "node_tls_failed"
	nodeIsSSH         Code = "node_speaks_ssh"
	nodeNotHTTP       Code = "node_not_http"
	nodeCut           Code = "node_cut"
	nodeSilent        Code = "node_silent"
	consulRefused     Code = "consul_refused"
	consulTimeout     Code = "consul_timeout"
	consulFailed      Code = "consul_failed"
	consulNoLeader    Code = "consul_no_leader"
	consulUnreachable Code = "consul_unreachable"
)
