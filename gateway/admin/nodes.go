package admin

import (
	"time"

	"singlegate/gateway"
)

// Nodes is the answer of /api/nodes. All of its times are the gateway's.
type Nodes struct {
	Time       time.Time   `json:"time"`    // when the gateway answered
	Tunnels    int         `json:"tunnels"` // that live, those of nodes that are gone among them
	Services   []Service   `json:"services"`
	Drains     []Drain     `json:"drains"` // those under way
	PortFaults []PortFault `json:"port_faults"`
}

// A Service is one with its nodes.
type Service struct {
	gateway.ServiceStatus
	LeftOut []LeftOut `json:"left_out"`
}

// LeftOut is an instance that is registered but cannot be a node.
type LeftOut struct {
	Instance string `json:"instance"`
	Reason   string `json:"reason"`
}

// A Drain is one under way.
type Drain struct {
	gateway.DrainStatus
	BeginsIn float64 `json:"begins_in_seconds"` // how long tunnels are left alone yet
	DoneIn   float64 `json:"eta_seconds"`       // until the last Close is sent
}

// A PortFault is a node's port that is wanted and not open.
type PortFault struct {
	At      string `json:"at"`      // the rule in the config
	Name    string `json:"name"`    // "im/node1 tcp"
	Address string `json:"address"` // "": there is none to open
	Reason  string `json:"reason"`
}

// nodesOf asks the gateway for everything.
func nodesOf(gw Gateway) Nodes {
	n := Nodes{Time: time.Now(), Tunnels: gw.Tunnels(), Services: []Service{}, Drains: []Drain{}, PortFaults: []PortFault{}}
	for _, s := range gw.Services() {
		service := Service{ServiceStatus: s, LeftOut: []LeftOut{}}
		for _, l := range s.LeftOut {
			service.LeftOut = append(service.LeftOut, LeftOut(l))
		}
		service.ServiceStatus.LeftOut = nil
		n.Services = append(n.Services, service)
	}
	for _, d := range gw.Drains() {
		n.Drains = append(n.Drains, Drain{d, d.Begins.Seconds(), d.ETA.Seconds()})
	}
	for _, f := range gw.PortFaults() {
		n.PortFaults = append(n.PortFaults, PortFault(f))
	}
	return n
}
