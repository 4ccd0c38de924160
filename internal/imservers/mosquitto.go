package imservers

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"testing"
)

// MQTTOptions are how an MQTT server runs.
type MQTTOptions struct {
	TCP       string // host:port of plain MQTT; "": a free port of 127.0.0.1
	WebSocket string // host:port of MQTT over WebSocket; "": a free port of 127.0.0.1
	Config    string // more of its configuration
}

// StartMosquitto runs a mosquitto that takes anybody, and waits until it serves.
// When the test ends, so does the server.
func StartMosquitto(t testing.TB, o MQTTOptions) *Server {
	t.Helper()
	binary, config := program(t, "mosquitto"), filepath.Join(t.TempDir(), "mosquitto.conf")
	s := &Server{t: t, ready: " running\n", taken: "Address already in use"}
	s.command = func() *exec.Cmd { return exec.Command(binary, "-c", config) }
	choose := func() { s.TCP, s.HTTP = chosen(t, o.TCP), chosen(t, o.WebSocket) }
	s.launch(o.TCP != "" || o.WebSocket != "", choose, func() { writeFile(t, config, mosquittoConfig(t, s, o)) })
	return s
}

func mosquittoConfig(t testing.TB, s *Server, o MQTTOptions) string {
	t.Helper()
	host, port := split(t, s.TCP)
	webHost, webPort := split(t, s.HTTP)
	// Without "user root", a mosquitto of root goes on as another user, who cannot
	// read the test's folder.
	return fmt.Sprintf(`
user root
persistence false
log_dest stderr
log_type all
allow_anonymous true
listener %s %s
listener %s %s
protocol websockets
%s
`, port, host, webPort, webHost, o.Config)
}
