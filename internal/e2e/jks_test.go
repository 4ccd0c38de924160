package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"singlegate/internal/standin"
)

func testJKS(t *testing.T, e *example) {
	program(t, "keytool")
	startNode(t, standin.Options{ID: "node1", Address: "127.0.0.1:16001"})
	e.makeStores(t, "Run it")
	e.start(t)
	d := e.door(t, "tls", "localhost")
	first := shownCertificate(t, d)
	e.checkIt(t)

	// Renewed under a tunnel: the certificate changes without a signal, and the
	// tunnel goes on.
	echoes := startEchoes(1)
	defer echoes.stop()
	echoes.follow(d.open(t, "/ws/node1"))
	e.makeStores(t, "Renew it")
	e.awaitLog(1, "a certificate was replaced")
	echoes.turn(t, 1)
	d = e.door(t, "tls", "localhost")
	second := shownCertificate(t, d)
	if second.Equal(first) {
		t.Error("the old certificate is served")
	}

	// What is worse is refused.
	if err := os.Rename(filepath.Join(e.dir, "im.pass"), filepath.Join(e.dir, "old.pass")); err != nil {
		t.Fatal(err)
	}
	writeFile(t, e.dir, "im.pass", "changed\n")
	e.awaitLog(1, "is not the store's")
	if !shownCertificate(t, d).Equal(second) {
		t.Error("something else is served")
	}
	r := runCommand(t, e.dir, "certs", "--config", "gateway.yaml")
	contains(t, "certs", r.out, "From the running gateway at 127.0.0.1:16180:")
	contains(t, "certs", r.out, "im.jks (im)")
	_, shown, _ := strings.Cut(section(t, e.readme, "Check it"), "\nNAMES ")
	head, row, _ := strings.Cut("NAMES "+shown, "\n")
	for _, line := range []string{head, row} { // as far as it stays the same
		contains(t, "certs", r.out, line[:strings.Index(head, "DAYS")])
	}
	contains(t, "certs", r.out, "refused, the old one goes on: gateway.yaml:14:7: keystore im.jks: the password in im.pass is not the store's")
	echoes.turn(t, 1)
	if err := echoes.stop(); err != nil {
		t.Error(err)
	}
	if strings.Contains(e.log.String(), "changeit") {
		t.Error("the log has the password")
	}
}

// makeStores runs the commands of a section that make keystores.
func (e *example) makeStores(t *testing.T, heading string) {
	t.Helper()
	for _, line := range shellLines(section(t, e.readme, heading)) {
		for _, begins := range []string{"keytool ", "printf ", "mv "} {
			if !strings.HasPrefix(line.command, begins) {
				continue
			}
			if r := runToEnd(t, e.shell(t, line.command)); r.code != 0 {
				t.Fatalf("%s: exit code %d\n%s%s", line.command, r.code, r.out, r.err)
			}
		}
	}
}
