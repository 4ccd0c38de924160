package livecheck

import (
	"net"
	"strconv"

	"singlegate/discovery"
	"singlegate/gateway"
)

// publicPort is the port that a rule gives a node; 0 where it gives none, which
// is not ok when it should have.
func publicPort(rule gateway.PortRule, n *discovery.Node, name string) (port uint16, ok bool) {
	public, reason := rule.PublicPort(n, name)
	return uint16(public), reason == ""
}

func joinPort(host string, port uint16) string {
	return net.JoinHostPort(host, strconv.Itoa(int(port)))
}
