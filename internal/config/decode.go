package config

import (
	"fmt"
	"strings"
	"unicode"

	"github.com/goccy/go-yaml/ast"
)

// A decoder makes config types of the file's tree. It collects errors and goes
// on: whatever returns false has reported why.
type decoder struct {
	file    string // base name, for places
	dir     string // where relative files are
	env     func(string) (string, bool)
	targets map[*ast.AliasNode]ast.Node // what each alias stands for
	errs    Errors
}

// A value is a node of the tree under its key.
type value struct {
	node ast.Node // neither an anchor nor an alias
	key  string   // begins errors about it; "" at the top
	at   pos      // the alias, where it is one
}

func (d *decoder) value(n ast.Node, key string) value {
	at := nodePos(n)
	for {
		switch v := n.(type) {
		case *ast.AnchorNode:
			n = v.Value
			at = nodePos(n)
		case *ast.AliasNode:
			n = d.targets[v]
		default:
			return value{node: n, key: key, at: at}
		}
	}
}

// nodePos is where a node begins. The library gives the first colon for a block mapping.
func nodePos(n ast.Node) pos {
	if n == nil {
		return pos{1, 1}
	}
	if m, ok := n.(*ast.MappingNode); ok && !m.IsFlowStyle && len(m.Values) > 0 {
		return tokenPos(m.Values[0].Key.GetToken())
	}
	return tokenPos(n.GetToken())
}

// fail reports an error about a value.
func (d *decoder) fail(v value, format string, args ...any) {
	message := fmt.Sprintf(format, args...)
	if v.key != "" {
		message = brief(v.key) + ": " + message
	}
	d.errorf(v.at, "%s", message)
}

// An object is a mapping whose keys are taken one by one; done reports those
// that nobody took.
type object struct {
	d      *decoder
	what   string // "a route"
	at     pos
	fields []*field // in the order of the file
	byKey  map[string]*field
	known  []string
}

// A field is one key of an object with its value.
type field struct {
	key   string
	at    pos // of the key
	value value
	taken bool
}

// object takes a value as a mapping; what names it in errors.
func (d *decoder) object(v value, what string) (*object, bool) {
	m, ok := v.node.(*ast.MappingNode)
	if !ok {
		d.errorf(v.at, "%s is %s here; expected keys and values (key: value)", what, kind(v.node))
		return nil, false
	}
	o := &object{d: d, what: what, at: v.at, byKey: map[string]*field{}}
	for _, entry := range m.Values {
		o.add(entry)
	}
	return o, true
}

// peek is object for a value that may be something else, and is decoded again.
func (d *decoder) peek(v value) (*object, bool) {
	if _, ok := v.node.(*ast.MappingNode); !ok {
		return nil, false
	}
	errs := len(d.errs)
	o, ok := d.object(v, "")
	if d.errs = d.errs[:errs]; ok && o.has("acme") {
		o, ok = d.object(v, "a certificate") // its errors count
	}
	return o, ok
}

func (o *object) add(entry *ast.MappingValueNode) {
	at := nodePos(entry.Key)
	key, problem := keyText(entry.Key)
	if problem != "" {
		o.d.errorf(at, "%s", problem)
		return
	}
	if first, ok := o.byKey[key]; ok {
		o.d.errorf(at, "key %s stands twice; the first is at %s", quote(key), o.d.place(first.at))
		return
	}
	f := &field{key: key, at: at, value: o.d.value(entry.Value, key)}
	o.fields = append(o.fields, f)
	o.byKey[key] = f
}

// keyText is a key as it is written; numbers are taken for the words they look like.
func keyText(n ast.MapKeyNode) (key, problem string) {
	switch n := n.(type) {
	case *ast.StringNode:
		key = n.Value
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
		key = n.GetToken().Value
	case *ast.MergeKeyNode:
		return "", "merge keys (<<) are not supported; write the keys out, or let an alias stand for a whole value"
	default:
		return "", fmt.Sprintf("%s cannot be a key here; write a word", kind(n))
	}
	if strings.ContainsFunc(key, unicode.IsControl) {
		return "", fmt.Sprintf("key %s holds a control character", quote(key))
	}
	return key, ""
}

// take gives the field of a key that o knows, or nil.
func (o *object) take(key string) *field {
	o.known = append(o.known, key)
	f := o.byKey[key]
	if f != nil {
		f.taken = true
	}
	return f
}

func (o *object) has(key string) bool { return o.byKey[key] != nil }

// keyAt is the place of a key that is there.
func (o *object) keyAt(key string) pos { return o.byKey[key].at }

// done reports keys that are not known.
func (o *object) done() {
	for _, f := range o.fields {
		if !f.taken {
			o.d.errorf(f.at, "unknown key %s%s", quote(f.key), o.d.hint(f.key, "known here", namesOf(o.known)))
		}
	}
}

// hint is hint while there are few errors; who made more than are printed has
// no use for it, and comparing names costs time.
func (d *decoder) hint(wrong, known string, names []name) string {
	if len(d.errs) > maxShown {
		return ""
	}
	return hint(wrong, known, names)
}

// read decodes the value of a key into dst, if it is there, and tells whether it
// was good. What could be read of a wrong value is in dst all the same, so that
// later checks find more.
func read[T any](o *object, key string, dst *T, decode func(value) (T, bool)) bool {
	f := o.take(key)
	if f == nil || o.d.missing(f) {
		return false
	}
	t, ok := decode(f.value)
	*dst = t
	return ok
}

// require is read for a key that must be there.
func require[T any](o *object, key string, dst *T, decode func(value) (T, bool)) bool {
	if !o.has(key) {
		o.take(key)
		o.d.errorf(o.at, "%s needs %s", o.what, key)
		return false
	}
	return read(o, key, dst, decode)
}

// missing reports a key without a value. It is an error, as it may be what was
// left of a value that mattered.
func (d *decoder) missing(f *field) bool {
	if _, ok := f.value.node.(*ast.NullNode); !ok {
		return false
	}
	d.errorf(f.at, "%s has no value; give it one or leave the key away", brief(f.key))
	return true
}

// listOf decodes a list. Every element is decoded, also after a wrong one.
func listOf[T any](d *decoder, decode func(value) (T, bool)) func(value) ([]T, bool) {
	return func(v value) ([]T, bool) {
		seq, ok := v.node.(*ast.SequenceNode)
		if !ok {
			d.fail(v, "expected a list, not %s; put [ ] around it", kind(v.node))
			return nil, false
		}
		list := make([]T, 0, len(seq.Values))
		for _, n := range seq.Values {
			element := d.value(n, v.key)
			if t, good := decode(element); good {
				list = append(list, t)
			} else {
				ok = false
			}
		}
		return list, ok
	}
}

// filled is listOf for a list where none would mean something else than it says.
func filled[T any](d *decoder, decode func(value) (T, bool)) func(value) ([]T, bool) {
	list := listOf(d, decode)
	return func(v value) ([]T, bool) {
		l, ok := list(v)
		if ok && len(l) == 0 {
			d.fail(v, "the list is empty; it needs one element at least")
			return nil, false
		}
		return l, ok
	}
}
