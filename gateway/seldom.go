package gateway

import (
	"sync/atomic"
	"time"
)

// seldom keeps a warning that many connections could give each to one in ten
// seconds. The zero value is ready. Safe for concurrent use.
type seldom struct{ last atomic.Int64 } // unix seconds

// due tells whether the warning may be given now; then it counts as given.
func (s *seldom) due() bool {
	now, last := time.Now().Unix(), s.last.Load()
	return now-last >= 10 && s.last.CompareAndSwap(last, now)
}
