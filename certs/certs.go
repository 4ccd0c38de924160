// Package certs says where certificates come from: PEM files, Java and PKCS#12
// keystores, folders of pairs, and a development CA for machines that have none
// yet. A Store keeps the certificates of all TLS listeners, chooses one for
// every handshake, follows their files, and swaps what it serves without
// touching a connection. It completes chains, staples OCSP answers, and holds
// the TLS policy: versions, cipher suites, curves, ALPN.
//
// The package is a leaf: it knows nothing of listeners, routes or the config
// file.
package certs

import (
	"crypto/tls"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// A Source says where one certificate is, or those of a folder. Exactly one of
// Cert, Keystore and Folder is set. Relative names are taken from the working
// directory.
type Source struct {
	At string // where it is written, "singlegate.yaml:7:7"; begins every error and warning about it

	Cert string // PEM file with the leaf, followed by its intermediates
	Key  string // PEM file with the private key; "" when Cert holds it too

	Keystore string // JKS or PKCS#12, told apart by the content
	Alias    string // the keystore's entry, in any case of letters; "" when only one has a private key

	Folder string // of PEM pairs: im.pem or im.crt with im.key or im-key.pem, or both in one file

	PasswordFile    string // its one line opens the keystore, or a private key that is encrypted; "" for plain PEM
	KeyPasswordFile string // JKS: of the entry, when it is not the store's; "" otherwise
}

// Config says what a Store serves.
type Config struct {
	Certificates    []Source // the first is the default
	Intermediates   string   // a folder of CA certificates, to complete chains from; "" for none
	IntermediatesAt string   // where that is written
	RefuseUnknown   bool     // a name that no certificate covers is refused, and not answered with the default
	NoStapling      bool     // no OCSP responder is asked
	SharedKey       string   // a file that all gateways of the site have: session tickets of one are good at the others; "": each has keys of its own
	SharedKeyAt     string   // where that is written
	shared          []byte   // what is in it

	MinVersion   uint16        // tls.VersionTLS12 or tls.VersionTLS13; 0 means TLS 1.2
	CipherSuites []uint16      // of TLS 1.2, among those of CipherSuite; nil means the AEAD ones
	Curves       []tls.CurveID // among those of Curve; nil means Go's default, with X25519MLKEM768
}

// A Log takes what a Store has to tell. The level is "info", "warn" or "error",
// pairs are names (strings) and values by turns.
type Log func(level, message string, pairs ...any)

// A Store holds the certificates and the TLS policy of the gateway's listeners.
// Its methods may be called at any time from any goroutine, Run only once.
type Store struct {
	current   atomic.Pointer[set]
	managed   atomic.Pointer[Managed] // nil: there are none
	listeners *tls.Config
	pace      pace
	news      chan struct{} // for the watcher: another set was adopted
	due       chan struct{} // for the stapler: there are other certificates

	changing sync.Mutex // held while what follows current is made; comes before mu

	mu      sync.Mutex
	refused map[string]refusal // what is on disk and not served, by the id of its source; replaced, never changed
}

// Load reads all certificates and checks them: files, passwords, PEM, that the
// key belongs to the leaf, validity at this moment, names. The error joins every
// problem, each beginning with the Source's At; no error holds key material or a
// password. Without any certificate the store is empty, for sites without TLS:
// handshakes fail.
func Load(cfg Config) (*Store, error) {
	first, err := loadSet(cfg, time.Now())
	if err != nil {
		return nil, err
	}
	s := &Store{pace: usualPace(), news: make(chan struct{}, 1), due: make(chan struct{}, 1)}
	s.serve(first)
	s.listeners = s.listenerConfig()
	return s, nil
}

// Judge tells why other, which was loaded from a new config, should not take
// the place of what is served now: a file, keystore or folder's pair that both
// configs name holds a certificate for fewer names than before. A certificate
// that the config does not name any more, or a pair that is gone from its
// folder, is no reason.
func (s *Store) Judge(other *Store) error {
	next := other.current.Load()
	was := s.current.Load().byID()
	var lost []string
	for _, e := range next.entries {
		if old := was[e.source.id()]; old != nil {
			if names := next.lacks(old); len(names) > 0 {
				lost = append(lost, fmt.Sprintf("%s: %s", e.source.At, fewerNames(e, names)))
			}
		}
	}
	if len(lost) > 0 {
		return fmt.Errorf("%s", strings.Join(lost, "\n"))
	}
	return nil
}

// Adopt serves what other holds, from now on. It cannot fail: other was checked
// when it was loaded, and may be asked about with Judge. Established
// connections and session tickets are not touched. Counters and OCSP answers of
// certificates that stay go on.
func (s *Store) Adopt(other *Store) {
	s.changing.Lock()
	defer s.changing.Unlock()
	next := other.current.Load()
	was := s.current.Load().byID()
	entries := slices.Clone(next.entries)
	for i, e := range entries {
		switch old := was[e.source.id()]; {
		case old == nil:
		case old.print == e.print && old.source == e.source:
			entries[i] = old
		default:
			e.inherit(old)
		}
	}
	s.serve(newSet(next.cfg, next.pool, entries))
	s.setRefused(nil)
	wake(s.news)
	wake(s.due)
}

// serve has a set answer from now on.
func (s *Store) serve(next *set) {
	next.managing = s.managing
	s.current.Store(next)
}

func (s *Store) getRefused() map[string]refusal {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.refused
}

func (s *Store) setRefused(refused map[string]refusal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refused = refused
}

// wake tells a goroutine that there is something new; it need not listen now.
func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// TLSConfig is the configuration for every listener; it follows each later
// change. All calls return the same value, so that a session ticket of one
// listener is good at the others: it must not be modified, only cloned.
func (s *Store) TLSConfig() *tls.Config { return s.listeners }

// Info describes one certificate.
type Info struct {
	Names         []string  `json:"names"` // DNS names and IP addresses of the leaf
	Issuer        string    `json:"issuer"`
	SelfSigned    bool      `json:"self_signed"`
	Chain         int       `json:"chain"`                 // certificates that are sent, the leaf among them
	Completed     int       `json:"completed_from_folder"` // of them from the folder of intermediates
	ChainComplete bool      `json:"chain_complete"`        // false: the leaf's issuer is not there
	Key           string    `json:"key"`                   // "ECDSA P-256", "RSA 2048", "Ed25519"
	NotAfter      time.Time `json:"not_after"`             // of the leaf
	Source        string    `json:"source"`                // its file, or "acme" and the server's name
	Alias         string    `json:"alias,omitempty"`       // the keystore's entry
	Default       bool      `json:"default"`               // it answers when no certificate covers the name asked for
	Served        uint64    `json:"served"`                // full handshakes that it was chosen for; resumed ones send none
	OCSP          OCSP      `json:"ocsp"`
	Refused       string    `json:"replacement_refused,omitempty"` // why what is on disk now is not served
	Fault         string    `json:"fault,omitempty"`               // why one by ACME could not be got or renewed; without NotAfter there is none yet
}

// Infos describes the certificates served now, in the order of the config, then
// those that are got elsewhere.
func (s *Store) Infos() []Info {
	set, refused := s.current.Load(), s.getRefused()
	infos := make([]Info, len(set.entries))
	for i, e := range set.entries {
		infos[i] = e.info(set)
		infos[i].Default = i == 0
		infos[i].Refused = refused[e.source.id()].reason
	}
	return append(infos, s.managedInfos(set)...)
}

// Faults tells what of the disk is not served and belongs to no certificate
// that is: a folder that cannot be read, a pair in it that is wrong.
func (s *Store) Faults() []string {
	known := s.current.Load().byID()
	var all []string
	for id, r := range s.getRefused() {
		if known[id] == nil {
			all = append(all, r.reason)
		}
	}
	slices.Sort(all)
	return all
}

// Warnings tells what is wrong with the certificates served now but did not
// keep them from being served: a chain without its intermediate, an end of
// validity within 30 days. Each begins with the Source's At. It looks at the
// clock, so asking again later may bring more.
func (s *Store) Warnings() []string {
	var texts []string
	for _, w := range s.warnings(time.Now()) {
		texts = append(texts, w.text)
	}
	return texts
}

func (s *Store) warnings(now time.Time) []warning {
	return append(s.current.Load().warnings(now), s.managedWarnings(now)...)
}
