package config

import (
	"crypto/tls"
	"path/filepath"
	"reflect"
	"testing"

	"singlegate/certs"
)

func TestTLS(t *testing.T) {
	in := func(name string) string { return filepath.Join("conf", name) }
	f, err := Parse(filepath.Join("conf", "x.yaml"), []byte(`listeners: [{address: ":443", tls: true}]
tls:
  certificates:
    - {cert: im.pem, key: im.key, password_file: key.pass}
    - {keystore: im.jks, password_file: im.pass, key_password_file: key.pass, alias: 3052}
    - {folder: ./certs}
  intermediates: ./ca
  unknown_name: refuse
  ocsp_stapling: false
  min_version: "1.2"
  cipher_suites: [ECDHE-RSA-AES128-GCM-SHA256, TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256]
  curves: [x25519mlkem768, prime256v1, P-384]
`), testEnv)
	if err != nil {
		t.Fatal(err)
	}
	want := certs.Config{
		Certificates: []certs.Source{
			{At: "x.yaml:4:7", Cert: in("im.pem"), Key: in("im.key"), PasswordFile: in("key.pass")},
			{At: "x.yaml:5:7", Keystore: in("im.jks"), PasswordFile: in("im.pass"), KeyPasswordFile: in("key.pass"), Alias: "3052"},
			{At: "x.yaml:6:7", Folder: in("certs")},
		},
		Intermediates: in("ca"), IntermediatesAt: "x.yaml:7:3",
		RefuseUnknown: true, NoStapling: true, MinVersion: tls.VersionTLS12,
		CipherSuites: []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256},
		Curves:       []tls.CurveID{tls.X25519MLKEM768, tls.CurveP256, tls.CurveP384},
	}
	if !reflect.DeepEqual(f.Certs, want) {
		t.Errorf("got\n%+v\nwant\n%+v", f.Certs, want)
	}
}
