// Package limit counts what many clients do, each by a key: how often (Buckets),
// how much at a time (Gauge), and who has failed so often that he is banned
// (Bans). It knows nothing of HTTP or of sockets and imports nothing else of this
// module.
//
// All of it is bounded in memory, whatever clients do, and costs them no
// goroutine and no timer: what a key is worth is worked out when it is asked for,
// and keys that count for nothing any more make room when others come. Counting a
// key that is known allocates nothing. At the bound the keys in use keep what
// they have; new ones share one place among them, so that none is unlimited.
//
// Everything is safe for concurrent use.
package limit

import (
	"crypto/sha256"
	"encoding/binary"
	"net/netip"
)

// A Key is whom or what is counted. It holds no pointer and nothing of a text it
// was made of that could be read back. The same id in two scopes is two keys.
type Key struct {
	scope uint64
	id    [16]byte
}

// DefaultIPv6Prefix is how many bits of an IPv6 address tell clients apart: a
// site, or a subscriber, has all the addresses behind them.
const DefaultIPv6Prefix = 64

// Address is the key of a client's address: an IPv4 address by itself, also when
// it is written as IPv6, another one by its first bits, between 1 and 128.
func Address(a netip.Addr, ipv6Prefix int) Key {
	a = a.Unmap().WithZone("")
	if a.Is6() {
		if p, err := a.Prefix(ipv6Prefix); err == nil {
			a = p.Addr()
		}
	}
	return Key{id: a.As16()}
}

// Addr is the address of a key that Address made, or the first one behind its
// prefix.
func (k Key) Addr() netip.Addr { return netip.AddrFrom16(k.id).Unmap() }

// Text is the key of a name, a token or the like. Two texts have the same key
// only if somebody breaks SHA-256, cut to 128 bits.
func Text(s string) Key {
	sum := sha256.Sum256([]byte(s))
	return Key{id: [16]byte(sum[:16])}
}

// In is the key in another scope than its own.
func (k Key) In(s Scope) Key {
	k.scope = uint64(s)
	return k
}

// A Scope is what a key is counted for, such as one route of several. Scopes are
// few and not for clients to choose.
type Scope uint64

// ScopeOf is the scope of that name; "" is the one that keys have at first.
func ScopeOf(name string) Scope {
	if name == "" {
		return 0
	}
	sum := sha256.Sum256([]byte(name))
	return Scope(binary.LittleEndian.Uint64(sum[:]))
}
