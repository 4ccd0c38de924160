package livecheck

import (
	"slices"
	"strconv"
	"strings"
)

// A Report is what a check found, in an order that does not depend on chance.
type Report struct {
	Name     string // the config file
	Sections []Section
}

// A Section is about the gateway, a route, a public port, or the nodes.
type Section struct {
	Title Finding
	At    string // where it is written in the config; "": nowhere
	Lines []Line
}

// A Line is one thing that was tried.
type Line struct {
	Who    string // a listener or a node; may be ""
	Target string // a URL or an address; may be ""
	Times  int    // for how many names this stands; 0: for itself
	Finding
}

// Counts is how many lines there are of each mark.
type Counts struct{ OK, Warnings, Failures, Skipped int }

// Counts counts the lines.
func (r *Report) Counts() Counts {
	var n Counts
	for _, s := range r.Sections {
		for _, l := range s.Lines {
			times := max(1, l.Times)
			switch l.Mark {
			case OK:
				n.OK += times
			case Warn:
				n.Warnings += times
			case Fail:
				n.Failures += times
			case Skip:
				n.Skipped += times
			}
		}
	}
	return n
}

// Failed tells whether something failed, or could not be tried in time.
func (r *Report) Failed() bool {
	for _, s := range r.Sections {
		for _, l := range s.Lines {
			if l.Mark == Fail || l.Code == notTried {
				return true
			}
		}
	}
	return false
}

// report puts together what the jobs found.
func (c *checker) report() *Report {
	r := &Report{Name: c.Name}
	anyOpen := slices.ContainsFunc(c.doors, func(d *door) bool { return d.open })
	if !c.away(anyOpen) {
		c.explainWaits()
	}
	r.Sections = append(r.Sections, c.gatewaySection(anyOpen))
	if c.consulAt != nil {
		r.Sections = append(r.Sections, Section{Title: fine(titleDiscovery), Lines: c.consulAt.lines()})
	}
	for _, s := range c.sections {
		if lines := s.lines(anyOpen); len(lines) > 0 {
			r.Sections = append(r.Sections, Section{Title: s.title, At: s.at, Lines: lines})
		}
	}
	if lines := c.nodeLines(anyOpen); len(lines) > 0 {
		r.Sections = append(r.Sections, Section{Title: fine(titleNodes), Lines: lines})
	}
	return r
}

func (j *job) lines() []Line {
	var lines []Line
	for _, f := range j.findings {
		lines = append(lines, Line{Who: j.who, Target: j.target, Finding: f})
	}
	return lines
}

// lines of a section: jobs behind doors that did not open are one line, or none
// where no door opened at all.
func (s *section) lines(anyOpen bool) []Line {
	var lines []Line
	shut, doorNames := 0, []string(nil)
	for _, j := range s.jobs {
		if j.door != nil && !j.door.open {
			shut++
			if !slices.Contains(doorNames, j.door.entry.name) {
				doorNames = append(doorNames, j.door.entry.name)
			}
			continue
		}
		lines = append(lines, j.lines()...)
	}
	if shut > 0 && anyOpen {
		lines = append(lines, Line{Times: shut, Finding: skipped(doorClosed, "listener", strings.Join(doorNames, ", "))})
	}
	for _, f := range s.notes {
		lines = append(lines, Line{Finding: f})
	}
	return lines
}

// gatewaySection begins with whether the gateway runs.
func (c *checker) gatewaySection(anyOpen bool) Section {
	s := Section{Title: fine(titleGateway)}
	s.Lines = append(s.Lines, Line{Target: c.file.Admin.Address, Finding: c.state(anyOpen)})
	for _, e := range c.entries {
		if e.port == 0 && e.routes {
			s.Lines = append(s.Lines, Line{Who: e.name, Finding: warning(portUnknown, "listener", e.name)})
		}
		s.Lines = append(s.Lines, c.doorLines(e)...)
	}
	return s
}

func (c *checker) state(anyOpen bool) Finding {
	switch {
	case c.running.answers && len(c.running.reasons) > 0:
		return warning(notReady, "reasons", strings.Join(c.running.reasons, "; "))
	case c.running.answers:
		return fine(isReady, "tunnels", strconv.Itoa(c.running.tunnels))
	case anyOpen && c.file.Admin.Address != "":
		return warning(adminSilent, "address", c.file.Admin.Address)
	case anyOpen:
		return fine(isAnswering)
	}
	return failure(notRunning, "config", c.Name)
}

// doorLines are the doors of an entry. What was found alike of several nodes'
// names is one line.
func (c *checker) doorLines(e *entry) []Line {
	var lines []Line
	for _, d := range c.doors {
		if d.entry != e {
			continue
		}
		for _, l := range d.job.lines() {
			if d.pattern == "" {
				lines = append(lines, l)
			} else {
				l.Target = c.patternURL(d)
				lines = addAlike(lines, l)
			}
		}
	}
	for i := range lines {
		if lines[i].Times == 1 {
			lines[i].Times = 0
		}
	}
	return lines
}

// addAlike adds a line, or counts it with the one that says the same.
func addAlike(lines []Line, l Line) []Line {
	for i := range lines {
		if o := &lines[i]; o.Times > 0 && o.Target == l.Target && o.Code == l.Code {
			o.Times++
			return lines
		}
	}
	l.Times = 1
	return append(lines, l)
}

func (c *checker) patternURL(d *door) string {
	return scheme(d.entry.tls, false) + "://" + c.at(d.entry, d.pattern).header
}

// away tells whether this does not seem to be the gateway's machine.
func (c *checker) away(anyOpen bool) bool {
	return anyOpen && !c.running.answers && !c.listensHere()
}

// nodeLines are the nodes behind the gateway. Where this does not seem to be
// the gateway's machine, it proves little that a node cannot be reached.
func (c *checker) nodeLines(anyOpen bool) []Line {
	var lines []Line
	away := c.away(anyOpen)
	if away && len(c.uses) > 0 {
		lines = append(lines, Line{Finding: warning(elsewhere)})
	}
	for _, u := range c.uses {
		for _, l := range u.job.lines() {
			if away && l.Mark == Fail {
				l.Mark = Warn
			}
			if away && l.Code == nodeLoopbackOnly {
				l.Code = nodeLoopbackAway // to the gateway, 127.0.0.1 is its own machine
			}
			lines = append(lines, l)
		}
	}
	return lines
}

// listensHere tells whether one of the gateway's ports is listened on by this
// machine, or may be.
func (c *checker) listensHere() bool {
	for _, l := range c.cfg.Listeners {
		list, known := c.local.listening(boundPort(l.Address))
		if !known || len(list) > 0 {
			return true
		}
	}
	return false
}
