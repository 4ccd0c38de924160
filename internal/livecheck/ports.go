package livecheck

import (
	"net"
	"strconv"

	"singlegate/discovery"
	"singlegate/gateway"
)

// nodePort is a node's port by name; the empty name stands for its only one.
func nodePort(n *discovery.Node, name string) (port uint16, ok bool) {
	port, ok = n.Ports[name]
	if !ok && name == "" && len(n.Ports) == 1 {
		for _, port = range n.Ports {
			ok = true
		}
	}
	return port, ok
}

// publicPort is the port that a rule gives a node. Without a reason and without
// a port it gives none.
func publicPort(rule gateway.PortRule, n *discovery.Node, name string) (port uint16, ok bool) {
	switch {
	case rule.Map != nil:
		return rule.Map[n.ID], true
	case rule.Meta != "":
		v, err := strconv.ParseUint(n.Meta[rule.Meta], 10, 16)
		return uint16(v), err == nil && v > 0
	case rule.Same:
		return nodePort(n, name)
	}
	end := len(n.ID)
	for end > 0 && '0' <= n.ID[end-1] && n.ID[end-1] <= '9' {
		end--
	}
	number, err := strconv.Atoi(n.ID[end:])
	if public := rule.Base + number; err != nil || public < 1 || public > 65535 {
		return 0, false
	}
	return uint16(rule.Base + number), true
}

func joinPort(host string, port uint16) string {
	return net.JoinHostPort(host, strconv.Itoa(int(port)))
}
