package audit

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"strconv"
)

// digest is the hash of a line.
type digest [sha256.Size]byte

func (d digest) String() string { return hex.EncodeToString(d[:]) }

// How a chain's hashes are made.
const (
	chainNone   = "none"
	chainPlain  = "sha256"
	chainSecret = "hmac-sha256"
)

// A sealer numbers lines and chains them. It is for one goroutine.
type sealer struct {
	hash hash.Hash // nil: lines are only numbered
	state
	sum []byte
}

// state is where a chain has come to.
type state struct {
	seq  uint64 // of the last line
	last digest // its hash
}

// hashOf makes what the hashes of a chain are made with.
func hashOf(chain string, key []byte) hash.Hash {
	switch chain {
	case chainPlain:
		return sha256.New()
	case chainSecret:
		return hmac.New(sha256.New, key)
	}
	return nil
}

const (
	seqSign  = `{"seq":`
	hashSign = `,"hash":"`
	hashTail = len(hashSign) + 2*sha256.Size + len(`"}`)
)

// append adds a JSON object to dst as the next line.
func (s *sealer) append(dst, object []byte) []byte {
	begin := len(dst)
	s.seq++
	dst = append(dst, seqSign...)
	dst = strconv.AppendUint(dst, s.seq, 10)
	dst = append(dst, ',')
	dst = append(dst, object[1:len(object)-1]...)
	if s.hash != nil {
		s.last, s.sum = sumOf(s.hash, s.last, dst[begin:], s.sum)
		dst = append(dst, hashSign...)
		dst = hex.AppendEncode(dst, s.last[:])
		dst = append(dst, '"')
	}
	return append(dst, '}', '\n')
}

// sumOf is the hash of a line behind another one. buf is for it to use.
func sumOf(h hash.Hash, before digest, body, buf []byte) (digest, []byte) {
	h.Reset()
	buf = append(buf[:0], before[:]...)
	h.Write(buf)
	h.Write(body)
	buf = h.Sum(buf[:0])
	return digest(buf), buf
}

// A sealed line, taken apart. Its body is what its hash is over.
type sealed struct {
	seq     uint64
	body    []byte
	hash    digest
	chained bool // it has a hash
}

// parse takes a line apart, without its line break; false: it is none of ours.
func parse(line []byte) (s sealed, ok bool) {
	rest, ok := bytes.CutPrefix(line, []byte(seqSign))
	if !ok {
		return s, false
	}
	digits := rest[:min(len(rest), 21)]
	end := bytes.IndexByte(digits, ',')
	if end <= 0 || digits[0] == '0' {
		return s, false
	}
	seq, err := strconv.ParseUint(string(digits[:end]), 10, 64)
	if err != nil || !bytes.HasSuffix(line, []byte("}")) || !json.Valid(line) {
		return s, false
	}
	s.seq, s.body = seq, line[:len(line)-1]
	if tail := len(line) - hashTail; tail > 0 && bytes.HasPrefix(line[tail:], []byte(hashSign)) && line[len(line)-2] == '"' {
		digits := line[tail+len(hashSign) : len(line)-2]
		if _, err := hex.Decode(s.hash[:], digits); err == nil && bytes.Equal(digits, bytes.ToLower(digits)) {
			s.body, s.chained = line[:tail], true
		}
	}
	return s, true
}

// opened is the line that files begin with, and starts and reopenings.
type opened struct {
	Time    string `json:"time"`
	Event   string `json:"event"` // audit_opened
	Success bool   `json:"success"`
	Reason  string `json:"reason"`
	Format  int    `json:"format"`
	Chain   string `json:"chain"`
	KeyID   string `json:"key_id,omitempty"`
	ChainID string `json:"chain_id"`
	Prev    string `json:"prev"` // the hash of the line before, wherever that is; zeros: there is none

	// Bytes before this line that are no line: the end of one that was being
	// written when the gateway was ended, or somebody else's.
	TornBytes int64  `json:"torn_bytes,omitempty"`
	TornHash  string `json:"torn_sha256,omitempty"`

	Host    string `json:"host"`
	PID     int    `json:"pid"`
	Version string `json:"version"`
}

const (
	eventOpened = "audit_opened"
	eventClosed = "audit_closed"
	eventLost   = "audit_lost"
	eventAnchor = "audit_anchor"
)

// Why a file was opened.
const (
	becauseStart    = "start"
	becauseRotated  = "rotated"
	becauseReopened = "reopened"
	becauseReplaced = "the file was moved, taken away or changed by somebody else"
	becauseFault    = "after a fault"
)

// openedOf is what the line says, if it is such a line.
func openedOf(s sealed) (o opened, ok bool) {
	if !bytes.Contains(s.body, []byte(`"event":"`+eventOpened+`"`)) {
		return o, false
	}
	line := append(append([]byte(nil), s.body...), '}')
	return o, json.Unmarshal(line, &o) == nil && o.Event == eventOpened
}

// prev is the hash that the line repeats.
func (o *opened) prev() (d digest, ok bool) {
	n, err := hex.Decode(d[:], []byte(o.Prev[:min(len(o.Prev), 2*len(d))]))
	return d, err == nil && n == len(d) && len(o.Prev) == 2*len(d)
}

var errShortKey = errors.New("the key is shorter than 32 bytes; make one: openssl rand -base64 48")

// readKey reads the key of the chain; nil: it has none.
func readKey(cfg Config) ([]byte, error) {
	if cfg.KeyFile == "" {
		return nil, nil
	}
	return ReadKey(cfg.KeyFile)
}

// ReadKey reads a key file: its bytes without the space around them.
func ReadKey(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("the key of the chain: %w", err)
	}
	defer f.Close()
	key, err := io.ReadAll(io.LimitReader(f, 4<<10))
	if err != nil {
		return nil, fmt.Errorf("the key of the chain: %w", err)
	}
	if key = bytes.TrimSpace(key); len(key) < 32 {
		return nil, fmt.Errorf("%s: %w", name, errShortKey)
	}
	return key, nil
}

// keyID tells keys apart without giving them away; "": there is none.
func keyID(key []byte) string {
	if key == nil {
		return ""
	}
	h := hmac.New(sha256.New, key)
	io.WriteString(h, "singlegate audit key id")
	return hex.EncodeToString(h.Sum(nil)[:8])
}
