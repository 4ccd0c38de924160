package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// maxShown is how many errors are printed; an operator mends the first ones and
// looks again.
const maxShown = 50

// An Error is one thing that is wrong in a config file.
type Error struct {
	File    string // the base name of the file
	Line    int    // from 1
	Column  int    // in characters, from 1
	Message string // without the place, in one line
}

// Error gives the place and the message: "singlegate.yaml:12:5: message".
func (e Error) Error() string {
	return fmt.Sprintf("%s:%d:%d: %s", e.File, e.Line, e.Column, e.Message)
}

// Errors is everything that is wrong in a config file, sorted by place. It is
// never empty.
type Errors []Error

// Error gives one error a line, at most 50 of them, and then how many more
// there are.
func (e Errors) Error() string {
	var b strings.Builder
	for i, one := range e[:min(len(e), maxShown)] {
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(one.Error())
	}
	if more := len(e) - maxShown; more > 0 {
		fmt.Fprintf(&b, "\nand %d more", more)
	}
	return b.String()
}

// Unwrap gives each error for itself, as an Error.
func (e Errors) Unwrap() []error {
	all := make([]error, len(e))
	for i, one := range e {
		all[i] = one
	}
	return all
}

// pos is a place in the file: line and column, in characters, from 1.
type pos struct{ line, column int }

func (d *decoder) errorf(at pos, format string, args ...any) {
	d.errs = append(d.errs, Error{File: d.file, Line: at.line, Column: at.column, Message: fmt.Sprintf(format, args...)})
}

// place is how a place is written in At fields and in messages.
func (d *decoder) place(at pos) string {
	return fmt.Sprintf("%s:%d:%d", d.file, at.line, at.column)
}

// finish gives what was found wrong, or nil. An error in a value that is used
// through several aliases is said once.
func (d *decoder) finish(data []byte) error {
	if len(d.errs) == 0 {
		return nil
	}
	d.clampPlaces(data)
	slices.SortStableFunc(d.errs, func(a, b Error) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	d.errs = dropRepeated(d.errs)
	return &d.errs
}

// clampPlaces moves places into the file: the YAML library puts some, about an
// end that is missing, behind the last line.
func (d *decoder) clampPlaces(data []byte) {
	lines := strings.Split(string(data), "\n")
	for i := range d.errs {
		e := &d.errs[i]
		e.Line = min(max(e.Line, 1), len(lines))
		e.Column = min(max(e.Column, 1), utf8.RuneCountInString(lines[e.Line-1])+1)
	}
}

func dropRepeated(errs Errors) Errors {
	seen := make(map[Error]bool, len(errs))
	return slices.DeleteFunc(errs, func(e Error) bool {
		again := seen[e]
		seen[e] = true
		return again
	})
}
