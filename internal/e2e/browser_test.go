package e2e

import (
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"singlegate/internal/standin"
)

// A view is what a browser shows of the connection check.
type view struct {
	Language, Title, Summary string
	Nodes                    []struct{ Node, State, Pill, Outcome string }
	Messages                 []struct{ Node, Trip, Text string }
	Complaints               []string // console errors, exceptions, violations of the CSP
}

// look opens the check page of a gateway in Chromium. picture names a file in
// the folder SINGLEGATE_SCREENSHOTS, if there is one.
func look(t *testing.T, d door, page, locale, say, picture string) view {
	t.Helper()
	node := nodeModules(t)
	wanted := map[string]string{
		"chromium": program(t, "chromium", "chromium-browser", "google-chrome"),
		"page":     page, "key": keyOf(t, d), "locale": locale, "say": say,
	}
	if dir := os.Getenv("SINGLEGATE_SCREENSHOTS"); dir != "" {
		wanted["picture"] = filepath.Join(dir, picture+".png")
	}
	argument, err := json.Marshal(wanted)
	if err != nil {
		t.Fatal(err)
	}
	r := runToEnd(t, exec.Command(node, "browser.mjs", string(argument)))
	if r.code != 0 {
		t.Fatalf("the browser: exit code %d\n%s", r.code, r.err)
	}
	return decode[view](t, r.out)
}

// keyOf is the hash of the public key that a gateway shows, as Chromium wants
// to be told what to trust.
func keyOf(t *testing.T, d door) string {
	t.Helper()
	conn, err := d.dial()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	cert := conn.(*tls.Conn).ConnectionState().PeerCertificates[0]
	sum := sha256.Sum256(cert.RawSubjectPublicKeyInfo)
	return base64.StdEncoding.EncodeToString(sum[:])
}

var aRoundTrip = regexp.MustCompile(`^\d[\d.]* m?s round trip$`)

func TestDemoPageInABrowser(t *testing.T) {
	d := startDemo(t, t.TempDir(), "127.0.0.1:0")
	v := look(t, d.door, d.page, "en-GB", "over the wire", "demo")
	if len(v.Complaints) > 0 {
		t.Errorf("the browser complains:\n%s", strings.Join(v.Complaints, "\n"))
	}
	if v.Language != "en" || v.Summary != "3 of 3 nodes reachable" {
		t.Errorf("the page says %q in %q", v.Summary, v.Language)
	}
	var nodes, echoes []string
	for _, n := range v.Nodes {
		nodes = append(nodes, n.Node+" "+n.State+" "+n.Pill)
	}
	if want := []string{"node1 open OPENED", "node2 open OPENED", "node3 open OPENED"}; !slices.Equal(nodes, want) {
		t.Errorf("the page shows %q, want %q", nodes, want)
	}
	for _, m := range v.Messages {
		if strings.Contains(m.Text, "over the wire") {
			echoes = append(echoes, nodeSays(t, m.Text, m.Node).Node)
			if !aRoundTrip.MatchString(m.Trip) {
				t.Errorf("the answer of %s shows %q, not a round-trip time", m.Node, m.Trip)
			}
		}
	}
	slices.Sort(echoes)
	if want := []string{"node1", "node2", "node3"}; !slices.Equal(echoes, want) {
		t.Errorf("answers of %q, want %q", echoes, want)
	}
}

// A node that is down shows why, in the reader's language.
func TestCheckPageShowsANodeThatIsDown(t *testing.T) {
	dir := t.TempDir()
	writeCertificate(t, dir)
	writeFile(t, dir, "gateway.yaml", fmt.Sprintf(`
listeners: [{name: tls, address: "localhost:0", tls: true}]
tls: {certificates: [{cert: cert.pem, key: key.pem}]}
services: {im: {nodes: {node1: %q, node2: %q}}}
routes:
  - {path: "/ws/{node}", service: im, rewrite: /}
  - {path: /_check/, page: check}
`, startNode(t, standin.Options{ID: "node1"}).Addr(), freeAddress(t)))
	s := startSite(t, dir)
	d := door{address: s.listeners["tls"], host: s.listeners["tls"], roots: rootsOf(t, filepath.Join(dir, "cert.pem"))}
	page := "https://" + d.address + "/_check/"

	for _, c := range []struct{ locale, language, summary, opened, failed, why, words string }{
		{"en-GB", "en", "1 of 2 nodes reachable", "OPENED", "failed", "503: the node is down", `The node "node2" cannot be reached`},
		{"zh-CN", "zh-CN", "2 个节点中 1 个可达", "OPENED", "失败", "503：节点当前不可用", `节点 "node2" 无法连接`},
	} {
		t.Run(c.locale, func(t *testing.T) {
			v := look(t, d, page, c.locale, "", "down-"+c.locale)
			if v.Language != c.language || v.Summary != c.summary {
				t.Errorf("the page says %q in %q, want %q in %q", v.Summary, v.Language, c.summary, c.language)
			}
			if len(v.Nodes) != 2 {
				t.Fatalf("the page shows %d nodes, want 2", len(v.Nodes))
			}
			up, down := v.Nodes[0], v.Nodes[1]
			if up.State != "open" || up.Pill != c.opened {
				t.Errorf("node1 is %q (%q), want open", up.State, up.Pill)
			}
			if down.State != "failed" || down.Pill != c.failed {
				t.Errorf("node2 is %q (%q), want failed", down.State, down.Pill)
			}
			contains(t, "what the page says of node2", down.Outcome, c.why, c.words)
			for _, complaint := range v.Complaints {
				// The browser has its own words on the refused handshake.
				if !strings.Contains(complaint, "503") && !strings.Contains(complaint, "/ws/node2") {
					t.Errorf("the browser complains: %s", complaint)
				}
			}
		})
	}
}
