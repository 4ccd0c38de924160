package config

import (
	"crypto/tls"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"singlegate/certs"
	"singlegate/discovery"
	"singlegate/gateway"
)

// secret is what the test environment holds; it must never show in an error.
const secret = "s3cr3t zq"

func testEnv(name string) (string, bool) {
	v, ok := map[string]string{
		"WEB_HOST": "web.example.gov",
		"DEADLINE": "20s",
		"SECRET":   secret,
		"EMPTY":    "",
		"TEN":      "10",
		"HOSTBITS": "10.0.0.1/8",
		"CONTROL":  "json\n",
	}[name]
	return v, ok
}

func goodFile() *File {
	waits := gateway.Timeouts{
		Connect: 3 * time.Second, Handshake: 4 * time.Second, Read: 99 * time.Second,
		Stall: time.Minute, Idle: 30 * time.Minute,
	}
	own := waits
	own.Idle, own.Total = 36*time.Hour, 5*time.Minute
	im := []discovery.Node{{
		ID: "node1", Address: "10.0.0.1", Ports: map[string]uint16{"ws": 8083}, Weight: 1, Origin: "singlegate.yaml:19:20",
	}}
	return &File{
		Gateway: gateway.Config{
			Public: gateway.Public{Host: "im.example.gov", Port: 443},
			Listeners: []gateway.Listener{
				{
					At: "singlegate.yaml:4:5", Name: "tls", Address: ":443", TLS: true, HSTS: 180 * 24 * time.Hour,
					Public: gateway.Public{Host: "edge.example.gov", Port: 8443},
				},
				{At: "singlegate.yaml:5:5", Name: "[::1]:80", Address: "[::1]:80"},
			},
			Routes: []gateway.Route{
				{
					At: "singlegate.yaml:22:5", Paths: []string{"/ws/{node}"}, Accept: gateway.AcceptAny,
					Service: "im", Port: "ws", Rewrite: "/", Balance: gateway.RoundRobin, Refuse: gateway.RefuseStatus, Timeouts: waits,
				},
				{
					At: "singlegate.yaml:23:5", Host: "im.example.gov", Paths: []string{"/a", "/b/"}, Accept: gateway.AcceptWebSocket,
					Listeners: []string{"tls", "[::1]:80"}, Service: "xmpp", Port: "tcp", Balance: gateway.LeastConnections,
					Origins: []string{"https://web.example.gov", "null", "file://", "weapp://app"}, Refuse: gateway.RefuseClose, Timeouts: own,
					Frames: gateway.Frames{MaxMessage: 1 << 20, MaxFrame: 64 << 10, Rate: 50, Strict: true},
					Ping:   gateway.Ping{Every: time.Minute, Timeout: 10 * time.Second},
				},
				{
					At: "singlegate.yaml:35:5", Host: "{node}.im.example.gov", Paths: []string{"/"}, Accept: gateway.AcceptAny,
					Service: "im", Balance: gateway.RoundRobin, Refuse: gateway.RefuseStatus, Timeouts: waits,
					Ping: gateway.Ping{Every: 29*time.Minute + 40*time.Second, Timeout: 20 * time.Second},
				},
				{
					At: "singlegate.yaml:36:5", Paths: []string{"/site/"}, Accept: gateway.AcceptHTTP,
					Static: filepath.Join("conf", "web"), Fallback: "index.html", Timeouts: waits,
				},
				{At: "singlegate.yaml:37:5", Paths: []string{"/_check/"}, Accept: gateway.AcceptAny, Page: "check", Timeouts: waits},
				{
					At: "singlegate.yaml:38:5", Paths: []string{"/"}, Accept: gateway.AcceptAny,
					Listeners: []string{"[::1]:80"}, Redirect: "https", Timeouts: waits,
				},
				{
					At: "singlegate.yaml:39:5", Paths: []string{"/"}, Accept: gateway.AcceptAny,
					Listeners: []string{"tls"}, Redirect: "https://web.example.gov/${x}/start", Timeouts: waits,
				},
			},
			Services: []gateway.ServiceRef{
				{
					At: "singlegate.yaml:13:3", Name: "app", Ports: []string{""}, Tunnels: gateway.DefaultTunnelPolicy(), TunnelsPerNode: 5000,
					SourceAddresses: []netip.Addr{netip.MustParseAddr("10.0.0.5"), netip.MustParseAddr("fd00::5"), netip.MustParseAddr("10.0.0.6")},
				},
				{At: "singlegate.yaml:14:3", Name: "xmpp", Ports: []string{"", "bosh", "tcp"}, Tunnels: gateway.DefaultTunnelPolicy()},
				{At: "singlegate.yaml:19:3", Name: "im", Ports: []string{"ws"}, Tunnels: gateway.DefaultTunnelPolicy()},
				{At: "singlegate.yaml:20:3", Name: "im-copy", Ports: []string{"ws"}, Tunnels: gateway.DefaultTunnelPolicy()},
			},
			TrustedProxies: []netip.Prefix{
				netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("192.0.2.7/32"), netip.MustParsePrefix("2001:db8::/32"),
			},
			Limits: gateway.Limits{
				HeadSize: 32 << 10, HeadTimeout: 5 * time.Second, HandshakeTimeout: 6 * time.Second,
				KeepAlive: 7 * time.Second, Descriptors: 1000, Tunnels: 400, Handshakes: 500,
			},
			Shutdown: gateway.Shutdown{Drain: 1500 * time.Millisecond, Deadline: 20 * time.Second},
			Redact:   gateway.Redact{Query: []string{"ticket"}, Paths: []string{"/ws/{session}/*"}},
		},
		Certs: certs.Config{
			Certificates: []certs.Source{
				{At: "singlegate.yaml:9:7", Cert: filepath.Join("conf", "im.pem"), Key: filepath.Join("conf", "keys", "im.key")},
				{At: "singlegate.yaml:10:7", Cert: "/etc/ssl/both.pem"},
			},
			MinVersion: tls.VersionTLS13,
		},
		Nodes: map[string][]discovery.Node{
			"app": {
				{ID: "app1", Address: "10.0.0.21", Ports: map[string]uint16{"": 8888}, Weight: 1, Origin: "singlegate.yaml:13:17"},
				{ID: "app2", Address: "::1", Ports: map[string]uint16{"": 8888}, Weight: 1, Origin: "singlegate.yaml:13:41"},
			},
			"xmpp": {
				{
					ID: "xmpp1", Address: "10.0.0.31", Ports: map[string]uint16{"bosh": 5280, "tcp": 5222},
					Weight: 2, Names: []string{"3050", "3051"}, Origin: "singlegate.yaml:16:7",
				},
				{ID: "3052", Address: "::1", Ports: map[string]uint16{"bosh": 5280}, Weight: 1, Origin: "singlegate.yaml:17:7"},
				{ID: "xmpp3", Address: "xmpp3.internal", Ports: map[string]uint16{"": 80}, Weight: 1, Origin: "singlegate.yaml:18:7"},
			},
			"im":      im,
			"im-copy": im,
		},
		Admin: Admin{
			Address: "127.0.0.1:9180", TokenFile: filepath.Join("conf", "read.token"), WriteTokenFile: "/run/write.token", Hosts: []string{"gw1.mgmt"},
		},
		Logs: Logs{Format: "json", Level: "debug"},
	}
}

func TestGoodFile(t *testing.T) {
	data := readFile(t, "testdata/good.yaml")
	got, err := Parse(filepath.Join("conf", "singlegate.yaml"), data, testEnv)
	if err != nil {
		t.Fatal(err)
	}
	diff(t, reflect.ValueOf(*goodFile()), reflect.ValueOf(*got), "File")
}

// diff reports where two values differ, field by field.
func diff(t *testing.T, want, got reflect.Value, at string) {
	t.Helper()
	if reflect.DeepEqual(want.Interface(), got.Interface()) {
		return
	}
	switch {
	case want.Kind() == reflect.Struct && want.Type() != reflect.TypeFor[netip.Prefix]():
		for i := range want.NumField() {
			diff(t, want.Field(i), got.Field(i), at+"."+want.Type().Field(i).Name)
		}
	case want.Kind() == reflect.Slice && want.Len() == got.Len():
		for i := range want.Len() {
			diff(t, want.Index(i), got.Index(i), at+"[]")
		}
	default:
		t.Errorf("%s:\n got %#v\nwant %#v", at, got.Interface(), want.Interface())
	}
}

func TestWindowsLinesAndFlowTop(t *testing.T) {
	data := strings.ReplaceAll(string(readFile(t, "testdata/good.yaml")), "\n", "\r\n")
	got, err := Parse(filepath.Join("conf", "singlegate.yaml"), []byte(data), testEnv)
	if err != nil {
		t.Fatal(err)
	}
	diff(t, reflect.ValueOf(*goodFile()), reflect.ValueOf(*got), "File")
}

func TestDefaults(t *testing.T) {
	got, err := Parse("a.yaml", []byte(`{listeners: [{address: ":80"}], routes: [{path: /, page: check}]}`), testEnv)
	if err != nil {
		t.Fatal(err)
	}
	want := File{
		Gateway: gateway.Config{
			Listeners: []gateway.Listener{{At: "a.yaml:1:14", Name: ":80", Address: ":80"}},
			Routes: []gateway.Route{{
				At: "a.yaml:1:42", Paths: []string{"/"}, Accept: gateway.AcceptAny, Page: "check", Timeouts: gateway.DefaultTimeouts(),
			}},
			Limits:   gateway.DefaultLimits(),
			Shutdown: gateway.DefaultShutdown(),
		},
		Nodes: map[string][]discovery.Node{},
		Logs:  Logs{Level: "info"},
	}
	diff(t, reflect.ValueOf(want), reflect.ValueOf(*got), "File")
}

// TestBadFiles parses the files of testdata/bad, whose last lines say what is
// wrong with them: "# want: line:column: message". An … at the end of a message
// stands for a list that grows.
func TestBadFiles(t *testing.T) {
	names, err := filepath.Glob("testdata/bad/*.yaml")
	if err != nil || len(names) == 0 {
		t.Fatalf("no files: %v", err)
	}
	for _, name := range names {
		base := filepath.Base(name)
		t.Run(base, func(t *testing.T) {
			data := readFile(t, name)
			var want []string
			for line := range strings.Lines(string(data)) {
				if w, ok := strings.CutPrefix(line, "# want: "); ok {
					want = append(want, base+":"+strings.TrimSuffix(w, "\n"))
				}
			}
			got := messages(t, name, data)
			if len(want) == 0 {
				t.Fatalf("the file says nothing of what is wrong with it:\n%s", strings.Join(got, "\n"))
			}
			same := func(got, want string) bool {
				begin, open := strings.CutSuffix(want, "…")
				return got == want || open && strings.HasPrefix(got, begin)
			}
			if !slices.EqualFunc(got, want, same) {
				t.Errorf("got:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
		})
	}
}

// messages parses what is wrong and gives all its errors.
func messages(t *testing.T, name string, data []byte) []string {
	t.Helper()
	f, err := Parse(name, data, testEnv)
	errs, ok := errors.AsType[*Errors](err)
	if !ok {
		t.Fatalf("got %v, %T (%v); want nil, *Errors", f, err, err)
	}
	var all []string
	for _, e := range errs.Unwrap() {
		if strings.Contains(e.Error(), secret) {
			t.Errorf("the secret shows: %v", e)
		}
		all = append(all, e.Error())
	}
	return all
}

func TestNotText(t *testing.T) {
	const listeners = `listeners: [{address: ":80"}]` + "\n"
	tests := []struct {
		name, data, want string
	}{
		{"empty", "", "x:1:1: the file is empty; it needs listeners and routes at least"},
		{"null", "~", "x:1:1: the file is empty; it needs listeners and routes at least"},
		{"bom", "\xef\xbb\xbf" + listeners, "x:1:1: the file begins with a byte order mark; save it as UTF-8 without BOM"},
		{"utf-16", "\xff\xfea\x00", "x:1:1: the file is UTF-16; save it as UTF-8 without BOM"},
		{"bom within", listeners + "# \ufeff", "x:2:3: a control character; is this a text file?"},
		{"not utf-8", listeners + "# \xb0\xa1", "x:2:3: not UTF-8; save the file as UTF-8 without BOM"},
		{"nul", listeners + "logs: \x00", "x:2:7: a control character; is this a text file?"},
		{"lone carriage return", "a\rb: c", "x:1:2: a control character; is this a text file?"},
		{"large", strings.Repeat("#", maxFile+1), "x:1:1: the file is larger than 1 MiB; is it a config file?"},
		{"tokens", "a: [" + strings.Repeat("1,", maxTokens) + "]", "x:1:50002: the file has more than 50000 words and signs"},
		{"brackets", "a: " + strings.Repeat("[", 100_000), "x:1:19: nested deeper than 16 levels"},
		{"braces", strings.Repeat("{a: ", 100_000), "x:1:65: nested deeper than 16 levels"},
		{"dashes", strings.Repeat("- ", 100_000), "x:1:33: nested deeper than 16 levels"},
		{"indentation", indented(100), "x:17:18: nested deeper than 16 levels"},
		{"key", strings.Repeat("k", 200) + ": 1", "x:1:1: a key of more than 128 bytes"},
		{"replacement character", "logs: {level: \"\uFFFD\"}\n" + listeners, `x:1:15: level: "` + "\uFFFD" + `" is not known; expected one of: "trace", "debug", "info", "warn", "error"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := messages(t, "x", []byte(tt.data)); len(got) != 1 || got[0] != tt.want {
				t.Errorf("got %q\nwant %q", got, tt.want)
			}
		})
	}
}

func indented(depth int) string {
	var b strings.Builder
	for i := range depth {
		b.WriteString(strings.Repeat(" ", i) + "a:\n")
	}
	return b.String()
}

func TestAliasBomb(t *testing.T) {
	var b strings.Builder
	b.WriteString("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n")
	for i := range 9 {
		n, next := string(rune('0'+i)), string(rune('1'+i))
		b.WriteString("a" + next + ": &a" + next + " [" + strings.TrimSuffix(strings.Repeat("*a"+n+", ", 10), ", ") + "]\n")
	}
	want := []string{"x:1:1: with its aliases written out the file has more than 100000 values; it may have 100000"}
	if got := messages(t, "x", []byte(b.String())); !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
}

// An error in a value that aliases repeat is said once.
func TestAliasPlaces(t *testing.T) {
	data := `listeners: [{address: ":80"}]
routes:
  - &r {path: /, page: check, timeouts: {idle: 1}}
  - *r
`
	want := []string{
		`x:3:15: "/": the route at x:3:15 takes the same requests (host, path and accept are the same, on the same listener)`,
		`x:3:48: idle: "1" has no unit; write 1s`,
	}
	if got := messages(t, "x", []byte(data)); !slices.Equal(got, want) {
		t.Errorf("got %q\nwant %q", got, want)
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "gate.yaml")
	t.Setenv("SINGLEGATE_TEST_ADDRESS", "127.0.0.1:0")
	content := "listeners: [{name: a, address: \"${SINGLEGATE_TEST_ADDRESS}\"}]\nroutes: [{path: /, static: web}]\n"
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := f.Gateway.Listeners[0].Address; got != "127.0.0.1:0" {
		t.Errorf("address %q", got)
	}
	if got, want := f.Gateway.Routes[0].Static, filepath.Join(dir, "web"); got != want {
		t.Errorf("static %q, want %q", got, want)
	}
}

func TestLoadUnreadable(t *testing.T) {
	path := filepath.Join(t.TempDir(), "none.yaml")
	_, err := Load(path)
	if !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), path) {
		t.Errorf("got %v", err)
	}
	if _, ok := errors.AsType[*Errors](err); ok {
		t.Errorf("%v says that the content is wrong", err)
	}
}

func TestLoadLarge(t *testing.T) {
	path := filepath.Join(t.TempDir(), "large.yaml")
	if err := os.WriteFile(path, make([]byte, maxFile+10), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Load(path)
	if err == nil || err.Error() != "large.yaml:1:1: the file is larger than 1 MiB; is it a config file?" {
		t.Errorf("got %v", err)
	}
}

func TestErrorsAreBounded(t *testing.T) {
	var data strings.Builder
	for i := range 60 {
		data.WriteString(strings.Repeat("k", i+1) + ": 1\n")
	}
	data.WriteString("listeners: [{address: \":80\"}]\n")
	_, err := Parse("x", []byte(data.String()), testEnv)
	errs, ok := errors.AsType[*Errors](err)
	if !ok || len(*errs) != 60 {
		t.Fatalf("got %v", err)
	}
	lines := strings.Split(err.Error(), "\n")
	if len(lines) != maxShown+1 || lines[maxShown] != "and 10 more" {
		t.Errorf("got %d lines, the last is %q", len(lines), lines[len(lines)-1])
	}
	one, ok := errors.AsType[Error](err)
	if want := (Error{File: "x", Line: 1, Column: 1, Message: `unknown key "k"; known here: ` + known}); !ok || one != want {
		t.Errorf("got %+v", one)
	}
}

const known = `"public", "admin", "timeouts", "listeners", "tls", "services", "discovery", "trusted_proxies", "limits", "shutdown", "logs", "audit", "auth", "node_ports", "routes"`

// A long wrong value, whatever it holds, is one short line in an error.
func TestErrorsShowLittle(t *testing.T) {
	value := strings.Repeat("€", 1000) + `\n\u202e`
	for _, e := range messages(t, "x", []byte("listeners: [{address: \""+value+"\"}]\n"+"logs: {level: \"a\u202eb\"}\n")) {
		if len(e) > 400 || strings.ContainsAny(e, "\n\u202e") {
			t.Errorf("got %q", e)
		}
	}
}

func readFile(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.FromSlash(name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}
