package gateway

import (
	"fmt"
	"slices"

	"singlegate/gateway/auth"
)

// Warnings tells what in a config works but is easily misunderstood: routes
// that take a path away from the nodes of a pinned route, rules for frames that
// end tunnels of clients which do nothing wrong, and a host-meta without a link.
func Warnings(cfg Config) []string {
	warnings := slices.Concat(hiddenNodes(&cfg), hostMetaWarnings(&cfg), cfg.limitWarnings())
	for _, r := range cfg.Routes {
		warnings = append(warnings, r.Frames.warnings(r.At)...)
	}
	for _, p := range cfg.NodePorts {
		warnings = append(warnings, p.Frames.warnings(p.At)...)
	}
	for _, ref := range cfg.Services {
		if t := ref.TLS; t != nil && t.Config != nil && t.Config.InsecureSkipVerify {
			warnings = append(warnings, ref.At+": tls: verify: false: whoever can come between the gateway and a node of \""+ref.Name+"\" can read and change everything; name the nodes' CA instead (ca)")
		}
	}
	return append(warnings, auth.Warnings(cfg.Auth, authRules(&cfg))...)
}

// hiddenNodes warns of routes that take a path away from a pinned one.
func hiddenNodes(cfg *Config) (warnings []string) {
	routes, err := compileRoutes(cfg)
	if err != nil {
		return nil // Check says why
	}
	for _, pinned := range routes {
		if !pinned.path.node {
			continue
		}
		for _, other := range routes {
			if name, hides := other.hidesNode(pinned); hides {
				warnings = append(warnings, fmt.Sprintf("%s: a node named %q cannot be reached, or only in part, by %s (%s): %s takes that path",
					other.At, name, pinned.name, pinned.At, other.name))
			}
		}
	}
	return warnings
}

// hidesNode tells whether r takes requests that, but for r, would be those of
// one node of the pinned route.
func (r *route) hidesNode(pinned *route) (name string, hides bool) {
	if r.host != pinned.host || r.path.node || !overlap(r.Listeners, pinned.Listeners) {
		return "", false
	}
	name, _, hides = pinned.path.match(r.path.text)
	return name, hides
}

// overlap tells whether two routes share a listener; none named means all.
func overlap(a, b []string) bool {
	return len(a) == 0 || len(b) == 0 || slices.ContainsFunc(a, func(name string) bool { return slices.Contains(b, name) })
}
