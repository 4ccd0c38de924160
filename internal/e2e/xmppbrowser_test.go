package e2e

import (
	"encoding/json"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// strophe.js in Chromium, from a page that the gateway serves: at the same
// origin, where no CORS is needed, and from another one, where the server's own
// CORS headers must arrive, and once.
func TestXMPPInABrowser(t *testing.T) {
	t.Parallel()
	node := nodeModules(t)
	chromium := program(t, "chromium", "chromium-browser", "google-chrome")
	prosody := startProsody(t)
	web := t.TempDir()
	if err := os.CopyFS(web, os.DirFS(filepath.Join("testdata", "xmpp"))); err != nil {
		t.Fatal(err)
	}
	writeFile(t, web, "strophe.umd.min.js", readFile(t, filepath.Join("node_modules", "strophe.js", "dist", "strophe.umd.min.js")))
	dir := t.TempDir()
	writeCertificate(t, dir)
	writeFile(t, dir, "gateway.yaml", `
listeners:
  - {name: tls, address: "127.0.0.1:0", tls: true}
  - {name: elsewhere, address: "127.0.0.1:0", tls: true}
tls: {certificates: [{cert: cert.pem, key: key.pem}]}
`+oneXMPP(prosody.HTTP)+"  - {path: /, static: "+web+"}\n")
	s := startSite(t, dir)
	d := door{address: s.listeners["tls"], host: "im.example.gov", roots: rootsOf(t, filepath.Join(dir, "cert.pem"))}
	name := func(listener string) string {
		_, port, _ := strings.Cut(s.listeners[listener], ":")
		return "im.example.gov:" + port
	}

	for _, c := range []struct{ origin, listener, site, picture string }{
		{"the same origin", "tls", "", "xmpp"},
		{"another origin", "elsewhere", name("tls"), "xmpp-elsewhere"},
	} {
		t.Run(c.origin, func(t *testing.T) {
			type client struct {
				Name     string `json:"name"`
				Password string `json:"password"`
				Over     string `json:"over"`
				Path     string `json:"path"`
			}
			fragment, err := json.Marshal(map[string]any{"site": c.site, "clients": []client{
				{"anna", accounts["anna"], "BOSH", "/http-bind"},
				{"boris", accounts["boris"], "WebSocket", "/xmpp-websocket"},
			}})
			if err != nil {
				t.Fatal(err)
			}
			wanted := map[string]string{
				"chromium": chromium, "key": keyOf(t, d), "locale": "en-GB",
				"page": "https://" + name(c.listener) + "/#" + url.PathEscape(string(fragment)),
			}
			if pictures := os.Getenv("SINGLEGATE_SCREENSHOTS"); pictures != "" {
				wanted["picture"] = filepath.Join(pictures, c.picture+".png")
			}
			argument, err := json.Marshal(wanted)
			if err != nil {
				t.Fatal(err)
			}
			r := runToEnd(t, exec.Command(node, "xmpp-browser.mjs", string(argument)))
			if r.code != 0 {
				t.Fatalf("the browser: exit code %d\n%s", r.code, r.err)
			}
			seen := decode[struct {
				Rows       [][]string
				Complaints []string
				Late       string
			}](t, r.out)
			want := [][]string{
				{"anna", "BOSH", "https://" + name("tls") + "/http-bind", "CONNECTED", "你好 anna, boris & <all>"},
				{"boris", "WebSocket", "wss://" + name("tls") + "/xmpp-websocket", "CONNECTED", "你好 boris, anna & <all>"},
			}
			if !slices.EqualFunc(seen.Rows, want, slices.Equal) || len(seen.Complaints) != 0 || seen.Late != "" {
				t.Errorf("the page shows %q, want %q; the browser complains %q %s", seen.Rows, want, seen.Complaints, seen.Late)
			}
		})
	}
}
