package e2e

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"singlegate/internal/pebbletest"
	"singlegate/internal/standin"
)

func testACMEExample(t *testing.T, e *example) {
	startNode(t, standin.Options{ID: "node1", Address: "127.0.0.1:16501"})
	server := pebbletest.Start(t, pebbletest.Options{HTTPPort: 16580, TLSPort: 16543})
	writeFile(t, e.dir, "ca.pem", readFile(t, server.CAFile))
	writeFile(t, e.dir, "root.pem", server.Root(t))
	config := readFile(t, filepath.Join(e.dir, "gateway.yaml"))
	const directory = "https://ca.example.internal/acme/acme/directory"
	if !strings.Contains(config, `"`+directory+`"`) {
		t.Fatal("the config names no directory to be replaced")
	}
	writeFile(t, e.dir, "gateway.yaml", strings.Replace(config, directory, server.Directory, 1))
	e.start(t)
	s := &acmeSite{secure: "127.0.0.1:16543"}
	for _, name := range []string{"im.example.gov", "app.example.gov"} {
		s.await(t, name, server.Issued(t), anyCertificate)
	}
	e.checkIt(t)
	r := runCommand(t, e.dir, "certs", "--config", "gateway.yaml")
	contains(t, "certs", r.out, "im.example.gov", "app.example.gov", "acme 127.0.0.1")
}

func testInternalCA(t *testing.T, e *example) {
	startNode(t, standin.Options{ID: "node1", Address: "127.0.0.1:16601"})
	startNode(t, standin.Options{ID: "node2", Address: "127.0.0.1:16602"})
	e.start(t)
	e.checkIt(t)
	r := runCommand(t, e.dir, "certs", "--config", "gateway.yaml")
	contains(t, "certs", r.out, "2, 1 from the folder")

	// A second gateway takes the first one's session.
	config := readFile(t, filepath.Join(e.dir, "gateway.yaml"))
	second := freeAddress(t)
	writeFile(t, e.dir, "gateway.yaml", strings.NewReplacer("127.0.0.1:16643", second, "127.0.0.1:16690", freeAddress(t)).Replace(config))
	startSite(t, e.dir)
	sessions := tls.NewLRUClientSessionCache(1)
	roots := rootsOf(t, filepath.Join(e.dir, "root.pem"))
	for i, address := range []string{"127.0.0.1:16643", second} {
		resumed, err := greet(address, roots, sessions)
		if err != nil || resumed != (i == 1) {
			t.Errorf("gateway %d: resumed %t, %v", i+1, resumed, err)
		}
	}
}

// greet makes a request, after which the client has a session ticket.
func greet(address string, roots *x509.CertPool, sessions tls.ClientSessionCache) (resumed bool, err error) {
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: patience}, "tcp", address, &tls.Config{RootCAs: roots, ServerName: "im.example.gov", ClientSessionCache: sessions})
	if err != nil {
		return false, err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	if _, err := fmt.Fprint(conn, "GET /_check/ HTTP/1.1\r\nHost: im.example.gov\r\n\r\n"); err != nil {
		return false, err
	}
	_, err = conn.Read(make([]byte, 1))
	return conn.ConnectionState().DidResume, err
}
