// Package systemd speaks the two small protocols between a service and systemd:
// readiness (sd_notify) and sockets that systemd opens (LISTEN_FDS). Both are a
// few environment variables and a datagram, so there is no library for them, and
// nothing of systemd needs to be there: any parent that speaks them will do.
// Where the environment says nothing, everything here does nothing.
//
// The package imports the standard library and x/sys only.
package systemd

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
)

// A Notifier tells systemd how the process is. Its methods may be called
// concurrently. A nil one tells nobody.
type Notifier struct {
	address  *net.UnixAddr
	watchdog time.Duration
}

// NewNotifier reads NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID; it is nil
// where nobody listens.
func NewNotifier(env func(string) string) *Notifier {
	path := env("NOTIFY_SOCKET")
	if !strings.HasPrefix(path, "/") && !strings.HasPrefix(path, "@") {
		return nil // also vsock, which is for whole machines
	}
	n := &Notifier{address: &net.UnixAddr{Name: path, Net: "unixgram"}}
	usec, err := strconv.ParseInt(env("WATCHDOG_USEC"), 10, 64)
	pid := env("WATCHDOG_PID")
	if err == nil && usec > 0 && usec < int64(time.Hour/time.Microsecond)*24 && (pid == "" || pid == strconv.Itoa(os.Getpid())) {
		n.watchdog = time.Duration(usec) * time.Microsecond
	}
	return n
}

// Watchdog is how often Alive has to be called at least; 0: there is no watchdog.
// It is half of what systemd waits, as sd_watchdog_enabled(3) advises.
func (n *Notifier) Watchdog() time.Duration {
	if n == nil {
		return 0
	}
	return n.watchdog / 2
}

// Ready says that the process serves, or serves again after Reloading; status is
// for people (systemctl status) and must be one line.
func (n *Notifier) Ready(status string) error { return n.send("READY=1", "STATUS="+status) }

// Reloading says that the config is being read anew; Ready ends it.
func (n *Notifier) Reloading() error {
	return n.send("RELOADING=1", fmt.Sprintf("MONOTONIC_USEC=%d", monotonic().Microseconds()), "STATUS=reloading")
}

// Stopping says that the process is ending, and asks for the time that this may
// take.
func (n *Notifier) Stopping(within time.Duration) error {
	return n.send("STOPPING=1", fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", within.Microseconds()), "STATUS=stopping")
}

// Alive keeps the watchdog quiet.
func (n *Notifier) Alive() error { return n.send("WATCHDOG=1") }

// sendTimeout bounds what a full socket of systemd may cost.
const sendTimeout = time.Second

func (n *Notifier) send(lines ...string) error {
	if n == nil {
		return nil
	}
	socket, err := net.DialUnix("unixgram", nil, n.address)
	if err != nil {
		return fmt.Errorf("telling systemd: %w", err)
	}
	defer socket.Close()
	socket.SetWriteDeadline(time.Now().Add(sendTimeout))
	if _, err := socket.Write([]byte(strings.Join(lines, "\n"))); err != nil {
		return fmt.Errorf("telling systemd: %w", err)
	}
	return nil
}
