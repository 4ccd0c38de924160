package config

import (
	"errors"
	"math"
	"strings"
	"testing"
	"time"
)

func TestParseDuration(t *testing.T) {
	tests := []struct {
		text    string
		want    time.Duration
		problem string
	}{
		{"10s", 10 * time.Second, ""},
		{"1d12h", 36 * time.Hour, ""},
		{"2d", 48 * time.Hour, ""},
		{"1.5h", 90 * time.Minute, ""},
		{"1h30m", 90 * time.Minute, ""},
		{"500ms", 500 * time.Millisecond, ""},
		{"0", 0, ""},
		{"0s", 0, ""},
		{"106751d", 106751 * day, ""},
		{"106752d", 0, "is too long"},
		{"106751d24h", 0, "is too long"},
		{"99999999999999999999d", 0, durations},
		{"9999999999h", 0, durations},
		{"10", 0, noUnit},
		{"00", 0, noUnit},
		{"10.5", 0, durations},
		{"-1s", 0, "is negative"},
		{"-0", 0, "is negative"},
		{"1d-1h", 0, durations},
		{"1d+1h", 0, durations},
		{"+1s", 0, durations},
		{"-1d", 0, "is negative"},
		{"1h1d", 0, durations},
		{"d", 0, durations},
		{"1dd", 0, durations},
		{"1.5d", 0, durations},
		{"ten", 0, durations},
		{"10 s", 0, durations},
		{"1w", 0, durations},
		{"none", 0, durations},
	}
	for _, tt := range tests {
		got, problem := parseDuration(tt.text)
		if got != tt.want || problem != tt.problem {
			t.Errorf("%q: %v, %q; want %v, %q", tt.text, got, problem, tt.want, tt.problem)
		}
	}
}

func TestParseSize(t *testing.T) {
	tests := []struct {
		text    string
		want    int64
		problem string
	}{
		{"0", 0, ""},
		{"4096", 4096, ""},
		{"16KiB", 16 << 10, ""},
		{"64k", 64 << 10, ""},
		{"64K", 64 << 10, ""},
		{"1MB", 1_000_000, ""},
		{"1kB", 1000, ""},
		{"1MiB", 1 << 20, ""},
		{"2g", 2 << 30, ""},
		{"3GB", 3_000_000_000, ""},
		{"7B", 7, ""},
		{"9223372036854775807", math.MaxInt64, ""},
		{"9223372036854775808", 0, "is too large"},
		{"9007199254740992KiB", 0, "is too large"},
		{"9223372036854775807g", 0, "is too large"},
		{"-1", 0, "is negative"},
		{"1.5k", 0, sizes},
		{"k", 0, sizes},
		{"1 k", 0, sizes},
		{"1T", 0, sizes},
		{"1_000", 0, sizes},
	}
	for _, tt := range tests {
		got, problem := parseSize(tt.text)
		if got != tt.want || problem != tt.problem {
			t.Errorf("%q: %v, %q; want %v, %q", tt.text, got, problem, tt.want, tt.problem)
		}
	}
}

func TestExpand(t *testing.T) {
	env := func(name string) (string, bool) {
		v, ok := map[string]string{"A": "1", "B_2": "two", "EMPTY": "", "NESTED": "${A}", "LONG": strings.Repeat("x", maxValue)}[name]
		return v, ok
	}
	tests := []struct{ text, want, problem string }{
		{"plain", "plain", ""},
		{"", "", ""},
		{"${A}", "1", ""},
		{"x${A}y${B_2}z", "x1ytwoz", ""},
		{"$A $ {A} $", "$A $ {A} $", ""},
		{"$${A}", "${A}", ""},
		{"$$${A}", "$${A}", ""},
		{"$${${A}", "${1", ""},
		{"${NONE:-a:-b}", "a:-b", ""},
		{"${EMPTY:-default}", "default", ""},
		{"${EMPTY:-}", "", ""},
		{"${EMPTY}", "", ""},
		{"${NESTED}", "${A}", ""},
		{"${NONE}", "", "the environment variable NONE is not set; set it, or write ${NONE:-default}"},
		{"${A", "", "a ${ without its }; a literal one is written $${"},
		{"${}", "", "${} names no variable; write ${NAME} or ${NAME:-default}, and $${ for a literal ${"},
		{"${2A}", "", "${2A} names no variable; write ${NAME} or ${NAME:-default}, and $${ for a literal ${"},
		{"${NONE:-${A}}", "", "the default of ${NONE} holds another variable, which is not supported"},
		{"${LONG}x${A}", "", "longer than 65536 bytes with its variables"},
	}
	for _, tt := range tests {
		got, err := expand(tt.text, env)
		if err == nil {
			err = errors.New("")
		}
		if got != tt.want || err.Error() != tt.problem {
			t.Errorf("%q: %q, %q; want %q, %q", tt.text, got, err, tt.want, tt.problem)
		}
	}
}

// What a variable holds is text: it never becomes keys, lists or several values.
func TestExpansionMakesNoStructure(t *testing.T) {
	env := func(string) (string, bool) { return "a, b]: {c: d} # \"", true }
	f, err := Parse("x", []byte("listeners: [{address: \":80\"}]\nlogs: {redact_query: [\"${X}\"]}\n"), env)
	if err != nil {
		t.Fatal(err)
	}
	if q := f.Gateway.Redact.Query; len(q) != 1 || q[0] != "a, b]: {c: d} # \"" {
		t.Errorf("got %q", q)
	}
	if _, err := Parse("x", []byte("\"${X}\": 1\nlisteners: [{address: \":80\"}]\n"), env); err == nil || !strings.Contains(err.Error(), `unknown key "${X}"`) {
		t.Errorf("got %v", err)
	}
}

func TestNearest(t *testing.T) {
	names := namesOf([]string{"routes", "listeners", "services", "tls", "im", "app"})
	tests := []struct{ wrong, want string }{
		{"rotes", "routes"},
		{"rouets", "routes"},
		{"Routes", "routes"},
		{"listner", "listeners"},
		{"tsl", "tls"},
		{"ap", "app"},
		{"i", ""},
		{"x", ""},
		{"", ""},
		{"xyz", ""},
		{"something", ""},
	}
	for _, tt := range tests {
		if got, _ := nearest(tt.wrong, names); got.value != tt.want {
			t.Errorf("%q: %q, want %q", tt.wrong, got.value, tt.want)
		}
	}
}

func TestOverlap(t *testing.T) {
	tests := []struct {
		a, b string
		want bool
	}{
		{":443", "0.0.0.0:443", true},
		{":443", "[::]:443", true},
		{":443", "127.0.0.1:443", true},
		{":443", ":80", false},
		{"0.0.0.0:443", "[::1]:443", false},
		{"0.0.0.0:443", "[::]:443", true},
		{"0.0.0.0:443", "10.0.0.1:443", true},
		{"[::]:443", "10.0.0.1:443", true},
		{"10.0.0.1:443", "10.0.0.2:443", false},
		{"localhost:443", "127.0.0.1:443", true},
		{"[::ffff:127.0.0.1]:443", "127.0.0.1:443", true},
		{"[::1]:443", "[0:0::1]:443", true},
		{"127.0.0.1:0", "127.0.0.1:0", false},
	}
	for _, tt := range tests {
		var sockets [2]socket
		for i, address := range []string{tt.a, tt.b} {
			host, port, problem := splitAddress(address)
			if problem != "" {
				t.Fatalf("%s: %s", address, problem)
			}
			sockets[i] = newSocket(host, port)
		}
		if overlap(sockets[0], sockets[1]) != tt.want || overlap(sockets[1], sockets[0]) != tt.want {
			t.Errorf("%s and %s: want %v", tt.a, tt.b, tt.want)
		}
	}
}
