package certs

import (
	"context"
	"path/filepath"
	"sync"
	"sync/atomic"
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
	w := newWatch(log, s.pace)
	defer w.close()
	poll := time.NewTicker(s.pace.poll)
	defer poll.Stop()
	said := map[string]bool{}
	for {
		// Watched first: what changes from here on brings another look.
		w.watch(s.current.Load())
		s.scan(time.Now(), log)
		s.current.Load().turnTickets(time.Now())
		said = s.remind(said, log)
		if !s.await(ctx, w.touched, poll.C) {
			return
		}
	}
}

// await waits for a reason to look again: files that changed and have settled,
// the poll, or an adopted set. It reports false when ctx ends.
func (s *Store) await(ctx context.Context, touched <-chan struct{}, poll <-chan time.Time) bool {
	var settled <-chan time.Time
	var first time.Time
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
		case <-touched:
			// Each change puts the look off, but not for ever.
			if settled == nil {
				first = time.Now()
			}
			if settled == nil || time.Since(first) < 10*s.pace.settle {
				settled = time.After(s.pace.settle)
			}
		}
	}
}

// A watch tells of files that may have changed.
type watch struct {
	touched chan struct{}

	notify *fsnotify.Watcher // nil: the system has none
	names  atomic.Pointer[watched]
	group  sync.WaitGroup
}

// watched are the files and folders that the sources name.
type watched struct {
	files   map[string]bool
	folders map[string]bool // of which every file counts
}

func newWatch(log Log, p pace) *watch {
	w := &watch{touched: make(chan struct{}, 1)}
	w.names.Store(&watched{})
	var err error
	if w.notify, err = fsnotify.NewWatcher(); err != nil {
		log("warn", "files of certificates cannot be watched, and are looked at from time to time only", "error", err.Error(), "every", p.poll.String())
		return w
	}
	w.group.Go(w.listen)
	return w
}

func (w *watch) close() {
	if w.notify != nil {
		w.notify.Close()
		w.group.Wait()
	}
}

// listen takes events as they come, whatever goes on elsewhere: on some systems
// nothing else could be asked of the watcher before.
func (w *watch) listen() {
	for {
		select {
		case event, ok := <-w.notify.Events:
			if !ok {
				return
			}
			if w.names.Load().concerns(event) {
				wake(w.touched)
			}
		case _, ok := <-w.notify.Errors:
			if !ok {
				return
			}
			wake(w.touched) // events were lost
		}
	}
}

// watch watches the folders that files are in, not the files: those are replaced
// by renaming, or by turning a symbolic link around. One that cannot be watched
// is left to the poll.
func (w *watch) watch(s *set) {
	if w.notify == nil {
		return
	}
	names := namesWatched(s)
	w.names.Store(names)
	dirs := map[string]bool{}
	for name := range names.files {
		dirs[filepath.Dir(name)] = true
	}
	for name := range names.folders {
		dirs[name] = true
	}
	for _, old := range w.notify.WatchList() {
		if !dirs[old] {
			w.notify.Remove(old)
		}
	}
	for dir := range dirs {
		w.notify.Add(dir)
	}
}

func namesWatched(s *set) *watched {
	w := &watched{files: map[string]bool{}, folders: map[string]bool{}}
	for _, e := range s.entries {
		for _, name := range e.source.files() {
			w.files[filepath.Clean(name)] = true
		}
	}
	for _, source := range s.cfg.Certificates {
		if source.Folder != "" {
			w.folders[filepath.Clean(source.Folder)] = true
		}
	}
	if s.cfg.Intermediates != "" {
		w.folders[filepath.Clean(s.cfg.Intermediates)] = true
	}
	return w
}

// concerns tells whether an event may be about one of the files. A name that
// comes or goes may be that of a symbolic link on the way to one.
func (w *watched) concerns(event fsnotify.Event) bool {
	if event.Has(fsnotify.Create) || event.Has(fsnotify.Remove) || event.Has(fsnotify.Rename) {
		return true
	}
	name := filepath.Clean(event.Name)
	return w.files[name] || w.folders[filepath.Dir(name)]
}

// remind logs warnings that were not said yet, and returns those said so far
// that still hold.
func (s *Store) remind(said map[string]bool, log Log) map[string]bool {
	now := map[string]bool{}
	for _, w := range s.warnings(time.Now()) {
		now[w.key] = true
		if !said[w.key] {
			log("warn", w.text)
		}
	}
	return now
}
