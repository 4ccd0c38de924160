package discovery

import (
	"maps"
	"sync"
)

// An Explainer is a Source that can say why nothing is known of the services
// that it should know and that its snapshots lack, by name. Unknown may be called
// at any time, from any goroutine; the map is the caller's.
type Explainer interface {
	Unknown() map[string]string
}

// unknownOf is what a source says of what it does not know.
func unknownOf(s Source) map[string]string {
	if e, ok := s.(Explainer); ok {
		return e.Unknown()
	}
	return nil
}

// reasons say why nothing is known of some services.
type reasons struct {
	mu sync.Mutex
	by map[string]string
}

// set tells whether the reasons are other ones than before.
func (r *reasons) set(by map[string]string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	changed := !maps.Equal(r.by, by)
	r.by = by
	return changed
}

func (r *reasons) all() map[string]string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.by)
}
