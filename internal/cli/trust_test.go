package cli

import (
	"path/filepath"
	"testing"

	"singlegate/certs"
)

func TestTrust(t *testing.T) {
	t.Setenv("LC_ALL", "C")
	dir := t.TempDir()
	dev, err := certs.DevCertificate(filepath.Join(dir, "it's"), []string{"localhost"})
	if err != nil {
		t.Fatal(err)
	}
	code, out, errs := command(t, "trust", dev.CAFile)
	if code != exitOK || errs != "" {
		t.Errorf("exit code %d, %q", code, errs)
	}
	says(t, out, "update-ca-trust", `certutil -addstore -f Root "`+dev.CAFile+`"`, "sudo cp "+shellQuoted(dev.CAFile)+" /usr/local/")
	t.Setenv("LC_ALL", "zh_CN.UTF-8")
	_, out, _ = command(t, "trust", dev.CAFile)
	says(t, out, "麒麟", shellQuoted(dev.CAFile))

	for file, problem := range map[string]string{dev.CertFile: "none of a CA", dev.KeyFile: "no certificate in PEM", filepath.Join(dir, "none.pem"): "does not exist"} {
		if code, out, errs = command(t, "trust", file); code != exitFailure || out != "" {
			t.Errorf("%s: exit code %d, %q", file, code, out)
		}
		says(t, errs, problem)
	}
}
