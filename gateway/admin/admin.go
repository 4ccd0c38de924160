// Package admin serves the operator, on an address of its own that is never
// public: it has no login.
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
// A page in the operator's browser must not reach the API: under /api/ the Host
// has to be localhost, a loopback address or the address that the connection
// came in by (no other name, against DNS rebinding); a POST has to be
// application/json and must not come from another origin.
//
// The package takes what it tells from an interface declared here and imports
// packages gateway and certs for the types in it.
package admin

import (
	"context"
	"encoding/json"
	"errors"
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
}

// A Server answers on the admin address.
type Server struct {
	socket net.Listener
	http   *http.Server
	done   chan struct{}
}

// Start listens on address and serves until Close.
func Start(address string, gw Gateway) (*Server, error) {
	socket, err := net.Listen("tcp", address)
	if err != nil {
		return nil, err
	}
	s := &Server{
		socket: socket,
		http: &http.Server{
			Handler:           Handler(gw),
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

// Handler answers what the package comment lists.
func Handler(gw Gateway) http.Handler {
	mux := http.NewServeMux()
	handle := func(method, path string, f http.HandlerFunc) {
		mux.HandleFunc(method+" "+path, f)
		mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Allow", method)
			refuse(w, http.StatusMethodNotAllowed, "method_not_allowed", path+" takes "+method)
		})
	}
	handle(http.MethodGet, "/healthz", func(w http.ResponseWriter, _ *http.Request) {
		reply(w, http.StatusOK, map[string]any{"status": "ok", "tunnels": gw.Tunnels()})
	})
	handle(http.MethodGet, "/readyz", func(w http.ResponseWriter, _ *http.Request) { tellReady(w, gw) })
	handle(http.MethodGet, "/metrics", promhttp.HandlerFor(gw.Metrics(), promhttp.HandlerOpts{
		ErrorHandling:       promhttp.ContinueOnError, // one bad series must not hide the others
		MaxRequestsInFlight: 4,
		Timeout:             8 * time.Second,
	}).ServeHTTP)
	handle(http.MethodGet, "/api/nodes", guarded(func(w http.ResponseWriter, _ *http.Request) {
		reply(w, http.StatusOK, nodesOf(gw))
	}))
	handle(http.MethodGet, "/api/certificates", guarded(func(w http.ResponseWriter, _ *http.Request) {
		reply(w, http.StatusOK, certificatesOf(gw))
	}))
	handle(http.MethodPost, "/api/drain", guarded(func(w http.ResponseWriter, r *http.Request) { drain(w, r, gw) }))
	handle(http.MethodPost, "/api/undrain", guarded(func(w http.ResponseWriter, r *http.Request) { undrain(w, r, gw) }))
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		refuse(w, http.StatusNotFound, "not_found", "there are /healthz, /readyz, /metrics, /api/nodes, /api/certificates, /api/drain and /api/undrain")
	})
	return mux
}

func tellReady(w http.ResponseWriter, gw Gateway) {
	if reasons := gw.Ready(); len(reasons) > 0 {
		reply(w, http.StatusServiceUnavailable, map[string]any{"status": "not ready", "reasons": reasons})
		return
	}
	reply(w, http.StatusOK, map[string]any{"status": "ready"})
}

func reply(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
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
