package acme

import (
	"strings"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// bridge is a logger for certmagic that writes into ours. Its debug lines, which
// tell every step of the protocol, go to "debug".
func bridge(log Log) *zap.Logger {
	return zap.New(&core{log: log})
}

type core struct {
	log    Log
	fields []zapcore.Field
}

// Enabled implements zapcore.Core.
func (c *core) Enabled(zapcore.Level) bool { return true }

// With implements zapcore.Core.
func (c *core) With(fields []zapcore.Field) zapcore.Core {
	return &core{log: c.log, fields: append(c.fields[:len(c.fields):len(c.fields)], fields...)}
}

// Check implements zapcore.Core.
func (c *core) Check(e zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	return checked.AddCore(e, c)
}

// Write implements zapcore.Core.
func (c *core) Write(e zapcore.Entry, fields []zapcore.Field) error {
	values := zapcore.NewMapObjectEncoder()
	for _, f := range append(c.fields[:len(c.fields):len(c.fields)], fields...) {
		f.AddTo(values)
	}
	pairs := make([]any, 0, 2*len(values.Fields))
	for name, value := range values.Fields {
		pairs = append(pairs, name, value)
	}
	c.log(level(e.Level), "acme: "+strings.TrimSpace(e.Message), pairs...)
	return nil
}

// Sync implements zapcore.Core.
func (c *core) Sync() error { return nil }

func level(l zapcore.Level) string {
	switch {
	case l < zapcore.InfoLevel:
		return "debug"
	case l == zapcore.InfoLevel:
		return "info"
	case l == zapcore.WarnLevel:
		return "warn"
	}
	return "error"
}
