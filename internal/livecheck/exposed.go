package livecheck

import (
	"slices"
	"strings"

	"singlegate/discovery"
)

// adminSegments are names of pages that hardly ever are for the public.
var adminSegments = []string{
	"admin", "administrator", "actuator", "console", "debug", "druid", "jmx-console", "manage", "management", "manager",
	"metrics", "minio", "nacos", "phpmyadmin", "pprof", "swagger-ui", "web-console",
}

// exposedPaths warns of paths that look like those of an administration.
func exposedPaths(paths []string) []Finding {
	var findings []Finding
	for _, path := range paths {
		for _, s := range segments(path) {
			if slices.Contains(adminSegments, strings.ToLower(s)) {
				findings = append(findings, warning(exposedPath, "path", path))
				break
			}
		}
	}
	return findings
}

// exposedPorts warns of nodes' ports that are made public and are known not to
// be for that.
func exposedPorts(nodes []discovery.Node, port string) []Finding {
	var findings []Finding
	for _, known := range []struct {
		port uint16
		code Code
	}{{18080, exposedIMAdmin}, {9002, exposedMinIO}} {
		var ids []string
		for i := range nodes {
			if p, ok := nodes[i].Port(port); ok && p == known.port {
				ids = append(ids, nodes[i].ID)
			}
		}
		if len(ids) > 0 {
			findings = append(findings, warning(known.code, "nodes", strings.Join(ids, ", ")))
		}
	}
	return findings
}
