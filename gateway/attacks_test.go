package gateway

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"singlegate/gateway/limit"
)

// drip sends byte after byte, slowly, until that fails or the test is over.
func drip(ctx context.Context, c io.Writer, what string) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for i := 0; ; i++ {
		if _, err := c.Write([]byte{what[i%len(what)]}); err != nil {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// slowly are the five forms in which clients take as long as they can. Each gets
// a fresh connection to the plain or the TLS listener, for a request in TLS or not.
func slowly() map[string]func(ctx context.Context, e *edge, source string, secure bool) {
	return map[string]func(context.Context, *edge, string, bool){
		"says nothing": func(ctx context.Context, e *edge, source string, secure bool) {
			io.Copy(io.Discard, e.from(source, e.either(secure)))
		},
		"a head byte by byte": func(ctx context.Context, e *edge, source string, secure bool) {
			c := e.talk(source, secure)
			io.WriteString(c, "GET /app/a HTTP/1.1\r\nHost: h\r\nX: ")
			drip(ctx, c, "x")
		},
		"a body byte by byte": func(ctx context.Context, e *edge, source string, secure bool) {
			c := e.talk(source, secure)
			io.WriteString(c, "POST /app/a HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\n"+strings.Repeat("x", 16<<10)) // of which fasthttp waits for 8 KB, for a minute
			drip(ctx, c, "x")
		},
		"does not read the answer": func(ctx context.Context, e *edge, source string, secure bool) {
			c := e.talk(source, secure)
			io.WriteString(c, "GET /large HTTP/1.1\r\nHost: h\r\n\r\n")
			<-ctx.Done()
		},
		"a TLS handshake byte by byte": func(ctx context.Context, e *edge, source string, secure bool) {
			drip(ctx, e.from(source, e.secure), "\x16\x03\x01\x40\x00\x01\x00\x3f\xfc\x03\x03"+strings.Repeat("r", 16<<10))
		},
	}
}

func (e *edge) either(secure bool) string {
	if secure {
		return e.secure
	}
	return e.plain
}

// talk connects to the plain or the TLS listener from that address, with a small
// buffer for what comes back.
func (e *edge) talk(source string, secure bool) net.Conn {
	c := e.from(source, e.either(secure))
	c.(*net.TCPConn).SetReadBuffer(4 << 10)
	if secure {
		return tls.Client(c, &tls.Config{RootCAs: e.roots, ServerName: "localhost"})
	}
	return c
}

// Clients that take as long as they can, in five forms at once, have as long as
// the deadlines say and leave nothing behind; all the time others are served and
// a tunnel lives.
func TestSlowClientsEndAtTheirDeadlines(t *testing.T) {
	const each, patience = 6, 2 * time.Second
	large := httpNode(t, func(w http.ResponseWriter, r *http.Request) {
		chunk := make([]byte, 256<<10)
		for range 128 {
			if _, err := w.Write(chunk); err != nil {
				return
			}
		}
	})
	app := httpNode(t, func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		io.WriteString(w, "app1")
	})
	waits := DefaultTimeouts()
	waits.Stall, waits.Total = patience, 2*patience
	e := startEdge(t, []Route{
		{Paths: []string{"/ws/{node}"}, Service: "im"},
		{Paths: []string{"/app"}, Service: "app", Timeouts: waits},
		{Paths: []string{"/large"}, Service: "large", Timeouts: waits},
	}, map[string]map[string]string{"im": {"node1": imNode(t, "node1")}, "app": {"app1": app}, "large": {"large1": large}},
		func(c *Config) {
			c.Listeners[1].Address = "127.0.0.1:0"
			c.Limits.HeadTimeout, c.Limits.HandshakeTimeout = patience, patience
			c.Limits.PerAddress = AddressLimits{Connections: 1000, Exempt: prefixes("127.0.0.1/32")}
		})
	tunnel := e.openWS("node1")
	tunnel.SetDeadline(time.Now().Add(2 * time.Minute))
	tunnel.expect(ws.OpText, "node1")

	ctx, stop := context.WithCancel(t.Context())
	var attackers sync.WaitGroup
	forms, number := map[string]string{}, 0
	for name, attack := range slowly() {
		number++
		for i := range each {
			source := fmt.Sprintf("127.0.%d.%d", 100+number, i+1)
			forms[source] = name
			attackers.Go(func() { attack(ctx, e, source, i%2 == 0) })
		}
	}
	seen := map[string]bool{}
	eventually(t, "all of them were there", func() bool {
		for _, source := range e.counted() {
			seen[source] = true
		}
		return len(seen) == len(forms)
	})
	end := time.Now().Add(time.Minute)
	for left := e.counted(); len(left) > 0; left = e.counted() {
		if time.Now().After(end) {
			for _, source := range left {
				t.Errorf("%s is still there: %s", source, forms[source])
			}
			break
		}
		served(t, e)
		tunnel.lives()
	}
	stop()
	attackers.Wait()
	served(t, e)
	tunnel.lives()
}

// served fails the test unless a new client of each kind is served.
func served(t *testing.T, e *edge) {
	t.Helper()
	for _, secure := range []bool{false, true} {
		c := e.talk("127.0.0.1", secure)
		io.WriteString(c, "GET /app/a HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
		if resp, body := readAnswer(t, bufio.NewReader(c)); resp.StatusCode != 200 || body != "app1" {
			t.Errorf("meanwhile another client got %d %s", resp.StatusCode, body)
		}
		c.Close()
	}
}

// What 20,000 attempts from a few addresses are refused costs nothing that lasts:
// goroutines, descriptors and memory are what they were, and who was there before
// notices nothing.
func TestConnectionFlood(t *testing.T) {
	attempts := 20_000
	if testing.Short() {
		attempts = 2_000
	}
	const sources, most = 8, 10
	e := limited(t, func(a *AddressLimits) {
		a.Connections, a.Handshakes = most, limit.Every(1000, time.Second, 1000)
		a.Bans = limit.Ban{After: 1000, Within: time.Minute, For: time.Minute}
		a.Exempt = prefixes("127.0.0.1/32")
	})
	tunnel := e.openWS("node1")
	tunnel.expect(ws.OpText, "node1")
	var held []net.Conn // as many as each address may have, of which one is in use
	for i := range sources {
		for range most {
			held = append(held, e.from(fmt.Sprintf("127.0.4.%d", i+1), e.plain))
		}
	}
	e.counts("connections", sources)
	eventually(t, "all are counted", func() bool { return len(e.counted()) == sources*most })

	before := footprint()
	var wrong atomic.Int64
	var flood sync.WaitGroup
	for i := range sources {
		source := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(fmt.Sprintf("127.0.4.%d", i+1))}}
		flood.Go(func() {
			for j := range attempts / sources {
				c, err := source.Dial("tcp", e.either(j%2 == 0))
				if err != nil {
					wrong.Add(1)
					continue
				}
				c.SetDeadline(time.Now().Add(20 * time.Second))
				if n, err := c.Read(make([]byte, 1)); n > 0 || err == nil || os.IsTimeout(err) {
					wrong.Add(1)
				}
				c.Close()
			}
		})
	}
	flood.Wait()
	if n := wrong.Load(); n > 0 {
		t.Errorf("%d attempts were not refused", n)
	}
	eventually(t, "every one of them is counted", func() bool {
		m := told(t, e.Server)
		return m["limited_total{connections_per_ip,plain}"]+m["limited_total{connections_per_ip,tls}"]+
			m["limited_total{handshakes_per_ip,tls}"] >= float64(attempts)
	})
	tunnel.lives()
	io.WriteString(held[0], "GET /ws/node1 HTTP/1.1\r\nHost: h\r\n\r\n")
	if resp, _ := readAnswer(t, bufio.NewReader(held[0])); resp.StatusCode != 200 {
		t.Errorf("one that was there before got %d", resp.StatusCode)
	}
	eventually(t, "nothing is left of them", func() bool {
		now := footprint()
		return now.goroutines <= before.goroutines+4 && now.descriptors <= before.descriptors && now.heap <= before.heap+2<<20
	})
	if n := strings.Count(e.logs.all(), `"limit"`); n > 5*sources {
		t.Errorf("%d log lines", n)
	}
	for _, c := range held {
		c.Close()
	}
	e.counts("connections", 0)
}

// counted are the addresses of the connections that count now.
func (e *edge) counted() (sources []string) {
	for _, l := range e.listeners {
		l.mu.Lock()
		for c := range l.conns {
			if c.seat.Load() != nil {
				sources = append(sources, c.peer.Addr().String())
			}
		}
		l.mu.Unlock()
	}
	return sources
}

type cost struct {
	goroutines, descriptors int
	heap                    uint64
}

// footprint is what this process holds now, clients of the test included.
func footprint() cost {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	c := cost{goroutines: runtime.NumGoroutine(), heap: m.HeapAlloc}
	if fds, err := os.ReadDir("/proc/self/fd"); err == nil {
		c.descriptors = len(fds)
	}
	return c
}
