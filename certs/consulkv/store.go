// Package consulkv keeps in Consul's key-value store what gateways of one site
// share: certificates got by ACME with their private keys, and the locks under
// which one of them gets one. A Store is a certmagic.Storage. Values are
// encrypted; whoever can read Consul but not the gateways' key file learns the
// names of keys and the sizes of values.
//
// The package is a leaf: it imports nothing else of this module.
package consulkv

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/hashicorp/consul/api"
)

// MinSecret is the least length of the secret that values are encrypted with, in
// bytes: `openssl rand -base64 32` gives more.
const MinSecret = 32

// maxValue is Consul's own bound.
const maxValue = 512 << 10

// answerTime bounds every request but the waiting for a lock.
const answerTime = 15 * time.Second

// A Store keeps values under one prefix. Its methods are safe for concurrent use.
type Store struct {
	client *api.Client
	prefix string // with a slash at its end
	seal   cipher.AEAD

	mu    sync.Mutex
	locks map[string]*api.Lock // those held
}

var _ certmagic.Storage = (*Store)(nil)

// New returns a store under the prefix, such as "singlegate/certs". Gateways that
// share it have the same secret, of MinSecret bytes at least.
func New(client *api.Client, prefix string, secret []byte) (*Store, error) {
	if len(secret) < MinSecret {
		return nil, fmt.Errorf("the key has %d bytes, and %d are the least: make one with openssl rand -base64 32", len(secret), MinSecret)
	}
	key, err := hkdf.Key(sha256.New, secret, nil, "singlegate consulkv values", 32)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	seal, err := cipher.NewGCM(block)
	if err != nil {
		return nil, err
	}
	return &Store{client: client, prefix: strings.Trim(prefix, "/") + "/", seal: seal, locks: map[string]*api.Lock{}}, nil
}

// Store implements certmagic.Storage.
func (s *Store) Store(ctx context.Context, key string, value []byte) error {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	sealed := s.encrypt(key, value, time.Now())
	if len(sealed) > maxValue {
		return fmt.Errorf("%s: the value has %d bytes, and Consul takes %d at most", key, len(value), maxValue)
	}
	_, err := s.client.KV().Put(&api.KVPair{Key: s.prefix + key, Value: sealed}, (&api.WriteOptions{}).WithContext(ctx))
	return err
}

// Load implements certmagic.Storage. A value that was encrypted with another
// secret, for another key, or changed, is an error.
func (s *Store) Load(ctx context.Context, key string) ([]byte, error) {
	value, _, err := s.load(ctx, key)
	return value, err
}

func (s *Store) load(ctx context.Context, key string) ([]byte, time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	pair, _, err := s.client.KV().Get(s.prefix+key, consistent(ctx))
	if err != nil {
		return nil, time.Time{}, err
	}
	if pair == nil {
		return nil, time.Time{}, fmt.Errorf("%s: %w", key, fs.ErrNotExist)
	}
	return s.decrypt(key, pair.Value)
}

func consistent(ctx context.Context) *api.QueryOptions {
	return (&api.QueryOptions{RequireConsistent: true}).WithContext(ctx)
}

// Delete implements certmagic.Storage.
func (s *Store) Delete(ctx context.Context, key string) error {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	write := (&api.WriteOptions{}).WithContext(ctx)
	if _, err := s.client.KV().DeleteTree(s.prefix+key+"/", write); err != nil {
		return err
	}
	_, err := s.client.KV().Delete(s.prefix+key, write)
	return err
}

// Exists implements certmagic.Storage.
func (s *Store) Exists(ctx context.Context, key string) bool {
	_, err := s.Stat(ctx, key)
	return err == nil
}

// List implements certmagic.Storage.
func (s *Store) List(ctx context.Context, folder string, recursive bool) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	under := s.prefix
	if folder = strings.Trim(folder, "/"); folder != "" {
		under += folder + "/"
	}
	full, _, err := s.client.KV().Keys(under, "", consistent(ctx))
	if err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	var keys []string
	for _, k := range full {
		below := strings.TrimPrefix(k, under)
		for i, part := 0, ""; i < len(below); i += len(part) + 1 {
			part, _, _ = strings.Cut(below[i:], "/")
			key := path.Join(folder, below[:i+len(part)])
			if !seen[key] {
				seen[key] = true
				keys = append(keys, key)
			}
			if !recursive {
				break
			}
		}
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("%s: %w", folder, fs.ErrNotExist)
	}
	return keys, nil
}

// Stat implements certmagic.Storage.
func (s *Store) Stat(ctx context.Context, key string) (certmagic.KeyInfo, error) {
	value, modified, err := s.load(ctx, key)
	if err == nil {
		return certmagic.KeyInfo{Key: key, Modified: modified, Size: int64(len(value)), IsTerminal: true}, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return certmagic.KeyInfo{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	below, _, listErr := s.client.KV().Keys(s.prefix+key+"/", "/", consistent(ctx))
	switch {
	case listErr != nil:
		return certmagic.KeyInfo{}, listErr
	case len(below) == 0:
		return certmagic.KeyInfo{}, err
	}
	return certmagic.KeyInfo{Key: key}, nil
}

// A stored value is a version, the time of its storing, a nonce and the sealed
// value, bound to its key.
const (
	version    = 1
	timeLength = 8
	headLength = 1 + timeLength
)

func (s *Store) encrypt(key string, value []byte, now time.Time) []byte {
	sealed := make([]byte, headLength+s.seal.NonceSize(), headLength+s.seal.NonceSize()+len(value)+s.seal.Overhead())
	sealed[0] = version
	binary.BigEndian.PutUint64(sealed[1:], uint64(now.UnixNano()))
	nonce := sealed[headLength:]
	rand.Read(nonce)
	return s.seal.Seal(sealed, nonce, value, bound(sealed[:headLength], key))
}

func (s *Store) decrypt(key string, sealed []byte) ([]byte, time.Time, error) {
	if len(sealed) < headLength+s.seal.NonceSize() || sealed[0] != version {
		return nil, time.Time{}, fmt.Errorf("%s: what Consul has there was not stored by a gateway", key)
	}
	nonce, rest := sealed[headLength:headLength+s.seal.NonceSize()], sealed[headLength+s.seal.NonceSize():]
	value, err := s.seal.Open(nil, nonce, rest, bound(sealed[:headLength], key))
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("%s: the value in Consul cannot be decrypted: it was stored with another key file, or changed", key)
	}
	return value, time.Unix(0, int64(binary.BigEndian.Uint64(sealed[1:]))), nil
}

// bound is what is authenticated beside the value.
func bound(head []byte, key string) []byte { return append(head[:len(head):len(head)], key...) }
