package consulkv

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/consul/api"
)

// A gateway that dies loses its locks when its session ends: after sessionTTL, or
// up to twice that, and lockDelay more.
const (
	sessionTTL = "15s"
	lockDelay  = time.Second
)

// Lock implements certmagic.Locker. It waits for the lock until ctx ends. A lock
// whose session Consul has ended meanwhile is lost without a word, which
// certmagic allows for: two gateways may then get the same certificate.
func (s *Store) Lock(ctx context.Context, name string) error {
	lock, err := s.client.LockOpts(&api.LockOptions{
		Key:              s.prefix + "locks/" + name,
		SessionName:      "singlegate",
		SessionTTL:       sessionTTL,
		LockDelay:        lockDelay,
		MonitorRetries:   5,
		MonitorRetryTime: time.Second,
	})
	if err != nil {
		return err
	}
	lost, err := lock.Lock(ctx.Done())
	switch {
	case err != nil:
		return fmt.Errorf("locking %s: %w", name, err)
	case lost == nil: // ctx ended first
		return context.Cause(ctx)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.locks[name] = lock
	return nil
}

// Unlock implements certmagic.Locker.
func (s *Store) Unlock(_ context.Context, name string) error {
	s.mu.Lock()
	lock := s.locks[name]
	delete(s.locks, name)
	s.mu.Unlock()
	if lock == nil {
		return fmt.Errorf("unlocking %s: it is not locked", name)
	}
	err := lock.Unlock()
	if errors.Is(err, api.ErrLockNotHeld) {
		return nil // lost before
	}
	if err == nil {
		// A key that nobody wants is removed; one that somebody waits for stays.
		if err = lock.Destroy(); errors.Is(err, api.ErrLockInUse) {
			err = nil
		}
	}
	return err
}
