package config

import (
	"crypto/tls"
	"path/filepath"
	"reflect"
	"testing"

	"singlegate/certs"
	"singlegate/gateway"
)

// Listeners and node ports have TLS of their own: a policy, and whom they let in.
func TestOwnTLS(t *testing.T) {
	f, err := Parse(filepath.Join("conf", "x.yaml"), []byte(`listeners:
  - address: ":443"
    tls: true
    tls_policy: {min_version: "1.3", curves: [X25519MLKEM768]}
  - {address: ":444", tls: true, client_certificates: {mode: verify_if_given, ca: ca.pem, crl: crl.pem, headers: {x-client-subject: subject}}}
tls: {certificates: [{cert: im.pem}], cipher_suites: [ECDHE-RSA-AES128-GCM-SHA256]}
services: {im: {nodes: {node1: "10.0.0.1:80"}}}
node_ports:
  - {service: im, kind: http, tls: true, listen: {base: 3000}, tls_policy: {cipher_suites: [ECDHE-RSA-AES256-GCM-SHA384]},
     client_certificates: {mode: require, ca: devices.pem, headers: {X-Device: serial}}}
`), testEnv)
	if err != nil {
		t.Fatal(err)
	}
	g := f.Gateway
	if want := (&gateway.TLSPolicy{MinVersion: tls.VersionTLS13, Curves: []tls.CurveID{tls.X25519MLKEM768}}); !reflect.DeepEqual(g.Listeners[0].Policy, want) {
		t.Errorf("policy %+v, want %+v", g.Listeners[0].Policy, want)
	}
	if want := (&gateway.TLSPolicy{CipherSuites: []uint16{tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384}}); !reflect.DeepEqual(g.NodePorts[0].Policy, want) {
		t.Errorf("policy %+v, want %+v", g.NodePorts[0].Policy, want)
	}
	if g.Listeners[1].Policy != nil {
		t.Errorf("a policy of nobody: %+v", g.Listeners[1].Policy)
	}
	for i, c := range []struct {
		got  *gateway.ClientCertificates
		want map[string]gateway.CertificateField
	}{
		{g.Listeners[1].Clients, map[string]gateway.CertificateField{"X-Client-Subject": gateway.FieldSubject}},
		{g.NodePorts[0].Clients, map[string]gateway.CertificateField{"X-Device": gateway.FieldSerial}},
	} {
		if c.got == nil || !reflect.DeepEqual(c.got.Headers, c.want) {
			t.Errorf("%d: %+v, want headers %v", i, c.got, c.want)
		}
	}
	want := map[string]certs.ClientConfig{
		g.Listeners[1].At: {At: "x.yaml:5:55", CA: filepath.Join("conf", "ca.pem"), CRL: filepath.Join("conf", "crl.pem"), Optional: true},
		g.NodePorts[0].At: {At: "x.yaml:10:27", CA: filepath.Join("conf", "devices.pem")},
	}
	if !reflect.DeepEqual(f.Clients, want) {
		t.Errorf("got\n%+v\nwant\n%+v", f.Clients, want)
	}
}
