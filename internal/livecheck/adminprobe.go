package livecheck

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"

	"singlegate/discovery"
	"singlegate/gateway/admin"
	"singlegate/internal/config"
)

// maxNodes bounds the list of nodes that an admin address gives, in bytes.
const maxNodes = 16 << 20

// running is what the admin address tells.
type running struct {
	answers bool
	tunnels int
	reasons []string // why it is not ready
	nodes   map[string][]discovery.Node
	routes  map[string][]discovery.TagRoute // that tags ask for, by service
	faults  []portFault
}

// askAdmin asks a gateway's admin address. What it does not know is left out.
func (p *prober) askAdmin(ctx context.Context, a config.Admin) running {
	var r running
	if a.Address == "" {
		return r
	}
	transport := &http.Transport{DialContext: p.Dialer.DialContext, DisableKeepAlives: true}
	client := &http.Client{Transport: withToken{transport, tokenFor(a)}}
	base := "http://" + near(a.Address)
	var health struct {
		Status  string
		Tunnels int
	}
	status, body, err := fetch(ctx, client, base+"/healthz")
	if err != nil || status != http.StatusOK || json.Unmarshal(body, &health) != nil || health.Status != "ok" {
		return r
	}
	r.answers, r.tunnels = true, health.Tunnels
	r.reasons = readiness(ctx, client, base)
	r.takeNodes(ctx, client, base)
	return r
}

// near is where a listener of this address is asked from the same machine.
func near(address string) string {
	host, port, err := net.SplitHostPort(address)
	if ip := net.ParseIP(host); err == nil && (host == "" || ip != nil && ip.IsUnspecified()) {
		return net.JoinHostPort("localhost", port)
	}
	return address
}

// tokenFor is a token that lets read, if one of the files may be read here.
func tokenFor(a config.Admin) string {
	for _, file := range []string{a.TokenFile, a.WriteTokenFile} {
		if file != "" {
			if token, err := admin.ReadToken(file); err == nil {
				return token
			}
		}
	}
	return ""
}

// withToken shows a token with every request.
type withToken struct {
	http.RoundTripper
	token string
}

// RoundTrip implements http.RoundTripper.
func (w withToken) RoundTrip(r *http.Request) (*http.Response, error) {
	if w.token != "" {
		r = r.Clone(r.Context())
		r.Header.Set("Authorization", "Bearer "+w.token)
	}
	return w.RoundTripper.RoundTrip(r)
}

func fetch(ctx context.Context, client *http.Client, url string) (status int, body []byte, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	body, err = io.ReadAll(io.LimitReader(resp.Body, maxNodes))
	return resp.StatusCode, body, err
}

func readiness(ctx context.Context, client *http.Client, base string) []string {
	status, body, err := fetch(ctx, client, base+"/readyz")
	if err != nil || status == http.StatusOK {
		return nil
	}
	var answer struct{ Reasons []string }
	if json.Unmarshal(body, &answer) != nil || len(answer.Reasons) == 0 {
		return []string{fmt.Sprintf("/readyz: HTTP %d", status)}
	}
	return answer.Reasons
}

// nodeList is what is read of the answer of /api/nodes.
type nodeList struct {
	Services []struct {
		Name   string
		Routes []discovery.TagRoute
		Nodes  []struct {
			ID       string
			Names    []string
			Address  string
			Ports    map[string]uint16
			Meta     map[string]string
			Status   discovery.Status
			Draining bool
		}
	}
	PortFaults []portFault `json:"port_faults"`
}

// A portFault is a public port that the gateway wants and could not open.
type portFault struct{ At, Name, Reason string }

// takeNodes reads /api/nodes, if the gateway has it.
func (r *running) takeNodes(ctx context.Context, client *http.Client, base string) {
	status, body, err := fetch(ctx, client, base+"/api/nodes")
	var list nodeList
	if err != nil || status != http.StatusOK || json.Unmarshal(body, &list) != nil {
		return
	}
	r.nodes, r.routes, r.faults = map[string][]discovery.Node{}, map[string][]discovery.TagRoute{}, list.PortFaults
	for _, s := range list.Services {
		r.routes[s.Name] = s.Routes
		for _, n := range s.Nodes {
			if n.Draining {
				n.Status = discovery.Maintenance
			}
			r.nodes[s.Name] = append(r.nodes[s.Name], discovery.Node{
				ID: n.ID, Names: n.Names, Address: n.Address, Ports: n.Ports, Meta: n.Meta, Status: n.Status,
			})
		}
	}
}

// Consul is how to ask whether Consul is there.
type Consul struct {
	Address string
	// Leader asks for the address of the cluster's leader; "": there is none.
	Leader func(context.Context) (string, error)
}

// consul asks for the leader.
func (p *prober) consul(ctx context.Context, c *Consul) Finding {
	leader, err := c.Leader(ctx)
	at := []string{"address", c.Address}
	switch {
	case err == nil && leader != "":
		return fine(hasLeader, append(at, "leader", leader)...)
	case err == nil, strings.Contains(err.Error(), "No cluster leader"):
		return failure(consulNoLeader, at...)
	case errors.Is(err, errRefused):
		return failure(consulRefused, at...)
	case isTimeout(err):
		return failure(consulTimeout, at...)
	case isAny(err, errNoHost, errNoNetwork):
		return failure(consulUnreachable, at...)
	}
	return failure(consulFailed, append(at, "error", rootCause(err))...)
}
