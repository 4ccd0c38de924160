package imservers

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"
)

// Each server serves, also after it was killed and started again, at the same
// address, and is gone after Kill.
func TestServersServe(t *testing.T) {
	xmpp := XMPPOptions{Host: "im.example.gov", Accounts: map[string]string{"anna": "secret"}}
	for _, c := range []struct {
		name  string
		start func(testing.TB) *Server
		check func(*testing.T, *Server)
	}{
		{"prosody", func(t testing.TB) *Server { return StartProsody(t, xmpp) }, session("/http-bind")},
		{"ejabberd", func(t testing.TB) *Server { return StartEjabberd(t, xmpp) }, session("/bosh")},
		{"mosquitto", func(t testing.TB) *Server { return StartMosquitto(t, MQTTOptions{}) }, mqtt},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := c.start(t)
			c.check(t, s)
			s.Kill()
			if conn, err := net.Dial("tcp", s.HTTP); err == nil {
				conn.Close()
				t.Fatal("a killed server takes a connection")
			}
			s.Start()
			c.check(t, s)
		})
	}
}

// An address that is taken is told with what the server says of it, and no other
// one is used instead.
func TestTakenAddress(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	taken := l.Addr().String()
	xmpp := XMPPOptions{Host: "im.example.gov", Address: taken}
	for _, c := range []struct {
		binary string
		start  func(testing.TB)
	}{
		{"prosody", func(t testing.TB) { StartProsody(t, xmpp) }},
		{"ejabberdctl", func(t testing.TB) { StartEjabberd(t, xmpp) }},
		{"mosquitto", func(t testing.TB) { StartMosquitto(t, MQTTOptions{TCP: taken}) }},
	} {
		t.Run(c.binary, func(t *testing.T) {
			t.Parallel()
			program(t, c.binary)
			r := &recorder{TB: t}
			done := make(chan struct{})
			go func() {
				defer close(done)
				c.start(r)
			}()
			<-done
			if !strings.Contains(r.failure, taken+" ") || !strings.Contains(r.failure, "in use") {
				t.Errorf("the failure does not tell the address and the cause: %q", r.failure)
			}
		})
	}
}

// A recorder takes a failure instead of the test.
type recorder struct {
	testing.TB
	failure string
}

func (r *recorder) Fatalf(format string, arguments ...any) {
	r.failure = fmt.Sprintf(format, arguments...)
	runtime.Goexit()
}

// session makes a BOSH session at a path.
func session(path string) func(*testing.T, *Server) {
	return func(t *testing.T, s *Server) {
		t.Helper()
		const body = "<body xmlns='http://jabber.org/protocol/httpbind' to='im.example.gov' rid='1' wait='5' hold='1' ver='1.6' " +
			"xml:lang='en' xmpp:version='1.0' xmlns:xmpp='urn:xmpp:xbosh'/>"
		client := &http.Client{Timeout: patience}
		defer client.CloseIdleConnections()
		answer, err := client.Post("http://"+s.HTTP+path, "text/xml; charset=utf-8", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		text, err := io.ReadAll(answer.Body)
		if err != nil || answer.StatusCode != http.StatusOK || !strings.Contains(string(text), "sid=") {
			t.Fatalf("%s %s %v", answer.Status, text, err)
		}
	}
}

// mqtt connects by MQTT 3.1.1.
func mqtt(t *testing.T, s *Server) {
	t.Helper()
	conn, err := net.Dial("tcp", s.TCP)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, "\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01a"); err != nil {
		t.Fatal(err)
	}
	answer := make([]byte, 4)
	if _, err := io.ReadFull(conn, answer); err != nil || string(answer) != "\x20\x02\x00\x00" {
		t.Fatalf("CONNECT is answered with %x, %v", answer, err)
	}
}
