package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// A rig is one gateway with echo nodes and load generators of its own, so that
// no gateway's figures depend on what another one left in them.
type rig struct {
	peer    *peer
	site    site
	leaf    []byte
	gateway *process
	node    *process
	load    *generator
	live    *generator        // for the tunnels that are watched while load does its worst
	curves  map[string]string // the key exchange that each kind of hello came to
}

// nodes is how many echo nodes a gateway has behind it.
const nodes = 4

// newRig starts everything but the gateway. Its files are in a folder of its own
// under dir.
func newRig(p *peer, dir string, c certificate, free *ports, o options) (r *rig, err error) {
	r = &rig{peer: p, leaf: c.leaf, curves: make(map[string]string)}
	defer func() {
		if err != nil {
			r.close()
		}
	}()
	r.site = site{
		dir: filepath.Join(dir, "of-"+p.name), binary: p.binary, cert: c.certFile, key: c.keyFile,
		workers: o.workers, maxTunnels: maxTunnels, maxDescriptor: maxDescriptor,
	}
	if err := os.MkdirAll(r.site.dir, 0o755); err != nil {
		return r, err
	}
	addresses := make([]string, 5+2*nodes)
	for i := range addresses {
		if addresses[i], err = free.address(); err != nil {
			return r, err
		}
	}
	r.site.wss, r.site.ws, r.site.tcp = addresses[0], addresses[1], addresses[2]
	r.site.admin = addresses[3]
	r.site.wsNodes, r.site.tcpNodes, r.site.pollNode = addresses[4:4+nodes], addresses[4+nodes:4+2*nodes], addresses[4+2*nodes]
	if r.node, err = r.helper("node"); err != nil {
		return r, err
	}
	if err := json.NewEncoder(r.node.in).Encode(NodePlan{WebSocket: r.site.wsNodes, TCP: r.site.tcpNodes, Polls: r.site.pollNode}); err != nil {
		return r, err
	}
	if _, err := r.node.out.ReadString('\n'); err != nil {
		return r, fmt.Errorf("the echo nodes did not start: %s", r.node.said())
	}
	if r.load, err = r.generator("load"); err != nil {
		return r, err
	}
	r.live, err = r.generator("live")
	return r, err
}

// helper starts this program in one of its other roles.
func (r *rig) helper(name string) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	role := name
	if name == "live" {
		role = "load"
	}
	// Nothing is allocated per message, so the collector works for connects only.
	return start(name, r.site.dir, []string{roleVariable + "=" + role, "GOGC=400"}, true, self)
}

func (r *rig) generator(name string) (*generator, error) {
	p, err := r.helper(name)
	if err != nil {
		return nil, err
	}
	return newGenerator(p), nil
}

// close ends everything.
func (r *rig) close() {
	if r.load != nil {
		r.load.stop()
	}
	if r.live != nil {
		r.live.stop()
	}
	r.stopGateway()
	if r.node != nil {
		r.node.stop()
	}
}

func (r *rig) stopGateway() {
	if r.gateway != nil {
		r.gateway.stop()
		r.gateway = nil
	}
}

// restart starts the gateway anew, and waits until every kind of tunnel works.
// A few of each have been opened and closed then, so that what a gateway makes
// once is not charged to the first tunnels.
func (r *rig) restart(ctx context.Context) error {
	r.stopGateway()
	argv, env, err := r.peer.prepare(r.site)
	if err != nil {
		return err
	}
	if r.gateway, err = start("gateway", r.site.dir, env, false, argv...); err != nil {
		return err
	}
	until := time.Now().Add(20 * time.Second)
	for kind := range r.peer.kinds {
		for {
			_, err := r.open("ready", hello{kind: kind, hybrid: true, name: browserHello}, 20, 4)
			if err = errors.Join(err, r.shut("ready")); err == nil {
				break
			}
			select {
			case <-r.gateway.done:
				return fmt.Errorf("%s has ended: %w; it said: %s", r.peer.name, r.gateway.err, r.gateway.said())
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(50 * time.Millisecond):
			}
			if time.Now().After(until) {
				return fmt.Errorf("%s does not serve %s: %w; it said: %s", r.peer.name, kind, err, r.gateway.said())
			}
		}
	}
	return nil
}

// target is the gateway's entry point for a kind of tunnel.
func (r *rig) target(kind string, hybrid bool) Target {
	t := Target{Kind: kind, Hybrid: hybrid, Leaf: r.leaf, Address: map[string]string{wss: r.site.wss, ws: r.site.ws, tcp: r.site.tcp}[kind]}
	if kind != tcp {
		for i := range r.site.wsNodes {
			t.Paths = append(t.Paths, fmt.Sprintf("/ws/node%d", i+1))
		}
	}
	return t
}

// call has the load generator carry an order out. Any error in it is an error.
func (r *rig) call(o Order) (Answer, error) { return r.check(r.load.call(o)) }

func (r *rig) check(a Answer, err error) (Answer, error) {
	if err == nil && a.Errors > 0 {
		err = fmt.Errorf("%s: %d errors, the first: %s", r.peer.name, a.Errors, a.Error)
	}
	return a, err
}

// open opens tunnels that stay, with one echo of 200 bytes each.
func (r *rig) open(pool string, h hello, n, parallel int) (Answer, error) {
	a, err := r.call(Order{Op: "open", Pool: pool, Target: r.target(h.kind, h.hybrid), N: n, Parallel: parallel, Size: 200})
	if err == nil && n > 0 {
		err = r.sameCipher(h, a)
	}
	return a, err
}

// sameCipher holds that a handshake came to what all have to come to, and keeps
// the name of its key exchange.
func (r *rig) sameCipher(h hello, a Answer) error {
	if h.kind != wss {
		return nil
	}
	r.curves[h.name] = tls.CurveID(a.Curve).String()
	if a.Cipher != uint32(tls.TLS_AES_128_GCM_SHA256) {
		return fmt.Errorf("%s takes the cipher suite %s, and all have to take TLS_AES_128_GCM_SHA256", r.peer.name, tls.CipherSuiteName(uint16(a.Cipher)))
	}
	return nil
}

// shut closes the tunnels of some pools.
func (r *rig) shut(pools ...string) error {
	for _, pool := range pools {
		if _, err := r.call(Order{Op: "close", Pool: pool}); err != nil {
			return err
		}
	}
	return nil
}

// usage is the CPU time of the gateway's processes and of its load generator.
type usage struct{ gateway, load, node time.Duration }

// measure does something and returns what CPU it took.
func (r *rig) measure(do func() error) (u usage, err error) {
	pids, err := tree(r.gateway.cmd.Process.Pid)
	if err != nil {
		return u, err
	}
	before, err := r.usage(pids)
	if err != nil {
		return u, err
	}
	if err := do(); err != nil {
		return u, err
	}
	after, err := r.usage(pids)
	return usage{after.gateway - before.gateway, after.load - before.load, after.node - before.node}, err
}

func (r *rig) usage(gateway []int) (u usage, err error) {
	if u.gateway, err = cpu(gateway); err != nil {
		return u, err
	}
	if u.load, err = cpu([]int{r.load.process.cmd.Process.Pid}); err != nil {
		return u, err
	}
	u.node, err = cpu([]int{r.node.cmd.Process.Pid})
	return u, err
}

// resident is the gateway's memory in bytes.
func (r *rig) resident() (int, error) {
	pids, err := tree(r.gateway.cmd.Process.Pid)
	if err != nil {
		return 0, err
	}
	return resident(pids)
}

// metrics are the numbers without labels that a singlegate's admin address shows.
func (r *rig) metrics(ctx context.Context) (map[string]float64, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, "GET", "http://"+r.site.admin+"/metrics", nil)
	if err != nil {
		return nil, err
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, fmt.Errorf("the metrics of %s: %w", r.peer.name, err)
	}
	defer answer.Body.Close()
	m := make(map[string]float64)
	lines := bufio.NewScanner(answer.Body)
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), " ")
		if n, err := strconv.ParseFloat(value, 64); err == nil {
			m[name] = n
		}
	}
	if m["go_goroutines"] == 0 {
		return nil, fmt.Errorf("the metrics of %s have no go_goroutines", r.peer.name)
	}
	return m, lines.Err()
}

// A generator is a load process as its rig sees it. Its methods are safe for
// concurrent use.
type generator struct {
	process *process
	mu      sync.Mutex
	orders  *json.Encoder
	last    int
	waiting map[int]chan Answer
	ended   chan struct{} // its output has ended
}

func newGenerator(p *process) *generator {
	g := &generator{process: p, orders: json.NewEncoder(p.in), waiting: make(map[int]chan Answer), ended: make(chan struct{})}
	go g.read(p.out)
	return g
}

// read hands each answer to who waits for it.
func (g *generator) read(out *bufio.Reader) {
	defer close(g.ended)
	answers := json.NewDecoder(out)
	for {
		var a Answer
		if answers.Decode(&a) != nil {
			return
		}
		g.mu.Lock()
		c := g.waiting[a.ID]
		delete(g.waiting, a.ID)
		g.mu.Unlock()
		c <- a
	}
}

// call gives an order and waits for its answer.
func (g *generator) call(o Order) (Answer, error) {
	c := make(chan Answer, 1)
	g.mu.Lock()
	g.last++
	o.ID = g.last
	g.waiting[o.ID] = c
	err := g.orders.Encode(o)
	g.mu.Unlock()
	if err != nil {
		return Answer{}, err
	}
	select {
	case a := <-c:
		return a, nil
	case <-g.ended:
		return Answer{}, fmt.Errorf("the load generator has ended: %s", g.process.said())
	}
}

func (g *generator) stop() {
	g.process.in.Close()
	select {
	case <-g.ended:
	case <-time.After(stopWithin):
		g.process.cmd.Process.Kill()
	}
	g.process.stop()
}
