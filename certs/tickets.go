package certs

import (
	"crypto/hkdf"
	"crypto/sha256"
	"fmt"
	"time"
)

// MinSharedKey is the least length of a shared key, in bytes: `openssl rand
// -base64 32` gives more.
const MinSharedKey = 32

const (
	// ticketPeriod is how long session tickets are made with one key.
	ticketPeriod = 12 * time.Hour

	// ticketsTaken is how many keys back a ticket is still taken. Together that is
	// no longer than crypto/tls would take its own.
	ticketsTaken = 4
)

// ticketKeys are the keys of a moment: the first makes tickets, all are taken.
// They come from the secret and the clock alone, so gateways with one secret
// agree on them without a word, and change them together. The key to come is for
// gateways whose clock goes before ours.
func ticketKeys(secret []byte, now time.Time) [][32]byte {
	period := now.Unix() / int64(ticketPeriod/time.Second)
	var keys [][32]byte
	for _, n := range []int64{period, period - 1, period - 2, period - 3, period + 1}[:ticketsTaken+1] {
		key, err := hkdf.Key(sha256.New, secret, nil, fmt.Sprintf("singlegate session tickets %d", n), 32)
		if err != nil {
			panic(err) // of lengths that cannot be
		}
		keys = append(keys, [32]byte(key))
	}
	return keys
}

// ReadSharedKey reads the secret that the gateways of a site share.
func ReadSharedKey(name string) ([]byte, error) {
	data, err := readFile(name)
	switch {
	case err != nil:
		return nil, fmt.Errorf("shared key file %s %w", name, err)
	case len(data) < MinSharedKey:
		return nil, fmt.Errorf("shared key file %s has %d bytes, and %d are the least: make it with openssl rand -base64 32, the same on every gateway", name, len(data), MinSharedKey)
	}
	return data, nil
}

// turnTickets puts the ticket keys of the moment in force.
func (s *set) turnTickets(now time.Time) {
	if s.cfg.shared != nil {
		s.policy.SetSessionTicketKeys(ticketKeys(s.cfg.shared, now))
	}
}
