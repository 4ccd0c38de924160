//go:build !linux

package gateway

import "net"

// A watcher tells when clients that wait for an answer leave. On this system
// that shows only when the answer is written.
type watcher struct{}

func newWatcher() (*watcher, error) { return &watcher{}, nil }

func (*watcher) watch(net.Conn, func()) (stop func()) { return func() {} }

func (*watcher) close() {}
