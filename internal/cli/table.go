package cli

import (
	"strings"
	"unicode"

	"github.com/mattn/go-runewidth"
)

// A table lines up in columns on a terminal, Chinese characters counted as the
// two columns that they take there.
type table struct {
	right int // the column that is set to the right
	rows  []row
}

type row struct {
	cells []string
	below []string // lines below it, indented behind the first column
}

func (t *table) add(cells []string, below ...string) {
	t.rows = append(t.rows, row{cells, below})
}

// write writes the table.
func (t *table) write(b *strings.Builder) {
	widths := t.widths()
	for _, r := range t.rows {
		var line strings.Builder
		for i, cell := range r.cells {
			if i > 0 {
				line.WriteString("  ")
			}
			blank := strings.Repeat(" ", widths[i]-displayWidth(cell))
			if i == t.right {
				line.WriteString(blank + cell)
			} else {
				line.WriteString(cell + blank)
			}
		}
		b.WriteString(strings.TrimRight(line.String(), " ") + "\n")
		for _, s := range r.below {
			b.WriteString(strings.Repeat(" ", widths[0]+4) + s + "\n")
		}
	}
}

func (t *table) widths() (widths []int) {
	for _, r := range t.rows {
		for i, cell := range r.cells {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], displayWidth(cell))
		}
	}
	return widths
}

// displayWidth is how many columns s takes. Characters of which terminals
// disagree count as one.
func displayWidth(s string) int {
	c := runewidth.Condition{StrictEmojiNeutral: true}
	return c.StringWidth(s)
}

// shown is s without what would act upon a terminal or set its text in another
// order: much of what is shown was registered by others.
func shown(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) || r == '\u2028' || r == '\u2029' {
			return '\uFFFD'
		}
		return r
	}, s)
}
