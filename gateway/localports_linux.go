package gateway

import (
	"fmt"
	"os"
)

// localPorts is how many ports the system gives to outgoing connections; 0:
// unknown. Those that it reserves count as well.
func localPorts() int {
	text, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err != nil {
		return 0
	}
	var first, last int
	if _, err := fmt.Sscan(string(text), &first, &last); err != nil || last < first {
		return 0
	}
	return last - first + 1
}
