package imservers

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// XMPPOptions are how an XMPP server runs.
type XMPPOptions struct {
	Address  string            // host:port of its HTTP; "": a free port of 127.0.0.1
	Host     string            // its virtual host, and the one for requests with any other Host
	Accounts map[string]string // the passwords, by user name
	Config   string            // more of its configuration: Lua at the end of Prosody's, YAML at the end of ejabberd's
}

// StartProsody runs a Prosody with BOSH at /http-bind and WebSocket at
// /xmpp-websocket, and waits until it serves. When the test ends, so does the
// server.
func StartProsody(t testing.TB, o XMPPOptions) *Server {
	t.Helper()
	binary, dir := program(t, "prosody"), t.TempDir()
	config := filepath.Join(dir, "prosody.cfg.lua")
	for user, password := range o.Accounts {
		// Prosody writes what a file's name cannot have as %xx.
		folder := strings.NewReplacer(".", "%2e", "-", "%2d").Replace(o.Host)
		writeFile(t, filepath.Join(dir, "data", folder, "accounts", user+".dat"), fmt.Sprintf("return { [\"password\"] = %q };\n", password))
	}
	s := &Server{t: t, ready: "Serving 'websocket' at", taken: "Failed to open server port"}
	s.command = func() *exec.Cmd { return exec.Command(binary, "-F", "--config", config) }
	s.launch(o.Address != "", func() { s.HTTP = chosen(t, o.Address) }, func() { writeFile(t, config, prosodyConfig(t, dir, s.HTTP, o)) })
	return s
}

func prosodyConfig(t testing.TB, dir, address string, o XMPPOptions) string {
	t.Helper()
	host, port := split(t, address)
	return fmt.Sprintf(`
run_as_root = true
pidfile = %q
data_path = %q
certificates = %q
log = { info = "*console" }
modules_enabled = { "roster", "saslauth", "disco", "ping", "bosh", "websocket" }
modules_disabled = { "s2s", "offline" }
authentication = "internal_plain"
http_ports = { %s }
http_interfaces = { %q }
https_ports = {}
c2s_ports = {}
c2s_direct_tls_ports = {}
s2s_ports = {}
http_default_host = %[7]q
consider_bosh_secure = true
consider_websocket_secure = true
trusted_proxies = { "127.0.0.1" }
VirtualHost %[7]q
%[8]s
`, filepath.Join(dir, "prosody.pid"), filepath.Join(dir, "data"), dir, port, host, "", o.Host, o.Config)
}

// StartEjabberd runs an ejabberd with BOSH at /bosh and WebSocket at /ws, and
// waits until it serves. It is an Erlang node of no cluster: it opens no port
// but the one for HTTP, and starts no epmd. When the test ends, so does the
// server. Its accounts are made anew at every start.
func StartEjabberd(t testing.TB, o XMPPOptions) *Server {
	t.Helper()
	libraries := erlangLibraries(t)
	erl, dir := program(t, "erl"), t.TempDir()
	config := filepath.Join(dir, "ejabberd.yml")
	s := &Server{t: t, ready: accountsMade, taken: "Failed to open socket"}
	s.command = func() *exec.Cmd {
		cmd := exec.Command(erl, "-noinput", "-start_epmd", "false", "+sbwt", "none", "+sbwtdcpu", "none", "+sbwtdio", "none",
			"-mnesia", "dir", fmt.Sprintf("%q", filepath.Join(dir, "spool")), "-s", "ejabberd", "-eval", makeAccounts(o))
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "HOME="+dir, "ERL_LIBS="+libraries, "EJABBERD_CONFIG_PATH="+config,
			"EJABBERD_LOG_PATH="+filepath.Join(dir, "ejabberd.log"), "ERL_CRASH_DUMP="+filepath.Join(dir, "crash.dump"))
		return cmd
	}
	s.launch(o.Address != "", func() { s.HTTP = chosen(t, o.Address) }, func() { writeFile(t, config, ejabberdConfig(t, s.HTTP, o)) })
	return s
}

func ejabberdConfig(t testing.TB, address string, o XMPPOptions) string {
	t.Helper()
	host, port := split(t, address)
	return fmt.Sprintf(`
hosts: [%q]
loglevel: info
auth_method: internal
trusted_proxies: ["127.0.0.1"]
listen:
  - port: %s
    ip: %q
    module: ejabberd_http
    request_handlers: {/bosh: mod_bosh, /ws: ejabberd_http_ws}
modules: {mod_bosh: {}, mod_disco: {}, mod_ping: {}, mod_roster: {}}
%s
`, o.Host, port, host, o.Config)
}

// accountsMade is what the Erlang node writes after the last account.
const accountsMade = "singlegate: accounts made"

// makeAccounts is an Erlang expression that makes the accounts.
func makeAccounts(o XMPPOptions) string {
	var b strings.Builder
	for user, password := range o.Accounts {
		fmt.Fprintf(&b, "ejabberd_auth:try_register(<<%q>>, <<%q>>, <<%q>>), ", user, o.Host, password)
	}
	fmt.Fprintf(&b, "io:format(\"~n%s~n\").", accountsMade)
	return b.String()
}

var libraryFolder = regexp.MustCompile(`(?m)^(?:export )?ERL_LIBS='?([^'\n]*)`)

// erlangLibraries is where the package keeps ejabberd's code, as its own script
// has it.
func erlangLibraries(t testing.TB) string {
	t.Helper()
	text, err := os.ReadFile(program(t, "ejabberdctl"))
	if err != nil {
		t.Fatal(err)
	}
	m := libraryFolder.FindSubmatch(text)
	if m == nil {
		t.Fatal("ejabberdctl sets no ERL_LIBS")
	}
	return string(m[1])
}

// chosen is the address that was given, or a free one.
func chosen(t testing.TB, given string) string {
	t.Helper()
	if given != "" {
		return given
	}
	return FreeAddress(t)
}
