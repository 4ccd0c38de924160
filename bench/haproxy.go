package main

import (
	"context"
	"fmt"
	"os"
	"strings"
)

func findHAProxy(ctx context.Context) (*peer, error) {
	path, err := installed("haproxy")
	if err != nil {
		return nil, err
	}
	version, _, _ := strings.Cut(strings.TrimPrefix(says(ctx, path, "-v"), "HAProxy version "), " ")
	return &peer{name: "haproxy", binary: path, version: "haproxy/" + version, kinds: everyKind, prepare: prepareHAProxy}, nil
}

func prepareHAProxy(s site) (argv, env []string, err error) {
	cert, err := os.ReadFile(s.cert)
	if err != nil {
		return nil, nil, err
	}
	key, err := os.ReadFile(s.key)
	if err != nil {
		return nil, nil, err
	}
	pem, err := s.file("haproxy.pem", string(cert)+string(key))
	if err != nil {
		return nil, nil, err
	}
	var use, backends, servers strings.Builder
	for i := range s.wsNodes {
		fmt.Fprintf(&use, "  use_backend node%[1]d if { path_beg /ws/node%[1]d/ }\n", i+1)
		fmt.Fprintf(&backends, "backend node%[1]d\n  http-request replace-path ^/ws/node%[1]d/(.*)$ /\\1\n  server node%[1]d %[2]s\n", i+1, s.wsNodes[i])
		fmt.Fprintf(&servers, "  server node%d %s\n", i+1, s.tcpNodes[i])
	}
	path, err := s.file("haproxy.cfg", fmt.Sprintf(`global
  nbthread %d
  maxconn %d
  ssl-default-bind-options ssl-min-ver TLSv1.3 prefer-client-ciphers
defaults
  mode http
  option forwardfor
  timeout connect 10s
  timeout http-request 10s
  timeout client 1h
  timeout server 1h
  timeout tunnel 1h
frontend web
  bind %s ssl crt %s backlog 4096
  bind %s backlog 4096
%s%sfrontend raw
  mode tcp
  bind %s backlog 4096
  default_backend raw
backend raw
  mode tcp
  balance roundrobin
%s`, s.workers, s.maxTunnels, s.wss, pem, s.ws, use.String(), backends.String(), s.tcp, servers.String()))
	return []string{s.binary, "-db", "-f", path}, nil, err
}
