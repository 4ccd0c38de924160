package cli

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"singlegate/certs"
	"singlegate/certs/acme"
	"singlegate/certs/consulkv"
	"singlegate/discovery"
	"singlegate/gateway"
	"singlegate/internal/config"
)

// An acmeWish is what a config asks of one ACME server, with what its files hold:
// two that are equal are served by one manager.
type acmeWish struct {
	config.ACME
	ca, macKey string
	consul     string // the prefix there; "": Storage
	asked      discovery.ConsulConfig
	secret     string // of what is in Consul

	http, tls acme.Address // set once the listeners are open
}

// acmeWishes opens the files that a config names for ACME, and asks nobody.
func acmeWishes(file *config.File) ([]acmeWish, error) {
	var list []acmeWish
	var errs []error
	for _, a := range file.ACME {
		w, problems := acmeWishOf(file, a)
		for _, err := range problems {
			errs = append(errs, fmt.Errorf("%s: acme: %w", a.At, err))
		}
		w.At = ""
		list = append(list, w)
	}
	return list, errors.Join(errs...)
}

func acmeWishOf(file *config.File, a config.ACME) (w acmeWish, errs []error) {
	w = acmeWish{ACME: a, consul: file.Shared.Consul}
	read := func(what, name string) string {
		if name == "" {
			return ""
		}
		text, err := readSmall(name)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s %s %w", what, name, err))
		}
		return text
	}
	if w.ca = read("CA file", a.CA); w.ca != "" && !x509.NewCertPool().AppendCertsFromPEM([]byte(w.ca)) {
		errs = append(errs, fmt.Errorf("CA file %s holds no certificate in PEM: expected a block that begins with -----BEGIN CERTIFICATE", a.CA))
	}
	w.macKey = strings.TrimRight(strings.TrimSpace(read("mac_key_file", a.MACKeyFile)), "=")
	if _, err := base64.RawURLEncoding.DecodeString(w.macKey); err != nil {
		errs = append(errs, fmt.Errorf("mac_key_file %s does not hold a key in base64url, as servers give them", a.MACKeyFile))
	}
	if err := checkHook(a.Hook); err != nil {
		errs = append(errs, err)
	}
	if w.consul != "" {
		if file.Consul != nil {
			w.asked = *file.Consul
		}
		secret, err := certs.ReadSharedKey(file.Certs.SharedKey)
		if err == nil { // else certs.Load says so
			w.secret = string(secret)
		}
	} else if err := checkFolder(a.Storage); err != nil {
		errs = append(errs, err)
	}
	return w, errs
}

// maxSmall bounds the files that are read here.
const maxSmall = 1 << 20

// readSmall reads a regular file; its errors go on after the file's name.
func readSmall(name string) (string, error) {
	info, err := os.Stat(name)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return "", errors.New("does not exist: check the name; a relative one is taken from the config's folder")
	case err == nil && (!info.Mode().IsRegular() || info.Size() > maxSmall):
		return "", errors.New("is not a file of a sensible size")
	}
	text, err := os.ReadFile(name)
	if err != nil {
		return "", fmt.Errorf("cannot be read: %w", errors.Unwrap(err))
	}
	return string(text), nil
}

func checkHook(name string) error {
	if name == "" {
		return nil
	}
	info, err := os.Stat(name)
	switch {
	case err != nil:
		return fmt.Errorf("hook %s: %w", name, errors.Unwrap(err))
	case !info.Mode().IsRegular() || filepath.Separator == '/' && info.Mode()&0o111 == 0:
		return fmt.Errorf("hook %s is not a program: make it executable (chmod +x)", name)
	}
	return nil
}

// checkFolder looks whether a folder is one, or can become one.
func checkFolder(name string) error {
	for dir := name; ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		switch {
		case err == nil && !info.IsDir():
			return fmt.Errorf("storage %s: %s is a file; name a folder", name, dir)
		case err == nil || dir == filepath.Dir(dir):
			return nil
		case errors.Is(err, os.ErrPermission):
			return fmt.Errorf("storage %s: %w", name, err)
		}
	}
}

// acmeWarnings tells of names that are got in vain.
func acmeWarnings(file *config.File, store *certs.Store) (texts []string) {
	for _, a := range file.ACME {
		for _, name := range a.Names {
			if store.Covers(name) {
				texts = append(texts, fmt.Sprintf("%s: acme: %s is covered by a certificate of a file, which is served: the one by ACME never is; leave one of them away", a.At, name))
			}
		}
	}
	return texts
}

// An issuance runs the managers of certificates by ACME, and serves what they
// have. The zero value with its log set has none. follow and stop belong to one
// goroutine; all else is safe for concurrent use.
type issuance struct {
	log     zerolog.Logger
	serving atomic.Pointer[[]*acmeRun] // those of the config, then those that go on until these have certificates
	retired sync.WaitGroup
	leaving chan struct{} // closed when no run is waited for any more; nil: none is
}

// An acmeRun is one manager that runs.
type acmeRun struct {
	*acme.Manager
	at, source string
	wish       acmeWish
	leaving    bool // it is not the config's any more
	cancel     context.CancelFunc
	done       chan struct{}
}

func (i *issuance) runs() []*acmeRun {
	if list := i.serving.Load(); list != nil {
		return *list
	}
	return nil
}

// follow makes the managers those of a config, whose listeners are open. One whose
// config has changed is replaced; the old one serves until the new one can.
func (i *issuance) follow(file *config.File, entries []gateway.Entry) error {
	wishes, err := acmeWishes(file)
	if err != nil {
		return err
	}
	i.endLeaving()
	before := i.runs()
	var next []*acmeRun
	for n, w := range wishes {
		w.http, w.tls = addressOf(entries, w.HTTP), addressOf(entries, w.TLS)
		at := slices.IndexFunc(before, func(r *acmeRun) bool { return reflect.DeepEqual(r.wish, w) })
		if at >= 0 {
			kept := *before[at]
			kept.at = file.ACME[n].At
			next = append(next, &kept)
			continue
		}
		run, err := i.start(w, file.ACME[n].At, file.Certs.NoStapling)
		if err != nil {
			endThose(next, before)
			return fmt.Errorf("%s: acme: %w", file.ACME[n].At, err)
		}
		next = append(next, run)
	}
	var old []*acmeRun
	for _, r := range before {
		if !r.among(next) {
			old = append(old, r)
		}
	}
	i.serve(next, old)
	return nil
}

// endThose ends runs that were begun in vain.
func endThose(begun, before []*acmeRun) {
	for _, r := range begun {
		if !r.among(before) {
			r.stop()
		}
	}
}

// serve has new runs answer, and ends the old ones when they are of no use.
func (i *issuance) serve(next, old []*acmeRun) {
	all := slices.Clone(next)
	for _, r := range old {
		leaving := *r
		leaving.leaving = true
		all = append(all, &leaving)
	}
	i.serving.Store(&all)
	if len(old) == 0 {
		return
	}
	i.leaving = make(chan struct{})
	leaving := i.leaving
	i.retired.Go(func() {
		awaitCertificates(next, old, leaving)
		i.serving.Store(&next)
		for _, r := range old {
			r.stop()
		}
	})
}

// awaitCertificates waits until the new runs have every certificate that they are
// to have and the old ones do, or until stopped.
func awaitCertificates(next, old []*acmeRun, stopped <-chan struct{}) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		missing := false
		for _, r := range next {
			for _, s := range r.Statuses() {
				missing = missing || s.Certificate == nil && holds(old, s.Name)
			}
		}
		if !missing {
			return
		}
		select {
		case <-tick.C:
		case <-stopped:
			return
		}
	}
}

func holds(runs []*acmeRun, name string) bool {
	return slices.ContainsFunc(runs, func(r *acmeRun) bool {
		return slices.ContainsFunc(r.Statuses(), func(s acme.Status) bool { return s.Name == name && s.Certificate != nil })
	})
}

// endLeaving ends what goes on since an earlier change.
func (i *issuance) endLeaving() {
	if i.leaving != nil {
		close(i.leaving)
		i.retired.Wait()
		i.leaving = nil
	}
}

// stop ends all managers and waits for them.
func (i *issuance) stop() {
	i.endLeaving()
	var group sync.WaitGroup
	for _, r := range i.runs() {
		group.Go(r.stop)
	}
	group.Wait()
	i.serving.Store(nil)
}

// start runs a manager.
func (i *issuance) start(w acmeWish, at string, noStapling bool) (*acmeRun, error) {
	cfg := acme.Config{
		Names: w.Names, Directory: w.Directory, Email: w.Email, KeyID: w.KeyID, MACKey: w.macKey,
		HTTP: w.http, TLS: w.tls, Hook: w.Hook, Storage: acme.Files(w.Storage), NoStapling: noStapling,
	}
	if w.ca != "" {
		cfg.Roots = x509.NewCertPool()
		cfg.Roots.AppendCertsFromPEM([]byte(w.ca))
	}
	closeIdle := func() {}
	if w.consul != "" {
		client, done, err := w.asked.API()
		if err != nil {
			return nil, err
		}
		store, err := consulkv.New(client, w.consul, []byte(w.secret))
		if err != nil {
			return nil, err
		}
		cfg.Storage, closeIdle = store, done
	}
	m, err := acme.New(cfg, acme.Log(logTo(i.log)))
	if err != nil {
		return nil, err
	}
	r := &acmeRun{Manager: m, at: at, source: "acme " + hostOf(w.Directory), wish: w, done: make(chan struct{})}
	var ctx context.Context
	ctx, r.cancel = context.WithCancel(context.Background())
	go func() {
		defer close(r.done)
		defer closeIdle()
		m.Run(ctx)
	}()
	return r, nil
}

// stopTime bounds the waiting for a manager that ends: only a storage that does not
// answer could keep it.
const stopTime = 20 * time.Second

func (r *acmeRun) stop() {
	r.cancel()
	select {
	case <-r.done:
	case <-time.After(stopTime):
	}
}

// among tells whether a run is one of several.
func (r *acmeRun) among(runs []*acmeRun) bool {
	return slices.ContainsFunc(runs, func(other *acmeRun) bool { return other.Manager == r.Manager })
}

func hostOf(directory string) string {
	u, err := url.Parse(directory)
	if err != nil {
		return directory
	}
	return u.Hostname()
}

// addressOf is where a listener is bound.
func addressOf(entries []gateway.Entry, name string) acme.Address {
	for _, e := range entries {
		if tcp, ok := e.Address.(*net.TCPAddr); ok && e.Name == name && name != "" {
			a := acme.Address{Port: tcp.Port}
			if !tcp.IP.IsUnspecified() {
				a.Host = tcp.IP.String()
			}
			return a
		}
	}
	return acme.Address{}
}

// managed is what a store serves of an issuance.
type managed struct{ *issuance }

var errNotManaged = errors.New("no ACME server is asked for that name")

// Serves implements certs.Managed. What leaves serves no name that the config does
// not have any more.
func (i managed) Serves(name string) bool {
	for _, r := range i.runs() {
		if !r.leaving && r.Serves(name) {
			return true
		}
	}
	return false
}

// Certificate implements certs.Managed.
func (i managed) Certificate(name string) (*tls.Certificate, error) {
	first := error(errNotManaged)
	for _, r := range i.runs() {
		if name != "" && !r.Serves(name) {
			continue
		}
		c, err := r.Manager.Certificate(name)
		if err == nil {
			return c, nil
		}
		if first == errNotManaged {
			first = err
		}
	}
	return nil, first
}

// Challenge implements certs.Managed.
func (i managed) Challenge(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	err := error(errNotManaged)
	for _, r := range i.runs() {
		var c *tls.Certificate
		if c, err = r.Challenge(hello); err == nil {
			return c, nil
		}
	}
	return nil, err
}

// States implements certs.Managed.
func (i managed) States() (states []certs.ManagedState) {
	for _, r := range i.runs() {
		if r.leaving {
			continue
		}
		for _, s := range r.Statuses() {
			states = append(states, certs.ManagedState{At: r.at, Name: s.Name, Source: r.source, Certificate: s.Certificate, Fault: s.Fault, Served: s.Served})
		}
	}
	return states
}

// answer is the gateway's Challenge.
func (i *issuance) answer(host, path string) (string, bool) {
	for _, r := range i.runs() {
		if answer, ok := r.HTTPChallenge(host, path); ok {
			return answer, true
		}
	}
	return "", false
}
