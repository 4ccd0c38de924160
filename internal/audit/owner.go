package audit

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"time"
)

// run owns the journal: it alone writes, rotates and opens files.
func (l *Log) run() {
	defer close(l.done)
	tick := time.NewTicker(rhythm)
	defer tick.Stop()
	again := time.NewTimer(0)
	defer again.Stop()
	for {
		select {
		case <-l.closing:
			l.end()
			return
		case <-l.lines.more:
			l.linger()
		case <-l.reopen:
			l.timed(func() { l.reopenNow(becauseReopened) })
		case <-tick.C:
			l.timed(l.lookAfter)
		case <-again.C:
		}
		l.timed(l.drain)
		if l.fault != nil {
			again.Reset(max(time.Until(l.retryAt), time.Millisecond))
		}
	}
}

// timed lets others see that the disk is being asked, and since when.
func (l *Log) timed(f func()) {
	l.busy.Store(time.Now().UnixNano())
	f()
	l.busy.Store(0)
}

// linger waits a moment for more lines to write at once, unless the last write
// was longer ago: a line that comes alone is written at once.
func (l *Log) linger() {
	wait := lingering - time.Since(l.wroteAt)
	if l.fault != nil || wait <= 0 {
		return
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-l.lines.much:
	case <-l.closing:
	}
}

// drain writes all there is, or notes why it cannot.
func (l *Log) drain() {
	if l.fault != nil && time.Now().Before(l.retryAt) {
		return
	}
	for {
		if len(l.batch) == 0 && l.missed.lines == 0 {
			l.taken, l.missed = l.lines.take(reusable(l.taken))
			l.batch = l.taken
		}
		if len(l.batch) == 0 && l.missed.lines == 0 && l.untold == nil && l.refused.Load() == 0 {
			l.sync()
			return
		}
		l.busy.Store(time.Now().UnixNano())
		if err := l.writeSome(); err != nil {
			l.fail(err)
			return
		}
		l.recovered()
	}
}

// writeSome writes some of the batch, and behind it what the log lacks there.
func (l *Log) writeSome() error {
	j := l.journal
	if err := l.ready(); err != nil {
		return err
	}
	before := j.state
	refused := l.refused.Load()
	var tell []byte
	if l.missed.lines > 0 || refused > 0 || l.untold != nil {
		tell = l.lossLine(refused)
	}
	rest, lines, told := l.seal(tell, math.MaxInt)
	if kept, err := j.write(l.out); err != nil {
		whole := wholeLines(l.out, kept)
		j.state = before
		rest, lines, told = l.seal(tell, whole)
		l.wrote(rest, lines, told, refused)
		return err
	}
	l.wrote(rest, lines, told, refused)
	return nil
}

// seal makes lines of the batch, as many as fit into a write but not more than
// most, and then one of tell; nil: there is nothing to tell.
func (l *Log) seal(tell []byte, most int) (rest []byte, lines int, told bool) {
	j := l.journal
	l.out, rest = reusable(l.out), l.batch
	for len(rest) > 0 && len(l.out) < chunk && lines < most {
		var line []byte
		line, _, rest = next(rest)
		l.out = j.append(l.out, line)
		lines++
	}
	if len(rest) == 0 && tell != nil && lines < most {
		l.out = j.append(l.out, tell)
		return rest, lines + 1, true
	}
	return rest, lines, false
}

// wrote takes off what is in the file now.
func (l *Log) wrote(rest []byte, lines int, told bool, refused int64) {
	l.batch, l.wroteAt = rest, time.Now()
	l.journal.records += lines
	l.written.Add(int64(lines))
	if told {
		l.refused.Add(-refused)
		l.missed, l.untold = loss{}, nil
	}
}

// ready sees to it that the right file is open.
func (l *Log) ready() error {
	j := l.journal
	if j.file != nil && l.fault != nil && !j.ours() {
		j.abandon() // whatever the fault was, somebody has done something about it
	}
	if j.file == nil {
		return j.open(becauseFault)
	}
	if !j.due() || time.Since(l.moved) < time.Minute {
		return nil
	}
	err := j.rotate()
	if err != nil && j.file != nil {
		// The old file goes on: better too large than not written.
		l.moved = time.Now()
		l.errors.Add(1)
		l.log.Error().Err(err).Msg("audit log: the file could not be rotated; it goes on, and that is tried again in a minute")
		return nil
	}
	l.archive.tend()
	return err
}

// lossLine says what the log lacks at this place.
func (l *Log) lossLine(refused int64) []byte {
	missed := l.missed
	line := struct {
		Time    string `json:"time"`
		Event   string `json:"event"`
		Success bool   `json:"success"`
		Lost    int64  `json:"lost"`              // lines that had no room
		Refused int64  `json:"refused,omitempty"` // requests that were refused meanwhile and have no line
		First   string `json:"first,omitempty"`
		Last    string `json:"last,omitempty"`
		Cause   string `json:"cause,omitempty"`
	}{Time: l.journal.now().Format(TimeLayout), Event: eventLost, Lost: missed.lines, Refused: refused}
	if missed.lines > 0 {
		line.First, line.Last = missed.first.Format(TimeLayout), missed.last.Format(TimeLayout)
	}
	if l.untold != nil {
		line.Cause = l.untold.Error()
	}
	object, err := json.Marshal(line)
	if err != nil {
		return []byte(`{"event":"` + eventLost + `"}`)
	}
	return object
}

// fail notes a fault; the first one is said.
func (l *Log) fail(err error) {
	l.errors.Add(1)
	l.retryAt = time.Now().Add(l.retry)
	if l.fault == nil {
		e := l.log.Error().Err(err).Str("file", l.cfg.File)
		if l.cfg.Refuse {
			e.Msg("audit log: nothing can be noted, so nothing new is served (audit.on_failure: refuse); live tunnels go on")
		} else {
			e.Msg("audit log: nothing can be noted; lines wait while there is room for them, then they are lost (audit.on_failure: drop)")
		}
	}
	l.fault, l.untold = err, err
	why := "the audit log cannot be written: " + err.Error()
	l.failing.Store(&why)
}

// recovered notes that the file takes lines again.
func (l *Log) recovered() {
	if l.fault == nil {
		return
	}
	l.log.Warn().Str("file", l.cfg.File).Int64("lost", l.dropped.Load()).
		Msg("audit log: lines can be noted again; lost counts all since the start")
	l.fault = nil
	l.failing.Store(nil)
}

// lookAfter brings lines to the disk, and sees whether the file is still there.
func (l *Log) lookAfter() {
	j := l.journal
	if j.file == nil || l.fault != nil {
		return
	}
	if !l.sync() {
		return
	}
	l.anchor(false)
	switch {
	case !j.ours():
		l.log.Warn().Str("file", l.cfg.File).Msg("audit log: " + becauseReplaced + "; it is opened anew")
		l.reopenNow(becauseReplaced)
	case j.due():
		if err := l.ready(); err != nil {
			l.fail(err)
		}
	}
}

// sync brings what was written to the disk, once a second at most.
func (l *Log) sync() bool {
	if time.Since(l.syncedAt) < rhythm*9/10 { // the ticker is not exact
		return true
	}
	l.syncedAt = time.Now()
	if err := l.journal.sync(); err != nil {
		l.fail(err)
		return false
	}
	return true
}

// anchor tells the collector where the chain has come to, every ten seconds while
// it goes on: what is noted elsewhere cannot be made anew here.
func (l *Log) anchor(last bool) {
	j := l.journal
	if l.syslog == nil || !j.cfg.Chain || j.seq == l.anchored || !last && time.Since(l.anchoredAt) < 10*rhythm {
		return
	}
	l.anchored, l.anchoredAt = j.seq, time.Now()
	line := fmt.Appendf(nil, `{"time":%q,"event":%q,"success":true,"chain_id":%q,"seq":%d,"hash":%q}`,
		j.now().Format(TimeLayout), eventAnchor, j.chainID, j.seq, j.last)
	l.syslog.add(line, false)
}

// reopenNow makes the file that has the name now the one that is written.
func (l *Log) reopenNow(reason string) {
	j := l.journal
	if j.file != nil && reason == becauseReopened && j.ours() {
		return
	}
	err := j.sync()
	j.abandon()
	if err = errors.Join(err, j.open(reason)); err != nil {
		l.fail(err)
	}
	l.archive.tend()
}

// end writes what is left and the line that the log ends with.
func (l *Log) end() {
	line, _ := json.Marshal(struct {
		Time    string `json:"time"`
		Event   string `json:"event"`
		Success bool   `json:"success"`
	}{l.journal.now().Format(TimeLayout), eventClosed, true})
	l.retryAt = time.Time{}
	l.timed(l.drain)
	if l.fault == nil {
		l.lines.add(line, false)
		l.timed(l.drain)
	}
	if l.fault == nil {
		if err := l.journal.sync(); err != nil {
			l.fault = err
		}
	}
	l.complete = l.fault == nil
	l.anchor(true)
	l.journal.abandon()
}
