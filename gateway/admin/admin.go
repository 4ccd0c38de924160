// Package admin serves the operator, on an address of its own that is not for
// clients.
//
//	GET  /healthz      the process works: 200
//	GET  /readyz       clients may be sent here: 200, else 503 with the reasons
//	GET  /metrics      for Prometheus
//	GET  /api/nodes    services with their nodes, entry points and routes by tags, drains, port faults: see Nodes
//	GET  /api/certificates  the certificates that are served, and what is refused: see Certificates
//	POST /api/drain    {"service": "im", "node": "node1", "per_second": 50}
//	POST /api/undrain  {"service": "im", "node": "node1"}
//
// A drain lets the node have nothing new and closes its tunnels, so many a
// second; without per_second (or with 0) at the service's own pace. It is taken
// with 202 before it is done: /api/nodes tells how far it is. The service may be
// left out where only one has such a node, which may be named by its id or by
// one of its names.
//
// Everything is JSON but /metrics. An error is {"error": a short stable word,
// "message": what to do} with a status of 400 to 599.
//
// Without tokens it listens on loopback only, and whoever is on the machine may do
// everything. With tokens, which it needs elsewhere, all but /healthz and /readyz
// want one (Authorization: Bearer), and changes want that for writing; who has
// none is told by /healthz and /readyz that it works, and nothing more. An address
// that sends wrong tokens is not heard for a while.
//
// A page in the operator's browser must not reach it: the Host has to be
// localhost, a loopback address, the address that the connection came in by or a
// name that was configured (no other, against DNS rebinding); a POST has to be
// application/json, which pages of another origin cannot send unasked, and must
// not come from one.
//
// The package takes what it tells from an interface declared here and imports
// packages gateway and certs for the types in it.
package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"singlegate/certs"
	"singlegate/gateway"
)

// Gateway is what the admin address tells of and acts upon: a *gateway.Server,
// beside the certificates that it serves. Its methods are called concurrently.
type Gateway interface {
	Ready() (reasons []string) // why clients should not be sent here; none: they may
	Tunnels() int
	Metrics() prometheus.Gatherer
	Services() []gateway.ServiceStatus
	Drains() []gateway.DrainStatus
	PortFaults() []gateway.PortFault
	Certificates() (served []certs.Info, faults []string)

	// Drain and Undrain fail with a gateway.ErrNoNode or ErrSeveralNodes.
	Drain(service, node string, perSecond int) error
	Undrain(service, node string) error

	NoteAdmin(gateway.AdminAction) // in the audit log
}

// Config is what a Server is made of.
type Config struct {
	Address string
	Access  Access

	// Listen opens the socket; nil: net.Listen does.
	Listen func(name, address string) (net.Listener, error)
}

// A Server answers on the admin address.
type Server struct {
	guard  *guard
	socket net.Listener
	http   *http.Server
	done   chan struct{}
}

// Start listens and serves until Close. Without a token it refuses every address
// but loopback.
func Start(c Config, gw Gateway) (*Server, error) {
	if c.Listen == nil {
		c.Listen = func(_, address string) (net.Listener, error) { return net.Listen("tcp", address) }
	}
	socket, err := c.Listen("admin", c.Address)
	if err != nil {
		return nil, err
	}
	if c.Access.open() && !onLoopback(socket.Addr()) {
		socket.Close()
		return nil, fmt.Errorf("%s is not on loopback: that needs a token, admin.token_file", socket.Addr())
	}
	guard := newGuard(c.Access)
	s := &Server{
		guard:  guard,
		socket: socket,
		http: &http.Server{
			Handler:           handler(gw, guard),
			ReadTimeout:       10 * time.Second,
			ReadHeaderTimeout: 5 * time.Second,
			WriteTimeout:      10 * time.Second,
			IdleTimeout:       30 * time.Second,
			MaxHeaderBytes:    8 << 10,
		},
		done: make(chan struct{}),
	}
	go func() {
		defer close(s.done)
		s.http.Serve(socket)
	}()
	return s, nil
}

// onLoopback tells whether only this machine can connect to an address.
func onLoopback(a net.Addr) bool {
	tcp, ok := a.(*net.TCPAddr)
	return ok && tcp.IP.IsLoopback()
}

// SetAccess changes who may use it, from the next request on. What would open an
// address other than loopback to everybody is refused.
func (s *Server) SetAccess(a Access) error {
	if a.open() && !onLoopback(s.socket.Addr()) {
		return fmt.Errorf("the admin address %s is not on loopback and goes on to need a token", s.socket.Addr())
	}
	s.guard.access.Store(&a)
	return nil
}

// Addr is the address it listens on.
func (s *Server) Addr() net.Addr { return s.socket.Addr() }

// Close ends serving; requests under way have a second.
func (s *Server) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	err := s.http.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		err = s.http.Close()
	}
	<-s.done
	return err
}

// handler answers what the package comment lists.
func handler(gw Gateway, g *guard) http.Handler {
	mux := http.NewServeMux()
	handle := func(method, path string, f http.HandlerFunc) {
		mux.HandleFunc(method+" "+path, f)
		mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Allow", method)
			refuse(w, http.StatusMethodNotAllowed, "method_not_allowed", path+" takes "+method)
		})
	}
	handle(http.MethodGet, "/healthz", g.probing(func(w http.ResponseWriter, _ *http.Request) {
		reply(w, http.StatusOK, map[string]any{"status": "ok"})
	}, func(w http.ResponseWriter, _ *http.Request) {
		reply(w, http.StatusOK, map[string]any{"status": "ok", "tunnels": gw.Tunnels()})
	}))
	handle(http.MethodGet, "/readyz", g.probing(
		func(w http.ResponseWriter, _ *http.Request) { tellReady(w, gw, false) },
		func(w http.ResponseWriter, _ *http.Request) { tellReady(w, gw, true) }))
	handle(http.MethodGet, "/metrics", g.reading(promhttp.HandlerFor(gw.Metrics(), promhttp.HandlerOpts{
		ErrorHandling:       promhttp.ContinueOnError, // one bad series must not hide the others
		MaxRequestsInFlight: 4,
		Timeout:             8 * time.Second,
	}).ServeHTTP))
	handle(http.MethodGet, "/api/nodes", g.reading(func(w http.ResponseWriter, _ *http.Request) {
		reply(w, http.StatusOK, nodesOf(gw))
	}))
	handle(http.MethodGet, "/api/certificates", g.reading(func(w http.ResponseWriter, _ *http.Request) {
		reply(w, http.StatusOK, certificatesOf(gw))
	}))
	handle(http.MethodPost, "/api/drain", g.writing(func(w http.ResponseWriter, r *http.Request) { drain(w, r, gw) }))
	handle(http.MethodPost, "/api/undrain", g.writing(func(w http.ResponseWriter, r *http.Request) { undrain(w, r, gw) }))
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		refuse(w, http.StatusNotFound, "not_found", "there are /healthz, /readyz, /metrics, /api/nodes, /api/certificates, /api/drain and /api/undrain")
	})
	return guardedPages(mux)
}

// guardedPages lets no browser make anything of the answers but text.
func guardedPages(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Cache-Control", "no-store")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'")
		next.ServeHTTP(w, r)
	})
}

// tellReady gives the reasons, which name services, only to those who may know.
func tellReady(w http.ResponseWriter, gw Gateway, full bool) {
	if reasons := gw.Ready(); len(reasons) > 0 {
		answer := map[string]any{"status": "not ready"}
		if full {
			answer["reasons"] = reasons
		}
		reply(w, http.StatusServiceUnavailable, answer)
		return
	}
	reply(w, http.StatusOK, map[string]any{"status": "ready"})
}

func reply(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(body)
}

// An Error is what the admin address answers when it does not do what was asked.
type Error struct {
	Code    string `json:"error"` // short and stable, for programs: "no_node"
	Message string `json:"message"`
}

func refuse(w http.ResponseWriter, status int, code, message string) {
	reply(w, status, Error{code, message})
}
