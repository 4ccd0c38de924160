package certs

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"time"
)

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
	gone     map[*entry]bool   // from their folder
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
		gone: map[*entry]bool{}, replaced: map[*entry]*entry{}, before: s.getRefused(), refused: map[string]refusal{},
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

// units are those of a source as it is now, and those that were there before,
// in the order of the files.
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
		units = append(units, e.source)
		c.gone[e] = true
		if err == nil {
			reason := fmt.Sprintf("%s: certificate file %s is gone from its folder: put it back, or reload the config to drop it", source.At, e.source.Cert)
			c.refuse(e.source.id(), printOf(reason), "warn", "a certificate is gone, and goes on being served", reason)
		}
	}
	slices.SortStableFunc(units, func(a, b Source) int { return strings.Compare(a.Cert, b.Cert) })
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
	if c.gone[old] {
		keep()
		return
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

// judgeNames puts back what was replaced by certificates for fewer names. What
// is put back may have been what others had their names from.
func (c *scan) judgeNames() {
	for i := 0; i < len(c.entries); i++ {
		e := c.entries[i]
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
		i = -1 // from the beginning
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
	c.store.serve(newSet(c.was.cfg, c.pool, c.entries))
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
