package cli

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"singlegate/gateway"
	"singlegate/internal/audit"
	"singlegate/internal/config"
)

// openAudit opens the audit log that the config asks for; without one the
// gateway gets none.
func (s *site) openAudit() (gateway.AuditLog, error) {
	if s.file.Audit == nil {
		return nil, nil
	}
	l, err := audit.Open(*s.file.Audit, version, s.log)
	if err != nil {
		return nil, err
	}
	s.audit = l
	return l, nil
}

// closeAudit ends the audit log, after everything that writes to it. A disk that
// does not answer holds the end up for a few seconds.
func (s *site) closeAudit() {
	if s.audit == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := s.audit.Close(ctx); err != nil {
		s.log.Error().Err(err).Msg("audit log")
	}
}

// auditReload notes a reload, and goes on in the file that has the name now.
func (s *site) auditReload(err error) {
	if s.audit != nil {
		s.audit.Reopen()
	}
	s.server.NoteAdmin(gateway.AdminAction{Action: "reload", Err: err})
}

// checkAudit tells what keeps the audit log from being written.
func checkAudit(file *config.File) error {
	if file.Audit == nil {
		return nil
	}
	return audit.Check(*file.Audit)
}

func auditWarnings(file *config.File) []string {
	if file.Audit == nil {
		return nil
	}
	return audit.Warnings(*file.Audit)
}

// withoutPlace is the config of an audit log wherever it is written.
func withoutPlace(c *audit.Config) *audit.Config {
	if c == nil {
		return nil
	}
	same := *c
	same.At = ""
	return &same
}

// auditMetrics tell of the audit log. Without one there are no such series.
type auditMetrics struct {
	log                             *audit.Log
	lines, dropped, errors, failing *prometheus.Desc
}

func newAuditMetrics(log *audit.Log) *auditMetrics {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("singlegate_audit_"+name, help, labels, nil)
	}
	return &auditMetrics{
		log:     log,
		lines:   desc("lines_total", "Lines of the audit log that were written, to the file and to the syslog collector.", "to"),
		dropped: desc("dropped_total", "Lines of the audit log that are lost, because the file or the collector took none for too long.", "to"),
		errors:  desc("errors_total", "Attempts to write to the file, or to reach the collector, that failed.", "to"),
		failing: desc("failing", "1 while nothing can be noted in the file.", "to"),
	}
}

// Describe implements prometheus.Collector.
func (m *auditMetrics) Describe(ch chan<- *prometheus.Desc) {
	ch <- m.lines
	ch <- m.dropped
	ch <- m.errors
	ch <- m.failing
}

// Collect implements prometheus.Collector.
func (m *auditMetrics) Collect(ch chan<- prometheus.Metric) {
	if m.log == nil {
		return
	}
	put := func(d *prometheus.Desc, kind prometheus.ValueType, v float64, to string) {
		ch <- prometheus.MustNewConstMetric(d, kind, v, to)
	}
	tell := func(to string, lines, dropped, errors int64, works bool) {
		failing := 1.0
		if works {
			failing = 0
		}
		put(m.lines, prometheus.CounterValue, float64(lines), to)
		put(m.dropped, prometheus.CounterValue, float64(dropped), to)
		put(m.errors, prometheus.CounterValue, float64(errors), to)
		put(m.failing, prometheus.GaugeValue, failing, to)
	}
	s := m.log.Stats()
	tell("file", s.Written, s.Dropped, s.Errors, !s.Failing)
	if s.Syslog != nil {
		tell("syslog", s.Syslog.Sent, s.Syslog.Dropped, s.Syslog.Errors, s.Syslog.Connected)
	}
}
