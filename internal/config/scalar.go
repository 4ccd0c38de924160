package config

import (
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/goccy/go-yaml/ast"
)

// A text is a scalar of the file with its variables put in.
type text struct {
	value    string
	shown    string // as the file has it, quoted: what errors may show
	expanded bool   // whether value came from the environment
	at       pos
}

// text takes any scalar but true, false and null. It is never empty and holds
// no control character.
func (d *decoder) text(v value) (text, bool) {
	raw, ok := scalar(v.node)
	if !ok {
		d.fail(v, "expected text, not %s", kind(v.node))
		return text{}, false
	}
	t := text{shown: quote(raw), at: v.at}
	var err error
	if t.value, err = expand(raw, d.env); err != nil {
		d.fail(v, "%v", err)
		return text{}, false
	}
	t.expanded = t.value != raw
	switch {
	case t.value == "" && t.expanded:
		d.fail(v, "%s comes out empty", t.shown)
	case t.value == "":
		d.fail(v, "it is empty; give it a value or leave the key away")
	case !utf8.ValidString(t.value):
		d.fail(v, "%s is not UTF-8", t.shown)
	case strings.ContainsFunc(t.value, unicode.IsControl):
		d.fail(v, "%s holds a line break or another control character", t.shown)
	default:
		return t, true
	}
	return text{}, false
}

// checked is text with a check that gives what is wrong with it, or "". The
// answer must not hold the text itself.
func (d *decoder) checked(check func(string) string) func(value) (text, bool) {
	return func(v value) (text, bool) {
		t, ok := d.text(v)
		if !ok {
			return text{}, false
		}
		if problem := check(t.value); problem != "" {
			d.fail(v, "%s: %s", t.shown, problem)
			return text{}, false
		}
		return t, true
	}
}

// plain is a decode function of texts for a field that needs the value only.
func plain(decode func(value) (text, bool)) func(value) (string, bool) {
	return func(v value) (string, bool) {
		t, ok := decode(v)
		return t.value, ok
	}
}

// path is the name of a file or folder, joined with the config file's folder.
func (d *decoder) path(v value) (string, bool) {
	t, ok := d.text(v)
	if !ok || filepath.IsAbs(t.value) {
		return t.value, ok
	}
	return filepath.Join(d.dir, t.value), true
}

// oneOf takes one of a few words.
func oneOf[T ~string](d *decoder, words ...T) func(value) (T, bool) {
	return func(v value) (T, bool) {
		t, ok := d.text(v)
		if !ok {
			return "", false
		}
		if i := slices.Index(words, T(t.value)); i >= 0 {
			return words[i], true
		}
		var known []string
		for _, w := range words {
			known = append(known, string(w))
		}
		d.fail(v, "%s is not known%s", t.shown, d.hint(t.value, "expected one of", namesOf(known)))
		return "", false
	}
}

func (d *decoder) boolean(v value) (bool, bool) {
	if b, ok := v.node.(*ast.BoolNode); ok {
		return b.Value, true
	}
	t, ok := d.text(v)
	if !ok {
		return false, false
	}
	if t.value != "true" && t.value != "false" {
		d.fail(v, "%s is neither true nor false", t.shown)
		return false, false
	}
	return t.value == "true", true
}

// integer takes a decimal number between two bounds.
func (d *decoder) integer(low, high int) func(value) (int, bool) {
	return func(v value) (int, bool) {
		t, ok := d.text(v)
		if !ok {
			return 0, false
		}
		n, err := strconv.ParseUint(t.value, 10, 63)
		leading := len(t.value) > 1 && t.value[0] == '0'
		if err != nil || leading || n < uint64(low) || n > uint64(high) {
			d.fail(v, "%s is not a whole number between %d and %d", t.shown, low, high)
			return 0, false
		}
		return int(n), true
	}
}

func (d *decoder) port(v value) (uint16, bool) {
	n, ok := d.integer(1, math.MaxUint16)(v)
	return uint16(n), ok
}

// duration takes 90s, 1h30m, 1d12h, and no less than zero; a bare 0 as well.
func (d *decoder) duration(v value) (time.Duration, bool) {
	t, ok := d.text(v)
	if !ok {
		return 0, false
	}
	dur, problem := parseDuration(t.value)
	if problem == noUnit && !t.expanded {
		problem += fmt.Sprintf("; write %ss", t.value)
	} else if problem == noUnit {
		problem += "; write it like 10s"
	}
	if problem != "" {
		d.fail(v, "%s %s", t.shown, problem)
		return 0, false
	}
	return dur, true
}

// wait is a duration that ends: more than zero.
func (d *decoder) wait(v value) (time.Duration, bool) {
	dur, ok := d.duration(v)
	if ok && dur == 0 {
		d.fail(v, "must be more than 0")
		return 0, false
	}
	return dur, ok
}

// bound is a duration that may be no limit: 0 or none.
func (d *decoder) bound(v value) (time.Duration, bool) {
	t, ok := d.text(v)
	if !ok || t.value == "none" {
		return 0, ok
	}
	return d.duration(v)
}

// size takes a number of bytes between two bounds.
func (d *decoder) size(low, high int) func(value) (int, bool) {
	return func(v value) (int, bool) {
		t, ok := d.text(v)
		if !ok {
			return 0, false
		}
		n, problem := parseSize(t.value)
		if problem == "" && (n < int64(low) || n > int64(high)) {
			problem = fmt.Sprintf("is not between %d and %d bytes", low, high)
		}
		if problem != "" {
			d.fail(v, "%s %s", t.shown, problem)
			return 0, false
		}
		return int(n), true
	}
}

// scalar is the text of a scalar as it is written: 010 stays 010.
func scalar(n ast.Node) (string, bool) {
	switch n := n.(type) {
	case *ast.StringNode:
		return n.Value, true
	case *ast.LiteralNode:
		return n.Value.Value, true
	case *ast.IntegerNode, *ast.FloatNode:
		return n.GetToken().Value, true
	}
	return "", false
}

// kind names a node for an operator.
func kind(n ast.Node) string {
	switch n.(type) {
	case *ast.MappingNode:
		return "a mapping"
	case *ast.SequenceNode:
		return "a list"
	case *ast.NullNode:
		return "nothing"
	case *ast.BoolNode:
		return "true or false"
	case *ast.IntegerNode, *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		return "a number"
	case *ast.StringNode, *ast.LiteralNode:
		return "text"
	case *ast.AliasNode, *ast.AnchorNode:
		return "an anchor or alias"
	}
	return "something else"
}
