package audit

import (
	"bytes"
	"cmp"
	"compress/flate"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"slices"
)

// Kind is what is wrong, or odd, at one place of an audit log.
type Kind string

// The kinds. Torn and Earlier are no signs of anybody having changed something.
const (
	Changed   Kind = "changed"   // a line is not what was written
	Rehashed  Kind = "rehashed"  // a line does not follow from the one before it: one of the two is not what was written
	Removed   Kind = "removed"   // lines From to To are not there
	Inserted  Kind = "inserted"  // a line was not written by the gateway
	Moved     Kind = "moved"     // a line stands elsewhere than it was written
	Foreign   Kind = "foreign"   // bytes that are no line
	Truncated Kind = "truncated" // the last file ends in the middle of a line
	Damaged   Kind = "damaged"   // a compressed file cannot be read beyond this line
	NewChain  Kind = "new_chain" // another chain begins: what came before it is not there, or was made anew
	Unkeyed   Kind = "unkeyed"   // a file was not written with the key
	Missing   Kind = "missing"   // the hash that was asked for is not there
	Torn      Kind = "torn"      // a line was being written when the gateway was ended; the line behind it says so
	Earlier   Kind = "earlier"   // the files begin in the middle of a chain: earlier ones were not given
)

// A Finding is one thing that Verify has seen.
type Finding struct {
	Kind     Kind
	File     string
	Line     int    // from 1; 0: the file as a whole
	From, To uint64 // numbers of the lines concerned, where they have some
}

// Suspicious tells findings from remarks.
func (f Finding) Suspicious() bool { return f.Kind != Torn && f.Kind != Earlier }

// A Result is what Verify has seen.
type Result struct {
	Files      []string // in the order of the chain
	Lines      int64
	Unproven   int64 // lines of which nothing can be said, behind removed ones
	From, To   uint64
	First      string // the times of the first line and the last
	Last       string
	Hash       string // of the last line; note it elsewhere, and give it as Contains the next time
	Closed     bool   // the last line is the one that the gateway ends a log with
	Findings   []Finding
	More       int64 // findings beyond those
	Suspicious int64 // findings of all, but for remarks
}

// What cannot be checked.
var (
	ErrNoKey     = errors.New("the lines were hashed with a key: give its file")
	ErrOtherKey  = errors.New("the lines were hashed with another key than the one given")
	ErrUnchained = errors.New("the lines are not chained (audit.chain: false): nothing shows in them")
	ErrNotAudit  = errors.New("no line of an audit log is in it")
)

// Options of Verify.
type Options struct {
	Key      []byte // nil: there is none
	Contains string // a hash noted before, in hexadecimal: that line must be there
	Progress func(done, total int64)
}

const maxFindings = 1000

// Verify checks the files of one audit log, compressed or not, in whichever order
// they are given. An error means that they could not be checked.
//
// A file that is being written may be checked as well.
func Verify(names []string, o Options) (*Result, error) {
	files, err := inOrder(names)
	if err != nil {
		return nil, err
	}
	v := &verifier{options: o}
	for _, f := range files {
		v.total += f.size
		v.result.Files = append(v.result.Files, f.name)
	}
	for i, f := range files {
		if err := v.file(f.name, i == len(files)-1); err != nil {
			return nil, fmt.Errorf("%s: %w", f.name, err)
		}
	}
	if o.Contains != "" && !v.contained {
		v.find(Finding{Kind: Missing})
	}
	v.result.Last = timeOf(v.body)
	return &v.result, nil
}

// A chainFile is a file with what its beginning says.
type chainFile struct {
	name  string
	size  int64
	seq   uint64
	chain string
	time  string
}

// inOrder sorts files as their lines follow each other: chains by their first
// file's time, files by the number of their first line. One that does not begin
// as it should is taken to belong to the chain of the one before it.
func inOrder(names []string) ([]chainFile, error) {
	files := make([]chainFile, 0, len(names))
	for _, name := range names {
		f, err := beginningOf(name)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		files = append(files, f)
	}
	began := map[string]string{}
	last := ""
	for i := range files {
		f := &files[i]
		f.chain = cmp.Or(f.chain, last, firstChain(files))
		last = f.chain
		if was, ok := began[f.chain]; !ok || f.time < was {
			began[f.chain] = f.time
		}
	}
	slices.SortStableFunc(files, func(a, b chainFile) int {
		return cmp.Or(cmp.Compare(began[a.chain], began[b.chain]), cmp.Compare(a.chain, b.chain), cmp.Compare(a.seq, b.seq))
	})
	for i := 1; i < len(files); i++ {
		if a, b := files[i-1], files[i]; a.chain == b.chain && a.seq == b.seq && a.seq > 0 {
			return nil, fmt.Errorf("%s and %s begin with the same line; give one of them", a.name, b.name)
		}
	}
	return files, nil
}

func firstChain(files []chainFile) string {
	for _, f := range files {
		if f.chain != "" {
			return f.chain
		}
	}
	return ""
}

func beginningOf(name string) (chainFile, error) {
	f := chainFile{name: name}
	info, err := os.Stat(name)
	if err != nil {
		return f, err
	}
	f.size = info.Size()
	r, err := OpenFile(name)
	if err != nil {
		return f, err
	}
	defer r.Close()
	lines := newLineReader(r)
	for range 1000 {
		line, err := lines.next()
		if s, ok := parse(bytes.TrimSuffix(line, []byte("\n"))); ok {
			o, _ := openedOf(s)
			f.seq, f.chain, f.time = s.seq, o.ChainID, timeOf(s.body)
			return f, nil
		}
		if err != nil {
			break
		}
	}
	if f.size == 0 {
		return f, nil // as others make one when they rotate
	}
	return f, ErrNotAudit
}

// timeOf is the time that a line's body says; "": none.
func timeOf(body []byte) string {
	var line struct{ Time string }
	if json.Unmarshal(append(append([]byte(nil), body...), '}'), &line) != nil {
		return ""
	}
	return line.Time
}

// A verifier goes through lines in their order.
type verifier struct {
	options   Options
	result    Result
	contained bool

	name  string
	line  int
	chain string // of the file
	id    string
	hash  hash.Hash
	buf   []byte

	begun   bool
	lastSeq uint64
	recent  []entry // lines that others may follow, the last one last
	foreign foreign
	total   int64
	done    int64
	body    []byte // of the last line
}

// An entry is a line that was seen.
type entry struct {
	seq      uint64
	file     string
	line     int
	stored   digest
	computed digest // what its hash should have been; the same where it is good
	lost     bool   // its hash is not known for certain, so who follows cannot be judged
	finding  int    // index of the one about it; -1: there is none
}

// maxRecent is behind how many inserted lines the one is found that they stand behind.
const maxRecent = 4096

// foreign are bytes that are no line, until it is known why they are there.
type foreign struct {
	file        string
	line, lines int
	sum         hash.Hash
	held        bool // a line break that ends them, if nothing follows
	stored      []digest
}

func (v *verifier) file(name string, last bool) error {
	r, count, err := openCounting(name)
	if err != nil {
		return err
	}
	defer r.Close()
	v.name, v.line = name, 0
	lines := newLineReader(r)
	for {
		line, err := lines.next()
		if len(line) > 0 {
			v.line++
			if err := v.take(line); err != nil {
				return err
			}
		}
		if v.options.Progress != nil && (v.line%4096 == 0 || err != nil) {
			v.options.Progress(v.done+count.n, v.total)
		}
		if err == nil {
			continue
		}
		if err != io.EOF {
			if !isDamage(err) {
				return err
			}
			if len(line) > 0 && v.foreign.lines == 1 {
				v.foreign = foreign{} // the beginning of a line
			}
			v.flush()
			v.find(Finding{Kind: Damaged, File: name, Line: v.line})
		} else if len(line) > 0 && v.foreign.lines > 0 && last {
			v.cut(name, count.n)
		}
		break
	}
	v.done += count.n
	if last {
		v.flush()
	}
	return nil
}

// isDamage tells a compressed file that is broken from one that cannot be read.
func isDamage(err error) bool {
	var corrupt flate.CorruptInputError
	return errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, gzip.ErrChecksum) || errors.Is(err, gzip.ErrHeader) || errors.As(err, &corrupt)
}

// cut judges a file that ends in the middle of a line: it may be being written.
func (v *verifier) cut(name string, read int64) {
	growing := false
	if info, err := os.Stat(name); err == nil {
		growing = info.Size() > read
	}
	if v.foreign.lines == 1 {
		v.foreign = foreign{}
		if !growing {
			v.find(Finding{Kind: Truncated, File: name, Line: v.line})
		}
	}
}

// take judges the next line.
func (v *verifier) take(raw []byte) error {
	line := bytes.TrimSuffix(raw, []byte("\n"))
	s, ok := parse(line)
	if !ok {
		v.stranger(raw)
		return nil
	}
	v.result.Lines++
	head, isHead := openedOf(s)
	if isHead {
		if err := v.follow(&head); err != nil {
			return err
		}
	}
	if v.hash == nil && v.chain == "" {
		return v.headless(s)
	}
	e := entry{seq: s.seq, file: v.name, line: v.line, stored: s.hash, finding: -1}
	v.account(&e, s, isHead, &head)
	switch {
	case v.chain == chainNone:
		v.unchained(&e)
	case !s.chained:
		v.missed(&e)
		if n := len(v.recent); n > 0 {
			e.computed, v.buf = sumOf(v.hash, v.recent[n-1].stored, s.body, v.buf)
		}
		e.lost = true
		e.finding = v.find(Finding{Kind: Changed, File: v.name, Line: v.line, From: s.seq})
	case s.seq <= v.lastSeq && v.find1(s.seq, func(c *entry) bool { return c.finding < 0 && c.stored == s.hash }) >= 0:
		v.find(Finding{Kind: Inserted, File: v.name, Line: v.line, From: s.seq}) // it stands twice
		return nil
	case isHead:
		v.opening(&e, s, &head)
	default:
		v.ordinary(&e, s)
	}
	v.remember(e, s)
	return nil
}

// follow takes over what a line says of how the ones behind it are hashed.
func (v *verifier) follow(head *opened) error {
	switch {
	case head.Chain == chainSecret && v.options.Key == nil:
		return ErrNoKey
	case head.Chain == chainSecret && head.KeyID != keyID(v.options.Key):
		return ErrOtherKey
	case head.Chain == chainNone && v.options.Key == nil:
		return ErrUnchained
	case head.Chain != chainSecret && head.Chain != chainPlain && head.Chain != chainNone:
		head.Chain = cmp.Or(v.chain, v.expected()) // somebody has changed it
	}
	if v.options.Key != nil && head.Chain != chainSecret {
		v.find(Finding{Kind: Unkeyed, File: v.name, Line: v.line})
	}
	if head.Chain != v.chain {
		v.chain, v.hash = head.Chain, hashOf(head.Chain, v.options.Key)
	}
	return nil
}

// expected is how lines are hashed that nothing is said of.
func (v *verifier) expected() string {
	if v.options.Key != nil {
		return chainSecret
	}
	return chainPlain
}

// headless judges the first line of all where it is not the one that files
// begin with.
func (v *verifier) headless(s sealed) error {
	if !s.chained {
		return ErrUnchained
	}
	v.chain = v.expected()
	v.hash = hashOf(v.chain, v.options.Key)
	v.account(nil, s, false, nil)
	v.find(Finding{Kind: Removed, File: v.name, Line: v.line, From: 0, To: s.seq - 1})
	v.result.Unproven++
	v.remember(entry{seq: s.seq, file: v.name, line: v.line, stored: s.hash, computed: s.hash, finding: -1}, s)
	return nil
}

// opening judges a line that a file or a start begins with. It can be judged by
// itself, as it repeats the hash of the line before it.
func (v *verifier) opening(e *entry, s sealed, head *opened) {
	prev, ok := head.prev()
	if ok {
		e.computed, v.buf = sumOf(v.hash, prev, s.body, v.buf)
	}
	if !ok || e.computed != e.stored {
		kind := Changed
		if v.begun && s.seq <= v.lastSeq {
			kind = Inserted
		}
		v.missed(e)
		e.finding = v.find(Finding{Kind: kind, File: v.name, Line: v.line, From: s.seq})
		return
	}
	from := v.find1(s.seq-1, func(c *entry) bool { return c.stored == prev || c.computed == prev })
	switch {
	case !v.begun && (s.seq > 1 || prev != digest{}):
		v.find(Finding{Kind: Earlier, File: v.name, Line: v.line, From: s.seq})
	case !v.begun:
	case from >= 0:
		v.between(from, e)
	case head.ChainID != v.id && s.seq == 1:
		e.finding = v.find(Finding{Kind: NewChain, File: v.name, Line: v.line, From: s.seq})
	case s.seq > v.lastSeq+1:
		v.find(Finding{Kind: Removed, File: v.name, Line: v.line, From: v.lastSeq + 1, To: s.seq - 1})
	default:
		e.finding = v.find(Finding{Kind: Rehashed, File: v.name, Line: v.line, From: s.seq})
	}
}

// ordinary judges any other line, by the one that it follows.
func (v *verifier) ordinary(e *entry, s sealed) {
	from := v.find1(s.seq-1, func(c *entry) bool {
		for _, prev := range [...]digest{c.stored, c.computed} {
			if e.computed, v.buf = sumOf(v.hash, prev, s.body, v.buf); e.computed == e.stored {
				return true
			}
		}
		return false
	})
	switch {
	case from >= 0:
		v.between(from, e)
	case s.seq > v.lastSeq+1:
		v.find(Finding{Kind: Removed, File: v.name, Line: v.line, From: v.lastSeq + 1, To: s.seq - 1})
		v.result.Unproven++
		e.computed = e.stored
	case s.seq <= v.lastSeq:
		e.finding = v.find(Finding{Kind: Inserted, File: v.name, Line: v.line, From: s.seq})
	case v.last().lost:
		v.result.Unproven++
		e.computed = e.stored
	case v.options.Key == nil && v.last().finding < 0:
		e.finding = v.find(Finding{Kind: Rehashed, File: v.name, Line: v.line, From: s.seq})
	default:
		e.finding = v.find(Finding{Kind: Changed, File: v.name, Line: v.line, From: s.seq})
	}
}

// last is the line before.
func (v *verifier) last() entry {
	if len(v.recent) == 0 {
		return entry{lost: true}
	}
	return v.recent[len(v.recent)-1]
}

// unchained judges a line of a log that is only numbered.
func (v *verifier) unchained(e *entry) {
	switch {
	case !v.begun:
	case e.seq > v.lastSeq+1:
		v.missed(e)
	case e.seq <= v.lastSeq:
		e.finding = v.find(Finding{Kind: Inserted, File: v.name, Line: v.line, From: e.seq})
	}
}

// missed reports lines that are not there before this one.
func (v *verifier) missed(e *entry) {
	if v.begun && e.seq > v.lastSeq+1 {
		v.find(Finding{Kind: Removed, File: v.name, Line: v.line, From: v.lastSeq + 1, To: e.seq - 1})
	}
}

// find1 is the last of the recent lines that has this number and fits; -1: there is none.
func (v *verifier) find1(seq uint64, fits func(*entry) bool) int {
	for i := len(v.recent) - 1; i >= 0; i-- {
		if v.recent[i].seq == seq && fits(&v.recent[i]) {
			return i
		}
	}
	return -1
}

// between judges the lines that stand between one and the line that follows from
// it: nobody follows from them.
func (v *verifier) between(from int, e *entry) {
	if f := v.recent[from].finding; f >= 0 && f < len(v.result.Findings) && v.result.Findings[f].Kind == Inserted {
		v.result.Findings[f].Kind = Moved // somebody follows from it
	}
	for i := from + 1; i < len(v.recent); i++ {
		c := &v.recent[i]
		if c.seq < e.seq {
			continue
		}
		if c.finding >= 0 && c.finding < len(v.result.Findings) {
			v.result.Findings[c.finding].Kind = Inserted
		} else if c.finding < 0 {
			c.finding = v.find(Finding{Kind: Inserted, File: c.file, Line: c.line, From: c.seq})
		}
	}
}

// remember makes the line one that others may follow.
func (v *verifier) remember(e entry, s sealed) {
	if len(v.recent) >= 2*maxRecent {
		v.recent = v.recent[:copy(v.recent, v.recent[maxRecent:])]
	}
	v.recent = append(v.recent, e)
	v.contained = v.contained || v.options.Contains != "" && hex.EncodeToString(e.stored[:]) == v.options.Contains
	r := &v.result
	if !v.begun {
		v.begun, r.From, r.First = true, s.seq, timeOf(s.body)
	}
	if o, ok := openedOf(s); ok {
		v.id = o.ChainID
	}
	if e.finding >= 0 && e.finding < len(r.Findings) && r.Findings[e.finding].Kind == Inserted {
		return
	}
	v.lastSeq = s.seq
	v.body = append(v.body[:0], s.body...)
	r.To, r.Hash = s.seq, ""
	if s.chained {
		r.Hash = s.hash.String()
	}
	r.Closed = bytes.Contains(s.body, []byte(`"event":"`+eventClosed+`"`))
}

// stranger notes bytes that are no line.
func (v *verifier) stranger(raw []byte) {
	f := &v.foreign
	if f.lines == 0 {
		*f = foreign{file: v.name, line: v.line, sum: sha256.New()}
	}
	f.lines++
	if f.held {
		io.WriteString(f.sum, "\n")
	}
	line, broken := bytes.CutSuffix(raw, []byte("\n"))
	f.sum.Write(line)
	f.held = broken
	// A line that was damaged may have kept its hash.
	if tail := len(line) - hashTail; tail > 0 && bytes.HasPrefix(line[tail:], []byte(hashSign)) && len(f.stored) < maxRecent {
		var d digest
		if _, err := hex.Decode(d[:], line[tail+len(hashSign):len(line)-2]); err == nil {
			f.stored = append(f.stored, d)
		}
	}
}

// account says what bytes before a line are that are none: e is that line.
func (v *verifier) account(e *entry, s sealed, isHead bool, head *opened) {
	f := v.foreign
	if f.lines == 0 {
		return
	}
	v.foreign = foreign{}
	switch {
	case isHead && head.TornHash == hex.EncodeToString(f.sum.Sum(nil)):
		v.find(Finding{Kind: Torn, File: f.file, Line: f.line})
	case e != nil && v.begun && s.seq == v.lastSeq+uint64(f.lines)+1:
		// As many as there are numbers missing: they are the lines, damaged.
		for i := range f.lines {
			c := entry{seq: v.lastSeq + 1, file: f.file, line: f.line + i, lost: len(f.stored) != f.lines}
			if !c.lost {
				c.stored, c.computed = f.stored[i], f.stored[i]
			}
			c.finding = v.find(Finding{Kind: Changed, File: f.file, Line: c.line, From: c.seq})
			v.recent = append(v.recent, c)
			v.lastSeq = c.seq
		}
	default:
		v.find(Finding{Kind: Foreign, File: f.file, Line: f.line, From: uint64(f.lines)})
	}
}

// flush reports bytes that no line follows.
func (v *verifier) flush() {
	if f := v.foreign; f.lines > 0 {
		v.foreign = foreign{}
		v.find(Finding{Kind: Foreign, File: f.file, Line: f.line, From: uint64(f.lines)})
	}
}

// find notes a finding and gives its index.
func (v *verifier) find(f Finding) int {
	r := &v.result
	if f.Suspicious() {
		r.Suspicious++
	}
	if len(r.Findings) >= maxFindings {
		r.More++
		return maxFindings // it is known that there is one
	}
	r.Findings = append(r.Findings, f)
	return len(r.Findings) - 1
}
