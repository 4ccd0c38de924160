package livecheck

import "slices"

// A behind is the node's port that a probe leads to, if it leads to one.
type behind struct{ service, node, port string }

// explainWaits says of what the gateway did not answer, or only seemed to, that
// it waits for a node: where the node cannot be dialled from here either. It
// waits for longer than a probe does, and a TCP port is open meanwhile.
func (c *checker) explainWaits() {
	for _, j := range c.second {
		if j.behind == nil || !c.unreached(*j.behind) {
			continue
		}
		for i, f := range j.findings {
			switch f.Code {
			case gatewaySilent, slowAnswer:
				j.findings[i] = failure(gatewayWaits)
			case isConnected:
				j.findings[i] = failure(portWaits)
			}
		}
	}
}

// unreached tells whether a node's port could not be connected to from here.
func (c *checker) unreached(b behind) bool {
	at := slices.IndexFunc(c.uses, func(u *nodeUse) bool {
		return u.service == b.service && u.node.ID == b.node && u.port == b.port
	})
	if at < 0 || c.uses[at].job == nil {
		return false
	}
	return slices.ContainsFunc(c.uses[at].job.findings, func(f Finding) bool {
		switch f.Code {
		case nodeRefused, nodeNotListening, nodeLoopbackOnly, nodeOtherAddress, nodeTimeout, nodeUnreachable, nodeNoHost,
			nodeUnresolved, nodeNoDNS, nodeDialFailed:
			return true
		}
		return false
	})
}
