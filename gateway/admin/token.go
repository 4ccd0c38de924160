package admin

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"
)

// What a token may be. The least is for tokens that were made at random.
const (
	minToken = 16
	maxToken = 1024
)

// ReadToken reads the token that a file holds, on one line. Errors name the file
// and never what is in it.
func ReadToken(file string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", fmt.Errorf("admin token: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxToken+8))
	if err != nil {
		return "", fmt.Errorf("admin token: %w", err)
	}
	token := strings.TrimSpace(string(data))
	if err := checkToken(token); err != nil {
		return "", fmt.Errorf("admin token: %s: %w; `openssl rand -hex 32 > FILE` makes one", file, err)
	}
	return token, nil
}

func checkToken(token string) error {
	switch {
	case len(token) < minToken:
		return fmt.Errorf("it holds %d characters, expected %d at least, made at random", len(token), minToken)
	case len(token) > maxToken:
		return fmt.Errorf("it holds more than %d characters", maxToken)
	case strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }):
		return errors.New("it holds blanks, several lines, or characters other than ASCII")
	}
	return nil
}

// Wrong tokens that one address may send in a while. The addresses that are
// counted by themselves are bounded, too; the rest is counted as one.
const (
	maxFailures  = 10
	failurePause = time.Minute
	maxAddresses = 1024
)

// failures are the wrong tokens of the last while, by address. The zero value is
// ready; its methods may be called concurrently.
type failures struct {
	mu    sync.Mutex
	began time.Time
	count map[netip.Addr]int
}

// blocked is how long an address is not heard yet.
func (f *failures) blocked(from netip.Addr) time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.turn()
	if f.count[f.key(from)] < maxFailures {
		return 0
	}
	return max(failurePause-time.Since(f.began), time.Millisecond)
}

func (f *failures) note(from netip.Addr) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.turn()
	f.count[f.key(from)]++
}

// turn forgets everything once in a while.
func (f *failures) turn() {
	if f.count == nil || time.Since(f.began) >= failurePause {
		f.began, f.count = time.Now(), map[netip.Addr]int{}
	}
}

func (f *failures) key(from netip.Addr) netip.Addr {
	if _, counted := f.count[from]; counted || len(f.count) < maxAddresses {
		return from
	}
	return netip.Addr{}
}
