package livecheck

import (
	"encoding/binary"
	"encoding/hex"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
)

// A machine is what can be learnt of the one that the check runs on.
type machine struct {
	readFile  func(name string) ([]byte, error)
	addresses func() []netip.Addr // its own
}

func thisMachine() machine {
	return machine{readFile: os.ReadFile, addresses: ownAddresses}
}

func ownAddresses() []netip.Addr {
	list, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	var own []netip.Addr
	for _, a := range list {
		if n, ok := a.(*net.IPNet); ok {
			if ip, ok := netip.AddrFromSlice(n.IP); ok {
				own = append(own, ip.Unmap())
			}
		}
	}
	return own
}

func (m machine) owns(ip netip.Addr) bool {
	return ip.IsLoopback() || slices.Contains(m.addresses(), ip.WithZone(""))
}

// listening are the addresses on which something listens on a TCP port of this
// machine (on Linux: of this network namespace). It is not known everywhere.
func (m machine) listening(port uint16) (addresses []netip.Addr, known bool) {
	for _, name := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		text, err := m.readFile(name)
		if err != nil {
			continue
		}
		known = true
		addresses = append(addresses, listeners(string(text), port)...)
	}
	slices.SortFunc(addresses, netip.Addr.Compare)
	return slices.Compact(addresses), known
}

// stateListen is TCP_LISTEN in /proc/net/tcp.
const stateListen = "0A"

// listeners reads the sockets that listen on a port out of the kernel's table:
// a heading, then lines "  0: 0100007F:1F90 00000000:0000 0A …".
func listeners(table string, port uint16) []netip.Addr {
	var list []netip.Addr
	for line := range strings.Lines(table) {
		fields := strings.Fields(line)
		if len(fields) < 4 || fields[3] != stateListen {
			continue
		}
		if local, ok := kernelAddress(fields[1]); ok && local.Port() == port {
			list = append(list, local.Addr())
		}
	}
	return list
}

// kernelAddress reads ADDRESS:PORT in hexadecimal. The address is made of
// 32-bit words in the machine's byte order.
func kernelAddress(s string) (netip.AddrPort, bool) {
	host, portText, _ := strings.Cut(s, ":")
	port, err := strconv.ParseUint(portText, 16, 16)
	raw, errHost := hex.DecodeString(host)
	if err != nil || errHost != nil || len(raw) != 4 && len(raw) != 16 {
		return netip.AddrPort{}, false
	}
	for word := range slices.Chunk(raw, 4) {
		binary.NativeEndian.PutUint32(word, binary.BigEndian.Uint32(word))
	}
	ip, _ := netip.AddrFromSlice(raw)
	return netip.AddrPortFrom(ip.Unmap(), uint16(port)), true
}

// addressList is a list for people.
func addressList(list []netip.Addr) string {
	texts := make([]string, len(list))
	for i, ip := range list {
		texts[i] = ip.String()
	}
	return strings.Join(texts, ", ")
}
