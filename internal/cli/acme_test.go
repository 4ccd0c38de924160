package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// check looks at whatever can be looked at without asking the ACME server.
func TestCheckOfACME(t *testing.T) {
	t.Setenv("LC_ALL", "C")
	dir := t.TempDir()
	path := filepath.Join(dir, "gateway.yaml")
	for name, text := range map[string]string{"ca.pem": "no PEM", "hook": "#!/bin/sh\n", "eab.key": "§", "file": "", "short.key": "short"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	writeConfig(t, path, `
listeners: [{address: ":80"}, {address: ":443", tls: true}]
routes: [{path: /, page: check}]
tls:
  certificates:
    - acme: {names: ["*.im.example.gov"], directory: "https://ca.internal/dir", ca: none.pem, hook: ./hook, storage: ./file/acme}
    - acme: {names: [im.example.gov], directory: "https://ca.internal/dir", ca: ca.pem, eab: {key_id: a, mac_key_file: eab.key}, hook: ./none, storage: ./acme}
`)
	code, out, errs := command(t, "check", "--config", path)
	if code != exitFailure || out != "" {
		t.Errorf("exit code %d, output %q", code, out)
	}
	says(t, errs, "gateway.yaml:6:7: acme: CA file ", "none.pem does not exist", "is not a program: make it executable", "file is a file; name a folder",
		"gateway.yaml:7:7: acme: CA file ", "ca.pem holds no certificate", "does not hold a key in base64url", "none: no such file")
	if strings.Contains(errs, "§") {
		t.Error("the error shows what is in the key's file")
	}

	writeConfig(t, path, `
listeners: [{address: ":80"}, {address: ":443", tls: true}]
routes: [{path: /, page: check}]
discovery: {consul: "127.0.0.1:1"}
tls:
  shared: {key_file: short.key, consul: singlegate/certs}
  certificates: [{acme: {names: [im.example.gov], directory: "https://ca.internal/dir"}}]
`)
	_, _, errs = command(t, "check", "--config", path)
	says(t, errs, "gateway.yaml:6:11: shared key file ", "has 5 bytes, and 32 are the least")
	if err := os.WriteFile(filepath.Join(dir, "short.key"), []byte(strings.Repeat("k", 32)), 0o600); err != nil {
		t.Fatal(err)
	}
	code, out, errs = command(t, "check", "--config", path)
	if code != exitOK || errs != "" {
		t.Errorf("exit code %d, %q", code, errs)
	}
	says(t, out, "1 name by ACME")
	if _, err := os.Stat(filepath.Join(dir, "acme")); err == nil {
		t.Error("check has made a folder")
	}
}
