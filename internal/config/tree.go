package config

import (
	"bytes"
	"errors"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// What a file may have. The YAML library takes quadratic time and memory for
// deep nesting and for very many keys; these bounds keep a broken file from
// stopping the gateway, and are far beyond what a site needs.
const (
	maxFile     = 1 << 20 // bytes
	maxTokens   = 50_000  // words and punctuation, without comments
	maxDepth    = 16      // mappings and lists within each other; the config needs 6
	maxKey      = 128     // bytes of a key
	maxExpanded = 100_000 // values, counting each as often as aliases repeat it
)

// tree parses the text and gives its top value. When it fails, it has reported why.
func (d *decoder) tree(data []byte) (value, bool) {
	if !d.checkText(data) {
		return value{}, false
	}
	file, ok := d.parseYAML(strings.ReplaceAll(string(data), "\r\n", "\n"))
	if !ok {
		return value{}, false
	}
	body, ok := d.onlyDocument(file)
	if !ok {
		return value{}, false
	}
	a := aliases{d: d, anchors: map[string]anchored{}, targets: map[*ast.AliasNode]ast.Node{}}
	if size := a.resolve(body); size > maxExpanded {
		d.errorf(pos{1, 1}, "with its aliases written out the file has more than %d values; it may have %d", maxExpanded, maxExpanded)
	}
	d.targets = a.targets
	return d.value(body, ""), len(d.errs) == 0
}

// checkText refuses what is no text, before the YAML library sees it.
func (d *decoder) checkText(data []byte) bool {
	start := pos{1, 1}
	switch {
	case len(data) > maxFile:
		d.errorf(start, "the file is larger than 1 MiB; is it a config file?")
	case bytes.HasPrefix(data, []byte("\xef\xbb\xbf")):
		d.errorf(start, "the file begins with a byte order mark; save it as UTF-8 without BOM")
	case bytes.HasPrefix(data, []byte("\xff\xfe")), bytes.HasPrefix(data, []byte("\xfe\xff")):
		d.errorf(start, "the file is UTF-16; save it as UTF-8 without BOM")
	default:
		d.checkLines(string(data))
	}
	return len(d.errs) == 0
}

func (d *decoder) checkLines(text string) {
	line := 0
	for s := range strings.SplitSeq(text, "\n") {
		line++
		s = strings.TrimSuffix(s, "\r")
		if column, problem := badCharacter(s); problem != "" {
			d.errorf(pos{line, column}, "%s", problem)
			return
		}
		indent := s[:len(s)-len(strings.TrimLeft(s, " \t"))]
		if tab := strings.IndexByte(indent, '\t'); tab >= 0 && len(indent) < len(s) {
			d.errorf(pos{line, tab + 1}, "a tab in the indentation; YAML takes only spaces there")
		}
	}
}

// badCharacter finds the first byte or character of a line that no text has.
func badCharacter(s string) (column int, problem string) {
	for i, r := range s {
		column++
		switch {
		case r == utf8.RuneError && !strings.HasPrefix(s[i:], "\uFFFD"):
			return column, "not UTF-8; save the file as UTF-8 without BOM"
		case r != '\t' && unicode.IsControl(r), r == '\uFEFF':
			return column, "a control character; is this a text file?"
		}
	}
	return 0, ""
}

// syntaxError is what the YAML library's errors have in common.
type syntaxError interface {
	error
	GetMessage() string
	GetToken() *token.Token
}

func (d *decoder) parseYAML(text string) (file *ast.File, ok bool) {
	// A file of an operator is outside bytes to a library that was not written
	// for them: should it panic, that is an error in the file.
	defer func() {
		if recover() != nil {
			d.errorf(pos{1, 1}, "the file is not YAML: the parser gave up on it")
			ok = false
		}
	}()
	tokens := lexer.Tokenize(text)
	if !d.checkTokens(tokens) {
		return nil, false
	}
	// Repeated keys are found by object, which goes on to find the next ones.
	file, err := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
	if err == nil {
		return file, true
	}
	at, message := pos{1, 1}, "the parser gave up on it"
	if syntax, ok := errors.AsType[syntaxError](err); ok {
		message = strings.TrimSpace(syntax.GetMessage())
		if t := syntax.GetToken(); t != nil {
			at = tokenPos(t)
		}
	}
	d.errorf(at, "not YAML: %s%s", strings.ReplaceAll(message, "\t", `\t`), braceHint(text, at))
	return nil, false
}

// braceHint helps with the commonest syntax error of these files: {node} or
// ${NAME} without quotes, which begins a mapping.
func braceHint(text string, at pos) string {
	lines := strings.Split(text, "\n")
	if at.line > len(lines) {
		return ""
	}
	line := []rune(lines[at.line-1])
	i := at.column - 1
	if i < len(line) && line[i] == '{' || i > 0 && i <= len(line) && line[i-1] == '}' {
		return `; a value with braces needs quotes: "/ws/{node}", "${NAME}"`
	}
	return ""
}

// checkTokens refuses what the config does not use of YAML, and what would make
// parsing it take long.
func (d *decoder) checkTokens(tokens token.Tokens) bool {
	var n nesting
	var prev *token.Token
	count := 0
	for _, t := range tokens {
		if t.Type == token.CommentType {
			continue
		}
		if count++; count > maxTokens {
			d.errorf(tokenPos(t), "the file has more than %d words and signs", maxTokens)
			return false
		}
		if n.step(t, prev) > maxDepth {
			d.errorf(tokenPos(t), "nested deeper than %d levels", maxDepth)
			return false
		}
		d.checkToken(t, prev)
		prev = t
	}
	return len(d.errs) == 0
}

func (d *decoder) checkToken(t, prev *token.Token) {
	switch t.Type {
	case token.TagType:
		d.errorf(tokenPos(t), "tags are not supported; leave the word that begins with ! away, or put the value in quotes")
	case token.DirectiveType:
		d.errorf(tokenPos(t), "directives are not supported; leave the line that begins with %% away")
	case token.MappingKeyType:
		d.errorf(tokenPos(t), `keys with "?" are not supported; write "key: value"`)
	case token.MappingValueType:
		if prev != nil && len(prev.Value) > maxKey {
			d.errorf(tokenPos(prev), "a key of more than %d bytes", maxKey)
		}
	}
}

// nesting follows how deep the tokens stand in mappings and lists.
type nesting struct {
	flow    int   // open brackets and braces
	columns []int // of the block mappings and lists that are open, ascending
}

func (n *nesting) step(t, prev *token.Token) int {
	switch t.Type {
	case token.MappingStartType, token.SequenceStartType:
		n.flow++
	case token.MappingEndType, token.SequenceEndType:
		n.flow = max(n.flow-1, 0)
	case token.SequenceEntryType:
		n.block(t)
	case token.MappingValueType:
		if prev != nil {
			n.block(prev)
		}
	}
	return n.flow + len(n.columns)
}

func (n *nesting) block(t *token.Token) {
	if n.flow > 0 {
		return
	}
	column := t.Position.Column
	for len(n.columns) > 0 && n.columns[len(n.columns)-1] >= column {
		n.columns = n.columns[:len(n.columns)-1]
	}
	n.columns = append(n.columns, column)
}

func (d *decoder) onlyDocument(file *ast.File) (ast.Node, bool) {
	if len(file.Docs) > 1 {
		at := pos{1, 1}
		if start := file.Docs[1].Start; start != nil {
			at = tokenPos(start)
		}
		d.errorf(at, "a second YAML document begins here; the file holds one")
		return nil, false
	}
	if len(file.Docs) == 0 || isEmpty(file.Docs[0].Body) {
		d.errorf(pos{1, 1}, "the file is empty; it needs listeners and routes at least")
		return nil, false
	}
	return file.Docs[0].Body, true
}

func isEmpty(n ast.Node) bool {
	switch n.(type) {
	case nil, *ast.NullNode, *ast.CommentGroupNode:
		return true
	}
	return false
}

// aliases finds for every alias what it stands for, and how large the tree is
// with all of them written out, without writing them out.
type aliases struct {
	d       *decoder
	anchors map[string]anchored
	targets map[*ast.AliasNode]ast.Node
}

type anchored struct {
	node ast.Node
	size int
}

// resolve walks a node and gives its size. An anchor counts from its end on, so
// nothing can contain itself.
func (a *aliases) resolve(n ast.Node) (size int) {
	switch n := n.(type) {
	case *ast.AnchorNode:
		size = a.resolve(n.Value)
		a.anchors[n.Name.GetToken().Value] = anchored{a.follow(n.Value), size}
	case *ast.AliasNode:
		size = a.alias(n)
	case *ast.SequenceNode:
		for _, v := range n.Values {
			size += a.resolve(v)
		}
	case *ast.MappingNode:
		for _, v := range n.Values {
			size += a.resolve(v.Value)
		}
	}
	return min(size+1, maxExpanded+1)
}

func (a *aliases) alias(n *ast.AliasNode) (size int) {
	name := n.Value.GetToken().Value
	target, ok := a.anchors[name]
	if !ok {
		a.d.errorf(tokenPos(n.GetToken()), "alias *%s: no anchor &%s ends before it", brief(name), brief(name))
		return 0
	}
	a.targets[n] = target.node
	return target.size
}

// follow gives the node itself behind an anchor or an alias.
func (a *aliases) follow(n ast.Node) ast.Node {
	switch v := n.(type) {
	case *ast.AnchorNode:
		return a.follow(v.Value)
	case *ast.AliasNode:
		return a.targets[v]
	}
	return n
}

func tokenPos(t *token.Token) pos {
	if t == nil || t.Position == nil {
		return pos{1, 1}
	}
	return pos{t.Position.Line, t.Position.Column}
}
