// Package bosh knows the messages of BOSH (XEP-0124): the opening tag of a
// <body/>, and how the session id in it can carry the node that created the
// session. It knows nothing of HTTP and imports nothing of this module.
package bosh

import (
	"bytes"
)

// MaxTag bounds the opening tag of a message, with what may stand before it.
// Those of the known clients and servers stay below 1 KiB.
const MaxTag = 8 << 10

// A Tag is the opening tag of a message, as far as a proxy needs it. Its texts
// are as they stand between the quotes, references not resolved.
type Tag struct {
	SID        string // "" when there is none
	Type       string
	Condition  string
	Inactivity string

	sidEnd int // where the value of sid ends in the message
}

// Ends tells whether the message ends its session (XEP-0124 section 13).
func (t *Tag) Ends() bool { return t.Type == "terminate" }

// WithSID is a copy of the message, or of its beginning, with another value of
// sid. There must be one.
func (t *Tag) WithSID(message []byte, sid string) []byte {
	start := t.sidEnd - len(t.SID)
	changed := make([]byte, 0, len(message)+len(sid)-len(t.SID))
	changed = append(changed, message[:start]...)
	changed = append(changed, sid...)
	return append(changed, message[t.sidEnd:]...)
}

// A Form is how a message is sent.
type Form int

// Plain is a message as it is. Script is one within a call of JavaScript, as
// XEP-0252 has it for answers: _BOSH_("<body …/>").
const (
	Plain Form = iota
	Script
)

// Outcome says what Parse found.
type Outcome int

// Found is an opening tag that is whole. More means that there may be one, but
// it goes on behind the end. None means that there is none, or that it is
// malformed.
const (
	Found Outcome = iota
	More
	None
)

// Parse reads the opening tag at the beginning of a message, behind white space
// and an XML declaration at most. Of a tag that is longer than MaxTag it says
// None. It never looks beyond the tag.
func Parse(message []byte, form Form) (Tag, Outcome) {
	s := scanner{text: message, script: form == Script}
	tag, out := s.tag()
	if out == More && len(message) >= MaxTag || s.at > MaxTag {
		out = None
	}
	if out != Found {
		return Tag{}, out
	}
	return tag, Found
}

// A scanner walks over a message. Each of its steps tells what it found and
// leaves at behind that.
type scanner struct {
	text   []byte
	at     int
	script bool
}

func (s *scanner) tag() (Tag, Outcome) {
	if out := s.start(); out != Found {
		return Tag{}, out
	}
	var t Tag
	seen := map[string]bool{}
	for {
		spaced := s.space()
		end, out := s.end()
		if out != Found || end {
			return t, out
		}
		name, value, out := s.attribute()
		if out != Found {
			return t, out
		}
		if !spaced || seen[name] {
			return t, None
		}
		seen[name] = true
		t.take(name, value, s.at-s.quoteLength())
	}
}

// take notes an attribute whose value ends at the position end.
func (t *Tag) take(name, value string, end int) {
	switch name {
	case "sid":
		t.SID, t.sidEnd = value, end
	case "type":
		t.Type = value
	case "condition":
		t.Condition = value
	case "inactivity":
		t.Inactivity = value
	}
}

// start goes behind "<body".
func (s *scanner) start() Outcome {
	s.space()
	if s.script {
		if out := s.literal(`_BOSH_("`); out != Found {
			return out
		}
	} else if out := s.literal("\xef\xbb\xbf"); out == More {
		return More
	}
	s.space()
	if out := s.literal("<?xml"); out == More {
		return More
	} else if out == Found {
		end := bytes.Index(s.text[s.at:], []byte("?>"))
		if end < 0 {
			return More
		}
		s.at += end + 2
		s.space()
	}
	return s.literal("<body")
}

// literal goes behind what is next; it tells More where the text ends within it.
func (s *scanner) literal(what string) Outcome {
	rest := s.text[s.at:]
	switch {
	case bytes.HasPrefix(rest, []byte(what)):
		s.at += len(what)
		return Found
	case len(rest) < len(what) && bytes.HasPrefix([]byte(what), rest):
		return More
	}
	return None
}

// space goes over white space and tells whether there was any.
func (s *scanner) space() bool {
	before := s.at
	for s.at < len(s.text) && isSpace(s.text[s.at]) {
		s.at++
	}
	return s.at > before
}

func isSpace(c byte) bool { return c == ' ' || c == '\t' || c == '\r' || c == '\n' }

// end goes behind the end of the tag, if that is next.
func (s *scanner) end() (bool, Outcome) {
	for _, what := range []string{">", "/>", `\/>`} {
		if what[0] == '\\' && !s.script {
			break
		}
		if out := s.literal(what); out != None {
			return true, out
		}
	}
	return false, Found
}

// attribute goes behind name="value".
func (s *scanner) attribute() (name, value string, out Outcome) {
	start := s.at
	for s.at < len(s.text) && isName(s.text[s.at]) {
		s.at++
	}
	name = string(s.text[start:s.at])
	s.space()
	if s.at == len(s.text) {
		return "", "", More
	}
	if name == "" || s.text[s.at] != '=' {
		return "", "", None
	}
	s.at++
	s.space()
	quote, out := s.quote()
	if out != Found {
		return "", "", out
	}
	n := bytes.Index(s.text[s.at:], quote)
	if n < 0 {
		n = len(s.text) - s.at
		out = More
	}
	if bytes.IndexByte(s.text[s.at:s.at+n], '<') >= 0 {
		return "", "", None
	}
	if out == More {
		return "", "", More
	}
	value = string(s.text[s.at : s.at+n])
	s.at += n + len(quote)
	return name, value, Found
}

// isName tells whether a byte may be in the name of an attribute; which names
// are well-formed is for the server to judge.
func isName(c byte) bool {
	return c > ' ' && c != 0x7f && bytes.IndexByte([]byte(`"'<>/=&\`), c) < 0
}

// quote goes behind what begins a value and must end it.
func (s *scanner) quote() ([]byte, Outcome) {
	quotes := []string{"'", `"`}
	if s.script {
		quotes[1] = `\"`
	}
	for _, q := range quotes {
		if out := s.literal(q); out != None {
			return []byte(q), out
		}
	}
	return nil, None
}

// quoteLength is that of the quote just passed.
func (s *scanner) quoteLength() int {
	if s.text[s.at-1] == '"' && s.script {
		return 2
	}
	return 1
}
