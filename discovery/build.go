package discovery

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/hashicorp/consul/api"
)

// Bounds of what a registration may ask for.
const (
	maxNodeID = 255  // bytes
	maxWeight = 1000 // as in the config file
)

// instances are those of one Consul service.
type instances struct {
	listed []*api.ServiceEntry // by the last answer
	kept   []*api.ServiceEntry // by earlier ones: Consul may only have forgotten them for the moment
}

// build makes nodes of the instances of a Consul service, sorted by id, with the
// routes that their tags ask for, and says which instances cannot be nodes, which
// tags no routes, and why. Siblings are the instances of the other Consul services
// that it takes ports from, by name.
//
// Of several instances with one node id the first counts, by service id and then
// by the name of Consul's node; one that is listed counts before one that is kept.
func build(s ConsulService, own instances, siblings map[string]instances) ([]Node, []TagRoute, []LeftOut) {
	b := builder{service: s, siblings: map[string]map[string]*api.ServiceEntry{}, taken: map[string]string{}, tags: newTagBuilder(s)}
	for name, list := range siblings {
		b.siblings[name] = b.byNodeID(list)
	}
	for _, e := range sorted(own.listed) {
		b.add(e, false)
	}
	for _, e := range sorted(own.kept) {
		b.add(e, true)
	}
	slices.SortFunc(b.nodes, func(x, y Node) int { return cmp.Compare(x.ID, y.ID) })
	return b.nodes, b.tags.sorted(), append(b.leftOut, b.tags.leftOut...)
}

type builder struct {
	service  ConsulService
	siblings map[string]map[string]*api.ServiceEntry // by Consul service and node id in lower case
	taken    map[string]string                       // instances by their node id in lower case
	nodes    []Node
	leftOut  []LeftOut
	tags     *tagBuilder
}

// sorted gives the usable entries in the order in which they count.
func sorted(entries []*api.ServiceEntry) []*api.ServiceEntry {
	all := slices.Clone(entries)
	all = slices.DeleteFunc(all, func(e *api.ServiceEntry) bool { return e == nil || e.Service == nil || e.Node == nil })
	slices.SortStableFunc(all, func(x, y *api.ServiceEntry) int {
		return cmp.Or(cmp.Compare(x.Service.ID, y.Service.ID), cmp.Compare(x.Node.Node, y.Node.Node))
	})
	return all
}

// byNodeID finds the instances of a sibling service by the node id that this
// service's rule gives them; those that it gives none cannot be anyone's sibling.
func (b *builder) byNodeID(list instances) map[string]*api.ServiceEntry {
	found := map[string]*api.ServiceEntry{}
	for _, e := range append(sorted(list.listed), sorted(list.kept)...) {
		id, problem := nodeID(b.service.NodeID, e)
		if key := strings.ToLower(id); problem == "" && found[key] == nil {
			found[key] = e
		}
	}
	return found
}

func (b *builder) add(e *api.ServiceEntry, kept bool) {
	if b.service.Tag != "" && !slices.Contains(e.Service.Tags, b.service.Tag) || b.service.tagged && !hasPrefix(e.Service.Tags, b.service.prefix) {
		return
	}
	node, problem := b.node(e)
	first, double := b.taken[strings.ToLower(node.ID)]
	switch {
	case kept && (problem != "" || double):
		return
	case problem == "" && double:
		problem = fmt.Sprintf("its node id %s is that of %s already (case does not count); give each instance a node id of its own%s",
			quoted(node.ID), first, doubleHint(b.service.NodeID))
	}
	if problem != "" {
		b.leftOut = append(b.leftOut, LeftOut{Instance: instanceName(e), Reason: problem})
		return
	}
	b.taken[strings.ToLower(node.ID)] = instanceName(e)
	b.nodes = append(b.nodes, node)
	b.tags.add(e, node.ID)
}

// doubleHint helps with the most usual cause: a service that is registered under
// its bare name by every agent has one service id everywhere.
func doubleHint(rule string) string {
	if rule == "" || rule == "id" {
		return ", or take it from elsewhere with node_id: node"
	}
	return ""
}

// instanceName names an instance for an operator, who may know it by both parts;
// a service of the catalog is on no node.
func instanceName(e *api.ServiceEntry) string {
	if e.Node.Node == "" {
		return shortened(e.Service.ID)
	}
	return shortened(e.Service.ID) + " on " + shortened(e.Node.Node)
}

// node makes a node of an instance, or says what is wrong with it.
func (b *builder) node(e *api.ServiceEntry) (n Node, problem string) {
	if n.ID, problem = nodeID(b.service.NodeID, e); problem != "" {
		return n, problem
	}
	if n.Address, problem = address(e); problem != "" {
		return n, problem
	}
	if n.Ports, problem = b.ports(n, e); problem != "" {
		return n, problem
	}
	n.Status, n.Weight = health(e)
	n.Meta = maps.Clone(e.Service.Meta)
	n.Origin = "consul"
	return n, ""
}

// nodeID takes a node's id from where the rule says.
func nodeID(rule string, e *api.ServiceEntry) (id, problem string) {
	where := "its service id"
	switch key, isMeta := strings.CutPrefix(rule, "meta."); {
	case rule == "" || rule == "id" || rule == idOfTagged && e.Service.ID != e.Service.Service:
		id = e.Service.ID
	case rule == "node", rule == idOfTagged:
		id, where = e.Node.Node, "the name of its Consul node"
	case isMeta:
		var ok bool
		if id, ok = e.Service.Meta[key]; !ok {
			return "", fmt.Sprintf("it has no meta key %s, which gives the node id; register it with one, or change node_id", quoted(key))
		}
		where = "its meta key " + quoted(key)
	default:
		return taggedID(strings.TrimPrefix(rule, "tag."), e.Service.Tags)
	}
	if problem := checkID(id); problem != "" {
		return "", fmt.Sprintf("%s gives the node id %s, %s", where, quoted(id), problem)
	}
	return id, ""
}

// taggedID takes what stands behind the prefix in the one tag that has it.
func taggedID(prefix string, tags []string) (id, problem string) {
	found := false
	for _, tag := range tags {
		rest, ok := strings.CutPrefix(tag, prefix)
		switch {
		case !ok || found && rest == id:
			continue
		case found:
			return "", fmt.Sprintf("two of its tags begin with %s, which gives the node id; leave one", quoted(prefix))
		}
		id, found = rest, true
	}
	if !found {
		return "", fmt.Sprintf("none of its tags begins with %s, which gives the node id; register it with one, or change node_id", quoted(prefix))
	}
	if problem := checkID(id); problem != "" {
		return "", fmt.Sprintf("its tag with %s gives the node id %s, %s", quoted(prefix), quoted(id), problem)
	}
	return id, ""
}

// checkID gives what is wrong with a node id, or "".
func checkID(id string) string {
	switch {
	case id == "":
		return "which is empty; a node needs one"
	case len(id) > maxNodeID:
		return fmt.Sprintf("which is longer than %d bytes", maxNodeID)
	case !utf8.ValidString(id):
		return "which is not UTF-8"
	case strings.ContainsFunc(id, func(r rune) bool { return r == '/' || unicode.IsSpace(r) || unicode.IsControl(r) }):
		return "but an id stands in paths and has no slash, space or control character"
	}
	return ""
}

// address is the service's own, or else that of the agent's node.
func address(e *api.ServiceEntry) (host, problem string) {
	host, whose := e.Service.Address, "its address"
	if host == "" {
		host, whose = e.Node.Address, "the address of its Consul node"
	}
	if bare, ok := strings.CutPrefix(host, "["); ok {
		host = strings.TrimSuffix(bare, "]")
	}
	switch {
	case e.Service.SocketPath != "":
		return "", "it listens on a Unix socket, which a gateway elsewhere cannot reach; register an address and a port"
	case host == "":
		return "", "neither it nor its Consul node has an address"
	case !isHost(host):
		return "", fmt.Sprintf("%s is %s, neither an IP address nor a host name; the port is registered apart from it", whose, quoted(host))
	}
	return host, ""
}

// isHost tells whether s is an IP address or might be a host name.
func isHost(s string) bool {
	if _, err := netip.ParseAddr(s); err == nil {
		return true
	}
	return s != "" && len(s) <= 253 && s[0] != '.' && s[0] != '-' && !strings.Contains(s, "..") &&
		strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") == ""
}

// ports are the node's ports by name. Without a rule there is one, unnamed, which
// is the registered one.
func (b *builder) ports(n Node, e *api.ServiceEntry) (map[string]uint16, string) {
	from := b.service.Ports
	if len(from) == 0 {
		from = map[string]PortFrom{"": {}}
	}
	ports := make(map[string]uint16, len(from))
	for _, name := range slices.Sorted(maps.Keys(from)) {
		port, problem := b.port(from[name], n, e)
		if problem != "" {
			return nil, portLabel(name) + ": " + problem
		}
		ports[name] = port
	}
	return ports, ""
}

func portLabel(name string) string {
	if name == "" {
		return "its port"
	}
	return "port " + quoted(name)
}

func (b *builder) port(from PortFrom, n Node, e *api.ServiceEntry) (port uint16, problem string) {
	switch {
	case from.Number != 0:
		return from.Number, ""
	case from.Meta != "":
		text, ok := e.Service.Meta[from.Meta]
		if !ok {
			return 0, fmt.Sprintf("the instance has no meta key %s; register it with one", quoted(from.Meta))
		}
		if port, ok = parsePort(text); !ok {
			return 0, fmt.Sprintf("the meta key %s is %s, not a port between 1 and 65535", quoted(from.Meta), quoted(text))
		}
		return port, ""
	case from.Sibling != "":
		return b.siblingPort(from.Sibling, n)
	}
	return registeredPort(e)
}

func registeredPort(e *api.ServiceEntry) (port uint16, problem string) {
	switch p := e.Service.Port; {
	case p == 0:
		return 0, "the instance is registered without a port"
	case p < 0 || p > 65535:
		return 0, fmt.Sprintf("%d is registered, which is not between 1 and 65535", p)
	default:
		return uint16(p), ""
	}
}

// siblingPort is the port under which the same node is registered as another
// service. A node has one address, so the two must agree on it.
func (b *builder) siblingPort(name string, n Node) (port uint16, problem string) {
	e := b.siblings[name][strings.ToLower(n.ID)]
	if e == nil {
		return 0, fmt.Sprintf("Consul's service %s has no instance with the node id %s; register it there too, with the same node id",
			quoted(name), quoted(n.ID))
	}
	host, problem := address(e)
	if problem == "" && host != n.Address {
		problem = fmt.Sprintf("it has the address %s there and %s here; a node has one", quoted(host), quoted(n.Address))
	}
	if problem == "" {
		port, problem = registeredPort(e)
	}
	if problem != "" {
		return 0, fmt.Sprintf("in Consul's service %s, %s: %s", quoted(name), instanceName(e), problem)
	}
	return port, ""
}

// parsePort takes decimal digits only.
func parsePort(s string) (uint16, bool) {
	n, err := strconv.ParseUint(s, 10, 16)
	return uint16(n), err == nil && n > 0
}

// health maps Consul's view of an instance. A warning is a node that works, at
// the weight that was registered for that.
func health(e *api.ServiceEntry) (Status, int) {
	weight := func(w int) int { return min(max(w, 1), maxWeight) }
	checks := slices.Clone(e.Checks)
	checks = slices.DeleteFunc(checks, func(c *api.HealthCheck) bool { return c == nil })
	switch checks.AggregatedStatus() {
	case api.HealthMaint:
		return Maintenance, weight(e.Service.Weights.Passing)
	case api.HealthCritical:
		return Failing, weight(e.Service.Weights.Passing)
	case api.HealthWarning:
		return Passing, weight(e.Service.Weights.Warning)
	}
	return Passing, weight(e.Service.Weights.Passing)
}

// maxQuoted is how many characters of a registered value a message shows.
const maxQuoted = 60

// quoted is a value for a message: short, in one line, in quotes.
func quoted(s string) string { return strconv.Quote(cut(s)) }

// shortened is quoted for what reads better without quotes.
func shortened(s string) string {
	q := quoted(s)
	return q[1 : len(q)-1]
}

// cut leaves the beginning of a long text.
func cut(s string) string {
	n := 0
	for i := range s {
		if n == maxQuoted {
			return s[:i] + "…"
		}
		n++
	}
	return s
}
