package config

import (
	"math"
	"strconv"
	"strings"
	"time"
)

const (
	noUnit    = "has no unit"
	day       = 24 * time.Hour
	durations = "is not a duration; write it like 10s, 500ms, 1h30m or 1d12h"
	sizes     = "is not a size; write it like 16KiB, 64k, 1MB or a number of bytes"
)

// parseDuration takes Go's notation with whole days before it, and 0. It gives
// what is wrong, without the text.
func parseDuration(s string) (d time.Duration, problem string) {
	switch {
	case strings.HasPrefix(s, "-"):
		return 0, "is negative"
	case s == "0":
		return 0, ""
	case strings.Trim(s, "0123456789") == "":
		return 0, noUnit
	}
	if days, rest, ok := strings.Cut(s, "d"); ok {
		n, err := strconv.ParseUint(days, 10, 63)
		if err != nil {
			return 0, durations
		}
		if n > uint64(math.MaxInt64/day) {
			return 0, "is too long"
		}
		if d = time.Duration(n) * day; rest == "" {
			return d, ""
		}
		s = rest
	}
	if s[0] < '0' || s[0] > '9' {
		return 0, durations
	}
	part, err := time.ParseDuration(s)
	if err != nil {
		return 0, durations
	}
	if d > math.MaxInt64-part {
		return 0, "is too long"
	}
	return d + part, ""
}

// parseSize takes a number of bytes: 16KiB, 1MiB, 2GiB in powers of 1024, as
// well as 64k, 1m, 2g, which is how nginx means them; 64KB, 1MB, 2GB in powers
// of 1000. Letters of either case. It gives what is wrong, without the text.
func parseSize(s string) (bytes int64, problem string) {
	digits := len(s) - len(strings.TrimLeft(s, "0123456789"))
	factor := unitOf(strings.ToLower(s[digits:]))
	if digits == 0 || factor == 0 {
		if strings.HasPrefix(s, "-") {
			return 0, "is negative"
		}
		return 0, sizes
	}
	n, err := strconv.ParseInt(s[:digits], 10, 64)
	if err != nil || n > math.MaxInt64/factor {
		return 0, "is too large"
	}
	return n * factor, ""
}

func unitOf(unit string) int64 {
	switch unit {
	case "", "b":
		return 1
	case "k", "kib":
		return 1 << 10
	case "m", "mib":
		return 1 << 20
	case "g", "gib":
		return 1 << 30
	case "kb":
		return 1000
	case "mb":
		return 1000 * 1000
	case "gb":
		return 1000 * 1000 * 1000
	}
	return 0
}
