package config

import (
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"singlegate/internal/audit"
)

func TestAudit(t *testing.T) {
	const rest = "listeners: [{address: \":80\"}]\nroutes: [{path: /, page: check}]\n"
	parse := func(text string) *audit.Config {
		t.Helper()
		f, err := Parse("conf/a.yaml", []byte(rest+text), testEnv)
		if err != nil {
			t.Fatal(err)
		}
		return f.Audit
	}
	if c := parse(""); c != nil {
		t.Errorf("without: %+v", c)
	}
	want := audit.Default()
	want.At, want.File = "a.yaml:3:15", filepath.Join("conf", "audit.log")
	if c := parse("audit: {file: audit.log}"); !reflect.DeepEqual(*c, want) {
		t.Errorf("got %+v, want %+v", *c, want)
	}
	if want.Keep != 180*24*time.Hour || want.MaxSize != 100_000_000 || !want.Compress || !want.Chain || want.Refuse {
		t.Errorf("the defaults are %+v", want)
	}
	c := parse(`audit:
  file: /var/log/singlegate/audit.log
  max_size: 1MiB
  keep: none
  compress: false
  key_file: chain.key
  on_failure: refuse
  syslog: {address: "10.0.0.9:6514", tls: {ca: ca.pem, server_name: Logs.example.gov}, facility: local0, app_name: gate}
`)
	want = audit.Config{
		At: "a.yaml:4:9", File: "/var/log/singlegate/audit.log", MaxSize: 1 << 20, Chain: true, KeyFile: filepath.Join("conf", "chain.key"), Refuse: true,
		Syslog: &audit.Syslog{Address: "10.0.0.9:6514", Facility: 16, AppName: "gate", TLS: &audit.SyslogTLS{CA: filepath.Join("conf", "ca.pem"), ServerName: "logs.example.gov"}},
	}
	if !reflect.DeepEqual(*c, want) {
		t.Errorf("got %+v, want %+v", *c, want)
	}
	for text, tls := range map[string]*audit.SyslogTLS{
		"": nil, ", tls: false": nil, ", tls: true": {},
	} {
		c := parse(`audit: {file: a.log, syslog: {address: "10.0.0.9:601"` + text + `}}`)
		if !reflect.DeepEqual(c.Syslog.TLS, tls) || c.Syslog.Facility != 10 || c.Syslog.AppName != "singlegate" {
			t.Errorf("%q: %+v", text, c.Syslog)
		}
	}
}
