package audit

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
)

// Syslog says which collector gets the lines as well, by RFC 5424 with the
// framing of RFC 6587 section 3.4.1 (octet counting) over TCP, or over TLS, as
// RFC 5425 has it.
type Syslog struct {
	Address  string // host:port
	TLS      *SyslogTLS
	Facility int // of RFC 5424 section 6.2.1
	AppName  string
}

// SyslogTLS is how the collector is spoken to by TLS.
type SyslogTLS struct {
	CA         string // PEM file; "": the system's
	Cert, Key  string // PEM files, where the collector asks for a certificate
	ServerName string // in its certificate; "": the host of its address
}

// DefaultSyslog is a Syslog that lacks its address only.
func DefaultSyslog() Syslog { return Syslog{Facility: Facilities()["authpriv"], AppName: "singlegate"} }

// Facilities are those of RFC 5424 by their usual names, but for the kernel's.
func Facilities() map[string]int {
	m := map[string]int{"user": 1, "mail": 2, "daemon": 3, "auth": 4, "syslog": 5, "lpr": 6, "news": 7, "uucp": 8, "cron": 9, "authpriv": 10, "ftp": 11}
	for i := range 8 {
		m["local"+strconv.Itoa(i)] = 16 + i
	}
	return m
}

// tls is what the connection is made with; nil: plain TCP. The files are read
// anew for every connection.
func (s *Syslog) tls() (*tls.Config, error) {
	if s.TLS == nil {
		return nil, nil
	}
	cfg := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: s.TLS.ServerName}
	if cfg.ServerName == "" {
		cfg.ServerName, _, _ = net.SplitHostPort(s.Address)
	}
	if s.TLS.CA != "" {
		text, err := os.ReadFile(s.TLS.CA)
		if err != nil {
			return nil, fmt.Errorf("syslog: %w", err)
		}
		if cfg.RootCAs = x509.NewCertPool(); !cfg.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("syslog: %s holds no certificate in PEM", s.TLS.CA)
		}
	}
	if s.TLS.Cert != "" {
		pair, err := tls.LoadX509KeyPair(s.TLS.Cert, s.TLS.Key)
		if err != nil {
			return nil, fmt.Errorf("syslog: %w", err)
		}
		cfg.Certificates = []tls.Certificate{pair}
	}
	return cfg, nil
}

// SyslogStats are counts since the start.
type SyslogStats struct {
	Sent, Dropped, Errors int64
	Connected             bool
}

// What the collector may take.
const (
	dialTimeout  = 5 * time.Second
	writeTimeout = 5 * time.Second
	minBackoff   = time.Second
	maxBackoff   = 30 * time.Second
	lastWords    = time.Second // for what waits when the log ends
)

// Severities of RFC 5424 section 6.2.1.
const (
	severityWarning = 4
	severityInfo    = 6
)

// A sender brings lines to the collector. It is a best effort: what the queue
// has no room for while the collector is away is lost and counted, and so may be
// what was on its way when a connection broke, since the protocol has no receipts.
type sender struct {
	cfg     Syslog
	log     zerolog.Logger
	lines   *queue
	host    string
	pid     string
	now     func() time.Time
	backoff time.Duration // the least, but for tests
	stall   time.Duration // writeTimeout, likewise

	sent, dropped, errors atomic.Int64
	connected             atomic.Bool

	cancel context.CancelFunc
	ending context.Context // when it does, what waits is sent, and nothing more
	group  sync.WaitGroup

	// The owner's alone.
	batch  []byte
	taken  []byte
	missed loss
	out    []byte
	ends   []int // of the messages in out
	said   bool  // that the collector is away
}

func newSender(cfg Syslog, log zerolog.Logger) *sender {
	return startSender(cfg, log, minBackoff, writeTimeout)
}

func startSender(cfg Syslog, log zerolog.Logger, backoff, stall time.Duration) *sender {
	s := &sender{cfg: cfg, log: log, lines: newQueue(queueLimit), host: hostName(), pid: strconv.Itoa(os.Getpid()), now: time.Now, backoff: backoff, stall: stall}
	s.ending, s.cancel = context.WithCancel(context.Background())
	s.group.Go(s.run)
	return s
}

// hostName is this machine's as RFC 5424 section 6.2.4 takes it.
func hostName() string {
	name, err := os.Hostname()
	if err != nil || name == "" || len(name) > 255 || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return "-"
	}
	return name
}

func (s *sender) add(line []byte, failure bool) {
	if !s.lines.add(line, failure) {
		s.dropped.Add(1)
	}
}

func (s *sender) stats() SyslogStats {
	return SyslogStats{Sent: s.sent.Load(), Dropped: s.dropped.Load(), Errors: s.errors.Load(), Connected: s.connected.Load()}
}

// close sends what waits, if the collector takes it within a second, and ends.
func (s *sender) close(context.Context) {
	s.cancel()
	s.group.Wait()
}

// run connects, sends, and connects again.
func (s *sender) run() {
	wait := s.backoff
	for {
		conn, err := s.dial()
		if err == nil {
			s.connected.Store(true)
			if s.said {
				s.log.Warn().Str("collector", s.cfg.Address).Int64("lost", s.dropped.Load()).Msg("audit log: the syslog collector is back; lost counts all lines since the start")
				s.said = false
			}
			began := time.Now()
			err = s.serve(conn)
			s.connected.Store(false)
			if time.Since(began) > maxBackoff {
				wait = s.backoff
			}
		}
		if s.ending.Err() != nil {
			return
		}
		s.errors.Add(1)
		if !s.said {
			s.log.Error().Err(err).Str("collector", s.cfg.Address).Msg("audit log: no connection to the syslog collector; lines wait while there is room for them, then they are lost. The file is not concerned")
			s.said = true
		}
		select {
		case <-s.ending.Done():
			return
		case <-time.After(wait/2 + rand.N(wait)):
		}
		wait = min(2*wait, maxBackoff)
	}
}

func (s *sender) dial() (net.Conn, error) {
	cfg, err := s.cfg.tls()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(s.ending, dialTimeout)
	defer cancel()
	if cfg == nil {
		return (&net.Dialer{}).DialContext(ctx, "tcp", s.cfg.Address)
	}
	return (&tls.Dialer{Config: cfg}).DialContext(ctx, "tcp", s.cfg.Address)
}

var errCollectorLeft = errors.New("the collector closed the connection")

// serve sends until the connection fails or the log ends. A collector says
// nothing; that it has left shows in reading, long before it shows in writing.
func (s *sender) serve(conn net.Conn) error {
	left := make(chan struct{})
	var reader sync.WaitGroup
	reader.Go(func() {
		defer close(left)
		io.Copy(io.Discard, conn)
	})
	defer reader.Wait()
	defer conn.Close()
	for {
		if err := s.sendAll(conn, left); err != nil {
			return err
		}
		select {
		case <-left:
			return errCollectorLeft
		case <-s.lines.more:
		case <-s.ending.Done():
			s.stall = min(s.stall, lastWords)
			return s.sendAll(conn, left)
		}
	}
}

// sendAll sends what waits.
func (s *sender) sendAll(conn net.Conn, left <-chan struct{}) error {
	for {
		if len(s.out) == 0 && !s.frame() {
			return nil
		}
		select {
		case <-left:
			return errCollectorLeft
		default:
		}
		conn.SetWriteDeadline(time.Now().Add(s.stall))
		n, err := conn.Write(s.out)
		s.wrote(n)
		if err != nil {
			return err
		}
	}
}

// wrote takes the messages off that have gone whole. The one that was cut goes
// again, on the next connection.
func (s *sender) wrote(n int) {
	whole, count := 0, 0
	for _, end := range s.ends {
		if end <= n {
			whole, count = end, count+1
		}
	}
	s.sent.Add(int64(count))
	s.out = s.out[:copy(s.out, s.out[whole:])]
	s.ends = s.ends[:copy(s.ends, s.ends[count:])]
	for i := range s.ends {
		s.ends[i] -= whole
	}
}

// frame makes messages of what waits; false: nothing does.
func (s *sender) frame() bool {
	if len(s.batch) == 0 && s.missed.lines == 0 {
		s.taken, s.missed = s.lines.take(reusable(s.taken))
		s.batch = s.taken
	}
	s.out, s.ends = reusable(s.out), s.ends[:0]
	now := s.now().Format(TimeLayout)
	for len(s.batch) > 0 && len(s.out) < chunk/8 {
		line, failure, rest := next(s.batch)
		s.batch = rest
		s.message(now, line, failure)
	}
	if len(s.batch) == 0 && s.missed.lines > 0 {
		s.message(now, fmt.Appendf(nil, `{"time":%q,"event":%q,"success":false,"lost":%d,"first":%q,"last":%q}`,
			now, eventLost, s.missed.lines, s.missed.first.Format(TimeLayout), s.missed.last.Format(TimeLayout)), true)
		s.missed = loss{}
	}
	return len(s.out) > 0
}

// message adds one syslog message, in a frame, to what is to be sent.
func (s *sender) message(now string, line []byte, failure bool) {
	priority := s.cfg.Facility*8 + severityInfo
	if failure {
		priority = s.cfg.Facility*8 + severityWarning
	}
	head := "<" + strconv.Itoa(priority) + ">1 " + now + " " + s.host + " " + s.cfg.AppName + " " + s.pid + " audit - "
	s.out = strconv.AppendInt(s.out, int64(len(head)+len(line)), 10)
	s.out = append(s.out, ' ')
	s.out = append(s.out, head...)
	s.out = append(s.out, line...)
	s.ends = append(s.ends, len(s.out))
}
