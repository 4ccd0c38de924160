// Package audit keeps the audit log: lines of JSON that say who did what and
// what came of it, in a file that is rotated, compressed, kept for as long as the
// config says, and chained by hashes so that a later change shows; and beside it,
// as a best effort, in a collector that speaks syslog.
//
// Whoever notes a line never waits: lines go into bounded queues, each of which
// one goroutine empties. What cannot be written any more is counted, and a line
// of the audit log itself says so when there is room again.
//
// A line is what it was given, one JSON object, with its number in front and its
// hash behind:
//
//	{"seq":12,"time":"…",…,"hash":"…"}
//
// The hash is SHA-256, or HMAC-SHA-256 with a key from a file, over the hash of
// the line before, 32 bytes, and the line up to the comma before its own hash. A
// file begins with a line (event audit_opened) that repeats the hash of the last
// line of the file before; so does every start and every reopening. See Verify.
//
// The package is a leaf: it knows nothing of gateways, nor of what lines say.
package audit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
)

// Config says where the audit log is and what becomes of it.
type Config struct {
	At       string // where it is written, "singlegate.yaml:3:5"; begins every error about it
	File     string
	MaxSize  int64         // bytes, about, after which another file is begun; it is at midnight too
	Keep     time.Duration // how long files are kept; 0: for ever
	Compress bool          // those that are not written any more
	Chain    bool
	KeyFile  string  // makes the hashes HMACs; "": they are plain ones
	Refuse   bool    // serve nothing new while nothing can be noted; else go on, and count
	Syslog   *Syslog // nil: there is none
}

// Default is a Config that lacks its file only.
func Default() Config {
	return Config{MaxSize: 100_000_000, Keep: MinKeep, Compress: true, Chain: true}
}

// MinKeep is for how long boundary devices have to keep their logs, by article
// 21 of the Cybersecurity Law of China and GB/T 22239: six months.
const MinKeep = 180 * 24 * time.Hour

// Bounds and rhythms.
const (
	queueLimit = 8 << 20 // bytes that may wait for the file, and as many for the collector
	maxLine    = 64 << 10
	chunk      = 256 << 10             // bytes of one write, about
	lingering  = 20 * time.Millisecond // for further lines of the same write
	rhythm     = time.Second           // of looking after the file, of fsync, and of trying again
	stuckAfter = 5 * time.Second       // a disk that takes longer for one write counts as failing
)

// TimeLayout is RFC 3339 with milliseconds and zone, as in every line.
const TimeLayout = "2006-01-02T15:04:05.000Z07:00"

// A Log takes the lines. Its methods are safe for concurrent use and, but for
// Open and Close, never wait.
type Log struct {
	cfg     Config
	log     zerolog.Logger
	lines   *queue
	journal *journal
	syslog  *sender // nil: there is none
	archive *archive

	failing  atomic.Pointer[string] // why the file takes nothing now; nil: it does
	busy     atomic.Int64           // unix nanoseconds: when the disk was asked for what it still does; 0: it does nothing
	refused  atomic.Int64           // requests since the last line that tells of such
	written  atomic.Int64
	dropped  atomic.Int64
	errors   atomic.Int64
	reopen   chan struct{}
	closing  chan struct{}
	once     sync.Once
	done     chan struct{}
	retry    time.Duration // rhythm, but for tests
	stuck    time.Duration // stuckAfter, likewise
	complete bool          // everything is in the file; to be read when done is closed

	// The owner's alone.
	taken   []byte // from the queue
	batch   []byte // what of it is not written yet
	missed  loss   // behind it
	out     []byte // what is being written
	fault   error  // why the file takes nothing; nil: it does
	untold  error  // the last fault of which there is no line yet
	retryAt time.Time
	moved   time.Time // when a rotation failed last

	wroteAt, syncedAt time.Time

	anchored   uint64 // the last number that the collector was told
	anchoredAt time.Time
}

// Open begins, or goes on with, the audit log. The folder must be there. version
// is that of the program, for the line that says so.
func Open(cfg Config, version string, log zerolog.Logger) (*Log, error) {
	return open(cfg, version, log, realDisk())
}

func open(cfg Config, version string, log zerolog.Logger, d disk) (*Log, error) {
	if err := Check(cfg); err != nil {
		return nil, err
	}
	j, err := newJournal(cfg, version, d)
	if err != nil {
		return nil, at(cfg, err)
	}
	if err := j.open(becauseStart); err != nil {
		return nil, at(cfg, teach(cfg, err))
	}
	l := &Log{
		cfg: cfg, log: log, journal: j,
		lines:  newQueue(queueLimit),
		reopen: make(chan struct{}, 1), closing: make(chan struct{}), done: make(chan struct{}),
		retry: rhythm, stuck: stuckAfter,
	}
	l.archive = newArchive(cfg, log)
	if cfg.Syslog != nil {
		l.syslog = newSender(*cfg.Syslog, log)
	}
	go l.run() // ends, and is waited for, in Close
	return l, nil
}

func at(cfg Config, err error) error {
	if cfg.At == "" {
		return fmt.Errorf("audit: %w", err)
	}
	return fmt.Errorf("%s: audit: %w", cfg.At, err)
}

// Note takes one JSON object, without a line break, and keeps nothing of line.
// failure tells collectors that it is about something that did not succeed.
func (l *Log) Note(line []byte, failure bool) {
	if len(line) > maxLine || len(line) < len(`{"":0}`) || bytes.IndexByte(line, '\n') >= 0 {
		l.dropped.Add(1)
		l.errors.Add(1)
		return
	}
	if !l.lines.add(line, failure) {
		l.dropped.Add(1)
	}
	if l.syslog != nil {
		l.syslog.add(line, failure)
	}
}

// Refuses tells why nothing new may be served, as nothing could be noted of it;
// "": it may.
func (l *Log) Refuses() string {
	if !l.cfg.Refuse {
		return ""
	}
	return l.trouble()
}

// Missed counts something that was refused because of Refuses, of which there
// will be no line but their number.
func (l *Log) Missed() { l.refused.Add(1) }

// trouble is what is wrong with the file; "": nothing.
func (l *Log) trouble() string {
	if why := l.failing.Load(); why != nil {
		return *why
	}
	if since := l.busy.Load(); since != 0 && time.Since(time.Unix(0, since)) > l.stuck {
		return "the disk does not answer"
	}
	if l.lines.crowded() {
		return "more is to be noted than the disk takes"
	}
	return ""
}

// Reopen makes the next line go to the file that has the name then: whoever
// rotates it by himself has moved the old one away.
func (l *Log) Reopen() { poke(l.reopen) }

// Stats are counts since Open.
type Stats struct {
	Written, Dropped, Errors int64
	Syslog                   *SyslogStats // nil: there is none
	Failing                  bool         // the file takes nothing now
}

// Stats are the counts of this moment.
func (l *Log) Stats() Stats {
	s := Stats{Written: l.written.Load(), Dropped: l.dropped.Load(), Errors: l.errors.Load(), Failing: l.trouble() != ""}
	if l.syslog != nil {
		counts := l.syslog.stats()
		s.Syslog = &counts
	}
	return s
}

// Close writes what waits, and a line that says that the log ends. A disk that
// does not answer is given up when ctx ends; the error says what was lost.
func (l *Log) Close(ctx context.Context) error {
	l.once.Do(func() { close(l.closing) })
	defer l.archive.close()
	if l.syslog != nil {
		defer l.syslog.close(ctx)
	}
	select {
	case <-l.done:
	case <-ctx.Done():
		return fmt.Errorf("the audit log could not be ended: the disk does not answer; lines that wait for it are lost")
	}
	if !l.complete {
		return fmt.Errorf("the audit log could not be ended: %w; lines that waited for it are lost", l.fault)
	}
	return nil
}

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Check tells what keeps the audit log from being written, as far as that shows
// without writing.
func Check(cfg Config) error {
	dir := filepath.Dir(cfg.File)
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return at(cfg, fmt.Errorf("the folder %s does not exist; make it, for the gateway's user alone: install -d -m 0750 -o USER %s", dir, dir))
	case err != nil:
		return at(cfg, err)
	case !info.IsDir():
		return at(cfg, fmt.Errorf("%s is not a folder", dir))
	}
	if info, err := os.Stat(cfg.File); err == nil && !info.Mode().IsRegular() {
		return at(cfg, fmt.Errorf("%s is not a file that lines can be kept in", cfg.File))
	}
	if _, err := readKey(cfg); err != nil {
		return at(cfg, err)
	}
	if cfg.Syslog != nil {
		if _, err := cfg.Syslog.tls(); err != nil {
			return at(cfg, err)
		}
	}
	return nil
}

// teach adds what to do about an error of opening the file.
func teach(cfg Config, err error) error {
	switch {
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("%w; the gateway's user must be able to write into %s: chown USER %s", err, filepath.Dir(cfg.File), filepath.Dir(cfg.File))
	case errors.Is(err, errLocked):
		return fmt.Errorf("%s: %w; each gateway needs a file of its own", cfg.File, err)
	}
	return err
}

// Warnings are what is doubtful about a config.
func Warnings(cfg Config) []string {
	var list []string
	say := func(format string, args ...any) { list = append(list, at(cfg, fmt.Errorf(format, args...)).Error()) }
	if cfg.Keep > 0 && cfg.Keep < MinKeep {
		say("keep is %d days; network logs of a boundary device have to be kept for six months at least (Cybersecurity Law, article 21; GB/T 22239), so write 180d or more",
			int(cfg.Keep.Hours()/24))
	}
	if !cfg.Chain {
		say("chain is false: a line that somebody changes or takes away afterwards does not show")
	}
	for _, f := range []struct {
		name string
		mask os.FileMode
		what string
	}{
		{filepath.Dir(cfg.File), 0o002, "may be written by every user of this machine: chmod o-w"},
		{cfg.File, 0o007, "is open to every user of this machine: chmod o="},
		{cfg.KeyFile, 0o077, "holds the key of the chain and should be its owner's alone: chmod 0600"},
	} {
		if info, err := os.Stat(f.name); f.name != "" && err == nil && info.Mode().Perm()&f.mask != 0 && hasModes {
			say("%s %s %s", f.name, f.what, f.name)
		}
	}
	return list
}
