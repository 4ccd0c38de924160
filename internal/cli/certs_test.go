package cli

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"singlegate/certs"
	"singlegate/gateway/admin"
)

// certsSite is a config with a TLS listener, an admin address and a certificate.
func certsSite(t *testing.T, adminAddress string) (path string) {
	t.Helper()
	dir := t.TempDir()
	dev, err := certs.DevCertificate(dir, []string{"im.example.gov"})
	if err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(dir, "singlegate.yaml")
	writeConfig(t, path, fmt.Sprintf(`
admin: {address: %q}
listeners: [{address: "127.0.0.1:0", tls: true}]
tls: {certificates: [{cert: %s, key: %s}]}
routes: [{path: /, page: check}]
`, adminAddress, filepath.Base(dev.CertFile), filepath.Base(dev.KeyFile)))
	return path
}

// The verb asks the gateway that runs, or else reads the files, and says which.
func TestCerts(t *testing.T) {
	inLanguage(t, "C")
	address := freeAddress(t)
	path := certsSite(t, address)
	code, out, errs := command(t, "certs", "--config", path)
	if code != exitOK || errs != "" {
		t.Fatalf("exit code %d, %s", code, errs)
	}
	says(t, out, "From the files that "+path+" names, not from a running gateway: no answer from the admin address "+address, "NAMES", "im.example.gov, localhost, 127.0.0.1 +1 (default)", "singlegate development CA", "ECDSA P-256", "396       -  -     ", "dev.pem")

	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	s := openTestSite(t, path, string(text))
	conn, err := tls.Dial("tcp", s.server.Entries()[0].Address.String(), &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	for _, args := range [][]string{{"--config", path}, {"--admin", address}} {
		code, out, errs = command(t, append([]string{"certs"}, args...)...)
		if code != exitOK || errs != "" {
			t.Fatalf("exit code %d, %s", code, errs)
		}
		says(t, out, "From the running gateway at "+address+":", "396       1  -     ")
	}
	var report certReport
	code, out, _ = command(t, "certs", "--admin", address, "--json")
	if err := json.Unmarshal([]byte(out), &report); err != nil || code != exitOK {
		t.Fatal(code, err, out)
	}
	if c := report.Certificates.Certificates; report.From != "gateway" || report.Admin != address || len(c) != 1 || len(c[0].Names) != 4 || c[0].Served != 1 {
		t.Errorf("the report is %+v", report)
	}
	resp, err := http.Get("http://" + address + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	metrics, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	labels := fmt.Sprintf(`{alias="",name="im.example.gov",source=%q} `, filepath.Join(filepath.Dir(path), "dev.pem"))
	says(t, string(metrics), "singlegate_certificate_served_total"+labels+"1\n", "singlegate_certificate_chain_complete"+labels+"1\n",
		"singlegate_certificate_replacement_refused"+labels+"0\n", fmt.Sprintf("singlegate_certificate_not_after_timestamp_seconds%s%.9e", labels, float64(s.certs.Infos()[0].NotAfter.Unix())))
	if strings.Contains(string(metrics), "singlegate_certificate_ocsp_failures_total{") {
		t.Error("OCSP of a certificate that names no responder")
	}
}

func TestCertsWithoutAGateway(t *testing.T) {
	inLanguage(t, "C")
	address := freeAddress(t)
	if code, out, errs := command(t, "certs", "--admin", address); code != exitFailure || out != "" || !strings.Contains(errs, "no answer from the admin address "+address) {
		t.Errorf("exit code %d: %s%s", code, out, errs)
	}
	path := certsSite(t, address)
	if err := os.Remove(filepath.Join(filepath.Dir(path), "dev.pem")); err != nil {
		t.Fatal(err)
	}
	if code, out, errs := command(t, "certs", "--config", path); code != exitFailure || out != "" || !strings.Contains(errs, "singlegate.yaml:4:22: certificate file ") {
		t.Errorf("exit code %d: %s%s", code, out, errs)
	}
	writeConfig(t, path, "listeners: [{address: \"127.0.0.1:0\"}]\nroutes: [{path: /, page: check}]\n")
	if code, out, errs := command(t, "certs", "--config", path); code != exitOK || !strings.Contains(out, "has no admin address") || !strings.Contains(out, "There are no certificates.") {
		t.Errorf("exit code %d: %s%s", code, out, errs)
	}
}

// A reload with a certificate for fewer names is refused as a whole.
func TestReloadKeepsNames(t *testing.T) {
	path := certsSite(t, "127.0.0.1:0")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	s := openTestSite(t, path, string(text))
	dir := filepath.Dir(path)
	other, err := certs.DevCertificate(t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	for from, to := range map[string]string{other.CertFile: "dev.pem", other.KeyFile: "dev.key"} {
		if err := os.Rename(from, filepath.Join(dir, to)); err != nil {
			t.Fatal(err)
		}
	}
	writeConfig(t, path, strings.Replace(string(text), "path: /,", "path: /check,", 1))
	s.reload(load(path))
	if got := s.file.Gateway.Routes[0].Paths[0]; got != "/" {
		t.Errorf("the new config with %s is in force", got)
	}
	if names := s.certs.Infos()[0].Names; !slices.Contains(names, "im.example.gov") {
		t.Errorf("served are %q", names)
	}
}

// Everything that can occur in the table, in both languages.
func TestCertsView(t *testing.T) {
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	until := now.Add(time.Hour)
	r := certReport{From: "gateway", Admin: "127.0.0.1:9180", Certificates: admin.Certificates{
		Time: now,
		Certificates: []certs.Info{
			{
				Names: []string{"im.example.gov", "*.im.example.gov", "10.0.0.1", "a", "b"}, Issuer: "政务 CA", Chain: 3, Completed: 1, ChainComplete: true, Key: "RSA 2048",
				NotAfter: now.Add(89 * 24 * time.Hour), Source: "im.jks", Alias: "im", Default: true, Served: 1234567,
				OCSP: certs.OCSP{Responder: "http://ocsp.example", Status: "good", Stapled: true, Until: &until},
			},
			{
				Names: []string{"app.example.gov"}, Issuer: "inner\x1b[2J", Chain: 1, Key: "ECDSA P-256", NotAfter: now.Add(-time.Hour), Source: "app.pem", Served: 7,
				OCSP: certs.OCSP{Responder: "http://ocsp.example", Fault: "it answered 500"}, Refused: "a.yaml:1:1: no PEM",
			},
			{
				Names: []string{"x.example.gov"}, SelfSigned: true, Chain: 1, ChainComplete: true, Key: "Ed25519", NotAfter: now.Add(36 * time.Hour), Source: "x.pem",
				OCSP: certs.OCSP{Responder: "http://ocsp.example", Status: "revoked"},
			},
		},
		Faults: []string{"a.yaml:2:2: broken.pem holds no PEM"},
	}}
	for _, c := range []struct {
		golden string
		say    words
		own    certWords
	}{{"certs.en.golden", english(), englishCerts()}, {"certs.zh.golden", chinese(), chineseCerts()}} {
		got := certsView(r, "", c.say, c.own)
		path := filepath.Join("testdata", c.golden)
		if *update {
			if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if got != string(want) {
			t.Errorf("%s: the table is\n%s\nwant\n%s", c.golden, got, want)
		}
		if strings.ContainsRune(got, '\x1b') {
			t.Error("an escape sequence in a certificate reached the terminal")
		}
	}
}

func TestLanguagesAgreeOnCertificates(t *testing.T) {
	en, zh := texts(reflect.ValueOf(englishCerts())), texts(reflect.ValueOf(chineseCerts()))
	if len(en) < 20 || len(zh) != len(en) {
		t.Fatalf("%d texts in English, %d in Chinese", len(en), len(zh))
	}
	for name, text := range en {
		if a, b := verb.FindAllString(text, -1), verb.FindAllString(zh[name], -1); zh[name] == "" || !slices.Equal(a, b) {
			t.Errorf("%s: %q and %q", name, text, zh[name])
		}
	}
}
