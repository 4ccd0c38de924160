package audit

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

// A journal is the file that is written now, and where its chain has come to. It
// is its owner's alone.
type journal struct {
	cfg     Config
	disk    disk
	now     func() time.Time
	host    string
	version string
	chain   string // how hashes are made
	key     []byte

	sealer
	known   bool // the state is; it is from the first opening on
	chainID string

	file    handle // nil: none is open
	info    os.FileInfo
	size    int64 // of what is whole
	records int   // lines beside those of openings
	day     string
	dirty   bool // something was written since the last fsync
}

func newJournal(cfg Config, version string, d disk) (*journal, error) {
	key, err := readKey(cfg)
	if err != nil {
		return nil, err
	}
	host, _ := os.Hostname() // without one the line says so
	j := &journal{cfg: cfg, disk: d, now: time.Now, host: host, version: version, chain: chainNone, key: key}
	if cfg.Chain {
		j.chain = chainPlain
		if key != nil {
			j.chain = chainSecret
		}
	}
	j.sealer.hash = hashOf(j.chain, key)
	return j, nil
}

// open opens the file, or makes it, and writes the line that openings begin with.
// At the start it finds out where the chain has come to.
func (j *journal) open(reason string) error {
	f, err := j.disk.open(j.cfg.File)
	if err != nil {
		return err
	}
	err = j.begin(f, reason)
	if err != nil {
		f.Close()
		j.file = nil
	}
	return err
}

func (j *journal) begin(f handle, reason string) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	end, err := tailOf(f, info.Size())
	if err != nil {
		return err
	}
	if info.Size() > 0 && !end.found {
		return fmt.Errorf("%s is not an audit log: none of its last lines is one; name another file, or move this one away", j.cfg.File)
	}
	day := j.today()
	if end.found {
		first, err := firstOf(f)
		if err != nil {
			return err
		}
		if first.Chain != j.chain || first.KeyID != keyID(j.key) {
			return j.leave(f, end, first)
		}
		if !j.known {
			j.state, j.chainID = end.state, first.ChainID
		}
		day = cmp.Or(dayOf(first.Time), day)
	} else if !j.known {
		j.state, j.chainID = predecessor(j.cfg.File)
	}
	j.known = true
	if j.chainID == "" {
		j.chainID = newChainID()
	}
	j.file, j.info, j.size, j.day, j.records = f, info, info.Size(), day, 0
	if end.found {
		j.records = 1 // it may well be
	}
	return j.head(reason, end)
}

// leave moves a file away that was written with another kind of hashes, and
// begins one of the kind that is asked for; the chain goes on.
func (j *journal) leave(f handle, end tail, first opened) error {
	if !j.known {
		j.state, j.chainID, j.known = end.state, first.ChainID, true
	}
	if err := j.disk.rename(j.cfg.File, rotatedName(j.cfg.File, j.now(), j.seq)); err != nil {
		return err
	}
	f.Close()
	return j.open(becauseStart)
}

// head writes the line that openings begin with.
func (j *journal) head(reason string, end tail) error {
	o := opened{
		Time: j.now().Format(TimeLayout), Event: eventOpened, Success: true, Reason: reason, Format: 1,
		Chain: j.chain, KeyID: keyID(j.key), ChainID: j.chainID, Prev: j.last.String(),
		Host: j.host, PID: os.Getpid(), Version: j.version,
	}
	if end.torn > 0 {
		o.TornBytes, o.TornHash = end.torn, end.sum
	}
	object, err := json.Marshal(o)
	if err != nil {
		return err
	}
	var line []byte
	if end.open {
		line = append(line, '\n')
	}
	before := j.state
	line = j.append(line, object)
	if kept, err := j.write(line); err != nil {
		if kept < len(line)-1 {
			j.state = before
		}
		return err
	}
	return nil
}

// write appends whole lines. What was written of them when it fails is taken
// back. Where that fails too the file is given up, and so many bytes of the lines
// stay in it; its next opening tells of those that are no whole line.
func (j *journal) write(lines []byte) (kept int, err error) {
	n, err := j.file.Write(lines)
	if err == nil {
		j.size += int64(n)
		j.dirty = true
		return n, nil
	}
	if n > 0 && j.file.Truncate(j.size) != nil {
		j.abandon()
		return n, err
	}
	return 0, err
}

// wholeLines is how many lines begin in the first n bytes and are whole there,
// but for a line break.
func wholeLines(lines []byte, n int) int {
	count := bytes.Count(lines[:n], []byte("\n"))
	if n > 0 && n < len(lines) && lines[n] == '\n' {
		count++
	}
	return count
}

// abandon closes the file for which an error has shown that it is in an unknown state.
func (j *journal) abandon() {
	if j.file != nil {
		j.file.Close()
		j.file = nil
	}
}

// sync brings what was written to the disk.
func (j *journal) sync() error {
	if j.file == nil || !j.dirty {
		return nil
	}
	if err := j.file.Sync(); err != nil {
		j.abandon() // nobody knows what of it is on the disk
		return err
	}
	j.dirty = false
	return nil
}

// ours tells whether the file of that name is still the one that is open, with
// what was written to it and nothing else.
func (j *journal) ours() bool {
	info, err := j.disk.stat(j.cfg.File)
	return err == nil && os.SameFile(info, j.info) && info.Size() == j.size
}

// due tells whether it is time for another file.
func (j *journal) due() bool {
	return j.records > 0 && (j.size >= j.cfg.MaxSize || j.day != j.today())
}

// rotate goes on in another file.
func (j *journal) rotate() error {
	if err := j.sync(); err != nil {
		return err
	}
	if err := j.disk.rename(j.cfg.File, rotatedName(j.cfg.File, j.now(), j.seq)); err != nil {
		return err
	}
	j.abandon()
	return j.open(becauseRotated)
}

func (j *journal) today() string { return j.now().Format(time.DateOnly) }

// dayOf is the day of a line's time here; "": it has none.
func dayOf(text string) string {
	t, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		return ""
	}
	return t.Local().Format(time.DateOnly)
}

func newChainID() string {
	var b [8]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// A tail is how a file ends.
type tail struct {
	found bool // there is a line of ours
	state      // of the last one
	torn  int64
	sum   string // hash of the torn bytes behind it
	open  bool   // the file does not end with a line break
}

// maxTail is how far from its end a file is searched for its last line.
const maxTail = 16 * maxLine

// tailOf finds the last line that is one of ours, and what follows it.
func tailOf(f io.ReaderAt, size int64) (t tail, err error) {
	from := max(0, size-maxTail)
	text := make([]byte, size-from)
	if _, err := f.ReadAt(text, from); err != nil && err != io.EOF {
		return t, err
	}
	t.open = len(text) > 0 && text[len(text)-1] != '\n'
	if s, ok := parse(text[bytes.LastIndexByte(text, '\n')+1:]); ok { // only its line break is missing
		t.found, t.state = true, state{s.seq, s.hash}
		return t, nil
	}
	for end := bytes.LastIndexByte(text, '\n'); end >= 0; {
		begin := bytes.LastIndexByte(text[:end], '\n') + 1
		if s, ok := parse(text[begin:end]); ok {
			rest := text[end+1:]
			t.found, t.state = true, state{s.seq, s.hash}
			if t.torn = int64(len(rest)); t.torn > 0 {
				t.sum = tornSum(rest)
			}
			return t, nil
		}
		end = begin - 1
	}
	return t, nil
}

// tornSum is the hash of bytes that are no line, whether or not a line break has
// been put behind them.
func tornSum(b []byte) string {
	sum := sha256.Sum256(bytes.TrimSuffix(b, []byte("\n")))
	return hex.EncodeToString(sum[:])
}

// firstOf is what the first line of a file says of its chain.
func firstOf(f io.ReaderAt) (o opened, err error) {
	head := make([]byte, 4<<10)
	n, err := f.ReadAt(head, 0)
	if err != nil && err != io.EOF {
		return o, err
	}
	line, _, _ := bytes.Cut(head[:n], []byte("\n"))
	s, ok := parse(line)
	if !ok {
		return o, nil // somebody has changed it: verify will say so
	}
	o, _ = openedOf(s)
	return o, nil
}

// predecessor is where the newest of the files beside this one ends, whoever
// rotated it. Without any it is the beginning of a chain.
func predecessor(name string) (state, string) {
	for i, other := range siblings(name) {
		if i == 4 {
			break
		}
		if end, id, ok := endOf(other); ok {
			return end, id
		}
	}
	return state{}, ""
}

// endOf is where a file that is not written any more ends.
func endOf(name string) (end state, chainID string, ok bool) {
	r, err := OpenFile(name)
	if err != nil {
		return end, "", false
	}
	defer r.Close()
	lines := newLineReader(r)
	for {
		line, err := lines.next()
		if s, good := parse(bytes.TrimSuffix(line, []byte("\n"))); good {
			end, ok = state{s.seq, s.hash}, true
			if o, first := openedOf(s); first && o.ChainID != "" {
				chainID = o.ChainID
			}
		}
		if err != nil {
			return end, chainID, ok && errors.Is(err, io.EOF)
		}
	}
}

// rotatedName is that of a file which is not written any more. The number of its
// last line makes it one of its kind.
func rotatedName(name string, now time.Time, seq uint64) string {
	stem, ext := splitName(name)
	return fmt.Sprintf("%s-%s-%012d%s", stem, now.Format("20060102T150405"), seq, ext)
}

// splitName takes the extension off a name.
func splitName(name string) (stem, ext string) {
	slash := strings.LastIndexAny(name, `/\`)
	if dot := strings.LastIndexByte(name, '.'); dot > slash+1 {
		return name[:dot], name[dot:]
	}
	return name, ""
}
