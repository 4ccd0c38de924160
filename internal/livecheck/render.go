package livecheck

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"unicode"
)

// A language has the words for everything that can be found.
type language struct {
	heading string // of the report, {config}
	summary func(Counts) string
	texts   map[Code]text
}

// A text is what is said of a code; {names} stand for its params.
type text struct {
	short string // for the line: what was found, in a few words
	why   string // what that means; "" where short says it all
	todo  string // what to do; "" where there is nothing to do
}

// IsChinese tells whether messages are to be in Chinese, by the variables of
// the environment that POSIX has for it, the first one that is set.
func IsChinese(env func(name string) string) bool {
	for _, name := range []string{"LC_ALL", "LC_MESSAGES", "LANG"} {
		if v := env(name); v != "" {
			return strings.HasPrefix(strings.ToLower(v), "zh")
		}
	}
	return false
}

func languageOf(chinese bool) language {
	if chinese {
		return chineseTexts()
	}
	return englishTexts()
}

// say fills in the text of a finding.
func (l language) say(f Finding) text {
	pairs := make([]string, 0, 2*len(f.Params))
	for k, v := range f.Params {
		pairs = append(pairs, "{"+k+"}", v)
	}
	fill := strings.NewReplacer(pairs...)
	t := l.texts[f.Code]
	return text{fill.Replace(t.short), fill.Replace(t.why), fill.Replace(t.todo)}
}

// maxColumn bounds the columns that are aligned, in cells of a terminal.
const maxColumn = 56

// WriteText writes the report for people: with signs for a terminal, in ASCII
// marks otherwise.
func (r *Report) WriteText(w io.Writer, chinese, terminal bool) error {
	l := languageOf(chinese)
	p := page{language: l, marks: asciiMarks, arrow: "->", times: "x"}
	if terminal {
		p.marks, p.arrow, p.times = signs, "→", "×"
	}
	p.out.WriteString(strings.ReplaceAll(l.heading, "{config}", printable(r.Name)) + "\n")
	for _, s := range r.Sections {
		p.section(s)
	}
	p.out.WriteString("\n" + l.summary(r.Counts()) + "\n")
	_, err := io.WriteString(w, p.out.String())
	return err
}

func signs(m Mark) string {
	return map[Mark]string{OK: "✓", Warn: "!", Fail: "✗", Skip: "-"}[m]
}

func asciiMarks(m Mark) string {
	return map[Mark]string{OK: "ok  ", Warn: "warn", Fail: "FAIL", Skip: "skip"}[m]
}

// A page is a report on its way to text.
type page struct {
	language
	marks func(Mark) string
	arrow string
	times string
	out   strings.Builder
	said  map[string]bool // in this section: causes and advice are said once
}

func (p *page) section(s Section) {
	title := strings.ReplaceAll(p.say(s.Title).short, "->", p.arrow)
	if s.At != "" {
		title += "  (" + printable(s.At) + ")"
	}
	p.out.WriteString("\n" + title + "\n")
	p.said = map[string]bool{}
	who, target := 0, 0
	for _, l := range s.Lines {
		who, target = max(who, column(l.Who)), max(target, column(l.Target))
	}
	for _, l := range s.Lines {
		p.line(l, who, target)
	}
}

// column is the width that a text asks for; very long ones ask for none.
func column(s string) int {
	if n := cells(s); n <= maxColumn {
		return n
	}
	return 0
}

func (p *page) line(l Line, who, target int) {
	t := p.say(l.Finding)
	mark := p.marks(l.Mark)
	row := "  " + mark + " "
	for _, part := range []struct {
		text  string
		width int
	}{{l.Who, who}, {l.Target, target}} {
		if l.Who+l.Target != "" && (part.width > 0 || part.text != "") {
			row += pad(printable(part.text), part.width) + "  "
		}
	}
	row += t.short
	if l.Times > 1 {
		row += fmt.Sprintf("  %s%d", p.times, l.Times)
	}
	p.out.WriteString(strings.TrimRight(row, " ") + "\n")
	indent := strings.Repeat(" ", cells(mark)+3)
	p.once(t.why, indent)
	p.once(t.todo, indent+p.arrow+" ")
}

func (p *page) once(s, before string) {
	if s != "" && !p.said[s] {
		p.said[s] = true
		p.out.WriteString(before + s + "\n")
	}
}

func pad(s string, width int) string {
	return s + strings.Repeat(" ", max(0, width-cells(s)))
}

// cells is how much of a terminal's line a text takes: Chinese characters and
// their punctuation are twice as wide.
func cells(s string) int {
	n := 0
	for _, r := range s {
		n++
		if unicode.Is(unicode.Han, r) || r >= 0x3000 && r <= 0x303f || r >= 0xff01 && r <= 0xff60 {
			n++
		}
	}
	return n
}

// WriteJSON writes the report for programs, with the texts of one language.
func (r *Report) WriteJSON(w io.Writer, chinese bool) error {
	l := languageOf(chinese)
	doc := jsonReport{Config: r.Name, OK: !r.Failed(), Sections: []jsonSection{},
		Summary: jsonCounts(r.Counts())}
	for _, s := range r.Sections {
		title := l.say(s.Title)
		section := jsonSection{Kind: s.Title.Code, Title: title.short, At: s.At, Lines: []jsonLine{}}
		for _, line := range s.Lines {
			t := l.say(line.Finding)
			section.Lines = append(section.Lines, jsonLine{
				Mark: line.Mark, Code: line.Code, Who: line.Who, Target: line.Target,
				Times: line.Times, Params: line.Params, Text: t.short, Cause: t.why, Advice: t.todo,
			})
		}
		doc.Sections = append(doc.Sections, section)
	}
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(doc); err != nil {
		return fmt.Errorf("cannot write the report: %w", err)
	}
	return nil
}

type jsonReport struct {
	Config   string        `json:"config"`
	OK       bool          `json:"ok"`
	Summary  jsonCounts    `json:"summary"`
	Sections []jsonSection `json:"sections"`
}

type jsonCounts struct {
	OK       int `json:"ok"`
	Warnings int `json:"warnings"`
	Failures int `json:"failures"`
	Skipped  int `json:"skipped"`
}

type jsonSection struct {
	Kind  Code       `json:"kind"`
	Title string     `json:"title"`
	At    string     `json:"at,omitempty"`
	Lines []jsonLine `json:"lines"`
}

type jsonLine struct {
	Mark   Mark   `json:"mark"`
	Code   Code   `json:"code"`
	Who    string `json:"who,omitempty"`
	Target string `json:"target,omitempty"`
	Times  int    `json:"times,omitempty"` // names for which the line stands
	Params Params `json:"params,omitempty"`
	Text   string `json:"text"`
	Cause  string `json:"cause,omitempty"`
	Advice string `json:"advice,omitempty"`
}
