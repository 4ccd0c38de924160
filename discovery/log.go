package discovery

// A Log takes one event: its level ("info", "warn"), a sentence, and pairs of
// key and value. It is called from several goroutines at once and must not
// block for long. Nothing that is logged holds a token. A nil Log is silent.
type Log func(level, message string, pairs ...any)

func (l Log) info(message string, pairs ...any) { l.event("info", message, pairs) }
func (l Log) warn(message string, pairs ...any) { l.event("warn", message, pairs) }

func (l Log) event(level, message string, pairs []any) {
	if l != nil {
		l(level, message, pairs...)
	}
}
