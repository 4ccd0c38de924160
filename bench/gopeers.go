package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"time"
)

// buildPeerWithin bounds a cold build of a peer, downloads included.
const buildPeerWithin = 12 * time.Minute

// goPeer is the path of a peer that is built of Go: the tool of bench/peers/name,
// built once and kept in the user's cache folder.
func goPeer(ctx context.Context, name, module, pkg string) (path, version string, err error) {
	folder, err := peerFolder(name)
	if err != nil {
		return "", "", err
	}
	text, err := os.ReadFile(filepath.Join(folder, "go.mod"))
	if err != nil {
		return "", "", err
	}
	m := regexp.MustCompile(`(?m)^\s*` + regexp.QuoteMeta(module) + ` (v\S+)`).FindSubmatch(text)
	if m == nil {
		return "", "", fmt.Errorf("bench/peers/%s/go.mod requires no %s", name, module)
	}
	version = string(m[1])
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", "", err
	}
	path = filepath.Join(cache, "singlegate", fmt.Sprintf("%s-%s-%s-%s-%s", name, version, runtime.Version(), runtime.GOOS, runtime.GOARCH))
	if _, err := os.Stat(path); err == nil {
		return path, version, nil
	}
	fmt.Fprintf(os.Stderr, "bench: building %s %s, once, which takes minutes\n", name, version)
	return path, version, buildPeer(ctx, folder, pkg, path)
}

// peerFolder is bench/peers/name, looked for from the working folder upwards.
func peerFolder(name string) (string, error) {
	dir, err := os.Getwd()
	for ; err == nil; dir = filepath.Dir(dir) {
		for _, under := range []string{"bench/peers", "peers"} {
			folder := filepath.Join(dir, under, name)
			if _, err := os.Stat(filepath.Join(folder, "go.mod")); err == nil {
				return folder, nil
			}
		}
		if dir == filepath.Dir(dir) {
			err = errors.New("no folder bench/peers around the working folder")
		}
	}
	return "", err
}

// buildPeer leaves a whole binary at path or none.
func buildPeer(ctx context.Context, folder, pkg, path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, buildPeerWithin)
	defer cancel()
	part := fmt.Sprintf("%s.%d", path, os.Getpid())
	defer os.Remove(part)
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", part, pkg)
	cmd.Dir = folder
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-buildvcs=false")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("cannot be built here: %w: %s", err, firstLine(string(out)))
	}
	return os.Rename(part, path)
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(s), "\n")
	return line
}

func findCaddy(ctx context.Context) (*peer, error) {
	const module = "github.com/caddyserver/caddy/v2"
	path, version, err := goPeer(ctx, "caddy", module, module+"/cmd/caddy")
	return &peer{
		name: "caddy", binary: path, version: "caddy/" + strings.TrimPrefix(version, "v"),
		kinds: map[string]bool{wss: true, ws: true}, prepare: prepareCaddy,
	}, err
}

func prepareCaddy(s site) (argv, env []string, err error) {
	var handles strings.Builder
	for i, node := range s.wsNodes {
		fmt.Fprintf(&handles, "  handle_path /ws/node%d/* {\n    reverse_proxy %s\n  }\n", i+1, node)
	}
	_, wssPort, _ := strings.Cut(s.wss, ":")
	_, wsPort, _ := strings.Cut(s.ws, ":")
	path, err := s.file("Caddyfile", fmt.Sprintf(`{
  admin off
  auto_https off
  persist_config off
  default_bind 127.0.0.1
  servers {
    protocols h1
  }
  log {
    level WARN
  }
}
(nodes) {
%s}
https://:%s {
  tls %s %s {
    protocols tls1.3
  }
  import nodes
}
http://:%s {
  import nodes
}
`, handles.String(), wssPort, s.cert, s.key, wsPort))
	env = append(s.goEnv(), "XDG_CONFIG_HOME="+s.dir, "XDG_DATA_HOME="+s.dir)
	return []string{s.binary, "run", "--adapter", "caddyfile", "--config", path}, env, err
}

func findFabio(ctx context.Context) (*peer, error) {
	const module = "github.com/fabiolb/fabio"
	path, version, err := goPeer(ctx, "fabio", module, module)
	return &peer{
		name: "fabio", binary: path, version: "fabio/" + strings.TrimPrefix(version, "v"),
		kinds: everyKind, prepare: prepareFabio,
	}, err
}

func prepareFabio(s site) (argv, env []string, err error) {
	var routes strings.Builder
	for i := range s.wsNodes {
		fmt.Fprintf(&routes, "route add node%[1]d /ws/node%[1]d/ http://%[2]s/ opts \"strip=/ws/node%[1]d\"\n", i+1, s.wsNodes[i])
		_, port, _ := strings.Cut(s.tcp, ":")
		fmt.Fprintf(&routes, "route add raw%d :%s tcp://%s\n", i+1, port, s.tcpNodes[i])
	}
	path, err := s.file("fabio.properties", fmt.Sprintf(`proxy.cs = cs=bench;type=file;cert=%s;key=%s
proxy.addr = %s;cs=bench;tlsmin=tls13,%s,%s;proto=tcp
registry.backend = static
registry.static.routes = %s
ui.addr = 127.0.0.1:0
log.level = WARN
`, s.cert, s.key, s.wss, s.ws, s.tcp, strings.ReplaceAll(strings.TrimSuffix(routes.String(), "\n"), "\n", "\\n\\\n")))
	return []string{s.binary, "-cfg", path}, s.goEnv(), err
}
