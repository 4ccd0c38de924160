package cli

import (
	"strings"
	"testing"
)

func TestDisplayWidth(t *testing.T) {
	for s, want := range map[string]int{
		"":               0,
		"node1":          5,
		"节点1":            5,
		"é":              1,
		"e\u0301":        1,
		"…":              1,
		"\uff08全角\uff09": 8,
	} {
		if got := displayWidth(s); got != want {
			t.Errorf("%q takes %d columns, want %d", s, got, want)
		}
	}
}

func TestShown(t *testing.T) {
	const nothing = "\uFFFD"
	for s, want := range map[string]string{
		"节点 node-1":        "节点 node-1",
		"a\x1b[2Jb":        "a" + nothing + "[2Jb",
		"a\r\nb\tc":        "a" + nothing + nothing + "b" + nothing + "c",
		"a\u009bb":         "a" + nothing + "b", // CSI in one character
		"a\u202eb\u2066c":  "a" + nothing + "b" + nothing + "c",
		"a\u2028b":         "a" + nothing + "b",
		"\xff is no UTF-8": nothing + " is no UTF-8",
	} {
		if got := shown(s); got != want {
			t.Errorf("%q is shown as %q, want %q", s, got, want)
		}
	}
}

func TestTableLinesUp(t *testing.T) {
	tb := table{right: 1}
	tb.add([]string{"节点", "数", "x"}, "below")
	tb.add([]string{"n", "1000", "y"})
	tb.add([]string{"n", "2", ""})
	var b strings.Builder
	tb.write(&b)
	want := "节点    数  x\n        below\nn     1000  y\nn        2\n"
	if b.String() != want {
		t.Errorf("the table is\n%s\nwant\n%s", b.String(), want)
	}
}
