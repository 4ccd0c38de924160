package certs

import (
	"context"
	"crypto/sha256"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
)

// A pace is how long the goroutines of a Store wait.
type pace struct {
	settle time.Duration // for files that are being written to be whole
	poll   time.Duration // between looks at files whose changes nobody told of, and at the clock

	ask        time.Duration // for an OCSP responder's answer
	askAgain   time.Duration // after a failure; doubled for each further one
	askAtMost  time.Duration // the shortest between two questions; no answer that lives less than two of it is stapled
	askAtLeast time.Duration // the longest between two questions; half of an answer's life when that is less
}

func usualPace() pace {
	return pace{
		settle: 500 * time.Millisecond, poll: time.Minute,
		ask: 10 * time.Second, askAgain: 5 * time.Minute, askAtMost: 30 * time.Second, askAtLeast: 12 * time.Hour,
	}
}

// Run follows the files of the certificates until ctx ends, serves what has
// taken their place, asks OCSP responders, and tells log of all that: of what is
// refused and why, once; of ends of validity, at 30, 14, 7 and 1 days.
//
// A replacement is refused, and what was served before goes on, when it does not
// parse, is not its key's, is not valid now, or lacks names which no other
// certificate covers. What is gone from a folder goes on as well, until the next
// Adopt. Nothing of it touches a connection, and it returns when all of its
// goroutines have ended.
func (s *Store) Run(ctx context.Context, log Log) {
	var group sync.WaitGroup
	group.Go(func() { s.staple(ctx, log) })
	s.follow(ctx, log)
	group.Wait()
}

// follow looks at the files whenever something may have changed.
func (s *Store) follow(ctx context.Context, log Log) {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		log("warn", "files of certificates cannot be watched, and are looked at from time to time only", "error", err.Error(), "every", s.pace.poll.String())
		watcher = &fsnotify.Watcher{} // its channels are nil: they never tell anything
	} else {
		defer watcher.Close()
	}
	poll := time.NewTicker(s.pace.poll)
	defer poll.Stop()
	said := map[string]bool{}
	for {
		// Watched first: what changes from here on brings another look.
		files := s.watchFolders(watcher, err == nil)
		s.scan(time.Now(), log)
		said = s.remind(said, log)
		if !s.await(ctx, watcher, poll.C, files) {
			return
		}
	}
}

// watched are the files and folders that the sources name.
type watched struct {
	files   map[string]bool
	folders map[string]bool // of which every file counts
}

// watchFolders watches the folders that files are in, not the files: those are
// replaced by renaming, or by turning a symbolic link around. One that cannot be
// watched is left to the poll.
func (s *Store) watchFolders(watcher *fsnotify.Watcher, can bool) watched {
	set := s.current.Load()
	w := watched{files: map[string]bool{}, folders: map[string]bool{}}
	note := func(name string) {
		w.files[filepath.Clean(name)] = true
	}
	for _, e := range set.entries {
		for _, name := range e.source.files() {
			note(name)
		}
	}
	for _, source := range set.cfg.Certificates {
		if source.Folder != "" {
			w.folders[filepath.Clean(source.Folder)] = true
		}
	}
	if set.cfg.Intermediates != "" {
		w.folders[filepath.Clean(set.cfg.Intermediates)] = true
	}
	if !can {
		return w
	}
	dirs := map[string]bool{}
	for name := range w.files {
		dirs[filepath.Dir(name)] = true
	}
	for name := range w.folders {
		dirs[name] = true
	}
	for _, old := range watcher.WatchList() {
		if !dirs[old] {
			watcher.Remove(old)
		}
	}
	for dir := range dirs {
		watcher.Add(dir)
	}
	return w
}

// await waits for a reason to look again: files that changed and have settled,
// the poll, or an adopted set. It reports false when ctx ends.
func (s *Store) await(ctx context.Context, watcher *fsnotify.Watcher, poll <-chan time.Time, files watched) bool {
	var settled <-chan time.Time
	last := time.Now()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-settled:
			return true
		case <-poll:
			return true
		case <-s.news:
			return true
		case event := <-watcher.Events:
			if !files.concerns(event) {
				continue
			}
			// Each event puts the look off, but not for ever.
			if settled == nil || time.Since(last) < 10*s.pace.settle {
				if settled == nil {
					last = time.Now()
				}
				settled = time.After(s.pace.settle)
			}
		case <-watcher.Errors: // events were lost
			return true
		}
	}
}

// concerns tells whether an event may be about one of the files. A name that
// comes or goes may be that of a symbolic link on the way to one.
func (w watched) concerns(event fsnotify.Event) bool {
	if event.Has(fsnotify.Create) || event.Has(fsnotify.Remove) || event.Has(fsnotify.Rename) {
		return true
	}
	name := filepath.Clean(event.Name)
	return w.files[name] || w.folders[filepath.Dir(name)]
}

// A refusal is why something on disk is not served.
type refusal struct {
	print  fingerprint
	reason string
}

// A scan is one look at all files.
type scan struct {
	store *Store
	was   *set
	known map[string]*entry // by the id of their source
	pool  intermediates
	now   time.Time

	entries  []*entry
	replaced map[*entry]*entry // by the new one
	before   map[string]refusal
	refused  map[string]refusal
	told     []line
}

// A line is one for the log, told when all is in force.
type line struct {
	level, message string
	pairs          []any
}

// scan looks at all files, and serves what has changed and can be served.
func (s *Store) scan(now time.Time, log Log) {
	s.changing.Lock()
	defer s.changing.Unlock()
	was := s.current.Load()
	c := &scan{
		store: s, was: was, known: was.byID(), pool: was.pool, now: now,
		replaced: map[*entry]*entry{}, before: s.getRefused(), refused: map[string]refusal{},
	}
	c.intermediates()
	for _, source := range was.cfg.Certificates {
		for _, unit := range c.units(source) {
			c.look(unit)
		}
	}
	c.judgeNames()
	c.finish()
	s.setRefused(c.refused)
	for _, l := range c.told {
		log(l.level, l.message, l.pairs...)
	}
}

func (c *scan) log(level, message string, pairs ...any) {
	c.told = append(c.told, line{level, message, pairs})
}

// refuse notes why something is not served, and tells it when that is new.
func (c *scan) refuse(id string, print fingerprint, level, message, reason string) {
	before, ok := c.before[id]
	c.refused[id] = refusal{print, reason}
	if !ok || before.print != print {
		c.log(level, message, "reason", reason)
	}
}

// printOf is a fingerprint of a text.
func printOf(text string) fingerprint { return sha256.Sum256([]byte(text)) }

func (c *scan) intermediates() {
	cfg := c.was.cfg
	pool, err := readIntermediates(cfg.Intermediates)
	if err != nil {
		reason := cfg.IntermediatesAt + ": " + err.Error()
		c.refuse("intermediates", printOf(reason), "error", "the folder of intermediates is not usable, what it held before goes on", reason)
		return
	}
	c.pool = pool
}

// units are those of a source as it is now, and those that were there before.
func (c *scan) units(source Source) []Source {
	units, err := source.units()
	if source.Folder == "" {
		return units
	}
	if err != nil {
		reason := source.At + ": " + err.Error()
		c.refuse("folder "+source.Folder, printOf(reason), "error", "the folder of certificates is not usable, what it held before goes on", reason)
	}
	now := map[string]bool{}
	for _, u := range units {
		now[u.Cert] = true
	}
	for _, e := range c.was.entries {
		if e.source.Folder != source.Folder || now[e.source.Cert] {
			continue
		}
		c.entries = append(c.entries, e)
		if err == nil {
			reason := fmt.Sprintf("%s: certificate file %s is gone from its folder: put it back, or reload the config to drop it", source.At, e.source.Cert)
			c.refuse(e.source.id(), printOf(reason), "warn", "a certificate is gone, and goes on being served", reason)
		}
	}
	return units
}

// look decides about one certificate.
func (c *scan) look(unit Source) {
	id := unit.id()
	old := c.known[id]
	if old == nil && unit.Folder != "" {
		// Its key may have come, or gone, with another name.
		for _, e := range c.was.entries {
			if e.source.Folder == unit.Folder && e.source.Cert == unit.Cert {
				old = e
			}
		}
	}
	keep := func() {
		if old != nil {
			c.entries = append(c.entries, old)
		}
	}
	print := unit.fingerprint(c.pool)
	if old != nil && old.print == print && old.source == unit {
		keep()
		return
	}
	// What was refused is judged again each time: other certificates may have
	// its names by now, or its time may have come.
	e, err := loadEntry(unit, c.pool, c.now)
	if err != nil {
		message := "a new certificate is not usable"
		if old != nil {
			message = "the replacement of a certificate is refused, the old one goes on"
		}
		c.refuse(id, print, "error", message, strings.ReplaceAll(err.Error(), "\n", "; "))
		keep()
		return
	}
	if old != nil {
		e.inherit(old)
		c.replaced[e] = old
	}
	c.entries = append(c.entries, e)
}

// judgeNames puts back what was replaced by certificates for fewer names.
func (c *scan) judgeNames() {
	for i, e := range c.entries {
		old := c.replaced[e]
		if old == nil {
			continue
		}
		names := newSet(c.was.cfg, c.pool, c.entries).lacks(old)
		if len(names) == 0 {
			continue
		}
		reason := e.source.At + ": " + fewerNames(e, names)
		c.refuse(e.source.id(), e.print, "error", "the replacement of a certificate is refused, the old one goes on", reason)
		c.entries[i] = old
		delete(c.replaced, e)
	}
}

// fewerNames says what a replacement lacks.
func fewerNames(e *entry, names []string) string {
	shown := strings.Join(names[:min(len(names), 20)], ", ")
	if len(names) > 20 {
		shown += ", …"
	}
	return fmt.Sprintf("%s: the certificate does not cover %s, as the one in use does: have it issued again with these names, add a certificate that has them, or restart the gateway if they are to go", e.what(), shown)
}

// finish serves what is new.
func (c *scan) finish() {
	if slices.Equal(c.entries, c.was.entries) {
		return
	}
	c.store.current.Store(newSet(c.was.cfg, c.pool, c.entries))
	wake(c.store.due)
	for _, e := range c.entries {
		old, isReplaced := c.replaced[e]
		switch {
		case isReplaced && old.leaf().Equal(e.leaf()):
			c.log("info", "a certificate was read anew", e.pairs()...)
		case isReplaced:
			c.log("info", "a certificate was replaced", e.pairs()...)
		case !slices.Contains(c.was.entries, e):
			c.log("info", "a certificate was added", e.pairs()...)
		}
	}
}

// pairs are what a log says of an entry.
func (e *entry) pairs() []any {
	return []any{"names", namesOf(e.leaf()), "not_after", day(e.leaf().NotAfter), "file", e.source.file()}
}

// remind logs warnings that were not said yet, and returns those said so far
// that still hold.
func (s *Store) remind(said map[string]bool, log Log) map[string]bool {
	now := map[string]bool{}
	for _, w := range s.current.Load().warnings(time.Now()) {
		now[w.key] = true
		if !said[w.key] {
			log("warn", w.text)
		}
	}
	return now
}
