package cli

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"singlegate/internal/livecheck"
)

type trustCommand struct {
	CA string `arg:"" optional:"" placeholder:"FILE" help:"PEM file of the CA (default: that of the demo)."`
}

// Run prints how systems are made to trust a CA. It changes nothing.
func (c *trustCommand) Run(s streams) error {
	file := c.CA
	if file == "" {
		base, err := os.UserConfigDir()
		if err != nil {
			return fmt.Errorf("no folder that the demo's CA could be in; name a file: %w", err)
		}
		file = filepath.Join(base, "singlegate", "demo", "ca.pem")
	}
	if err := checkAuthority(file); err != nil {
		return err
	}
	text := trustEnglish
	if livecheck.IsChinese(os.Getenv) {
		text = trustChinese
	}
	_, err := fmt.Fprintf(s.out, text, shellQuoted(file), file)
	return err
}

// checkAuthority looks whether a file begins with the certificate of a CA.
func checkAuthority(name string) error {
	text, err := readSmall(name)
	if err != nil {
		return fmt.Errorf("CA file %s %w", name, err)
	}
	block, _ := pem.Decode([]byte(text))
	if block == nil || block.Type != "CERTIFICATE" {
		return fmt.Errorf("CA file %s holds no certificate in PEM: expected a block that begins with -----BEGIN CERTIFICATE", name)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	switch {
	case err != nil:
		return fmt.Errorf("CA file %s: %w", name, err)
	case !cert.IsCA:
		return fmt.Errorf("CA file %s: %w", name, errNoAuthority)
	}
	return nil
}

var errNoAuthority = errors.New("its certificate is none of a CA: name that of the CA which issued it")

const trustEnglish = `To trust the CA in %[2]s (nothing was changed):

  Debian, UOS        sudo cp %[1]s /usr/local/share/ca-certificates/singlegate.crt && sudo update-ca-certificates
  openEuler, Kylin   sudo cp %[1]s /etc/pki/ca-trust/source/anchors/singlegate.pem && sudo update-ca-trust
  macOS              sudo security add-trusted-cert -d -r trustRoot -k /Library/Keychains/System.keychain %[1]s
  Windows            certutil -addstore -f Root "%[2]s"      (as administrator)
  Firefox            settings, certificates, authorities, import
  one command        curl --cacert %[1]s …

Whoever has the CA's key can pose as any site to those who trust it: trust a development CA on development machines only.
`

const trustChinese = `信任 %[2]s 中的 CA（本命令未作任何改动）：

  Debian、统信 UOS    sudo cp %[1]s /usr/local/share/ca-certificates/singlegate.crt && sudo update-ca-certificates
  openEuler、麒麟     sudo cp %[1]s /etc/pki/ca-trust/source/anchors/singlegate.pem && sudo update-ca-trust
  macOS              sudo security add-trusted-cert -d -r trustRoot -k /Library/Keychains/System.keychain %[1]s
  Windows            certutil -addstore -f Root "%[2]s"      （以管理员身份）
  Firefox            设置，证书，证书颁发机构，导入
  单条命令           curl --cacert %[1]s …

掌握 CA 私钥的人可以向信任它的人冒充任何网站：开发用的 CA 只应在开发机上信任。
`
