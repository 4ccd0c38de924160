package cli

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"singlegate/internal/audit"
	"singlegate/internal/config"
	"singlegate/internal/livecheck"
)

type auditCommand struct {
	Verify auditVerifyCommand `cmd:"" help:"Check the files of an audit log: exit 0 when nothing was changed, 1 when something was, 3 when it could not be checked."`
}

type auditVerifyCommand struct {
	Files    []string `arg:"" optional:"" name:"FILE" help:"The files, rotated and compressed ones too, in any order."`
	Config   string   `placeholder:"FILE" help:"Take all files and the key of the audit log in this config."`
	Key      string   `placeholder:"FILE" help:"The key file, where the chain has a key (audit.key_file)."`
	Contains string   `placeholder:"HASH" help:"A hash noted before, by this command or by the syslog collector: its line must be there still."`
}

// errUnchecked is why exit code 3 is given.
var errUnchecked = errors.New("not checked")

// Validate refuses what cannot be done; kong calls it.
func (c *auditVerifyCommand) Validate() error {
	switch {
	case len(c.Files) == 0 && c.Config == "":
		return errors.New("name the files of the audit log, or give --config FILE")
	case c.Contains != "" && (len(c.Contains) != 64 || strings.Trim(c.Contains, "0123456789abcdef") != ""):
		return errors.New("--contains takes a hash: 64 digits of hexadecimal")
	}
	return nil
}

// Run checks the files and says what it has found.
func (c *auditVerifyCommand) Run(s streams) error {
	say := auditWordsFor(os.Getenv)
	options := audit.Options{Contains: c.Contains}
	files, key, err := c.sources()
	if err == nil && key != "" {
		options.Key, err = audit.ReadKey(key)
	}
	if err != nil {
		return errors.Join(err, errUnchecked)
	}
	if isTerminal(s.err) {
		options.Progress = func(done, total int64) { fmt.Fprintf(s.err, "\r%3d %% ", 100*done/max(total, 1)) }
	}
	result, err := audit.Verify(files, options)
	if options.Progress != nil {
		fmt.Fprint(s.err, "\r\x1b[K")
	}
	if err != nil {
		fmt.Fprintln(s.err, say.cause(err))
		return errors.Join(errSaid, errUnchecked)
	}
	say.write(s, result)
	if result.Suspicious > 0 {
		return errSaid
	}
	return nil
}

// sources are the files and the key file; "": none.
func (c *auditVerifyCommand) sources() (files []string, key string, err error) {
	files, key = c.Files, c.Key
	if c.Config == "" {
		return files, key, nil
	}
	file, err := config.Load(c.Config)
	if err != nil {
		return nil, "", err
	}
	if file.Audit == nil {
		return nil, "", fmt.Errorf("%s has no audit log", c.Config)
	}
	if key == "" {
		key = file.Audit.KeyFile
	}
	if len(files) == 0 {
		files = audit.Files(file.Audit.File)
	}
	return files, key, nil
}

// auditWords are what the command says in one language. In those by kind stand
// {file}, {line}, {from} and {to}; the others are formatted.
type auditWords struct {
	kinds                               map[audit.Kind]string
	lines, unproven, last, open         string
	good, bad, more                     string
	noKey, otherKey, unchained, noAudit string // causes, in place of the error's own
}

func auditWordsFor(getenv func(string) string) auditWords {
	if livecheck.IsChinese(getenv) {
		return auditChinese()
	}
	return auditEnglish()
}

func auditEnglish() auditWords {
	return auditWords{
		kinds: map[audit.Kind]string{
			audit.Changed:   "{file}:{line}: line no. {from} was changed",
			audit.Rehashed:  "{file}:{line}: line no. {from} was changed, or the one before it was and its hash was made anew",
			audit.Removed:   "{file}:{line}: before this line, lines no. {from} to {to} were removed",
			audit.Inserted:  "{file}:{line}: this line (no. {from}) was inserted: the gateway did not write it",
			audit.Moved:     "{file}:{line}: this line (no. {from}) was moved here from elsewhere",
			audit.Foreign:   "{file}:{line}: {from} lines from here on are none of the gateway's",
			audit.Truncated: "{file}:{line}: the log was cut off in the middle of this line",
			audit.Damaged:   "{file}:{line}: the compressed file is damaged behind this line",
			audit.NewChain:  "{file}:{line}: a new chain begins here; what came before it was taken away, or was never there: see whether the gateway was set up anew then",
			audit.Unkeyed:   "{file}:{line}: from here on the hashes are made without the key: anybody may have written them",
			audit.Missing:   "the hash that was noted before is in no line: the log was rewritten, or cut off before it",
			audit.Torn:      "note: {file}:{line}: an incomplete line, as the gateway was ended while writing it; the line behind it proves that",
			audit.Earlier:   "note: {file}:{line}: the chain begins earlier, in files that were not given (this line is no. {from})",
		},
		lines:    "%d lines, no. %d to %d, %s to %s\n",
		unproven: "%d lines behind removed ones cannot be judged\n",
		last:     "last hash: %s\n",
		open:     "the last line is not the one that an orderly end writes: the gateway runs, was killed, or lines at the end are missing\n",
		good:     "nothing was changed\n", bad: "CHANGED, places: %d\n", more: "and %d more\n",
		noKey:     "the lines were hashed with a key; give its file: --key FILE",
		otherKey:  "the lines were hashed with another key than the one given",
		unchained: "the lines are not chained (audit: {chain: false}); whether they were changed does not show",
		noAudit:   "no line of an audit log is in it",
	}
}

func auditChinese() auditWords {
	return auditWords{
		kinds: map[audit.Kind]string{
			audit.Changed:   "{file}:{line}：第 {from} 号记录被修改",
			audit.Rehashed:  "{file}:{line}：第 {from} 号记录被修改，或者其前一条被修改并重新计算了散列值",
			audit.Removed:   "{file}:{line}：本行之前的第 {from} 至 {to} 号记录被删除",
			audit.Inserted:  "{file}:{line}：本行（第 {from} 号）是插入的，并非网关所写",
			audit.Moved:     "{file}:{line}：本行（第 {from} 号）是从别处移来的",
			audit.Foreign:   "{file}:{line}：由此起 {from} 行不是网关的记录",
			audit.Truncated: "{file}:{line}：日志在本行中间被截断",
			audit.Damaged:   "{file}:{line}：压缩文件在本行之后已损坏",
			audit.NewChain:  "{file}:{line}：由此起是一条新链；之前的记录被移走，或者从未有过，请核实当时是否重新部署了网关",
			audit.Unkeyed:   "{file}:{line}：由此起的散列值未使用密钥，任何人都可能写出",
			audit.Missing:   "此前记下的散列值不在任何一行：日志被改写，或在该行之前被截断",
			audit.Torn:      "说明：{file}:{line}：不完整的一行，网关在写入过程中被终止；其后一行可以证明",
			audit.Earlier:   "说明：{file}:{line}：链的开头在更早的文件中，未给出那些文件（本行为第 {from} 号）",
		},
		lines:    "共 %d 行，第 %d 至 %d 号，%s 至 %s\n",
		unproven: "被删除的记录之后有 %d 行无法判断\n",
		last:     "最后的散列值：%s\n",
		open:     "最后一行不是正常结束时写下的那一行：网关仍在运行、曾被强行终止，或者末尾缺少记录\n",
		good:     "没有发现任何改动\n", bad: "已被改动：%d 处\n", more: "另有 %d 处\n",
		noKey:     "这些记录使用了带密钥的散列，请用 --key FILE 给出密钥文件",
		otherKey:  "这些记录所用的密钥与给出的不同",
		unchained: "这些记录没有链（audit: {chain: false}），无法看出是否被改动",
		noAudit:   "其中没有审计日志的记录",
	}
}

// cause is why files could not be checked.
func (w *auditWords) cause(err error) string {
	text := err.Error()
	for is, says := range map[error]string{
		audit.ErrNoKey: w.noKey, audit.ErrOtherKey: w.otherKey, audit.ErrUnchained: w.unchained, audit.ErrNotAudit: w.noAudit,
	} {
		if errors.Is(err, is) {
			text = strings.Replace(text, is.Error(), says, 1)
		}
	}
	return text
}

// write says what was found: remarks and findings, then how far the chain goes.
func (w *auditWords) write(s streams, r *audit.Result) {
	for _, f := range r.Findings {
		out := s.out
		if f.Suspicious() {
			out = s.err
		}
		text := strings.NewReplacer("{file}", f.File, "{line}", strconv.Itoa(f.Line),
			"{from}", strconv.FormatUint(f.From, 10), "{to}", strconv.FormatUint(f.To, 10)).Replace(w.kinds[f.Kind])
		fmt.Fprintln(out, text)
	}
	if r.More > 0 {
		fmt.Fprintf(s.err, w.more, r.More)
	}
	fmt.Fprintf(s.out, w.lines, r.Lines, r.From, r.To, r.First, r.Last)
	if r.Unproven > 0 {
		fmt.Fprintf(s.err, w.unproven, r.Unproven)
	}
	if r.Hash != "" {
		fmt.Fprintf(s.out, w.last, r.Hash)
	}
	if !r.Closed {
		fmt.Fprint(s.out, w.open)
	}
	if r.Suspicious > 0 {
		fmt.Fprintf(s.err, w.bad, r.Suspicious)
		return
	}
	fmt.Fprint(s.out, w.good)
}
