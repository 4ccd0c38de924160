package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// findSinglegates takes "path" and "name=path"; none means the one of this
// checkout, which is built into dir.
func findSinglegates(ctx context.Context, args []string, dir string) ([]*peer, error) {
	if len(args) == 0 {
		path, err := buildSinglegate(ctx, dir)
		if err != nil {
			return nil, err
		}
		args = []string{"singlegate=" + path}
	}
	var peers []*peer
	for _, a := range args {
		name, path, ok := strings.Cut(a, "=")
		if !ok {
			name, path = "singlegate", a
		}
		path, err := filepath.Abs(path)
		if err == nil {
			_, err = os.Stat(path)
		}
		if err != nil {
			return nil, fmt.Errorf("-singlegate %s: %w", a, err)
		}
		peers = append(peers, &peer{
			name: name, binary: path, version: says(ctx, path, "version"), ours: true,
			kinds: everyKind, polls: true, prepare: prepareSinglegate,
		})
	}
	return peers, nil
}

// buildSinglegate builds the gateway of the checkout around the working folder,
// symbols kept for -profile.
func buildSinglegate(ctx context.Context, dir string) (string, error) {
	root, err := os.Getwd()
	for err == nil {
		if b, e := os.ReadFile(filepath.Join(root, "go.mod")); e == nil && strings.HasPrefix(string(b), "module singlegate\n") {
			break
		}
		if root == filepath.Dir(root) {
			err = errors.New("no checkout of singlegate around the working folder; name a binary with -singlegate")
		}
		root = filepath.Dir(root)
	}
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "singlegate")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", path, ".")
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building singlegate: %w\n%s", err, out)
	}
	return path, nil
}

func prepareSinglegate(s site) (argv, env []string, err error) {
	var nodes strings.Builder
	for i := range s.wsNodes {
		_, wsPort, _ := strings.Cut(s.wsNodes[i], ":")
		_, tcpPort, _ := strings.Cut(s.tcpNodes[i], ":")
		fmt.Fprintf(&nodes, "      node%d: {address: 127.0.0.1, ports: {ws: %s, tcp: %s}}\n", i+1, wsPort, tcpPort)
	}
	// The access log is off, as it is everywhere here: level warn.
	path, err := s.file("singlegate.yaml", fmt.Sprintf(`
listeners:
  - {name: tls, address: "%s", tls: true}
  - {name: plain, address: "%s"}
  - {name: tcp, address: "%s", service: im, port: tcp}
admin: {address: "%s"}
tls:
  min_version: "1.3"
  certificates:
    - {cert: "%s", key: "%s"}
services:
  im:
    nodes:
%s  xmpp:
    nodes: {xmpp1: "%s"}
routes:
  - {path: /http-bind, service: xmpp, kind: bosh}
  - {path: "/ws/{node}", service: im, port: ws, rewrite: /}
shutdown: {grace: 0s, drain: 0s, deadline: 2s}
logs: {level: warn}
limits:
  keep_alive: 10m
`, s.wss, s.ws, s.tcp, s.admin, s.cert, s.key, nodes.String(), s.pollNode))
	return []string{s.binary, "run", "--config", path}, s.goEnv(), err
}
