package certs

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// DevCert names the files of a development certificate, all below the dir that
// DevCertificate was given.
type DevCert struct {
	CAFile   string // the CA's certificate, for the trust stores of clients
	CertFile string // the leaf, followed by the CA's certificate
	KeyFile  string // the leaf's private key
	Created  bool   // the CA was created by this call: clients do not trust it yet
}

const (
	devCALife     = 10 * 365 * 24 * time.Hour
	devLeafLife   = 397 * 24 * time.Hour // the longest that browsers accept
	devLeafRenew  = 30 * 24 * time.Hour
	devClockSlack = time.Hour
)

// DevCertificate keeps a development CA and one certificate of it in dir, which
// it creates with mode 0700; its files have mode 0600. The certificate covers
// hosts, which are DNS names (also *.example.test) or IP addresses without
// port, and always localhost, 127.0.0.1 and ::1. It is issued again when it
// ends within 30 days, lacks a host or is not of this CA; the CA and both keys
// never change once they are there, and a damaged one is an error that says
// what to delete. For development only: who reads dir can issue certificates.
//
// Several processes may call it for one dir at once. What is created once
// becomes visible whole, and only the first creator wins; the certificate,
// which is replaced by renaming, is always issued for the one leaf key.
func DevCertificate(dir string, hosts []string) (DevCert, error) {
	names, err := devNames(hosts)
	if err != nil {
		return DevCert{}, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return DevCert{}, fmt.Errorf("development CA: cannot create its folder: %w", err)
	}
	d := devDir{path: dir, now: time.Now()}
	ca, created, err := d.ca()
	if err != nil {
		return DevCert{}, fmt.Errorf("development CA: %w", err)
	}
	if err := d.leaf(ca, names); err != nil {
		return DevCert{}, fmt.Errorf("development certificate: %w", err)
	}
	return DevCert{CAFile: d.file(devCAFile), CertFile: d.file(devCertFile), KeyFile: d.file(devKeyFile), Created: created}, nil
}

// The files of a development CA.
const (
	devCAFile    = "ca.pem"
	devCAKeyFile = "ca.key"
	devCertFile  = "dev.pem"
	devKeyFile   = "dev.key"
)

// A devDir is a development CA's folder at one moment.
type devDir struct {
	path string
	now  time.Time
}

func (d devDir) file(name string) string { return filepath.Join(d.path, name) }

// A devCA can issue.
type devCA struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// ca reads the CA, and creates what is not there: the key first, so that a
// certificate without its key is always damage and never another process at
// work. Therefore the certificate is also the first to be looked for.
func (d devDir) ca() (ca devCA, created bool, err error) {
	if d.exists(devCAFile) && !d.exists(devCAKeyFile) {
		return ca, false, fmt.Errorf("%s is missing, so %s cannot issue any more: put the key back, or delete %s to have a new CA created, which clients must then trust anew",
			d.file(devCAKeyFile), d.file(devCAFile), d.file(devCAFile))
	}
	if ca.key, err = d.key(devCAKeyFile); err != nil {
		return ca, false, err
	}
	if !d.exists(devCAFile) {
		if created, err = d.createCA(ca.key); err != nil {
			return ca, false, err
		}
	}
	if ca.cert, err = d.checkCA(ca.key); err != nil {
		return ca, false, fmt.Errorf("%w; if it cannot be restored, delete %s to have it created anew: clients must then trust the new one", err, d.file(devCAFile))
	}
	return ca, created, nil
}

// createCA reports whether this process was the one that created it.
func (d devDir) createCA(key crypto.Signer) (bool, error) {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown host"
	}
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: "singlegate development CA " + host},
		NotBefore:             d.now.Add(-devClockSlack),
		NotAfter:              d.now.Add(devCALife),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return false, err
	}
	return d.writeOnce(devCAFile, encodeCerts(der))
}

func (d devDir) checkCA(key crypto.Signer) (*x509.Certificate, error) {
	chain, err := d.certs(devCAFile)
	if err != nil {
		return nil, err
	}
	cert := chain[0]
	switch {
	case !cert.IsCA:
		return nil, fmt.Errorf("%s holds no CA certificate", d.file(devCAFile))
	case !samePublicKey(key.Public(), cert.PublicKey):
		return nil, fmt.Errorf("%s does not belong to %s", d.file(devCAFile), d.file(devCAKeyFile))
	case d.now.After(cert.NotAfter):
		return nil, fmt.Errorf("%s expired on %s", d.file(devCAFile), day(cert.NotAfter))
	}
	return cert, nil
}

// leaf makes sure that there is a certificate of ca for names.
func (d devDir) leaf(ca devCA, names []string) error {
	key, err := d.key(devKeyFile)
	if err != nil {
		return err
	}
	if d.leafIsGood(ca, key, names) {
		return nil
	}
	template := &x509.Certificate{
		Subject:     pkix.Name{CommonName: "singlegate development certificate"},
		NotBefore:   d.now.Add(-devClockSlack),
		NotAfter:    earlier(d.now.Add(devLeafLife-devClockSlack), ca.cert.NotAfter),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.cert, key.Public(), ca.key)
	if err != nil {
		return err
	}
	return d.replace(devCertFile, encodeCerts(der, ca.cert.Raw))
}

// leafIsGood tells whether the certificate can stay. One that cannot be read
// cannot: unlike the CA nothing depends on it.
func (d devDir) leafIsGood(ca devCA, key crypto.Signer, names []string) bool {
	chain, err := d.certs(devCertFile)
	if err != nil {
		return false
	}
	leaf := chain[0]
	has := namesOf(leaf)
	missing := slices.ContainsFunc(names, func(name string) bool { return !slices.Contains(has, name) })
	// Just before the CA's own end nothing longer can be issued.
	endsSoon := leaf.NotAfter.Before(d.now.Add(devLeafRenew)) && leaf.NotAfter.Before(ca.cert.NotAfter)
	return !missing && !endsSoon &&
		!d.now.Before(leaf.NotBefore) &&
		samePublicKey(key.Public(), leaf.PublicKey) &&
		leaf.CheckSignatureFrom(ca.cert) == nil &&
		len(chain) == 2 && chain[1].Equal(ca.cert)
}

// devNames checks hosts and brings them, with this machine's own names, into
// the form that certificates have.
func devNames(hosts []string) ([]string, error) {
	var names []string
	for _, host := range slices.Concat(hosts, []string{"localhost", "127.0.0.1", "::1"}) {
		name, err := devName(host)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names, nil
}

func devName(host string) (string, error) {
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip.Unmap().WithZone("").String(), nil
	}
	name := canonicalName(host)
	for label := range strings.SplitSeq(strings.TrimPrefix(name, "*."), ".") {
		if label == "" || len(label) > 63 || strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			return "", fmt.Errorf("development certificate: host %q is neither a DNS name nor an IP address: write it without scheme, port and brackets, and an international name in its xn-- form", host)
		}
	}
	return name, nil
}

func (d devDir) exists(name string) bool {
	_, err := os.Lstat(d.file(name))
	return !errors.Is(err, fs.ErrNotExist)
}

// key reads the key of that name, and creates it when there is none.
func (d devDir) key(name string) (crypto.Signer, error) {
	if !d.exists(name) {
		if err := d.createKey(name); err != nil {
			return nil, err
		}
	}
	f, err := readPEM("key", d.file(name))
	if err == nil {
		var key crypto.Signer
		if key, err = f.privateKey(Source{Key: d.file(name)}); err == nil {
			return key, nil
		}
	}
	return nil, fmt.Errorf("%w; if it cannot be restored, delete %s to have it created anew", err, d.file(name))
}

func (d devDir) createKey(name string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	_, err = d.writeOnce(name, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	return err
}

func (d devDir) certs(name string) ([]*x509.Certificate, error) {
	f, err := readPEM("certificate", d.file(name))
	if err != nil {
		return nil, err
	}
	return f.chain()
}

// writeOnce creates a file that appears whole or not at all, and reports
// whether it was this call that did: an existing one stays as it is.
func (d devDir) writeOnce(name string, data []byte) (bool, error) {
	temp, err := d.temp(name, data)
	if err != nil {
		return false, err
	}
	defer os.Remove(temp)
	err = os.Link(temp, d.file(name))
	if errors.Is(err, fs.ErrExist) {
		return false, nil
	}
	return err == nil, err
}

// replace puts a file in the place of another, or of none, at once.
func (d devDir) replace(name string, data []byte) error {
	temp, err := d.temp(name, data)
	if err != nil {
		return err
	}
	if err := os.Rename(temp, d.file(name)); err != nil {
		os.Remove(temp)
		return err
	}
	return nil
}

// temp writes data, down to the disk, to a new file of mode 0600 in the folder.
func (d devDir) temp(name string, data []byte) (string, error) {
	f, err := os.CreateTemp(d.path, name+".tmp-*")
	if err != nil {
		return "", err
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		os.Remove(f.Name())
		return "", err
	}
	return f.Name(), nil
}

func encodeCerts(ders ...[]byte) []byte {
	var data []byte
	for _, der := range ders {
		data = append(data, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	return data
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
