package discovery

import (
	"context"
	"net"
	"net/netip"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// A dnsServer answers over UDP with what it is told; other names do not exist.
type dnsServer struct {
	conn net.PacketConn

	mu      sync.Mutex
	srv     map[string][]dnsmessage.SRVResource
	hosts   map[string][]string
	refuses bool
}

func newDNSServer(t *testing.T) *dnsServer {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &dnsServer{conn: conn, srv: map[string][]dnsmessage.SRVResource{}, hosts: map[string][]string{}}
	var over sync.WaitGroup
	over.Go(s.serve)
	t.Cleanup(func() {
		conn.Close()
		over.Wait()
	})
	return s
}

func (s *dnsServer) resolver() *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", s.conn.LocalAddr().String())
	}}
}

// change lets f change what the server answers.
func (s *dnsServer) change(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

func (s *dnsServer) serve() {
	buf := make([]byte, 4096)
	for {
		n, from, err := s.conn.ReadFrom(buf)
		if err != nil {
			return
		}
		var m dnsmessage.Message
		if m.Unpack(buf[:n]) != nil || len(m.Questions) != 1 {
			continue
		}
		if out, err := s.answer(m); err == nil {
			_, _ = s.conn.WriteTo(out, from)
		}
	}
}

func (s *dnsServer) answer(m dnsmessage.Message) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	q := m.Questions[0]
	name := q.Name.String()
	out := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: m.ID, Response: true, Authoritative: true, RecursionAvailable: true},
		Questions: m.Questions,
	}
	add := func(body dnsmessage.ResourceBody) {
		out.Answers = append(out.Answers, dnsmessage.Resource{
			Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class}, Body: body,
		})
	}
	for _, r := range s.srv[name] {
		if q.Type == dnsmessage.TypeSRV {
			add(&r)
		}
	}
	for _, host := range s.hosts[name] {
		switch a := netip.MustParseAddr(host); {
		case a.Is4() && q.Type == dnsmessage.TypeA:
			add(&dnsmessage.AResource{A: a.As4()})
		case a.Is6() && q.Type == dnsmessage.TypeAAAA:
			add(&dnsmessage.AAAAResource{AAAA: a.As16()})
		}
	}
	switch {
	case s.refuses:
		out.Answers, out.RCode = nil, dnsmessage.RCodeServerFailure
	case len(s.srv[name]) == 0 && len(s.hosts[name]) == 0:
		out.RCode = dnsmessage.RCodeNameError
	}
	return out.Pack()
}

func target(host string, port, weight uint16) dnsmessage.SRVResource {
	return dnsmessage.SRVResource{Priority: 1, Weight: weight, Port: port, Target: dnsmessage.MustNewName(host)}
}

func newDNS(t *testing.T, s *dnsServer, log Log, service DNSService) *DNS {
	t.Helper()
	service.Name, service.Interval = "im", 10*time.Millisecond
	d, err := NewDNS([]DNSService{service}, s.resolver(), log)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestSRV(t *testing.T) {
	s := newDNSServer(t)
	log := &logged{}
	const name = "_ws._tcp.im.test."
	r := record(t, newDNS(t, s, log.log, DNSService{SRV: name}))
	r.unknown(t, `DNS does not know "_ws._tcp.im.test."`)
	s.change(func() {
		s.srv[name] = []dnsmessage.SRVResource{
			target("node2.im.test.", 8084, 5), target("Node1.im.test.", 8083, 0), target("node1.other.test.", 8085, 1), target(".", 0, 1),
		}
	})
	got := r.until(t, "two nodes", healthy("node1 node2"))
	want := Node{ID: "node2", Address: "node2.im.test", Ports: map[string]uint16{"": 8084}, Weight: 5, Status: Passing, Origin: "dns"}
	if !reflect.DeepEqual(got.Nodes[1], want) || got.Nodes[0].Weight != 1 || got.Source != "dns" || got.Taken.IsZero() {
		t.Errorf("got %+v", got)
	}
	var left []string
	for _, l := range got.LeftOut {
		left = append(left, l.Instance+" "+l.Reason)
	}
	if all := strings.Join(left, "\n"); !strings.Contains(all, `node1.other.test:8085 another record has the node id "node1"`) {
		t.Errorf("left out: %s", all)
	}

	s.change(func() { s.refuses = true })
	fault := r.until(t, "a server that fails", faulty(`DNS cannot resolve "_ws._tcp.im.test."`))
	s.change(func() { s.refuses = false; delete(s.srv, name) })
	fault = r.until(t, "a name that is gone", func(s Service) bool { return s.Fault != fault.Fault })
	if !strings.Contains(fault.Fault, "DNS does not know") {
		t.Errorf("the fault is %q", fault.Fault)
	}
	r.neverLoses(t, "node1", "node2")
	s.change(func() { s.srv[name] = []dnsmessage.SRVResource{target("node3.im.test.", 1, 1)} })
	r.until(t, "node3", healthy("node3"))
	if log.count("an instance cannot be a node") == 0 || log.count("DNS answers again") == 0 {
		t.Errorf("logged are %q", log.lines)
	}
}

func TestHostAddresses(t *testing.T) {
	s := newDNSServer(t)
	s.change(func() { s.hosts["im.test."] = []string{"10.0.0.2", "10.0.0.1", "2001:db8::1"} })
	r := record(t, newDNS(t, s, nil, DNSService{Host: "im.test.", Port: 8080}))
	got := r.until(t, "three nodes", healthy("10.0.0.1 10.0.0.2 2001:db8::1"))
	want := Node{ID: "10.0.0.1", Address: "10.0.0.1", Ports: map[string]uint16{"": 8080}, Weight: 1, Status: Passing, Origin: "dns"}
	if !reflect.DeepEqual(got.Nodes[0], want) {
		t.Errorf("got %+v", got.Nodes[0])
	}
	s.change(func() { s.hosts["im.test."] = []string{"10.0.0.2"} })
	later := r.until(t, "one node", healthy("10.0.0.2"))
	r.until(t, "a later confirmation", func(s Service) bool { return s.Taken.After(later.Taken) })
}

func TestBadDNSServices(t *testing.T) {
	for want, s := range map[string]DNSService{
		"either srv or a host": {At: "a:1:2", Name: "im"},
		"a:1:2: service":       {At: "a:1:2", Name: "im", SRV: "x", Host: "y", Port: 1},
		"needs a port":         {At: "a:1:2", Name: "im", Host: "y"},
		"negative":             {At: "a:1:2", Name: "im", SRV: "y", Interval: -1},
	} {
		if _, err := NewDNS([]DNSService{s}, nil, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v", s, err)
		}
	}
}
