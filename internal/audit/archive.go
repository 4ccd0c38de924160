package audit

import (
	"cmp"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"
)

// An archive compresses the files that are not written any more and removes
// those that are too old. It touches no file but those that a rotation of ours
// has named.
type archive struct {
	cfg    Config
	log    zerolog.Logger
	now    func() time.Time
	due    chan struct{}
	cancel context.CancelFunc
	group  sync.WaitGroup
}

func newArchive(cfg Config, log zerolog.Logger) *archive {
	a := &archive{cfg: cfg, log: log, now: time.Now, due: make(chan struct{}, 1)}
	ctx, cancel := context.WithCancel(context.Background())
	a.cancel = cancel
	a.group.Go(func() { a.run(ctx) })
	return a
}

// tend makes it look, soon.
func (a *archive) tend() { poke(a.due) }

// close ends it; a file that it compresses stays as it is, for the next time.
func (a *archive) close() {
	a.cancel()
	a.group.Wait()
}

func (a *archive) run(ctx context.Context) {
	hourly := time.NewTicker(time.Hour)
	defer hourly.Stop()
	for {
		a.look(ctx)
		select {
		case <-ctx.Done():
			return
		case <-a.due:
		case <-hourly.C:
		}
	}
}

func (a *archive) look(ctx context.Context) {
	for _, name := range rotated(a.cfg.File) {
		if ctx.Err() != nil {
			return
		}
		var err error
		switch info, statErr := os.Stat(name); {
		case statErr != nil:
			err = statErr
		case a.cfg.Keep > 0 && a.now().Sub(info.ModTime()) > a.cfg.Keep:
			if err = os.Remove(name); err == nil {
				a.log.Info().Str("file", name).Msg("audit log: a file that is older than audit.keep was removed")
			}
		case a.cfg.Compress && !strings.HasSuffix(name, ".gz"):
			err = compress(ctx, name, info)
		}
		if err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, os.ErrNotExist) {
			a.log.Error().Err(err).Msg("audit log: a file could not be compressed or removed; it is tried again within the hour")
		}
	}
}

// rotated are the files that rotations have made of one, the oldest first.
func rotated(name string) []string {
	stem, ext := splitName(filepath.Base(name))
	ours := regexp.MustCompile("^" + regexp.QuoteMeta(stem) + `-\d{8}T\d{6}-\d+` + regexp.QuoteMeta(ext) + `(\.gz)?$`)
	entries, err := os.ReadDir(filepath.Dir(name))
	if err != nil {
		return nil
	}
	var list []string
	for _, e := range entries {
		if ours.MatchString(e.Name()) && e.Type().IsRegular() {
			list = append(list, filepath.Join(filepath.Dir(name), e.Name()))
		}
	}
	slices.Sort(list)
	return list
}

// Files are all of a log that are there: those that were rotated, and the one
// that is written.
func Files(name string) []string {
	list := rotated(name)
	if _, err := os.Stat(name); err == nil || len(list) == 0 {
		list = append(list, name)
	}
	return list
}

// siblings are the files beside one that may be its predecessors, also such as
// others have rotated, the newest first.
func siblings(name string) []string {
	stem, _ := splitName(filepath.Base(name))
	entries, err := os.ReadDir(filepath.Dir(name))
	if err != nil {
		return nil
	}
	type sibling struct {
		name string
		at   time.Time
	}
	var list []sibling
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || !info.Mode().IsRegular() || e.Name() == filepath.Base(name) ||
			!strings.HasPrefix(e.Name(), stem) || strings.HasSuffix(e.Name(), unfinished) {
			continue
		}
		list = append(list, sibling{filepath.Join(filepath.Dir(name), e.Name()), info.ModTime()})
	}
	slices.SortFunc(list, func(a, b sibling) int { return cmp.Or(b.at.Compare(a.at), cmp.Compare(b.name, a.name)) })
	names := make([]string, len(list))
	for i, s := range list {
		names[i] = s.name
	}
	return names
}

const unfinished = ".unfinished"

// compress puts a compressed file in the place of another one. The time of the
// lines stays that of the file.
func compress(ctx context.Context, name string, info os.FileInfo) error {
	to := name + ".gz"
	if err := writeCompressed(ctx, name, to+unfinished, info.Mode().Perm()); err != nil {
		os.Remove(to + unfinished)
		return err
	}
	if err := os.Chtimes(to+unfinished, time.Time{}, info.ModTime()); err != nil {
		return err
	}
	if err := os.Rename(to+unfinished, to); err != nil {
		return err
	}
	return os.Remove(name)
}

func writeCompressed(ctx context.Context, from, to string, mode os.FileMode) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, mode)
	if err != nil {
		return err
	}
	defer out.Close()
	z := gzip.NewWriter(out)
	if err := copySlowly(ctx, z, in); err != nil {
		return err
	}
	if err := z.Close(); err != nil {
		return err
	}
	if err := out.Sync(); err != nil {
		return err
	}
	return out.Close()
}

// copySlowly takes half of one processor at most: the gateway has more urgent things to do.
func copySlowly(ctx context.Context, to io.Writer, from io.Reader) error {
	for {
		begin := time.Now()
		_, err := io.CopyN(to, from, chunk)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Since(begin)):
		}
	}
}
