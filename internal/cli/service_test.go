//go:build unix

package cli

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"singlegate/internal/systemd"
)

// The watchdog hears nothing while what a reload, a snapshot or a drain needs is
// held.
func TestWatchdogNeedsTheControlPath(t *testing.T) {
	dir := t.TempDir()
	config := filepath.Join(dir, "gateway.yaml")
	if err := os.WriteFile(config, []byte("listeners: [{name: plain, address: \"127.0.0.1:0\"}]\nroutes: [{path: /, page: check}]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "notify")
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer manager.Close()
	file, store, err := load(config)
	if err != nil {
		t.Fatal(err)
	}
	as := service{notify: systemd.NewNotifier(func(name string) string {
		return map[string]string{"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "1000000"}[name]
	})}
	s, err := openSiteAs(as, file, store, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	defer s.close(t.Context())

	s.nodes.order.Lock()
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.proveAlive()
	}()
	buffer := make([]byte, 64)
	manager.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
	if n, err := manager.Read(buffer); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("while everything hangs systemd hears %q (%v)", buffer[:n], err)
	}
	s.nodes.order.Unlock()
	<-done
	manager.SetReadDeadline(time.Now().Add(10 * time.Second))
	if n, err := manager.Read(buffer); err != nil || string(buffer[:n]) != "WATCHDOG=1" {
		t.Errorf("then systemd hears %q (%v)", buffer[:n], err)
	}
}
