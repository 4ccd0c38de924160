package imservers

import (
	"fmt"
	"math/rand/v2"
	"net"
	"testing"
)

// Free ports are looked for below those that systems give to outgoing
// connections, so that none of these takes the port of a server that is down.
const lowestPort, highestPort = 21000, 32000

// FreeAddress is a loopback address at which nobody listens. Its port stays free
// for a server that ends and starts again: the system gives it to nobody else.
func FreeAddress(t testing.TB) string {
	t.Helper()
	for range 100 {
		address := fmt.Sprintf("127.0.0.1:%d", lowestPort+rand.IntN(highestPort-lowestPort))
		if l, err := net.Listen("tcp", address); err == nil {
			l.Close()
			return address
		}
	}
	t.Fatalf("no port between %d and %d is free", lowestPort, highestPort)
	return ""
}

// split is the host and the port of an address.
func split(t testing.TB, address string) (host, port string) {
	t.Helper()
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	return host, port
}
