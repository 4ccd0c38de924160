package main

import (
	"bufio"
	"bytes"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
)

// The opcodes that the bench sends (RFC 6455, section 5.2), with FIN.
const (
	frameBinary = 0x82
	frameClose  = 0x88
)

// The key of every handshake, and of every mask. A peer may not care what they
// are, and the client saves what random ones cost.
const handshakeKey = "c2luZ2xlZ2F0ZSBiZW5jaA=="

var maskKey = [4]byte{0x9d, 0x37, 0x5c, 0xe1}

// wsPath is what a node sees when the gateway has removed the prefix.
const wsPath = "/chat"

// acceptOf is the Sec-WebSocket-Accept of a key (RFC 6455, section 4.2.2).
func acceptOf(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// upgradeRequest is the head of a client's handshake. It has the headers that a
// browser sends, in about its size.
func upgradeRequest(host, path string) []byte {
	return fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nPragma: no-cache\r\n"+
		"Cache-Control: no-cache\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36\r\n"+
		"Upgrade: websocket\r\nOrigin: https://localhost\r\nSec-WebSocket-Version: 13\r\n"+
		"Accept-Encoding: gzip, deflate, br\r\nAccept-Language: en-GB,en;q=0.9\r\n"+
		"Sec-WebSocket-Key: %s\r\n\r\n", path, host, handshakeKey)
}

var wantAccept = acceptOf(handshakeKey)

// readUpgrade reads the answer to upgradeRequest. No node speaks first, so
// nothing may stand behind the head.
func readUpgrade(r *bufio.Reader) error {
	status, err := r.ReadString('\n')
	if err != nil {
		return fmt.Errorf("the answer to the upgrade: %w", err)
	}
	if !strings.HasPrefix(status, "HTTP/1.1 101 ") {
		return fmt.Errorf("the upgrade was answered with %q", strings.TrimSpace(status))
	}
	accepted := false
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return fmt.Errorf("the answer to the upgrade: %w", err)
		}
		line = strings.TrimSpace(line)
		if line == "" {
			break
		}
		name, value, _ := strings.Cut(line, ":")
		if strings.EqualFold(name, "Sec-WebSocket-Accept") && strings.TrimSpace(value) == wantAccept {
			accepted = true
		}
	}
	switch {
	case !accepted:
		return errors.New("the answer to the upgrade has no right Sec-WebSocket-Accept")
	case r.Buffered() > 0:
		return errors.New("bytes came before the first message was sent")
	}
	return nil
}

// appendHeader appends the header of a frame, with the mask's bit and key for
// one of a client.
func appendHeader(b []byte, first byte, size int, masked bool) []byte {
	var bit byte
	if masked {
		bit = 0x80
	}
	switch {
	case size < 126:
		b = append(b, first, bit|byte(size))
	case size < 1<<16:
		b = append(b, first, bit|126)
		b = binary.BigEndian.AppendUint16(b, uint16(size))
	default:
		b = append(b, first, bit|127)
		b = binary.BigEndian.AppendUint64(b, uint64(size))
	}
	if masked {
		b = append(b, maskKey[:]...)
	}
	return b
}

// A message is one of a size that a client sends over and over, and the echo
// that it expects. Each client puts its own number into it, so that an echo of
// another tunnel is noticed. Made once per goroutine, then nothing is allocated.
type message struct {
	out, want, in []byte
	outID, wantID []byte // the first eight bytes of the payload, in out and in want
	mask          uint64 // what outID is masked with
}

// lastMessage is the bit of a message's number that says no more will follow.
const lastMessage = 1 << 63

// newMessage makes a message of size bytes, eight at least: a binary frame, or
// just the bytes.
func newMessage(size int, frame bool) *message {
	payload := make([]byte, size)
	for i := range payload {
		payload[i] = byte(i * 31)
	}
	if !frame {
		m := &message{out: payload, want: bytes.Clone(payload), in: make([]byte, size)}
		m.outID, m.wantID = m.out, m.want
		return m
	}
	m := &message{
		out:  appendHeader(nil, frameBinary, size, true),
		want: appendHeader(nil, frameBinary, size, false),
	}
	outHead, wantHead := len(m.out), len(m.want)
	m.out = append(m.out, payload...)
	for i := range payload {
		m.out[outHead+i] ^= maskKey[i%4]
	}
	m.want = append(m.want, payload...)
	m.in = make([]byte, len(m.want))
	m.outID, m.wantID = m.out[outHead:], m.want[wantHead:]
	half := uint64(binary.LittleEndian.Uint32(maskKey[:]))
	m.mask = half | half<<32
	return m
}

// number puts a number into the message and into the echo expected.
func (m *message) number(id uint64) {
	binary.LittleEndian.PutUint64(m.outID, id^m.mask)
	binary.LittleEndian.PutUint64(m.wantID, id)
}

// check compares the echo in m.in with the one expected.
func (m *message) check() error {
	if bytes.Equal(m.in, m.want) {
		return nil
	}
	return fmt.Errorf("the echo is not the message: it begins with % x and not with % x", m.in[:min(16, len(m.in))], m.want[:min(16, len(m.want))])
}

// closeFrame is a client's Close with code 1000.
func closeFrame() []byte {
	b := appendHeader(nil, frameClose, 2, true)
	return append(b, 1000>>8^maskKey[0], 1000&0xff^maskKey[1])
}
