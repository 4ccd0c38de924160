package discovery

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"sync"
	"time"
)

// WithCache keeps the snapshots of s in a file, so that a cold start goes well
// without what s asks. The services are those that s is to know; the file's others
// are dropped, unless only their tags name them and s follows tags.
//
// When s has published nothing for two seconds, or a snapshot that lacks services,
// these are taken from the file, with the source "cache", the Taken of then, and
// a Fault that says so, and are Partial; they are replaced one by one as s comes to
// know them, and those that only tags name go when s knows which there are. The
// file is written whole or not at all, at most once a second and, with the
// last snapshot, when Run ends. A file that cannot be read or written is logged
// and never stops the source.
func WithCache(path string, s Source, services []string, log Log) Source {
	return &cache{path: path, source: s, services: services, log: log, grace: 2 * time.Second, every: time.Second}
}

type cache struct {
	path     string
	source   Source
	services []string
	log      Log
	grace    time.Duration // how long the source may be silent
	every    time.Duration // a write at most
}

// Unknown implements Explainer. It names services that the file fills in as well.
func (c *cache) Unknown() map[string]string { return unknownOf(c.source) }

func (c *cache) notFound() string { return notFoundBy(c.source) }

// Run implements Source. It ends with ctx or with the source.
func (c *cache) Run(ctx context.Context, publish func(Snapshot)) error {
	ctx, cancel := context.WithCancel(ctx)
	kept := c.read()
	write := make(chan map[string]Service, 1)
	var writer sync.WaitGroup
	writing, enough := context.WithCancel(context.WithoutCancel(ctx)) // it is given the last snapshot after ctx's end, too
	writer.Go(func() { c.write(writing, write) })
	defer writer.Wait()
	defer enough()
	defer cancel()
	snapshots, ended := start(ctx, c.source)
	silence := time.NewTimer(c.grace)
	defer silence.Stop()
	for {
		select {
		case err := <-ended:
			return err
		case <-silence.C:
			if len(kept) > 0 {
				publish(c.filled(Snapshot{Partial: c.notFound()}, kept))
			}
		case snap := <-snapshots:
			silence.Stop()
			publish(c.filled(snap, kept))
			for name, s := range kept {
				if s.Tagged && snap.Partial == "" {
					delete(kept, name)
				}
			}
			maps.Copy(kept, snap.Services)
			latest(write, c.ours(kept))
		}
	}
}

// start runs a source in a goroutine that is gone when the channel ended, which
// gets its error, can be received from. Its snapshots come one after the other,
// none is left out.
func start(ctx context.Context, s Source) (snapshots <-chan Snapshot, ended <-chan error) {
	out, end := make(chan Snapshot), make(chan error, 1)
	go func() {
		end <- s.Run(ctx, func(snap Snapshot) {
			select {
			case out <- snap:
			case <-ctx.Done():
			}
		})
	}()
	return out, end
}

// latest leaves v, and only v, in a channel of one place.
func latest[T any](c chan T, v T) {
	select {
	case <-c:
	default:
	}
	c <- v
}

// read gives the services of the file; of a file that is not good, none.
func (c *cache) read() map[string]Service {
	snap, err := ReadCache(c.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		c.log.info(err.Error())
	case err != nil:
		c.log.warn(err.Error())
	}
	if snap.Services == nil {
		return map[string]Service{}
	}
	return snap.Services
}

// ours leaves out services that nobody asks for any more.
func (c *cache) ours(all map[string]Service) map[string]Service {
	ours := map[string]Service{}
	for _, name := range c.services {
		if s, ok := all[name]; ok && !s.Tagged {
			ours[name] = s
		}
	}
	tags := c.notFound() != ""
	for name, s := range all {
		if s.Tagged && tags && !slices.Contains(c.services, name) {
			ours[name] = s
		}
	}
	return ours
}

// filled is a snapshot with the services that it lacks as far as they are kept.
// One that only tags name is not lacking from a snapshot that has all of those.
func (c *cache) filled(snap Snapshot, kept map[string]Service) Snapshot {
	all := maps.Clone(snap.Services)
	if all == nil {
		all = map[string]Service{}
	}
	var why map[string]string
	for name, s := range c.ours(kept) {
		if _, ok := all[name]; ok || s.Tagged && snap.Partial == "" {
			continue
		}
		if why == nil {
			why = unknownOf(c.source)
		}
		s.Source, s.LeftOut, s.Partial = "cache", nil, true
		s.Fault = "from the cache of " + clock(s.Taken.Local())
		reason := why[name]
		if s.Tagged {
			reason = cmp.Or(reason, snap.Partial)
		}
		if reason != "" {
			s.Fault = reason + "; " + s.Fault
		}
		all[name] = s
	}
	return Snapshot{Services: all, Partial: snap.Partial}
}

// write writes what comes, at most once in a while, and what came last in the end.
func (c *cache) write(ctx context.Context, services <-chan map[string]Service) {
	w := cacheWriter{path: c.path, log: c.log}
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case s := <-services:
			w.write(s)
			pause(ctx, c.every, nil)
		}
	}
	select {
	case s := <-services:
		w.write(s)
	default:
	}
}

type cacheWriter struct {
	path    string
	log     Log
	written []byte // what the file holds
	problem string // of the last attempt
}

// write logs a problem unless it is the one before.
func (w *cacheWriter) write(services map[string]Service) {
	data, err := encodeCache(services)
	if err == nil && bytes.Equal(data, w.written) {
		return
	}
	if err == nil {
		err = writeWhole(w.path, data)
	}
	before := w.problem
	w.written, w.problem = data, ""
	if err == nil {
		return
	}
	w.written, w.problem = nil, fmt.Sprintf("the cached snapshot cannot be written: %v; a cold start would be without it", withoutNames(err))
	if w.problem != before {
		w.log.warn(w.problem, "path", w.path)
	}
}

// withoutNames takes the names out of an error: that of the temporary file is
// another one every time.
func withoutNames(err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return e.Err
	}
	if e, ok := errors.AsType[*os.LinkError](err); ok {
		return e.Err
	}
	return err
}
