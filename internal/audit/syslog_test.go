package audit

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
)

// A collector takes syslog as RFC 6587 and RFC 5424 have it, and nothing else.
type collector struct {
	t    *testing.T
	cfg  *tls.Config // nil: plain TCP
	addr string

	mu       sync.Mutex
	socket   net.Listener
	conns    map[net.Conn]bool
	messages []message
	paused   chan struct{} // nil: it reads
	wrong    error
	group    sync.WaitGroup
}

type message struct {
	priority int
	app      string
	text     map[string]any
}

func startCollector(t *testing.T, cfg *tls.Config) *collector {
	c := &collector{t: t, cfg: cfg, addr: "127.0.0.1:0", conns: map[net.Conn]bool{}}
	c.listen()
	t.Cleanup(func() {
		c.kill()
		if c.wrong != nil {
			t.Error(c.wrong)
		}
	})
	return c
}

// listen begins, or begins again, at the same address.
func (c *collector) listen() {
	c.t.Helper()
	var socket net.Listener
	var err error
	eventually(c.t, "the collector's port", func() bool {
		socket, err = net.Listen("tcp", c.addr)
		return err == nil
	})
	c.addr = socket.Addr().String()
	c.mu.Lock()
	c.socket = socket
	c.mu.Unlock()
	c.group.Go(func() {
		for {
			conn, err := socket.Accept()
			if err != nil {
				return
			}
			c.mu.Lock()
			c.conns[conn] = true
			c.mu.Unlock()
			c.group.Go(func() { c.serve(conn) })
		}
	})
}

// kill ends it and all its connections.
func (c *collector) kill() {
	c.mu.Lock()
	c.socket.Close()
	for conn := range c.conns {
		conn.Close()
	}
	c.mu.Unlock()
	c.group.Wait()
}

func (c *collector) serve(conn net.Conn) {
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		conn.Close()
		delete(c.conns, conn)
	}()
	var r io.Reader = conn
	if c.cfg != nil {
		r = tls.Server(conn, c.cfg)
	}
	br := bufio.NewReader(r)
	for {
		c.mu.Lock()
		paused := c.paused
		c.mu.Unlock()
		if paused != nil {
			<-paused
		}
		m, err := readMessage(br)
		c.mu.Lock()
		switch {
		case err == nil:
			c.messages = append(c.messages, m)
		case strings.HasPrefix(err.Error(), "syslog:"):
			c.wrong = err
		}
		c.mu.Unlock()
		if err != nil {
			return
		}
	}
}

var header = regexp.MustCompile(`^<(\d{1,3})>1 (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{1,6}(?:Z|[+-]\d\d:\d\d)) ([!-~]{1,255}) ([!-~]{1,48}) ([!-~]{1,128}) ([!-~]{1,32}) - (.*)$`)

// readMessage reads one frame: MSG-LEN SP SYSLOG-MSG.
func readMessage(r *bufio.Reader) (m message, err error) {
	digits, err := r.ReadString(' ')
	if err != nil {
		return m, err
	}
	n, err := strconv.Atoi(digits[:len(digits)-1])
	if err != nil || n <= 0 || digits[0] == '0' {
		return m, fmt.Errorf("syslog: %q is no MSG-LEN", digits)
	}
	text := make([]byte, n)
	if _, err := io.ReadFull(r, text); err != nil {
		return m, err
	}
	parts := header.FindSubmatch(text)
	if parts == nil {
		return m, fmt.Errorf("syslog: %q is no SYSLOG-MSG", text)
	}
	m.priority, _ = strconv.Atoi(string(parts[1]))
	m.app = string(parts[4])
	if m.priority > 191 || json.Unmarshal(parts[7], &m.text) != nil {
		return m, fmt.Errorf("syslog: %q", text)
	}
	return m, nil
}

// numbers are the n of the messages that have come.
func (c *collector) numbers() (list []int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, m := range c.messages {
		if n, ok := m.text["n"].(float64); ok {
			list = append(list, int(n))
		}
	}
	return list
}

func (c *collector) has(n int) bool { return slices.Contains(c.numbers(), n) }

func upTo(n int) []int {
	list := make([]int, n)
	for i := range list {
		list[i] = i
	}
	return list
}

// noteTo adds lines to a sender alone.
func noteTo(s *sender, from, to int) {
	for i := from; i < to; i++ {
		s.add(fmt.Appendf(nil, `{"n":%d}`, i), i%2 == 1)
	}
}

func startTestSender(t *testing.T, cfg Syslog) (*sender, *said) {
	log := &said{}
	s := startSender(cfg, zerolog.New(log), time.Millisecond, 50*time.Millisecond)
	t.Cleanup(func() { s.close(t.Context()) })
	return s, log
}

func TestSyslog(t *testing.T) {
	c := startCollector(t, nil)
	cfg := testConfig(t)
	cfg.Syslog = &Syslog{Address: c.addr, Facility: Facilities()["local3"], AppName: "gate"}
	l, _ := openTest(t, cfg, realDisk())
	note(l, 0, 500)
	eventually(t, "the lines", func() bool { return c.has(499) })
	closeTest(t, l)
	if got := c.numbers(); !slices.Equal(got, upTo(500)) {
		t.Errorf("got %d: %v", len(got), got)
	}
	r := whole(t, cfg)
	var messages []message
	eventually(t, "the last message, which says where the chain has ended", func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		messages = slices.Clone(c.messages)
		last := messages[len(messages)-1].text
		return last["event"] == eventAnchor && last["hash"] == r.Hash && last["seq"] == float64(r.To)
	})
	for i, m := range messages[:2] {
		if want := 19*8 + []int{severityWarning, severityInfo}[i]; m.priority != want || m.app != "gate" {
			t.Errorf("message %d: %+v, want the priority %d", i, m, want)
		}
	}
}

// The collector is killed in the middle and comes back: what waited comes, and
// nothing twice but what was cut.
func TestSyslogReconnects(t *testing.T) {
	c := startCollector(t, nil)
	s, log := startTestSender(t, Syslog{Address: c.addr, AppName: "-"})
	noteTo(s, 0, 10)
	eventually(t, "the lines", func() bool { return c.has(9) })
	for round := 1; round <= 3; round++ {
		c.kill()
		eventually(t, "the end to be noticed", func() bool { return !s.connected.Load() })
		noteTo(s, 10*round, 10*round+10)
		c.listen()
		eventually(t, "what waited", func() bool { return c.has(10*round + 9) })
	}
	if got := c.numbers(); !slices.Equal(got, upTo(40)) {
		t.Errorf("got %v", got)
	}
	if s.dropped.Load() != 0 || log.count("no connection to the syslog collector") != 3 || log.count("is back") != 3 {
		t.Errorf("%+v; it was said %d times", s.stats(), log.count("no connection"))
	}
}

// A collector that takes nothing is given up, and what has no room is counted;
// the file is not concerned.
func TestSyslogStalls(t *testing.T) {
	c := startCollector(t, nil)
	release := make(chan struct{})
	c.mu.Lock()
	c.paused = release
	c.mu.Unlock()
	s, _ := startTestSender(t, Syslog{Address: c.addr, AppName: "gate"})
	long := fmt.Sprintf(`{"n":-1,"text":%q}`, strings.Repeat("x", 60_000))
	for s.dropped.Load() == 0 {
		s.add([]byte(long), false)
	}
	eventually(t, "a stalled write", func() bool { return s.errors.Load() > 1 })
	c.mu.Lock()
	c.paused = nil
	c.mu.Unlock()
	close(release)
	noted := func() (n float64) {
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, m := range c.messages {
			if m.text["event"] == eventLost {
				n += m.text["lost"].(float64)
			}
		}
		return n
	}
	eventually(t, "the loss to be told", func() bool { return noted() > 0 })
	noteTo(s, 0, 1)
	eventually(t, "further lines", func() bool { return c.has(0) })
	if lost := float64(s.dropped.Load()); noted() != lost {
		t.Errorf("%v are told to be lost, %v are", noted(), lost)
	}
}

// Nobody listens: the file goes on, and Close does not wait.
func TestSyslogAway(t *testing.T) {
	c := startCollector(t, nil)
	c.kill()
	cfg := testConfig(t)
	cfg.Syslog, cfg.Refuse = &Syslog{Address: c.addr, AppName: "gate"}, true
	l, s := openTest(t, cfg, realDisk())
	note(l, 0, 10)
	eventually(t, "an error", func() bool { return l.Stats().Syslog.Errors > 0 })
	if l.Refuses() != "" {
		t.Error("requests are refused because of the collector")
	}
	closeTest(t, l)
	checkAll(t, cfg, 10)
	if s.count("The file is not concerned") != 1 {
		t.Errorf("it was said %d times", s.count("The file is not concerned"))
	}
}

// Over TLS with the CA's file, a certificate of our own, and what makes it fail.
func TestSyslogTLS(t *testing.T) {
	dir := t.TempDir()
	pair := writeTestCertificate(t, dir, "collector")
	own := writeTestCertificate(t, dir, "gate")
	clients := x509.NewCertPool()
	clients.AddCert(own.Leaf)
	c := startCollector(t, &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: clients})
	ca := filepath.Join(dir, "collector.pem")
	good := SyslogTLS{CA: ca, Cert: filepath.Join(dir, "gate.pem"), Key: filepath.Join(dir, "gate.key"), ServerName: "collector"}
	s, _ := startTestSender(t, Syslog{Address: c.addr, AppName: "gate", TLS: &good})
	noteTo(s, 0, 100)
	eventually(t, "the lines", func() bool { return c.has(99) })
	if got := c.numbers(); !slices.Equal(got, upTo(100)) {
		t.Errorf("got %v", got)
	}
	for name, change := range map[string]func(*SyslogTLS){
		"another name":      func(c *SyslogTLS) { c.ServerName = "elsewhere" },
		"another CA":        func(c *SyslogTLS) { c.CA = filepath.Join(dir, "gate.pem") },
		"no certificate":    func(c *SyslogTLS) { c.Cert, c.Key = "", "" },
		"a CA that is gone": func(c *SyslogTLS) { c.CA = ca + "2" },
	} {
		bad := good
		change(&bad)
		s, log := startTestSender(t, Syslog{Address: c.addr, AppName: "gate", TLS: &bad})
		noteTo(s, 1000, 1001)
		eventually(t, name, func() bool { return log.count("no connection") == 1 })
	}
	if c.has(1000) {
		t.Error("a line came by a connection that should not be")
	}
}

// writeTestCertificate makes name.pem and name.key.
func writeTestCertificate(t *testing.T, dir, name string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), DNSNames: []string{name}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	must(t, err)
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	must(t, err)
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
	must(t, os.WriteFile(filepath.Join(dir, name+".pem"), cert, 0o600))
	must(t, os.WriteFile(filepath.Join(dir, name+".key"), keyPEM, 0o600))
	pair, err := tls.X509KeyPair(cert, keyPEM)
	must(t, err)
	pair.Leaf, err = x509.ParseCertificate(der)
	must(t, err)
	return pair
}

// The message of RFC 5424, byte for byte.
func TestSyslogMessage(t *testing.T) {
	s := &sender{cfg: Syslog{Facility: 10, AppName: "singlegate"}, host: "gate1", pid: "42"}
	s.message("2026-11-21T10:00:00.123+08:00", []byte(`{"a":1}`), true)
	want := `83 <84>1 2026-11-21T10:00:00.123+08:00 gate1 singlegate 42 audit - {"a":1}`
	want = strconv.Itoa(len(want)-3) + want[2:]
	if !bytes.Equal(s.out, []byte(want)) {
		t.Errorf("got %q, want %q", s.out, want)
	}
}
