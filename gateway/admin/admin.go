// Package admin serves the operator: health and readiness, on an address of
// its own that is never public. It imports package gateway's face only through
// the interface declared here.
package admin

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"time"
)

// Status is what the admin address tells of the gateway.
type Status interface {
	Ready() (reasons []string) // why clients should not be sent here; none: they may
	Tunnels() int
}

// A Server answers on the admin address.
type Server struct {
	socket net.Listener
	http   *http.Server
	done   chan struct{}
}

// Start listens on address and serves until Close.
func Start(address string, status Status) (*Server, error) {
	socket, err := net.Listen("tcp", address)
	if err != nil {
		return nil, err
	}
	s := &Server{
		socket: socket,
		http: &http.Server{
			Handler:           Handler(status),
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

// Handler answers /healthz (the process works: 200) and /readyz (clients may be
// sent here: 200, else 503), both with what they know in JSON.
func Handler(status Status) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		reply(w, http.StatusOK, map[string]any{"status": "ok", "tunnels": status.Tunnels()})
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if reasons := status.Ready(); len(reasons) > 0 {
			reply(w, http.StatusServiceUnavailable, map[string]any{"status": "not ready", "reasons": reasons})
			return
		}
		reply(w, http.StatusOK, map[string]any{"status": "ready"})
	})
	return mux
}

func reply(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(body)
}
