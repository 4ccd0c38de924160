package main

import (
	"context"
	"fmt"
	"os"
	"strings"
)

// nginxStream is where Debian keeps nginx's module for TCP.
const nginxStream = "/usr/lib/nginx/modules/ngx_stream_module.so"

func findNginx(ctx context.Context) (*peer, error) {
	path, err := installed("nginx")
	if err != nil {
		return nil, err
	}
	p := &peer{
		name: "nginx", binary: path, polls: true, kinds: map[string]bool{wss: true, ws: true}, prepare: prepareNginx,
		version: strings.TrimPrefix(says(ctx, path, "-v"), "nginx version: "),
	}
	_, err = os.Stat(nginxStream)
	p.kinds[tcp] = err == nil
	return p, nil
}

func prepareNginx(s site) (argv, env []string, err error) {
	var upstreams, locations, streams strings.Builder
	for i := range s.wsNodes {
		fmt.Fprintf(&upstreams, "  upstream node%d { server %s; }\n", i+1, s.wsNodes[i])
		fmt.Fprintf(&locations, `    location /ws/node%[1]d/ {
      proxy_pass http://node%[1]d/;
      proxy_http_version 1.1;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection upgrade;
      proxy_set_header Host $host;
      proxy_set_header X-Forwarded-For $remote_addr;
      proxy_set_header X-Forwarded-Proto $scheme;
      proxy_read_timeout 1h;
      proxy_send_timeout 1h;
    }
`, i+1)
		fmt.Fprintf(&streams, "    server %s;\n", s.tcpNodes[i])
	}
	// Long polling as operators write it. A client's connection is kept for as long as ours.
	fmt.Fprintf(&upstreams, "  upstream polls { server %s; keepalive 256; }\n", s.pollNode)
	locations.WriteString(`    location /http-bind {
      proxy_pass http://polls;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host $host;
      proxy_set_header X-Forwarded-For $remote_addr;
      proxy_set_header X-Forwarded-Proto $scheme;
      proxy_buffering off;
      proxy_request_buffering off;
      proxy_read_timeout 330s;
      keepalive_timeout 10m;
      keepalive_requests 1000000;
    }
`)
	stream, load := "", ""
	if _, err := os.Stat(nginxStream); err == nil {
		load = "load_module " + nginxStream + ";\n"
		stream = fmt.Sprintf(`stream {
  upstream nodes {
%s  }
  server { listen %s reuseport backlog=4096; proxy_pass nodes; proxy_timeout 1h; }
}
`, streams.String(), s.tcp)
	}
	path, err := s.file("nginx.conf", fmt.Sprintf(`%sdaemon off;
user root;
worker_processes %d;
worker_rlimit_nofile %d;
pid nginx.pid;
error_log stderr warn;
events { worker_connections %d; }
http {
  access_log off;
%s  server {
    listen %s ssl reuseport backlog=4096;
    listen %s reuseport backlog=4096;
    ssl_certificate %s;
    ssl_certificate_key %s;
    ssl_protocols TLSv1.3;
%s  }
}
%s`, load, s.workers, s.maxDescriptor, 2*s.maxTunnels, upstreams.String(), s.wss, s.ws, s.cert, s.key, locations.String(), stream))
	return []string{s.binary, "-p", s.dir, "-e", "stderr", "-c", path}, nil, err
}
