package certs

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"
)

// ClientConfig says which certificates clients of a listener are to show.
type ClientConfig struct {
	At       string // where it is written; begins every error about it
	CA       string // PEM file of the authorities whose certificates are good
	CRL      string // PEM or DER file of what they have revoked, several lists in one PEM; "": none is looked at
	Optional bool   // a client may show none; one that it shows must be good
}

// Clients verifies certificates of clients. It follows its files: they are looked
// at again when a client comes, every other second at most. While one of them is
// wrong no certificate is good, and every refusal says why: what was meant to shut
// somebody out does not let them in by being mistyped. Its methods may be called
// from any goroutine.
type Clients struct {
	cfg ClientConfig

	mu     sync.Mutex
	looked time.Time
	print  [2]fileStamp
	now    verifier
	err    error // why no certificate is good at present
}

// A verifier is one state of the files.
type verifier struct {
	roots   *x509.CertPool
	issuers []*x509.Certificate
	lists   []*x509.RevocationList
}

// A fileStamp tells whether a file may have changed.
type fileStamp struct {
	size     int64
	modified time.Time
	sum      [sha256.Size]byte
}

// lookAgain is how long files are taken to be what they were.
const lookAgain = 2 * time.Second

// LoadClients reads the files. The error says all that is wrong with them.
func LoadClients(cfg ClientConfig) (*Clients, error) {
	c := &Clients{cfg: cfg, looked: time.Now()}
	c.print = c.stamps()
	c.now, c.err = cfg.read()
	if c.err != nil {
		return nil, fmt.Errorf("%s: client_certificates: %w", cfg.At, c.err)
	}
	return c, nil
}

// Ask makes a server's configuration ask its clients. The configuration must be
// the caller's own.
func (c *Clients) Ask(cfg *tls.Config) {
	cfg.ClientAuth = tls.RequireAnyClientCert
	if c.cfg.Optional {
		cfg.ClientAuth = tls.RequestClientCert
	}
	if v, err := c.current(); err == nil {
		cfg.ClientCAs = v.roots // clients choose by it
	}
	// Called for resumed sessions as well: a ticket does not outlive a revocation.
	cfg.VerifyConnection = func(state tls.ConnectionState) error { return c.verify(state.PeerCertificates, time.Now()) }
}

// Errors of clients' certificates, beside those of crypto/x509.
var (
	errRevoked = errors.New("the client's certificate is revoked")
	errOldList = errors.New("the list of revoked certificates is out of date, and nobody can tell what it lacks")
)

// verify tells why a client is not let in.
func (c *Clients) verify(chain []*x509.Certificate, now time.Time) error {
	if len(chain) == 0 {
		if c.cfg.Optional {
			return nil
		}
		return errors.New("the client showed no certificate")
	}
	v, err := c.current()
	if err != nil {
		return fmt.Errorf("no client certificate can be verified until this is mended: %w", err)
	}
	intermediates := x509.NewCertPool()
	for _, cert := range chain[1:] {
		intermediates.AddCert(cert)
	}
	chains, err := chain[0].Verify(x509.VerifyOptions{
		Roots: v.roots, Intermediates: intermediates, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return err
	}
	for _, verified := range chains {
		if err = v.revoked(verified, now); err == nil {
			return nil
		}
	}
	return err
}

// revoked tells whether a list of an issuer in the chain names one of its
// certificates, or is too old to tell.
func (v *verifier) revoked(chain []*x509.Certificate, now time.Time) error {
	for i, cert := range chain[:len(chain)-1] {
		issuer := chain[i+1]
		for _, list := range v.lists {
			if string(list.RawIssuer) != string(issuer.RawSubject) || list.CheckSignatureFrom(issuer) != nil {
				continue
			}
			if !list.NextUpdate.IsZero() && now.After(list.NextUpdate) {
				return errOldList
			}
			for _, entry := range list.RevokedCertificateEntries {
				if entry.SerialNumber.Cmp(cert.SerialNumber) == 0 {
					return errRevoked
				}
			}
		}
	}
	return nil
}

// current is the verifier of the moment.
func (c *Clients) current() (verifier, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := time.Now(); now.Sub(c.looked) >= lookAgain {
		c.looked = now
		c.look()
	}
	return c.now, c.err
}

// look reads the files again if they have changed; c.mu is held.
func (c *Clients) look() {
	print := c.stamps()
	if print == c.print {
		return
	}
	c.print = print
	c.now, c.err = c.cfg.read()
}

func (c *Clients) stamps() (stamps [2]fileStamp) {
	for i, name := range []string{c.cfg.CA, c.cfg.CRL} {
		if info, err := os.Stat(name); name != "" && err == nil {
			stamps[i] = fileStamp{size: info.Size(), modified: info.ModTime()}
			if data, err := readFile(name); err == nil {
				stamps[i].sum = sha256.Sum256(data) // a file may be written twice within one tick of its clock
			}
		}
	}
	return stamps
}

// read reads the files.
func (cfg ClientConfig) read() (verifier, error) {
	var v verifier
	var problems []error
	data, err := readFile(cfg.CA)
	if err != nil {
		problems = append(problems, fmt.Errorf("CA file %s %w", cfg.CA, err))
	} else if v.issuers, err = certificatesIn(data); err != nil {
		problems = append(problems, fmt.Errorf("CA file %s %w", cfg.CA, err))
	}
	v.roots = x509.NewCertPool()
	for _, cert := range v.issuers {
		v.roots.AddCert(cert)
	}
	if cfg.CRL != "" {
		if data, err = readFile(cfg.CRL); err == nil {
			v.lists, err = listsIn(data)
		}
		if err == nil {
			err = v.checkLists()
		}
		if err != nil {
			problems = append(problems, fmt.Errorf("CRL file %s %w", cfg.CRL, err))
		}
	}
	return v, errors.Join(problems...)
}

// certificatesIn are those of a PEM text. One that cannot be read spoils it: an
// authority that is missing would shut its clients out without a word.
func certificatesIn(data []byte) ([]*x509.Certificate, error) {
	var list []*x509.Certificate
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("holds a %s: expected certificates alone", block.Type)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("holds a certificate (number %d) that cannot be parsed: %w", len(list)+1, err)
		}
		list = append(list, cert)
	}
	if len(list) == 0 {
		return nil, errors.New("holds no certificate in PEM: expected a block that begins with -----BEGIN CERTIFICATE")
	}
	return list, nil
}

// listsIn are the revocation lists of a PEM text, or the one that is DER.
func listsIn(data []byte) ([]*x509.RevocationList, error) {
	blocks := [][]byte{}
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "X509 CRL" {
			return nil, fmt.Errorf("holds a %s: expected X509 CRL alone", block.Type)
		}
		blocks = append(blocks, block.Bytes)
	}
	if len(blocks) == 0 {
		blocks = append(blocks, data)
	}
	var lists []*x509.RevocationList
	for i, der := range blocks {
		list, err := x509.ParseRevocationList(der)
		if err != nil {
			return nil, fmt.Errorf("holds a list (number %d) that cannot be parsed: %w", i+1, err)
		}
		lists = append(lists, list)
	}
	return lists, nil
}

// checkLists reports a list of nobody in the CA file: it would never be used.
// Lists of intermediates are good when the CA file holds these as well.
func (v *verifier) checkLists() error {
	for i, list := range v.lists {
		known := false
		for _, issuer := range v.issuers {
			known = known || string(list.RawIssuer) == string(issuer.RawSubject) && list.CheckSignatureFrom(issuer) == nil
		}
		if !known {
			return fmt.Errorf("holds a list (number %d) of %q, which is none of the CA file or has not signed it: add that CA to the CA file, or remove the list", i+1, list.Issuer)
		}
	}
	return nil
}
