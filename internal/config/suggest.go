package config

import (
	"fmt"
	"strings"
	"unicode"
)

// What a message shows of the file at most.
const (
	maxQuoted     = 60   // characters of a value
	maxListed     = 20   // names in a list
	maxCandidates = 1000 // names that are compared with a wrong one
)

// A name is one that something in the file may refer to, and how it is written there.
type name struct{ value, shown string }

// namesOf takes names that are never expanded, such as keys.
func namesOf(keys []string) []name {
	names := make([]name, len(keys))
	for i, k := range keys {
		names[i] = name{k, quote(k)}
	}
	return names
}

// hint says which name was meant, or which ones there are: "; did you mean …?",
// "; known: …".
func hint(wrong, known string, names []name) string {
	if len(names) == 0 {
		return "; there is none"
	}
	if n, ok := nearest(wrong, names); ok {
		return fmt.Sprintf("; did you mean %s?", n.shown)
	}
	return fmt.Sprintf("; %s: %s", known, enumerate(names))
}

// enumerate lists names, bounded.
func enumerate(names []name) string {
	var shown []string
	for _, n := range names[:min(len(names), maxListed)] {
		shown = append(shown, n.shown)
	}
	if len(names) > maxListed {
		shown = append(shown, "…")
	}
	return strings.Join(shown, ", ")
}

// nearest finds the name that a wrong one is a slip of: a letter or two wrong,
// missing, too many or swapped.
func nearest(wrong string, names []name) (best name, ok bool) {
	allowed := min(2, (len(wrong)+1)/3)
	for _, n := range names[:min(len(names), maxCandidates)] {
		if d := distance(strings.ToLower(wrong), strings.ToLower(n.value), allowed); d <= allowed {
			best, ok = n, true
			allowed = d - 1
		}
	}
	return best, ok
}

// distance counts the edits between two words: bytes changed, added, left out,
// or swapped with their neighbour. It gives limit+1 for words whose lengths
// tell that there are more than limit.
func distance(a, b string, limit int) int {
	if max(len(a), len(b))-min(len(a), len(b)) > limit {
		return limit + 1
	}
	before, prev, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			change := prev[j-1]
			if a[i-1] != b[j-1] {
				change++
			}
			row[j] = min(change, prev[j]+1, row[j-1]+1)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, prev, row = prev, row, before
	}
	return prev[len(b)]
}

// quote shows a piece of the file, bounded and in one line.
func quote(s string) string { return `"` + brief(s) + `"` }

// brief is quote without the quotes.
func brief(s string) string {
	var b strings.Builder
	n := 0
	for _, r := range s {
		if n++; n > maxQuoted {
			b.WriteString("…")
			break
		}
		if unicode.IsPrint(r) {
			b.WriteRune(r)
		} else {
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.String()
}
