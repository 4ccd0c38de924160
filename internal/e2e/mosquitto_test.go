package e2e

import (
	"fmt"
	"testing"

	"singlegate/internal/imservers"
)

// Real brokers and mqtt.js: by path over WebSocket, by port over TCP, by port
// over TLS that ends at the gateway.
func testMQTT(t *testing.T, e *example) {
	imservers.StartMosquitto(t, imservers.MQTTOptions{TCP: "127.0.0.1:16881", WebSocket: "127.0.0.1:16001"})
	second := imservers.StartMosquitto(t, imservers.MQTTOptions{TCP: "127.0.0.1:16882", WebSocket: "127.0.0.1:16002"})
	e.start(t)
	p := startPuppet(t, "mqtt.mjs", e.ca)

	clients := []string{}
	for _, c := range []struct {
		name, url string
		version   int
	}{
		{"wss-1", "wss://im.example.gov:15443/mqtt/mqtt1", 4},
		{"tcp-1", "mqtt://im.example.gov:15881", 4},
		{"tls-1", "mqtts://im.example.gov:15891", 5},
		{"wss-2", "wss://localhost:15443/mqtt/mqtt2/", 5},
		{"tcp-2", "mqtt://localhost:15882", 5},
		{"tls-2", "mqtts://localhost:15892", 4},
	} {
		p.tell(step{Do: "connect", Name: c.name, URL: c.url, Version: c.version})
		p.awaitNamed(c.name, "connected")
		p.tell(step{Do: "subscribe", Name: c.name, To: "room/+"})
		p.awaitNamed(c.name, "subscribed")
		clients = append(clients, c.name)
	}
	// Everybody hears everybody at the same broker, and nobody at the other one.
	for _, from := range clients {
		p.tell(step{Do: "publish", Name: from, To: "room/" + from, Text: "你好 from " + from})
		p.awaitNamed(from, "published")
	}
	for _, to := range clients {
		for _, from := range clients {
			if broker := from[len(from)-1]; broker == to[len(to)-1] {
				p.awaitHeard(to, "room/"+from, "你好 from "+from)
			}
		}
		if n := len(p.events(to, "message")); n != 3 {
			t.Errorf("%s has %d messages, want the 3 of its broker", to, n)
		}
	}

	// A broker that is down leads to nobody else; its clients come back with it.
	second.Kill()
	for _, name := range clients[3:] {
		p.awaitNamed(name, "closed")
	}
	second.Start()
	for _, name := range clients[3:] {
		p.awaitTimes(2, name, "connected")
		p.tell(step{Do: "subscribe", Name: name, To: "back"})
		p.awaitTimes(2, name, "subscribed")
	}
	p.tell(step{Do: "publish", Name: "tcp-2", To: "back", Text: "again"})
	for _, name := range clients[3:] {
		p.awaitHeard(name, "back", "again")
	}
	for _, name := range clients[:3] {
		if n := len(p.events(name, "closed")); n != 0 {
			t.Errorf("%s was closed %d times, and its broker was always up", name, n)
		}
	}
	// To a TCP client: to a WebSocket, Debian's mosquitto writes 4 KB in 100 ms.
	large := fmt.Sprintf("%0*d", 256<<10, 1)
	p.tell(step{Do: "subscribe", Name: "tls-1", To: "large"})
	p.awaitTimes(2, "tls-1", "subscribed")
	p.tell(step{Do: "publish", Name: "wss-1", To: "large", Text: large})
	p.awaitHeard("tls-1", "large", large)
	for _, name := range clients {
		p.tell(step{Do: "end", Name: name})
		p.awaitNamed(name, "ended")
	}
	e.checkIt(t)
}
