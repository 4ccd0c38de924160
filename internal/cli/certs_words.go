package cli

import (
	"fmt"
	"strings"
	"time"

	"singlegate/certs"
	"singlegate/internal/livecheck"
)

// certWords are what the verb certs says in one language. Where one says that
// something is formatted, its verbs are those of the English one, in that order.
type certWords struct {
	columns                 [8]string
	fromGateway, fromConfig string // formatted
	none, wrong             string
	incomplete, completed   string // formatted
	selfSigned, expired     string
	isDefault               string
	stapled, notYet, revoke string
	refused, chainFault     string // formatted
	notGot                  string // formatted
	ocspFault, revokedFault string // formatted
}

func speakCerts(getenv func(string) string) certWords {
	if livecheck.IsChinese(getenv) {
		return chineseCerts()
	}
	return englishCerts()
}

func englishCerts() certWords {
	return certWords{
		columns:     [8]string{"NAMES", "ISSUER", "CHAIN", "KEY", "DAYS", "SERVED", "OCSP", "SOURCE"},
		fromGateway: "From the running gateway at %s:",
		fromConfig:  "From the files that %s names, not from a running gateway: %s",
		none:        "There are no certificates.",
		wrong:       "Wrong:",
		incomplete:  "%d, INCOMPLETE",
		completed:   "%d, %d from the folder",
		selfSigned:  "self-signed",
		expired:     "expired",
		isDefault:   " (default)",
		stapled:     "stapled",
		notYet:      "none",
		revoke:      "REVOKED",
		refused:     "refused, the old one goes on: %s",
		chainFault:  "%s: the certificate of its issuer %q is missing: mobile devices and mini-programs refuse the connection",
		notGot:      "%s (%s): it could not be got or renewed so far: %s",
		ocspFault:   "%s: its OCSP responder gives no usable answer: %s",

		revokedFault: "%s: it is revoked: replace it",
	}
}

func chineseCerts() certWords {
	return certWords{
		columns:     [8]string{"域名", "签发者", "证书链", "密钥", "剩余天数", "使用次数", "OCSP", "来源"},
		fromGateway: "来自 %s 上运行中的网关：",
		fromConfig:  "来自 %s 所列的文件，而非运行中的网关：%s",
		none:        "没有证书。",
		wrong:       "问题：",
		incomplete:  "%d 张，不完整",
		completed:   "%d 张，其中 %d 张取自文件夹",
		selfSigned:  "自签名",
		expired:     "已过期",
		isDefault:   "（默认）",
		stapled:     "已装订",
		notYet:      "无",
		revoke:      "已吊销",
		refused:     "已拒绝替换，旧证书继续使用：%s",
		chainFault:  "%s：缺少签发者 %q 的证书，移动设备和小程序会拒绝连接",
		notGot:      "%s（%s）：至今未能签发或续期：%s",
		ocspFault:   "%s：OCSP 服务没有可用的应答：%s",

		revokedFault: "%s：证书已被吊销，请更换",
	}
}

// maxCertNames is how many names of a certificate the table has.
const maxCertNames = 3

func (w *certWords) names(c certs.Info) string {
	names := strings.Join(c.Names[:min(len(c.Names), maxCertNames)], ", ")
	if more := len(c.Names) - maxCertNames; more > 0 {
		names += fmt.Sprintf(" +%d", more)
	}
	if c.Default {
		names += w.isDefault
	}
	return names
}

func (w *certWords) issuer(c certs.Info) string {
	switch {
	case c.NotAfter.IsZero():
		return "-"
	case c.SelfSigned:
		return w.selfSigned
	}
	return c.Issuer
}

func (w *certWords) chain(c certs.Info) string {
	switch {
	case c.NotAfter.IsZero():
		return "-"
	case !c.ChainComplete:
		return fmt.Sprintf(w.incomplete, c.Chain)
	case c.Completed > 0:
		return fmt.Sprintf(w.completed, c.Chain, c.Completed)
	}
	return fmt.Sprint(c.Chain)
}

// days are whole ones, rounded down.
func (w *certWords) days(c certs.Info, now time.Time) string {
	left := c.NotAfter.Sub(now)
	switch {
	case c.NotAfter.IsZero():
		return "-" // it is still being got
	case left <= 0:
		return w.expired
	}
	return fmt.Sprint(int(left / (24 * time.Hour)))
}

// ocsp is what is stapled; files alone cannot tell.
func (w *certWords) ocsp(r certReport, o certs.OCSP) string {
	switch {
	case o.Responder == "" || r.From != "gateway":
		return "-"
	case o.Status == "revoked":
		return w.revoke
	case o.Stapled:
		return w.stapled
	}
	return w.notYet
}

func (w *certWords) troubles(c certs.Info) (lines []string) {
	if c.Refused != "" {
		lines = append(lines, fmt.Sprintf(w.refused, c.Refused))
	}
	if c.Fault != "" {
		lines = append(lines, fmt.Sprintf(w.notGot, strings.Join(c.Names, ", "), c.Source, c.Fault))
	}
	if !c.ChainComplete && !c.NotAfter.IsZero() {
		lines = append(lines, fmt.Sprintf(w.chainFault, c.Source, c.Issuer))
	}
	if c.OCSP.Status == "revoked" {
		lines = append(lines, fmt.Sprintf(w.revokedFault, c.Source))
	}
	if c.OCSP.Fault != "" {
		lines = append(lines, fmt.Sprintf(w.ocspFault, c.Source, c.OCSP.Fault))
	}
	return lines
}
