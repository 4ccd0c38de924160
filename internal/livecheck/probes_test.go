package livecheck

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"singlegate/internal/standin"
)

func TestDialFailures(t *testing.T) {
	refusedBy := func(address string) error {
		return &net.OpError{Op: "dial", Net: "tcp", Addr: tcpAddr(address), Err: os.NewSyscallError("connect", errRefused)}
	}
	for _, c := range []struct {
		name          string
		address       string
		err           error
		gateway, node Code
		params        []string
	}{
		{"refused elsewhere", "10.0.0.77:8083", refusedBy("10.0.0.77:8083"), gatewayRefused, nodeRefused, []string{"port=8083", "dialed=10.0.0.77"}},
		{"refused by a name elsewhere", "node7:8083", refusedBy("10.0.0.77:8083"), gatewayRefused, nodeRefused, []string{"dialed=10.0.0.77"}},
		{"nothing listens here", "10.0.0.5:9999", refusedBy("10.0.0.5:9999"), gatewayNotListening, nodeNotListening, []string{"port=9999"}},
		{"nothing listens on loopback", "localhost:9999", refusedBy("127.0.0.1:9999"), gatewayNotListening, nodeNotListening, []string{"dialed=127.0.0.1"}},
		{"a connection is no listener", "10.0.0.5:8085", refusedBy("10.0.0.5:8085"), gatewayNotListening, nodeNotListening, nil},
		{"listens on loopback only", "10.0.0.5:8083", refusedBy("10.0.0.5:8083"), gatewayOtherAddress, nodeLoopbackOnly, []string{"listening=127.0.0.1", "dialed=10.0.0.5"}},
		{"listens on another address only", "10.0.0.5:8084", refusedBy("10.0.0.5:8084"), gatewayOtherAddress, nodeOtherAddress, []string{"listening=10.0.0.9"}},
		{"listens right there", "10.0.0.5:443", refusedBy("10.0.0.5:443"), gatewayRefused, nodeRefused, nil},
		{"timeout", "10.0.0.77:8083", dialError(os.ErrDeadlineExceeded), gatewayTimeout, nodeTimeout, []string{"address=10.0.0.77:8083"}},
		{"timeout of the system", "10.0.0.77:8083", dialError(os.NewSyscallError("connect", errTimedOut)), gatewayTimeout, nodeTimeout, nil},
		{"no route to the host", "10.0.0.77:8083", dialError(os.NewSyscallError("connect", errNoHost)), gatewayUnreachable, nodeNoHost, []string{"host=10.0.0.77"}},
		{"no network", "[2001:db8::1]:8083", dialError(os.NewSyscallError("connect", errNoNetwork)), gatewayUnreachable, nodeUnreachable, []string{"host=2001:db8::1"}},
		{"unknown name", "node7:8083", dialError(&net.DNSError{Name: "node7", IsNotFound: true}), gatewayUnresolved, nodeUnresolved, []string{"host=node7"}},
		{"DNS silent", "node7:8083", dialError(&net.DNSError{Name: "node7", IsTimeout: true}), gatewayNoDNS, nodeNoDNS, []string{"host=node7"}},
		{"something else", "node7:8083", dialError(errTest), gatewayDialFailed, nodeDialFailed, []string{"error=something odd"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newWorldDialer()
			d.errs[c.address] = c.err
			p := proberFor(t, d)
			p.local = gatewayMachine()
			_, f := p.dial(t.Context(), c.address, toGateway)
			is(t, *f, Fail, c.gateway, c.params...)
			_, f = p.dial(t.Context(), c.address, toNode)
			is(t, *f, Fail, c.node, c.params...)
		})
	}
}

// The real tables of the kernel: a listener of 127.0.0.1 is found when
// 127.0.0.2 refuses.
func TestRefusedByThisMachine(t *testing.T) {
	if _, err := os.Stat("/proc/net/tcp"); err != nil {
		t.Skip("no /proc/net/tcp here")
	}
	_, port, _ := net.SplitHostPort(serve(t, silent))
	p := proberFor(t, nil)
	p.local = thisMachine()
	_, f := p.dial(bounded(t, p), net.JoinHostPort("127.0.0.2", port), toNode)
	is(t, *f, Fail, nodeLoopbackOnly, "listening=127.0.0.1", "dialed=127.0.0.2")
}

func TestCertificates(t *testing.T) {
	const host = "im.example.gov"
	root := newCA(t, "Root", nil)
	middle := newCA(t, "Middle", root)
	template := func(change func(*x509.Certificate)) *x509.Certificate {
		c := leafFor(host, "*.im.example.gov")
		change(c)
		return c
	}
	same := func(*x509.Certificate) {}
	withAIA := func(c *x509.Certificate) { c.IssuingCertificateURL = []string{"http://ca.example.gov/middle.crt"} }
	ends := func(d time.Duration) func(*x509.Certificate) {
		return func(c *x509.Certificate) { c.NotAfter = today.Add(d) }
	}
	begins := func(c *x509.Certificate) { c.NotBefore = today.Add(time.Hour) }
	nameless := func(c *x509.Certificate) { c.DNSNames = nil }
	selfMade := func() tls.Certificate {
		key := newKeyPair(t)
		return tls.Certificate{PrivateKey: key, Certificate: [][]byte{sign(t, leafFor(host), key, nil).Raw}}
	}
	type want struct {
		mark  Mark
		code  Code
		param string
	}
	for _, c := range []struct {
		name  string
		cert  tls.Certificate
		host  string
		roots *x509.CertPool
		want  []want
	}{
		{"complete", middle.issue(t, template(same), middle), host, poolOf(root), []want{{OK, isTrusted, "date=2030-06-01"}}},
		{"complete with root", middle.issue(t, template(same), middle, root), host, poolOf(root), []want{{OK, isTrusted, "version=TLS 1.3"}}},
		{"wildcard", middle.issue(t, template(same), middle), "node1.im.example.gov", poolOf(root), []want{{OK, isTrusted, ""}}},
		{"by the root itself", root.issue(t, template(same)), host, poolOf(root), []want{{OK, isTrusted, ""}}},
		{"intermediate missing", middle.issue(t, template(same)), host, poolOf(root), []want{{Fail, issuerMissing, "issuer=CN=Middle"}}},
		{"intermediate missing, with a place to get it", middle.issue(t, template(withAIA)), host, poolOf(root), []want{{Fail, issuerMissingURL, "url=http://ca.example.gov/middle.crt"}}},
		{"another intermediate sent", middle.issue(t, template(same), newCA(t, "Other", root)), host, poolOf(root), []want{{Fail, issuerMissing, "issuer=CN=Middle"}}},
		{"root unknown", middle.issue(t, template(same), middle, root), host, poolOf(newCA(t, "Foreign", nil)), []want{{Fail, rootUnknown, "issuer=CN=Root"}}},
		{"self-signed", selfMade(), host, poolOf(root), []want{{Fail, selfSigned, "subject=CN=im"}}},
		{"expired", middle.issue(t, template(ends(-time.Hour)), middle), host, poolOf(root), []want{{Fail, expired, "date=2029-06-01"}}},
		{"not yet valid", middle.issue(t, template(begins), middle), host, poolOf(root), []want{{Fail, notYetValid, "date=2029-06-01"}}},
		{"expires soon", middle.issue(t, template(ends(73*time.Hour)), middle), host, poolOf(root), []want{{Warn, expiresSoon, "days=3"}}},
		{"wrong name", middle.issue(t, template(same), middle), "a.b.im.example.gov", poolOf(root), []want{{Fail, wrongName, "names=im.example.gov, *.im.example.gov"}}},
		{"wrong address", middle.issue(t, template(same), middle), "10.0.0.5", poolOf(root), []want{{Fail, wrongName, "host=10.0.0.5"}}},
		{"no names", middle.issue(t, template(nameless), middle), host, poolOf(root), []want{{Fail, noNames, "subject=CN=im"}}},
		{"all at once", middle.issue(t, template(ends(-time.Hour))), "im.example.com", poolOf(root),
			[]want{{Fail, wrongName, ""}, {Fail, expired, ""}, {Fail, issuerMissing, "issuer=CN=Middle"}}},
		{"not for servers", middle.issue(t, template(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }), middle),
			host, poolOf(root), []want{{Fail, chainInvalid, "error=usage"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			address := serve(t, func(conn net.Conn) {
				tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{c.cert}}).Handshake()
				io.Copy(io.Discard, conn)
			})
			p := proberFor(t, nil)
			p.Roots = c.roots
			findings := p.knock(bounded(t, p), target{address: address, tls: true, host: c.host})
			if len(findings) != len(c.want) {
				t.Fatalf("found %v, want %v", findings, c.want)
			}
			for i, w := range c.want {
				is(t, findings[i], w.mark, w.code, w.param)
			}
		})
	}
}

func TestTLSRefusals(t *testing.T) {
	old := newCA(t, "Root", nil).issue(t, leafFor("im.example.gov"))
	for _, c := range []struct {
		name   string
		server func(net.Conn)
		code   Code
	}{
		{"a plain HTTP server", banner("HTTP/1.1 400 Bad Request\r\n\r\n"), notTLS},
		{"an SSH server", banner("SSH-2.0-OpenSSH_9.6\r\n"), notTLS},
		{"hangs up", hangsUp, tlsCut},
		{"silent", silent, tlsSilent},
		{"another version", func(c net.Conn) {
			tls.Server(c, &tls.Config{Certificates: []tls.Certificate{old}, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}).Handshake()
			endSending(c)
			io.Copy(io.Discard, c)
		}, tlsRefused},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := proberFor(t, nil)
			if c.code == tlsSilent {
				p.Timeout = 50 * time.Millisecond
			}
			findings := p.knock(bounded(t, p), target{address: serve(t, c.server), tls: true, host: "im.example.gov"})
			if len(findings) != 1 {
				t.Fatalf("found %v", findings)
			}
			is(t, findings[0], Fail, c.code)
			if !isShut(findings[0].Code) {
				t.Error("what is behind a handshake that failed would be tried")
			}
		})
	}
}

// A file with the whole chain must not hide that the server does not send it.
func TestRootsOfFile(t *testing.T) {
	root := newCA(t, "Root", nil)
	middle := newCA(t, "Middle", root)
	dir := t.TempDir()
	write := func(name string, certs ...*x509.Certificate) string {
		var b strings.Builder
		for _, c := range certs {
			pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
		}
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, c := range []struct {
		name string
		file string
		want *x509.CertPool
	}{
		{"root and intermediate", write("both.pem", middle.cert, root.cert), poolOf(root)},
		{"an intermediate alone is an anchor", write("middle.pem", middle.cert), poolOf(middle)},
	} {
		pool, err := Roots(c.file)
		if err != nil || !pool.Equal(c.want) {
			t.Errorf("%s: not the expected pool: %v", c.name, err)
		}
	}
	for _, file := range []string{filepath.Join(dir, "none.pem"), write("empty.pem")} {
		if _, err := Roots(file); err == nil || !strings.Contains(err.Error(), "CA file") {
			t.Errorf("%s: error %v", file, err)
		}
	}
}

const (
	accepted  = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ACCEPT\r\n\r\n"
	badAccept = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: no\r\n\r\n"
)

func status(line string, headers ...string) string {
	return "HTTP/1.1 " + line + "\r\n" + strings.Join(append(headers, "Content-Length: 0"), "\r\n") + "\r\n\r\n"
}

func withBody(line, body string) string {
	return "HTTP/1.1 " + line + "\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n" + body
}

func closing(code ws.StatusCode, reason string) string {
	return string(ws.MustCompileFrame(ws.NewCloseFrame(ws.NewCloseFrameBody(code, reason))))
}

const goTLSPort = "Client sent an HTTP request to an HTTPS server.\n"

func TestWebSocketProbe(t *testing.T) {
	text := string(ws.MustCompileFrame(ws.NewTextFrame([]byte(`{"welcome":true}`))))
	pinned := upgrade{path: "/ws/node1", sent: "/ws/node1", prefix: "/ws/node1"}
	rewritten := upgrade{path: "/ws/node1", sent: "/"}
	closes := upgrade{path: "/ws/node1", sent: "/", byClose: true}
	for _, c := range []struct {
		name   string
		u      upgrade
		server func(net.Conn)
		mark   Mark
		code   Code
		param  string
	}{
		{"closed in return", rewritten, says(accepted + text + closing(1000, "")), OK, switched, ""},
		{"closed without a code", rewritten, says(accepted + "\x88\x00"), OK, switched, ""},
		{"closed for want of a login", rewritten, says(accepted + closing(4401, "who are you?")), OK, switchedClosed, "reason=who are you?"},
		{"ended", rewritten, says(accepted), OK, switchedEnded, ""},
		{"ended within a frame", rewritten, says(accepted + text[:5]), OK, switchedEnded, ""},
		{"1013 of a node", rewritten, says(accepted + closing(1013, "later")), OK, switchedClosed, "code=1013"},
		{"1013 of a route that refuses so", closes, says(accepted + closing(1013, "The node is down.")), Fail, upgradeRefused, "reason=The node is down."},
		{"1008 of a route that refuses so", closes, says(accepted + closing(1008, "no")), Warn, upgradePolicy, "reason=no"},
		{"not the answer to our key", rewritten, says(badAccept), Fail, upgradeBadSwitch, ""},
		{"404 with the prefix", pinned, says(status("404 Not Found")), Fail, upgradePrefix, "path=/ws/node1"},
		{"404 without", rewritten, says(status("404 Not Found")), Fail, upgradeNotFound, "path=/"},
		{"400", rewritten, says(status("400 Bad Request")), Fail, upgradeRejected, "status=400"},
		{"426", rewritten, says(status("426 Upgrade Required")), Fail, upgradeRejected, "status=426"},
		{"400 of a TLS port", rewritten, says(withBody("400 Bad Request", goTLSPort)), Fail, nodeIsTLS, ""},
		{"401", rewritten, says(status("401 Unauthorized")), OK, wantsLogin, "status=401"},
		{"403", rewritten, says(status("403 Forbidden")), OK, wantsLogin, "status=403"},
		{"200", rewritten, says(status("200 OK")), Fail, upgradePlainHTTP, "status=200"},
		{"405", rewritten, says(status("405 Method Not Allowed")), Fail, upgradePlainHTTP, "status=405"},
		{"redirect with a secret", rewritten, says(status("302 Found", "Location: https://u:p@sso.example.gov/login?token=secret")), Fail, upgradeRedirected, "location=https://sso.example.gov/login?…"},
		{"redirect of a route with auth", upgrade{path: "/ws/node1", sent: "/", guarded: true}, says(status("302 Found", "Location: /login/")), OK, wantsLogin, "status=302"},
		{"500", rewritten, says(status("500 Internal Server Error")), Fail, upgradeError, "status=500"},
		{"502 of something else", rewritten, says(status("502 Bad Gateway")), Fail, upgradeError, "status=502"},
		{"a gateway's word without the request id is a node's", rewritten, says(withBody("404 Not Found", `{"error":"no_route","request_id":"x"}`)), Fail, upgradeNotFound, ""},
		{"SSH", rewritten, banner("SSH-2.0-OpenSSH_9.6\r\n"), Fail, gatewayNotHTTP, "first=SSH"},
		{"escape sequences", rewritten, banner("\x1b]0;owned\x07 and more"), Fail, gatewayNotHTTP, "first=.]0;owned."},
		{"hangs up", rewritten, hangsUp, Fail, gatewayCut, ""},
		{"half a head", rewritten, says("HTTP/1.1 101 Switching"), Fail, gatewayCut, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.u.target = target{address: serve(t, c.server), header: "im.example.gov"}
			p := proberFor(t, nil)
			is(t, p.webSocket(bounded(t, p), c.u), c.mark, c.code, c.param)
		})
	}
	t.Run("silent", func(t *testing.T) {
		p := proberFor(t, nil)
		p.Timeout = 50 * time.Millisecond
		f := p.webSocket(bounded(t, p), upgrade{target: target{address: serve(t, silent)}, path: "/"})
		is(t, f, Fail, gatewaySilent)
	})
	t.Run("subprotocol", func(t *testing.T) {
		p := proberFor(t, nil)
		f := p.webSocket(bounded(t, p), upgrade{target: target{address: node(t, "node1", standin.WildfireChat)}, path: "/"})
		is(t, f, OK, switchedFor, "protocol=mqtt")
	})
	t.Run("a route for both kinds with a node for HTTP", func(t *testing.T) {
		p := proberFor(t, nil)
		u := rewritten
		u.target, u.httpToo = target{address: serve(t, says(status("200 OK")))}, true
		is(t, p.webSocket(bounded(t, p), u), Warn, upgradeOnlyHTTP, "status=200")
		u.target.address = serve(t, says(status("404 Not Found")))
		is(t, p.webSocket(bounded(t, p), u), Fail, upgradeNotFound)
	})
}

func TestHTTPProbes(t *testing.T) {
	p := proberFor(t, nil)
	at := func(server func(net.Conn)) target { return target{address: serve(t, server), header: "im.example.gov"} }
	route := func(server func(net.Conn)) Finding { return p.reachable(bounded(t, p), at(server), "/api") }
	for answer, want := range map[string]Code{"200 OK": answered, "404 Not Found": answered, "500 Oops": answered, "401 Unauthorized": wantsLogin} {
		is(t, route(says(status(answer))), OK, want, "status="+answer[:3])
	}
	for _, answer := range []string{"502 Bad Gateway", "503 Busy", "504 Late"} {
		is(t, route(says(status(answer))), Fail, foreign5xx, "status="+answer[:3])
	}
	is(t, route(says(withBody("400 Bad Request", goTLSPort))), Fail, nodeIsTLS)
	for code, want := range map[string]Code{
		"no_route": noSuchRoute, "node_unknown": nodeNotKnown, "node_down": gatewayNodeDown, "no_node": gatewayNoNode,
		"no_snapshot": gatewayNoSnapshot, "upstream_failed": gatewayBadAnswer, "upstream_timeout": gatewaySlowNode, "overloaded": gatewayError,
	} {
		is(t, route(says("HTTP/1.1 503 X\r\nX-Request-Id: 77\r\nConnection: close\r\n\r\n"+`{"error":"`+code+`","request_id":"77"}`)), Fail, want, "code="+code)
	}
	refused := says("HTTP/1.1 403 X\r\nX-Request-Id: 77\r\nConnection: close\r\n\r\n" + `{"error":"address_refused","request_id":"77"}`)
	is(t, route(refused), Warn, gatewayAddress, "status=403")
	is(t, p.closed(bounded(t, p), at(refused), "/api"), OK, refusedToAll, "status=403")
	is(t, p.closed(bounded(t, p), at(says(status("200 OK"))), "/api"), Fail, notRefused, "status=200")
	is(t, route(says("HTTP/1.1 503 X\r\nX-Request-Id: 77\r\nConnection: close\r\n\r\n"+`{"error":"node_draining","request_id":"77"}`)), Warn, gatewayDraining)

	const token = "HTTP/1.1 401 X\r\nX-Request-Id: 77\r\nConnection: close\r\n\r\n" + `{"error":"token_missing","request_id":"77"}`
	is(t, route(says(token)), OK, wantsToken)
	is(t, p.served(bounded(t, p), at(says(token)), "/", true), OK, wantsToken)

	redirect := func(answer, to string) Finding { return p.redirects(bounded(t, p), at(says(answer)), "/", to) }
	is(t, redirect(status("301 Moved", "Location: https://im.example.gov/"), "https"), OK, redirected, "location=https://im.example.gov/")
	is(t, redirect(status("301 Moved", "Location: http://im.example.gov/"), "https"), Fail, wrongRedirect)
	is(t, redirect(status("308 Moved", "Location: https://a.example.gov/?x=1"), "https://a.example.gov/?x=1"), OK, redirected)
	is(t, redirect(status("200 OK"), "https"), Fail, noRedirect, "status=200")

	page := func(answer string, static bool) Finding {
		return p.served(bounded(t, p), at(says(answer)), "/", static)
	}
	is(t, page(status("200 OK"), true), OK, answered)
	is(t, page(status("404 Not Found"), true), Warn, staticNoIndex)
	is(t, page(status("404 Not Found"), false), Fail, notOK)

	quick := proberFor(t, nil)
	quick.Timeout = 50 * time.Millisecond
	is(t, quick.reachable(bounded(t, quick), at(silent), "/"), Warn, slowAnswer)
}

func TestNodeProbe(t *testing.T) {
	cert := newCA(t, "Root", nil).issue(t, leafFor("node1"))
	tlsOnly := func(c net.Conn) {
		tls.Server(c, &tls.Config{Certificates: []tls.Certificate{cert}}).Handshake() // says nothing to HTTP
		endSending(c)
		io.Copy(io.Discard, c)
	}
	for _, c := range []struct {
		name   string
		server func(net.Conn)
		use    use
		mark   Mark
		code   Code
	}{
		{"TCP", silent, useTCP, OK, nodeListens},
		{"HTTP", says(status("404 Not Found")), useHTTP, OK, nodeAnswers},
		{"HTTP with a login", says(status("401 Unauthorized")), useHTTP, OK, wantsLogin},
		{"WebSocket", says(accepted + closing(1000, "")), useWebSocket, OK, nodeSwitches},
		{"WebSocket that refuses", says(status("400 Bad Request")), useWebSocket, OK, nodeAnswers},
		{"SSH", banner("SSH-2.0-OpenSSH_9.6\r\n"), useHTTP, Fail, nodeIsSSH},
		{"TLS", tlsOnly, useHTTP, Fail, nodeIsTLS},
		{"TLS that says so by an alert", banner("\x15\x03\x01\x00\x02\x02\x46"), useHTTP, Fail, nodeIsTLS},
		{"TLS that says so in HTTP", says(withBody("400 Bad Request", goTLSPort)), useHTTP, Fail, nodeIsTLS},
		{"another protocol", banner("-ERR unknown command\r\n"), useHTTP, Fail, nodeNotHTTP},
		{"hangs up", hangsUp, useWebSocket, Fail, nodeCut},
		{"silent to HTTP", silent, useHTTP, Warn, nodeSilent},
		{"silent to a handshake", silent, useWebSocket, Fail, nodeSilent},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := proberFor(t, nil)
			if c.code == nodeSilent {
				p.Timeout = 50 * time.Millisecond
			}
			is(t, p.node(bounded(t, p), target{role: toNode, address: serve(t, c.server), header: "x"}, c.use, "/"), c.mark, c.code)
		})
	}
}

func TestPortProbe(t *testing.T) {
	root := newCA(t, "Root", nil)
	cert := root.issue(t, leafFor("im.example.gov"))
	overTLS := func(f func(net.Conn)) func(net.Conn) {
		return func(c net.Conn) {
			s := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{cert}})
			if s.Handshake() == nil {
				f(s)
			}
			s.Close()
		}
	}
	leaves := func(net.Conn) {}
	const own400 = "HTTP/1.1 400 Bad Request\r\nX-Request-Id: 7\r\n\r\n{\"error\":\"bad_handshake\",\"request_id\":\"7\"}"
	const ownTLS = "HTTP/1.1 400 Bad Request\r\n\r\nThis port speaks TLS: use https:// or wss://.\n"
	onlyHTTP := saysTo("Upgrade: websocket", status("400 Bad Request"), status("200 OK"))
	wantsMQTT := saysTo("Sec-WebSocket-Protocol: mqtt", strings.Replace(accepted, "\r\n", "\r\nSec-WebSocket-Protocol: mqtt\r\n", 1)+closing(1000, ""), status("400 Bad Request"))
	const (
		tcp       = 0
		http      = 1
		websocket = 2
	)
	for _, c := range []struct {
		name   string
		server func(net.Conn)
		tls    bool
		uses   int
		mark   Mark
		code   Code
	}{
		{"TCP", silent, false, tcp, OK, isConnected},
		{"TCP with a greeting", banner("hello\r\n"), false, tcp, OK, isConnected},
		{"TCP closed at once", leaves, false, tcp, Fail, closedAtOnce},
		{"TLS", overTLS(silent), true, tcp, OK, isConnected},
		{"TLS closed at once", overTLS(leaves), true, tcp, Fail, closedAtOnce},
		{"no TLS", banner("nonsense"), true, tcp, Fail, notTLS},
		{"WebSocket", says(accepted + closing(1000, "")), false, http | websocket, OK, switched},
		{"WebSocket that wants a subprotocol", wantsMQTT, false, websocket, OK, switchedFor},
		{"HTTP", says(status("404 Not Found")), false, http | websocket, OK, answered},
		{"HTTP over TLS", overTLS(says(status("404 Not Found"))), true, http, OK, answered},
		{"another path", says(status("404 Not Found")), false, websocket, OK, answered},
		{"another path for WebSockets", says(status("200 OK")), false, websocket, OK, answered},
		{"a login", says(status("401 Unauthorized")), false, websocket, OK, wantsLogin},
		{"the node's 400 to WebSockets", says(status("400 Bad Request")), false, websocket, Warn, portRejected},
		{"the node's 400 to WebSockets only", onlyHTTP, false, http | websocket, OK, answered},
		{"the node's 400 to all", says(status("400 Bad Request")), false, http | websocket, Warn, portRejected},
		{"the node's 400 to HTTP", says(status("400 Bad Request")), false, http, Warn, portBadRequest},
		{"the gateway's 400", says(own400), false, websocket, Fail, gatewayBadRequest},
		{"the gateway's 400 to HTTP", says(own400), false, http, Fail, gatewayBadRequest},
		{"the gateway's TLS", says(ownTLS), false, http | websocket, Fail, gatewayIsTLS},
		{"TLS behind", says(withBody("400 Bad Request", goTLSPort)), false, http | websocket, Fail, nodeIsTLS},
		{"TLS behind HTTP", says(withBody("400 Bad Request", goTLSPort)), false, http, Fail, nodeIsTLS},
		{"an error", says(status("500 Internal Server Error")), false, websocket, Fail, upgradeError},
		{"hangs up", hangsUp, false, http | websocket, Fail, gatewayCut},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := proberFor(t, nil)
			p.Roots = poolOf(root)
			u := upgrade{target: target{address: serve(t, c.server), tls: c.tls, host: "im.example.gov", header: "x"}, path: "/", sent: "/"}
			findings := p.portProbe(bounded(t, p), u.target, func(ctx context.Context, conn net.Conn) Finding {
				if c.uses == tcp {
					return p.tunnel(conn, u.address)
				}
				return p.webPort(ctx, u, c.uses&http != 0, c.uses&websocket != 0)
			})
			if len(findings) != 1 {
				t.Fatalf("found %v", findings)
			}
			is(t, findings[0], c.mark, c.code)
		})
	}
}

func TestConsulProbe(t *testing.T) {
	for _, c := range []struct {
		name   string
		leader string
		err    error
		mark   Mark
		code   Code
	}{
		{"well", "10.0.0.5:8300", nil, OK, hasLeader},
		{"no leader", "", nil, Fail, consulNoLeader},
		{"no leader, said in words", "", errors.New("Unexpected response code: 500 (No cluster leader)"), Fail, consulNoLeader},
		{"refused", "", dialError(errRefused), Fail, consulRefused},
		{"timeout", "", dialError(context.DeadlineExceeded), Fail, consulTimeout},
		{"no route", "", dialError(errNoHost), Fail, consulUnreachable},
		{"token", "", errors.New("Unexpected response code: 403 (Permission denied)"), Fail, consulFailed},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := proberFor(t, nil).consul(t.Context(), &Consul{"127.0.0.1:8500", func(context.Context) (string, error) { return c.leader, c.err }})
			is(t, f, c.mark, c.code, "address=127.0.0.1:8500")
		})
	}
}
