package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"singlegate/certs"
	"singlegate/gateway/admin"
	"singlegate/internal/config"
)

type certsCommand struct {
	Admin  string `placeholder:"HOST:PORT" help:"The gateway's admin address (default: that of --config, else 127.0.0.1:9180)."`
	Config string `placeholder:"FILE" help:"Take the admin address from this config file; when no gateway answers there, read the certificates that it names."`
	adminToken
	JSON bool `name:"json" help:"The same as JSON, and more: all names, OCSP answers, what is refused and why."`
}

// Help is the long text of --help; kong asks for it.
func (c *certsCommand) Help() string {
	return `A running gateway tells what it serves now. With --config and no gateway that answers, the files are read
as "run" would read them; then nothing is known of how often they were served. The first line says which of the two it is.

  CHAIN   how many certificates are sent; INCOMPLETE where the issuer's is missing: put it into the file, or into
          the folder that tls.intermediates names
  DAYS    until the certificate ends; the log warns at 30, 14, 7 and 1
  SERVED  full handshakes that it was chosen for`
}

// certReport is what --json prints.
type certReport struct {
	From  string `json:"from"` // "gateway" or "config"
	Admin string `json:"admin,omitempty"`
	Fault string `json:"fault,omitempty"` // why no gateway was asked
	admin.Certificates
}

// Run shows the certificates of a running gateway, or of a config file.
func (c *certsCommand) Run(s streams) error {
	say := speak(os.Getenv)
	report, err := c.report(context.Background(), say)
	if err != nil {
		return err
	}
	if c.JSON {
		text, err := json.MarshalIndent(report, "", "  ")
		if err == nil {
			_, err = fmt.Fprintln(s.out, string(text))
		}
		return err
	}
	_, err = io.WriteString(s.out, certsView(report, c.Config, say, speakCerts(os.Getenv)))
	return err
}

func (c *certsCommand) report(ctx context.Context, say words) (certReport, error) {
	var file *config.File
	flags := adminFlags{Admin: c.Admin, Config: c.Config, adminToken: c.adminToken}
	if c.Config != "" {
		var err error
		if file, err = config.Load(c.Config); err != nil {
			return certReport{}, err
		}
	}
	client, err := flags.client(say)
	if err == nil {
		report := certReport{From: "gateway", Admin: client.address}
		if report.Certificates, err = client.certificates(ctx); err == nil {
			return report, nil
		}
	}
	if file == nil {
		return certReport{}, err
	}
	store, loadErr := certs.Load(file.Certs)
	if loadErr != nil {
		return certReport{}, loadErr
	}
	fault, _, _ := strings.Cut(err.Error(), "\n")
	return certReport{From: "config", Fault: fault, Certificates: admin.Certificates{
		Time: time.Now(), Certificates: append(store.Infos(), acmeInfos(file)...), Faults: []string{},
	}}, nil
}

// certificates asks for /api/certificates.
func (c *adminClient) certificates(ctx context.Context) (n admin.Certificates, err error) {
	body, err := c.do(ctx, http.MethodGet, "/api/certificates", nil)
	if err == nil {
		if err = json.Unmarshal(body, &n); err != nil {
			err = fmt.Errorf(c.say.noSinglegate, c.address, err)
		}
	}
	return n, err
}

// certsView is the table of certificates, and what is wrong with them.
func certsView(r certReport, file string, say words, own certWords) string {
	var b strings.Builder
	if r.From == "gateway" {
		fmt.Fprintf(&b, own.fromGateway+"\n\n", r.Admin)
	} else {
		fmt.Fprintf(&b, own.fromConfig+"\n\n", shown(file), shown(r.Fault))
	}
	if len(r.Certificates.Certificates) == 0 {
		return b.String() + own.none + "\n"
	}
	t := table{right: 4}
	t.add(own.columns[:])
	width := servedWidth(r, own)
	var troubles []string
	for _, c := range r.Certificates.Certificates {
		source := c.Source
		if c.Alias != "" {
			source += " (" + c.Alias + ")"
		}
		t.add([]string{
			shown(own.names(c)), shown(own.issuer(c)), own.chain(c), shown(c.Key), own.days(c, r.Time),
			fmt.Sprintf("%*s", width, served(r, c)), own.ocsp(r, c.OCSP), shown(source),
		})
		troubles = append(troubles, own.troubles(c)...)
	}
	t.write(&b)
	section(&b, own.wrong, append(troubles, r.Faults...))
	return b.String()
}

// served is how often; a file cannot tell.
func served(r certReport, c certs.Info) string {
	if r.From != "gateway" {
		return "-"
	}
	return strconv.FormatUint(c.Served, 10)
}

// servedWidth sets a second column to the right.
func servedWidth(r certReport, own certWords) int {
	width := 0
	if own.columns[5] == "SERVED" {
		width = len("SERVED")
	}
	for _, c := range r.Certificates.Certificates {
		width = max(width, len(served(r, c)))
	}
	return width
}
