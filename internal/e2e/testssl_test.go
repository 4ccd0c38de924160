package e2e

import (
	"context"
	"flag"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

var wholeTestssl = flag.Bool("testssl", false, "TestTestssl makes every check of testssl.sh, which takes minutes")

// A finding is what testssl.sh says of one check.
type finding struct{ ID, Severity, Finding string }

// testssl.sh finds nothing worse than LOW in a gateway with two certificates, as
// sites have them, and no setting of TLS.
func TestTestssl(t *testing.T) {
	t.Parallel()
	testssl := program(t, "testssl", "testssl.sh") // Debian's name is the short one
	dir := t.TempDir()
	ca := newClientCA(t, filepath.Join(dir, "ca"))
	writeFile(t, ca.dir, "site.ext", "subjectAltName = DNS:localhost, IP:127.0.0.1\nextendedKeyUsage = serverAuth\nkeyUsage = digitalSignature\n"+
		"basicConstraints = CA:FALSE\ncrlDistributionPoints = URI:http://127.0.0.1:9/crl.pem\n")
	for name, key := range map[string][]string{"ecdsa": {"ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"}, "rsa": {"rsa:2048"}} {
		ca.openssl(slices.Concat([]string{"req", "-newkey"}, key, []string{"-nodes", "-keyout", name + ".key", "-out", name + ".csr", "-subj", "/CN=localhost"})...)
		ca.openssl("ca", "-config", "ca.cnf", "-batch", "-notext", "-days", "90", "-extfile", "site.ext", "-in", name+".csr", "-out", name+".pem")
	}
	writeFile(t, dir, "gateway.yaml", `
listeners: [{name: tls, address: "127.0.0.1:0", tls: true}]
tls: {certificates: [{cert: ca/ecdsa.pem, key: ca/ecdsa.key}, {cert: ca/rsa.pem, key: ca/rsa.key}]}
routes: [{path: /_check/, page: check}]
`)
	s := startSite(t, dir)

	result := filepath.Join(dir, "result.json")
	args := []string{"--color", "0", "--warnings", "off", "--add-ca", filepath.Join(ca.dir, "ca.pem"), "--ip", "127.0.0.1", "--jsonfile", result}
	limit := 4 * time.Minute
	if *wholeTestssl {
		limit = 14 * time.Minute
	} else { // versions, suites, forward secrecy, vulnerabilities
		args = append(args, "--quiet", "--fast", "-p", "-s", "-f", "-U")
	}
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	_, port, _ := strings.Cut(s.listeners["tls"], ":")
	cmd := exec.CommandContext(ctx, testssl, append(args, "https://localhost:"+port)...)
	cmd.Dir, cmd.WaitDelay = dir, time.Second
	said, err := cmd.CombinedOutput() // the exit code counts findings; the file tells them
	if ctx.Err() != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	if *wholeTestssl {
		t.Logf("%s", said)
	}
	checkFindings(t, decode[[]finding](t, readFile(t, result)))
}

func checkFindings(t *testing.T, all []finding) {
	t.Helper()
	made := map[string]string{}
	for _, f := range all {
		made[f.ID] = f.Severity
		switch f.Severity {
		case "OK", "INFO", "WARN": // a WARN is about testssl's own means
		case "LOW":
			t.Logf("LOW %s: %s", f.ID, f.Finding)
		default:
			t.Errorf("%s %s: %s", f.Severity, f.ID, f.Finding)
		}
	}
	for _, id := range []string{"SSLv2", "SSLv3", "TLS1_2", "TLS1_3", "cipherlist_3DES_IDEA", "heartbleed", "secure_renego", "BREACH", "SWEET32", "LUCKY13"} {
		if made[id] == "" {
			t.Errorf("the check %s was not made", id)
		}
	}
}
